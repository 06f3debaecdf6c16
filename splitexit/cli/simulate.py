"""simulate and compare: run a scenario in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

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
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENT",
        help="Add seeds until the mean response of every policy is known to within this, e.g. 1%.",
        show_default=False,
    ),
]
MaxSeeds = Annotated[int, typer.Option(min=1, help="Where --precision gives up.")]
Engine = Annotated[
    str | None, typer.Option(help="simpy or compiled, as the scenario's key `engine`.", show_default=False)
]
Regret = Annotated[
    bool,
    typer.Option(
        "--regret",
        help="Judge every decision against the oracle's in the same state: columns regret and switched (simpy engine).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command()(simulate)
    app.command()(compare)


def simulate(
    scenario: ScenarioFile,
    policy: Annotated[str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].")] = None,
    overrides: Overrides = None,
    seeds: Seeds = None,
    precision: Precision = None,
    max_seeds: MaxSeeds = 100,
    requests: Requests = None,
    engine: Engine = None,
    out: Out = None,
    csv: Csv = False,
    no_rows: Annotated[
        bool,
        typer.Option("--no-rows", help="Keep no rows: memory stays as it is however long the run (compiled engine)."),
    ] = False,
    regret: Regret = False,
    json: Json = False,
) -> None:
    """Simulate one policy of a scenario.

    With one seed the intervals come from batch means, with several from the seeds as replications.
    """
    from splitexit.errors import UsageError

    experiment = _open(scenario, given(overrides, requests, engine))
    label = experiment.scenario.policy_label if policy is None else policy
    if no_rows:
        if regret:
            raise UsageError("--regret: needs the rows; leave out --no-rows")
        _without_rows(experiment, label, seeds, out, json)
        return
    _run(experiment, [label], seeds, out, csv, json, precision=precision, max_seeds=max_seeds, regret=regret)


def compare(
    scenario: ScenarioFile,
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated labels [default: all of the scenario].", show_default=False)
    ] = None,
    overrides: Overrides = None,
    seeds: Seeds = "0-4",
    precision: Precision = None,
    max_seeds: MaxSeeds = 100,
    requests: Requests = None,
    engine: Engine = None,
    out: Out = None,
    csv: Csv = False,
    regret: Regret = False,
    json: Json = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw accuracy over latency (needs matplotlib).")] = False,
) -> None:
    """Simulate policies side by side on the same requests.

    Arrivals, samples and service times are common to all policies; differences are paired by seed.
    """
    from splitexit.check import contenders

    experiment = _open(scenario, given(overrides, requests, engine))
    labels = contenders(experiment) if policies is None else parse_labels(policies)
    _run(experiment, labels, seeds, out, csv, json, plot, precision, max_seeds, regret)


def chosen(experiment: Experiment, policy: str | None, policies: str | None) -> list[str]:
    """The labels of --policy or --policies, else the scenario's own; raises InputError for one that is unknown."""
    labels = [policy or experiment.scenario.policy_label] if policies is None else parse_labels(policies)
    for label in labels:
        experiment.scenario.policy(label)
    return labels


def parse_labels(text: str) -> list[str]:
    """'local,offload' as a list; raises UsageError where it is empty."""
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


def parse_precision(text: str) -> float:
    """'1%' or '0.01' as 0.01; raises UsageError."""
    from splitexit.errors import UsageError

    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 1e-6 <= value < 1:
        raise UsageError(f"--precision {text!r}: expected a share of the mean, e.g. 1% or 0.01")
    return value


