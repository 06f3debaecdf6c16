"""Three tiers with an exit each: device, edge, cloud."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge

from splitexit.decision import ExitCheck, Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy
from splitexit.policies.offload import require_pair

if TYPE_CHECKING:
    import numpy as np

    from splitexit.bundle import ModelSpec
    from splitexit.recording import ExitReadings

    Array = np.ndarray[Any, Any]

GRID = tuple(step / 20 for step in range(21))
"""Thresholds that the search looks at."""


class Ddnn(Policy):
    """Distributed deep neural networks (Teerapittayanon, McDanel and Kung, ICDCS 2017).

    The device answers where the entropy of its exit is at most a threshold, else the edge by its own exit and
    threshold, else the last tier. Entropies are normalised by ln(classes), so that thresholds go from 0 (nobody is
    sure enough) to 1 (everybody is). The last tier is the scenario's cloud; without one the edge runs to the end.

    Thresholds that are not given are searched on the calibration split, over steps of 0.05: of the pairs that lose at
    most `lose` of the accuracy that the best pair has, the one with the most answers on the device, then on the edge
    [inferred: the paper searches a validation set for accuracy, and shows what that costs in communication].

    Args:
        split: stages on the device.
        codec: how its features are sent.
        local_exit: exit on the device; by default the last one up to the split; none at split 0.
        edge_exit: exit on the edge; by default the last early one before the cloud, or before the end without one.
        thresholds: of the device and the edge, 0..1; by default they are searched.
        lose: share of right answers that the search may give up.
    """

    stateless: ClassVar[bool] = True

    def __init__(
        self,
        *,
        split: Annotated[int, Ge(0)],
        codec: str,
        local_exit: Annotated[int, Ge(0)] | None = None,
        edge_exit: Annotated[int, Ge(0)] | None = None,
        thresholds: Sequence[float] | None = None,
        lose: Annotated[float, Ge(0)] = 0.01,
    ) -> None:
        self.split, self.codec, self.local_exit, self.edge_exit = split, codec, local_exit, edge_exit
        self.thresholds, self.lose = thresholds, lose
        self._plan = Plan()

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Builds the one plan; raises InputError where exits, thresholds or the pair do not fit the model."""
        spec, codec = setting.spec, require_pair(setting, self.split, self.codec)
        local, edge = self._exits(spec, setting.cloud_split)
        levels = self.thresholds if self.thresholds is not None else self._search(setting, codec, local, edge)
        if len(levels) != 2 or not all(0.0 <= level <= 1.0 for level in levels):
            raise InputError(f"thresholds: expected two from 0 to 1, of the device and the edge; found {list(levels)}")
        here, there = (
            () if exit_ is None else (ExitCheck(exit_, "entropy", level * log(spec.num_classes)),)
            for exit_, level in zip((local, edge), levels, strict=True)
        )
        self._plan = Plan(exits=here, split=self.split, codec=codec, edge_exits=there)
        self._plan.check(spec)

    def decide(self, observation: Observation) -> Plan:
        """Always the same plan; the exits' entropies make it depend on the sample."""
        return self._plan

    def _exits(self, spec: ModelSpec, cloud_split: int | None) -> tuple[int | None, int | None]:
        last = spec.num_stages if cloud_split is None else cloud_split
        on_device = spec.early_exits(self.split)
        on_edge = [e for e in spec.early_exits(last) if e not in on_device]
        return (
            _one_of("local_exit", self.local_exit, on_device, f"stage {self.split}"),
            _one_of("edge_exit", self.edge_exit, on_edge, f"stages {self.split + 1} to {last}"),
        )

    def _search(self, setting: Setting, codec: str, local: int | None, edge: int | None) -> tuple[float, float]:
        """The two thresholds; raises ArtifactError where the edge's exits were not recorded behind this pair."""
        part, unit = setting.calibration, log(setting.spec.num_classes)
        last = part.edge_exit(self.split, codec, setting.spec.final_exit).prediction == part.label
        best: list[tuple[float, float, float, tuple[float, float]]] = []
        for tau in GRID if local is not None else (0.0,):
            leaves, right_here = _leaves(part.exits[local] if local is not None else None, tau * unit, part.label)
            for level in GRID if edge is not None else (0.0,):
                said = part.edge_exit(self.split, codec, edge) if edge is not None else None
                stops, right_there = _leaves(said, level * unit, part.label)
                right = leaves * right_here + ~leaves * (stops * right_there + ~stops * last)
                best.append((float(right.mean()), float(leaves.mean()), float((~leaves & stops).mean()), (tau, level)))
        enough = max(entry[0] for entry in best) - self.lose
        return max((entry for entry in best if entry[0] >= enough), key=lambda entry: (*entry[1:3], entry[0]))[3]


def _one_of(key: str, given: int | None, there: Sequence[int], where: str) -> int | None:
    if given is None:
        return there[-1] if there else None
    if given not in there:
        raise InputError(f"{key}: exit {given} is not among those up to or in {where}; expected one of {list(there)}")
    return given


def _leaves(said: ExitReadings | None, threshold: float, label: Array) -> tuple[Array, Array]:
    """Which samples stop at an exit, and which it gets right; no exit stops nothing."""
    if said is None:
        return label != label, label != label
    return said.entropy.astype(float) <= threshold, said.prediction == label
