"""What runs of a scenario say in short: metrics of the rows that count, by group, with load, verdict and intervals.

Rows that arrived before `warmup_s` stay in the table and leave every figure. Utilisation is, for every kind of
resource, the work that the rows brought over what it could have done from the end of the warm-up to the last answer:

    device      seconds of compute and encoding
    uplink      bytes with their framing, over the link's mean rate (of an access point: of all that share it);
    downlink    over 1 the link was offered more than it can carry
    edge        seconds of compute of the answers that came back. Unknown with batching, where jobs share seconds,
                and with a cloud behind, whose seconds stand in the same column
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from splitexit import backlog, energy
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.results import LOCAL, column, summarise, utilities
from splitexit.stats import CONFIDENCE, FEWEST_BATCHES, BatchMeans, Interval, batch_means, share, student, within_shares

Summary = dict[str, Any]

SHARES = ("accuracy", "deadline_miss_rate", "offload_rate", "shed_rate")
MEANS = ("uplink_bytes_mean", "device_energy_mj_mean", "utility")
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
METRICS = ("accuracy", "response_ms", *QUANTILES, *SHARES[1:], *MEANS, "throughput_per_s")
"""What has an interval, by the name it has there."""

JUDGED = ("regret", "switch_rate")
"""And these, of runs whose decisions were judged (splitexit.sim.regret): utility lost, and the share of requests whose
plan differs from that of the device's request before."""

BEYOND = 5
"""A quantile of one run has an interval where every section has this many values beyond it."""


def metric(summary: Mapping[str, Any], name: str) -> float:
    """The metric of this name (METRICS) in a summary; NaN where it has none."""
    if name == "response_ms":
        return float(summary["response_ms"]["mean"])
    if name in QUANTILES:
        return float(summary["response_ms"][name.removesuffix("_ms")])
    return float(summary.get(name, math.nan))


@dataclass(frozen=True)
class Summariser:
    """Summaries of an experiment's runs; reads links and power figures once."""

    experiment: Experiment

    @property
    def warmup_s(self) -> float:
        """Where figures begin."""
        return self.experiment.scenario.warmup_s

    def charged(self, table: pa.Table) -> pa.Table:
        """The rows with the energy that they cost the devices, where its figures are known."""
        return energy.charge(table, self._energy)

    @cached_property
    def _energy(self) -> list[energy.Model]:
        return [self.experiment.energy_model(group) for group in self.experiment.groups]

    @property
    def energy_gaps(self) -> list[str]:
        """Why energy is not known, if it is not."""
        return list(dict.fromkeys(gap for model in self._energy for gap in model.gaps))

    @cached_property
    def _rates(self) -> dict[str, tuple[float, float]]:
        """Mean bit/s up and down of one link of every group."""
        found = {}
        for group in self.experiment.groups:
            up, down = self.experiment.scenario.links(group.config)
            found[group.label] = up.create().mean_bps, down.create().mean_bps
        return found

    def __call__(self, tables: Sequence[pa.Table], confidence: float = CONFIDENCE) -> Summary:
        """Of one or several runs of one policy (charged, whole), all rows together; intervals are not in it yet.

        Raises:
            InputError: a run has no row, or none behind the warm-up.
        """
        counted = [self.counted(table) for table in tables]
        rows, spans = pa.concat_tables(counted), [self._span(table) for table in counted]
        summary = self._metrics(rows, sum(spans))
        load = self._utilisation(rows, sum(spans))
        summary["utilisation"] = load
        summary["bottleneck"] = _bottleneck(load, rows)
        summary["verdict"] = self._verdict(tables, rows, load)
        if len(self.experiment.groups) > 1:
            summary["groups"] = {group.label: self._group(group, rows, sum(spans)) for group in self.experiment.groups}
        return summary

    def counted(self, table: pa.Table) -> pa.Table:
        """The rows behind the warm-up."""
        if not len(table):
            raise InputError("events: no device makes a request, all have left; begin `leave` later, or end it")
        if not self.warmup_s:
            return table
        kept = table.filter(pc.greater_equal(table["arrival_s"], self.warmup_s))
        if not len(kept):
            last_s = column(table, "arrival_s").max(initial=0.0)
            raise InputError(
                f"warmup_s: {self.warmup_s:g} leaves nothing to measure, the last request comes at {last_s:.3g} s; "
                "lower it, or raise requests"
            )
        return kept

    def _span(self, counted: pa.Table) -> float:
        return max(float(column(counted, "done_s").max()) - self.warmup_s, 1e-12)

    def _metrics(self, rows: pa.Table, seconds: float) -> Summary:
        summary = summarise(rows, len(self.experiment.spec.exits))
        summary["utility"] = float(utilities(rows, self.experiment.scenario.utility).mean())
        summary["throughput_per_s"] = len(rows) / seconds
        if "regret" in rows.column_names:
            summary["regret"] = float(column(rows, "regret").mean())
            summary["switch_rate"] = float(column(rows, "switched").mean())
        return summary

    def _group(self, group: Group, rows: pa.Table, seconds: float) -> Summary:
        mine = _of(group, rows)
        if not len(mine):
            return {"requests": 0, "devices": group.count}
        return self._metrics(mine, seconds) | {"devices": group.count}

    def _utilisation(self, rows: pa.Table, seconds: float) -> dict[str, float]:
        """Work over capacity by resource."""
        work: dict[str, float] = defaultdict(float)
        capacity: dict[str, float] = {}
        for group in self.experiment.groups:
            mine = _of(group, rows)
            for name, done, able in self._loads(group, mine):
                work[name] += done
                capacity[name] = able
        edge = self.experiment.scenario.edge
        if edge.batching is None and self.experiment.scenario.cloud is None:
            work["edge"] = float(column(rows, "edge_compute_s").sum())
            capacity["edge"] = edge.workers * edge.servers
        load = {name: done / (capacity[name] * seconds) for name, done in work.items()}
        return {**load, "edge": math.nan} if "edge" not in load else load

    def _loads(self, group: Group, mine: pa.Table) -> Iterator[tuple[str, float, float]]:
        """Resource, its work of this group, and its capacity each second."""
        several = len(self.experiment.groups) > 1
        busy_s = float(column(mine, "device_compute_s").sum() + column(mine, "encode_s").sum())
        yield f"device {group.label}" if several else "device", busy_s, group.count
        point, rpc = group.config.access_point, self.experiment.edge_calibration.rpc
        links = group.count if point is None else self.experiment.scenario.access_points[point].count
        where = f" {point or group.label}" if several or point else ""
        sent, (up_bps, down_bps) = column(mine, "split") != LOCAL, self._rates[group.label]
        up_bytes = float(column(mine, "payload_bytes")[sent].sum()) + rpc.uplink_overhead_bytes * float(sent.sum())
        answered = float((sent & ~column(mine, "lost_reply")).sum())
        yield f"uplink{where}", 8 * up_bytes, links * up_bps
        yield f"downlink{where}", 8 * rpc.downlink_bytes * answered, links * down_bps

    def _verdict(self, tables: Sequence[pa.Table], rows: pa.Table, load: Mapping[str, float]) -> str:
        return backlog.verdict([self._growth(table) for table in tables], _turned_away(rows, load))

    def _growth(self, table: pa.Table) -> backlog.Changes:
        arrival_s = column(table, "arrival_s")
        until_s = backlog.while_all_work(column(table, "device"), arrival_s)
        return backlog.changes(arrival_s, column(table, "done_s"), self.warmup_s, until_s)


