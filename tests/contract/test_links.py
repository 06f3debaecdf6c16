"""What every link in the table must do, alone and behind the queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit.errors import InputError
from splitexit.links import LINKS, Fifo, Link

TRACES = Path(__file__).parents[2] / "scenarios" / "traces"
CASES: dict[str, dict[str, Any]] = {
    "constant": {"mbps": 5.85, "delay_ms": 10.0},
    "constant +jitter": {"mbps": 5.85, "delay_ms": 10.0, "jitter_ms": 8.0},
    "trace": {"trace": TRACES / "norway_tram_12", "delay_ms": 25.0, "scale": 2.0},
    "trace +jitter": {"trace": TRACES / "norway_tram_12", "jitter_ms": 30.0, "jitter": "uniform"},
    "mahimahi": {"trace": TRACES / "lte_walk.up", "delay_ms": 20.0},
    "markov": {"mbps": [0.5, 2.0, 6.0, 19.0], "dwell_ms": 5.0, "delay_ms": 10.0},
    "markov +outage": {"mbps": [0.0, 12.0], "dwell_ms": [4.0, 30.0], "jitter_ms": 2.0},
    "fading": {"bandwidth_mhz": 2.0, "snr_db": 10.0, "coherence_ms": 5.0, "delay_ms": 4.0},
    "token-bucket": {"mbps": 5.85, "depth_kb": 50.0, "delay_ms": 10.0},
    "token-bucket +peak": {"mbps": 5.85, "depth_kb": 50.0, "peak_mbps": 20.0},
    "constant +tcp": {"mbps": 20.0, "delay_ms": 20.0, "transport": "tcp"},
    "trace +tcp": {"trace": TRACES / "norway_tram_12", "transport": "tcp", "rtt_ms": 70.0, "jitter_ms": 3.0},
    "mahimahi +tcp": {"trace": TRACES / "lte_walk.up", "delay_ms": 20.0, "transport": "tcp"},
    "markov +tcp": {"mbps": [0.5, 19.0], "dwell_ms": 50.0, "delay_ms": 30.0, "transport": "tcp"},
    "token-bucket +tcp": {"mbps": 5.85, "depth_kb": 50.0, "delay_ms": 10.0, "transport": "tcp"},
    "gilbert-elliott": {"mbps": 5.85, "delay_ms": 10.0, "p": 0.02, "r": 0.3, "loss_good": 0.001, "loss_bad": 0.8},
    "gilbert-elliott +jitter": {"mbps": 5.85, "p": 0.02, "r": 0.3, "jitter_ms": 5.0, "jitter": "pareto-normal"},
    "3g": {},
    "lte": {"direction": "down"},
    "5g": {"direction": "up", "jitter_ms": 4.0},
    "wifi": {},
    "ethernet": {},
    "lora": {"direction": "down"},
}
"""A name of the table, and what tells cases of the same name apart."""

NO_FUNCTION_OF_TIME = {"token-bucket", "gilbert-elliott"}
RANDOM = {"markov", "fading", "gilbert-elliott"}
Messages = list[tuple[float, int]]
MESSAGES = st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 200_000)), max_size=30)
"""Gaps in seconds and sizes in bytes."""


def kind(case: str) -> type[Link]:
    """The class of a case."""
    return LINKS.load(case.split()[0])


def make(case: str) -> Link:
    """A fresh link."""
    return kind(case)(**CASES[case])


every_link = pytest.mark.parametrize("case", CASES)


def sent(fifo: Fifo, messages: Messages) -> list[tuple[float, float, float]]:
    """What becomes of messages offered one after the other."""
    now_s, found = 0.0, []
    for gap_s, size_bytes in messages:
        now_s += gap_s
        found.append(fifo.send(now_s, size_bytes))
    return found


def test_every_link_has_a_case() -> None:
    """A link that is added to the table must be added to the cases."""
    assert {case.split()[0] for case in CASES} == set(LINKS.names())


@every_link
def test_parameters(case: str) -> None:
    """Keyword-only, annotated, stored unchanged; no delay (but a preset's own), jitter and transport by default."""
    link = make(case)
    parameters = inspect.signature(kind(case)).parameters
    for parameter in parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty
    defaults = {"jitter_ms": 0.0, "jitter": "normal", "transport": "none", "rtt_ms": None}
    assert {key: parameters[key].default for key in defaults} == defaults
    assert "delay_ms" not in parameters or parameters["delay_ms"].default == 0.0
    for key, value in CASES[case].items():
        assert getattr(link, key) == value
    assert link.delay_s == link.delay_ms / 1000.0


@every_link
@settings(max_examples=30, deadline=None)
@given(messages=MESSAGES)
def test_first_come_first_served(case: str, messages: Messages) -> None:
    """A message starts when it is offered or when the one before is through; order is kept; nothing is early."""
    fifo = Fifo(make(case))
    now_s = free_s = arrived_s = 0.0
    for gap_s, size_bytes in messages:
        now_s += gap_s
        start_s, sent_s, arrive_s = fifo.send(now_s, size_bytes)
        assert start_s == max(now_s, free_s)
        assert sent_s >= start_s
        assert arrive_s == max(arrived_s, fifo.link.arrive_s(start_s, sent_s)) >= sent_s
        assert fifo.link.jitter_ms or arrive_s == sent_s + fifo.link.delay_s
        assert fifo.free_s == sent_s
        free_s, arrived_s = sent_s, arrive_s


@every_link
@settings(max_examples=30, deadline=None)
@given(messages=MESSAGES, more=MESSAGES)
def test_a_fork_has_the_same_future_and_no_effect(case: str, messages: Messages, more: Messages) -> None:
    """Two forks and the origin agree, in whatever order they are asked."""
    fifo = Fifo(make(case))
    sent(fifo, messages)
    now_s = sum(gap for gap, _ in messages)
    later: Messages = [(now_s, 1500), *more]
    one, two = fifo.fork(), fifo.fork()
    assert sent(one, later) == sent(two, later) == sent(fifo, later)


@every_link
@settings(max_examples=30, deadline=None)
@given(messages=MESSAGES, size_bytes=st.integers(0, 200_000))
def test_peek_is_what_send_would_say(case: str, messages: Messages, size_bytes: int) -> None:
    """As often as it is asked."""
    fifo = Fifo(make(case))
    sent(fifo, messages)
    now_s = sum(gap for gap, _ in messages) + 1.0
    peeked = [fifo.peek(now_s, size) for size in (90_000, size_bytes, size_bytes)]
    assert fifo.peek(inf, size_bytes) == (inf, inf, inf)
    assert peeked[1] == peeked[2] == fifo.send(now_s, size_bytes)


@every_link
def test_the_long_run_rate(case: str) -> None:
    """Back-to-back messages go through at `mean_bps`, headers included; recovery waits, which it leaves out, are 0."""
    link = kind(case)(**CASES[case] | ({"recovery_ms": 0.0} if case.startswith("gilbert-elliott") else {}))
    fifo, count = Fifo(link), 40_000
    size_bytes, wire_bytes = (14_480, 15_000) if link.transport == "tcp" else (15_000, 15_000)
    for _ in range(count):
        end_s = fifo.send(0.0, size_bytes)[1]
    assert 8.0 * wire_bytes * count / end_s == pytest.approx(link.mean_bps, rel=0.01)


@every_link
def test_chance_comes_from_the_generator_alone(case: str) -> None:
    """Equal generators, equal links; and a fork that is reseeded starts anew."""
    messages: Messages = [(0.001, 30_000)] * 300

    def run(link: Link, seed: int) -> list[tuple[float, float, float]]:
        fresh = link.fork()
        fresh.reseed(np.random.default_rng(seed))
        return sent(Fifo(fresh), messages)

    used = make(case)
    first = run(used, 1)
    assert run(used, 1) == run(make(case), 1) == first
    random = case.split()[0] in RANDOM or "jitter_ms" in CASES[case]
    assert (run(used, 2) != first) == random


@every_link
def test_nothing_takes_no_time(case: str) -> None:
    """An empty message is through at once, and takes nothing from the next."""
    link, other = make(case), make(case)
    assert link.finish_s(0.25, 0) == 0.25
    assert link.finish_s(0.25, 4000) == other.finish_s(0.25, 4000)


fluid_links = pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] not in NO_FUNCTION_OF_TIME])


