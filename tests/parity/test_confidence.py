"""Heads that learn when to stop, and the rules beyond the class probabilities: recorded, simulated and live alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.decision import ExitCheck
from splitexit.live import wire
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.recording import Recording
from tests.confident_head import HEAD
from tests.live_bundle import CONFIG, make_bundle, open_experiment, open_model
from tests.parity.test_pair import assert_same, both

BEHIND: dict[str, Any] = {"split": 1, "codec": "uint8", "exits": [], "edge_exits": True}
POLICIES: dict[str, dict[str, Any]] = {
    "confidence": {"name": "threshold", "rule": "confidence", "threshold": 0.6},
    "confidence-edge": {"name": "threshold", "rule": "confidence", "threshold": 0.5} | BEHIND,
    "patience": {"name": "threshold", "rule": "patience", "threshold": 1, "split": 2, "codec": "fp16"},
}
BATCHES: dict[str, Any] = {
    "devices__hardware": "raspberry-pi-4",
    "devices__arrivals__rate_hz": 30.0,
    "uplink__mbps": 20.0,
    "edge__batching": {"max_size": 4, "max_wait_ms": 15.0},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Early exits that learned a confidence, a final one that did not."""
    return make_bundle(tmp_path_factory.mktemp("confident") / "bundle", config=replace(CONFIG, head={"name": HEAD}))


@pytest.mark.parametrize("world", [{}, BATCHES], ids=["alone", "batches"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_rows(bundle: Bundle, tmp_path: Path, policy: str, world: dict[str, Any]) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    experiment = open_experiment(bundle, tmp_path, policies=POLICIES, devices__policy=policy, **world)
    simulated, live = both(experiment, policy, bundle)
    assert_same(live, simulated)
    assert len({row.exit for row in simulated}) > 1


def test_the_edge_sends_its_confidence(bundle: Bundle) -> None:
    """To the bit what was recorded, for every sample; none where the final exit answers."""
    model, images = open_model(bundle), open_images(bundle)
    edge, test = EdgeRuntime(model), Recording.load(bundle.recording, bundle.spec).test
    always = (ExitCheck(1, "confidence", 0.0),)
    for position, image in enumerate(images.values()):
        payload = model.codecs[1, "uint8"].encode(model.net.run_stages(image, 0, 1))
        query = wire.Query(0, 0, 1, "uint8", payload, always, 10.0, edge.tag)
        said = wire.parse_result(edge.infer(wire.pack_query(query), lambda: True))
        assert said.exit == 1
        assert said.logits.shape == (10,)
        assert said.confidence == test.pair(1, "uint8").exits[1].confidence[position]
        last = wire.parse_result(edge.infer(wire.pack_query(replace(query, exits=())), lambda: True))
        assert last.confidence != last.confidence
