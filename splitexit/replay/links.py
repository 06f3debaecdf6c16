"""The links of a run as its own uploads show them.

A device knows of every upload that was answered when it left, its bytes, and how long it was in transit both ways
(`network_s`: without what the edge did meanwhile). The model is the one of splitexit.estimate,

    network_s = base_s + call_s + wait for earlier uploads + bytes / rate(t)

with `call_s` from the calibration (its median; the simulator draws it again) and first come, first served. It is
solved backwards, with the whole run at hand:

1. `base_s`, the propagation both ways and the reply. Two uploads that met no other lie on a line over their bytes;
   where it begins is an estimate of the base, better the more they differ in size. The weighted median of those of
   near neighbours is taken (as Theil and Sen do with slopes), so that a rate that changes slowly, or a few transfers
   that were held up, do no harm. The device's priors of base and rate (its nominal figures, with half their value as
   standard deviation, as in LinkEstimator) are two more observations: they decide where all payloads have one size.
2. The rate. With the base known, upload i was through at t(i) = sent + network - call - base, and held the link from
   max(sent(i), t(i-1)) to t(i): nothing needs to be known about the queue. Neighbours are taken together until noise
   is 5 % of the time that they held the link. On a link that is shared at once (processor sharing) uploads that met
   no other are taken; if there are none, whole busy periods, which any discipline fills alike but noise lengthens.

A rate holds until half way to the next upload, but for a second at most (`HOLD_S`); the scenario's own link, events
included, fills in the rest. What this cannot see: the rate while nothing was sent; how the base divides into there and
back (in the proportion of the scenario's delays; outages on the way back are the scenario's); jitter, which is taken
for a varying rate. Uploads behind one that found no answer are left out, because nobody knows when that was through; so
are those to a cloud, and under tcp those over the initial window, which wait for acknowledgements. An upload that was
sent twice looks like a slow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from splitexit.calibration import Rpc
from splitexit.decision import LinkEstimate
from splitexit.errors import InputError
from splitexit.links import Link
from splitexit.links._tcp import HEADER_BYTES, INITIAL_SEGMENTS, SEGMENT_BYTES
from splitexit.links.piecewise import Piecewise
from splitexit.results import EDGE, LOCAL, column

Array = np.ndarray[Any, np.dtype[Any]]

HOLD_S = 1.0
"""The step of the bandwidth traces that the field collects (Raca et al., MMSys 2020, log once a second)."""

PRECISION = 0.05
"""Noise relative to the time on the link at which a rate stands on its own."""

PRIOR = 0.5
"""Standard deviation of the device's prior, relative; as in LinkEstimator."""

MAD = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""

ROUNDS = 3
"""How often the base is estimated: knowing it, more uploads are seen to have met no other."""

FILL_S = 0.02
"""The step in which the scenario's link fills in."""

NEIGHBOURS = 8
"""With how many before it an upload is paired."""


class Uploads(NamedTuple):
    """Uploads over one link that were answered, in the order of sending.

    sent_s      when they left
    transit_s   both ways, without the edge's part and the usual call
    size_bytes  on the link
    known       whether nothing unknown was in front of it
    lost_s      when those were taken up that were not answered
    """

    sent_s: Array
    transit_s: Array
    size_bytes: Array
    known: Array
    lost_s: Array

    def alone(self, base_s: float, shared: bool) -> Array:
        """Whether no earlier one was on the link, nor, on one that is `shared` at once, a later one came meanwhile.

        Args:
            base_s: not more than the base; 0 takes those that met no other on all of their way.
        """
        through_s = self.sent_s + self.transit_s - base_s
        before_s = np.concatenate([[-np.inf], np.maximum.accumulate(through_s)[:-1]])
        alone = self.known & (self.sent_s >= before_s)
        return np.asarray(alone & (through_s <= np.append(self.sent_s[1:], np.inf)) if shared else alone)


