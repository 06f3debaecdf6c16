"""The split by a minimum cut: the least delay, or the highest throughput."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from splitexit.codecs import canonical
from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.partition import Dag, Way, envelope
from splitexit.policies import Policy, _arrivals

if TYPE_CHECKING:
    import numpy as np


class _Option(NamedTuple):
    """A plan: seconds on the device and on the edge for one request, both without the link, and bytes."""

    plan: Plan
    device_s: float
    edge_s: float
    size_bytes: float
    fixed_s: float


class Dads(Policy):
    """DADS (Hu et al., INFOCOM 2019): cuts the graph of the network between device and edge.

    `delay`, the paper's algorithm for light load, takes the minimum cut, which is the least delay of one request;
    all splits that are best on any link are found beforehand (splitexit.partition), so a decision is a look at a short
    table. `throughput`, for heavy load, takes the split at which the busiest of device, uplink and edge has the least
    to do for a request; the paper's problem is NP-hard on graphs, but exact here. `adaptive` is the paper's switch
    [recalled]: the minimum cut as long as no part of it is asked for more than it can do at the rate at which requests
    come, else the throughput.

    What device and edge run are the stages of a chain, on which the minimum cut is the choice of `neurosurgeon`; graphs
    inside a stage cannot be cut by a plan. It needs networkx: pip install 'splitexit[graph]'.

    Args:
        objective: `delay`, `throughput` or `adaptive`.
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"}) | _arrivals.READS
    memory: ClassVar[tuple[str, ...]] = ("_arrivals",)

    def __init__(
        self,
        *,
        objective: Literal["delay", "throughput", "adaptive"] = "delay",
        codecs: list[str] | None = None,
    ) -> None:
        self.objective, self.codecs = objective, codecs
        self._arrivals = _arrivals.fresh()
        self._local = _Option(Plan(), 0.0, 0.0, 0.0, 0.0)
        self._options: list[_Option] = []
        self._fastest: list[_Option] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Cuts the chain of stages for all links; raises InputError where networkx is missing."""
        chosen = None if self.codecs is None else {canonical(codec) for codec in self.codecs}
        offered = {
            split: [codec for codec in codecs if chosen is None or codec in chosen]
            for split, codecs in setting.codecs.items()
        }
        local_s = setting.local_s()
        self._local = _Option(Plan(), local_s, 0.0, 0.0, local_s)
        self._options = [_option(setting, split, codec) for split, codecs in offered.items() for codec in codecs]
        splits = {len(cut) - 1 for cut in envelope(_chain(setting, offered))} if any(offered.values()) else set()
        self._fastest = [option for option in self._options if option.plan.split in splits]

    def decide(self, observation: Observation) -> Plan:
        """The cut for the present link, edge load and, if that matters, rate of arrival."""
        _arrivals.count(self._arrivals, observation)
        link, load = observation.link, observation.edge_load
        if self.objective == "throughput":
            return self._busiest_least(link).plan
        fast = self._soonest(link, 0.0 if load is None else load.wait_s)
        heavy = self.objective == "adaptive" and _busiest_s(fast, link) * _arrivals.rate_hz(self._arrivals) > 1.0
        return self._busiest_least(link).plan if heavy else fast.plan

    def _soonest(self, link: LinkEstimate, wait_s: float) -> _Option:
        best_s, best = self._local.fixed_s, self._local
        for option in self._fastest:
            expected_s = option.fixed_s + link.round_trip_s(option.size_bytes) + wait_s
            if expected_s < best_s:
                best_s, best = expected_s, option
        return best

    def _busiest_least(self, link: LinkEstimate) -> _Option:
        """Of equals the one with the least delay."""
        best_s, best = (self._local.device_s, self._local.fixed_s), self._local
        for option in self._options:
            expected_s = (_busiest_s(option, link), option.fixed_s + link.round_trip_s(option.size_bytes))
            if expected_s < best_s:
                best_s, best = expected_s, option
        return best


def _busiest_s(option: _Option, link: LinkEstimate) -> float:
    """Seconds for which the busiest of device, uplink and edge has to do with a request."""
    return max(option.device_s, 8.0 * option.size_bytes / link.rate_bps, option.edge_s)


def _option(setting: Setting, split: int, codec: str) -> _Option:
    pair, no_link = (split, codec), LinkEstimate(rate_bps=inf, rtt_s=0.0)
    return _Option(
        Plan(split=split, codec=codec),
        setting.device_s(split) + setting.device.encode[pair].mean,
        setting.edge.decode[pair].mean + setting.edge_s(split),
        setting.payload_bytes(split, codec),
        setting.offload_s(split, codec, no_link),
    )


def _chain(setting: Setting, offered: dict[int, list[str]]) -> Dag:
    """The stages, the last one with the final head."""
    ways = [
        [
            Way(
                setting.device.encode[split, codec].mean,
                setting.edge.decode[split, codec].mean,
                setting.payload_bytes(split, codec),
            )
            for codec in offered.get(split, ())
        ]
        for split in range(setting.spec.num_stages + 1)
    ]
    device_s, edge_s = ([stage.mean for stage in side.stages] for side in (setting.device, setting.edge))
    device_s[-1] += setting.device.exits[-1].mean
    edge_s[-1] += setting.edge.exits[-1].mean
    return Dag.chain(device_s, edge_s, ways)