@fluid_links
@settings(max_examples=30, deadline=None)
@given(start_s=st.floats(0.0, 300.0), size_bytes=st.floats(1.0, 300_000.0))
def test_how_much_is_the_inverse_of_when(case: str, start_s: float, size_bytes: float) -> None:
    """Carrying a message takes until as much has gone through, and not longer; asked in any order."""
    link = make(case)
    end_s = link.fluid_s(start_s, size_bytes)
    precision_bytes = 1e-9 * (size_bytes + link.mean_bps)
    assert link.sent_bytes(start_s, end_s) == pytest.approx(size_bytes, abs=precision_bytes)
    assert link.sent_bytes(start_s, start_s + 0.999 * (end_s - start_s)) <= size_bytes
    if not case.startswith("mahimahi"):  # whose messages take whole opportunities
        assert link.finish_s(start_s, size_bytes) == end_s


@fluid_links
@settings(max_examples=30, deadline=None)
@given(times_s=st.lists(st.floats(0.0, 300.0), min_size=3, max_size=3).map(sorted))
def test_bytes_add_up_over_time(case: str, times_s: list[float]) -> None:
    """Nothing in no time; never negative; two stretches carry what both together do."""
    link, (a, b, c) = make(case), times_s
    both = link.sent_bytes(a, c)
    assert link.sent_bytes(b, b) == 0.0
    assert min(link.sent_bytes(a, b), link.sent_bytes(b, c)) >= 0.0
    precision_bytes = 1e-12 * 300.0 * link.mean_bps
    assert link.sent_bytes(a, b) + link.sent_bytes(b, c) == pytest.approx(both, rel=1e-12, abs=precision_bytes)


@pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] in NO_FUNCTION_OF_TIME])
def test_a_link_without_a_function_of_time_says_so(case: str) -> None:
    """By name, in one line."""
    with pytest.raises(InputError, match=rf"^{case.split()[0]}: its capacity depends on what is sent, .*[^\n]*$"):
        make(case).sent_bytes(0.0, 1.0)


def drift_s(link: Link, expected_s: Callable[[int], float]) -> float:
    """The largest distance from the ideal clock over a hundred thousand back-to-back messages."""
    fifo = Fifo(link)
    return max(abs(fifo.send(0.0, 1500)[1] - expected_s(k + 1)) for k in range(100_000))


def test_the_virtual_clock_does_not_drift(tmp_path: Path) -> None:
    """Trap 15; to 1e-9 s over minutes of traffic, against one multiplication per message."""
    steady = tmp_path / "steady"
    steady.write_text("0 12\n1 12\n3 12\n")
    assert drift_s(LINKS.load("constant")(mbps=12.0), lambda k: k / 1000.0) < 1e-9  # type: ignore[call-arg]
    assert drift_s(LINKS.load("trace")(trace=steady), lambda k: k / 1000.0) < 1e-9  # type: ignore[call-arg]


def test_propagation_holds_nothing() -> None:
    """Trap 17: the second message follows at once, though the first has not arrived."""
    fifo = Fifo(LINKS.load("constant")(mbps=8.0, delay_ms=50.0))  # type: ignore[call-arg]
    assert fifo.send(1.0, 10_000) == pytest.approx((1.0, 1.01, 1.06), abs=1e-12)
    assert fifo.send(1.0, 10_000) == pytest.approx((1.01, 1.02, 1.07), abs=1e-12)
    assert fifo.send(2.0, 10_000) == pytest.approx((2.0, 2.01, 2.06), abs=1e-12)
