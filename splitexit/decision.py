"""What a policy sees and what it answers.

A policy gets an `Observation` (what a device can measure) and returns a `Plan` (what to do).
Before a run it gets a `Setting` (what may be known beforehand); afterwards an `Outcome`.
Only the oracle gets the `Truth`, and asks for it openly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.errors import PolicyError

if TYPE_CHECKING:
    import numpy as np

    from splitexit.recording import Part


@dataclass(frozen=True, slots=True)
class Reading:
    """What one exit said about one sample.

    `max_prob` is the largest softmax probability, `entropy` is in nats, `margin` is the largest minus
    the second largest probability; `logits` (num_classes,) is absent where a recording left it out.
    `confidence`, between 0 and 1, is that of a head that learns when to stop; nan where the head has no such branch.
    `ruled_out` is a bit mask of the classes (bit c for class c) that this exit and those before it have excluded; the
    logits are −inf there, and prediction and probabilities are over the classes that remain.
    """

    exit: int
    prediction: int
    max_prob: float
    entropy: float
    margin: float
    logits: np.ndarray[Any, Any] | None = field(default=None, compare=False)
    confidence: float = field(default=nan, compare=False)  # nan is unequal to itself
    ruled_out: int = 0


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """What a device believes of its link: uplink bits per second, and seconds for an empty round trip."""

    rate_bps: float
    rtt_s: float

    def round_trip_s(self, size_bytes: float) -> float:
        """Expected seconds in transit, both ways, for an upload of `size_bytes`."""
        return self.rtt_s + 8.0 * size_bytes / self.rate_bps


class EdgeLoad(NamedTuple):
    """The load an edge reported in its last reply: requests waiting or running, and that reply's wait."""

    queue_length: int
    wait_s: float


class Observation:
    """What a device can measure at a decision point.

    now_s              seconds on the device's clock
    readings           tuple of Reading, in the order they were read
    queue_length       requests waiting at this device behind the present one
    in_flight          requests this device has sent and not heard of
    oldest_in_flight_s age of the oldest of them (0 without any)
    link               LinkEstimate from past transfers
    edge_load          EdgeLoad of the last reply, or None before the first
    cpu_load           share of the last second that this device computed, 0..1
    deadline_left_s    seconds until the request's deadline (negative when it has passed)
    context            what the device knows of the capture's conditions: the distortion that was recorded with it
                       (`record --distort`), "" without one; None where the recording distinguishes none

    A world fills in only the fields that the policy declared in `reads`; any other raises PolicyError.
    That is what lets an engine know that decisions do not depend on queues (house rule 2).
    """

    FIELDS = frozenset(
        {
            "now_s",
            "readings",
            "queue_length",
            "in_flight",
            "oldest_in_flight_s",
            "link",
            "edge_load",
            "cpu_load",
            "deadline_left_s",
            "context",
        }
    )
    __slots__ = tuple(sorted(FIELDS))

    now_s: float
    readings: tuple[Reading, ...]
    queue_length: int
    in_flight: int
    oldest_in_flight_s: float
    link: LinkEstimate
    edge_load: EdgeLoad | None
    cpu_load: float
    deadline_left_s: float
    context: str | None

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only when a slot is empty or the name is none of the slots.
        if name in Observation.FIELDS:
            raise PolicyError(f"the policy reads observation.{name} without declaring it in `reads`")
        raise AttributeError(name)


