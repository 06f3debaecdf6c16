"""What the commands of the live world print and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.compare import Comparison
    from splitexit.experiment import Experiment
    from splitexit.live.deployment import Deployment, LiveRun
    from splitexit.results import Completion

OVERRUNS = 0.01
"""A larger share of overruns is said in red: the host was too slow for the machine it stood for."""

TOO_SLOW = "this host was too slow or too busy for the machines it stood for; times are too long"


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many requests are done; to be called with that number."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    # Drawn seldom: the device's timing feels it on a small machine.
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("requests", total=total)
        yield lambda done: bar.update(task, completed=done)


def write(
    experiment: Experiment,
    policy: str,
    seed: int,
    rows: list[Completion],
    late: int,
    decide_ns: Sequence[int],
    folder: Path,
    json: bool,
) -> None:
    """The run folder of a single device, as `simulate` writes it; then the summary, and the folder as the last line."""
    from splitexit.report.folder import to_json
    from splitexit.report.folder import write as write_folder
    from splitexit.results import decisions, marked, summarise, to_table

    table = to_table(rows, experiment.schema)
    summary: dict[str, Any] = {"policy": policy, "seed": seed, "late_replies": late, "run": str(folder)}
    summary["decision_us"] = decisions(decide_ns)
    if rows:
        summary |= summarise(table, len(experiment.spec.exits))
    write_folder(folder, experiment, marked(table, policy=policy, seed=seed), summary, [seed], False)
    if json:
        print(to_json(summary))
        return
    if rows:
        _show(summary)
    print(folder)


def _show(summary: Mapping[str, Any]) -> None:
    from rich.console import Console

    from splitexit.report.tables import LIVE, fitting_table

    console = Console(highlight=False)
    console.print(fitting_table("policy", LIVE, {summary["policy"]: summary}, console.width))
    console.print(decision_line(summary["decision_us"]), markup=False)
    if summary["overrun_rate"] > OVERRUNS:
        console.print(TOO_SLOW, style="red")


def decision_line(took: Mapping[str, float]) -> str:
    """How long the policy took to decide, in a line."""
    if not took:
        return "decisions: none"
    return f"decisions: p50 {took['p50']:.1f} µs, p99 {took['p99']:.1f} µs, of {took['count']:.0f}"


def write_live(
    deployment: Deployment, policy: str, seed: int, run: LiveRun, folder: Path, data: str | None, json: bool
) -> None:
    """The run folder of a deployment; then what `simulate` would print of these rows, and the folder as the last line.

    Args:
        data: where the images came from; None: the bundle's own.
    """
    from splitexit.report.folder import to_json
    from splitexit.report.folder import write as write_folder
    from splitexit.results import decisions, marked, to_table

    experiment = deployment.experiment
    table = marked(to_table(run.rows, experiment.schema), policy=policy, seed=seed)
    facts = {"world": "live", "network": deployment.network, "data": data}
    document: dict[str, Any] = {
        "scenario": experiment.scenario.name,
        **facts,
        "seeds": [seed],
        "late_replies": run.late,
        "interrupted": run.interrupted,
        "failed": run.failed,
        "decision_us": decisions(run.decide_ns),
        "links": run.links,
        "processes": deployment.pids,
        "run": str(folder),
    }
    if (comparison := _compared(deployment, policy, seed, run)) is not None:
        document, table = comparison.document() | document, comparison.rows
    write_folder(folder, experiment, table, document, [seed], False, facts)
    experiment.host.save(folder / "calibration.json")
    if json:
        print(to_json(document))
        return
    if comparison is not None:
        _show_live(comparison, seed, document["decision_us"])
    print(folder)


def _compared(deployment: Deployment, policy: str, seed: int, run: LiveRun) -> Comparison | None:
    """What the rows say, as `simulate` says it; None where none counts, as after an early end."""
    from splitexit.compare import Comparison, as_run
    from splitexit.errors import InputError
    from splitexit.results import to_table

    experiment = deployment.experiment
    try:
        found = as_run(experiment, policy, seed, to_table(run.rows, experiment.schema))
    except InputError:
        return None
    return Comparison(experiment, (policy,), (seed,), (found,))


def _show_live(comparison: Comparison, seed: int, took: Mapping[str, float]) -> None:
    from rich.console import Console

    from splitexit.cli.simulate import headline
    from splitexit.report.tables import SINGLE, fitting_table, groups_table, intervals_table, remarks

    console, (policy,) = Console(highlight=False), comparison.policies
    summary = comparison.summaries[policy]
    columns = (
        *SINGLE,
        ("fallback", 2, lambda s: f"{s['fallback_rate']:.1%}"),
        ("overruns", 2, lambda s: f"{s['overrun_rate']:.1%}"),
    )
    console.print(headline(comparison.experiment, str(seed)), markup=False)
    console.print(fitting_table("policy", columns, {policy: summary}, console.width))
    if groups := groups_table(summary, policy, console.width):
        console.print(groups)
    console.print(intervals_table(summary, comparison.confidence))
    console.print(decision_line(took), markup=False)
    for line in remarks(comparison.summaries):
        console.print(line, style="red", markup=False)
    if summary["overrun_rate"] > OVERRUNS:
        console.print(f"{summary['overrun_rate']:.0%} overruns: {TOO_SLOW}", style="red", markup=False)


def show_link(summary: Mapping[str, Mapping[str, float]], json: bool) -> None:
    """How exact the proxy was."""
    from splitexit.report.folder import to_json

    if json:
        print(to_json(summary))
        return
    for direction, values in summary.items():
        facts = ", ".join(
            f"{key} {value:.3g}" if key != "bytes" else f"{value:.0f} bytes" for key, value in values.items()
        )
        print(f"{direction}: {facts}")
