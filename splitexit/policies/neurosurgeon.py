"""The split with the least expected latency, or that takes the least of the device's energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from splitexit.decision import Consumption, LinkEstimate, Observation, Plan, Setting
from splitexit.policies import Policy, _arrivals
from splitexit.policies._options import Option, known_energy, local, offered, soonest

if TYPE_CHECKING:
    import numpy as np


class Neurosurgeon(Policy):
    """Picks argmin over splits of time, or of energy (Kang et al., ASPLOS 2017).

    It uses measured stage times rather than regressions per layer type, the device's own estimate of the
    link, and the wait that the edge last reported as server load.

    Args:
        objective: `latency`, device + transfer + edge time; or `energy`, what computing, sending, the reply and the
            radio's tail take above idle power, which is drawn whatever becomes of a request. A radio's tail ends with
            the next message, so the device counts how often requests come. Energy needs published figures of the
            machine and the radio, or those of `devices.energy`.
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"}) | _arrivals.READS
    memory: ClassVar[tuple[str, ...]] = ("_arrivals",)

    def __init__(self, *, objective: Literal["latency", "energy"] = "latency", codecs: list[str] | None = None) -> None:
        self.objective, self.codecs = objective, codecs
        self._arrivals = _arrivals.fresh()
        self._local = Option(Plan(), 0.0, 0.0, 0.0, 0.0)
        self._options: list[Option] = []
        self._energy: Consumption | None = None

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates, for every (split, codec), the seconds that do not depend on the link, and the bytes.

        Raises InputError where energy is asked for and figures are missing.
        """
        self._local, self._options = local(setting), offered(setting, self.codecs)
        self._energy = known_energy(setting) if self.objective == "energy" else None

    def decide(self, observation: Observation) -> Plan:
        """The cheapest option under the present link estimate and edge load."""
        link, load = observation.link, observation.edge_load
        wait_s = 0.0 if load is None else load.wait_s
        if self._energy is None:
            return soonest(self._local, self._options, link, wait_s).plan
        _arrivals.count(self._arrivals, observation)
        return self._least(self._energy, link, wait_s)

    def _least(self, energy: Consumption, link: LinkEstimate, wait_s: float) -> Plan:
        gap_s = _arrivals.gap_s(self._arrivals)
        best_j, best = energy.request_j(self._local.device_s), self._local.plan
        for plan, device_s, edge_s, _, size_bytes in self._options:
            airtime_s = 8.0 * size_bytes / link.rate_bps
            expected_j = energy.request_j(device_s, size_bytes, airtime_s, link.rtt_s + wait_s + edge_s, gap_s)
            if expected_j < best_j:
                best_j, best = expected_j, plan
        return best
