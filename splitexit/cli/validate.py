"""validate: the simulator against real processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.live import Kind
from splitexit.cli.live_output import OVERRUNS
from splitexit.cli.progress import teller
from splitexit.cli.simulate import Json, Out, Overrides, Requests, given, progress_bar
from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.validate import Measured, Validation

WRONG_BY_TOO_MUCH = 1


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(validate)


def validate(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO]", help="Scenario YAML; not with --against.", show_default=False)
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed [default: the scenario's own].", show_default=False)
    ] = None,
    requests: Requests = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="How often the same is measured [default: 3].", show_default=False)
    ] = None,
    seeds_band: Annotated[
        int, typer.Option(min=20, help="Other seeds simulated for the band; 39 make one of 95 %.")
    ] = 39,
    network: Annotated[
        Kind | None,
        typer.Option(
            help="proxy: TCP proxies, anywhere; tun: real TCP through an emulated link, tbf: through the kernel's "
            "token bucket, both on Linux as root [default: proxy].",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    max_error: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", min=0, help="End with exit code 1 if the mean or p95 is off by more."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A stored live run instead of a new one.", show_default=False),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Run a scenario as real processes, simulate the same, and print how far apart they are.

    Same arrivals, samples, policy and seed; what everything costs on this machine is measured first. The band is
    where a run of another seed would lie: a measured value outside it is not explained by chance.
    """
    from rich.console import Console

    from splitexit.report.folder import new_folder, to_json
    from splitexit.report.validation import write
    from splitexit.validate import judge

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if against is None:
        settings = given(overrides, requests, None)
        measured = _measure(scenario, settings, policy, seed, network or Kind.PROXY, repeat or 3, console)
    else:
        for name, value in {
            "SCENARIO": scenario,
            "--set": overrides,
            "--requests": requests,
            "--repeat": repeat,
            "--network": network,
        }.items():
            _refuse(name, value)
        measured = _stored(against, policy, seed)
    folder = new_folder(out, f"validate-{measured.experiment.scenario.name}")
    with progress_bar(json) as progress:
        bar = progress.add_task("simulating", total=1 + seeds_band)
        validation = judge(measured, seeds_band, lambda: progress.advance(bar))
    document = validation.document() | {"run": str(folder)}
    write(validation, document, folder, _can_draw())
    if json:
        print(to_json(document))
    else:
        _show(validation, folder)
    _end(validation, max_error)


def _refuse(name: str, value: Any) -> None:
    from splitexit.errors import UsageError

    if value:
        raise UsageError(f"{name} does not go with --against: a stored run is measured already")


def _measure(
    scenario: Path | None,
    settings: list[str],
    policy: str | None,
    seed: int | None,
    network: Kind,
    repeat: int,
    console: Console,
) -> Measured:
    from splitexit.errors import UsageError
    from splitexit.live.tuning import tune_process
    from splitexit.scenario import load
    from splitexit.validate import measure_here

    if scenario is None:
        raise UsageError("name a SCENARIO to run, or a stored run with --against")
    tune_process()
    read = load(scenario, settings)
    label = read.policy_label if policy is None else policy
    read.policy(label)
    return measure_here(read, label, read.seed if seed is None else seed, network.value, repeat, teller(console))


def _stored(folder: Path, policy: str | None, seed: int | None) -> Measured:
    from splitexit.report.stored import StoredRun
    from splitexit.validate import measured_before

    return measured_before(StoredRun.open(folder), policy, seed)


def _can_draw() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def _show(validation: Validation, folder: Path) -> None:
    from rich.console import Console

    from splitexit.report.validation import headline, metrics_table
    from splitexit.summary import busiest

    console = Console(highlight=False)
    console.print(headline(validation), markup=False)
    console.print(metrics_table(validation, console.width))
    console.print(f"busiest is {busiest(*validation.load)}", markup=False)
    if validation.overrun_rate > OVERRUNS:
        console.print(
            f"{validation.overrun_rate:.1%} of the requests ran slower here than on the machine that the scenario "
            "names: this host is too slow or too busy to stand for it",
            style="red",
        )
    print(folder)


def _end(validation: Validation, max_error: float | None) -> None:
    """The exit code."""
    import sys

    if validation.measured.interrupted:
        raise typer.Exit(INTERRUPTED)
    if max_error is None or not (beyond := validation.exceeds(max_error)):
        return
    said = ", ".join(f"{name} {validation.judgements[name].error:+.1f} %" for name in beyond)
    print(f"error: simulated and measured differ by more than {max_error:g} %: {said}", file=sys.stderr)
    raise typer.Exit(WRONG_BY_TOO_MUCH)
