"""live: a whole scenario as real processes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitexit.cli.progress import teller
from splitexit.cli.serving import Json
from splitexit.cli.simulate import Out, Overrides, Requests, given
from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.calibration import Calibration
    from splitexit.live.deployment import LiveRun
    from splitexit.scenario import Scenario

FAILED = 1


class Kind(StrEnum):
    """Networks, as `splitexit.live.network.NETWORKS` has them."""

    PROXY = "proxy"
    TUN = "tun"
    TBF = "tbf"


class Source(StrEnum):
    """Where the host's calibration comes from."""

    BUNDLE = "bundle"
    MEASURE = "measure"


NetworkKind = Annotated[
    Kind,
    typer.Option(
        "--network",
        help="Links between the processes: proxy (TCP proxies, anywhere), tun or tbf (real TCP between namespaces, "
        "through a packet shaper of ours or the kernel's; Linux, root).",
    ),
]
HostCalibration = Annotated[
    Source,
    typer.Option(
        help="What this machine takes, which paced processes start from: as the bundle says, or measured first."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Run a scenario for real: an edge, its devices and the links between them.")(live)


def live(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML (see `splitexit init`).")],
    policy: Annotated[str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].")] = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed [default: the scenario's].", show_default=False)] = None,
    requests: Requests = None,
    network: NetworkKind = Kind.PROXY,
    host_calibration: HostCalibration = Source.BUNDLE,
    data: Annotated[str | None, typer.Option(help="The recorded test set [default: the bundle's samples].")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Every device is a process, and so is the edge; Ctrl-C keeps what has been answered."""
    from splitexit.live.tuning import tune_process

    tune_process()
    from rich.console import Console

    from splitexit.cli import live_output
    from splitexit.fleet import require_live
    from splitexit.live.deployment import Deployment, check_policy
    from splitexit.live.network import NETWORKS
    from splitexit.report.folder import new_folder
    from splitexit.scenario import load

    settings = load(scenario, given(overrides, requests, None))
    label, chosen = policy or settings.policy_label, settings.seed if seed is None else seed
    require_live(settings)
    check_policy(settings, label)
    NETWORKS.load(network).require()
    folder = new_folder(out, settings.name)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    host = _measured(settings, label, network, console) if host_calibration is Source.MEASURE else None
    say = teller(console)
    with Deployment.open(settings, host=host, network=network, data=data, say=say) as deployment:
        total = settings.requests * deployment.experiment.total_devices
        say(f"running {total} requests with policy {label}, seed {chosen}")
        with live_output.progress(console, total) as done:
            run = deployment.run(label, chosen, progress=done)
        live_output.write_live(deployment, label, chosen, run, folder, data, json)
    _end(run, total, console)


def _measured(settings: Scenario, policy: str, network: Kind, console: Console) -> Calibration:
    from splitexit.rehearsal import calibrate_for

    return calibrate_for(settings, policy, network, teller(console))


def _end(run: LiveRun, total: int, console: Console) -> None:
    """What went wrong, in a line each, and the exit code that says so."""
    for line in run.failed.values():
        console.print(f"error: {line}", style="red", markup=False)
    if run.interrupted:
        console.print(f"interrupted: {len(run.rows)} of {total} requests were answered, and are kept")
        raise typer.Exit(INTERRUPTED)
    if run.failed:
        raise typer.Exit(FAILED)
