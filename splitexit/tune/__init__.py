"""Choosing exit thresholds, and looking at how honest confidences are.

    effects      what thresholds do to a split, and what they are to achieve
    thresholds   five ways to fit the thresholds of a rule that looks at how sure an exit is
    exclusion    three ways to fit those of class exclusion
    rules        which of the two a rule needs
    temperature  one temperature per exit, and the calibration error before and after

What is fitted is fitted on the calibration split; the test split is only reported. All of it reads recordings;
nothing is computed by a network.
"""
