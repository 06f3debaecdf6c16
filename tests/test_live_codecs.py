"""Codecs between a device and its edge: what the handshake refuses, and payloads that refer to earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from splitexit import cli
from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.codecs.delta import Delta
from splitexit.codecs.range import Range
from splitexit.errors import EdgeRefusedError, UsageError
from splitexit.experiment import Experiment
from splitexit.live import wire
from splitexit.live.address import Address
from splitexit.live.client import EdgeClient, Expected
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.model import Array, LiveModel
from splitexit.live.pair import run_pair
from splitexit.live.references import DeviceMemory, EdgeMemory
from splitexit.live.server import EdgeServer
from splitexit.live.transport import Failure
from splitexit.live.wire import Query, Result
from splitexit.models.codecs import write
from splitexit.recording import Recording
from splitexit.results import EDGE, Completion
from splitexit.sim import simulate
from tests import live_bundle
from tests.live_bundle import make_bundle, open_experiment
from tests.synthetic import write_scenario

LOOPBACK = Address("127.0.0.1", 0)
SPLIT = 1
BASE: Pair = (SPLIT, "range:bits=4")
FEATURES = (16, 16, 16)
POLICIES = {
    label: {"name": "offload", "split": SPLIT, "codec": codec}
    for label, codec in (("delta", "delta"), ("range", "range:bits=4"), ("split", "uint8"))
}
DELTA: Pair = (SPLIT, "delta")
REQUESTS = 25


@dataclass(frozen=True)
class World:
    """A bundle with fitted codecs, what of it is in memory, and images that move by a little from one to the next."""

    bundle: Bundle
    model: LiveModel
    experiment: Experiment
    images: dict[int, Array]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, patch = tmp_path_factory.mktemp("world"), pytest.MonkeyPatch()
    bundle = make_bundle(folder / "bundle")
    plain = LiveModel.open(bundle, [])
    seen = np.stack([plain.net.run_stages(image, 0, SPLIT) for image in open_images(bundle).values()])
    assert seen.shape[1:] == FEATURES
    tensors = Range.fit(seen, partial(np.empty, 0), bits=4)
    write(bundle, {BASE: tensors, DELTA: tensors}, {})
    pairs = (*live_bundle.PAIRS, BASE, DELTA)
    model = LiveModel.open(bundle, pairs)
    try:
        patch.setattr(live_bundle, "PAIRS", pairs)
        recording = live_bundle._record(model, open_images(bundle), False)
        live_bundle._calibration(model).save(bundle.calibration)
    finally:
        patch.undo()
    for part in recording.parts.values():
        part.pairs[DELTA].refers = True
    recording.save(bundle.recording)
    changes: dict[str, Any] = {"policies": POLICIES, "requests": REQUESTS, "devices__policy": "delta"}
    experiment = open_experiment(bundle, folder, devices__deadline_ms=900.0, **changes)
    return World(bundle, model, experiment, _moving(experiment, next(iter(open_images(bundle).values()))))


def _moving(experiment: Experiment, image: Array) -> dict[int, Array]:
    """By sample: the image of each request is the one before it, a little brighter."""
    samples = experiment.workload(0, 0).samples
    assert len(set(samples)) == REQUESTS
    return {sample: np.clip(image + np.float32(0.002 * t), 0, 1) for t, sample in enumerate(samples)}


def pair_rows(world: World, policy: str, memory: EdgeMemory | None = None) -> list[Completion]:
    """By request, of a device and an edge in one process."""
    model = replace(world.model, memory=memory or EdgeMemory())
    return sorted(run_pair(world.experiment, policy, 0, model, world.images))


def test_differences_change_the_bytes_alone(world: World) -> None:
    """The same answers as with `range`, at a fraction of its bytes from the second answer on."""
    base, rows = pair_rows(world, "range"), pair_rows(world, "delta")
    assert [row.prediction for row in rows] == [row.prediction for row in base]
    assert {row.answered_by for row in rows} == {EDGE}
    assert rows[0].payload_bytes == base[0].payload_bytes + 1
    fewer = [row.payload_bytes / of_base.payload_bytes for row, of_base in zip(rows, base, strict=True)]
    assert np.median(fewer) < 0.6


def test_an_edge_that_has_forgotten_gets_it_whole(world: World) -> None:
    """Refused, sent again in full, answered as ever; the row has the bytes of what was answered, and both trips."""
    rows, told = pair_rows(world, "delta", EdgeMemory(each=0)), pair_rows(world, "delta")
    assert {row.answered_by for row in rows} == {EDGE}
    assert [row.prediction for row in rows] == [row.prediction for row in told]
    assert not any(row.lost_reply or row.shed for row in rows)
    again = [row.network_s > 1.5 * of_told.network_s for row, of_told in zip(rows, told, strict=True)]
    assert sum(again) > REQUESTS / 2
    base = pair_rows(world, "range")
    for row, of_base, was_again in zip(rows, base, again, strict=True):
        if was_again:
            assert row.payload_bytes == of_base.payload_bytes + 1
            assert row.encode_s == pytest.approx(2 * of_base.encode_s)


def test_there_is_no_time_to_send_it_again(world: World) -> None:
    """The device answers itself by its deadline, and nothing hangs."""
    late = replace(world, experiment=_with(world.experiment, deadline_ms=75.0))
    rows = pair_rows(late, "delta", EdgeMemory(each=0))
    assert len(rows) == REQUESTS
    assert {row.answered_by for row in rows} > {EDGE}


def _with(experiment: Experiment, deadline_ms: float) -> Experiment:
    scenario = experiment.scenario
    devices = scenario.devices.model_copy(update={"deadline_ms": deadline_ms})
    return replace(experiment, scenario=scenario.model_copy(update={"devices": devices}))


def test_the_simulator_says_that_it_cannot(world: World) -> None:
    """One line that names the codec and what to try; other policies of the scenario are simulated as ever."""
    with pytest.raises(UsageError, match=r"'delta' sends differences .* run it live") as caught:
        simulate(world.experiment, "delta", 0)
    assert "\n" not in str(caught.value)
    assert len(simulate(world.experiment, "range", 0)) == REQUESTS
    assert Recording.load(world.bundle.recording).test.pairs[DELTA].refers


@pytest.fixture
def server(world: World) -> Iterator[EdgeServer]:
    edge = EdgeServer(EdgeRuntime(replace(world.model, memory=EdgeMemory(each=2))), LOOPBACK)
    edge.start()
    yield edge
    edge.stop(0.0)


def ask(client: EdgeClient, query: Query) -> Result | Failure:
    """What comes of a call."""
    came, heard = Event(), list[Result | Failure]()

    def done(result: Result | Failure) -> None:
        heard.append(result)
        came.set()

    client.call(query, query.left_s, done)
    assert came.wait(query.left_s)
    return heard[0]


def test_over_grpc(world: World, server: EdgeServer) -> None:
    """References that the edge has are used, others are refused by a status of their own; the edge stays in use."""
    model, device, tag = world.model, DeviceMemory(), wire.bundle_tag(world.model.digests)
    codec = model.codecs[DELTA]
    assert isinstance(codec, Delta)
    features = [model.net.run_stages(image, 0, SPLIT) for image in list(world.images.values())[:4]]
    with EdgeClient(server.address, Expected.of(model)) as client:
        assert client.connect()

        def send(number: int, payload: bytes) -> Result | Failure:
            return ask(client, Query(number, 0, *DELTA, payload, (), 10.0, tag))

        for number, tensor in enumerate(features):
            payload, levels = device.encode(codec, DELTA, tensor)
            assert payload[10] == (number > 0)
            answer = send(number, payload)
            assert isinstance(answer, Result)
            decoded = codec.decode(codec.encode(tensor))
            expected = model.net.read_exit(model.net.run_stages(decoded, SPLIT, 3), 2)
            assert answer.logits.tobytes() == expected.tobytes()
            assert levels is not None
            device.answered(DELTA, number, levels)
        old = codec.write(codec.levels(features[3]), codec.levels(features[0]))
        assert send(7, old) is Failure.FORGOTTEN
        assert client.ready
        assert isinstance(send(7, codec.encode(features[3])), Result)


def refused(world: World, changed: LiveModel, server_of: LiveModel) -> str:
    """What a device with one model is told by an edge with another."""
    edge = EdgeServer(EdgeRuntime(server_of), LOOPBACK)
    edge.start()
    try:
        with EdgeClient(edge.address, Expected.of(changed)) as client, pytest.raises(EdgeRefusedError) as caught:
            client.connect()
    finally:
        edge.stop(0.0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(model: LiveModel, keep: Callable[[Pair], bool]) -> LiveModel:
    """A model that offers fewer codecs."""
    return replace(model, codecs={pair: codec for pair, codec in model.codecs.items() if keep(pair)})


def test_a_codec_that_the_edge_lacks(world: World) -> None:
    """Which, what it has there, and what to try."""
    said = refused(world, world.model, without(world.model, lambda pair: pair != DELTA))
    assert "does not serve codec 'delta' at split 1" in said
    assert "(there it has: fp16, range:bits=4, raw, uint8)" in said
    assert "record and calibrate" in said
    said = refused(world, world.model, without(world.model, lambda pair: pair[0] != SPLIT))
    assert "(there it has: none)" in said


def test_a_codec_that_the_device_lacks(world: World) -> None:
    """An edge may serve more than a device sends."""
    edge = EdgeServer(EdgeRuntime(world.model), LOOPBACK)
    edge.start()
    few = without(world.model, lambda pair: pair == BASE)
    with EdgeClient(edge.address, Expected.of(few)) as client:
        assert client.connect()
    edge.stop(0.0)


@pytest.mark.parametrize("theirs", ["other", "none"])
def test_learned_codecs_with_other_weights(world: World, theirs: str) -> None:
    """Both ways round: on the device's side and on the edge's, digests tell."""
    digests = {**world.model.digests, "codecs.safetensors": "0" * 64}
    if theirs == "none":
        del digests["codecs.safetensors"]
    other = replace(world.model, digests=digests)
    for device, edge in ((world.model, other), (other, world.model)):
        said = refused(world, device, edge)
        assert "with codecs.safetensors" in said
        assert "give both the same bundle folder" in said


def test_what_a_device_s_user_sees(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`splitexit device` against an edge whose bundle was recorded with fewer codecs: one line, exit code 2."""
    edge = EdgeServer(EdgeRuntime(without(world.model, lambda pair: pair != DELTA)), LOOPBACK)
    edge.start()
    file = write_scenario(tmp_path, bundle=str(world.bundle.path), policies=POLICIES, devices__policy="delta")
    try:
        assert cli.run(["device", str(file), "--edge", str(edge.address), "--out", str(tmp_path / "run")]) == 2
    finally:
        edge.stop(0.0)
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if "does not serve" in line]
    assert "codec 'delta' at split 1" in line
    assert "Traceback" not in error
