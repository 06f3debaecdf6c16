"""The lossy link against its closed forms."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest

from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.links.gilbert_elliott import GilbertElliott

PACKET = 1500


def link(seed: int = 0, **parameters: Any) -> GilbertElliott:
    """12 Mbit/s, so that a packet takes one millisecond."""
    made = GilbertElliott(**({"mbps": 12.0, "p": 0.05, "r": 0.25} | parameters))
    made.reseed(np.random.default_rng(seed))
    return made


def losses(made: GilbertElliott, packets: int) -> list[bool]:
    """Packet by packet."""
    return [made._lost() for _ in range(packets)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"p": 0.05, "r": 0.25},
        {"p": 0.05, "r": 0.25, "loss_good": 0.02, "loss_bad": 0.6},
        {"p": 0.5, "r": 0.5, "loss_good": 0.1, "loss_bad": 0.3},
        {"p": 0.0, "r": 1.0, "loss_good": 0.07},
    ],
)
def test_stationary_loss(parameters: dict[str, Any]) -> None:
    """(p loss_bad + r loss_good) / (p + r), within five standard deviations of a correlated mean."""
    made, packets = link(**parameters), 200_000
    rate = np.mean(losses(made, packets))
    # A two-state chain with second eigenvalue 1 - p - r stretches the variance by at most this factor.
    stretch = (2 - made.p - made.r) / (made.p + made.r) if made.p else 1.0
    deviation = np.sqrt(made.loss_rate * (1 - made.loss_rate) * max(stretch, 1.0) / packets)
    assert abs(rate - made.loss_rate) < 5 * deviation
    assert made.mean_bps == pytest.approx(12e6 * (1 - made.loss_rate))


def test_bursts_are_as_long_as_the_bad_state() -> None:
    """Mean 1 / r packets where the bad state loses all and the good one nothing."""
    runs = [len(list(run)) for lost, run in groupby(losses(link(p=0.05, r=0.25), 200_000)) if lost]
    assert np.mean(runs) == pytest.approx(4.0, rel=0.05)


def test_without_losses_it_is_a_constant_link() -> None:
    """p = 0 and nothing lost in the good state."""
    made, steady = Fifo(link(p=0.0)), Fifo(Constant(mbps=12.0))
    for size_bytes in (1, 1499, 1500, 1501, 40_000):
        assert made.send(0.0, size_bytes) == pytest.approx(steady.send(0.0, size_bytes), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("packets", [1, 2, 7])
def test_alternating_losses_by_hand(seed: int, packets: int) -> None:
    """p = r = 1: every second packet is lost; each loss costs 1 ms again and one wait of 2 * 15 ms."""
    made = link(seed, p=1.0, r=1.0, delay_ms=15.0)
    lost = packets if made._bad else packets - 1
    finish_s = made.finish_s(0.5, packets * PACKET)
    assert finish_s == pytest.approx(0.5 + (packets + lost) * 0.001 + lost * 0.030, abs=1e-9)


def test_a_run_of_losses_costs_one_wait() -> None:
    """However long it is: serialisation again for each packet, one wait for the run."""
    for seed in range(50):
        made = link(seed, p=0.3, r=0.2, recovery_ms=40.0)
        fates = losses(link(seed, p=0.3, r=0.2, recovery_ms=40.0), 10_000)
        needed = [k for k, lost in enumerate(fates) if not lost][9] + 1
        runs = sum(lost for lost, _ in groupby(fates[:needed]))
        assert made.finish_s(0.0, 10 * PACKET) == pytest.approx(needed * 0.001 + runs * 0.040, abs=1e-9)


def test_a_short_last_packet_is_short_when_sent_again() -> None:
    """Two packets of 1500 and 300 bytes: losses of the second cost 0.2 ms each."""
    made = link(p=1.0, r=1.0, recovery_ms=0.0)
    lost_first = made._bad
    sent_ms = (2 if lost_first else 1) * 1.0 + 2 * 0.2
    assert made.finish_s(0.0, 1800) == pytest.approx(sent_ms / 1000.0, abs=1e-9)


def test_look_ahead_over_many_blocks_of_chance() -> None:
    """A fork that runs far ahead, and the origin that follows, meet the same losses."""
    made = link()
    ahead = made.fork()
    future = losses(ahead, 20_000)
    assert losses(made, 20_000) == future
