"""How often requests come to a device, as far as it can tell from its own clock and queue."""

from __future__ import annotations

from math import inf

from splitexit.decision import Observation

READS = frozenset({"now_s", "queue_length"})

MEMORY = 0.98
"""What an arrival weighs relative to the next one: some fifty of them count [inferred]."""


def fresh() -> dict[str, float]:
    """What is known before the first request; plain numbers, so that a policy may name it in `memory`."""
    return {"arrivals": 0.0, "seconds": 0.0, "last_s": 0.0, "waiting": -1.0}


def count(state: dict[str, float], observation: Observation) -> None:
    """A request is taken up now; those that came since the last one are it, and what the queue has grown by.

    So requests count when they come, and not when a busy device gets to them.
    """
    now_s, waiting = observation.now_s, float(observation.queue_length)
    if state["waiting"] >= 0.0:
        state["arrivals"] = MEMORY * state["arrivals"] + 1.0 + waiting - state["waiting"]
        state["seconds"] = MEMORY * state["seconds"] + now_s - state["last_s"]
    state["last_s"], state["waiting"] = now_s, waiting


def rate_hz(state: dict[str, float]) -> float:
    """Requests a second; 0 before the second one."""
    return max(state["arrivals"], 0.0) / state["seconds"] if state["seconds"] > 0.0 else 0.0


def gap_s(state: dict[str, float]) -> float:
    """Mean seconds between two; inf before the second one."""
    rate = rate_hz(state)
    return 1.0 / rate if rate > 0.0 else inf
