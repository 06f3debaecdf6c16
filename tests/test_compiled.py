"""The compiled engine around its loop: summaries, files, refusals, determinism."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitexit.arrivals import Periodic, Poisson
from splitexit.calibration import Calibration, Distribution, Rpc, ServiceTimes
from splitexit.decision import Observation, Plan
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.inference import Encode, ReadExit, RunStages
from splitexit.policies import Policy
from splitexit.results import rows_sha256, summarise, to_table
from splitexit.sim import compiled, simulate
from splitexit.streams import ARRIVALS, DEVICE_TIMES, SAMPLES, stream
from tests import synthetic

pytest.importorskip("numba")


class Alternating(Policy):
    """Has a memory: offloads every other request."""

    def __init__(self) -> None:
        self._asked = 0

    def decide(self, observation: Observation) -> Plan:
        """In turn."""
        self._asked += 1
        return Plan(split=1, codec="uint8") if self._asked % 2 else Plan()


class Cautious(Policy):
    """Learns."""

    def decide(self, observation: Observation) -> Plan:
        """Local."""
        return Plan()

    def learn(self, outcome: Any) -> None:
        """Whatever."""


class Undecided(Alternating):
    """Has a memory and looks again."""

    revises = True
    reads = frozenset({"readings"})


def without_energy(table: pa.Table) -> pa.Table:
    """NaN is not equal to itself."""
    return table.drop_columns(["energy_j"])


def varied(model: Any) -> Calibration:
    """Times that vary."""
    takes = Distribution((0.002, 0.005, 0.006, 0.020))
    rpc = Rpc(40, 100, Distribution((0.0001, 0.0002)))
    return synthetic.calibration(model, takes, head=0.001, codec=0.002, rpc=rpc)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Three devices, random times, now and then a deadline that is missed."""
    model = synthetic.spec()
    return synthetic.experiment(
        tmp_path,
        takes=varied(model),
        devices__count=3,
        devices__deadline_ms=60.0,
        devices__arrivals={"name": "poisson", "rate_hz": 30.0},
        requests=700,
        policies={
            "split": {"name": "offload", "split": 1, "codec": "uint8"},
            "exits": {"name": "threshold", "threshold": 0.6, "split": 1, "codec": "uint8"},
            "in-turn": {"name": f"{__name__}:Alternating"},
            "learner": {"name": f"{__name__}:Cautious"},
            "undecided": {"name": f"{__name__}:Undecided"},
            "neurosurgeon": {"name": "neurosurgeon"},
            "oracle": {"name": "oracle"},
        },
    )


@pytest.mark.parametrize("policy", ["exits", "in-turn"])
def test_more_requests_than_are_in_memory_at_once(experiment: Experiment, policy: str) -> None:
    """Stretches join without a seam; 700 is more than a block of service times."""
    expected = to_table(simulate(experiment, policy, 3))
    assert without_energy(compiled.simulate(experiment, policy, 3)).equals(without_energy(expected))


def test_summary_is_that_of_the_rows(experiment: Experiment) -> None:
    """Counts exactly, the mean to rounding, percentiles to 1e-4."""
    table, summary = compiled.simulate(experiment, "exits", 0), compiled.summarise_run(experiment, "exits", 0)
    expected = summarise(table, 3)
    response, expected_response = summary.pop("response_ms"), expected.pop("response_ms")
    assert summary == expected
    assert response["mean"] == pytest.approx(expected_response["mean"], rel=1e-12)
    for name in ("p50", "p95", "p99"):
        assert response[name] == pytest.approx(expected_response[name], rel=1e-4)


def test_summary_leaves_the_warm_up_out(tmp_path: Path) -> None:
    experiment = synthetic.experiment(tmp_path, warmup_s=5.0)
    table = compiled.simulate(experiment, "split", 0)
    kept = table.filter(pa.array(table["arrival_s"].to_numpy() >= 5.0))
    summary = compiled.summarise_run(experiment, "split", 0)
    assert 0 < summary["requests"] == len(kept) < len(table)
    assert summary["response_ms"]["mean"] == pytest.approx(summarise(kept, 3)["response_ms"]["mean"], rel=1e-12)


