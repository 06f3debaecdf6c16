"""Another machine's calibration, through the calls of an edge that serves there (here: another process)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.errors import EdgeRefusedError, EdgeUnavailableError, UsageError
from splitexit.experiment import Experiment
from splitexit.live.address import Address
from splitexit.live.remote import calibrate_edge, parts_behind, round_trip_s
from splitexit.models.calibrate import read_images
from splitexit.results import to_table
from splitexit.scenario import load
from splitexit.sim import simulate
from tests import synthetic
from tests.live_bundle import PAIRS, POLICIES
from tests.live_process import Process, here, run, started


@pytest.fixture(scope="module")
def edge(live_bundle: Bundle) -> Iterator[Process]:
    """As fast as this machine is."""
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as process:
        yield process


def measure(bundle: Bundle, address: Address, repetitions: int = 12, **options: object) -> Calibration:
    """Some calls, one right after the other."""
    images = read_images(bundle, None)
    return calibrate_edge(bundle, address, images, repetitions=repetitions, gap_s=0.0, **options)  # type: ignore[arg-type]


def test_every_part_has_its_time_there(live_bundle: Bundle, edge: Process, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    address = Address.parse(edge.address, "--edge")
    found = measure(live_bundle, address, command="here", progress=lambda done, total: seen.append((done, total)))
    found.save(tmp_path / "edge.json")
    found = Calibration.load(tmp_path / "edge.json", live_bundle.spec)
    spec, local = live_bundle.spec, Calibration.load(live_bundle.calibration)
    assert (len(found.stages), len(found.exits)) == (spec.num_stages, len(spec.exits))
    # the bundle's calibration says 20 ms a stage; nothing of this small network takes that long
    assert all(1e-6 < part.median < 0.015 for part in (*found.stages, *found.exits))
    assert set(found.decode) == set(PAIRS)
    assert all(1e-7 < part.median < 0.015 for part in found.decode.values())
    assert dict(found.encode) == dict(local.encode)
    assert found.weights_sha256 == local.weights_sha256
    assert seen[-1] == (12 * len(PAIRS), 12 * len(PAIRS))


def test_what_was_not_measured_there_is_said(live_bundle: Bundle, edge: Process) -> None:
    found = measure(live_bundle, Address.parse(edge.address, "--edge"))
    assert found.machine["name"] == edge.address
    assert found.machine["cpu"]
    assert found.made["copied"]["parts"] == "encode_s, batch"
    assert found.made["edge"] == edge.address
    assert 0 < found.made["rtt_ms"] < 50
    assert set(found.made["check"]) == {"measured_ms", "dependent_ms", "independent_ms"}
    assert found.corun == {0: 1.0}
    assert 40 <= found.rpc.uplink_overhead_bytes <= 300
    assert 1e-5 < found.rpc.seconds.median < 0.05


def test_a_scenario_can_name_the_file(live_bundle: Bundle, edge: Process, tmp_path: Path) -> None:
    """As a person does it."""
    file = tmp_path / "edge.json"
    done = run("calibrate", live_bundle.path, "--edge", edge.address, "--out", file, "--repetitions", 10, "--gap-ms", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(file)
    assert "round trip" in done.stderr
    path = synthetic.write_scenario(
        tmp_path, bundle=str(live_bundle.path), policies=POLICIES, edge__hardware="edge.json", requests=50
    )
    experiment = Experiment.open(load(path))
    assert experiment.edge_calibration == Calibration.load(file)
    assert len(to_table(simulate(experiment, "split", 0))) == 50


def test_an_edge_can_stand_for_a_machine_by_its_file(live_bundle: Bundle, tmp_path: Path) -> None:
    """The local calibration, twice as slow, as that of a board."""
    Calibration.load(live_bundle.calibration).slowed(2.0).save(tmp_path / "board.json")
    options = ("--listen", "127.0.0.1:0", "--hardware", tmp_path / "board.json")
    with started("serve", live_bundle.path, *options) as paced, pytest.raises(UsageError, match=r"board\.json"):
        measure(live_bundle, Address.parse(paced.address, "--edge"))
    broken = here("serve", live_bundle.path, "--listen", "127.0.0.1:0", "--hardware", tmp_path / "none.json")
    assert broken.returncode == 2
    assert len(broken.stderr.strip().splitlines()) == 1


def test_nobody_there(live_bundle: Bundle) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(EdgeUnavailableError, match="splitexit serve"):
            measure(live_bundle, Address("127.0.0.1", port))


def test_another_bundle(live_bundle: Bundle, edge: Process, tmp_path: Path) -> None:
    from tests.live_bundle import make_bundle

    other = make_bundle(tmp_path / "other", seed=5)
    with pytest.raises(EdgeRefusedError, match="give both the same bundle"):
        measure(other, Address.parse(edge.address, "--edge"))


def test_an_edge_that_stands_for_another_machine(live_bundle: Bundle) -> None:
    serve = ("serve", live_bundle.path, "--listen", "127.0.0.1:0", "--hardware", "raspberry-pi-4")
    with started(*serve) as paced, pytest.raises(UsageError, match="stands for raspberry-pi-4"):
        measure(live_bundle, Address.parse(paced.address, "--edge"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--edge", "127.0.0.1:1"), "--out"),
        (("--edge", "here", "--out", "x.json"), "HOST:PORT"),
        (("--edge", "127.0.0.1:1", "--out", "x.json", "--pair", "raw@1"), "--pair"),
        (("--edge", "127.0.0.1:1", "--out", "x.json", "--only-batch"), "--only-batch"),
        (("--edge", "127.0.0.1:1", "--out", "x.json"), "no edge at"),
    ],
)
def test_a_mistake_is_one_line(live_bundle: Bundle, options: tuple[str, ...], says: str) -> None:
    done = here("calibrate", live_bundle.path, *options)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_parts_of_a_call_come_in_the_order_of_a_chain() -> None:
    spec = synthetic.spec()
    assert list(parts_behind(spec, (1, "uint8"))) == [
        ("decode", (1, "uint8")),
        ("stage", 1),
        ("exit", 1),
        ("stage", 2),
        ("exit", 2),
    ]
    few = replace(spec, exits=spec.exits[-1:])
    assert [name for name, _ in parts_behind(few, (0, "png"))] == ["decode", "stage", "stage", "stage", "exit"]


def test_a_round_trip_on_loopback_is_short(edge: Process) -> None:
    assert 0 < round_trip_s(Address.parse(edge.address, "--edge")) < 0.05


def test_json_is_one_document(live_bundle: Bundle, edge: Process, tmp_path: Path) -> None:
    options = ("--edge", edge.address, "--out", tmp_path / "e.json", "--repetitions=10", "--gap-ms=0", "--json")
    done = run("calibrate", live_bundle.path, *options)
    document = json.loads(done.stdout)
    assert document["file"] == str(tmp_path / "e.json")
    assert set(document) == {"file", "machine", "made", "dependence", "batch", "corun", "regressed", "rpc_ms"}
    assert 0 <= document["dependence"]["within"] < 1
