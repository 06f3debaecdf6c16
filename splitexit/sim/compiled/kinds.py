"""What can happen, and what a task can be needed for."""

WAKE, COMPUTED, ARRIVE, DONE, REPLY = range(5)
"""A device wakes up; its CPU is done with a task; a payload reaches the edge; a worker is done with it; a reply
reaches the device. And a device's patience may end, for which there are alarms."""

ROW_TO_COME, ON_ITS_WAY, AWAITED = 1, 2, 4
"""A task is kept until its row is written, it has left links and edge, and its device waits for it no more."""
