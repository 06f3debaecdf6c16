"""The keys of a scenario as a whole: their types, ranges, defaults, units, and where the defaults come from.

The text under every key is its description in `splitexit schema`, in docs/scenario.md and in the file that
`splitexit init` writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    Field,
    GetPydanticSchema,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import core_schema

from splitexit.decision import Utility
from splitexit.errors import InputError, UnknownNameError
from splitexit.policies import POLICIES
from splitexit.scenario.events import KINDS, MAX_S, AnyEvent
from splitexit.scenario.explain import Hints
from splitexit.scenario.sections import (
    AccessPoint,
    Batching,
    CalibrationFile,
    Cloud,
    Devices,
    Downlink,
    Edge,
    Energy,
    Label,
    Mode,
    ModeEnergy,
    Number,
    RelativePath,
    Section,
    Text,
    Uplink,
    Weights,
    Whole,
)
from splitexit.scenario.signature import hint, signature_model
from splitexit.scenario.spec import Folders, Spec, Zoo, parse
from splitexit.scenario.spec import load as load_class
from splitexit.scenario.strict_yaml import Keys

OWN = "own"
"""The label that gives every group its own policy."""

ONLY = "devices"
"""The label of the one group of a scenario without `groups`."""


def _utility(source: Any, handler: Any) -> core_schema.CoreSchema:
    """A Utility whose keys are those of Weights."""
    return core_schema.no_info_after_validator_function(lambda keys: Utility(**dict(keys)), handler(Weights))


class Scenario(Section):
    """A splitexit scenario: a model on devices, links, an edge, and policies that decide what runs where."""

    name: Annotated[Text, Field(max_length=80)] = ""
    """What to call it. Default: the name of the file."""
    bundle: RelativePath
    """Folder of the model with its recording and calibration, relative to this file."""
    requests: Annotated[Whole, Gt(0), Le(1_000_000_000)] = 2000
    """Requests per device. Default: enough for an accuracy to within about 2 points (95 %, binomial)."""
    seed: Annotated[Whole, Ge(0), Lt(2**64)] = 0
    """Seed of everything that is drawn; the same seed gives the same result."""
    engine: Literal["simpy", "compiled"] = "simpy"
    """What simulates it: `simpy` does everything; `compiled` (needs numba, the extra `fast`) gives the same rows far
    sooner where no decision depends on queues. Default: the one that does everything."""
    warmup_s: Annotated[Number, Ge(0), Le(MAX_S)] = 0.0
    """Requests that arrive before this are simulated and kept in the table, but left out of every figure. Default:
    none, a run begins with all queues empty and so does the system."""
    devices: Devices = Devices()
    """The devices; where there are groups, what holds for all of them."""
    groups: dict[Label, Devices] = Field(default={})
    """Label -> the keys of `devices` that differ; numbered one after the other. Default: all devices are alike."""
    access_points: dict[Label, AccessPoint] = Field(default={})
    """Label -> what devices share that name it as their `access_point`. Default: every device has links of its own."""
    uplink: Uplink
    """From a device to the edge; first come, first served. In Mbit/s of everything sent, headers included."""
    downlink: Downlink
    """From the edge to a device, likewise."""
    edge: Edge = Edge()
    """The edge."""
    cloud: Cloud | None = None
    """A third tier behind the edge. Default: none, the edge runs the network to its end."""
    utility: Annotated[Utility, GetPydanticSchema(_utility)] = Utility()
    """What `oracle` maximises, and what regret and "best" refer to."""
    policies: dict[Label, Annotated[Spec, Zoo("policy")]] = Field(default={})
    """Label -> policy: what `compare` and `demo` run, in this order. Default: every policy that needs no parameters."""
    events: tuple[AnyEvent, ...] = Field(default=())
    """What goes wrong meanwhile; policies see only the consequences. Default: nothing."""

    _file: Path = PrivateAttr(default=Path())

    @property
    def file(self) -> Path:
        """The file that it was read from."""
        return self._file

    @field_validator("groups", mode="after")
    @classmethod
    def _inherit(cls, groups: dict[str, Devices], info: ValidationInfo) -> dict[str, Devices]:
        defaults = info.data.get("devices", Devices())
        return {label: group.under(defaults) for label, group in groups.items()}

    @property
    def fleet(self) -> dict[str, Devices]:
        """Label -> devices, of every group in order; without `groups` of the only one."""
        return self.groups or {ONLY: self.devices}

    def links(self, of: Devices | AccessPoint) -> tuple[Spec, Spec]:
        """Uplink and downlink of such devices or access points; of devices on an access point, the shared ones."""
        point = of.access_point if isinstance(of, Devices) else None
        owner = of if point is None else self.access_points[point]
        return owner.uplink or self.uplink, owner.downlink or self.downlink

    def relinked(self, change: Callable[[Spec, Spec], tuple[Spec, Spec]]) -> Scenario:
        """The same with every uplink and downlink, the scenario's own and those of sections, as `change` makes them."""
        own = change(self.uplink, self.downlink)

        def of(section: Any) -> Any:
            up, down = change(section.uplink or self.uplink, section.downlink or self.downlink)
            return section.model_copy(update={"uplink": section.uplink and up, "downlink": section.downlink and down})

        return self.model_copy(
            update={
                "uplink": own[0],
                "downlink": own[1],
                "devices": of(self.devices),
                "groups": {label: of(group) for label, group in self.groups.items()},
                "access_points": {label: of(point) for label, point in self.access_points.items()},
            }
        )

    @property
    def policy_label(self) -> str:
        """The label of the devices' own policy, for `policy`; OWN where groups have different ones."""
        own = self._common_policy()
        if own is None:
            return OWN
        equal = [label for label, spec in self.policies.items() if spec == own]
        if equal:
            return equal[0]
        return own.name if own.name not in self.policies else OWN

    def labels(self) -> list[str]:
        """The labels of `policies`; without any, the shipped policies that need no parameters.

        Where groups have different policies, OWN comes first.
        """
        own = [OWN] if self._common_policy() is None else []
        return own + (list(self.policies) or [name for name in POLICIES.names() if not _needs(name)])

    def _common_policy(self) -> Spec | None:
        """The policy that all devices have; None where groups have different ones."""
        first, *others = (devices.policy for devices in self.fleet.values())
        return first if all(other == first for other in others) else None

    def policy(self, label: str, devices: Devices | None = None) -> Spec:
        """The policy with this label, else the devices' own if that is its name, else the shipped one of that name.

        Args:
            label: OWN stands for what `devices` have (default: those of the first group).

        Raises UnknownNameError, or InputError where that one needs parameters.
        """
        if label == OWN:
            return (devices or next(iter(self.fleet.values()))).policy
        if label in self.policies:
            return self.policies[label]
        own = self._common_policy()
        if own is not None and label == own.name:
            return own
        try:
            return parse("policy", label, Folders(self.file.parent, self.file.parent))
        except ValidationError as error:
            names = dict.fromkeys([*self.policies, *POLICIES.names()])
            if label not in names:
                raise UnknownNameError("policy", label, names) from error
            raise InputError(f"policy {label!r}: {error.errors()[0]['msg']}; give it under `policies:`") from error

    def place(self, label: str) -> Keys:
        """Where the file has the group of that label."""
        return ("groups", label) if self.groups else ("devices",)

    def machines(self) -> Iterator[tuple[Keys, str]]:
        """What computes, and the key that says so."""
        for label, group in self.fleet.items():
            yield (*self.place(label), "hardware"), group.hardware
            for name, mode in group.modes.items():
                yield (*self.place(label), "modes", name, "hardware"), mode.hardware
        yield ("edge", "hardware"), self.edge.hardware
        if self.cloud is not None:
            yield ("cloud", "hardware"), self.cloud.hardware

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, paths absolute: read from any folder, it gives an equal scenario."""
        content: dict[str, Any] = _plain(self, str)
        return content

    def digest(self) -> str:
        """Hex sha256 of every key, with files by content and folders by name: the same on another machine."""
        content = _plain(self, _content)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Equal keys, whichever file they were read from."""
        return isinstance(other, Scenario) and self.resolved() == other.resolved()

    def __hash__(self) -> int:
        """Of the digest."""
        return hash(self.digest())


