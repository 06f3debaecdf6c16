"""replay: what other policies would have done in a run that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from splitexit.cli.simulate import Json, Out, Overrides, parse_labels, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.replay import Replay

MOST_LINKS = 8
"""So many links are told of; all are in --json."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(replay)


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with rows, live or simulated.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Label of a policy to try, or several with commas; repeatable [default: the scenario's]."),
    ] = None,
    from_policy: Annotated[
        str | None, typer.Option(help="Whose rows to replay, where the run has several.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of which seed, where the run has several.", show_default=False)
    ] = None,
    links: Annotated[
        Literal["measured", "scenario"] | None,
        typer.Option(
            help="Links as the run's own uploads show them, or as the scenario describes them "
            "[default: measured, if 20 requests were sent and answered].",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Simulate what other policies would have done in a run: its arrivals, its samples, its links as measured.

    The logged policy is replayed too: how far that is from what was measured is printed with the result.
    """
    from splitexit.replay import replay as replay_run
    from splitexit.report.folder import new_folder, to_json, write
    from splitexit.report.stored import StoredRun

    log = StoredRun.open(run, overrides or [])
    labels = parse_labels(",".join(policy)) if policy else None
    with progress_bar(json) as progress:
        bar = progress.add_task("replaying", total=None)
        found = replay_run(log, labels, links, from_policy, seed, lambda _: progress.advance(bar))
    folder = new_folder(out, f"replay-{found.experiment.scenario.name}")
    document = found.document() | {"of": str(run), "world": log.world, "run": str(folder)}
    facts = {"world": "simulated", "replay_of": str(run)}
    write(folder, found.experiment, found.table, document, [found.seed], False, facts)
    found.experiment.host.save(folder / "calibration.json")
    if json:
        print(to_json(document))
        return
    _show(found, log.world, bool(overrides))
    print(folder)


def _show(found: Replay, world: str, changed: bool) -> None:
    from rich.console import Console

    from splitexit.cli.simulate import headline
    from splitexit.report.tables import REPLAY, fitting_table, remarks, signed

    console = Console(highlight=False)
    what = "measured" if world == "live" else "simulated"
    console.print(headline(found.experiment, str(found.seed)), markup=False)
    console.print(f"from the {what} run of {found.policy}, {len(found.runs[0].table)} requests", markup=False)
    if found.left_out:
        console.print(f"{found.left_out} rows behind requests that were never answered are left out", markup=False)
    _show_links(console, found)
    differences = found.differences()
    lines = {
        label: {**summary, "change": signed(differences[label]["response_ms"]) if label in differences else what}
        for label, summary in found.summaries.items()
    }
    console.print(fitting_table("policy", REPLAY, lines, console.width))
    errors = found.errors_percent()
    check = f"mean {errors['response_ms']:+.1f} %, p95 {errors['p95_ms']:+.1f} %"
    why = "; no check with --set" if changed else ""
    console.print(f"check: {found.policy} replayed is off the log by: {check}{why}", markup=False)
    for line in remarks({label: found.summaries[label] for label in differences}):
        console.print(line, style="red", markup=False)


def _show_links(console: Console, found: Replay) -> None:
    if found.links == "scenario":
        console.print("links: the scenario's, as the run's seed draws them", markup=False)
        return
    console.print(
        f"links: measured for {found.measured_share:.0%} of the time, the scenario's for the rest", markup=False
    )
    for name, measured in list(found.found.items())[:MOST_LINKS]:
        console.print(
            f"  {name}: {measured.uploads} uploads, {1e3 * measured.base_s:.1f} ms there and back, "
            f"{measured.mean_bps / 1e6:.3g} Mbit/s (to ±{measured.rate_doubt:.0%})",
            markup=False,
        )
    if len(found.found) > MOST_LINKS:
        console.print(f"  and {len(found.found) - MOST_LINKS} more: see --json", markup=False)
