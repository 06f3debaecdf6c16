"""The split with the least expected latency, or that takes the least of the device's energy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from splitexit.decision import Consumption, Observation, Plan, Setting
from splitexit.policies import Policy, _arrivals
from splitexit.policies._options import Option, known_energy, local, offered, soonest

if TYPE_CHECKING:
    import numpy as np


class Neurosurgeon(Policy):
    """Picks argmin over splits of time, or of energy (Kang et al., ASPLOS 2017).

    It uses the device's own estimate of the link, and the wait that the edge last reported as server load.

    Args:
        objective: `latency`, device + transfer + edge time; or `energy`, what computing, sending, the reply and the
            radio's tail take above idle power, which is drawn whatever becomes of a request. A radio's tail ends with
            the next message, so the device counts how often requests come. Energy needs published figures of the
            machine and the radio, or those of `devices.energy`.
        times: of the stages: `measured`, or `regressed` from layers of other networks by their types and sizes, as in
            the paper, which `splitexit calibrate --layers` adds to a calibration.
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"}) | _arrivals.READS
    memory: ClassVar[tuple[str, ...]] = ("_arrivals",)

    def __init__(
        self,
        *,
        objective: Literal["latency", "energy"] = "latency",
        times: Literal["measured", "regressed"] = "measured",
        codecs: list[str] | None = None,
    ) -> None:
        self.objective, self.times, self.codecs = objective, times, codecs
        self._arrivals = _arrivals.fresh()
        self._local = Option(Plan(), 0.0, 0.0, 0.0, 0.0)
        self._options: list[Option] = []
        self._energy: Consumption | None = None
        self._asked: list[tuple[float, float, float, float]] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates, for every (split, codec), the seconds that do not depend on the link, and the bytes.

        Raises InputError where energy is asked for and figures are missing, or regressed times and there are none.
        """
        if self.times == "regressed":
            setting = replace(setting, device=setting.device.by_regression(), edge=setting.edge.by_regression())
        self._local, self._options = local(setting), offered(setting, self.codecs)
        self._energy = known_energy(setting) if self.objective == "energy" else None
        every = [self._local, *self._options]
        self._asked = [(o.device_s, float(o.plan.split is not None), o.size_bytes, o.edge_s) for o in every]

    def decide(self, observation: Observation) -> Plan:
        """The cheapest option under the present link estimate and edge load."""
        link, load = observation.link, observation.edge_load
        wait_s = 0.0 if load is None else load.wait_s
        if self._energy is None:
            return soonest(self._local, self._options, link, wait_s).plan
        _arrivals.count(self._arrivals, observation)
        reply_s, gap_s = link.rtt_s + wait_s, _arrivals.gap_s(self._arrivals)
        joules = self._energy.requests_j(self._asked, link.rate_bps, reply_s, gap_s)
        least = joules.index(min(joules))
        return self._options[least - 1].plan if least else self._local.plan