def progress_bar(quiet: bool, *columns: Any) -> Progress:
    """A bar on stderr while the work lasts; nothing where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    shown = columns or Progress.get_default_columns()
    return Progress(*shown, console=console, transient=True, disable=quiet or not console.is_terminal)


def given(overrides: list[str] | None, requests: int | None, engine: str | None) -> list[str]:
    """Every key that the command line sets, as --set would."""
    named = {"requests": requests, "engine": engine}
    return [*(overrides or []), *(f"{key}={value}" for key, value in named.items() if value is not None)]


def _open(scenario: Path, overrides: list[str]) -> Experiment:
    from splitexit.experiment import Experiment
    from splitexit.scenario import load

    return Experiment.open(load(scenario, overrides))


def _run(
    experiment: Experiment,
    labels: list[str],
    seeds: str | None,
    out: Path | None,
    csv: bool,
    json: bool,
    plot: bool = False,
    precision: str | None = None,
    max_seeds: int = 100,
    regret: bool = False,
) -> None:
    from splitexit.compare import compare as compare_policies
    from splitexit.report.folder import new_folder, write
    from splitexit.report.plots import accuracy_over_latency, require_matplotlib

    if plot:
        require_matplotlib()
    for label in labels:
        experiment.scenario.policy(label)
    numbers = [experiment.scenario.seed] if seeds is None else parse_seeds(seeds)
    wanted = None if precision is None else parse_precision(precision)
    folder = new_folder(out, experiment.scenario.name)
    with progress_bar(json) as progress:
        bar = progress.add_task("simulating", total=None if wanted else len(labels) * len(numbers))
        comparison = compare_policies(
            experiment, labels, numbers, lambda _: progress.advance(bar), wanted, max_seeds, regret
        )
    document = comparison.document() | {"run": str(folder)}
    manifest = write(folder, experiment, comparison.rows, document, list(comparison.seeds), csv)
    if plot:
        accuracy_over_latency(comparison, folder / "comparison.png")
    _show(comparison, document | {"rows_sha256": manifest["rows_sha256"]}, folder, json)


def _without_rows(experiment: Experiment, label: str, seeds: str | None, out: Path | None, json: bool) -> None:
    """One run of the compiled engine, summarised while it runs."""
    from rich.console import Console

    from splitexit.errors import UsageError
    from splitexit.report.folder import new_folder, to_json, write_summary
    from splitexit.report.tables import bare_table
    from splitexit.sim import compiled

    scenario = experiment.scenario
    numbers = [scenario.seed] if seeds is None else parse_seeds(seeds)
    if scenario.engine != "compiled" or len(numbers) > 1:
        raise UsageError("--no-rows needs --engine compiled and a single seed; anything else keeps the rows")
    scenario.policy(label)
    folder = new_folder(out, scenario.name)
    with progress_bar(json) as progress:
        progress.add_task("simulating", total=None)
        summary = compiled.summarise_run(experiment, label, numbers[0])
    document = {"scenario": scenario.name, "seeds": numbers, "policies": {label: summary}, "run": str(folder)}
    write_summary(folder, experiment, document, numbers)
    if json:
        print(to_json(document))
        return
    console = Console(highlight=False)
    console.print(headline(experiment, str(numbers[0])), markup=False)
    console.print(bare_table(label, summary, console.width))
    print(folder)


def _show(comparison: Comparison, document: dict[str, object], folder: Path, json: bool) -> None:
    from rich.console import Console

    from splitexit.report.folder import to_json
    from splitexit.report.tables import comparison_table, groups_table, intervals_table, remarks
    from splitexit.summary import Summariser

    if json:
        print(to_json(document))
        return
    console = Console(highlight=False)
    console.print(headline(comparison.experiment, _seeds(comparison.seeds)), markup=False)
    console.print(comparison_table(comparison, console.width))
    for policy, summary in comparison.summaries.items():
        if groups := groups_table(summary, policy, console.width):
            console.print(groups)
    if len(comparison.policies) == 1:
        console.print(intervals_table(comparison.summaries[comparison.policies[0]], comparison.confidence))
    if comparison.precision is not None:
        console.print(_precision(comparison), markup=False)
    for line in remarks(comparison.summaries):
        console.print(line, style="red", markup=False)
    if any("device_energy_mj_mean" not in summary for summary in comparison.summaries.values()):
        for gap in Summariser(comparison.experiment).energy_gaps:
            console.print(f"J/request: {gap}", markup=False)
    print(folder)


def headline(experiment: Experiment, seeds: str, devices: bool = True) -> str:
    """What ran, in a line; without the number of devices where that is what was looked for."""
    counts = [f"{group.count} x " if devices else "" for group in experiment.groups]
    hardware = [group.config.hardware for group in experiment.groups]
    fleet = ", ".join(map("".join, zip(counts, hardware, strict=True)))
    scenario = experiment.scenario
    warmup = f", first {scenario.warmup_s:g} s left out" if scenario.warmup_s else ""
    return f"{scenario.name}: {fleet}, {scenario.requests} requests each, seeds {seeds}{warmup}"


def _precision(comparison: Comparison) -> str:
    """How near sequential stopping came."""
    reached, base = comparison.reached(), comparison.policies[0]
    worst = max(reached["relative_half_widths"].values())
    said = "reached" if reached["reached"] else "not reached"
    text = (
        f"precision {reached['asked']:.2%} {said} with {len(comparison.seeds)} seeds: "
        f"mean response within {worst:.2%} at {comparison.confidence:.0%} confidence"
    )
    notes = [f"{policy} ±{half:.2g} ms" for policy, half in reached["differences_half_ms"].items()]
    return text + (f"; differences to {base}: {', '.join(notes)}" if notes else "")


def _seeds(seeds: tuple[int, ...]) -> str:
    """0-4 where they follow one another, else 0, 3, 7."""
    if len(seeds) > 1 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