def test_nothing_behind_the_warm_up_gives_no_figures(tmp_path: Path) -> None:
    summary = compiled.summarise_run(synthetic.experiment(tmp_path, warmup_s=1e6), "split", 0)
    assert summary["requests"] == 0
    assert np.isnan(summary["response_ms"]["p95"])


@pytest.mark.parametrize("devices", [1, 3])
def test_the_file_holds_the_table(tmp_path: Path, devices: int) -> None:
    """Device by device, request by request, whatever order they end in."""
    experiment = synthetic.experiment(tmp_path, devices__count=devices, devices__deadline_ms=50.0, requests=3_000)
    path = tmp_path / "rows.parquet"
    assert compiled.to_parquet(experiment, "threshold", 1, path) == 3_000 * devices
    table = pq.read_table(path)
    assert without_energy(table).equals(without_energy(compiled.simulate(experiment, "threshold", 1)))
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"rows.parquet", "scenario.yaml"}


def test_same_seed_same_bytes(experiment: Experiment) -> None:
    """And another seed, other bytes."""
    first, again, other = (rows_sha256(compiled.simulate(experiment, "exits", seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_fewer_requests_are_the_first_of_more(experiment: Experiment) -> None:
    """Arrivals, samples and what is decided; not how long is waited, as others are ahead."""
    few, many = (compiled.simulate(experiment, "in-turn", 0, n) for n in (20, 600))
    names = ["request", "sample", "arrival_s", "split", "codec"]
    assert many.slice(600, 20).select(names).equals(few.slice(20, 20).select(names))


@pytest.mark.parametrize(
    ("policy", "what"),
    [
        ("neurosurgeon", "looks at edge_load, link"),
        ("oracle", "looks at the truth"),
        ("learner", "learns from what it hears"),
        ("undecided", "remembers, and is asked again"),
    ],
)
def test_policies_that_depend_on_queues_are_refused(experiment: Experiment, policy: str, what: str) -> None:
    assert what in compiled.supports(experiment, policy)
    with pytest.raises(InputError, match=r"^the compiled engine cannot run this: .*; use --engine simpy$") as error:
        compiled.simulate(experiment, policy, 0)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"edge__batching": {"max_size": 4, "max_wait_ms": 1.0}}, "batches"),
        (
            {"uplink": {"name": "gilbert-elliott", "mbps": 8.0, "p": 0.01, "r": 0.3}},
            "uplink of 'devices' is no constant",
        ),
        ({"downlink": {"name": "constant", "mbps": 8.0, "jitter_ms": 2.0}}, "the downlink of 'devices'"),
        ({"events": [{"kind": "edge-down", "at_s": 1.0}]}, "edge-down"),
        ({"events": [{"kind": "outage", "at_s": 1.0, "for_s": 1.0}]}, "no constant link"),
        (
            {"devices__arrivals": {"name": "closed"}, "events": [{"kind": "leave", "at_s": 1.0, "for_s": 1.0}]},
            "their arrivals are closed",
        ),
        (
            {
                "access_points": {"cell": {"sharing": "processor"}},
                "devices__access_point": "cell",
            },
            "the uplink of access point 'cell' is shared by processor sharing",
        ),
    ],
)
def test_stations_beyond_it_are_named(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    assert what in compiled.supports(synthetic.experiment(tmp_path, **changes), "split")


def test_devices_that_leave_for_ever_make_fewer_requests(tmp_path: Path) -> None:
    """The rest of the table closes up."""
    events = [{"kind": "leave", "at_s": 2.0, "share": 0.5}]
    experiment = synthetic.experiment(tmp_path, devices__count=2, requests=1_000, events=events)
    table = compiled.simulate(experiment, "split", 0)
    assert 1_000 < len(table) < 1_100
    assert without_energy(table).equals(without_energy(to_table(simulate(experiment, "split", 0))))
    compiled.to_parquet(experiment, "split", 0, tmp_path / "rows.parquet")
    assert without_energy(pq.read_table(tmp_path / "rows.parquet")).equals(without_energy(table))


def test_queues_that_outgrow_the_first_memory(tmp_path: Path) -> None:
    """Two thousand and more in flight: tasks, events and rows get more room on the way."""
    experiment = synthetic.experiment(
        tmp_path,
        devices__count=40,
        devices__arrivals={"name": "poisson", "rate_hz": 90.0},
        devices__deadline_ms=30_000.0,
        requests=80,
        uplink={"name": "constant", "mbps": 100.0},
    )
    table = compiled.simulate(experiment, "offload", 0)
    assert without_energy(table).equals(without_energy(to_table(simulate(experiment, "offload", 0))))


def test_numba_missing_is_said_in_one_line(tmp_path: Path) -> None:
    """The command line knows which extra brings it; everything else works without."""
    synthetic.experiment(tmp_path)
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from splitexit.cli import EXTRAS\n"
        "from splitexit.experiment import Experiment\n"
        "from splitexit.scenario import load\n"
        "from splitexit.sim import compiled\n"
        f"experiment = Experiment.open(load({str(tmp_path / 'scenario.yaml')!r}))\n"
        "assert compiled.supports(experiment, 'split') == ''\n"
        "try:\n    compiled.simulate(experiment, 'split', 0)\n"
        "except ModuleNotFoundError as error:\n    print(error.name, EXTRAS[error.name.partition('.')[0]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "numba fast"


@pytest.mark.parametrize("lengths", [(1, 5, 94), (100,), (33, 33, 34)])
def test_stretches_draw_what_one_draw_would(lengths: tuple[int, ...]) -> None:
    """Positions and arrival times, whatever the lengths of the stretches."""
    from splitexit.sim.compiled.requests import Arriving, Positions

    pool = np.arange(30)
    rng = stream(7, SAMPLES, 2)
    expected = np.concatenate([rng.permutation(pool) for _ in range(4)])[:100]
    positions = Positions(pool, 7, 2)
    assert (np.concatenate([positions.take(n) for n in lengths]) == expected).all()
    for process in (Poisson(rate_hz=3.7), Periodic(rate_hz=3.7), Doubled()):
        arriving = Arriving(process, None, 7, 2, 100)
        times_s = process.times_s(100, stream(7, ARRIVALS, 2))
        assert (np.concatenate([arriving.take(n) for n in lengths]) == times_s).all()


class Doubled(Periodic):
    """A process of somebody's own."""

    def __init__(self) -> None:
        super().__init__(rate_hz=5.0)

    def times_s(self, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Twice as slow."""
        return 2.0 * super().times_s(count, rng)


def test_columns_of_seconds_are_the_service_times() -> None:
    """To the bit, and drawn only where they vary."""
    from splitexit.sim.compiled.times import Columns, on_device

    model = synthetic.spec()
    calibration = varied(model)
    steps = [ReadExit(1, 0, 2), ReadExit(0, 1, 1), RunStages(0, 1), Encode(1, "uint8", 0)]
    columns = Columns(calibration, steps, on_device)
    times = ServiceTimes(calibration, lambda block: stream(5, DEVICE_TIMES, 0, block))
    found = columns.draw(lambda block: stream(5, DEVICE_TIMES, 0, block), 512, 600)
    assert columns.constant is None
    for row in (0, 511, 512, 599):
        one = times.at(512 + row)
        expected = [
            one.exits[1] + one.run_s(0, 2), one.exits[0], one.run_s(0, 1), one.encode_s((1, "uint8")),
        ]  # fmt: skip
        assert found[row].tolist() == expected
    steady = Columns(synthetic.calibration(model, 0.010), steps[:3], on_device)
    assert steady.constant is not None
    assert steady.constant.tolist() == [0.020, 0.0, 0.010]


def test_a_change_of_any_source_changes_the_name_that_code_is_kept_under() -> None:
    """numba itself looks only at the file of the function that is called."""
    from splitexit.sim.compiled import jit

    files = sorted(Path(jit.__file__).parent.glob("*.py"))
    assert len(files) > 10
    assert jit.SOURCES == jit._sources() != 0
