"""Minimum cuts against brute force, and their limits."""

from __future__ import annotations

import sys
from itertools import combinations
from math import inf, isfinite

import numpy as np
import pytest

from splitexit.errors import InputError
from splitexit.partition import Cut, Dag, Load, Way, envelope, min_cut, throughput_cut


def cuts(dag: Dag) -> list[Cut]:
    """All that are possible: the input on the device, and nothing on the edge that is read there."""
    others = range(1, len(dag.readers))
    subsets = (frozenset({0, *chosen}) for count in range(len(others) + 1) for chosen in combinations(others, count))
    return [cut for cut in subsets if not any(cut & {*r} for node, r in enumerate(dag.readers) if node not in cut)]


def random_dag(rng: np.random.Generator, chain: bool = False) -> Dag:
    """An input and two to seven layers, some read by several, some that cannot be sent or run on one side only."""
    n = int(rng.integers(3, 9))

    def seconds() -> tuple[float, ...]:
        return tuple(np.where(rng.random(n) < 0.1, 0.0, rng.exponential(0.01, n)).tolist())

    ways = [[Way(*rng.exponential((1e-3, 1e-3, 5e3)).tolist()) for _ in range(rng.integers(0, 4))] for _ in range(n)]
    if chain:
        return Dag.chain(seconds()[1:], seconds()[1:], ways)
    readers: list[set[int]] = [{*(v for v in range(u + 1, n) if rng.random() < 0.3)} for u in range(n)]
    for u in range(n - 1):
        readers[u] |= set() if readers[u] else {int(rng.integers(u + 1, n))}
    here, there = seconds(), seconds()
    pinned = rng.random(n) < 0.05
    return Dag(
        (0.0, *here[1:]),
        (inf, *(inf if p else s for p, s in zip(pinned[1:], there[1:], strict=True))),
        tuple(map(tuple, ways)),
        tuple(tuple(sorted(r)) for r in readers),
    )


@pytest.mark.parametrize("seed", range(300))
def test_the_minimum_cut_is_the_least_delay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dag, per_byte_s, offload_s = random_dag(rng), 10 ** rng.uniform(-8, -4), float(rng.choice([0.0, 0.005]))
    found = min_cut(dag, per_byte_s, offload_s)
    best_s = min(dag.delay_s(cut, per_byte_s, offload_s) for cut in cuts(dag))
    assert dag.delay_s(found, per_byte_s, offload_s) == pytest.approx(best_s, rel=1e-9)


def test_the_random_graphs_ask_for_every_kind_of_cut() -> None:
    """Local, as much as possible on the edge, and in between, also with several tensors to send."""
    kinds: dict[str, int] = {}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        dag, per_byte_s, offload_s = random_dag(rng), 10 ** rng.uniform(-8, -4), float(rng.choice([0.0, 0.005]))
        cut = min_cut(dag, per_byte_s, offload_s)
        sent = sum(node in cut and not cut.issuperset(readers) for node, readers in enumerate(dag.readers))
        kind = ("local", "one tensor", "several")[min(sent, 2)]
        kinds[kind] = kinds.get(kind, 0) + 1
    assert min(kinds.values()) >= 10, kinds
    assert len(kinds) == 3


@pytest.mark.parametrize("seed", range(200))
def test_the_envelope_has_the_best_cut_of_every_link(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dag = random_dag(rng, chain=bool(seed % 2))
    everything = frozenset(range(len(dag.readers)))
    offloads = [cut for cut in cuts(dag) if cut != everything and isfinite(dag.delay_s(cut, 1e-6))]
    if not offloads:
        with pytest.raises(InputError, match="neither side"):
            envelope(dag)
        return
    found = envelope(dag)
    assert len(found) <= len(offloads)
    for per_byte_s in (0.0, *np.geomspace(1e-9, 1.0, 40)):
        best_s = min(dag.delay_s(cut, per_byte_s) for cut in offloads)
        assert min(dag.delay_s(cut, per_byte_s) for cut in found) == pytest.approx(best_s, rel=1e-8)


def test_throughput_is_never_better_than_the_best_and_rarely_far_from_it() -> None:
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        dag, per_byte_s = random_dag(rng), 10 ** rng.uniform(-8, -5)
        best_s = min(max(dag.load(cut, per_byte_s)) for cut in cuts(dag))
        ratios.append(max(dag.load(throughput_cut(dag, per_byte_s), per_byte_s)) / best_s)
    assert min(ratios) >= 1.0 - 1e-12
    assert max(ratios) <= 3.0, "what the paper's algorithm promises"
    assert np.mean(ratios) < 1.15, "72 % of them are the best, and the worst is 1.6 times it"


DIAMOND = Dag(
    (0.0, 1.0, 1.0, 1.0), (inf, 0.1, 0.1, 0.1), ((Way(0, 0, 10.0),), (Way(0, 0, 1.0),)) * 2, ((1,), (2, 3), (3,), ())
)


def test_what_several_read_is_sent_once() -> None:
    """Node 1 is read by two nodes, both on the edge."""
    assert min_cut(DIAMOND, 0.2) == {0, 1}
    assert DIAMOND.load(frozenset({0, 1}), 0.2) == pytest.approx(Load(1.0, 0.2, 0.2))


def test_limits() -> None:
    everything = frozenset(range(4))
    assert min_cut(DIAMOND, 0.0) == {0}
    assert min_cut(DIAMOND, inf) == everything
    assert min_cut(DIAMOND, 0.0, offload_s=2.8) == everything
    assert min_cut(DIAMOND, 0.0, offload_s=2.6) == {0}
    assert min_cut(DIAMOND, 0.0, offload_s=inf) == everything


def test_nothing_comes_back_from_the_edge() -> None:
    """The second of three layers can run on the edge only, so the third must, though it is far slower there."""
    dag = Dag.chain((1.0, inf, 0.1), (1.0, 1.0, 9.0), [[Way(0, 0, 1.0)]] * 4)
    assert min_cut(dag, 0.1) <= {0, 1}
    with pytest.raises(InputError, match="nothing comes back"):
        dag.load(frozenset({0, 1, 3}), 0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((0.0,), (inf,), ((),), ((),)), "an input and an answer"),
        (((0.0, 1.0), (inf,), ((), ()), ((1,), ())), "an entry for each node"),
        (((0.0, 1.0), (inf, 1.0), ((), ()), ((0,), ())), "larger numbers"),
        (((0.0, 1.0), (inf, 1.0), ((), ()), ((), ())), "larger numbers"),
        (((0.0, -1.0), (inf, 1.0), ((), ()), ((1,), ())), "negative"),
        (((0.0, 1.0), (inf, 1.0), ((Way(0.0, float("nan"), 0.0),), ()), ((1,), ())), "no numbers"),
    ],
)
def test_what_is_no_graph_of_layers_is_refused(arguments: tuple, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Dag(*arguments)


def test_a_node_that_can_run_nowhere_is_refused() -> None:
    with pytest.raises(InputError, match="neither side"):
        min_cut(Dag.chain((inf,), (inf,), [[], []]), 0.1)


def test_without_networkx_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(InputError, match=r"pip install 'splitexit\[graph\]'"):
        min_cut(DIAMOND, 0.1)
