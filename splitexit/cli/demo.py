"""demo: the main job in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitexit.cli.live_output import OVERRUNS
from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from splitexit.demo import Demonstration

QUICKSTART = Path("scenarios") / "quickstart.yaml"


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Run devices and an edge for real, then simulate the same, and compare.")(demo)


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
    else:
        _show(shown)
        print(folder)
    if shown.interrupted:
        raise typer.Exit(INTERRUPTED)


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


def _show(shown: Demonstration) -> None:
    from rich.console import Console

    from splitexit.report.tables import DEMONSTRATION, fitting_table

    console = Console(highlight=False)
    scenario, groups = shown.experiment.scenario, shown.experiment.groups
    images = next(iter(shown.lines.values()))["requests"]
    devices = [
        f"device {group.config.hardware} (process {shown.pids[f'device {number}']})"
        for group in groups
        for number in group.devices
    ]
    console.print(
        f"\n{scenario.name}: {', '.join(devices)}, edge {scenario.edge.hardware} (process {shown.pids['edge']}), "
        f"{images} images for each policy"
    )
    console.print(fitting_table("policy", DEMONSTRATION, shown.lines, console.width))
    late = max(line["overrun_rate"] for line in shown.lines.values())
    if late > OVERRUNS:
        hardware = " or ".join(dict.fromkeys(group.config.hardware for group in groups))
        console.print(
            f"up to {late:.0%} of a policy's requests ran slower here than on {hardware}: "
            "this machine is too slow or too busy to stand for it",
            style="red",
        )
