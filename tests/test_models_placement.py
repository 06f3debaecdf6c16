"""Exits by rule, against the placement and the costs of EENets' own code (arXiv 2409.05336)."""

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
from torch import nn

from splitexit.errors import UnknownNameError, UsageError
from splitexit.models.backbones import BACKBONES
from splitexit.models.backbones.resnet import ResidualBlock
from splitexit.models.macs import measure
from splitexit.models.multi_exit import NetConfig, build
from splitexit.models.placement import RULES, SDN_SHARES, parse_exits, place, shares_of
from splitexit.models.recipe import Recipe

# Relative costs of the exits, own head included, that the authors' code prints: 3×32×32 and 10 classes, but for
# EENet-18, 3×64×64 and 200 classes.
PRINTED = {
    (20, "fine"): (0.128, 0.245),
    (20, "linear"): (0.361, 0.681),
    (20, "golden"): (0.451, 0.681),
    (20, "pareto"): (0.245, 0.361),
    (32, "fine"): (0.076, 0.145, 0.213),
    (32, "linear"): (0.282, 0.540, 0.797),
    (32, "golden"): (0.282, 0.404, 0.676),
    (32, "pareto"): (0.213, 0.404, 0.540),
    (56, "fine"): (0.079, 0.117, 0.155),
    (56, "linear"): (0.269, 0.523, 0.777),
    (56, "golden"): (0.269, 0.411, 0.636),
    (56, "pareto"): (0.231, 0.374, 0.523),
    (110, "fine"): (0.058, 0.115, 0.152, 0.190, 0.227),
    (110, "linear"): (0.171, 0.340, 0.504, 0.671, 0.833),
    (110, "golden"): (0.096, 0.152, 0.246, 0.392, 0.634),
    (110, "pareto"): (0.209, 0.373, 0.504, 0.597, 0.685),
    (18, "fine"): (0.194, 0.322, 0.421),
    (18, "linear"): (0.322, 0.548, 0.774),
}
TOTAL = {20: 41.4e6, 32: 70.1e6, 56: 127.4e6, 110: 256.3e6, 18: 148.8e6}
# Where multiply-accumulates alone put the last exit one block behind that of the authors' cost, which counts batch
# norm, activations and pooling too: four blocks of ResNet-20 are 0.361 of it in theirs, and 0.358 in ours, which falls
# short of the 0.36 that `pareto` asks for.
MOVED = {(20, "pareto"), (110, "fine"), (110, "linear")}


def config(depth):
    norm = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    if depth == 18:
        return NetConfig({"name": "resnet18", "stem": "imagenet"}, (3, 64, 64), 200, cuts="blocks", **norm)
    return NetConfig({"name": "resnet", "depth": depth}, (3, 32, 32), 10, cuts="blocks", **norm)


class Costs:
    """Of every block, the output shape, our multiply-accumulates, and the operations that the authors count."""

    def __init__(self, depth):
        network = config(depth)
        spec = dict(network.backbone)
        self.backbone = BACKBONES.load(spec.pop("name"))(**spec)
        self.shapes, self.macs, self.operations = [network.input_shape], [], []
        for block in self.backbone.blocks(3):
            cost = measure(block, self.shapes[-1])
            self.macs.append(cost.macs)
            self.operations.append(cost.macs + element_operations(block, self.shapes[-1]))
            self.shapes.append(cost.output_shape)
        self.classes = network.num_classes

    def head(self, number):
        """Multiply-accumulates of the classifier and the confidence behind a block; the authors count no pooling."""
        return self.shapes[number][0] * (self.classes + 1)

    def totals(self):
        """Of the exit-free network: multiply-accumulates, and operations."""
        classifier = self.shapes[-1][0] * self.classes
        pooling = torch.Size(self.shapes[-1]).numel()
        return sum(self.macs) + classifier, sum(self.operations) + pooling + classifier


def element_operations(block, shape):
    """The authors' counter, by layer: two for every element into a batch norm, one for ReLU and pooling."""
    counted = []

    def hook(module, inputs, output):
        elements = inputs[0].numel()
        # A residual block has two ReLUs, which are functions here.
        counted.append({nn.BatchNorm2d: 2 * elements, ResidualBlock: 2 * output.numel()}.get(type(module), elements))

    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d | ResidualBlock):
            module.register_forward_hook(hook)
    with torch.no_grad():
        block.eval()(torch.zeros(1, *shape))
    return sum(counted)


