"""What the bandits over splits share: their arms, and what those cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from splitexit.decision import ExitCheck, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies.offload import require_pair

if TYPE_CHECKING:
    from splitexit.bundle import ModelSpec

Unit = Literal["exits", "macs"]

NEVER = 2.0
"""A threshold that no max_prob reaches: the head is read for what it says."""

GRID: tuple[float, ...] = tuple(np.round(np.arange(0.50, 1.0, 0.05), 2).tolist())
"""Thresholds that are tried where alpha is fitted; SPINN's grid begins at 0.4 (MobiCom 2020)."""


class Arm(NamedTuple):
    """A split: the device runs up to the exit before it.

    exit   whose confidence decides; the final one is answered on the device whatever it says
    plan   what that is
    cost   γ: of running so far and reading its heads, without the offload
    """

    exit: int
    plan: Plan
    cost: float


def chosen_exits(setting: Setting, codec: str, arms: Sequence[int] | None) -> list[int]:
    """The exits that are arms, the final one last.

    By default all whose split was recorded and calibrated with `codec`; others are left out. An exit that is named in
    `arms` must have it. Raises InputError or ArtifactError with what is there.
    """
    spec = setting.spec
    if arms is None:
        found = [e for e in range(spec.final_exit) if codec in setting.codecs.get(spec.exit_stages[e], ())]
        if not found:
            offered = "; ".join(f"{split}: {', '.join(codecs)}" for split, codecs in sorted(setting.codecs.items()))
            raise InputError(f"codec {codec!r} is on offer at the split of no exit (split: codecs {offered})")
        return [*found, spec.final_exit]
    wrong = [e for e in arms if not 0 <= e <= spec.final_exit]
    if wrong or not arms:
        raise InputError(f"arms {list(arms)}: expected exits of 0..{spec.final_exit}, at least one")
    for exit_ in set(arms) - {spec.final_exit}:
        require_pair(setting, spec.exit_stages[exit_], codec)
    return sorted(set(arms))


def make_arms(
    spec: ModelSpec,
    exits: Sequence[int],
    codec: str,
    alpha: float,
    *,
    side: bool,
    unit: Unit,
    lambda1: float,
    lambda2: float,
) -> list[Arm]:
    """Every arm's plan and cost γ_i = λ1·depth + λ2·heads.

    Args:
        exits: ascending, as `chosen_exits` gives them.
        side: every arm's head up to the split is read, not its own alone (SplitEE-S).
        unit: of the depth, see `depth`.
    """
    found = []
    for number, exit_ in enumerate(exits):
        read = _needed(spec, exits[: number + 1] if side else [exit_])
        cost = lambda1 * depth(spec, exit_, unit) + lambda2 * len(read)
        before = tuple(ExitCheck(e, "max_prob", NEVER) for e in read if e != exit_)
        if exit_ == spec.final_exit:
            plan = Plan(exits=before)
        else:
            checks = (*before, ExitCheck(exit_, "max_prob", alpha))
            plan = Plan(exits=checks, split=spec.exit_stages[exit_], codec=codec)
        plan.check(spec)
        found.append(Arm(exit_, plan, cost))
    return found


def reading_at(spec: ModelSpec, exit_: int, threshold: float) -> tuple[ExitCheck, ...]:
    """Leaves at this exit from so much max_prob on; those that it adds to are read before it."""
    *before, last = spec.evidence(exit_)
    return (*(ExitCheck(e, "max_prob", NEVER) for e in before), ExitCheck(last, "max_prob", threshold))


def _needed(spec: ModelSpec, exits: Iterable[int]) -> list[int]:
    """These exits, and those that they add to."""
    return sorted({before for exit_ in exits for before in spec.evidence(exit_)})


def depth(spec: ModelSpec, exit_: int, unit: Unit) -> float:
    """How far in the network an exit is; len(exits) at the final one in both units.

    exits  its number, from 1: the layer of the papers, whose layers have an exit each
    macs   the share of multiply-accumulates up to it, times the number of exits [inferred], for networks whose exits
           are not evenly spaced
    """
    if unit == "exits":
        return float(exit_ + 1)
    macs = sum(stage.macs for stage in spec.stages[: spec.exit_stages[exit_]])
    return float(len(spec.exits) * macs / sum(stage.macs for stage in spec.stages))


def fitted_alpha(setting: Setting, exits: Sequence[int], codec: str, costs: Sequence[float], offload: float) -> float:
    """The threshold whose best arm earns most on the calibration split, with [right] in the place of confidence.

    Args:
        costs: μ·γ of every arm; `offload` is μ·o.

    The papers choose α on labelled data of the domain that the network was trained on; which rule they use was not
    found, this one is inferred. The first of equals.
    """
    part, spec = setting.calibration, setting.spec
    right = [said.prediction == part.label for said in part.exits]

    def earns(exit_: int, cost: float, alpha: float) -> float:
        if exit_ == spec.final_exit:
            return float(right[exit_].mean()) - cost
        leaves = part.exits[exit_].max_prob >= alpha
        pair = part.pair(spec.exit_stages[exit_], codec)
        far = right[-1] if pair.lossless else pair.exits[spec.final_exit].prediction == part.label
        return float(np.where(leaves, right[exit_], far - offload).mean()) - cost

    return max(GRID, key=lambda alpha: max(earns(e, cost, alpha) for e, cost in zip(exits, costs, strict=True)))
