"""tune: the thresholds of an exit rule for a goal, and how honest the exits' confidences are."""

from __future__ import annotations

import shlex
import sys
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from splitexit.bundle import Bundle
    from splitexit.recording import Part, Recording
    from splitexit.tune.effects import Costs, Effect, Fit, Goal, Kind, View
    from splitexit.tune.temperature import Tempered

UNITS: dict[Kind, float] = {"lose": 100.0, "accuracy": 100.0, "macs": 1.0, "seconds": 1e3}
"""How many of what a person types make one of a goal's."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(tune)


def tune(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    rule: Annotated[
        str,
        typer.Option(
            help="max_prob, entropy, margin, confidence, patience, max_logit; or exclusion, exclusion_strict, where "
            "exits rule classes out."
        ),
    ] = "max_prob",
    method: Annotated[
        str,
        typer.Option(
            help="common: one threshold for all exits. mean, mean-logit (of max_logit), balanced, budgeted: one for "
            "each. Of exclusion: common, in-turn (its authors' search), greedy."
        ),
    ] = "common",
    budget: Annotated[
        float | None, typer.Option(min=0, help="Mean cost to stay within, as a share of the exit-free network's MACs.")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(min=0, help="Mean milliseconds to stay within, all on the calibrated machine.")
    ] = None,
    lose: Annotated[
        float | None,
        typer.Option(min=0, help="Points of accuracy that may be lost; what is looked for by default, with 1."),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Percent of the answers that must be right, as cheaply as it goes."),
    ] = None,
    a: Annotated[
        float | None,
        typer.Option(
            "--a", min=0, help="Instead: times the mean (mean, mean-logit), or ratio of successive shares (balanced)."
        ),
    ] = None,
    choose: Annotated[
        int | None,
        typer.Option(
            "--choose-exits", min=1, metavar="N", help="Read only N early exits: those with the least mean time."
        ),
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Only report a temperature for every exit (needs logits).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the policy into this YAML file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Fit exit thresholds on the calibration split, and report them on the test split.

    Prints a policy for a scenario. Costs are those of a device that runs the whole network itself.
    """
    from splitexit.bundle import Bundle
    from splitexit.errors import UsageError
    from splitexit.recording import Recording

    goals: dict[Kind, float | None] = {"lose": lose, "accuracy": accuracy, "macs": budget, "seconds": budget_ms}
    opened = Bundle.open(bundle)
    recording = Recording.load(opened.recording, opened.spec)
    if temperature:
        if any(given is not None for given in (*goals.values(), a, choose, out)):
            raise UsageError(
                "--temperature only reports: it takes no budget, --lose, --accuracy, --a, --choose-exits or --out"
            )
        _temperatures(recording, json)
        return
    goal = _goal(goals, searched=a is None and method != "balanced")
    _thresholds(opened, recording, rule, method, goal, a, choose, out, json)


def _goal(given: dict[Kind, float | None], searched: bool) -> Goal | None:
    """The goal among these options; --lose 1 by default where one is `searched`. Raises UsageError for several."""
    from splitexit.errors import UsageError
    from splitexit.tune.effects import Goal

    found: dict[Kind, float] = {kind: value for kind, value in given.items() if value is not None}
    if len(found) > 1:
        raise UsageError("give one of --budget, --budget-ms, --lose and --accuracy")
    if not found:
        return Goal("lose", 0.01) if searched else None
    ((kind, value),) = found.items()
    return Goal(kind, value / UNITS[kind])


