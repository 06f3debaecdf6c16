"""Class exclusion: recorded, simulated and live alike, with the mask on the wire and the last layer pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.confidence import remaining
from splitexit.decision import ExitCheck
from splitexit.live import wire
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.wire import Refused
from tests.live_bundle import CONFIG, make_bundle, open_experiment, open_model
from tests.parity.test_confidence import BATCHES
from tests.parity.test_pair import assert_same, both

EXCLUDING: dict[str, Any] = {"name": "threshold", "rule": "exclusion"}
POLICIES: dict[str, dict[str, Any]] = {
    "device": EXCLUDING | {"threshold": 0.7},
    "edge": EXCLUDING | {"threshold": 0.9, "split": 1, "codec": "uint8"},
    "both": EXCLUDING | {"threshold": 0.6, "split": 1, "codec": "uint8", "edge_exits": True},
    "strict": EXCLUDING
    | {"rule": "exclusion_strict", "threshold": 0.6, "split": 1, "codec": "fp16", "edge_exits": True},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With logits in its recording."""
    config = replace(CONFIG, head={"name": "exclusion"})
    return make_bundle(tmp_path_factory.mktemp("excluding") / "bundle", config=config, logits=True)


@pytest.mark.parametrize("world", [{}, BATCHES], ids=["alone", "batches"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_rows(bundle: Bundle, tmp_path: Path, policy: str, world: dict[str, Any]) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    experiment = open_experiment(bundle, tmp_path, policies=POLICIES, devices__policy=policy, **world)
    simulated, live = both(experiment, policy, bundle)
    assert_same(live, simulated)
    assert len({row.exit for row in simulated}) > 1


def test_the_pruned_last_layer_is_the_masked_one(bundle: Bundle) -> None:
    """Within 1e-4, with the same best class; and it computes no more classes than remain."""
    model, images = open_model(bundle), open_images(bundle)
    edge, rng = EdgeRuntime(model), np.random.default_rng(0)
    for image in images.values():
        ruled_out = int(rng.integers(1, 1023))
        payload = model.codecs[1, "raw"].encode(model.net.run_stages(image, 0, 1))
        query = wire.Query(0, 0, 1, "raw", payload, (), 10.0, edge.tag, ruled_out=ruled_out)
        said = wire.parse_result(edge.infer(wire.pack_query(query), lambda: True))
        whole = wire.parse_result(edge.infer(wire.pack_query(replace(query, ruled_out=0)), lambda: True)).logits
        left = remaining(ruled_out, 10)
        np.testing.assert_allclose(said.logits, whole[left], atol=1e-4)
        assert said.ruled_out == ruled_out
        assert said.prediction == np.flatnonzero(left)[whole[left].argmax()]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ruled_out": 1023}, "leaves none of 10 classes"),
        ({"ruled_out": 1 << 10}, "or names others"),
        ({"evidence": (1.0,) * 10}, "evidence of 10 numbers; these exits need 0"),
    ],
)
def test_what_cannot_be_is_refused(bundle: Bundle, changes: dict[str, Any], why: str) -> None:
    model = open_model(bundle)
    edge, image = EdgeRuntime(model), next(iter(open_images(bundle).values()))
    payload = model.codecs[1, "raw"].encode(model.net.run_stages(image, 0, 1))
    query = wire.Query(0, 0, 1, "raw", payload, (ExitCheck(1),), 10.0, edge.tag, **changes)
    with pytest.raises(Refused, match=why):
        edge.infer(wire.pack_query(query), lambda: True)
