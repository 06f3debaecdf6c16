"""The simulated world: answers the steps of `splitexit.inference` in virtual time, from recordings.

SimPy keeps the calendar. Every station is a busy-until clock, so a request costs a handful of events:
begin, device done, edge reached, edge done, reply.
"""

from splitexit.sim.run import simulate

__all__ = ["simulate"]