def _thresholds(
    bundle: Bundle,
    recording: Recording,
    rule: str,
    method: str,
    goal: Goal | None,
    a: float | None,
    choose: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from splitexit.calibration import Calibration
    from splitexit.errors import one_line
    from splitexit.report.folder import to_json
    from splitexit.tune.choice import choose_exits, costs_of, only
    from splitexit.tune.rules import tuner, view

    spec = bundle.spec
    needed = bundle.calibration.exists() or (goal is not None and goal.kind == "seconds")
    calibration, part = Calibration.load(bundle.calibration, spec) if needed else None, recording.calibration
    if choose is None:
        fit = tuner(part, rule, costs_of(spec, calibration, tuple(range(len(spec.exits))))).fit(method, goal, a)
    else:
        fit = choose_exits(choose, part, spec, calibration, rule, method, goal, a)
    read = (*(fit.exits or range(spec.final_exit)), spec.final_exit)
    costs, test = costs_of(spec, calibration, read), only(recording.test, read)
    seen = view(test, rule)
    tested, never = (seen.effect(levels, costs) for levels in (fit.levels, seen.never))
    if out is not None:
        made = one_line(shlex.join(["splitexit", *sys.argv[1:]]))
        out.write_text(f"# {made}\n{_snippet(fit)}", encoding="utf-8")
    if as_json:
        print(to_json(_document(bundle, fit, goal, tested) | {"ece": _honest(seen, fit, test)}))
        return
    _show(fit, goal, tested, never, costs)
    print(out or "paste these lines into a scenario, or have them written with --out FILE")


def _honest(seen: View, fit: Fit, part: Part) -> dict[str, Any]:
    """Calibration errors of every exit, of the samples that leave there and of all."""
    from splitexit.tune.temperature import BINS, ece

    of_all = [ece(said.max_prob, said.prediction == part.label) for said in part.exits]
    return {"bins": BINS, "leaving": seen.ece(fit.levels), "all": of_all}


def _snippet(fit: Fit) -> str:
    """The part of a scenario that has this policy."""
    from splitexit.scenario import dump

    return f"policies:\n  tuned: {dump(fit.policy(), flow=True)}"


def _document(bundle: Bundle, fit: Fit, goal: Goal | None, tested: Effect) -> dict[str, Any]:
    return {
        "bundle": bundle.spec.name,
        "rule": fit.rule,
        "method": fit.method,
        "goal": None if goal is None else vars(goal),
        "parameter": fit.parameter,
        "exits": list(fit.exits or range(len(fit.thresholds))),
        "thresholds": list(fit.thresholds),
        "calibration": fit.reached.document(),
        "test": tested.document(),
        "policy": fit.policy(),
    }


def _show(fit: Fit, goal: Goal | None, tested: Effect, never: Effect, costs: Costs) -> None:
    from rich.console import Console

    print(_title(fit, goal))
    console = Console(highlight=False)
    console.print(_by_exit(fit, tested, costs))
    console.print()
    narrowing = _narrowing(fit.reached, tested)
    if narrowing is not None:
        console.print(narrowing)
        console.print()
    console.print(_in_all({"calibration": fit.reached, "test": tested, "test, never leaving early": never}))
    console.print()
    print(_snippet(fit), end="")


def _title(fit: Fit, goal: Goal | None) -> str:
    wanted = {
        None: "",
        "lose": "for at most {:g} points less accuracy",
        "accuracy": "for at least {:g} % right",
        "macs": "for {:.4g} of the exit-free network's cost",
        "seconds": "for {:.4g} ms on average",
    }[None if goal is None else goal.kind]
    value = 0.0 if goal is None else goal.value * UNITS[goal.kind]
    parameter = "" if fit.method == "common" or isnan(fit.parameter) else f", a = {fit.parameter:.4g}"
    return " ".join(f"rule {fit.rule}, method {fit.method}{parameter} {wanted.format(value)}".split())


def _by_exit(fit: Fit, tested: Effect, costs: Costs) -> Table:
    from rich.table import Table

    table = Table("exit", box=None, pad_edge=False)
    for heading in ("cost", "threshold", "leave (calibration)", "right", "leave (test)", "right"):
        table.add_column(heading, justify="right")
    digits = 0 if fit.rule == "patience" else 4
    thresholds = [*(f"{threshold:.{digits}f}" for threshold in fit.thresholds), "-"]
    names = [*map(str, fit.exits), "final"] if fit.exits else list(map(str, range(len(thresholds))))
    for exit_, threshold in enumerate(thresholds):
        cells = [
            text
            for found in (fit.reached, tested)
            for text in (f"{found.shares[exit_]:.1%}", _percent(found.accuracies[exit_]))
        ]
        table.add_row(names[exit_], f"{costs.macs[exit_]:.1%}", threshold, *cells)
    return table


def _narrowing(fitted: Effect, tested: Effect) -> Table | None:
    """What is left of the classes, where the rule excludes some; of the samples that come as far as an exit."""
    from rich.table import Table

    from splitexit.tune.exclusion import Narrowed

    if not isinstance(fitted, Narrowed) or not isinstance(tested, Narrowed):
        return None
    table = Table("exit", box=None, pad_edge=False)
    for heading in ("classes (calibration)", "own excluded", "classes (test)", "own excluded"):
        table.add_column(heading, justify="right")
    for exit_ in range(len(fitted.classes_left)):
        cells = [
            text
            for found in (fitted, tested)
            for text in (_number(found.classes_left[exit_]), _percent(found.wrongly_excluded[exit_], 2))
        ]
        table.add_row(str(exit_), *cells)
    return table


def _in_all(effects: dict[str, Effect]) -> Table:
    from rich.table import Table

    table = Table("split", box=None, pad_edge=False)
    for heading in ("accuracy", "mean cost", "mean ms", "balance"):
        table.add_column(heading, justify="right")
    for split, found in effects.items():
        milliseconds = "-" if isnan(found.seconds) else f"{1e3 * found.seconds:.3f}"
        table.add_row(split, f"{found.accuracy:.2%}", f"{found.cost:.2%}", milliseconds, f"{found.balance:.2f}")
    return table


def _percent(share: float, digits: int = 1) -> str:
    """A dash for nan, which stands for nobody."""
    return "-" if isnan(share) else f"{share:.{digits}%}"


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f}"


def _temperatures(recording: Recording, as_json: bool) -> None:
    from rich.console import Console

    from splitexit.report.folder import to_json
    from splitexit.tune.temperature import BINS, temper

    found = temper(recording.calibration, recording.test)
    if as_json:
        print(to_json({"bins": BINS, "exits": [vars(each) for each in found]}))
        return
    console = Console(highlight=False)
    console.print(_honesty(found))
    print(f"temperatures from the calibration split, figures from the test split; ECE in {BINS} bins")


def _honesty(found: list[Tempered]) -> Table:
    from rich.table import Table

    table = Table("exit", box=None, pad_edge=False)
    for heading in ("temperature", "NLL", "after", "ECE", "after"):
        table.add_column(heading, justify="right")
    for exit_, each in enumerate(found):
        figures = (*(f"{value:.4f}" for value in each.nll), *(f"{value:.2%}" for value in each.ece))
        table.add_row(str(exit_), f"{each.temperature:.3f}", *figures)
    return table
