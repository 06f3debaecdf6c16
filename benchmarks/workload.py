"""The workload that every contestant simulates, and the name that each gives to its parts.

Poisson arrivals at 120/s; a device takes 5 ms; 8,192 bytes go up at 20 Mbit/s and 5 ms of propagation; an edge of two
workers takes 2 ms; 100 bytes come back the same way. Everything first come, first served.
"""

PER_S = 120.0
DEVICE_S, EDGE_S, WORKERS = 0.005, 0.002, 2
UP_BYTES, DOWN_BYTES, RATE_BPS, DELAY_S = 8192, 100, 20e6, 0.005
UP_S, DOWN_S = 8 * UP_BYTES / RATE_BPS, 8 * DOWN_BYTES / RATE_BPS
