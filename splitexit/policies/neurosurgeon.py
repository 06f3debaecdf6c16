"""The split with the least expected latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from splitexit.codecs import canonical
from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.policies import Policy

if TYPE_CHECKING:
    import numpy as np


class Neurosurgeon(Policy):
    """Picks argmin over splits of device + transfer + edge time (Kang et al., ASPLOS 2017, the latency objective).

    It uses measured stage times rather than regressions per layer type, the device's own estimate of the
    link, and the wait that the edge last reported as server load.

    Args:
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"})

    def __init__(self, *, codecs: list[str] | None = None) -> None:
        self.codecs = codecs
        self._local_s = 0.0
        self._options: list[tuple[float, float, Plan]] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates, for every (split, codec), the seconds that do not depend on the link, and the bytes."""
        chosen = None if self.codecs is None else {canonical(codec) for codec in self.codecs}
        nothing = LinkEstimate(rate_bps=float("inf"), rtt_s=0.0)
        self._local_s = setting.local_s()
        self._options = [
            (
                setting.offload_s(split, codec, nothing),
                setting.payload_bytes(split, codec),
                Plan(split=split, codec=codec),
            )
            for split, codecs in setting.codecs.items()
            for codec in codecs
            if chosen is None or codec in chosen
        ]

    def decide(self, observation: Observation) -> Plan:
        """The cheapest option under the present link estimate and edge load."""
        link, load = observation.link, observation.edge_load
        wait_s = 0.0 if load is None else load.wait_s
        best_s, best = self._local_s, Plan()
        for fixed_s, size_bytes, plan in self._options:
            expected_s = fixed_s + link.round_trip_s(size_bytes) + wait_s
            if expected_s < best_s:
                best_s, best = expected_s, plan
        return best