@pytest.fixture(scope="module")
def costs():
    return {depth: Costs(depth) for depth in TOTAL}


@pytest.mark.parametrize("depth", TOTAL)
def test_the_authors_total_is_ours_and_element_operations(costs, depth):
    macs, operations = costs[depth].totals()
    assert operations == pytest.approx(TOTAL[depth], abs=0.05e6)
    assert 0.98 * operations < macs < operations


@pytest.mark.parametrize(("depth", "rule"), PRINTED)
def test_with_the_authors_cost_the_rules_give_their_exits(costs, depth, rule):
    printed, of = PRINTED[depth, rule], costs[depth]
    _, total = of.totals()
    places = place(shares_of(rule, len(printed)), of.operations, total, of.backbone.first_exit)
    spent = [0, *accumulate(of.operations)]
    assert [(spent[p] + of.head(p)) / total for p in places] == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize(("depth", "rule"), PRINTED)
def test_with_multiply_accumulates_they_lie_behind_the_same_blocks(costs, depth, rule):
    printed, of = PRINTED[depth, rule], costs[depth]
    macs, operations = of.totals()
    shares = shares_of(rule, len(printed))
    theirs = place(shares, of.operations, operations, of.backbone.first_exit)
    ours = place(shares, of.macs, macs, of.backbone.first_exit)
    if (depth, rule) in MOVED:
        assert ours != theirs
        assert ours == [*theirs[:-1], theirs[-1] + 1]
    else:
        assert ours == theirs
        spent = [0, *accumulate(of.macs)]
        # What the element operations of at most 2 % can move a share.
        assert [(spent[p] + of.head(p)) / macs for p in ours] == pytest.approx(printed, abs=0.005)


def test_a_built_network_has_its_exits_there(costs):
    net = build(replace(config(20), shares=parse_exits("linear:2")))
    macs, _ = costs[20].totals()
    assert list(net.spec.exit_stages[:-1]) == place(shares_of("linear", 2), costs[20].macs, macs)
    assert net.relative_costs()[:2] == pytest.approx((0.361, 0.681), abs=0.005)


def test_the_rules_by_hand():
    assert shares_of("fine", 2) == pytest.approx((0.05, 0.0975))
    assert shares_of("pareto", 3) == pytest.approx((0.2, 0.36, 0.488))
    assert shares_of("linear", 4) == (0.2, 0.4, 0.6, 0.8)
    assert shares_of("golden", 2) == pytest.approx((0.381966, 0.618034))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("exits", [1, 2, 7, 20])
def test_shares_of_every_rule_rise_between_0_and_1(rule, exits):
    shares = shares_of(rule, exits)
    assert len(shares) == exits
    assert all(a < b for a, b in pairwise((0.0, *shares, 1.0)))


@pytest.mark.parametrize(
    ("text", "shares"),
    [("linear:3", (0.25, 0.5, 0.75)), ("none", ()), ("15,30.5", (0.15, 0.305)), ("pareto:1", (1 - 0.8,))],
)
def test_exits_as_they_are_typed(text, shares):
    assert parse_exits(text) == shares
    assert Recipe.from_json(Recipe(shares=parse_exits(text)).to_json()).shares == parse_exits(text)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("lineer:3", UnknownNameError, "unknown placement rule 'lineer'; did you mean 'linear'"),
        ("linear:0", UsageError, "from 1 behind 'linear', found 0"),
        ("linear:", UsageError, "such as linear:3"),
        ("linear:2.5", UsageError, "such as linear:3"),
        ("linear", UsageError, "such as linear:3"),
        ("a,b", UsageError, "percentages such as 15,30,45"),
    ],
)
def test_exits_that_cannot_be_read(text, error, words):
    with pytest.raises(error, match=words):
        parse_exits(text)


def test_more_exits_than_blocks_are_refused_in_one_line():
    with pytest.raises(UsageError, match="no block is left for the exit at 88%") as refused:
        place(shares_of("linear", 7), [10] * 7, 70)
    assert "\n" not in str(refused.value)


def test_no_exit_lies_in_front_of_the_first_place():
    blocks = [10, 10, 10, 30, 40]
    assert place([0.05, 0.08], blocks, 100) == [1, 2]
    assert place([0.05, 0.08], blocks, 100, first=2) == [2, 3]
    assert place([0.5], blocks, 100, first=2) == place([0.5], blocks, 100)


def test_the_default_exits_are_where_they_were():
    assert parse_exits("15,30,45,60,75,90") == SDN_SHARES == Recipe().shares
