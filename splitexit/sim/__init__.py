"""The simulated world: answers the steps of `splitexit.inference` in virtual time, from recordings.

SimPy keeps the calendar. A request is its own event and costs a handful of turns: begin, device done, edge reached,
edge done, reply. `compiled` is a second engine, with the same rows, for decisions that do not depend on queues.
"""

from splitexit.sim.run import simulate

__all__ = ["simulate"]
