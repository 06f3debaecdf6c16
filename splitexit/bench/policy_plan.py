"""What `splitexit bench policies` runs: its scenarios, and how every policy of the table is set.

Scenarios lie in scenarios/*.yaml, settings in policies.yaml, both beside this file. A setting that fits no scenario, or
not this bundle, is not left out in silence: `fitting` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splitexit.bundle import Bundle
from splitexit.errors import InputError, SplitexitError, UnknownNameError
from splitexit.experiment import Experiment
from splitexit.policies import POLICIES
from splitexit.scenario import Folders, Scenario, Spec, load, strict_yaml
from splitexit.scenario.spec import stand_alone

SCENARIOS = Path(__file__).parent / "scenarios"
SETTINGS = Path(__file__).parent / "policies.yaml"
DEFAULT_BUNDLE = Path("scenarios") / "data" / "resnet32-cifar10"


@dataclass(frozen=True)
class Settings:
    """Label -> settings of a policy as in a scenario, the first that fits is taken; and where they come from."""

    entries: Mapping[str, Sequence[Any]]
    file: Path
    folders: Folders


@dataclass(frozen=True)
class Field:
    """An experiment with the policies that run in it, and label -> why another does not."""

    experiment: Experiment
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the policies that run."""
        return tuple(self.experiment.scenario.policies)


def find_scenarios(names: Sequence[str] = ()) -> list[Path]:
    """The files of these scenarios, by name or path; of all without names. Raises UnknownNameError."""
    known = {path.stem: path for path in sorted(SCENARIOS.glob("*.yaml"))}
    for name in names:
        if name not in known and not Path(name).is_file():
            raise UnknownNameError("scenario", name, known)
    return [known.get(name) or Path(name) for name in names] or list(known.values())


def find_bundle(given: Path | None) -> Path:
    """The bundle that was given, else the shipped one: under the present folder, or in this checkout.

    Raises InputError where there is none.
    """
    if given is not None:
        return Bundle.open(given).path
    for root in (Path(), Path(__file__).resolve().parents[2]):
        if (root / DEFAULT_BUNDLE).is_dir():
            return root / DEFAULT_BUNDLE
    raise InputError(f"{DEFAULT_BUNDLE} is not here; name a bundle, or run this in a checkout of splitexit")


def read_settings(path: Path | None = None, labels: Sequence[str] = ()) -> Settings:
    """The settings of a file, and the table's policies that it says nothing of, with their defaults.

    Args:
        path: by default the shipped one; of another, only what stands there.
        labels: only these, in this order; by default all.

    Raises:
        InputError: the file is no mapping from labels to lists of settings.
        UnknownNameError: there is no such label.
    """
    file = path or SETTINGS
    document = strict_yaml.read(file)
    entries = document.value
    if not isinstance(entries, dict) or not all(isinstance(of, list) and of for of in entries.values()):
        raise InputError(f"{file}: expected labels with a list of settings each, e.g. `local: [{{name: local}}]`")
    if path is None:
        entries = entries | {name: [name] for name in POLICIES.names() if name not in _named(entries)}
    for label in labels:
        if label not in entries:
            raise UnknownNameError("policy", label, entries)
    return Settings({label: entries[label] for label in labels or entries}, file, Folders(file.parent, Path.cwd()))


def _named(entries: Mapping[str, Sequence[Any]]) -> set[Any]:
    return {item.get("name") if isinstance(item, dict) else item for of in entries.values() for item in of}


def open_field(path: Path, bundle: Path, settings: Settings) -> Field:
    """A scenario on this bundle, with every policy that fits; raises InputError where the scenario does not."""
    scenario = load(path).model_copy(update={"bundle": bundle.resolve(), "policies": {}, "engine": "simpy"})
    experiment = Experiment.open(scenario)
    chosen: dict[str, Spec] = {}
    left_out: dict[str, str] = {}
    for label, alternatives in settings.entries.items():
        found = _first_fit(experiment, label, alternatives, settings)
        if isinstance(found, Spec):
            chosen[label] = found
        else:
            left_out[label] = found
    return Field(_with(experiment, chosen), left_out)


def _first_fit(experiment: Experiment, label: str, alternatives: Sequence[Any], settings: Settings) -> Spec | str:
    """The first setting that the policy and the experiment take, else what is wrong with the last one."""
    why = ""
    for raw in alternatives:
        try:
            spec = stand_alone("policy", raw, settings.folders)
            trial = _with(experiment, {label: spec})
            for group in experiment.groups:
                trial.decider(label, 0, group.first)
        except SplitexitError as error:
            why = str(error).removeprefix(f"policy {label!r}: ")
        else:
            return spec
    return " ".join(why.split())


def _with(experiment: Experiment, policies: Mapping[str, Spec]) -> Experiment:
    """The same with other policies."""
    scenario: Scenario = experiment.scenario.model_copy(update={"policies": dict(policies)})
    return Experiment(scenario, experiment.bundle, experiment.recording, experiment.host)
