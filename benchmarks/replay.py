"""How well `splitexit replay` foretells what another policy does, by really running that policy.

For every case the scenario's processes run each of two policies some times, in turn. From the log of the one, the other
is replayed, with links as the log shows them; the predicted mean is compared with the mean that was measured under the
other. Both ways, so that every case gives two lines. All machines are named ones, so that every process is paced; what
a call costs here is rehearsed first. A fixed computation is timed before each case, so that the table says how quiet
the machine was.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fidelity import markdown, noise, plain
from benchmarks.simulator import machine
from splitexit.compare import as_run
from splitexit.errors import ProcessError
from splitexit.live.deployment import Deployment
from splitexit.rehearsal import calibrate_for
from splitexit.replay import replay
from splitexit.report.folder import write
from splitexit.report.stored import StoredRun
from splitexit.results import to_table
from splitexit.scenario import Scenario, load

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"

TARGET = 5.0
"""Percent by which a predicted mean may be off, in the median over the repetitions."""

JPEG = "policies.jpeg={name: offload, split: 0, codec: jpeg}"
FEATURES = 'policies.features={name: threshold, threshold: 0.83, split: 5, codec: "bottleneck:channels=8"}'
LARGE = "policies.large={name: offload, split: 3, codec: uint8}"

Document = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A scenario, what is changed in it, and the two policies."""

    name: str
    scenario: str
    policies: tuple[str, str]
    changes: tuple[str, ...] = ()


CASES = (
    Case("LTE", "quickstart", ("offload-jpeg", "exit-or-split"), ("edge.hardware=workstation-cpu", "requests=240")),
    Case("bus trace", "validation/bus-images", ("jpeg", "large"), (JPEG, LARGE)),
    Case("tram trace", "validation/tram-features", ("exit-or-split", "jpeg"), (JPEG,)),
    Case("1 Mbit/s", "validation/narrow-uplink", ("split", "jpeg"), (JPEG,)),
    Case("50 ms", "validation/far-edge", ("exit-or-split", "jpeg"), (JPEG,)),
    Case(
        "two devices", "validation/eight-cameras", ("exit-or-split", "jpeg"), (JPEG, "devices.count=2", "requests=96")
    ),
)


def measured(deployment: Deployment, policy: str, folder: Path) -> StoredRun:
    """A live run of a policy, as it comes back from its run folder."""
    experiment, seed = deployment.experiment, deployment.experiment.scenario.seed
    found = deployment.run(policy, seed)
    if found.interrupted:
        raise KeyboardInterrupt
    if found.failed:
        raise ProcessError("; ".join(found.failed.values()))
    table = as_run(experiment, policy, seed, to_table(found.rows)).table
    rows = table.add_column(0, "seed", [[seed] * len(table)]).add_column(0, "policy", [[policy] * len(table)])
    folder.mkdir(parents=True)
    write(folder, experiment, rows, {}, [seed], False, {"world": "live", "network": deployment.network})
    experiment.host.save(folder / "calibration.json")
    return StoredRun.open(folder)


def mean_ms(run: StoredRun, policy: str) -> float:
    """Of the responses in the log."""
    table = run.table(policy, run.seeds[0])
    return float(as_run(run.experiment, policy, run.seeds[0], table).summary["response_ms"]["mean"])


def line(case: Case, from_policy: str, to_policy: str, logs: dict[str, list[StoredRun]], quiet: Document) -> Document:
    """One policy replayed from every log of the other."""
    found = [replay(log, [to_policy], "measured", from_policy) for log in logs[from_policy]]
    real = [mean_ms(log, to_policy) for log in logs[to_policy]]
    predicted = [float(one.runs[2].summary["response_ms"]["mean"]) for one in found]
    middle = median(real)
    return {
        "case": case.name,
        "from": from_policy,
        "to": to_policy,
        "logged_ms": median(mean_ms(log, from_policy) for log in logs[from_policy]),
        "predicted_ms": median(predicted),
        "measured_ms": middle,
        "error_percent": median(100.0 * (value / middle - 1.0) for value in predicted),
        "errors_percent": [100.0 * (value / middle - 1.0) for value in predicted],
        "spread_percent": 100.0 * (max(real) - min(real)) / middle,
        "self_check_percent": median(one.errors_percent()["response_ms"] for one in found),
        "measured_share": median(one.measured_share for one in found),
        "overrun_rate": median(run.runs[0].summary["overrun_rate"] for run in found),
        "noise": quiet,
    }