@dataclass(frozen=True, slots=True)
class ExitCheck:
    """Read this exit's head and stop there when `rule` holds (rules: splitexit.confidence)."""

    exit: int
    rule: str = "max_prob"
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for one request, as plain data.

    exits      heads to read on the device, with their rules; a head not named here costs nothing
    split      stages the device runs if no exit fires; what follows runs on the edge.
               None: the device runs to the end and the final exit answers
    codec      how the features (the image at split 0) are sent; needed where split is not None
    edge_exits the same for the exits behind the split; the final exit always answers
    timeout_s  give up waiting for the edge after so long, if that is before the deadline's own limit
    mode       of the device while it computes (a key of `devices.modes`); None: as its `hardware` was measured.
               Switching takes no time [inferred]. A request keeps the mode of its first plan
    """

    exits: tuple[ExitCheck, ...] = ()
    split: int | None = None
    codec: str | None = None
    edge_exits: tuple[ExitCheck, ...] = ()
    timeout_s: float | None = None
    mode: str | None = None

    def check(self, spec: ModelSpec) -> None:
        """Raises PolicyError where the plan is impossible for this model."""
        limit = spec.num_stages if self.split is None else self.split
        if self.split is not None and not (0 <= self.split < spec.num_stages and self.codec):
            raise PolicyError(f"plan: split {self.split} with codec {self.codec!r} is not in 0..{spec.num_stages - 1}")
        _in_order("exits", self.exits, spec, 1, limit)
        _in_order("edge_exits", self.edge_exits, spec, limit + 1, spec.num_stages)
        _complete((*self.exits, *self.edge_exits), spec)


def _in_order(name: str, checks: Sequence[ExitCheck], spec: ModelSpec, first: int, last: int) -> None:
    before = first - 1
    for check in checks:
        if not 0 <= check.exit <= spec.final_exit:
            raise PolicyError(f"plan: {name} names exit {check.exit}; the model has exits 0..{spec.final_exit}")
        stage = spec.exit_stages[check.exit]
        if not before < stage <= last:
            raise PolicyError(f"plan: {name} names exit {check.exit} (stage {stage}) out of order or beyond the split")
        before = stage


def _complete(checks: Sequence[ExitCheck], spec: ModelSpec) -> None:
    read = {check.exit for check in checks}
    for exit_ in read:
        if spec.exits[exit_].additive and exit_ - 1 not in read:
            raise PolicyError(
                f"plan: exit {exit_} adds to what exit {exit_ - 1} says, which is not read; name that one before it"
            )


class Consumption(Protocol):
    """What requests cost a device in joules (splitexit.energy.Model)."""

    @property
    def gaps(self) -> Sequence[str]:
        """Why that is not known, if it is not; one sentence each, with what to give."""
        ...

    def requests_j(
        self, asked: Sequence[tuple[float, float, float, float]], rate_bps: float, reply_s: float, gap_s: float
    ) -> list[float]:
        """Joules above idle power for a request on average, of several kinds.

        Args:
            asked: of every kind, seconds of computing and encoding; share of the requests that are sent, 0..1; and of
                one that is sent the bytes, with framing, and the edge's seconds.
            rate_bps: of the uplink.
            reply_s: an empty round trip, and the wait at the edge.
            gap_s: mean time from one request to the next; inf: nothing is known of the next.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """What a policy may know before a run.

    spec         the model's structure and costs
    device, edge calibrations of both sides (seconds per stage, head, encode, decode)
    codecs       codec ids on offer at every split
    calibration  the recording's calibration split (never the test split): readings, payload bytes, labels
    link         what the device believes of its link before the first transfer; an empty round trip
                 includes what a call costs (Rpc.seconds), as a measured one does
    utility      the scenario's utility
    deadline_s   the scenario's deadline
    retries      how often a payload is sent again after a failure that was noticed in time
    edge_workers, edge_servers   requests that a server of the edge works on at a time, and how many servers it has
    energy       what the device takes, as far as figures were published or given; None: nothing is known
    cloud_split  stages that device and edge run at most, where a cloud runs the rest; None without one
    modes        what the device can be switched to for a request, by name (Plan.mode): the same setting with the times,
                 codecs and energy that it has then, and no modes; empty where it has none
    """

    spec: ModelSpec
    device: Calibration
    edge: Calibration
    codecs: Mapping[int, tuple[str, ...]]
    calibration: Part
    link: LinkEstimate
    utility: Utility
    deadline_s: float
    retries: int = 0
    edge_workers: int = 1
    edge_servers: int = 1
    energy: Consumption | None = None
    cloud_split: int | None = None
    modes: Mapping[str, Setting] = field(default_factory=dict)

    def in_mode(self, mode: str | None) -> Setting:
        """The setting in this mode of the device; None: itself. Raises PolicyError for an unknown mode."""
        if mode is None:
            return self
        if mode not in self.modes:
            known = f"it has {', '.join(self.modes)}" if self.modes else "the scenario gives it none (devices.modes)"
            raise PolicyError(f"plan: the device has no mode {mode!r}; {known}")
        return self.modes[mode]

    def require(self, plan: Plan) -> None:
        """Raises PolicyError where the device has not the plan's mode, or cannot encode there what is to be sent."""
        offered = self.in_mode(plan.mode).codecs
        if plan.split is not None and plan.codec not in offered.get(plan.split, ()):
            raise PolicyError(
                f"plan: codec {plan.codec!r} at split {plan.split} is not calibrated in mode {plan.mode!r}"
            )

    @cached_property
    def exit_stages(self) -> tuple[int, ...]:
        """Stages before every exit."""
        return tuple(self.spec.exit_stages)

    @cached_property
    def fallback_s(self) -> tuple[float, ...]:
        """Mean seconds, by split, that a device without a reading needs to answer alone: on to the next exit."""
        return tuple(self._onward_s(split) for split in range(self.spec.num_stages))

    def _onward_s(self, split: int) -> float:
        exit_ = self.spec.next_exit(split)
        run = self.device.stages[split : self.exit_stages[exit_]]
        return sum(stage.mean for stage in run) + self.device.exits[exit_].mean

    @cached_property
    def known(self) -> dict[Any, Any]:
        """What policies have worked out of this setting and need not work out again for every device."""
        return {}

    def payload_bytes(self, split: int, codec: str) -> float:
        """Mean bytes of this (split, codec) on the calibration split, with the message's framing."""
        mean = float(self.calibration.pair(split, codec).payload_bytes.mean())
        return mean + self.edge.rpc.uplink_overhead_bytes

    def device_s(self, split: int) -> float:
        """Mean seconds for the device to run the first `split` stages."""
        return sum(stage.mean for stage in self.device.stages[:split])

    def edge_s(self, split: int) -> float:
        """Mean seconds for the edge to run what follows `split`, with the final head."""
        return sum(stage.mean for stage in self.edge.stages[split:]) + self.edge.exits[-1].mean

    def offload_s(self, split: int, codec: str, link: LinkEstimate, edge_wait_s: float = 0.0) -> float:
        """Expected response time of an offload, queues at the device left out (policies.md §0, T(p,κ))."""
        return (
            self.device_s(split)
            + self.device.encode[split, codec].mean
            + link.round_trip_s(self.payload_bytes(split, codec))
            + edge_wait_s
            + self.edge.decode[split, codec].mean
            + self.edge_s(split)
        )

    def local_s(self) -> float:
        """Expected response time of running everything on the device."""
        return self.device_s(self.spec.num_stages) + self.device.exits[-1].mean


