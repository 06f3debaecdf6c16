"""The sections of a scenario: devices, access points, edge, cloud, worth.

The text under every key is its description in `splitexit schema`, in docs/scenario.md and in the file that
`splitexit init` writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo

from splitexit import hardware
from splitexit.calibration import Calibration
from splitexit.energy import radio_names
from splitexit.errors import ArtifactError, did_you_mean
from splitexit.scenario.explain import problem
from splitexit.scenario.scalars import shown
from splitexit.scenario.spec import DOWNWARD, UPWARD, Spec, Zoo

HOST = hardware.HOST
"""The hardware name of the machine that the bundle's calibration was measured on."""

MAX_DEVICES = 100_000
"""Devices of a scenario, all groups together."""


def _path(value: Any, info: ValidationInfo) -> Any:
    assert info.context is not None, "validate with a context"
    return info.context["folders"].resolve(value) if isinstance(value, str) else value


class CalibrationFile(str):
    """The absolute path of a calibration.json, where the name of a machine may stand."""


def _known_hardware(name: str, info: ValidationInfo) -> str:
    if name.endswith(hardware.FILE_SUFFIX):
        path = _path(name, info)
        try:
            Calibration.load(path)
        except ArtifactError as error:
            raise problem(str(error)) from error
        return CalibrationFile(path)
    if name not in (known := [HOST, *hardware.names()]):
        raise problem(f"unknown hardware {shown(name)}{did_you_mean(name, known)}")
    return name


def _describe_hardware(schema: dict[str, Any]) -> None:
    """A machine's name or a path; both are text."""
    file = {"type": schema.pop("type"), "format": "path", "pattern": rf"\{hardware.FILE_SUFFIX}$"}
    schema["anyOf"] = [{"enum": [HOST, *hardware.names()]}, file]


def _known_label(label: str) -> str:
    if not all(c.isalnum() or c in "-_+.@" for c in label) or not 0 < len(label) <= 40:
        raise problem(f"the label {shown(label)} is not 1 to 40 letters, digits and any of - _ + . @", of_key=True)
    return label


def _known_radio(name: str) -> str:
    if name not in (known := radio_names()):
        raise problem(f"unknown radio {shown(name)}{did_you_mean(name, known)}")
    return name


def _by_default(spec: Spec) -> Any:
    return Field(default=spec, json_schema_extra={"default": spec.plain()})


Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
RelativePath = Annotated[Path, BeforeValidator(_path)]
Hardware = Annotated[
    Text,
    AfterValidator(_known_hardware),
    Field(json_schema_extra=_describe_hardware),
]
Radio = Annotated[
    Text, AfterValidator(_known_radio), Field(json_schema_extra=lambda schema: schema.update(enum=radio_names()))
]
Label = Annotated[Text, AfterValidator(_known_label)]
Uplink = Annotated[Spec, Zoo("link", use=UPWARD)]
Downlink = Annotated[Spec, Zoo("link", use=DOWNWARD)]
Watts = Annotated[Number, Ge(0), Le(100_000)]


class Section(BaseModel):
    """A mapping of the scenario; its keys are known and do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Energy(Section):
    """What a device draws, for joules per request."""

    compute_w: Watts | None = None
    """Watts while it computes, idle power included; not without `idle_w`. Default: the published figure of its
    hardware, where there is one."""
    idle_w: Watts | None = None
    """Watts while it waits; not without `compute_w`. Default: likewise."""
    radio: Radio | None = None
    """The radio whose energy is charged. Default: that of its uplink, where this is a technology by name."""


class ModeEnergy(Section):
    """What a device draws in a mode."""

    compute_w: Watts | None = None
    """Watts while it computes in this mode, idle power included. Default: the published figure of the mode's hardware,
    where there is one."""
    idle_w: Watts | None = None
    """Between computations a device waits as its own `hardware` does, so only the figure of `devices.energy` may stand
    here. Default: that."""


class Mode(Section):
    """Another way to run a device: a frequency, an accelerator."""

    hardware: Hardware
    """What the device is in this mode, as for `devices`; mostly the calibration.json that `splitexit calibrate` wrote
    while the device was set so. None is shipped or derived: a mode is what somebody measured."""
    energy: ModeEnergy = ModeEnergy()
    """What it draws meanwhile. Default: what was published of that hardware."""


class Devices(Section):
    """Devices that are all alike, each with arrivals of its own."""

    count: Annotated[Whole, Gt(0), Le(MAX_DEVICES)] = 1
    """How many there are."""
    hardware: Hardware = HOST
    """What they compute on: a machine whose times are derived from published ones; `host`, the machine that the
    bundle was calibrated on; or the calibration.json of a machine of yours, which `splitexit calibrate --out` or
    `--edge` wrote."""
    arrivals: Annotated[Spec, Zoo("arrivals")] = _by_default(Spec("arrivals", "poisson", {"rate_hz": 4.0}))
    """When requests come to one device. Default: Poisson, the usual model of independent requests, 4 per second."""
    order: Literal["shuffled", "in-order"] = "shuffled"
    """In which order a device takes the test images: at random, or as they were recorded, from a random one on, round
    and round. Default: at random, because test sets hold no sequences; `in-order` is for frames of a video."""
    policy: Annotated[Spec, Zoo("policy", labels=True)] = _by_default(Spec("policy", "local", {}))
    """What `simulate` and `device` run: a label of `policies`, the name of a policy, or a mapping with its parameters.
    Default: everything on the device, the baseline of the field."""
    deadline_ms: Annotated[Number, Gt(0), Le(3_600_000)] = 1000.0
    """When an answer is due, in ms after the request came. Default: 1 s, the limit for a user's flow of thought to stay
    uninterrupted (Nielsen, Usability Engineering, 1993)."""
    pipeline: Flag = True
    """Whether a device takes up its next request while an earlier one waits for the edge. Default: yes, as a process
    with a sending thread does."""
    retries: Annotated[Whole, Ge(0), Le(2)] = 0
    """How often a payload is sent again after a failure that was noticed before the deadline. Default: never, as gRPC
    does without a retry policy."""
    access_point: Label | None = None
    """Label of the `access_points` whose links they share, device k on number k mod count. Default: each device has
    links of its own."""
    uplink: Uplink | None = None
    """A device's own link to the edge. Default: the scenario's `uplink`."""
    downlink: Downlink | None = None
    """And back. Default: the scenario's `downlink`."""
    energy: Energy = Energy()
    """What a device draws. Default: what was published of its hardware and of its uplink's technology."""
    modes: dict[Label, Mode] = Field(default={})
    """Label -> what else a device can be switched to, request by request, by a policy that chooses among modes
    (`dynasplit`); switching takes no time [inferred]. Live, only of devices that stand for other hardware than `host`.
    Default: none, it runs as `hardware` was measured."""

    @property
    def deadline_s(self) -> float:
        """The deadline in seconds."""
        return self.deadline_ms / 1000.0

    def under(self, defaults: Devices) -> Devices:
        """This group with what it was not given taken from `defaults`.

        Naming an access point drops inherited links, and links drop an inherited access point.
        """
        given = {key: getattr(self, key) for key in self.model_fields_set}
        if given.get("access_point"):
            given = {"uplink": None, "downlink": None} | given
        elif given.get("uplink") or given.get("downlink"):
            given = {"access_point": None} | given
        return defaults.model_copy(update=given)