def uploads(rows: pa.Table, rpc: Rpc, tcp: bool) -> Uploads:
    """What the rows of the devices on one link tell of it."""
    sent = rows.filter(pc.not_equal(rows["split"], LOCAL)).sort_by("start_s")
    answered = column(sent, "answered_by") == EDGE
    known = answered & np.concatenate([[True], answered[:-1]])
    size_bytes = column(sent, "payload_bytes") + float(rpc.uplink_overhead_bytes)
    if tcp:
        segments = np.ceil(size_bytes / SEGMENT_BYTES)
        known, size_bytes = known & (segments <= INITIAL_SEGMENTS), size_bytes + HEADER_BYTES * segments
    network_s = column(sent, "network_s")
    left_s = column(sent, "done_s") - network_s - column(sent, "edge_wait_s") - column(sent, "edge_compute_s")
    order = np.flatnonzero(answered)[np.argsort(left_s[answered], kind="stable")]
    transit_s = network_s - rpc.seconds.median
    return Uploads(left_s[order], transit_s[order], size_bytes[order], known[order], column(sent, "start_s")[~answered])


@dataclass(frozen=True)
class Measured:
    """What was found of one link.

    uploads         how many of them say something
    base_s          propagation both ways and the reply
    doubt_s         its standard error
    rate_doubt      what that makes of the rate, relative; the same for all of the run
    lengths_s       of the pieces of time, from 0 on
    bytes_per_s     the rate in each
    measured_share  of the time to the last answer, how much is not filled in
    mean_bps        while they held the link
    """

    uploads: int
    base_s: float
    doubt_s: float
    rate_doubt: float
    lengths_s: Array
    bytes_per_s: Array
    measured_share: float
    mean_bps: float

    def uplink(self, nominal: Link, delay_s: float) -> Link:
        """The link up, with such a delay; what comes after the run is as the scenario has it in the mean."""
        return Piecewise(
            lengths_s=self.lengths_s,
            bytes_per_s=self.bytes_per_s,
            later_bps=nominal.mean_bps,
            delay_s=delay_s,
            transport=nominal.transport,
            rtt_s=self.base_s,
        )

    def document(self) -> dict[str, float]:
        """For `--json`."""
        return {
            "uploads": self.uploads,
            "base_ms": 1e3 * self.base_s,
            "base_doubt_ms": 1e3 * self.doubt_s,
            "mean_mbps": self.mean_bps / 1e6,
            "rate_doubt_percent": 100.0 * self.rate_doubt,
            "measured_share": self.measured_share,
        }


def measure(found: Uploads, prior: LinkEstimate, rpc: Rpc, scenario: Link, end_s: float, shared: bool) -> Measured:
    """Solves for base and rate; `found` has at least one upload that is known.

    Args:
        prior: what a device believes beforehand; `rtt_s` with the usual call.
        scenario: the link that fills in, under the scenario's events.
        end_s: when the run was over.
        shared: whether messages are served at once, not one after the other.
    """
    per_byte_s = 8.0 / prior.rate_bps
    prior_s, at_least_s = prior.rtt_s - rpc.seconds.mean, 0.0
    for _ in range(ROUNDS):
        alone = found.alone(at_least_s, shared)
        base_s, doubt_s = _base(found, alone, prior_s)
        at_least_s = max(0.0, base_s - doubt_s)
    base_s, doubt_s = _reconciled(base_s, doubt_s, _held(found, base_s, shared), per_byte_s)
    held = _held(found, base_s, shared)
    rates = 1.0 / _per_byte(held, _noise_s(found, alone, held), per_byte_s)
    lengths_s, bytes_per_s, measured = _pieces(held, rates, found.lost_s, scenario, end_s)
    share, count = float(lengths_s[measured].sum() / end_s), int(found.known.sum())
    busy_s = max(float((held.end_s - held.start_s).sum()), 1e-12)
    mean_bps = 8.0 * float(held.size_bytes.sum()) / busy_s
    return Measured(count, base_s, doubt_s, doubt_s * len(rates) / busy_s, lengths_s, bytes_per_s, share, mean_bps)


