"""Specs, placement, and the network as a whole."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Le, MinLen

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, UnknownNameError, UsageError
from splitexit.models import multi_exit
from splitexit.models.backbones import BACKBONES
from splitexit.models.multi_exit import NetConfig, build, save, start_from
from splitexit.models.placement import SDN_SHARES, place
from splitexit.models.spec import create, judge, parse_spec

RGB = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}


def config(depth=8, shares=(0.4,), **more):
    return NetConfig({"name": "resnet", "depth": depth, "width": 4}, (3, 32, 32), 10, shares=shares, **RGB, **more)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("resnet", {"name": "resnet"}),
        ("resnet:depth=56,width=8", {"name": "resnet", "depth": 56, "width": 8}),
        ("joint:weights=0.3/0.6/1", {"name": "joint", "weights": [0.3, 0.6, 1]}),
        ("joint:weights=cost", {"name": "joint", "weights": "cost"}),
    ],
)
def test_specs(text, spec):
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("resnet:depth", UsageError, "key=value"),
        ("resnet:dept=20", UsageError, "did you mean 'depth'"),
        ("resnet:depth=21", UsageError, "6n\\+2"),
        ("resnet:width=0", UsageError, "width"),
        ("resnt", UnknownNameError, "did you mean 'resnet'"),
    ],
)
def test_wrong_specs_say_what_to_try(text, error, words):
    with pytest.raises(error, match=words):
        create(BACKBONES, parse_spec(text))


class Outside:
    """Of a package that imports its types for type checkers alone."""

    def __init__(self, *, width: "Unheard"):  # noqa: F821
        self.width = width


def test_a_member_whose_annotations_cannot_be_read_takes_what_it_gets():
    assert create(BACKBONES, {"name": f"{__name__}:Outside", "width": "any"}).width == "any"


@pytest.mark.parametrize(
    ("hint", "fitting", "others", "words"),
    [
        (int, (0, -3), (0.5, True, "1", None), "a whole number"),
        (Annotated[int, Ge(2), Le(4)], (2, 4), (1, 5, 2.0), "a whole number from 2 to 4"),
        (Annotated[float, Gt(0), Le(1)], (1, 0.1), (0, 1.5, nan, "much"), "a number above 0 to 1"),
        (float, (-1, 2.5), (inf, nan, False), "a number"),
        (bool, (True, False), (0, 1, "true"), "true or false"),
        (Literal[1, 2], (1, 2), (True, 1.0, "1", 3), "1 or 2"),
        (Annotated[int, Ge(1)] | None, (None, 1), (0, "None"), "a whole number from 1"),
        (
            Literal["cost"] | Annotated[Sequence[float], MinLen(2)],
            ("cost", [1, 0.5], (1, 2)),
            ("costs", [1], [1, "2"], 3),
            "cost or a list of 2 or more such as 1/2/4, each a number",
        ),
        ("unknown", (1, "2", None), (), ""),
        (dict, ({}, 1), (), ""),
    ],
)
def test_values_are_held_against_annotations(hint, fitting, others, words):
    assert [judge(hint, value) for value in fitting] == [(True, words)] * len(fitting)
    assert [judge(hint, value) for value in others] == [(False, words)] * len(others)


def test_an_exit_follows_the_first_block_that_reaches_its_share():
    assert place([0.1, 0.25, 0.5], [10, 10, 10, 30, 40], 100) == [1, 3, 4]


def test_two_shares_within_one_block_take_two_blocks():
    assert place([0.1, 0.2], [50, 20, 30], 100) == [1, 2]


@pytest.mark.parametrize("shares", [[0.5, 0.3], [0.0], [1.0], [-0.1]])
def test_shares_must_rise_between_0_and_1(shares):
    with pytest.raises(UsageError, match="shares must rise"):
        place(shares, [50, 50], 100)


def test_too_many_exits_are_refused_with_the_number_of_blocks():
    with pytest.raises(UsageError, match="has 2 blocks"):
        place([0.2, 0.3], [50, 50], 100)


# MACs of the exit-free network by hand: stem, then per group n blocks of two 3×3 convolutions, the first
# of a group after a stride, with its 1×1 projection, and the classifier.
@pytest.mark.parametrize("depth", [20, 32, 56, 110])
def test_resnet_macs_equal_arithmetic(depth):
    n = (depth - 2) // 6
    macs = 3 * 9 * 16 * 1024 + n * 2 * 9 * 16 * 16 * 1024
    for channels, positions in ((32, 256), (64, 64)):
        macs += positions * channels * (9 * channels // 2 + channels // 2 + 9 * channels * (2 * n - 1))
    net = build(NetConfig({"name": "resnet", "depth": depth}, (3, 32, 32), 10, shares=(), **RGB))
    assert net.spec.macs == macs + 640


def test_six_exits_of_the_default_networks_lie_near_their_shares():
    for depth in (32, 56):
        costs = build(config(depth, SDN_SHARES)).relative_costs()
        assert costs[-1] == 1
        assert all(0 <= cost - share < 0.07 for cost, share in zip(costs, SDN_SHARES, strict=False))


def test_the_final_classifier_may_be_any_head(tmp_path):
    """Cost counts it, early exits or not; a head of its own description comes back from a file."""
    backbone = {"name": "msdnet", "depth": 3, "base": 2, "step": 1, "growth": 4}
    plain = NetConfig(backbone, (3, 16, 16), 10, shares=(), **RGB)
    own = replace(plain, final={"name": "msdnet", "width": 8})
    channels = build(own).spec.shape_at(1)[0]
    assert build(plain).spec.macs - 10 * channels == build(own).spec.macs - (9 * 8 * (channels * 4 + 8) + 80)
    net = build(replace(own, shares=(0.5,), head=own.final)).eval()
    assert [e.head for e in net.spec.exits] == [own.final, own.final]
    assert net.spec.macs == build(own).spec.macs
    again = multi_exit.load(multi_exit.save(net, tmp_path, {}))
    images = torch.rand(2, 3, 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(net(images), again(images), strict=True))


def test_the_final_exit_learns_no_confidence():
    with pytest.raises(UsageError, match="final: 'eenet' learns when to stop"):
        build(config(final={"name": "eenet"}))


def test_stages_end_at_the_exits_or_at_every_block():
    by_exit, by_block = build(config(20, (0.3, 0.6))).spec, build(config(20, (0.3, 0.6), cuts="blocks")).spec
    assert by_exit.exit_stages == (1, 2, 3)
    assert by_block.num_stages == 10
    assert sum(s.macs for s in by_exit.stages) == sum(s.macs for s in by_block.stages)
    assert sum(s.layers for s in by_block.stages) == 19 + 2
    with pytest.raises(UsageError, match="exits or blocks"):
        build(config(cuts="layers"))


def test_the_same_seed_gives_twin_and_multi_exit_the_same_backbone():
    net, twin = build(config(seed := 14, (0.4,)), seed), build(config(14, ()), seed)
    theirs = list(twin.stages.parameters())
    assert all(torch.equal(a, b) for a, b in zip(net.stages.parameters(), theirs, strict=True))


def test_running_the_network_forwards_every_stage_once():
    net = build(config(20, (0.3, 0.6)))
    counts = [0] * 3
    for number, stage in enumerate(net.stages):
        stage.register_forward_hook(lambda *_, n=number: counts.__setitem__(n, counts[n] + 1))
    net(torch.rand(2, 3, 32, 32))
    assert counts == [1, 1, 1]
    net.run_stages(torch.rand(2, 3, 32, 32), 0, 1)
    assert counts == [2, 1, 1]


def test_coupling_scales_the_early_exits_gradient_in_the_backbone_alone():
    net, images = build(config(8, (0.4,))), torch.rand(4, 3, 32, 32)
    gradients = {}
    for coupling in (1.0, 0.25, 0.0):
        net.zero_grad()
        early, final = net.eval()(images, coupling)
        early.square().sum().backward()
        stem = net.stages[0][1][0].weight.grad
        gradients[coupling] = (
            torch.zeros_like(net.stages[0][1][0].weight) if stem is None else stem.clone(),
            net.heads[0].linear.weight.grad.clone(),
        )
        torch.testing.assert_close(final, net(images)[1])
        torch.testing.assert_close(early, net(images)[0])
    torch.testing.assert_close(gradients[0.25][0], gradients[1.0][0] / 4)
    assert not gradients[0.0][0].any()
    torch.testing.assert_close(gradients[0.0][1], gradients[1.0][1])


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    net = build(config()).eval()
    bundle = multi_exit.save(net, tmp_path / "bundle", {"seed": 3})
    image = torch.rand(1, 3, 32, 32)
    again = multi_exit.load(Bundle.open(bundle.path))
    assert not again.training
    assert again.spec.training == {"seed": 3}
    assert all(torch.equal(a, b) for a, b in zip(net(image), again(image), strict=True))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    bundle = multi_exit.save(build(config()), tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ArtifactError, match="sha256"):
        multi_exit.load(bundle)
    content = json.loads((tmp_path / "model.json").read_text())
    content["weights_sha256"] = ""
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="does not fit"):
        multi_exit.load(Bundle.open(tmp_path))
    multi_exit.save(build(config(14)), tmp_path / "other", {})
    content["weights_sha256"] = ""
    content["backbone"]["width"] = 8
    (tmp_path / "other" / "model.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="does not fit"):
        multi_exit.load(Bundle.open(tmp_path / "other"))


def test_starting_from_the_twin_gives_its_final_answers_whatever_the_cuts(tmp_path: Path) -> None:
    """Backbone and final head come from the trained network; early heads stay as they were drawn."""
    config = NetConfig({"name": "resnet", "depth": 14}, (3, 16, 16), 10, shares=(), mean=(0.4,) * 3, std=(0.2,) * 3)
    twin = build(config, seed=1)
    bundle = save(twin, tmp_path / "twin", {})
    net = build(replace(config, shares=(0.3, 0.6), mean=(0.5,) * 3), seed=2)
    start_from(net, bundle)
    images = torch.rand(4, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(images)[-1], twin.eval()(images)[-1], rtol=0, atol=0)


def test_starting_from_another_backbone_is_refused(tmp_path: Path) -> None:
    config = NetConfig({"name": "resnet", "depth": 14}, (3, 16, 16), 10, shares=(), mean=(0.4,) * 3, std=(0.2,) * 3)
    bundle = save(build(config), tmp_path / "twin", {})
    with pytest.raises(ArtifactError, match="is not the one to be trained"):
        start_from(build(replace(config, backbone={"name": "resnet", "depth": 20})), bundle)
    with pytest.raises(ArtifactError, match="or its final head is not the one"):
        start_from(build(replace(config, final={"name": "conv"})), bundle)
