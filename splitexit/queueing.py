"""Mean waits of queues with Poisson arrivals, and how full a server must be to hold so many requests.

M/G/1: Pollaczek (1930) and Khinchine (1932). M/M/c: Erlang (1917); his B and C by the recursion that stays within 0..1
for any number of workers. All waits are infinite where more comes than can be done.
"""

from __future__ import annotations

from math import inf, sqrt


def m_g_1_wait_s(rate_hz: float, mean_s: float, square_s2: float) -> float:
    """Mean wait for one worker: λ·E[S²] / (2·(1 − λ·E[S])).

    Args:
        rate_hz: arrivals a second, λ.
        mean_s, square_s2: mean of the service time S and of its square. Services that never vary have the square of
            the mean (M/D/1), exponential ones twice that (M/M/1).
    """
    load = rate_hz * mean_s
    return inf if load >= 1.0 else rate_hz * square_s2 / (2.0 * (1.0 - load))


def erlang_c(load: float, workers: int) -> float:
    """Probability that an arrival must wait in M/M/c; `load` = arrivals a second · mean service, in workers."""
    if load >= workers:
        return 1.0
    blocked = 1.0  # Erlang's B: the probability of being turned away where nobody may wait
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1.0 - load / workers * (1.0 - blocked))


def m_m_c_wait_s(load: float, service_s: float, workers: int) -> float:
    """Mean wait for `workers` with exponential services of mean `service_s`; `load` as for `erlang_c`."""
    return inf if load >= workers else erlang_c(load, workers) * service_s / (workers - load)


def m_m_c_number(load: float, workers: int) -> float:
    """Mean number of requests in M/M/c, waiting and running; `load` as for `erlang_c`."""
    return inf if load >= workers else load + erlang_c(load, workers) * load / (workers - load)


def load_of(number: float, workers: int) -> float:
    """The load at which M/M/c holds so many requests on average: the inverse of `m_m_c_number`, to 1e-9 of a worker.

    It is below `workers` however large the number is.
    """
    if workers == 1:
        return number / (1.0 + number)
    if workers == 2:  # the number is load / (1 - (load / 2)²)
        return min(2.0 * number / (1.0 + sqrt(1.0 + number**2)), 2.0 - 1e-9)
    low, high = 0.0, float(workers)
    while high - low > 1e-9:
        middle = (low + high) / 2.0
        low, high = (middle, high) if m_m_c_number(middle, workers) < number else (low, middle)
    return low