def _noise_s(found: Uploads, alone: Array, held: Held) -> float:
    """How much the transit of one upload varies, in seconds: by how much neighbours differ beyond their sizes.

    From the median, so that a rate that changes now and then is not taken for noise.
    """
    per_byte_s = float((held.end_s - held.start_s).sum() / held.size_bytes.sum())
    rest_s = found.transit_s[alone] - found.size_bytes[alone] * per_byte_s
    if len(rest_s) < 2:
        return 0.0
    return float(MAD * np.median(np.abs(np.diff(rest_s)))) / 2**0.5


def _base(found: Uploads, alone: Array, prior_s: float) -> tuple[float, float]:
    """The base and its standard error, in seconds."""
    transit_s, size_bytes = found.transit_s[alone], found.size_bytes[alone]
    begins_s, weights = [np.empty(0)], [np.empty(0)]
    for lag in range(1, min(NEIGHBOURS, len(size_bytes) - 1) + 1):
        more = size_bytes[lag:] - size_bytes[:-lag]
        differs = more != 0.0
        cross = size_bytes[lag:] * transit_s[:-lag] - size_bytes[:-lag] * transit_s[lag:]
        begins_s.append(cross[differs] / more[differs])
        weights.append((more**2 / (size_bytes[lag:] ** 2 + size_bytes[:-lag] ** 2))[differs])
    values, weight, prior_sd = np.concatenate(begins_s), np.concatenate(weights), PRIOR * prior_s
    if not len(values):
        return prior_s, prior_sd
    middle = _weighted_median(values, weight)
    # Of a median, over as many pairs as would say the same with equal weights (Kish, Survey Sampling, 1965), of which
    # every upload makes one for each lag.
    count = float(weight.sum() ** 2 / (weight**2).sum()) / (len(weights) - 1)
    spread = 1.2533 * MAD * _weighted_median(np.abs(values - middle), weight)
    variance, prior_variance = spread**2 / count, prior_sd**2
    if variance + prior_variance == 0.0:
        return middle, 0.0
    share = prior_variance / (variance + prior_variance)
    return max(0.0, share * middle + (1.0 - share) * prior_s), float(np.sqrt(share * variance))


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    summed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(summed, summed[-1] / 2)])


class Held(NamedTuple):
    """When uploads held the link, in the order of time: from, until, and how many bytes went through."""

    start_s: Array
    end_s: Array
    size_bytes: Array


def _held(found: Uploads, base_s: float, shared: bool) -> Held:
    through_s = np.maximum.accumulate(found.sent_s + found.transit_s - base_s)
    before_s = np.concatenate([[-np.inf], through_s[:-1]])
    if not shared:
        start_s = np.maximum(found.sent_s, before_s)
        known = found.known
        return Held(start_s[known], found.sent_s[known] + found.transit_s[known] - base_s, found.size_bytes[known])
    first = np.flatnonzero(found.sent_s >= before_s)
    last = np.append(first[1:], len(through_s)) - 1
    known = np.logical_and.reduceat(found.known, first)
    single = known & (last == first)
    known = single if single.any() else known
    size_bytes = np.add.reduceat(found.size_bytes, first)
    return Held(found.sent_s[first][known], through_s[last][known], size_bytes[known])


def _reconciled(base_s: float, doubt_s: float, held: Held, prior: float) -> tuple[float, float]:
    """Base and standard error once the prior of the rate is heard too: a base too short is a rate too low throughout.

    Args:
        prior: seconds per byte.
    """
    found = float((held.end_s - held.start_s).sum() / held.size_bytes.sum())
    per_second = len(held.size_bytes) / float(held.size_bytes.sum())  # of what a longer base takes from every upload
    prior_variance = (PRIOR * prior) ** 2
    variance = prior_variance + (doubt_s * per_second) ** 2
    shift_s = doubt_s**2 * per_second * (found - prior) / variance
    return max(0.0, base_s + shift_s), doubt_s * (prior_variance / variance) ** 0.5


