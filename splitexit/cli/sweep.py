"""sweep: a grid of scenarios, in parallel and resumable."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.simulate import Engine, Json, Overrides, Requests, given, parse_labels, parse_seeds, progress_bar

if TYPE_CHECKING:
    from splitexit.experiment import Experiment
    from splitexit.sweep import Store, Sweep


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(sweep)


def sweep(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO]", help="Scenario YAML; not with --resume.", show_default=False)
    ] = None,
    axes: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="KEY=VALUES",
            help="A key and its values: uplink.mbps=1,2,5,10, devices.count=1..64, 1..64:8 (steps of 8), 1..64:x2 "
            "(doubling). Repeatable: every combination is run.",
        ),
    ] = None,
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated labels [default: all of the scenario].", show_default=False)
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every point, e.g. 0-4.")] = "0-4",
    requests: Requests = None,
    engine: Engine = None,
    jobs: Annotated[int, typer.Option(min=-1, help="Processes; -1: one for each core.")] = -1,
    backend: Annotated[
        str | None,
        typer.Option(
            help="joblib's name for what runs them: loky, threading, multiprocessing, dask, ray [default: loky].",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Dask or Ray cluster [default: a local one].", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder [default: runs/sweep-<name>-<digest>].", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Go on with the sweep that this folder was made for.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the mean response over the first key.")] = False,
    json: Json = False,
) -> None:
    """Run every combination of the values of some keys, under every policy.

    Every finished point is kept at once: after Ctrl-C the same command (or --resume) goes on where it stopped. Needs
    joblib (the sweep extra) unless --jobs is 1. On a cluster, scenario and bundle must lie at the same path everywhere.
    """
    from splitexit.errors import UsageError
    from splitexit.report.folder import to_json
    from splitexit.report.plots import require_matplotlib
    from splitexit.sweep import Axis, Store
    from splitexit.sweep import Sweep as Plan

    if plot:
        require_matplotlib()
    if jobs == 0:
        raise UsageError("--jobs 0: expected a number of processes, or -1 for one for each core")
    if resume is not None:
        if scenario is not None or axes or policies or overrides or requests or engine or out:
            raise UsageError("--resume takes everything from its folder; leave the scenario and its options away")
        plan, out = Store(resume).sweep(), resume
    else:
        if scenario is None or not axes:
            raise UsageError("expected a scenario and --sweep KEY=VALUES, or --resume FOLDER")
        keys = tuple(given(overrides, requests, engine))
        plan = Plan(scenario, keys, tuple(map(Axis.parse, axes)), (), tuple(parse_seeds(seeds)))
    base = plan.base()
    if not plan.policies:
        plan = _with_policies(plan, base, policies)
    plan.check()
    store = Store.open(out or _folder(plan, base), plan, plan.identity(base))
    table = _run(plan, store, jobs, backend, address, json)
    document = _document(plan, base, table)
    _write(store.folder, base, table, document, plan)
    if plot:
        from splitexit.report.plots import over_first_key

        over_first_key(table, [axis.key for axis in plan.axes], store.folder / "sweep.png", base.scenario.name)
    if json:
        print(to_json(document | {"run": str(store.folder)}))
        return
    _show(plan, base, document["points"])
    print(store.folder)


def _with_policies(plan: Sweep, base: Experiment, policies: str | None) -> Sweep:
    from dataclasses import replace

    from splitexit.check import contenders

    labels = contenders(base) if policies is None else parse_labels(policies)
    return replace(plan, policies=tuple(sorted(labels)))


def _folder(plan: Sweep, base: Experiment) -> Path:
    """The same for the same command, so that a second run finds what the first one left."""
    import hashlib
    import json
    from dataclasses import asdict

    what = asdict(plan) | {"scenario": "", "identity": plan.identity(base)}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return Path("runs") / f"sweep-{base.scenario.name}-{digest[:8]}"


def _run(plan: Sweep, store: Store, jobs: int, backend: str | None, address: str | None, quiet: bool) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from splitexit.sweep import run

    columns = (TextColumn("sweeping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with progress_bar(quiet, *columns) as progress:
        bar = progress.add_task("", total=len(plan.units))
        try:
            return run(plan, store, jobs, backend, address, lambda _: progress.advance(bar))
        except KeyboardInterrupt:
            done = sum(store.get(unit) is not None for unit in plan.units)
            progress.stop()
            print(
                f"{done} of {len(plan.units)} are kept; go on with: splitexit sweep --resume {store.folder}",
                file=sys.stderr,
            )
            raise


def _document(plan: Sweep, base: Experiment, table: Any) -> dict[str, Any]:
    from splitexit.stats import CONFIDENCE

    return {
        "scenario": base.scenario.name,
        "overrides": list(plan.overrides),
        "sweep": {axis.key: list(axis.values) for axis in plan.axes},
        "policies": list(plan.policies),
        "seeds": list(plan.seeds),
        "confidence": CONFIDENCE,
        "points": table.to_pylist(),
    }


def _write(folder: Path, base: Experiment, table: Any, document: Mapping[str, Any], plan: Sweep) -> None:
    from splitexit.report.folder import write_points

    write_points(folder, base, table, document, list(plan.seeds))


def _show(plan: Sweep, base: Experiment, points: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from splitexit.report.tables import POINTS, fitting_table

    console = Console(highlight=False)
    keys = [axis.key for axis in plan.axes]
    console.print(f"{base.scenario.name}: {len(points)} points, {len(plan.seeds)} seeds each", markup=False)
    lines = {" ".join([*(str(point[key]) for key in keys), point["policy"]]): point for point in points}
    console.print(fitting_table(" ".join([*keys, "policy"]), POINTS, lines, console.width))
