"""What a device can do without exits, in a table: every (split, codec), and staying local."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from splitexit.codecs import canonical
from splitexit.decision import Consumption, LinkEstimate, Plan, Setting
from splitexit.errors import InputError


class Option(NamedTuple):
    """A plan and what it takes.

    device_s    seconds on the device, encoding included
    edge_s      seconds on the edge, decoding included
    fixed_s     both, in the order in which `Setting.offload_s` adds them up
    size_bytes  what is sent, with framing
    """

    plan: Plan
    device_s: float
    edge_s: float
    fixed_s: float
    size_bytes: float


def local(setting: Setting) -> Option:
    """All on the device."""
    local_s = setting.local_s()
    return Option(Plan(), local_s, 0.0, local_s, 0.0)


def pairs(setting: Setting, codecs: Sequence[str] | None) -> list[tuple[int, str]]:
    """Every (split, codec) on offer, by split; only with these codecs where they are given."""
    chosen = None if codecs is None else {canonical(codec) for codec in codecs}
    return [(s, c) for s, there in setting.codecs.items() for c in there if chosen is None or c in chosen]


def offered(setting: Setting, codecs: Sequence[str] | None) -> list[Option]:
    """`pairs` with what they take."""
    return [_option(setting, split, codec) for split, codec in pairs(setting, codecs)]


def _option(setting: Setting, split: int, codec: str) -> Option:
    pair, no_link = (split, codec), LinkEstimate(rate_bps=inf, rtt_s=0.0)
    return Option(
        Plan(split=split, codec=codec),
        setting.device_s(split) + setting.device.encode[pair].mean,
        setting.edge.decode[pair].mean + setting.edge_s(split),
        setting.offload_s(split, codec, no_link),
        setting.payload_bytes(split, codec),
    )


def soonest(here: Option, options: Sequence[Option], link: LinkEstimate, wait_s: float) -> Option:
    """The option with the least expected response time, `here` first of equals: T(p, κ) of policies.md §0."""
    best_s, best = here.fixed_s, here
    for option in options:
        expected_s = option.fixed_s + link.round_trip_s(option.size_bytes) + wait_s
        if expected_s < best_s:
            best_s, best = expected_s, option
    return best


def known_energy(setting: Setting) -> Consumption:
    """What requests cost the device; raises InputError, with what to give, where that is not known."""
    energy = setting.energy
    if energy is None or energy.gaps:
        why = "nothing is known of the device's power" if energy is None else "; ".join(energy.gaps)
        raise InputError(f"energy cannot be weighed: {why}")
    return energy