@dataclass(frozen=True, slots=True)
class Utility:
    """What one answer is worth: accuracy·[right] − latency_per_s·response − miss·[deadline missed].

    The weights are a key of the scenario; "best", oracle and regret refer to them.
    """

    accuracy: float = 1.0
    latency_per_s: float = 1.0
    miss: float = 0.0

    def of(self, correct: bool, response_s: float, deadline_met: bool) -> float:
        """Utility of one answer."""
        return self.accuracy * correct - self.latency_per_s * response_s - self.miss * (not deadline_met)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is learned when a request has ended; parts that did not happen are zero or None.

    `transfer_s` is the time in transit both ways; `edge_reading` is what the edge's exit said; `device_s` is how long
    the device computed and encoded.
    """

    plan: Plan
    readings: tuple[Reading, ...]
    response_s: float
    answered_by: str
    payload_bytes: int = 0
    transfer_s: float = 0.0
    edge_wait_s: float = 0.0
    edge_compute_s: float = 0.0
    edge_reading: Reading | None = None
    device_s: float = 0.0


class Truth(Protocol):
    """What really would happen to the present request; only an OmniscientPolicy sees it, only in the simulator."""

    def utility(self, plan: Plan) -> float:
        """Utility of carrying out `plan` in the present state."""
        ...

    def best(self, plans: Sequence[Plan]) -> tuple[Plan, float]:
        """The first of the oracle's candidates with the highest utility, and that utility."""
        ...

    def says(self, exit_: int) -> Reading:
        """What this exit would say on the device, whether it is read or not."""
        ...