def opened(case: Case, quick: bool) -> Scenario:
    """The case's scenario, with a quarter of the requests if that is enough."""
    file = SCENARIOS / f"{case.scenario}.yaml"
    scenario = load(file, case.changes)
    fewer = [f"requests={max(20, scenario.requests // 4)}"] if quick else []
    return load(file, [*case.changes, *fewer])


def lines(case: Case, options: argparse.Namespace) -> list[Document]:
    """Both directions of a case."""
    scenario, quiet = opened(case, options.quick), noise()
    logs: dict[str, list[StoredRun]] = {policy: [] for policy in case.policies}
    with tempfile.TemporaryDirectory() as folder:
        host = calibrate_for(scenario, case.policies[0], options.network)
        with Deployment.open(scenario, host=host, network=options.network) as deployment:
            for number in range(options.repeat):
                for policy in case.policies[:: -1 if number % 2 else 1]:
                    logs[policy].append(measured(deployment, policy, Path(folder) / f"{policy}-{number}"))
        one, other = case.policies
        return [line(case, one, other, logs, quiet), line(case, other, one, logs, quiet)]


HEADS = ("case", "from", "to", "logged ms", "predicted ms", "measured ms", "error", "check", "links seen", "noise", "")


def cells(found: Document) -> list[str]:
    """A line under HEADS."""
    return [
        found["case"],
        found["from"],
        found["to"],
        f"{found['logged_ms']:.1f}",
        f"{found['predicted_ms']:.1f}",
        f"{found['measured_ms']:.1f} [{found['spread_percent']:.1f} %]",
        f"{found['error_percent']:+.1f} %",
        f"{found['self_check_percent']:+.1f} %",
        f"{found['measured_share']:.0%}",
        f"{found['noise']['spread_percent']:.0f} %",
        "noisy" if found["spread_percent"] > abs(found["error_percent"]) else "",
    ]


def shown(results: Sequence[Document], options: argparse.Namespace) -> str:
    """The table, how many lines are within the target, and what it was measured on."""
    rows, on = [list(HEADS), *map(cells, results)], machine()
    about = (
        f"network {options.network}; medians of {options.repeat} repetitions [their spread]; error: predicted against "
        "measured mean; check: the logged policy replayed against its own log; noise: of a fixed computation before "
        f"the case (5th to 95th percentile); noisy: repetitions differ by more than the error. {on['cpu']}, "
        f"{on['cores']} cores, {on['os']}"
    )
    return "\n\n".join([(markdown if options.markdown else plain)(rows), verdict(results), about])


def within(results: Sequence[Document]) -> int:
    """How many predictions are as good as they should be."""
    return sum(abs(found["error_percent"]) <= TARGET for found in results)


def verdict(results: Sequence[Document]) -> str:
    """In a line."""
    errors = [abs(found["error_percent"]) for found in results]
    return (
        f"{within(results)} of {len(results)} predicted means within {TARGET:g} %; "
        f"error {median(errors):.1f} % (median), {max(errors):.1f} % (worst)"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, once each")
    parser.add_argument("--network", choices=("proxy", "tun", "tbf"), default="proxy")
    parser.add_argument("--repeat", type=int, help="how often each policy runs [default: 3, with --quick 1]")
    parser.add_argument("--only", help="names of cases, with commas between them")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--markdown", action="store_true", help="the table for a README")
    options = parser.parse_args(arguments)
    options.repeat = options.repeat or (1 if options.quick else 3)
    return options


def chosen(only: str | None) -> list[Case]:
    """The cases; ends the command where one is unknown."""
    known = {case.name: case for case in CASES}
    names = list(known) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in known:
            sys.exit(f"--only {name}: no such case; there are {', '.join(known)}")
    return [known[name] for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all, prints the table; 1 if a prediction is off by more than the target, or nothing was measured."""
    options = parse(arguments)
    cases, results = chosen(options.only), list[Document]()
    try:
        for number, case in enumerate(cases, 1):
            print(f"[{number}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
            results += lines(case, options)
    except KeyboardInterrupt:
        print("interrupted; what is finished follows", file=sys.stderr)
    if options.json:
        print(json.dumps({"machine": machine(), "network": options.network, "lines": results}, indent=2))
    elif results:
        print(shown(results, options))
    return int(not results or within(results) < len(results))


if __name__ == "__main__":
    sys.exit(main())
