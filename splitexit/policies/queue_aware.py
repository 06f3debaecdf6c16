"""Local or offloaded, by the waits that queueing theory expects on either side."""

from __future__ import annotations

from math import exp, inf, sqrt
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from annotated_types import Ge, Gt

from splitexit import queueing
from splitexit.calibration import Calibration, Distribution
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Setting
from splitexit.policies import Policy, _arrivals
from splitexit.policies._options import Option, local, offered

if TYPE_CHECKING:
    import numpy as np


class _Service(NamedTuple):
    """What one option asks of device, uplink and edge: means, and of the first two the means of squares."""

    plan: Plan
    device_s: float
    device_s2: float
    size_bytes: float
    size_bytes2: float
    edge_s: float

    def response_s(self, rate_hz: float, link: LinkEstimate, others: float, edge: Edge) -> tuple[float, float]:
        """Expected response time if all requests went this way, and the load of the busiest place; see QueueAware."""
        per_byte_s = 8.0 / link.rate_bps
        wait_s = queueing.m_g_1_wait_s(rate_hz, self.device_s, self.device_s2)
        if not self.size_bytes:
            return wait_s + self.device_s, rate_hz * self.device_s
        air_s = self.size_bytes * per_byte_s
        load = others + rate_hz * self.edge_s / edge.servers
        wait_s += queueing.m_g_1_wait_s(rate_hz, air_s, self.size_bytes2 * per_byte_s**2)
        wait_s += queueing.m_m_c_wait_s(load, self.edge_s, edge.workers)
        busiest = max(rate_hz * self.device_s, rate_hz * air_s, load / edge.workers)
        return wait_s + self.device_s + link.rtt_s + air_s + self.edge_s, busiest


class Edge(NamedTuple):
    """Servers with a queue each, and the workers of one."""

    workers: int
    servers: int


