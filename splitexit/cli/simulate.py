"""simulate and compare: run a scenario in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from splitexit.compare import Comparison
    from splitexit.experiment import Experiment

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML (see `splitexit init`).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. uplink.mbps=5; repeatable.")
]
Seeds = Annotated[
    str | None, typer.Option(help="Seeds, e.g. 0-4 or 0,3,7 [default: the scenario's own].", show_default=False)
]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests per device, instead of the scenario's.")]
Out = Annotated[Path | None, typer.Option(help="Run folder [default: runs/<time>-<name>].", show_default=False)]
Csv = Annotated[bool, typer.Option("--csv", help="Write requests.csv too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(help="Simulate one policy of a scenario.")(simulate)
    app.command(help="Simulate policies side by side on the same requests.")(compare)


def simulate(
    scenario: ScenarioFile,
    policy: Annotated[str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].")] = None,
    overrides: Overrides = None,
    seeds: Seeds = None,
    requests: Requests = None,
    out: Out = None,
    csv: Csv = False,
    json: Json = False,
) -> None:
    """One policy."""
    experiment = _open(scenario, overrides, requests)
    label = experiment.scenario.policy_label if policy is None else policy
    _run(experiment, [label], seeds, out, csv, json)


def compare(
    scenario: ScenarioFile,
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated labels [default: all of the scenario].", show_default=False)
    ] = None,
    overrides: Overrides = None,
    seeds: Seeds = "0-4",
    requests: Requests = None,
    out: Out = None,
    csv: Csv = False,
    json: Json = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw accuracy over latency (needs matplotlib).")] = False,
) -> None:
    """Policies side by side."""
    from splitexit.check import contenders

    experiment = _open(scenario, overrides, requests)
    labels = contenders(experiment) if policies is None else _labels(policies)
    _run(experiment, labels, seeds, out, csv, json, plot)


def _labels(text: str) -> list[str]:
    from splitexit.errors import UsageError

    labels = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not labels:
        raise UsageError("--policies: expected labels separated by commas, e.g. local,offload")
    return labels


def parse_seeds(text: str) -> list[int]:
    """'0-4' or '0,3,7' or a mixture; raises UsageError."""
    from splitexit.errors import UsageError

    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds {text!r}: expected whole numbers and ranges, e.g. 0-4 or 0,3,7")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= 100_000:
            raise UsageError(f"--seeds {text!r}: the range {part.strip()!r} is empty or too long")
        seeds.extend(span)
    return list(dict.fromkeys(seeds))


def _open(scenario: Path, overrides: list[str] | None, requests: int | None) -> Experiment:
    from splitexit.experiment import Experiment
    from splitexit.scenario import load

    extra = [] if requests is None else [f"requests={requests}"]
    return Experiment.open(load(scenario, [*(overrides or []), *extra]))


def _run(
    experiment: Experiment,
    labels: list[str],
    seeds: str | None,
    out: Path | None,
    csv: bool,
    json: bool,
    plot: bool = False,
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from splitexit.compare import compare as compare_policies
    from splitexit.report.folder import new_folder, write
    from splitexit.report.plots import accuracy_over_latency, require_matplotlib

    if plot:
        require_matplotlib()
    for label in labels:
        experiment.scenario.policy(label)
    numbers = [experiment.scenario.seed] if seeds is None else parse_seeds(seeds)
    folder = new_folder(out, experiment.scenario.name)
    with Progress(console=Console(stderr=True), transient=True, disable=json) as progress:
        bar = progress.add_task("simulating", total=len(labels) * len(numbers))
        comparison = compare_policies(experiment, labels, numbers, lambda _: progress.advance(bar))
    document = comparison.document() | {"run": str(folder)}
    manifest = write(folder, experiment, comparison.rows, document, numbers, csv)
    if plot:
        accuracy_over_latency(comparison, folder / "comparison.png")
    _show(comparison, document | {"rows_sha256": manifest["rows_sha256"]}, folder, json)


def _show(comparison: Comparison, document: dict[str, object], folder: Path, json: bool) -> None:
    from rich.console import Console

    from splitexit.report.folder import to_json
    from splitexit.report.tables import comparison_table

    if json:
        print(to_json(document))
        return
    console = Console(highlight=False)
    scenario = comparison.experiment.scenario
    console.print(
        f"{scenario.name}: {scenario.devices.count} x {scenario.devices.hardware}, "
        f"{scenario.requests} requests each, seeds {_seeds(comparison.seeds)}",
    )
    console.print(comparison_table(comparison, console.width))
    print(folder)


def _seeds(seeds: tuple[int, ...]) -> str:
    """0-4 where they follow one another, else 0, 3, 7."""
    if len(seeds) > 1 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
