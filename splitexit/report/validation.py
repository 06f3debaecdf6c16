"""A validation as a table, a picture and a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from splitexit.compare import Run
from splitexit.report.folder import write as write_folder
from splitexit.report.plots import COLOURS, figure
from splitexit.report.tables import Column, fitting_table
from splitexit.results import column
from splitexit.stats import CONFIDENCE
from splitexit.summary import Summariser
from splitexit.validate import MS, SHARE, TAILS, Judgement, Validation

Array = np.ndarray[Any, Any]

TITLES = {
    "mean": "mean ms",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "device_wait": "wait, device ms",
    "edge_wait": "wait, edge ms",
    "network": "network ms",
    "accuracy": "accuracy",
    "offload_rate": "sent",
    "shed_rate": "shed",
    "lost_rate": "lost",
    "throughput": "per s",
}

COLUMNS: tuple[Column, ...] = (
    ("measured", 0, lambda j: _value(j, j["of"].middle)),
    ("spread", 2, lambda j: _relative(j, j["of"].spread, "")),
    ("simulated", 0, lambda j: _value(j, j["of"].simulated)),
    ("error", 0, lambda j: _relative(j, j["of"].error, "+")),
    ("error ms", 3, lambda j: f"{j['of'].simulated - j['of'].middle:+.2f}" if j["of"].unit == MS else ""),
    (f"{100 * CONFIDENCE:g} % band", 1, lambda j: " to ".join(_value(j, end) for end in j["of"].band)),
    ("in band", 0, lambda j: "yes" if j["of"].in_band else "no"),
    ("", 1, lambda j: "noisy" if j["of"].noisy else ""),
)


def _value(line: Mapping[str, Any], value: float) -> str:
    if not math.isfinite(value):
        return "–"
    judgement: Judgement = line["of"]
    return f"{value:.2%}" if judgement.unit == SHARE else f"{value:.2f}"


def _relative(line: Mapping[str, Any], value: float, sign: str) -> str:
    if not math.isfinite(value):
        return "–"
    judgement: Judgement = line["of"]
    return f"{round(value, 2) + 0.0:{sign}.2f} {'pt' if judgement.unit == SHARE else '%'}"


def metrics_table(validation: Validation, width: int) -> Table:
    """One line per metric: measured, simulated, how far apart, and whether chance may be to blame."""
    lines = {TITLES[name]: {"of": judgement} for name, judgement in validation.judgements.items()}
    return fitting_table("metric", COLUMNS, lines, width)


def headline(validation: Validation) -> str:
    """What was compared, in a line."""
    document, groups = validation.document(), validation.experiment.groups
    fleet = ", ".join(f"{group.count} x {group.config.hardware}" for group in groups)
    return (
        f"{document['scenario']}: {fleet}; {document['policy']}, {document['requests']} requests, seed "
        f"{document['seed']}, network {document['network']}, measured {document['repetitions']}×"
    )


def write(validation: Validation, document: Mapping[str, Any], folder: Path, picture: bool) -> None:
    """The run folder: that of a live run, with the simulated rows and, if asked for, the picture."""
    measured = validation.measured
    made = {"world": "live", "network": measured.network}
    write_folder(folder, measured.experiment, validation.rows(), document, [validation.simulated.seed], False, made)
    measured.experiment.host.save(folder / "calibration.json")
    if picture:
        draw(validation, folder / "validation.png")


def draw(validation: Validation, path: Path) -> None:
    """Both worlds' distributions of the response time: repetitions thin, simulated bold, its band shaded."""
    fig, axes = figure(7.0, 4.2)
    summariser = Summariser(validation.measured.experiment)
    levels = np.linspace(0.0, 1.0, 401)
    band = np.array([np.quantile(_responses(summariser, run), levels) for run in validation.band])
    low, high = np.quantile(band, TAILS, axis=0, method="weibull")
    axes.fill_betweenx(
        levels,
        low,
        high,
        color=COLOURS[0],
        alpha=0.15,
        linewidth=0,
        label=f"simulated, {CONFIDENCE:.0%} of other seeds",
    )
    simulated = _responses(summariser, validation.simulated)
    axes.step(*_steps(simulated), where="post", color=COLOURS[0], linewidth=2.2, label="simulated")
    measured = [_responses(summariser, run) for run in validation.measured.runs]
    for number, values in enumerate(measured):
        label = "measured" if number == 0 else None
        axes.step(*_steps(values), where="post", color=COLOURS[1], linewidth=0.9, label=label)
    axes.set_xlabel("response time in ms")
    axes.set_ylabel("share of requests answered by then")
    axes.set_title(_title(validation), fontsize=9)
    axes.set_ylim(0, 1)
    # The last requests in a hundred would squeeze all others into a corner.
    axes.set_xlim(0.0, 1.15 * max(float(np.quantile(values, 0.99)) for values in [simulated, *measured]))
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    fig.savefig(path)


def _responses(summariser: Summariser, run: Run) -> Array:
    return np.sort(1e3 * column(summariser.counted(run.table), "response_s"))


def _steps(ordered: Array) -> tuple[Array, Array]:
    """The empirical distribution function of sorted values."""
    return np.append(0.0, ordered), np.arange(len(ordered) + 1) / len(ordered)


def _title(validation: Validation) -> str:
    errors = ", ".join(f"{name} {validation.judgements[name].error:+.1f} %" for name in ("mean", "p50", "p95", "p99"))
    run = validation.simulated
    name, network = validation.experiment.scenario.name, validation.measured.network
    return f"{name}: {run.policy}, seed {run.seed}, network {network}\nerror of the simulation: {errors}"