def _per_byte(held: Held, noise_s: float, prior: float) -> Array:
    """Seconds per byte during each upload: neighbours together until they are sure enough.

    Args:
        noise_s: of a single transfer.
        prior: seconds per byte; what neighbours at the end are weighed with that are not sure yet.
    """
    busy_s: list[float] = np.cumsum(np.append(0.0, held.end_s - held.start_s)).tolist()
    sent_bytes: list[float] = np.cumsum(np.append(0.0, held.size_bytes)).tolist()
    found, start, count = np.empty(len(held.size_bytes)), 0, len(held.size_bytes)
    for end in range(1, count + 1):
        total_s, noisy_s = busy_s[end] - busy_s[start], noise_s * (end - start) ** 0.5
        if noisy_s <= PRECISION * total_s or end == count:
            found[start:end] = _weighed(total_s, noisy_s, sent_bytes[end] - sent_bytes[start], prior)
            start = end
    return found


def _weighed(total_s: float, noise_s: float, bytes_: float, prior: float) -> float:
    variance, prior_variance = (noise_s / bytes_) ** 2, (PRIOR * prior) ** 2
    value = (total_s / bytes_ * prior_variance + prior * variance) / (variance + prior_variance)
    return max(value, 0.1 * prior)  # as in LinkEstimator: one lucky transfer must not make the link free


def _spans(held: Held, lost_s: Array, end_s: float) -> list[tuple[float, float]]:
    """From and until when each upload's rate holds, one after the other; not up to or from one that was lost."""
    middle_s = (held.end_s[:-1] + held.start_s[1:]) / 2
    from_s = np.maximum(held.start_s - HOLD_S, np.concatenate([[0.0], middle_s]))
    until_s = np.minimum(held.end_s + HOLD_S, np.concatenate([middle_s, [end_s]]))
    stops_s = np.concatenate([[-np.inf], np.sort(lost_s), [np.inf]])
    after = np.searchsorted(stops_s, held.end_s)
    until_s = np.minimum(until_s, stops_s[after])
    before_s = stops_s[np.searchsorted(stops_s, held.start_s, side="right") - 1]
    from_s = np.where(before_s > np.concatenate([[-np.inf], held.end_s[:-1]]), held.start_s, from_s)
    edges_s = np.stack([from_s, until_s], axis=1).ravel()
    ordered: list[float] = np.minimum(np.maximum.accumulate(np.maximum(edges_s, 0.0)), end_s).tolist()
    return list(zip(ordered[::2], ordered[1::2], strict=True))


def _pieces(held: Held, bytes_per_s: Array, lost_s: Array, scenario: Link, end_s: float) -> tuple[Array, Array, Array]:
    """Lengths and rates of the pieces from 0 to `end_s`, and which of them were measured."""
    pieces, at_s = list[tuple[float, float, bool]](), 0.0
    for (from_s, until_s), rate in zip(_spans(held, lost_s, end_s), bytes_per_s.tolist(), strict=True):
        pieces += _filled(scenario, at_s, from_s)
        if until_s > from_s:
            pieces.append((until_s - from_s, rate, True))
        at_s = max(at_s, until_s)
    pieces += _filled(scenario, at_s, end_s)
    lengths_s, rates, measured = (np.array(part) for part in zip(*pieces, strict=True))
    return lengths_s, rates, measured


def _filled(scenario: Link, from_s: float, until_s: float) -> list[tuple[float, float, bool]]:
    """Pieces of time as the scenario's own link has them."""
    found = []
    while from_s < until_s:
        to_s = min(from_s + FILL_S, until_s)
        found.append((to_s - from_s, _mean_rate(scenario, from_s, to_s), False))
        from_s = to_s
    return found


def _mean_rate(link: Link, from_s: float, until_s: float) -> float:
    try:
        return link.sent_bytes(from_s, until_s) / (until_s - from_s)
    except InputError:  # its capacity depends on what is sent
        return link.mean_bps / 8.0
