"""The keys of a scenario: their types, ranges, defaults, units, and where the defaults come from.

The text under every key is its description in `splitexit schema` and in the file that `splitexit init` writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PrivateAttr,
    Strict,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import core_schema

from splitexit import hardware
from splitexit.decision import Utility
from splitexit.errors import InputError, UnknownNameError, did_you_mean
from splitexit.policies import POLICIES
from splitexit.scenario.explain import Hints, problem
from splitexit.scenario.scalars import shown
from splitexit.scenario.signature import hint, signature_model
from splitexit.scenario.spec import DOWNWARD, UPWARD, Folders, Spec, Zoo, parse
from splitexit.scenario.spec import load as load_class
from splitexit.scenario.strict_yaml import Keys

HOST = "host"
"""The hardware name of the machine that the bundle's calibration was measured on."""


def _path(value: Any, info: ValidationInfo) -> Any:
    assert info.context is not None, "validate with a context"
    return info.context["folders"].resolve(value) if isinstance(value, str) else value


def _known_hardware(name: str) -> str:
    if name not in (known := [HOST, *hardware.names()]):
        raise problem(f"unknown hardware {shown(name)}{did_you_mean(name, known)}")
    return name


def _known_label(label: str) -> str:
    if not all(c.isalnum() or c in "-_+.@" for c in label) or not 0 < len(label) <= 40:
        raise problem(f"the label {shown(label)} is not 1 to 40 letters, digits and any of - _ + . @", of_key=True)
    return label


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
    Field(json_schema_extra=lambda schema: schema.update(enum=[HOST, *hardware.names()])),
]
Label = Annotated[Text, AfterValidator(_known_label)]


class Section(BaseModel):
    """A mapping of the scenario; its keys are known and do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Devices(Section):
    """The devices: all alike, each with a link and arrivals of its own."""

    count: Annotated[Whole, Gt(0), Le(10_000)] = 1
    """How many there are."""
    hardware: Hardware = HOST
    """What they compute on: a machine whose times are derived from published ones, or `host`, the machine that the
    bundle was calibrated on."""
    arrivals: Annotated[Spec, Zoo("arrivals")] = _by_default(Spec("arrivals", "poisson", {"rate_hz": 4.0}))
    """When requests come to one device. Default: Poisson, the usual model of independent requests, 4 per second."""
    policy: Annotated[Spec, Zoo("policy", labels=True)] = _by_default(Spec("policy", "local", {}))
    """What `simulate` and `device` run: a label of `policies`, the name of a policy, or a mapping with its parameters.
    Default: everything on the device, the baseline of the field."""
    deadline_ms: Annotated[Number, Gt(0), Le(3_600_000)] = 1000.0
    """When an answer is due, in ms after the request came. Default: 1 s, the limit for a user's flow of thought to stay
    uninterrupted (Nielsen, Usability Engineering, 1993)."""
    pipeline: Flag = True
    """Whether a device takes up its next request while an earlier one waits for the edge. Default: yes, as a process
    with a sending thread does."""

    @property
    def deadline_s(self) -> float:
        """The deadline in seconds."""
        return self.deadline_ms / 1000.0


class Edge(Section):
    """The edge: one queue for all devices, first come, first served."""

    hardware: Hardware = HOST
    """What it computes on, as for devices."""
    workers: Annotated[Whole, Gt(0), Le(1024)] = 1
    """How many requests it works on at a time. Default: one, as in M/D/1 and as one GPU serves."""


class Weights(Section):
    """What one answer is worth: accuracy if it is right, minus latency and miss."""

    accuracy: Annotated[Number, Ge(0)] = 1.0
    """Worth of a right answer."""
    latency_per_s: Annotated[Number, Ge(0)] = 1.0
    """Cost of a second of response time. Default: 100 ms weigh as much as ten points of accuracy; a choice, not a
    finding."""
    miss: Annotated[Number, Ge(0)] = 0.0
    """Cost of an answer after the deadline. Default: none beyond its latency."""


def _utility(source: Any, handler: Any) -> core_schema.CoreSchema:
    """A Utility whose keys are those of Weights."""
    return core_schema.no_info_after_validator_function(lambda keys: Utility(**dict(keys)), handler(Weights))


class Scenario(Section):
    """A splitexit scenario: a model on devices, links, an edge, and policies that decide what runs where."""

    name: Annotated[Text, Field(max_length=80)] = ""
    """What to call it. Default: the name of the file."""
    bundle: RelativePath
    """Folder of the model with its recording and calibration, relative to this file."""
    requests: Annotated[Whole, Gt(0), Le(10_000_000)] = 2000
    """Requests per device. Default: enough for an accuracy to within about 2 points (95 %, binomial)."""
    seed: Annotated[Whole, Ge(0), Lt(2**64)] = 0
    """Seed of everything that is drawn; the same seed gives the same result."""
    devices: Devices = Devices()
    """The devices."""
    uplink: Annotated[Spec, Zoo("link", use=UPWARD)]
    """From a device to the edge; first come, first served. In Mbit/s of everything sent, headers included."""
    downlink: Annotated[Spec, Zoo("link", use=DOWNWARD)]
    """From the edge to a device, likewise."""
    edge: Edge = Edge()
    """The edge."""
    utility: Annotated[Utility, GetPydanticSchema(_utility)] = Utility()
    """What `oracle` maximises, and what regret and "best" refer to."""
    policies: dict[Label, Annotated[Spec, Zoo("policy")]] = Field(default={})
    """Label -> policy: what `compare` and `demo` run, in this order. Default: every policy that needs no parameters."""

    _file: Path = PrivateAttr(default=Path())

    @property
    def file(self) -> Path:
        """The file that it was read from."""
        return self._file

    @property
    def policy_label(self) -> str:
        """The label of the devices' own policy, for `policy`."""
        own = self.devices.policy
        equal = [label for label, spec in self.policies.items() if spec == own]
        if equal:
            return equal[0]
        return own.name if own.name not in self.policies else OWN

    def labels(self) -> list[str]:
        """The labels of `policies`; without any, the shipped policies that need no parameters."""
        return list(self.policies) or [name for name in POLICIES.names() if not _needs(name)]

    def policy(self, label: str) -> Spec:
        """The policy with this label, else the devices' own if that is its name, else the shipped one of that name.

        Raises UnknownNameError, or InputError where that one needs parameters.
        """
        own = self.devices.policy
        if label in self.policies:
            return self.policies[label]
        if label in (own.name, OWN):
            return own
        try:
            return parse("policy", label, Folders(self.file.parent, self.file.parent))
        except ValidationError as error:
            names = dict.fromkeys([*self.policies, *POLICIES.names()])
            if label not in names:
                raise UnknownNameError("policy", label, names) from error
            raise InputError(f"policy {label!r}: {error.errors()[0]['msg']}; give it under `policies:`") from error

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


OWN = "devices.policy"
"""The label of the devices' own policy where another one has its name."""

SECTIONS: dict[Keys, type[Section]] = {(): Scenario, ("devices",): Devices, ("edge",): Edge, ("utility",): Weights}


def hints(path: Keys) -> Hints:
    """The keys of the section at `path` (none elsewhere), with what to try when a value is wrong."""
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
        case Path():
            return of_path(value)
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
