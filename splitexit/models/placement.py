"""Where exits go: behind which blocks of a backbone, by share of the exit-free network's cost."""

from __future__ import annotations

from collections.abc import Sequence

from splitexit.errors import UsageError

# Six exits at these shares of the cost: SDN (Kaya et al., ICML 2019) and SPINN (Laskaridis et al., MobiCom 2020).
SDN_SHARES = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)


def place(shares: Sequence[float], block_macs: Sequence[int], total_macs: int) -> list[int]:
    """For every share t, the number of blocks before its exit.

    The exit follows the first block, behind the exit before it, up to which the network has spent at least
    t · `total_macs` (EENets, arXiv 2409.05336); so a block carries one exit at most, and the last block none,
    because the final classifier sits there. Raises UsageError where a share is not in 0..1, shares do not
    rise, or the blocks do not suffice.
    """
    places: list[int] = []
    previous = 0.0
    for share in shares:
        if not previous < share < 1:
            raise UsageError(f"exits: shares must rise between 0 % and 100 %, found {share:.0%}")
        previous = share
        places.append(_first_block(share * total_macs, block_macs, after=places[-1] if places else 0))
        if places[-1] >= len(block_macs):
            raise UsageError(
                f"exits: no block is left for the exit at {share:.0%} in front of the final classifier; the "
                f"backbone has {len(block_macs)} blocks, so try fewer exits, smaller shares or a deeper backbone"
            )
    return places


def _first_block(macs: float, block_macs: Sequence[int], after: int) -> int:
    spent = sum(block_macs[:after])
    for number, cost in enumerate(block_macs[after:], start=after + 1):
        spent += cost
        if spent >= macs:
            return number
    return len(block_macs)