class AccessPoint(Section):
    """Access points that are all alike: one uplink and one downlink each, shared by its devices."""

    count: Annotated[Whole, Gt(0), Le(MAX_DEVICES)] = 1
    """How many there are."""
    sharing: Literal["fifo", "processor"] = "fifo"
    """Who holds a link when: one message after the other (`fifo`), or all at once, each with an equal share of the rate
    (`processor`). Default: first come, first served, as on a link of one's own."""
    uplink: Uplink | None = None
    """To the edge. Default: the scenario's `uplink`."""
    downlink: Downlink | None = None
    """And back. Default: the scenario's `downlink`."""


class Batching(Section):
    """Several requests in one pass through the network, at the times that were calibrated per batch size."""

    max_size: Annotated[Whole, Gt(0), Le(1024)]
    """Requests of one batch at most; all of them arrived at the same split."""
    max_wait_ms: Annotated[Number, Ge(0), Le(60_000)] = 0.0
    """How long the oldest waits for company while a worker is idle. Default: not at all, a batch is what has queued up
    (the default queue delay of NVIDIA Triton's dynamic batcher)."""

    @property
    def max_wait_s(self) -> float:
        """The wait in seconds."""
        return self.max_wait_ms / 1000.0


class Edge(Section):
    """The edge: servers with a queue each, first come, first served."""

    hardware: Hardware = HOST
    """What it computes on, as for devices."""
    workers: Annotated[Whole, Gt(0), Le(1024)] = 1
    """How many requests a server works on at a time. Default: one, as in M/D/1 and as one GPU serves."""
    servers: Annotated[Whole, Gt(0), Le(1024)] = 1
    """How many servers there are. Default: one, and nothing to balance."""
    balancer: Literal["round-robin", "least-loaded"] = "round-robin"
    """Which server a request goes to when it arrives: one after the other, or the one with the fewest requests waiting
    and running (the lowest number of equals). Default: round robin, as nginx does unless told."""
    queue: Annotated[Whole, Ge(0), Le(10_000_000)] | None = None
    """Requests that may wait at a server; more are refused. Default: any number, as in M/D/1."""
    batching: Batching | None = None
    """Whether and how requests are computed together. Default: one at a time."""


class Cloud(Edge):
    """The cloud: a tier behind the edge, built alike, that runs what is deeper than `split`."""

    split: Annotated[Whole, Gt(0)]
    """Stages that device and edge run at most; the cloud runs the rest."""
    uplink: Uplink
    """From the edge to the cloud: one link for all servers together, first come, first served."""
    downlink: Downlink
    """From the cloud to the edge, likewise."""


class Weights(Section):
    """What one answer is worth: accuracy if it is right, minus latency and miss."""

    accuracy: Annotated[Number, Ge(0)] = 1.0
    """Worth of a right answer."""
    latency_per_s: Annotated[Number, Ge(0)] = 1.0
    """Cost of a second of response time. Default: 100 ms weigh as much as ten points of accuracy; a choice, not a
    finding."""
    miss: Annotated[Number, Ge(0)] = 0.0
    """Cost of an answer after the deadline. Default: none beyond its latency."""
