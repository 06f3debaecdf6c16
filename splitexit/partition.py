"""Cutting a network between device and edge, as a minimum cut.

After C. Hu, W. Bao, D. Wang and F. Liu, "Dynamic adaptive DNN surgery for inference acceleration on the edge" (DADS),
INFOCOM 2019. A network is a directed acyclic graph of layers; what runs on the device is one side of an s-t cut, the
source's:

    s → v       seconds of v on the edge: cut where v is there
    v → t       seconds of v on the device
    u → u'      seconds to send what u puts out, once, however many layers read it: u' is on the edge where one of its
                readers is, which edges u' → v without a limit see to
    v → u       without a limit, for every u that v reads: nothing comes back from the edge
    s → r       what is paid once where anything runs on the edge (an empty round trip, the wait there); edges r → v
                without a limit [inferred: DADS counts transmission alone]

Node 0 is the input, which is on the device. Capacities are scaled to whole numbers, so that the flow is exact: a cut
may be worse than the best one by some 2^-50 of all costs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan
from typing import TYPE_CHECKING, NamedTuple

from splitexit.errors import InputError

if TYPE_CHECKING:
    import networkx as nx

Cut = frozenset[int]
"""The nodes on the device."""

RESOLUTION = 2**50
"""Steps into which the sum of all costs is divided."""


class Way(NamedTuple):
    """One way to send what a node puts out: seconds to encode on the device and to decode on the edge, and bytes."""

    encode_s: float
    decode_s: float
    size_bytes: float

    def load(self, per_byte_s: float) -> Load:
        """Seconds on the device, on the link and on the edge."""
        link_s = self.size_bytes * per_byte_s if self.size_bytes else 0.0
        return Load(self.encode_s, link_s, self.decode_s)


class Load(NamedTuple):
    """Seconds for one sample on the device, on the link and on the edge."""

    device_s: float
    link_s: float
    edge_s: float

    def weighed(self, weights: Load) -> float:
        """The sum of the three, each times its weight; what is impossible stays so, whatever its weight."""
        return sum(_weighed(weight, seconds) for weight, seconds in zip(weights, self, strict=True))


EQUAL = Load(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Dag:
    """A network as a graph of layers. Node 0 is the input, the last node the answer.

    device_s, edge_s  seconds of every node on either side; inf where it cannot run there
    ways              for every node, the ways to send what it puts out; none where it cannot be sent
    readers           for every node, the nodes that read it, of larger numbers; only the last node has none

    Raises InputError where it is no such graph.
    """

    device_s: tuple[float, ...]
    edge_s: tuple[float, ...]
    ways: tuple[tuple[Way, ...], ...]
    readers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.device_s)
        if n < 2 or not len(self.edge_s) == len(self.ways) == len(self.readers) == n:
            raise InputError("a graph of layers needs an input and an answer, and every list an entry for each node")
        for node, readers in enumerate(self.readers):
            if bool(readers) == (node == n - 1) or not all(node < reader < n for reader in readers):
                raise InputError(
                    f"node {node} of {n} is read by {list(readers)}; expected larger numbers, and none for the last"
                )
        costs = (*self.device_s, *self.edge_s, *(cost for ways in self.ways for way in ways for cost in way))
        if any(isnan(cost) or cost < 0.0 for cost in costs):
            raise InputError("a graph of layers has costs that are negative or no numbers")

    @classmethod
    def chain(cls, device_s: Sequence[float], edge_s: Sequence[float], ways: Sequence[Sequence[Way]]) -> Dag:
        """Layers one after another: seconds of each, and the ways to send the input and what each puts out."""
        n = len(device_s) + 1
        readers = (*((node + 1,) for node in range(n - 1)), ())
        return cls((0.0, *device_s), (inf, *edge_s), tuple(map(tuple, ways)), readers)

    def load(self, device: Cut, per_byte_s: float) -> Load:
        """What a cut takes, each node sent in the way that takes the least seconds in all; inf where it cannot be.

        Raises InputError where a node on the edge is read by one on the device.
        """
        return self._load(device, per_byte_s, EQUAL)

    def _load(self, device: Cut, per_byte_s: float, weights: Load) -> Load:
        total = [0.0, 0.0, 0.0]
        for node, readers in enumerate(self.readers):
            here = node in device
            if not here and any(reader in device for reader in readers):
                raise InputError(f"node {node} is on the edge and read on the device; nothing comes back from there")
            total[0 if here else 2] += (self.device_s if here else self.edge_s)[node]
            if here and not device.issuperset(readers):
                sent = self.sent(node, per_byte_s, weights)
                total = [a + b for a, b in zip(total, sent, strict=True)]
        return Load(*total)

    def sent(self, node: int, per_byte_s: float, weights: Load = EQUAL) -> Load:
        """What the best way to send a node takes."""
        loads = (way.load(per_byte_s) for way in self.ways[node])
        return min(loads, key=lambda load: load.weighed(weights), default=Load(0.0, inf, 0.0))

    def delay_s(self, device: Cut, per_byte_s: float, offload_s: float = 0.0) -> float:
        """Seconds from the input to the answer with nobody else around, as `min_cut` counts them."""
        return sum(self.load(device, per_byte_s)) + (offload_s if len(device) < len(self.readers) else 0.0)


def min_cut(dag: Dag, per_byte_s: float, offload_s: float = 0.0, weights: Load = EQUAL) -> Cut:
    """The cut with the least delay: DADS's algorithm for light load (DSL).

    Args:
        dag: the network.
        per_byte_s: seconds that a byte takes on the link; inf: nothing can be sent.
        offload_s: paid once where anything runs on the edge.
        weights: of the seconds on the device, on the link and on the edge.

    Raises InputError where no cut is possible, or networkx is missing.
    """
    try:
        import networkx as nx
    except ModuleNotFoundError:
        raise InputError("cutting a graph needs networkx: pip install 'splitexit[graph]'") from None
    graph = _flow_graph(dag, per_byte_s, offload_s, weights)
    try:
        _, (device, _) = nx.minimum_cut(graph, "s", "t")
    except nx.NetworkXUnbounded:
        raise InputError("no cut of this graph is possible: a node can run on neither side") from None
    return frozenset(node for node in device if isinstance(node, int))


def _flow_graph(dag: Dag, per_byte_s: float, offload_s: float, weights: Load) -> nx.DiGraph:
    """The graph of the module's table; an edge without a capacity has no limit."""
    import networkx as nx

    edges: list[tuple[object, object, float]] = [("s", "r", offload_s)]
    for node, readers in enumerate(dag.readers):
        edges += [("s", node, _weighed(weights.edge_s, dag.edge_s[node]) if node else inf)]
        edges += [(node, "t", _weighed(weights.device_s, dag.device_s[node])), ("r", node, inf)]
        edges += [(node, ("sent", node), dag.sent(node, per_byte_s, weights).weighed(weights))] if readers else []
        edges += [edge for v in readers for edge in ((("sent", node), v, inf), (v, node, inf))]
    edges.remove(("r", 0, inf))  # the input is on the device whatever the edge does
    unit = sum(cost for _, _, cost in edges if isfinite(cost)) / RESOLUTION or 1.0
    graph = nx.DiGraph()
    for u, v, cost in edges:
        graph.add_edge(u, v, **({"capacity": round(cost / unit)} if isfinite(cost) else {}))
    return graph


