"""The edge without gRPC: it answers what the whole model answers, stops where an exit fires, and refuses the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.decision import ExitCheck
from splitexit.live import wire
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.model import Array, LiveModel
from splitexit.live.wire import Query, Refused, Result, Status
from tests.live_bundle import open_model

ALWAYS, NEVER = ExitCheck(1, "max_prob", -1.0), ExitCheck(1, "max_prob", 2.0)


def yes() -> bool:
    """Somebody waits."""
    return True


class Counting:
    """A network that notes which stages and heads ran."""

    def __init__(self, net: object) -> None:
        self._net: object = net
        self.stages: Counter[int] = Counter()
        self.heads: Counter[int] = Counter()

    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Notes and runs."""
        self.stages.update(range(first, last))
        return self._net.run_stages(features, first, last)  # type: ignore[attr-defined,no-any-return]

    def read_exit(self, features: Array, exit_: int) -> Array:
        """Notes and reads."""
        self.heads[exit_] += 1
        return self._net.read_exit(features, exit_)  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def model(live_bundle: Bundle) -> LiveModel:
    return open_model(live_bundle)


@pytest.fixture(scope="module")
def image(live_bundle: Bundle) -> Array:
    return next(iter(open_images(live_bundle).values()))


def query(model: LiveModel, image: Array, split: int, codec: str = "raw", **changes: object) -> Query:
    """A good request for this image."""
    payload = model.codecs[split, codec].encode(model.net.run_stages(image, 0, split))
    good = Query(5, 0, split, codec, payload, (), 10.0, wire.bundle_tag(model.digests))
    return replace(good, **changes)  # type: ignore[arg-type]


def ask(edge: EdgeRuntime, asked: Query, wanted: Callable[[], bool] = yes) -> Result:
    """Over the wire format."""
    return wire.parse_result(edge.infer(wire.pack_query(asked), wanted))


@pytest.mark.parametrize("split", [0, 1, 2])
def test_split_equals_whole_bit_for_bit(model: LiveModel, live_bundle: Bundle, split: int) -> None:
    """fp32, batch 1, every split, every sample image."""
    edge, last = EdgeRuntime(model), model.spec.num_stages
    for image in open_images(live_bundle).values():
        whole = model.net.read_exit(model.net.run_stages(image, 0, last), model.spec.final_exit)
        assert ask(edge, query(model, image, split)).logits.tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("check", "stages", "heads"), [(ALWAYS, [1], [1]), (NEVER, [1, 2], [1, 2]), (None, [1, 2], [2])]
)
def test_an_exit_really_stops_the_work(
    model: LiveModel, image: Array, check: ExitCheck | None, stages: list[int], heads: list[int]
) -> None:
    """Forwards counted per stage and head; a head that was not asked for costs nothing."""
    net = Counting(model.net)
    edge = EdgeRuntime(replace(model, net=net))
    result = ask(edge, query(model, image, 1, exits=() if check is None else (check,)))
    assert net.stages == Counter(stages)
    assert net.heads == Counter(heads)
    assert result.exit == heads[-1]


def test_the_codec_is_applied(model: LiveModel, image: Array) -> None:
    asked = query(model, image, 1, "uint8")
    decoded = model.codecs[1, "uint8"].decode(asked.payload)
    expected = model.net.read_exit(model.net.run_stages(decoded, 1, 3), 2)
    assert ask(EdgeRuntime(model), asked).logits.tobytes() == expected.tobytes()


def test_no_work_starts_when_nobody_waits(model: LiveModel, image: Array) -> None:
    """Not even decoding."""
    net = Counting(model.net)
    with pytest.raises(Refused) as caught:
        ask(EdgeRuntime(replace(model, net=net)), query(model, image, 0), lambda: False)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert not net.stages


def test_work_stops_between_two_stages(model: LiveModel, image: Array) -> None:
    """At most one stage is wasted."""
    net = Counting(model.net)
    edge = EdgeRuntime(replace(model, net=net))
    with pytest.raises(Refused) as caught:
        ask(edge, query(model, image, 0), lambda: not net.stages)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert net.stages == Counter([0])


@pytest.mark.parametrize("left_s", [0.0, -1.0])
def test_a_deadline_that_has_passed(model: LiveModel, image: Array, left_s: float) -> None:
    with pytest.raises(Refused) as caught:
        ask(EdgeRuntime(model), query(model, image, 0, left_s=left_s))
    assert caught.value.status is Status.DEADLINE_EXCEEDED


