"""Leave at the first exit that is sure enough, else go on locally or offload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from splitexit.confidence import NARROWING, NEED_LOGITS, NO_LOGITS
from splitexit.decision import ExitCheck, Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy
from splitexit.policies.offload import require_pair

if TYPE_CHECKING:
    import numpy as np


class Threshold(Policy):
    """BranchyNet's scheme (arXiv 1709.01686) with a choice of rules, the rest of the network local or on the edge.

    Args:
        rule: when to leave. With at least the threshold: `max_prob`, `margin`, `confidence` (learned by the head;
            EENets leave at 0.5), `max_logit` (needs logits in the recording). With at most the threshold, in nats:
            `entropy`. After so many exits that agreed with the one before them: `patience` (PABEE, NeurIPS 2020);
            the device and the edge each count their own. When one class is left: `exclusion` (arXiv 2309.13443; needs
            logits in the recording), where an exit excludes the classes whose probability is at most the threshold
            times its largest one, and the next chooses among the rest or its own best; with `exclusion_strict` what is
            excluded stays so.
        threshold: one number for every exit.
        thresholds: one for each of `exits` instead; `splitexit tune` fits them.
        exits: which exits to read on the device; default: all but the final one that lie before the split.
        split: stages on the device before offloading; default: all of it stays on the device.
        codec: how the features are sent; needed with `split`.
        edge_exits: whether the edge may leave early too, by the same rule and threshold.
    """

    stateless: ClassVar[bool] = True

    def __init__(
        self,
        *,
        rule: Literal[
            "max_prob", "entropy", "margin", "confidence", "patience", "max_logit", "exclusion", "exclusion_strict"
        ] = "max_prob",
        threshold: float = 0.8,  # SPINN's grid (MobiCom 2020) spans 0.4..1.0; tune on the calibration split
        thresholds: Sequence[float] | None = None,
        exits: Sequence[int] | None = None,
        split: int | None = None,
        codec: str | None = None,
        edge_exits: bool = False,
    ) -> None:
        self.rule, self.threshold, self.thresholds = rule, threshold, thresholds
        self.exits, self.split, self.codec, self.edge_exits = exits, split, codec, edge_exits
        self._plan = Plan()

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Builds the one plan; raises InputError where exits, thresholds, the rule or the pair do not fit the model."""
        spec = setting.spec
        if self.split is not None and self.codec is None:
            raise InputError("split without codec: say how the features are sent, e.g. codec: uint8")
        codec = None if self.split is None else require_pair(setting, self.split, self.codec or "")
        last = spec.num_stages - 1 if self.split is None else self.split
        chosen = spec.early_exits(last) if self.exits is None else self.exits
        levels = self._levels(chosen)
        checks = tuple(ExitCheck(e, self.rule, level) for e, level in zip(chosen, levels, strict=True))
        behind = [e for e in range(spec.final_exit) if self.edge_exits and spec.exit_stages[e] > last]
        self._plan = Plan(
            exits=checks,
            split=self.split,
            codec=codec,
            edge_exits=tuple(ExitCheck(e, self.rule, self.threshold) for e in behind),
        )
        self._plan.check(spec)
        for check in (*self._plan.exits, *self._plan.edge_exits):
            _require(check, setting)

    def _levels(self, chosen: Sequence[int]) -> Sequence[float]:
        if self.thresholds is None:
            return [self.threshold] * len(chosen)
        if len(self.thresholds) != len(chosen):
            raise InputError(f"thresholds: {len(self.thresholds)} given for the {len(chosen)} exits {list(chosen)}")
        return self.thresholds

    def decide(self, observation: Observation) -> Plan:
        """Always the same plan; the exits' rules make it depend on the sample."""
        return self._plan


def _require(check: ExitCheck, setting: Setting) -> None:
    """Raises InputError where this exit cannot be judged so; the device and the edge read the same heads."""
    said = setting.calibration.exits[check.exit]
    if check.rule == "confidence" and said.confidence is None:
        head = setting.spec.exits[check.exit].head.get("name")
        raise InputError(f"rule confidence: exit {check.exit} learned none; its head is {head!r}")
    if check.rule in NEED_LOGITS and said.logits is None:
        raise InputError(f"rule {check.rule}: {NO_LOGITS}")
    if check.rule in NARROWING and not 0.0 <= check.threshold <= 1.0:
        raise InputError(f"rule {check.rule}: threshold {check.threshold:g}; expected a share from 0 to 1")
    if check.rule == "patience" and not (check.threshold >= 1 and float(check.threshold).is_integer()):
        raise InputError(
            f"rule patience: threshold {check.threshold:g}; expected a whole number of exits, at least 1, that must "
            "agree with the one before them"
        )
