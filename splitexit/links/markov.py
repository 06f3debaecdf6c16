"""A rate that jumps between states."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Le

from splitexit.errors import InputError
from splitexit.links import Link, Ms
from splitexit.links._chance import BLOCK
from splitexit.links._jitter import Distribution
from splitexit.links._spans import Floats, Spans
from splitexit.links._tcp import Transport

StateMbps = Annotated[float, Ge(0), Le(1e6)]
DwellMs = Annotated[float, Ge(1), Le(3_600_000)]


class Markov(Link):
    """Markov-modulated bandwidth: a continuous-time Markov chain chooses the rate.

    The chain stays in state i for an exponential time of mean d_i and moves to any other state with equal
    chance. Its stationary distribution is d_i / Σ d_j (Ross, Introduction to Probability Models, section
    6.5), from which its first state is drawn too. The integral over state changes is exact.

    Args:
        mbps: the rate of every state in Mbit/s, for example [0.5, 2, 6, 19]; 0 is an outage.
        dwell_ms: mean stay in a state; one number for all of them, or one each.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.

    Raises:
        InputError: no rate is above zero, or there are not as many dwells as states.
    """

    def __init__(
        self,
        *,
        mbps: list[StateMbps],
        dwell_ms: DwellMs | list[DwellMs] = 5000.0,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.mbps, self.dwell_ms = mbps, dwell_ms
        dwells_ms = dwell_ms if isinstance(dwell_ms, list) else [dwell_ms] * len(mbps)
        if len(dwells_ms) != len(mbps):
            raise InputError(f"dwell_ms has {len(dwells_ms)} entries for {len(mbps)} states; expected one each, or one")
        if not any(mbps):
            raise InputError("no state has a rate, nothing would ever arrive; expected one above 0 Mbit/s")
        self._dwells_s, self._rates = np.array(dwells_ms) / 1e3, np.array(mbps) * 1e6 / 8.0
        self._stationary = self._dwells_s / self._dwells_s.sum()
        self.mean_bps = float(8.0 * self._stationary @ self._rates)
        self.reseed(np.random.default_rng(0))

    def reseed(self, rng: np.random.Generator) -> None:
        """Starts anew, in a state drawn from the stationary distribution."""
        self._spans = Spans(rng, self._draw)
        super().reseed(rng)

    def _draw(self, rng: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        # To draw the next state from all n, the present one included, and to shorten the stays by (n-1)/n is the
        # same chain: a geometric number of exponential stays is exponential. So no block depends on the one before.
        count = len(self._rates)
        states = rng.integers(count, size=BLOCK)
        if number == 0:
            states[0] = rng.choice(count, p=self._stationary)
        shorter = (count - 1) / count if count > 1 else 1.0
        return rng.exponential(shorter * self._dwells_s[states]), self._rates[states]

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        return self._spans.finish_s(start_s, size_bytes)

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        return self._spans.sent_bytes(start_s, end_s)

    def fork(self) -> Self:
        """Meets the same states."""
        return self._twin()
