"""Whether drawn parts add up as measured ones did."""

import numpy as np
import pytest
from scipy.special import ndtri

from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.copula import Dependence, Uniforms
from splitexit.models.chain import Clock, checked


def clock_of(dependence: Dependence, samples: int = 3000) -> Clock:
    """Four stages and two heads, of lognormal seconds that depend so."""
    u = Uniforms(dependence, 6, 0, np.random.default_rng(4)).take(samples).T
    clock = Clock()
    for number, scores in enumerate(ndtri(u)):
        kind, which, median_s = ("stage", number, 0.004) if number < 4 else ("exit", number - 4, 0.0002)
        clock.seconds[kind, which] = (median_s * np.exp(0.25 * scores)).tolist()
    return clock


def calibration(clock: Clock) -> Calibration:
    return Calibration(
        machine={},
        stages=tuple(clock.distribution("stage", number) for number in range(4)),
        exits=tuple(clock.distribution("exit", number) for number in range(2)),
        encode={},
        decode={},
        rpc=Rpc(0, 0, Distribution.constant(0.0)),
        dependence=Dependence.measured(clock.parts("stage", "exit").tolist()),
    )


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_with_dependence_the_whole_chain_has_the_tail_that_was_measured(rho: float) -> None:
    clock = clock_of(Dependence(rho, 0.5))
    check = checked(calibration(clock), clock.chain_s())
    for name in ("mean", "p50", "p95", "p99"):
        measured = check["measured_ms"][name]
        assert check["dependent_ms"][name] == pytest.approx(measured, rel=0.03), name
    p99 = {world: statistics["p99"] for world, statistics in check.items()}
    assert p99["independent_ms"] < 0.96 * p99["measured_ms"]


def test_without_any_both_are_the_same() -> None:
    clock = clock_of(Dependence())
    check = checked(calibration(clock), clock.chain_s())
    assert check["dependent_ms"] == check["independent_ms"]
    assert check["independent_ms"]["p95"] == pytest.approx(check["measured_ms"]["p95"], rel=0.02)


def test_a_clock_keeps_parts_in_their_order() -> None:
    clock = Clock()
    assert clock.time("stage", 0, lambda a, b: a + b, 1, 2) == 3
    clock.time("exit", 0, int)
    clock.time("decode", (0, "raw"), int)
    assert clock.parts("stage", "exit").shape == (2, 1)
    assert clock.chain_s().shape == (1,)
    assert clock.chain_s()[0] == pytest.approx(clock.parts("stage", "exit").sum())
