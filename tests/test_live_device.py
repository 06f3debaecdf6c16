"""A device against a real edge process, a dead, a frozen and a wrong one; and against a transport that misbehaves."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.errors import EdgeRefusedError, UsageError
from splitexit.live.address import Address
from splitexit.live.clock import Timeline, VirtualTimeline, WallTimeline
from splitexit.live.device import DeviceRuntime
from splitexit.live.edge import EdgeRuntime
from splitexit.live.pace import PacedCpu
from splitexit.live.run import Station
from splitexit.live.transport import Failure, Heard
from splitexit.live.wire import Query, Result, pack_query, parse_result
from splitexit.results import DEVICE, EDGE, FALLBACK, Completion
from splitexit.scenario import load
from splitexit.sim import simulate
from tests.live_bundle import POLICIES, make_bundle
from tests.live_process import Process, started, wait_for
from tests.synthetic import write_scenario
from tests.test_live_edge import Counting

SEED = 5


def station(bundle: Bundle, folder: Path, **changes: object) -> Station:
    """A native device with 30 requests, 40 a second."""
    defaults: dict[str, object] = {
        "bundle": str(bundle.path),
        "policies": POLICIES,
        "requests": 30,
        "devices__arrivals__rate_hz": 40.0,
    }
    return Station.open(load(write_scenario(folder, **(defaults | changes))))


@pytest.fixture(scope="module")
def edge(live_bundle: Bundle) -> Iterator[Process]:
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as process:
        yield process


def run(at: Station, policy: str, address: str, said: list[str] | None = None) -> list[Completion]:
    """All rows, by request."""
    rows: list[Completion] = []
    with at.connect(Address.parse(address, "--edge"), ([] if said is None else said).append) as client:
        at.run(policy, SEED, client, rows.append)
    return sorted(rows)


def free_port() -> int:
    """A port on which nobody listens."""
    with Address("127.0.0.1", 0).listener("--listen") as bound:
        return int(bound.getsockname()[1])


@pytest.mark.parametrize("policy", ["local", "offload", "split", "threshold", "stay", "entropy", "random"])
def test_over_grpc_as_simulated(live_bundle: Bundle, tmp_path: Path, edge: Process, policy: str) -> None:
    """Two processes: the same decisions, bytes and predictions; all answered, nothing lost."""
    at = station(live_bundle, tmp_path, devices__deadline_ms=20_000.0)
    live = run(at, policy, edge.address)
    assert len(live) == 30
    for ours, theirs in zip(live, sorted(simulate(at.experiment, policy, SEED)), strict=True):
        for name in (
            "request",
            "sample",
            "label",
            "split",
            "codec",
            "exit",
            "payload_bytes",
            "prediction",
            "answered_by",
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.arrival_s == theirs.arrival_s
        assert ours.deadline_met
        assert not ours.lost_reply


def test_the_parts_of_a_response_add_up(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """Response = wait + compute + encoding + network + edge, to a millisecond."""
    for row in run(station(live_bundle, tmp_path), "split", edge.address):
        assert row.answered_by == EDGE
        parts_s = row.device_compute_s + row.encode_s + row.network_s + row.edge_wait_s + row.edge_compute_s
        assert row.done_s - row.start_s == pytest.approx(parts_s, abs=0.005)
        assert 0 < row.network_s < 0.5
        assert row.edge_compute_s > 0


@pytest.mark.parametrize("pipeline", [True, False])
def test_the_next_request_is_taken_up_while_one_waits(live_bundle: Bundle, tmp_path: Path, pipeline: bool) -> None:
    """A slow edge: with pipelining, starts overlap with waits; without, never."""
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0", "--hardware", "raspberry-pi-3b-plus") as slow:
        at = station(live_bundle, tmp_path, devices__pipeline=pipeline, devices__arrivals__rate_hz=200.0)
        rows = run(at, "offload", slow.address)
    overlaps = sum(later.start_s < earlier.done_s - 1e-9 for earlier, later in pairwise(rows))
    assert (overlaps > 10) is pipeline
    if not pipeline:
        assert overlaps == 0


def test_an_exit_really_stops_the_work_on_the_device(
    live_bundle: Bundle, tmp_path: Path, edge: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards counted: stages after an exit that fired do not run, and what is sent is not run here."""
    at = station(live_bundle, tmp_path)
    net = Counting(at.model.net)
    counted = replace(at, model=replace(at.model, net=net))
    monkeypatch.setattr(Station, "warm_up", lambda self: None)
    rows = run(counted, "threshold", edge.address)
    left, sent = (sum(row.answered_by == who for row in rows) for who in (DEVICE, EDGE))
    assert left > 0
    assert sent > 0
    assert net.stages == {0: 30}  # split 1: only the first stage runs here, for every request
    assert net.heads == {0: 30}


