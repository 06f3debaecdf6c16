"""bench policies: every policy in every scenario, against the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from splitexit.cli.simulate import Json

SEEDS, QUICK_SEEDS, QUICK_SHARE = "0-9", "0-2", 0.5


def policies(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="Bundle folder [default: scenarios/data/resnet32-cifar10]."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="One of the bench's, or a file; repeatable [default: all of the bench's].", show_default=False
        ),
    ] = None,
    chosen: Annotated[
        str | None,
        typer.Option("--policies", help="Comma-separated labels [default: all of the settings].", show_default=False),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="How policies are set: a file like splitexit/bench/policies.yaml [default: that, and every policy of "
            "the table with its defaults].",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help=f"Seeds, e.g. 0-4 [default: {SEEDS}, quick {QUICK_SEEDS}].", show_default=False)
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Seeds {QUICK_SEEDS} and {QUICK_SHARE:.0%} of the requests: minutes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where everything is kept [default: runs/policies-BUNDLE].", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Compare all policies side by side: accuracy, times, misses, energy, bytes, regret to the oracle, decision time.

    Scenarios that are finished are kept, and the same command goes on behind them.
    """
    from rich.console import Console

    from splitexit.bench import policy_plan as plan
    from splitexit.bench.policies import PolicyBench
    from splitexit.cli.progress import bar, command_line, goes_on, interruptible, teller
    from splitexit.cli.simulate import parse_labels, parse_seeds
    from splitexit.errors import InputError
    from splitexit.report.folder import new_folder, to_json

    place = plan.find_bundle(bundle)
    files = plan.find_scenarios(scenario or ())
    set_so = plan.read_settings(settings, () if chosen is None else parse_labels(chosen))
    numbers = parse_seeds(seeds or (QUICK_SEEDS if quick else SEEDS))
    name = f"policies-{place.resolve().name}{'-quick' if quick else ''}"
    folder = new_folder(out or Path("runs") / name, name)
    console, found = Console(stderr=True), list[dict[str, Any]]()
    with interruptible(console, goes_on(folder)), bar(console, "runs") as progress:
        bench = PolicyBench(place, set_so, numbers, folder, QUICK_SHARE if quick else 1.0, teller(console), progress)
        found.extend(bench.run(files))
    if not any("policies" in scenario for scenario in found):
        raise InputError(f"no scenario could be run: {found[0]['scenario']}: {found[0]['why_not']}")
    document = bench.document(found, command_line())
    _write(document, folder)
    if json:
        print(to_json(document))
        return
    _show(document)
    print(folder)


def _write(document: dict[str, Any], folder: Path) -> None:
    """Summary and tables, and the pictures where matplotlib is there."""
    from importlib.util import find_spec

    from splitexit.bench import policies_show
    from splitexit.report import policies as pictures
    from splitexit.report.folder import to_json

    (folder / "summary.json").write_text(to_json(document) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(policies_show.markdown(document), encoding="utf-8")
    shown = [scenario for scenario in document["scenarios"] if "policies" in scenario]
    if shown and find_spec("matplotlib") is not None:
        title = f"{Path(document['bundle']).resolve().name}, {len(document['seeds'])} seeds"
        pictures.accuracy_over_latency(shown, f"Accuracy over latency: {title}", folder / "policies.png")
        regret = "Regret to the oracle in the same state (lines: 95 % interval of the difference to the least)"
        pictures.regret(shown, f"{regret}: {title}", folder / "regret.png")


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console

    from splitexit.bench.policies_show import COLUMNS, EXPLAINED, headline, left_out, ordered
    from splitexit.report.tables import fitting_table

    shown = Console(highlight=False)
    for scenario in document["scenarios"]:
        if "why_not" in scenario:
            shown.print(f"\n{scenario['scenario']}: left out: {scenario['why_not']}", markup=False)
            continue
        shown.print(f"\n{headline(scenario, document['seeds'])}", markup=False)
        shown.print(fitting_table("policy", COLUMNS, ordered(scenario), shown.width))
        for line in left_out(scenario):
            shown.print(line, markup=False)
    for line in EXPLAINED:
        shown.print(line, markup=False)
