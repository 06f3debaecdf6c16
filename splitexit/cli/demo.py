"""demo: the main job in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from splitexit.demo import Demonstration

QUICKSTART = Path("scenarios") / "quickstart.yaml"
OVERRUNS = 0.01
"""Share of requests slower than the machine they stand for, above which a run does not count (house.md §3)."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Run a device and an edge for real, then simulate the same, and compare.")(demo)


def demo(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO]", help=f"Scenario YAML [default: {QUICKSTART}].")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. uplink.mbps=5.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time for the live runs, all policies together.")] = 35.0,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests per policy, instead of --seconds.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<time>-<name>].")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Everything is measured here and now."""
    from splitexit.live.tuning import tune_process

    tune_process()
    from rich.console import Console

    from splitexit.demo import demonstrate
    from splitexit.report.folder import new_folder, to_json
    from splitexit.scenario import load

    settings = load(scenario or _quickstart(), overrides or [])
    folder = new_folder(out, f"demo-{settings.name}")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    shown = demonstrate(settings, folder, seconds, requests, lambda line: console.print(f"· {line}", markup=False))
    document = shown.document() | {"run": str(folder)}
    _write(shown, document, folder)
    if json:
        print(to_json(document))
        return
    _show(shown, Console(highlight=False))
    print(folder)


def _quickstart() -> Path:
    """The shipped scenario: under the present folder, or in the checkout that this package lies in."""
    from splitexit.errors import UsageError

    for root in (Path(), Path(__file__).resolve().parents[2]):
        if (root / QUICKSTART).exists():
            return root / QUICKSTART
    raise UsageError(f"{QUICKSTART} is not here; name a scenario, or run this in a checkout of splitexit")


def _write(shown: Demonstration, document: dict[str, object], folder: Path) -> None:
    """The run folder."""
    from splitexit.report.folder import write

    write(folder, shown.experiment, shown.table(), document, [shown.seed], False)


def _show(shown: Demonstration, console: object) -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    scenario = shown.experiment.scenario
    console.print(
        f"\n{scenario.name}: {scenario.devices.hardware} (this process, {shown.device_pid}) and edge "
        f"{scenario.edge.hardware} (process {shown.edge_pid}), {next(iter(shown.lines.values()))['requests']} images each"
    )
    console.print(_table(shown))
    late = {policy: line["overrun_rate"] for policy, line in shown.lines.items() if line["overrun_rate"] > OVERRUNS}
    for policy, share in late.items():
        console.print(
            f"{policy}: {share:.0%} of requests ran slower here than on {scenario.devices.hardware}; "
            "this machine is too slow or too busy to stand for it",
            style="red",
        )


def _table(shown: Demonstration) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    for name in ("accuracy", "sent", "mean ms", "p50", "p95", "simulated", "p50", "p95", "difference"):
        table.add_column(name, justify="right")
    for policy, line in shown.lines.items():
        real, model = line["measured_ms"], line["simulated_ms"]
        table.add_row(
            policy,
            f"{line['accuracy']:.1%}",
            f"{line['offload_rate']:.0%}",
            *(f"{real[key]:.1f}" for key in ("mean", "p50", "p95")),
            *(f"{model[key]:.1f}" for key in ("mean", "p50", "p95")),
            f"{line['error_percent']:+.1f} %",
        )
    return table