def test_paced_times_are_the_drawn_times(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """On a named machine, a row that did not overrun holds exactly what was drawn for that machine."""
    at = station(live_bundle, tmp_path, devices__hardware="raspberry-pi-3b-plus", devices__arrivals__rate_hz=20.0)
    rows = [row for row in run(at, "local", edge.address) if not row.overrun]
    drawn = at.experiment.device_times(SEED, 0)
    assert len(rows) > 10
    for row in rows:
        times = drawn.at(row.request)
        assert row.device_compute_s == pytest.approx(times.run_s(0, 3) + times.exits[2])
        assert row.done_s - row.start_s == pytest.approx(row.device_compute_s, abs=1e-9)


def test_nobody_at_the_port(live_bundle: Bundle, tmp_path: Path) -> None:
    """All answered on the device, promptly, and one line says why."""
    said: list[str] = []
    rows = run(station(live_bundle, tmp_path), "split", f"127.0.0.1:{free_port()}", said)
    assert [row.answered_by for row in rows] == [FALLBACK] * 30
    assert all(row.deadline_met for row in rows)
    assert len(said) == 1
    assert "answering locally" in said[0]


class Driven(threading.Thread):
    """A device that answers requests in a thread of its own until it is told to end."""

    class _Enough(Exception):
        pass

    def __init__(self, at: Station, address: Address) -> None:
        super().__init__(daemon=True)
        self.said, self.rows = list[str](), list[Completion]()
        self._at, self._address, self._told = at, address, threading.Event()

    def run(self) -> None:
        """See Thread."""
        with suppress(self._Enough), self._at.connect(self._address, self.said.append) as client:
            self._at.run("split", SEED, client, self._take)

    def _take(self, row: Completion) -> None:
        self.rows.append(row)
        if self._told.is_set():
            raise self._Enough

    def end(self) -> None:
        """After the next row."""
        self._told.set()
        self.join(timeout=20)
        assert not self.is_alive()


@pytest.mark.serial
def test_the_server_is_killed_and_comes_back(live_bundle: Bundle, tmp_path: Path) -> None:
    """kill -9 under load: every request is answered in time; the edge is used again within a second of its return."""
    address = Address("127.0.0.1", free_port())
    serve = ("serve", live_bundle.path, "--listen", str(address))
    device = Driven(station(live_bundle, tmp_path, requests=100_000, devices__arrivals__rate_hz=50.0), address)
    rows = device.rows

    def edge_answers() -> int:
        return sum(row.answered_by == EDGE for row in list(rows))

    with started(*serve) as first:
        device.start()
        wait_for(lambda: edge_answers() > 20)
        first.end(signal.SIGKILL)
    count = len(rows)
    wait_for(lambda: len(rows) > count + 30)
    fallbacks = [row for row in rows[count + 5 : count + 30] if row.answered_by == FALLBACK]
    assert len(fallbacks) > 20
    with started(*serve):
        before = edge_answers()
        back_s = wait_for(lambda: edge_answers() > before)
        wait_for(lambda: edge_answers() > before + 20)
        device.end()
    assert back_s < 1.5
    assert [line.split(" ")[-1] for line in device.said].count("there") == 1
    assert len(device.said) == 2  # gone, and there again
    numbers = [row.request for row in rows]
    assert len(set(numbers)) == len(numbers)
    assert sorted(numbers)[: len(numbers) - 5] == list(range(len(numbers) - 5))
    assert sum(not row.deadline_met for row in rows) == 0


@pytest.mark.serial
def test_a_frozen_server_costs_at_most_the_deadline(live_bundle: Bundle, tmp_path: Path) -> None:
    """SIGSTOP: no answer is later than the deadline by more than a scheduling hiccup."""
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as frozen:
        at = station(live_bundle, tmp_path, devices__deadline_ms=200.0)
        rows: list[Completion] = []
        with at.connect(Address.parse(frozen.address, "--edge"), lambda line: None) as client:
            frozen.popen.send_signal(signal.SIGSTOP)
            at.run("split", SEED, client, rows.append)
            frozen.popen.send_signal(signal.SIGCONT)
    assert len(rows) == 30
    assert {row.answered_by for row in rows} == {FALLBACK}
    assert all(row.lost_reply for row in rows)
    responses_s = sorted(row.response_s for row in rows)
    assert responses_s[15] < 0.2 + 0.01  # the promise
    assert responses_s[-1] < 0.2 + 0.10  # on a machine that does other things as well


def test_another_bundle_is_refused(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """Same shape, other weights: exit code 2, before anything is sent."""
    other = make_bundle(tmp_path / "other", seed=1)
    with pytest.raises(EdgeRefusedError, match=r"model\.safetensors") as caught:
        run(station(other, tmp_path), "split", edge.address)
    assert caught.value.exit_code == 2


def test_another_bundle_after_a_restart(live_bundle: Bundle, tmp_path: Path) -> None:
    """It is noticed, nothing more is sent, and no label comes from the wrong model."""
    other, address = make_bundle(tmp_path / "other", seed=1), Address("127.0.0.1", free_port())
    at = station(live_bundle, tmp_path, requests=100_000, devices__arrivals__rate_hz=60.0)
    device = Driven(at, address)
    with started("serve", live_bundle.path, "--listen", str(address)) as right:
        device.start()
        wait_for(lambda: len(device.rows) > 20)
        right.end(signal.SIGKILL)
    with started("serve", other.path, "--listen", str(address)):
        wait_for(lambda: any("model.safetensors" in line for line in device.said))
        noticed = len(device.rows)
        wait_for(lambda: len(device.rows) > noticed + 40)
        device.end()
    assert len(device.said) == 2
    rows = device.rows
    assert {row.answered_by for row in rows[noticed + 10 :]} == {FALLBACK}  # but for those under way
    assert any(row.answered_by == EDGE for row in rows)
    simulated = {row.request: row for row in simulate(at.experiment, "split", SEED, len(rows) + 10)}
    for row in rows:
        if row.answered_by == EDGE:
            assert (row.sample, row.prediction) == (simulated[row.request].sample, simulated[row.request].prediction)


def test_the_oracle_stays_in_the_simulator(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    with pytest.raises(UsageError, match="only simulate it"):
        run(station(live_bundle, tmp_path), "oracle", edge.address)


class Mischief:
    """Answers late, twice, for another request, or not at all; each request in its own way."""

    def __init__(self, edge: EdgeRuntime, timeline: Timeline) -> None:
        self._edge, self._timeline = edge, timeline
        self._before: Heard | None = None

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """See Transport."""
        patient = replace(query, left_s=3600.0)  # the edge's clock is the machine's, the device's is not
        result: Result | Failure = parse_result(self._edge.infer(pack_query(patient), lambda: True))
        match query.request % 5:
            case 0:  # twice
                self._post(sent_s + 0.01, heard, result)
                self._post(sent_s + 0.02, heard, result)
            case 1:  # too late
                self._post(sent_s + query.left_s + 0.001, heard, result)
            case 2:  # shed
                self._post(sent_s + 0.003, heard, Failure.SHED)
            case 3:  # in time, after the next one's
                self._post(sent_s + 0.9 * query.left_s, heard, result)
        # and never

    def _post(self, at_s: float, heard: Heard, result: Result | Failure) -> None:
        self._timeline.post(at_s, lambda now_s: heard(result, now_s))


def test_one_answer_per_request_whatever_the_way_does(live_bundle: Bundle, tmp_path: Path) -> None:
    """Late, repeated, reordered and missing replies: one row each, late ones counted and never used."""
    at = station(live_bundle, tmp_path, requests=1000, devices__arrivals__rate_hz=8.0, devices__deadline_ms=400.0)
    timeline, rows = VirtualTimeline(), list[Completion]()
    mischief = Mischief(EdgeRuntime(at.model), timeline)
    device = DeviceRuntime(at.experiment, "split", SEED, at.model, at.images, PacedCpu(timeline), mischief, rows.append)
    device.run()
    assert sorted(row.request for row in rows) == list(range(1000))
    expected = {0: (EDGE, False), 1: (FALLBACK, True), 2: (FALLBACK, False), 3: (EDGE, False), 4: (FALLBACK, True)}
    sent = [row for row in rows if row.split >= 0]
    for row in sent:
        assert (row.answered_by, row.lost_reply) == expected[row.request % 5]
        assert row.shed is (row.request % 5 == 2)
    assert all(row.deadline_met or row.request % 5 != 3 for row in rows)
    # A late reply and a second one are the same to the device: nobody waits for them.
    assert device.late == sum(row.request % 5 in (0, 1) for row in sent)


def test_the_edge_goes_away_between_two_runs_of_one_client(live_bundle: Bundle, tmp_path: Path) -> None:
    """One client serves run after run, as in the demo."""
    at = station(live_bundle, tmp_path)
    with (
        started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as process,
        at.connect(Address.parse(process.address, "--edge"), lambda line: None) as client,
    ):
        for policy in ("split", "offload"):
            rows: list[Completion] = []
            at.run(policy, SEED, client, rows.append)
            assert {row.answered_by for row in rows} == {EDGE}
        assert process.end()[0] == 0
        rows = []
        at.run("split", SEED, client, rows.append)
        assert {row.answered_by for row in rows} == {FALLBACK}


def offline(bundle: Bundle, folder: Path, requests: int, **changes: object) -> tuple[DeviceRuntime, list[Completion]]:
    """A device in virtual time whose way to the edge loses everything."""
    at, rows, timeline = station(bundle, folder, requests=requests, **changes), list[Completion](), VirtualTimeline()

    class Nowhere:
        def send(self, query: Query, sent_s: float, heard: Heard) -> None:
            """See Transport."""

    cpu = PacedCpu(timeline)
    return DeviceRuntime(at.experiment, "split", SEED, at.model, at.images, cpu, Nowhere(), rows.append), rows


def test_a_device_stops_when_it_is_told(live_bundle: Bundle, tmp_path: Path) -> None:
    """As soon as it waits; what has been answered stays."""
    runtime, rows = offline(live_bundle, tmp_path, 1000)
    runtime._sink = lambda row: (rows.append(row), runtime.stop() if len(rows) == 5 else None)  # type: ignore[assignment, func-returns-value]
    runtime.run()
    assert 5 <= len(rows) <= 7


def test_a_device_that_leaves_for_good(live_bundle: Bundle, tmp_path: Path) -> None:
    """In a closed loop nobody knows how many requests there would have been: the run ends with the last."""
    events = [{"kind": "leave", "at_s": 2.0}]
    arrivals = {"name": "closed", "think_ms": 20.0}
    runtime, rows = offline(live_bundle, tmp_path, 1000, events=events, devices__arrivals=arrivals)
    runtime.run()
    assert 0 < len(rows) < 20
    assert max(row.arrival_s for row in rows) < 2.0


def test_every_device_goes_by_its_own_group(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """Hardware, arrivals and deadline of the second group; without pipelining nothing overlaps."""
    groups = {
        "first": {"count": 2},
        "second": {
            "hardware": "raspberry-pi-4",
            "arrivals": {"name": "periodic", "rate_hz": 100.0},
            "pipeline": False,
            "deadline_ms": 5000.0,
        },
    }
    settings = station(live_bundle, tmp_path, groups=groups).experiment.scenario
    at = Station.open(settings, device=2)
    rows = run(at, "split", edge.address)
    assert {row.device for row in rows} == {2}
    assert [row.arrival_s for row in rows[:3]] == pytest.approx([0.0, 0.01, 0.02])
    assert all(later.start_s >= earlier.done_s - 1e-9 for earlier, later in pairwise(rows))
    drawn = at.experiment.device_times(SEED, 2)
    assert all(row.device_compute_s == pytest.approx(drawn.at(row.request).run_s(0, 1)) for row in rows)


def test_time_zero_may_lie_ahead() -> None:
    """Before it, the time is negative; what is posted for zero happens then."""
    timeline, called = WallTimeline(), list[float]()
    origin_s = time.monotonic() + 0.15
    timeline.begin(origin_s)
    assert -0.2 < timeline.now() < 0
    timeline.post(0.0, lambda at_s: called.append(time.monotonic()))
    assert timeline.step(10.0)
    assert 0 <= called[0] - origin_s < 0.2
