"""Block-dependent losses (Han et al., IEEE TNNLS 2023, doi 10.1109/TNNLS.2023.3282249): learning from nearby exits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, MinLen
from torch import Tensor, nn

from splitexit.errors import UsageError
from splitexit.models.objectives import Objective, Progress
from splitexit.models.objectives._distillation import exit_losses
from splitexit.models.spec import Count, Factor

if TYPE_CHECKING:
    from splitexit.models.multi_exit import MultiExitNet

REACH = 3


class BlockDependent(Objective):
    """L = Σ L_j of all exits, but the gradient of L_j reaches only head j and a few of the blocks in front of it.

    A block is what lies between two exits: the stages behind the one before. The value of the loss is that of joint
    training with equal weights, and so is the network; only who learns from what is different.

    The authors cut the path of a gradient by running blocks again on detached inputs, which also updates batch norms
    several times in a step. Here one forward pass serves all exits, and each L_j is derived for the parameters it may
    reach; the gradients are the same.

    Args:
        reach: L_j reaches blocks j−reach+1..j ("overlapping"). 1 is a local error for every block, as many as there
            are exits is joint training. None is 3, which the authors take for 7 exits on CIFAR-100 (2 for 5 on
            ImageNet), or what `groups` say.
        groups: numbers of blocks that add up to all of them; L_j reaches its own group from its start up to block j
            ("grouping without overlap"). In place of `reach`; both raise UsageError.
        final: the last exit's loss reaches all blocks.
        distill, temperature: L_j = CE_j + distill · KL(p_final ‖ p_j); see `_distillation.exit_losses`.
    """

    routes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        reach: Count | None = None,
        groups: Annotated[Sequence[Count], MinLen(1)] | None = None,
        final: bool = False,
        distill: Factor = 0.0,
        temperature: Annotated[float, Gt(0)] = 2.0,
    ) -> None:
        if groups is not None and reach is not None:
            raise UsageError("objective 'block-dependent': give reach or groups, not both")
        self.reach, self.groups, self.final = reach, groups, final
        self.distill, self.temperature = distill, temperature

    def loss(self, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """The sum of the losses of all exits."""
        losses = self._losses(outputs, labels)
        return sum(losses[1:], losses[0])

    def backward(self, net: MultiExitNet, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """Every loss to the parameters it may reach; raises UsageError where the groups do not fit the exits."""
        losses, reached = self._losses(outputs, labels), self.reached(len(outputs))
        blocks = [net.stages[first:last] for first, last in pairwise([0, *net.spec.exit_stages])]
        for exit_, (loss, numbers) in enumerate(zip(losses, reached, strict=True)):
            inputs = _trainable([*(blocks[number] for number in numbers), net.heads[exit_]])
            # Without inputs, as where everything in front of an exit is frozen, torch would reach for all parameters.
            if inputs:
                last = exit_ == len(losses) - 1
                loss.backward(inputs=inputs, retain_graph=not last)  # type: ignore[no-untyped-call,unused-ignore]
        return sum(losses[1:], losses[0]).detach()

    def reached(self, exits: int) -> list[range]:
        """For the loss of each of so many exits, final included, the blocks that it reaches, counted from 0."""
        if self.groups is None:
            reach = REACH if self.reach is None else self.reach
            found = [range(max(0, exit_ - reach + 1), exit_ + 1) for exit_ in range(exits)]
        else:
            found = list(_grouped(self.groups, exits))
        return [*found[:-1], range(exits)] if self.final else found

    def _losses(self, outputs: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
        return exit_losses(outputs, labels, self.distill, self.temperature)


def _grouped(groups: Sequence[int], exits: int) -> Iterator[range]:
    if sum(groups) != exits:
        raise UsageError(
            f"objective 'block-dependent': groups of {', '.join(map(str, groups))} blocks do not add up to the "
            f"{exits} exits, final included"
        )
    for first, end in pairwise([0, *accumulate(groups)]):
        yield from (range(first, exit_ + 1) for exit_ in range(first, end))


def _trainable(parts: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Their parameters that are not frozen, each once even where parts share it."""
    parameters = chain.from_iterable(part.parameters() for part in parts)
    return list(dict.fromkeys(p for p in parameters if p.requires_grad))
