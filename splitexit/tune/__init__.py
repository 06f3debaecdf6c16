"""Choosing exit thresholds, and looking at how honest confidences are.

    thresholds   four ways to fit the thresholds of an exit rule, and what they do to a split
    temperature  one temperature per exit, and the calibration error before and after

What is fitted is fitted on the calibration split; the test split is only reported. All of it reads recordings;
nothing is computed by a network.
"""
