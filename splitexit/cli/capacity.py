"""capacity: how many devices a scenario holds under a service level."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.simulate import (
    Engine,
    Json,
    Out,
    Overrides,
    Requests,
    ScenarioFile,
    chosen,
    given,
    headline,
    parse_seeds,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.capacity import Capacity, Point, Slo
    from splitexit.experiment import Experiment
    from splitexit.stats import Interval


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(capacity)


def capacity(
    scenario: ScenarioFile,
    slo: Annotated[
        list[str],
        typer.Option(
            metavar="LEVEL",
            help="What must hold: p50, p95, p99 or mean <100ms, miss<1%, shed<1%, accuracy>=0.8, energy<5mJ; "
            "repeatable. Quote it, for the shell takes < and > for itself.",
        ),
    ],
    key: Annotated[str, typer.Option(help="The key to raise, in whole numbers.")] = "devices.count",
    maximum: Annotated[int, typer.Option("--max", min=1, help="The largest value to try.")] = 1024,
    policy: Annotated[
        str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].", show_default=False)
    ] = None,
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated labels: one answer for each.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="Seeds to spend at most on each value, e.g. 0-9.")] = "0-9",
    confidence: Annotated[float, typer.Option(min=50, max=99.99, help="Confidence in percent.")] = 95.0,
    requests: Requests = None,
    engine: Engine = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Find the largest number of devices that meets a service level with confidence.

    Values double until one does not meet it, then the gap is halved. At each value seeds are added until the
    interval lies on one side; a value that stays undecided does not count as met.
    """
    from splitexit.capacity import Slo
    from splitexit.errors import UsageError
    from splitexit.report.folder import new_folder, to_json

    levels, numbers = [Slo.parse(text) for text in slo], parse_seeds(seeds)
    if len(numbers) < 3:
        raise UsageError(f"--seeds {seeds!r}: expected at least 3 seeds, fewer leave no interval to decide by")
    experiments = _Experiments(scenario, key, given(overrides, requests, engine))
    base = experiments(1)
    experiments(maximum)  # what is wrong with it is said before the work, not after
    labels = chosen(base, policy, policies)
    folder = new_folder(out, f"capacity-{base.scenario.name}")
    found = _search(experiments, labels, levels, numbers, maximum, confidence / 100, key, json)
    document = _document(found, base, key, numbers, confidence / 100) | {"run": str(folder)}
    _write(folder, base, found, key, document, numbers)
    if json:
        print(to_json(document))
        return
    _show(found, headline(base, seeds, devices=key != "devices.count"), key, confidence)
    print(folder)


class _Experiments:
    """The scenario's experiment by the value of a key."""

    def __init__(self, scenario: Path, key: str, overrides: list[str]) -> None:
        self._scenario, self._key, self._overrides = scenario, key, overrides

    def __call__(self, value: int) -> Experiment:
        from splitexit.experiment import Experiment
        from splitexit.scenario import load

        return Experiment.open(load(self._scenario, [*self._overrides, f"{self._key}={value}"]))


def _search(
    experiments: _Experiments,
    labels: list[str],
    levels: list[Slo],
    seeds: list[int],
    maximum: int,
    confidence: float,
    key: str,
    quiet: bool,
) -> list[Capacity]:
    from splitexit.capacity import capacity as search
    from splitexit.compare import Run

    found = []
    with progress_bar(quiet) as progress:
        bar = progress.add_task("searching", total=None)

        def on_run(value: int, run: Run) -> None:
            progress.update(bar, advance=1, description=f"{run.policy}: {key}={value}, seed {run.seed}")

        for label in labels:
            found.append(search(experiments, label, levels, seeds, maximum, confidence, on_run))
    return found


def _document(
    found: list[Capacity], experiment: Experiment, key: str, seeds: list[int], confidence: float
) -> dict[str, Any]:
    return {
        "scenario": experiment.scenario.name,
        "key": key,
        "slos": [slo.text for slo in found[0].slos],
        "confidence": confidence,
        "seeds": seeds,
        "maximum": found[0].maximum,
        "policies": {each.policy: _answer(each, key) for each in found},
    }


def _answer(found: Capacity, key: str) -> dict[str, Any]:
    from splitexit.capacity import row

    return {
        "value": found.value or None,
        "maximum_reached": found.value == found.maximum,
        "binds": found.limit.binding(found.slos) if found.limit else None,
        "bottleneck": found.limit.bottleneck if found.limit else None,
        "answer": in_words(found, key),
        "points": [row(point, key, found.slos) for point in found.points],
    }


def in_words(found: Capacity, key: str) -> str:
    """The answer in a line."""
    levels = " and ".join(slo.text for slo in found.slos)
    best, limit = found.best, found.limit
    if best is None:
        assert limit is not None, "the search begins at 1"
        return f"{found.policy}: not even {key}=1 meets {levels}: {_figures(found, limit)}{_why(found, limit)}"
    if limit is None:
        return f"{found.policy}: {key}={found.value}, the largest value tried, still meets {levels}; raise --max"
    return (
        f"{found.policy}: up to {key}={found.value} meets {levels} ({_figures(found, best)}); "
        f"at {limit.value}: {_figures(found, limit)}{_why(found, limit)}"
    )


def _why(found: Capacity, limit: Point) -> str:
    from splitexit.capacity import UNDECIDED

    open_ = f", undecided after {limit.seeds} seeds" if limit.outcome == UNDECIDED else ""
    return f"{open_}; {limit.binding(found.slos)} binds, busiest is {limit.busiest}"


def _figures(found: Capacity, point: Point) -> str:
    pairs = zip(found.slos, point.intervals, strict=True)
    return ", ".join(f"{slo.name} {_estimate(slo, interval)}" for slo, interval in pairs)


def _estimate(slo: Slo, interval: Interval) -> str:
    return f"{slo.show(interval.mean)}, {slo.show(interval.low)} to {slo.show(interval.high)}"


def _write(
    folder: Path, experiment: Experiment, found: list[Capacity], key: str, document: dict[str, Any], seeds: list[int]
) -> None:
    from splitexit.capacity import points
    from splitexit.report.folder import write_points

    write_points(folder, experiment, points(found, key), document, seeds)


def _show(found: list[Capacity], title: str, key: str, confidence: float) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(title, markup=False)
    for each in found:
        _show_points(console, each, key)
    for each in found:
        console.print(in_words(each, key), markup=False)
    console.print(f"{confidence:g} % confidence at every value, all its looks together", markup=False)


def _show_points(console: Console, found: Capacity, key: str) -> None:
    from splitexit.report.tables import Column, fitting_table

    levels: list[Column] = [(slo.text, 0, partial(_cell, n)) for n, slo in enumerate(found.slos)]
    columns: list[Column] = [
        *levels,
        ("seeds", 2, lambda line: str(line["point"].seeds)),
        ("outcome", 0, lambda line: line["outcome"]),
        ("busiest", 1, lambda line: line["point"].busiest),
    ]
    lines = {
        str(point.value): {
            "point": point,
            "slos": found.slos,
            "outcome": point.verdict if point.verdict == "unstable" else point.outcome,
        }
        for point in sorted(found.points, key=lambda point: point.value)
    }
    console.print(found.policy, style="bold", markup=False)
    console.print(fitting_table(key, columns, lines, console.width))


def _cell(level: int, line: Mapping[str, Any]) -> str:
    """Estimate and half width of one service level's metric."""
    slo, interval = line["slos"][level], line["point"].intervals[level]
    return f"{slo.show(interval.mean)} ±{slo.show(interval.half)}"
