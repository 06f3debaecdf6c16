"""What can happen, and what a task can be needed for."""

WAKE, COMPUTED, ARRIVE, DONE, REPLY, ALARM = range(6)
"""A device wakes up; its CPU is done with a task; a payload reaches the edge; a worker is done with it; a reply
reaches the device; a device's patience ends."""

ROW_TO_COME, ON_ITS_WAY = 1, 2
