"""Bag-of-Features exits, which add to the one before: recorded, simulated and live alike, with evidence on the wire."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.decision import ExitCheck, Plan
from splitexit.errors import PolicyError
from splitexit.live import wire
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.wire import Refused
from splitexit.recording import Recording
from splitexit.sim.run import simulate
from tests.live_bundle import CONFIG, make_bundle, open_experiment, open_model
from tests.parity.test_confidence import BATCHES
from tests.parity.test_pair import assert_same, both

LEAVING: dict[str, Any] = {"name": "threshold", "threshold": 0.28}
POLICIES: dict[str, dict[str, Any]] = {
    "device": LEAVING,
    "edge": LEAVING | {"threshold": 0.3, "split": 1, "codec": "uint8", "edge_exits": True},
    "all-on-edge": LEAVING | {"split": 0, "codec": "jpeg", "edge_exits": True},
    "max-logit": {"name": "threshold", "rule": "max_logit", "threshold": 1.8, "split": 2, "codec": "fp16"},
    "oracle": {"name": "oracle"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its second exit adds to the first; with logits in its recording."""
    config = replace(CONFIG, head={"name": "bof", "words": 16})
    return make_bundle(tmp_path_factory.mktemp("bof") / "bundle", config=config, logits=True)


@pytest.mark.parametrize("world", [{}, BATCHES], ids=["alone", "batches"])
@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "oracle"])
def test_the_same_rows(bundle: Bundle, tmp_path: Path, policy: str, world: dict[str, Any]) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    experiment = open_experiment(bundle, tmp_path, policies=POLICIES, devices__policy=policy, **world)
    simulated, live = both(experiment, policy, bundle)
    assert_same(live, simulated)
    assert len({row.exit for row in simulated}) > 1


def test_the_oracle_pays_for_the_exits_that_others_add_to(bundle: Bundle, tmp_path: Path) -> None:
    experiment = open_experiment(bundle, tmp_path, policies=POLICIES, devices__policy="oracle")
    assert {row.exit for row in simulate(experiment, "oracle", 0, 50)} <= {0, 1, 2}


def test_an_exit_alone_is_refused(bundle: Bundle) -> None:
    """By the plan, and by an edge that gets no evidence."""
    with pytest.raises(PolicyError, match="exit 1 adds to what exit 0 says"):
        Plan(exits=(ExitCheck(1),)).check(bundle.spec)
    model = open_model(bundle)
    edge, image = EdgeRuntime(model), next(iter(open_images(bundle).values()))
    payload = model.codecs[1, "raw"].encode(model.net.run_stages(image, 0, 1))
    query = wire.Query(0, 0, 1, "raw", payload, (ExitCheck(1),), 10.0, edge.tag)
    with pytest.raises(Refused, match="exit 1 adds to what exit 0 says"):
        edge.infer(wire.pack_query(query), lambda: True)
    with pytest.raises(Refused, match="evidence of 3 numbers; these exits need 10"):
        edge.infer(wire.pack_query(replace(query, evidence=(0.0,) * 3)), lambda: True)


def test_the_edge_adds_to_what_it_is_told(bundle: Bundle) -> None:
    """To the bit what was recorded, for every sample."""
    model, images = open_model(bundle), open_images(bundle)
    edge, test = EdgeRuntime(model), Recording.load(bundle.recording, bundle.spec).test
    first, second = test.exits[0].logits, test.pair(1, "uint8").exits[1].logits
    assert first is not None
    assert second is not None
    for position, image in enumerate(images.values()):
        payload = model.codecs[1, "uint8"].encode(model.net.run_stages(image, 0, 1))
        evidence = tuple(first[position].tolist())
        always = (ExitCheck(1, "max_prob", -1.0),)
        query = wire.Query(0, 0, 1, "uint8", payload, always, 10.0, edge.tag, evidence=evidence)
        said = wire.parse_result(edge.infer(wire.pack_query(query), lambda: True))
        assert said.exit == 1
        assert said.logits.tobytes() == second[position].tobytes()
