"""A grid of scenarios: every combination of the values of some keys, under every policy, in parallel and resumable.

A unit of work is one policy at one point of the grid under all seeds. Its line of the result is written at once, as a
file of its own that appears whole or not at all; a unit that has one is not computed again. So an interrupted sweep
loses what was being computed, and nothing else. Lines depend on nothing but the unit: neither on the number of
workers nor on the order of anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from itertools import product
from multiprocessing import current_process
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pyarrow as pa

from splitexit import __version__
from splitexit.compare import compare
from splitexit.errors import InputError, SplitexitError, UsageError
from splitexit.experiment import Experiment
from splitexit.scenario import load
from splitexit.summary import METRICS

Line = dict[str, Any]
MOST_POINTS = 100_000
HELP = "e.g. uplink.mbps=1,2,5,10, devices.count=1..64, 1..64:x2 (doubling) or 0.5..2:0.5"


@dataclass(frozen=True)
class Axis:
    """A key and the values that it takes, as text of `--set`."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Reads `key=1,2,5`, `key=1..64`, `key=1..64:8` or `key=1..64:x2`, and mixtures; raises UsageError."""
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise UsageError(f"--sweep {text!r}: expected KEY=VALUES, {HELP}")
        found = [value for part in _parts(values) for value in _range(part.strip(), text)]
        return cls(key.strip(), tuple(dict.fromkeys(found)))


def _parts(text: str) -> Iterator[str]:
    """Split at the commas that stand in no bracket or quotes."""
    depth, quote, start = 0, "", 0
    for n, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "," and not depth:
            yield text[start:n]
            start = n + 1
        else:
            depth += (c in "[{") - (c in "]}")
    yield text[start:]


def _range(part: str, text: str) -> Iterator[str]:
    """The values of a..b, a..b:step or a..b:xfactor; anything else is a value itself."""
    ends, _, step = part.partition(":")
    first, dots, last = ends.partition("..")
    try:
        if not dots:
            raise InvalidOperation
        low, high = Decimal(first), Decimal(last)
    except InvalidOperation:
        if not part:
            raise UsageError(f"--sweep {text!r}: a value is missing; expected {HELP}") from None
        yield part
        return
    yield from _steps(low, high, step, text)


def _steps(value: Decimal, high: Decimal, step: str, text: str) -> Iterator[str]:
    try:
        by = Decimal(step.removeprefix("x") or 1)
    except InvalidOperation:
        by = Decimal(0)
    grows = by > 1 and value > 0 if step.startswith("x") else by > 0
    if not (grows and value <= high and (step.startswith("x") or (high - value) / by < MOST_POINTS)):
        raise UsageError(f"--sweep {text!r}: the range is empty or too long; expected {HELP}")
    while value <= high:
        yield f"{value.normalize():f}"
        value = value * by if step.startswith("x") else value + by


@dataclass(frozen=True)
class Unit:
    """One policy at one point: `settings` are (key, value) texts."""

    settings: tuple[tuple[str, str], ...]
    policy: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of its file: a digest of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24] + ".json"

    @property
    def overrides(self) -> list[str]:
        """As for `--set`."""
        return [f"{key}={value}" for key, value in self.settings]


