"""Where exits go: behind which blocks of a backbone, by share of the exit-free network's cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from splitexit.errors import UnknownNameError, UsageError

# Six exits at these shares of the cost: SDN (Kaya et al., ICML 2019) and SPINN (Laskaridis et al., MobiCom 2020).
SDN_SHARES = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)

GOLDEN_RATIO = (1 + 5**0.5) / 2
RULES: dict[str, Callable[[int, int], float]] = {
    "fine": lambda i, n: 1 - 0.95 ** (i + 1),
    "linear": lambda i, n: (i + 1) / (n + 1),
    "golden": lambda i, n: GOLDEN_RATIO ** (i - n),
    "pareto": lambda i, n: 1 - 0.8 ** (i + 1),
}
"""The share of exit i = 0..n−1 of n (EENets, arXiv 2409.05336): `fine` lies early, with 5 % of what is left from exit
to exit, `pareto` with 20 %, `linear` evenly; `golden` grows by the golden ratio towards the end."""


def shares_of(rule: str, exits: int) -> tuple[float, ...]:
    """The shares at which a rule of `RULES` puts so many early exits.

    Raises UnknownNameError for the rule and UsageError for less than one exit.
    """
    if rule not in RULES:
        raise UnknownNameError("placement rule", rule, RULES)
    if exits < 1:
        raise UsageError(f"exits: expected a number from 1 behind {rule!r}, found {exits}")
    return tuple(RULES[rule](i, exits) for i in range(exits))


def parse_exits(text: str) -> tuple[float, ...]:
    """Where early exits go, as shares of the exit-free network's cost; raises UsageError, UnknownNameError.

    `"15,30,45"` (percent) -> (0.15, 0.3, 0.45); `"linear:3"`, a rule and a number of exits -> (0.25, 0.5, 0.75);
    `"none"` -> ().
    """
    rule, colon, count = text.partition(":")
    try:
        if colon:
            return shares_of(rule, int(count))
        return () if text == "none" else tuple(round(float(part) / 100, 6) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"exits {text!r}: expected percentages such as 15,30,45, a rule and a number of exits such as linear:3, "
            "or none for the exit-free twin"
        ) from None


def place(shares: Sequence[float], block_macs: Sequence[int], total_macs: int, first: int = 1) -> list[int]:
    """For every share t, the number of blocks before its exit.

    The exit follows the first block, behind the exit before it, up to which the network has spent at least
    t · `total_macs` (EENets, arXiv 2409.05336); so a block carries one exit at most, and the last block none,
    because the final classifier sits there. No exit has less than `first` blocks before it.

    EENets' own code counts batch norm, activations and pooling as well, about 1.5 % of a residual network; where a
    share falls right behind a block, that may move the exit by one block.

    Raises UsageError where a share is not in 0..1, shares do not rise, or the blocks do not suffice.
    """
    places: list[int] = []
    previous = 0.0
    for share in shares:
        if not previous < share < 1:
            raise UsageError(f"exits: shares must rise between 0 % and 100 %, found {share:.0%}")
        previous = share
        places.append(_first_block(share * total_macs, block_macs, after=places[-1] if places else first - 1))
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
