"""What device and link print and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.experiment import Experiment
    from splitexit.results import Completion

OVERRUNS = 0.01
"""A larger share of overruns is said in red: the host was too slow for the machine it stood for."""


@contextmanager
def progress(console: Console, total: int, rows: list[Completion]) -> Iterator[Callable[[Completion], None]]:
    """A sink that collects rows and shows how many there are."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    # Drawn seldom: the device's timing feels it on a small machine.
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("requests", total=total)

        def sink(row: Completion) -> None:
            rows.append(row)
            bar.update(task, completed=len(rows))

        yield sink


def write(
    experiment: Experiment, policy: str, seed: int, rows: list[Completion], late: int, folder: Path, json: bool
) -> None:
    """The run folder, as `simulate` writes it; then the summary, and the folder as the last line."""
    from splitexit.report.folder import to_json
    from splitexit.report.folder import write as write_folder
    from splitexit.results import summarise, to_table

    table = to_table(rows)
    summary: dict[str, Any] = {"policy": policy, "seed": seed, "late_replies": late, "run": str(folder)}
    if rows:
        summary |= summarise(table, len(experiment.spec.exits))
    named = table.add_column(0, "seed", [[seed] * len(table)]).add_column(0, "policy", [[policy] * len(table)])
    write_folder(folder, experiment, named, summary, [seed], False)
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
    if summary["overrun_rate"] > OVERRUNS:
        console.print("this host was too slow for the machine it stood for; times are too long", style="red")


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