@dataclass(frozen=True)
class Sweep:
    """What is to be run: a scenario with overrides, the axes, policies and seeds."""

    scenario: Path
    overrides: tuple[str, ...]
    axes: tuple[Axis, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]

    def base(self) -> Experiment:
        """The scenario without the axes."""
        return Experiment.open(load(self.scenario, self.overrides))

    @property
    def points(self) -> list[tuple[tuple[str, str], ...]]:
        """Every combination of values, the last axis running fastest."""
        return list(product(*([(axis.key, value) for value in axis.values] for axis in self.axes)))

    @property
    def units(self) -> list[Unit]:
        """All units, policies in alphabetical order at every point, so that their order matters to nothing."""
        return [Unit(point, policy, self.seeds) for point in self.points for policy in sorted(self.policies)]

    def check(self) -> None:
        """Raises InputError for the first point that is no scenario, or where a policy is unknown."""
        keys = [axis.key for axis in self.axes]
        if len(set(keys)) < len(keys):
            raise UsageError(f"--sweep: the key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
        count = 1
        for axis in self.axes:
            count *= len(axis.values)
        if count > MOST_POINTS:
            raise UsageError(f"--sweep: {count} points; expected at most {MOST_POINTS}")
        for unit in self.units:
            load(self.scenario, [*self.overrides, *unit.overrides]).policy(unit.policy)

    def identity(self, base: Experiment) -> dict[str, str]:
        """What the lines depend on beside their unit: the scenario, its bundle, and this program."""
        files = {"recording": base.bundle.recording, "calibration": base.bundle.calibration}
        return {
            "scenario": base.scenario.digest(),
            "weights": base.spec.weights_sha256,
            **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
            "version": __version__,
        }


@dataclass(frozen=True)
class Store:
    """The folder of a sweep: sweep.json says of what, lines/ holds the finished units."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, sweep: Sweep, identity: Mapping[str, str]) -> Store:
        """Makes the folder or takes up what is there; raises UsageError if that is of another scenario."""
        store = cls(folder)
        if store.plan.exists():
            known = store.read_plan()["identity"]
            changed = [key for key, value in identity.items() if known.get(key) != value]
            if changed:
                raise UsageError(
                    f"{folder}: holds a sweep whose {' and '.join(changed)} was another; give another folder with --out"
                )
        try:
            store.lines.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot make this folder: {error.strerror}; give another --out") from error
        plan = asdict(sweep) | {"scenario": str(sweep.scenario.resolve()), "identity": dict(identity)}
        write_whole(store.plan, json.dumps(plan, indent=1))
        return store

    @property
    def plan(self) -> Path:
        """sweep.json"""
        return self.folder / "sweep.json"

    @property
    def lines(self) -> Path:
        """Where finished units lie."""
        return self.folder / "lines"

    def read_plan(self) -> dict[str, Any]:
        """The content of sweep.json; raises UsageError where there is none."""
        try:
            plan: dict[str, Any] = json.loads(self.plan.read_text(encoding="utf-8"))
            return plan
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder}: holds no sweep that could be resumed ({self.plan.name})") from error

    def sweep(self) -> Sweep:
        """The sweep that the folder was made for."""
        plan = self.read_plan()
        axes = tuple(Axis(axis["key"], tuple(axis["values"])) for axis in plan["axes"])
        given = Path(plan["scenario"]), tuple(plan["overrides"]), axes
        return Sweep(*given, tuple(plan["policies"]), tuple(plan["seeds"]))

    def put(self, unit: Unit, line: Line) -> None:
        """Keeps a finished unit."""
        write_whole(self.lines / unit.name, json.dumps(line))

    def get(self, unit: Unit) -> Line | None:
        """What a unit came to; None if it is not finished."""
        try:
            line: Line = json.loads((self.lines / unit.name).read_text(encoding="utf-8"))
            return line
        except (OSError, ValueError):
            return None


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all, whenever the program is stopped."""
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    passing.write_text(text, encoding="utf-8")
    os.replace(passing, path)


def compute(scenario: Path, overrides: Sequence[str], unit: Unit) -> tuple[Unit, Line]:
    """The line of a unit; of a point that cannot be run, a line with the key `error`. Runs in a worker."""
    if current_process().name != "MainProcess" and current_thread() is main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits; it ends the workers
    try:
        experiment = Experiment.open(load(scenario, [*overrides, *unit.overrides]))
        summary = compare(experiment, [unit.policy], unit.seeds).summaries[unit.policy]
    except SplitexitError as error:
        return unit, {"error": str(error)}
    line: Line = {"policy": unit.policy, "replications": len(unit.seeds), "rows": summary["requests"]}
    for name in METRICS:
        found = summary["intervals"].get(name, {})
        line |= {name: found.get("mean"), f"{name}_low": found.get("low"), f"{name}_high": found.get("high")}
    busiest = summary["bottleneck"]
    ends = {"verdict": summary["verdict"], "bottleneck": busiest, "utilisation": summary["utilisation"][busiest]}
    return unit, {key: _finite(value) for key, value in (line | ends).items()}


def _finite(value: Any) -> Any:
    """NaN as None, which JSON, CSV and Parquet have."""
    return None if isinstance(value, float) and value != value else value


def run(
    sweep: Sweep,
    store: Store,
    jobs: int = 1,
    backend: str | None = None,
    address: str | None = None,
    on_line: Callable[[Unit], None] = lambda unit: None,
) -> pa.Table:
    """Computes what is not finished yet and returns the table of all units.

    Args:
        jobs: processes; 1 without a backend computes in this one, without joblib.
        backend: joblib's name for what runs them (None: its own processes), `dask` and `ray` among them.
        address: of the cluster, for those two.
        on_line: called as units are there, the finished ones first.

    Raises:
        InputError: a unit cannot be run.
    """
    missing = []
    for unit in sweep.units:
        if store.get(unit) is None:
            missing.append(unit)
        else:
            on_line(unit)
    with closing(_computed(sweep, missing, jobs, backend, address)) as computed:
        for unit, line in computed:
            if "error" in line:
                raise InputError(f"{' '.join([*unit.overrides, unit.policy])}: {line['error']}")
            store.put(unit, line)
            on_line(unit)
    return table(sweep, store)


def _computed(
    sweep: Sweep, units: Sequence[Unit], jobs: int, backend: str | None, address: str | None
) -> Generator[tuple[Unit, Line], None, None]:
    """Units with their lines, as they are finished."""
    if not units:
        return
    if jobs == 1 and backend is None:
        yield from (compute(sweep.scenario, sweep.overrides, unit) for unit in units)
        return
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*tasks which were still being processed")  # an error stops them: that is so
        workers = _parallel(stack, jobs, backend, address)
        from joblib import delayed

        def tasks(some: Iterable[Unit]) -> Any:
            return (delayed(compute)(sweep.scenario.resolve(), sweep.overrides, unit) for unit in some)

        if workers.return_generator:
            yield from workers(tasks(units))
            return
        # Backends like Dask's hand results over at the end only: rounds keep what an interruption loses small.
        size = max(1, workers._effective_n_jobs())
        for start in range(0, len(units), size):
            yield from workers(tasks(units[start : start + size]))


def _parallel(stack: ExitStack, jobs: int, backend: str | None, address: str | None) -> Any:
    """joblib's Parallel on the backend of this name."""
    from joblib import Parallel, parallel_config

    _begin_cluster(stack, jobs, backend, address)
    try:
        stack.enter_context(parallel_config(backend=backend or "loky", n_jobs=jobs))
        try:
            return Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        except ValueError:
            return Parallel(batch_size=1)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--backend {backend}: {' '.join(str(error).split())}") from error


def _begin_cluster(stack: ExitStack, jobs: int, backend: str | None, address: str | None) -> None:
    """Connects to a Dask or Ray cluster, or begins a local one, until the stack is unwound."""
    try:
        if backend == "dask":
            from distributed import Client

            local = {} if address else {"n_workers": jobs if jobs > 0 else None, "threads_per_worker": 1}
            client = Client(address, **local, dashboard_address=None)  # type: ignore[no-untyped-call,unused-ignore]
            stack.enter_context(client)
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(address=address, num_cpus=None if address or jobs < 1 else jobs, log_to_driver=False)
            stack.callback(ray.shutdown)
            register_ray()
    except ImportError as error:
        package = {"dask": "dask[distributed]", "ray": "ray"}[str(backend)]
        raise UsageError(f"--backend {backend} needs {error.name}: pip install '{package}'") from error
    except OSError as error:
        raise UsageError(f"--backend {backend}: nobody answers at {address}: {error}") from error


def table(sweep: Sweep, store: Store) -> pa.Table:
    """One tidy table: a line per finished unit, its settings in front, in the order of the grid."""
    lines = [{**dict(unit.settings), **line} for unit in sweep.units if (line := store.get(unit)) is not None]
    columns = {key: [line[key] for line in lines] for key in (lines[0] if lines else ())}
    for axis in sweep.axes:
        if lines:
            columns[axis.key] = _numbers(columns[axis.key])
    return pa.table(columns)


def _numbers(values: list[str]) -> list[Any]:
    """The same as whole numbers or floats where all of them are."""
    for kind in (int, float):
        try:
            return [kind(value) for value in values]
        except ValueError:
            continue
    return values
