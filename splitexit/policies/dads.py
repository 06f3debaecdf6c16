"""The split by a minimum cut: the least delay, or the highest throughput."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.partition import Dag, Way, envelope
from splitexit.policies import Policy, _arrivals
from splitexit.policies._options import Option, local, offered, soonest

if TYPE_CHECKING:
    import numpy as np


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
        self._local = Option(Plan(), 0.0, 0.0, 0.0, 0.0)
        self._options: list[Option] = []
        self._fastest: list[Option] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Cuts the chain of stages for all links; raises InputError where networkx is missing."""
        self._local, self._options = local(setting), offered(setting, self.codecs)
        splits = {len(cut) - 1 for cut in envelope(_chain(setting, self._options))} if self._options else set()
        self._fastest = [option for option in self._options if option.plan.split in splits]

    def decide(self, observation: Observation) -> Plan:
        """The cut for the present link, edge load and, if that matters, rate of arrival."""
        _arrivals.count(self._arrivals, observation)
        link, load = observation.link, observation.edge_load
        if self.objective == "throughput":
            return self._busiest_least(link).plan
        fast = soonest(self._local, self._fastest, link, 0.0 if load is None else load.wait_s)
        heavy = self.objective == "adaptive" and _busiest_s(fast, link) * _arrivals.rate_hz(self._arrivals) > 1.0
        return self._busiest_least(link).plan if heavy else fast.plan

    def _busiest_least(self, link: LinkEstimate) -> Option:
        """Of equals the one with the least delay."""
        best_s, best = (self._local.device_s, self._local.fixed_s), self._local
        for option in self._options:
            expected_s = (_busiest_s(option, link), option.fixed_s + link.round_trip_s(option.size_bytes))
            if expected_s < best_s:
                best_s, best = expected_s, option
        return best


def _busiest_s(option: Option, link: LinkEstimate) -> float:
    """Seconds for which the busiest of device, uplink and edge has to do with a request."""
    return max(option.device_s, 8.0 * option.size_bytes / link.rate_bps, option.edge_s)


def _chain(setting: Setting, options: Sequence[Option]) -> Dag:
    """The stages, the last one with the final head."""
    ways: list[list[Way]] = [[] for _ in range(setting.spec.num_stages + 1)]
    for plan, *_, size_bytes in options:
        assert plan.split is not None
        assert plan.codec is not None
        pair = plan.split, plan.codec
        ways[plan.split].append(Way(setting.device.encode[pair].mean, setting.edge.decode[pair].mean, size_bytes))
    device_s, edge_s = ([stage.mean for stage in side.stages] for side in (setting.device, setting.edge))
    device_s[-1] += setting.device.exits[-1].mean
    edge_s[-1] += setting.edge.exits[-1].mean
    return Dag.chain(device_s, edge_s, ways)