REFUSALS: dict[str, tuple[dict[str, object], Status, str]] = {
    "bundle": ({"bundle": 1}, Status.FAILED_PRECONDITION, "another bundle"),
    "major": ({"protocol": (2, 0)}, Status.FAILED_PRECONDITION, "protocol 2.0"),
    "minor": ({"protocol": (1, 7)}, Status.FAILED_PRECONDITION, "protocol 1.7"),
    "codec": ({"codec": "gzip"}, Status.FAILED_PRECONDITION, "'gzip' at split 1 is not served"),
    "codec elsewhere": ({"codec": "jpeg"}, Status.FAILED_PRECONDITION, "'jpeg' at split 1"),
    "split": ({"split": 3}, Status.FAILED_PRECONDITION, "split 3 is not served"),
    "huge split": ({"split": 2**32 - 1}, Status.FAILED_PRECONDITION, "is not served"),
    "payload": ({"payload": b"nonsense"}, Status.INVALID_ARGUMENT, "raw"),
    "empty payload": ({"payload": b""}, Status.INVALID_ARGUMENT, "raw"),
    "large payload": ({"payload": bytes(4 * 16**3 + 4097)}, Status.RESOURCE_EXHAUSTED, "at most"),
    "rule": ({"exits": (ExitCheck(1, "luck", 0.5),)}, Status.INVALID_ARGUMENT, "'luck'"),
    "exit": ({"exits": (ExitCheck(9),)}, Status.INVALID_ARGUMENT, "exit 9"),
    "exit before the split": ({"exits": (ExitCheck(0),)}, Status.INVALID_ARGUMENT, "exit 0"),
    "exits out of order": ({"exits": (ExitCheck(2), ExitCheck(1))}, Status.INVALID_ARGUMENT, "out of order"),
    "the same exit for ever": ({"exits": (ALWAYS,) * 40}, Status.INVALID_ARGUMENT, "out of order"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_is_refused(model: LiveModel, image: Array, what: str) -> None:
    """One line each, and the next good request is answered as before."""
    changes, status, why = REFUSALS[what]
    edge, good = EdgeRuntime(model), query(model, image, 1)
    before = ask(edge, good).logits.tobytes()
    with pytest.raises(Refused, match=why) as caught:
        ask(edge, replace(good, **changes))  # type: ignore[arg-type]
    assert caught.value.status is status
    assert "\n" not in caught.value.why
    assert ask(edge, good).logits.tobytes() == before
    assert edge.crew.present == 0


def test_the_description(model: LiveModel) -> None:
    """Digests, splits with shapes and codecs, the cap."""
    said = wire.parse_description(EdgeRuntime(model).describe(wire.pack_hello()))
    assert dict(said.digests) == dict(model.digests)
    assert {(s.split, c) for s in said.splits for c in s.codecs} == set(model.codecs)
    assert [s.shape for s in said.splits] == [model.spec.shape_at(s) for s in (0, 1, 2)]
    assert said.max_request_bytes == wire.FRAME_BYTES + 10 * wire.CLASS_BYTES + max(
        c.max_bytes for c in model.codecs.values()
    )


def test_every_codec_fits_under_the_cap(model: LiveModel) -> None:
    """Even of noise, which no codec makes smaller."""
    cap = EdgeRuntime(model).max_request_bytes
    rng = np.random.default_rng(0)
    for (split, codec_id), codec in model.codecs.items():
        noise = rng.integers(0, 256, model.spec.shape_at(split)).astype(np.float32) / np.float32(255)
        full = Query(2**32 - 1, 2**32 - 1, split, codec_id, codec.encode(noise), (ALWAYS,) * 3, 3600.0, 2**64 - 1)
        assert len(wire.pack_query(full)) <= cap


def test_a_paced_edge_takes_the_drawn_times(model: LiveModel, image: Array) -> None:
    """2 ms to decode, 20 ms a stage, 1 ms a head: 43 ms for two stages behind split 1."""
    host = Calibration(
        machine={},
        stages=(Distribution.constant(0.02),) * 3,
        exits=(Distribution.constant(0.001),) * 3,
        encode={},
        decode={(1, "raw"): Distribution.constant(0.002)},
        rpc=Rpc(0, 0, Distribution.constant(0.0)),
    )
    edge = EdgeRuntime(model, hardware="somewhere", calibration=host)
    asked = query(model, image, 1)
    start_s = time.monotonic()
    results = [ask(edge, replace(asked, timed=True)) for _ in range(3)]
    assert time.monotonic() - start_s >= 3 * 0.043
    for result in results:
        assert result.parts_s == pytest.approx((0.002, 0.02, 0.02, 0.001))
        assert result.compute_s >= 0.043 - 1e-9


def test_a_reply_says_what_every_part_took(model: LiveModel, image: Array) -> None:
    """Decoding, two stages with a head behind each; only where asked, and together all of the time."""
    asked = query(model, image, 1, exits=(NEVER,), timed=True)
    result = ask(EdgeRuntime(model), asked)
    assert len(result.parts_s) == 5
    assert min(result.parts_s) > 0
    assert sum(result.parts_s) == pytest.approx(result.compute_s, rel=0.2)
    assert ask(EdgeRuntime(model), replace(asked, timed=False)).parts_s == ()
