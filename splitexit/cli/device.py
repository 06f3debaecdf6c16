"""device: one device of a scenario against an edge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitexit.cli.serving import Json
from splitexit.cli.simulate import Out, Overrides, Requests, given
from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.live.device import DeviceRuntime
    from splitexit.policies import Policy
    from splitexit.results import Completion


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Run a scenario's device against an edge.")(device)


def device(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML (see `splitexit init`).")],
    edge: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where `splitexit serve` or `link` listens.")],
    policy: Annotated[str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].")] = None,
    overrides: Overrides = None,
    requests: Requests = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed [default: the scenario's].", show_default=False)] = None,
    number: Annotated[int, typer.Option("--device", min=0, help="Which of the scenario's devices this is.")] = 0,
    data: Annotated[str | None, typer.Option(help="The recorded test set [default: the bundle's samples].")] = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the policy has learned: read first where the file exists, written at the end and on Ctrl-C.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Classifies images for real; without an edge it answers locally."""
    from splitexit.live.tuning import tune_process

    tune_process()
    from rich.console import Console

    from splitexit.cli import live_output
    from splitexit.errors import UsageError
    from splitexit.fleet import require_single
    from splitexit.live.address import Address
    from splitexit.live.run import Station
    from splitexit.report.folder import new_folder
    from splitexit.scenario import load

    address, console = Address.parse(edge, "--edge"), Console(stderr=True, highlight=False, soft_wrap=True)
    settings = load(scenario, given(overrides, requests, None))
    require_single(settings)
    label, chosen = policy or settings.policy_label, settings.seed if seed is None else seed
    settings.policy(label)
    if number >= settings.devices.count:
        raise UsageError(f"--device {number}: the scenario has devices 0..{settings.devices.count - 1}")
    folder = new_folder(out, settings.name)
    console.print(f"device {number}: {settings.requests} requests with policy {label}, edge {address}")
    rows: list[Completion] = []
    runtime: DeviceRuntime | None = None
    station = Station.open(settings, data, device=number)
    with station.connect(address, console.print) as client, live_output.progress(console, settings.requests) as done:

        def sink(row: Completion) -> None:
            rows.append(row)
            done(len(rows))

        try:
            shift = station.prepare(label, chosen, client, sink)
            runtime = shift.runtime
            _recall(runtime.policy, memory, console)
            shift.run()
        except KeyboardInterrupt:
            console.print(f"interrupted: {len(rows)} of {settings.requests} requests were answered, and are kept")
    late, took = (0, []) if runtime is None else (runtime.late, runtime.decide_ns)
    live_output.write(station.experiment, label, chosen, rows, late, took, folder, json)
    if runtime is not None:
        _keep(runtime.policy, memory, console)
    if len(rows) < settings.requests:
        raise typer.Exit(INTERRUPTED)


def _recall(policy: Policy, file: Path | None, console: Console) -> None:
    """Goes on with what the policy had learned by the end of another run."""
    from splitexit import memory

    if file is None:
        return
    if not policy.memory:
        console.print(f"memory: this policy remembers nothing; {file} is left alone", markup=False)
    elif file.exists():
        memory.load(policy, file)
        console.print(f"memory: {', '.join(policy.memory)} read from {file}", markup=False)
    else:
        console.print(f"memory: {file} does not exist yet; the policy begins anew", markup=False)


def _keep(policy: Policy, file: Path | None, console: Console) -> None:
    from splitexit import memory

    if file is not None and policy.memory:
        memory.save(policy, file)
        console.print(f"memory: written to {file}", markup=False)
