"""Reinforcement learning: the simulator as a Gymnasium environment, and SAC-d, which learns in it.

    env.py     OffloadEnv: one step is the decision of one request
    reward.py  what an answer is worth to the learner
    sac_d.py   the learner: actor, twin critics, temperature
    train.py   the loop, with a checkpoint

What was learned runs as the policy `sac_d` (splitexit.policies.sac_d), in numpy.
"""
