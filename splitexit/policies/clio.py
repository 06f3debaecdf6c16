"""As much of a progressive payload as fits the deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from splitexit.codecs import canonical, parse
from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy
from splitexit.policies.offload import require_pair

if TYPE_CHECKING:
    import numpy as np


class Clio(Policy):
    """Sends the longest prefix that arrives in time (CLIO, Huang et al., MobiCom 2020), or nothing.

    CLIO's sender emits slices while elapsed + slice / bandwidth + server time stays within the deadline. Here the same
    sum is looked at once, when the device takes the request up (inferred): of the prefixes on offer, the one with the
    most bytes for which

        device + encoding + transfer of its bytes + edge's wait + decoding + edge <= deadline left - fallback

    by mean times, the device's present estimate of its link and the wait that the edge last reported. The device gives
    up waiting `fallback` before the deadline, to answer itself (see Setting.fallback_s), so that later replies would be
    of no use. Where not even the shortest prefix fits, everything stays on the device.

    Args:
        split: stages on the device; default: the only split with prefixes on offer.
        codecs: ids to choose among, from whichever codec; default: those of `progressive` at the split, one for every
            number of slices that are sent.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"deadline_left_s", "edge_load", "link"})
    stateless: ClassVar[bool] = True

    def __init__(self, *, split: int | None = None, codecs: list[str] | None = None) -> None:
        self.split, self.codecs = split, codecs
        self._local, self._options = Plan(), list[tuple[float, float, Plan]]()

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates, longest prefix first, the seconds that do not depend on the link, and the bytes.

        Raises InputError where there are no prefixes on offer, or it is not clear which.
        """
        split = self._split(setting) if self.split is None else self.split
        chosen = _prefixes(setting, split) if self.codecs is None else self.codecs
        pairs = [(split, require_pair(setting, split, codec)) for codec in chosen]
        nothing = LinkEstimate(rate_bps=float("inf"), rtt_s=0.0)
        options = [
            (
                setting.offload_s(*pair, nothing) + setting.fallback_s[split],
                setting.payload_bytes(*pair),
                Plan(split=split, codec=pair[1]),
            )
            for pair in pairs
        ]
        self._options = sorted(options, key=lambda option: option[1], reverse=True)

    def _split(self, setting: Setting) -> int:
        if self.codecs is not None:
            raise InputError("codecs without split: say after how many stages they send")
        found = [split for split, codecs in setting.codecs.items() if any(map(_progressive, codecs))]
        if len(found) != 1:
            where = f"at the splits {', '.join(map(str, found))}; choose one with split" if found else _NONE
            raise InputError(f"progressive is on offer {where}")
        return found[0]

    def decide(self, observation: Observation) -> Plan:
        """The longest prefix that fits under the present link estimate and edge load."""
        load, link = observation.edge_load, observation.link
        left_s = observation.deadline_left_s - (0.0 if load is None else load.wait_s)
        for fixed_s, size_bytes, plan in self._options:
            if fixed_s + link.round_trip_s(size_bytes) <= left_s:
                return plan
        return self._local


_NONE = "nowhere; train, record and calibrate it, or name other codecs"


def _progressive(codec: str) -> bool:
    return parse(codec)[0] == "progressive"


def _prefixes(setting: Setting, split: int) -> list[str]:
    """The ids at this split that differ in what is sent only; raises InputError."""
    found = [codec for codec in setting.codecs.get(split, ()) if _progressive(codec)]
    whole = {canonical(_whole(codec)) for codec in found}
    if len(whole) > 1:
        raise InputError(f"split {split} has several progressive codecs ({', '.join(sorted(whole))}); name the codecs")
    if not found:
        raise InputError(f"no progressive codec at split {split}: it is {_NONE}")
    return found


def _whole(codec: str) -> str:
    """The same without `send`."""
    name, params = parse(codec)
    kept = ",".join(f"{key}={value}" for key, value in params.items() if key != "send")
    return f"{name}:{kept}"