def _bottleneck(load: Mapping[str, float], rows: pa.Table) -> str:
    """The busiest resource; the edge where its load is unknown and requests queue for it or find no room."""
    if math.isnan(load["edge"]) and (column(rows, "shed").any() or _queues_at_the_edge(rows)):
        return "edge"
    return max((name for name in load if not math.isnan(load[name])), key=lambda name: load[name])


def busiest(name: str, load: float | None) -> str:
    """The bottleneck in words, with its load where that is known."""
    return name if load is None or math.isnan(load) else f"{name} {load:.0%}"


def _queues_at_the_edge(rows: pa.Table) -> bool:
    return bool(column(rows, "edge_wait_s").sum() > column(rows, "edge_compute_s").sum())


def _of(group: Group, rows: pa.Table) -> pa.Table:
    device = rows["device"]
    inside = pc.and_(pc.greater_equal(device, group.first), pc.less(device, group.first + group.count))
    return rows.filter(inside)


def _turned_away(rows: pa.Table, load: Mapping[str, float]) -> float:
    """Share of requests that found no room, or no reply because others were in front.

    A lost reply is taken for that where a resource is offered more than it can do, or where requests wait at the
    edge for longer than they are worked on (in M/D/1: a load over two thirds); else the link or the deadline is
    to blame.
    """
    shed, lost = column(rows, "shed"), column(rows, "lost_reply")
    crowded = _queues_at_the_edge(rows) or any(of > 1 for of in load.values())
    return float((shed | lost).mean() if crowded else shed.mean())


def over_replications(runs: Sequence[Summary], confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """Student's intervals of every metric over independent runs; NaN limits for a single one."""
    trials = sum(run["requests"] for run in runs)
    found = {}
    for name in (*METRICS, *JUDGED):
        values, portion = [metric(run, name) for run in runs], name in (*SHARES, "switch_rate")
        found[name] = share(values, trials, confidence) if portion else student(values, confidence)
    return {name: interval for name, interval in found.items() if math.isfinite(interval.mean)}


def over_batches(counted: pa.Table, utility: Any, confidence: float = CONFIDENCE) -> dict[str, BatchMeans]:
    """Batch-means intervals of one run, its rows in order of arrival; metrics are left out where it is too short."""
    rows = counted.take(np.argsort(column(counted, "arrival_s"), kind="stable"))
    response_ms = 1e3 * column(rows, "response_s")
    series = {
        "accuracy": column(rows, "prediction") == column(rows, "label"),
        "response_ms": response_ms,
        "deadline_miss_rate": ~column(rows, "deadline_met"),
        "offload_rate": column(rows, "split") != LOCAL,
        "shed_rate": column(rows, "shed"),
        "uplink_bytes_mean": column(rows, "payload_bytes"),
        "device_energy_mj_mean": 1e3 * column(rows, "energy_j"),
        "utility": utilities(rows, utility),
    }
    found = {name: batch_means(values.astype(float), confidence) for name, values in series.items()}
    if "regret" in rows.column_names:
        series |= {"regret": column(rows, "regret"), "switch_rate": column(rows, "switched")}
    for name, quantile in QUANTILES.items():
        if len(response_ms) * (1 - quantile) >= FEWEST_BATCHES * BEYOND:
            found[name] = batch_means(response_ms, confidence, partial(np.quantile, q=quantile))
    return {
        name: replace(b, interval=within_shares(b.interval, len(rows), confidence))
        if name in (*SHARES, "switch_rate")
        else b
        for name, b in found.items()
        if b is not None and math.isfinite(b.interval.mean)
    }