ANY = "*"
"""Stands for any label in a path of SECTIONS; an event's kind stands for its number."""

SECTIONS: dict[Keys, type[Section]] = {
    (): Scenario,
    ("devices",): Devices,
    ("devices", "energy"): Energy,
    ("devices", "modes", ANY): Mode,
    ("devices", "modes", ANY, "energy"): ModeEnergy,
    ("groups", ANY): Devices,
    ("groups", ANY, "energy"): Energy,
    ("groups", ANY, "modes", ANY): Mode,
    ("groups", ANY, "modes", ANY, "energy"): ModeEnergy,
    ("access_points", ANY): AccessPoint,
    ("edge",): Edge,
    ("edge", "batching"): Batching,
    ("cloud",): Cloud,
    ("cloud", "batching"): Batching,
    ("utility",): Weights,
    **{("events", kind): event for kind, event in KINDS.items()},
}


def hints(path: Keys, raw: Mapping[str, Any]) -> Hints:
    """The keys of the section at `path` of the document `raw` (none elsewhere), with what to try for each."""
    match path:
        case ("groups" | "access_points" as key, _, *rest):
            path = (key, ANY, *rest)
        case ("events", int(n)):
            path = ("events", str(raw["events"][n].get("kind")))
    match path:
        case (*section, "modes", _) | (*section, "modes", _, "energy"):
            path = (*section, "modes", ANY, *path[len(section) + 2 :])
    if path not in SECTIONS:
        return {}
    fields = SECTIONS[path].model_fields
    return {key: _hint(field) for key, field in fields.items()}


def _hint(field: Any) -> str:
    default = ... if field.is_required() else field.default
    return hint(field.description, default.name if isinstance(default, Spec) else default)


def _needs(name: str) -> bool:
    """Whether the policy of that name has parameters without a default."""
    model = signature_model(load_class("policy", name))
    return any(field.is_required() for field in model.model_fields.values())


def _plain(value: Any, of_path: Callable[[Path], str]) -> Any:
    """Dicts, lists and scalars, with paths as `of_path` writes them."""
    match value:
        case Path() | CalibrationFile():
            return of_path(Path(value))
        case Spec():
            return _plain(value.plain(), of_path)
        case BaseModel() | Mapping():
            return {str(key): _plain(item, of_path) for key, item in dict(value).items()}
        case list() | tuple():
            return [_plain(item, of_path) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _content(path: Path) -> str:
    """What a path leads to, rather than where."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.name


def json_schema() -> dict[str, Any]:
    """JSON schema of a scenario, with every member of the zoos; for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
