"""Everything that is wrong with a scenario or a bundle, found at once.

`splitexit.scenario.load` looks at the scenario's own keys and the files they name; this module looks at the bundle
too, and asks every policy whether it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.errors import ArtifactError, Problem, ScenarioError, SplitexitError
from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.recording import Recording
from splitexit.scenario import OWN, Draft, draft

T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """What a check found; `summary` says what is fine where nothing is wrong."""

    file: str
    problems: tuple[Problem, ...]
    summary: str = ""

    @property
    def lines(self) -> list[str]:
        """One line per problem, else the summary."""
        return str(ScenarioError(self.file, self.problems)).splitlines() or [f"{self.file}: fine: {self.summary}"]


def check(path: Path, overrides: Sequence[str] = ()) -> Verdict:
    """Checks a scenario, or a bundle where `path` is a folder."""
    return check_bundle(path) if path.is_dir() else check_scenario(path, overrides)


def check_scenario(path: Path, overrides: Sequence[str] = ()) -> Verdict:
    """Checks the keys, the files they name, the bundle, and that the policies fit it."""
    try:
        found = draft(path, overrides)
    except ScenarioError as error:
        return Verdict(error.file, tuple(error.problems))
    problems = list(found.problems)
    bundle = found.document.value.get("bundle") if isinstance(found.document.value, dict) else None
    if isinstance(bundle, str):
        files = _Files.read(found.folders.resolve(bundle))
        problems += [found.document.problem(("bundle",), what) for what in files.problems]
        if not problems and found.scenario is not None:
            experiment = files.experiment(found)
            problems = list(_bundle_problems(found, experiment))
            return Verdict(str(path), tuple(problems), _summary(experiment))
    return Verdict(str(path), tuple(problems))


def contenders(experiment: Experiment) -> list[str]:
    """The labels that a comparison runs by default: the scenario's, else the shipped policies that fit."""
    labels = experiment.scenario.labels()
    return labels if experiment.scenario.policies else [label for label in labels if not misfit(experiment, label)]


def _bundle_problems(found: Draft, experiment: Experiment) -> Iterator[Problem]:
    """Keys that do not fit the bundle, and policies that refuse their setting."""
    for path, what in experiment.misfits():
        yield found.document.problem(path, what)
    # Those that nobody named need not fit, but one must.
    scenario = experiment.scenario
    if not contenders(experiment):
        yield found.document.problem(("policies",), "no shipped policy fits this bundle; name some, with parameters")
    for label in scenario.policies:
        if what := misfit(experiment, label):
            yield found.document.problem(("policies", label), what)
    for group in experiment.groups:
        own = group.config.policy
        path = ("groups", group.label, "policy") if scenario.groups else ("devices", "policy")
        if own not in scenario.policies.values() and (what := misfit(experiment, OWN, group)):
            yield found.document.problem(path, what)


def misfit(experiment: Experiment, label: str, group: Group | None = None) -> str:
    """Why the policy does not fit, on one line; empty if it does. Every group is asked unless one is given."""
    for one in [group] if group else experiment.groups:
        try:
            experiment.decider(label, experiment.scenario.seed, one.first)
        except SplitexitError as error:
            text = str(error).removeprefix(f"policy {label!r}")
            text = text.removeprefix(f" of the group {group.label!r}") if group else text
            return " ".join(text.removeprefix(": ").split())
    return ""


def _summary(experiment: Experiment) -> str:
    scenario, spec = experiment.scenario, experiment.spec
    return (
        f"{len(contenders(experiment))} policies, {experiment.total_devices} x {scenario.requests} requests, "
        f"{spec.name} with {spec.num_stages} stages and {len(spec.exits)} exits"
    )


def check_bundle(path: Path) -> Verdict:
    """Checks every file of a bundle: readable, of the same model, with the digests that were written down."""
    files = _Files.read(path)
    if files.bundle is not None:
        files.attempt(files.bundle.check_weights)
        files.attempt(lambda: _check_samples(files))
        files.attempt(lambda: _check_codec_weights(files))
    problems = [_of_file(path, what) for what in files.problems]
    if problems or files.bundle is None or files.recording is None:
        return Verdict(str(path), tuple(problems))
    spec, test = files.bundle.spec, files.recording.test
    return Verdict(
        str(path),
        (),
        f"{spec.name} with {spec.num_stages} stages and {len(spec.exits)} exits, {len(test)} test samples",
    )


def _of_file(folder: Path, what: str) -> Problem:
    """A problem whose message begins with the file."""
    file, colon, rest = what.partition(": ")
    own = bool(colon) and file.startswith(str(folder))
    return Problem(0, 0, "", rest if own else what, file if own else str(folder))


@dataclass
class _Files:
    """A bundle's files as far as they can be read."""

    problems: list[str]
    bundle: Bundle | None = None
    recording: Recording | None = None
    calibration: Calibration | None = None

    @classmethod
    def read(cls, folder: Path) -> _Files:
        files = cls([])
        bundle = files.bundle = files.attempt(lambda: Bundle.open(folder))
        if bundle is not None:
            files.recording = files.attempt(lambda: Recording.load(bundle.recording, bundle.spec))
            files.calibration = files.attempt(lambda: Calibration.load(bundle.calibration, bundle.spec))
        return files

    def attempt(self, read: Callable[[], T]) -> T | None:
        """What `read` returns; if it cannot, one problem more."""
        try:
            return read()
        except ArtifactError as error:
            self.problems.append(" ".join(str(error).split()))
            return None

    def experiment(self, found: Draft) -> Experiment:
        """The scenario on these files, which must all have been read."""
        assert found.scenario is not None
        assert self.bundle is not None
        assert self.recording is not None
        assert self.calibration is not None
        return Experiment(found.scenario, self.bundle, self.recording, self.calibration)


def _check_samples(files: _Files) -> None:
    assert files.bundle is not None
    path = files.bundle.samples
    if not path.exists():
        return
    try:
        columns = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())[:120]})") from error
    missing = [name for name in ("image", "label", "sample") if name not in columns]
    if missing:
        raise ArtifactError(f"{path}: lacks the column {', '.join(missing)}; `splitexit record --samples` writes it")


def _check_codec_weights(files: _Files) -> None:
    assert files.bundle is not None
    learned = files.recording.made.get("codecs") if files.recording else None
    if learned and not files.bundle.codec_weights.exists():
        names = ", ".join(sorted(learned))
        raise ArtifactError(f"{files.bundle.codec_weights}: missing, but {names} was recorded; restore it")