class QueueAware(Policy):
    """Offloads where the expected response time with all its waits is less (Ng et al., arXiv 2504.15162).

    With λ the rate at which requests come here and S the time that each place takes for one of them:

        T_device = w(λ, S_device) + S_device
        T_edge   = w(λ, S_device) + S_device + w(λ, S_uplink) + S_uplink + round trip + w_edge + S_edge

    Waits at device and uplink are those of M/G/1; at the edge that of M/M/c with its reported load: the number of
    requests that replies say are there gives the load that M/M/c would hold them under; what this device itself adds
    to it is taken out, and what an option would add put in [inferred: the paper knows what every tenant sends]. The
    paper offloads before the network; other splits are weighed alike. Where nothing can keep up, the option whose
    busiest place has the least to do.

    The estimate of a busy link holds waits already, which then count twice. It assumes that the device goes on while
    it waits for the edge (`pipeline: true`).

    Args:
        splits: only these are considered, e.g. [0] as in the paper; by default all that were recorded.
        codecs: only these are considered; by default all that were recorded.
        epoch_s: for so long a choice stands.
        memory_s: the edge's reports fade with this time constant, so that silence is not taken for a crowd for ever.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"}) | _arrivals.READS
    memory: ClassVar[tuple[str, ...]] = ("_arrivals", "_reports", "_choice", "_until_s")

    def __init__(
        self,
        *,
        splits: list[int] | None = None,
        codecs: list[str] | None = None,
        epoch_s: Annotated[float, Ge(0)] = 1.0,  # inferred, as is memory_s: the paper's epochs have no length
        memory_s: Annotated[float, Gt(0)] = 10.0,
    ) -> None:
        self.splits, self.codecs, self.epoch_s, self.memory_s = splits, codecs, epoch_s, memory_s
        self._arrivals = _arrivals.fresh()
        self._reports = {"weight": 0.0, "number": 0.0, "own": 0.0, "at_s": 0.0, "sent_s": 0.0}
        self._choice, self._until_s = 0, 0.0
        self._edge = Edge(1, 1)
        self._services: list[_Service] = []
        self._heard: EdgeLoad | None = None

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates what every option asks of each place; options that are worse everywhere are left out."""
        options = [o for o in offered(setting, self.codecs) if self.splits is None or o.plan.split in self.splits]
        services = [_service(setting, option) for option in (local(setting), *options)]
        self._services = [one for one in services if not any(_worse(one, other) for other in services)]
        self._edge = Edge(setting.edge_workers, setting.edge_servers)

    def decide(self, observation: Observation) -> Plan:
        """The choice that stands, or a new one."""
        now_s = observation.now_s
        _arrivals.count(self._arrivals, observation)
        rate_hz = _arrivals.rate_hz(self._arrivals)
        if observation.edge_load is not None and observation.edge_load is not self._heard:
            self._hear(observation.edge_load, now_s, rate_hz)
        if now_s >= self._until_s:
            self._choice = self._least(rate_hz, observation.link, self._others(now_s))
            self._until_s = now_s + self.epoch_s
        chosen = self._services[self._choice]
        if chosen.size_bytes:
            self._reports["sent_s"] = chosen.edge_s / self._edge.servers
        return chosen.plan

    def _least(self, rate_hz: float, link: LinkEstimate, others: float) -> int:
        """Number of the option with the least expected response time; the choice that stands is taken of equals."""
        services, chosen, per_byte_s, rtt_s = self._services, self._choice, 8.0 / link.rate_bps, link.rtt_s
        best = services[chosen].response_s(rate_hz, link, others, self._edge)
        for number, (_, device_s, _, size_bytes, _, edge_s) in enumerate(services):
            alone_s = device_s + edge_s + (size_bytes * per_byte_s + rtt_s if size_bytes else 0.0)
            if alone_s < best[0] or best[0] == inf:  # waits only add to that
                expected = services[number].response_s(rate_hz, link, others, self._edge)
                if expected < best:
                    best, chosen = expected, number
        return chosen

    def _hear(self, load: EdgeLoad, now_s: float, rate_hz: float) -> None:
        """A new report, and what this device added to the load itself, if it sent all of its requests at that time."""
        reports, self._heard = self._reports, load
        kept = exp((reports["at_s"] - now_s) / self.memory_s)
        for key, value in (("weight", 1.0), ("number", load.queue_length), ("own", rate_hz * reports["sent_s"])):
            reports[key] = kept * reports[key] + value
        reports["at_s"] = now_s

    def _others(self, now_s: float) -> float:
        """The load of one server, in workers, that others are thought to make."""
        reports = self._reports
        if not reports["weight"]:
            return 0.0
        load = queueing.load_of(reports["number"] / reports["weight"], self._edge.workers)
        fades = exp((reports["at_s"] - now_s) / self.memory_s)
        return fades * max(0.0, load - reports["own"] / reports["weight"])


def _service(setting: Setting, option: Option) -> _Service:
    plan, device = option.plan, setting.device
    if plan.split is None or plan.codec is None:
        parts, sizes, framing = [*device.stages, device.exits[-1]], None, 0
    else:
        pair = plan.split, plan.codec
        parts, sizes = (
            [*device.stages[: plan.split], device.encode[pair]],
            setting.calibration.pair(*pair).payload_bytes,
        )
        framing = setting.edge.rpc.uplink_overhead_bytes
    square = 0.0 if sizes is None else float(((sizes.astype(float) + framing) ** 2).mean())
    device_s2 = option.device_s**2 + _variance(device, parts)
    return _Service(plan, option.device_s, device_s2, option.size_bytes, square, option.edge_s)


def _variance(calibration: Calibration, parts: list[Distribution]) -> float:
    """Of the sum of some parts of a request, which depend on one another as was measured."""
    variances = [part.variance for part in parts]
    alone, together = sum(variances), sum(map(sqrt, variances)) ** 2
    return alone + calibration.dependence.within * (together - alone)


def _worse(one: _Service, other: _Service) -> bool:
    """Whether an option asks for more of something and less of nothing; local and offloaded do not compare."""
    numbers, others = one[1:], other[1:]
    same_kind = (one.size_bytes > 0) == (other.size_bytes > 0)
    return same_kind and numbers != others and all(a >= b for a, b in zip(numbers, others, strict=True))