def envelope(dag: Dag) -> list[Cut]:
    """All cuts that leave something to the edge and are the fastest of these on some link.

    The least delay is a concave function of the seconds per byte, and piecewise linear: where the lines of two cuts
    meet, either both are the fastest there, or a third is, and so on (M. J. Eisner and D. G. Severance, "Mathematical
    techniques for efficient record segmentation in large shared databases", J. ACM 23, 1976). What is paid once shifts
    all lines alike, so the cuts are those for any round trip and any wait.
    """
    pinned = replace(dag, device_s=(*dag.device_s[:-1], inf))
    ends = [(min_cut(pinned, 0.0), 0.0), (min_cut(pinned, 1.0, weights=Load(0.0, 1.0, 0.0)), 1e12)]
    lines = [_line(pinned, cut, per_byte_s) for cut, per_byte_s in ends]
    found = dict.fromkeys(cut for cut, _ in ends)
    _between(pinned, lines[0], lines[1], found)
    return list(found)


Line = tuple[float, float]
"""Seconds without the link, and bytes."""


def _line(dag: Dag, cut: Cut, per_byte_s: float) -> Line:
    """The line that the delay of a cut is on at this point; nodes are sent in the ways that are best there."""
    load = dag.load(cut, per_byte_s)
    if per_byte_s > 0.0:
        return load.device_s + load.edge_s, load.link_s / per_byte_s
    sizes = (
        min(dag.ways[node], key=lambda way: (way.encode_s + way.decode_s, way.size_bytes)).size_bytes
        for node in cut
        if not cut.issuperset(dag.readers[node])
    )
    return load.device_s + load.edge_s, sum(sizes)


def _between(dag: Dag, left: Line, right: Line, found: dict[Cut, None]) -> None:
    """Adds the cuts that are the fastest somewhere between two lines."""
    (fixed_a, bytes_a), (fixed_b, bytes_b) = left, right
    if bytes_a <= bytes_b or fixed_a >= fixed_b:
        return
    per_byte_s = (fixed_b - fixed_a) / (bytes_a - bytes_b)
    cut = min_cut(dag, per_byte_s)
    line = _line(dag, cut, per_byte_s)
    meeting_s = fixed_a + bytes_a * per_byte_s
    if line[0] + line[1] * per_byte_s < meeting_s * (1.0 - 1e-9):
        found[cut] = None
        _between(dag, left, line, found)
        _between(dag, line, right, found)


def throughput_cut(dag: Dag, per_byte_s: float, steps: int = 12) -> Cut:
    """A cut with a high throughput, whose busiest of device, link and edge is busy for few seconds per sample.

    DADS's problem for heavy load (DSH) is NP-hard. Here: minimum cuts for weights of device, link and edge from a grid
    on the simplex, and the best of these [inferred; the paper gives an algorithm within three times the optimum].
    A chain needs no search: see splitexit.policies.dads.

    Args:
        dag: the network.
        per_byte_s: seconds that a byte takes on the link.
        steps: into how many the side of the simplex is divided.
    """
    cuts = {frozenset(range(len(dag.readers))): None} if isfinite(sum(dag.device_s)) else {}
    for a in range(1, steps - 1):
        for b in range(1, steps - a):
            cuts[min_cut(dag, per_byte_s, weights=Load(a / steps, b / steps, (steps - a - b) / steps))] = None
    return min(cuts, key=lambda cut: (max(dag.load(cut, per_byte_s)), dag.delay_s(cut, per_byte_s)))


def _weighed(weight: float, seconds: float) -> float:
    return weight * seconds if isfinite(seconds) else seconds
