"""What each objective is: its equation by hand, whom its gradient reaches, and how a training with it goes."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from splitexit.bundle import Exit, ModelSpec, Stage
from splitexit.errors import UsageError
from splitexit.models import data, multi_exit
from splitexit.models.evaluate import accuracies
from splitexit.models.multi_exit import MultiExitNet, NetConfig
from splitexit.models.objectives import OBJECTIVES, Progress, class_logits
from splitexit.models.objectives._distillation import exit_losses
from splitexit.models.objectives.block_dependent import BlockDependent
from splitexit.models.objectives.eenet import EENetLoss
from splitexit.models.objectives.exclusion import ClassExclusion
from splitexit.models.objectives.joint import Joint
from splitexit.models.spec import create, parse_spec
from splitexit.models.train import train
from tests.contract.test_objectives import Confident
from tests.models_tiny import TINY, stripes

COSTS = (0.2, 0.6, 1.0)
HALF_WAY = Progress(COSTS, 0.5)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
CLASSES, WIDTH = 5, 6


def outputs(seed=0, exits=3, extra=0):
    """Double-precision outputs of so many exits; `extra` columns at the early ones."""
    generator = torch.Generator().manual_seed(seed)
    widths = [CLASSES + extra] * (exits - 1) + [CLASSES]
    return [torch.randn(6, w, generator=generator, dtype=torch.float64).requires_grad_() for w in widths]


def test_the_confidence_column_is_no_class():
    with_column, without = outputs(extra=1), [z[:, :CLASSES].detach() for z in outputs(extra=1)]
    assert all(torch.equal(a, b) for a, b in zip(class_logits(with_column), without, strict=True))
    for name in ("joint", "block-dependent", "exclusion"):
        objective = create(OBJECTIVES, {"name": name})
        assert objective.loss(with_column, LABELS, HALF_WAY) == objective.loss(without, LABELS, HALF_WAY)


# Joint, and distillation


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", [1, 1, 1]),
        ("cost", [0.2, 0.6, 1]),
        ("sdn", [0.01 + 0.2 / 2, 0.01 + 0.6 / 2, 1]),
        ("linear", [1 / 6, 2 / 6, 3 / 6]),
        ([1, 0, 0.5], [1, 0, 0.5]),
    ],
)
def test_joint_is_the_weighted_sum(weights, expected):
    logits = outputs()
    loss = Joint(weights=weights).loss(logits, LABELS, HALF_WAY)
    by_hand = sum(w * F.cross_entropy(z, LABELS) for w, z in zip(expected, logits, strict=True))
    torch.testing.assert_close(loss, by_hand)


def test_sdns_schedule_ends_at_the_costs():
    assert Joint(weights="sdn").weigh(Progress(COSTS, 1.0)) == pytest.approx(COSTS)


def test_too_few_weights_are_refused():
    with pytest.raises(UsageError, match="objective 'joint': 2 weights for 3 exits"):
        Joint(weights=[1.0, 1.0]).loss(outputs(), LABELS, HALF_WAY)


def test_distillation_adds_the_divergence_from_the_last_exit():
    logits, alpha, temperature = outputs(), 0.3, 2.5
    teacher = (logits[-1] / temperature).softmax(1)
    expected = [F.cross_entropy(z, LABELS) for z in logits]
    for exit_ in (0, 1):
        student = (logits[exit_] / temperature).softmax(1)
        expected[exit_] = expected[exit_] + alpha * (teacher * (teacher / student).log()).sum(1).mean()
    found = exit_losses(logits, LABELS, alpha, temperature)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    spec = {"distill": alpha, "temperature": temperature}
    for objective in (Joint(weights="uniform", **spec), BlockDependent(**spec)):
        torch.testing.assert_close(objective.loss(logits, LABELS, HALF_WAY), sum(expected))


def test_the_teacher_learns_from_the_labels_alone():
    taught, plain = outputs(), outputs()
    Joint(weights="uniform", distill=5.0).loss(taught, LABELS, HALF_WAY).backward()
    Joint(weights="uniform").loss(plain, LABELS, HALF_WAY).backward()
    assert torch.equal(taught[-1].grad, plain[-1].grad)
    assert not torch.allclose(taught[0].grad, plain[0].grad)


def test_dense_outputs_are_judged_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, CLASSES, 3, 4, generator=generator) for _ in range(3)]
    labels = torch.randint(CLASSES, (2, 3, 4), generator=generator)
    pixels = [z.permute(0, 2, 3, 1).reshape(-1, CLASSES) for z in maps]
    dense, flat = exit_losses(maps, labels, 0.5, 2.0), exit_losses(pixels, labels.flatten(), 0.5, 2.0)
    torch.testing.assert_close(torch.stack(dense), torch.stack(flat))


# Block-dependent losses


def chain(stages_of_blocks):
    """Linear stages with batch norm in double precision; block b is as many of them as the b-th number says."""
    torch.manual_seed(0)
    ends = np.cumsum(stages_of_blocks).tolist()
    stages = [
        nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.Tanh()) for _ in range(ends[-1])
    ]
    spec = ModelSpec(
        name="chain",
        backbone={},
        input_shape=(WIDTH, 1, 1),
        num_classes=CLASSES,
        stages=(Stage(1, 1, (WIDTH, 1, 1)),) * len(stages),
        exits=tuple(Exit(end, 1, 1, {}) for end in ends),
    )
    return MultiExitNet(stages, [nn.Linear(WIDTH, CLASSES) for _ in ends], spec).double().train()


def inputs():
    return torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def blocks(net):
    ends = [0, *net.spec.exit_stages]
    return [net.stages[a:b] for a, b in pairwise(ends)]


def progress_of(net):
    return Progress(net.relative_costs(), 0.5)


def touched(parts):
    return {b for b, part in enumerate(parts, 1) if any(p.grad is not None and p.grad.any() for p in part.parameters())}


class Only(BlockDependent):
    """Of all losses, that of one exit (from 1) alone is not multiplied by nought."""

    def __init__(self, exit_, **spec):
        super().__init__(**spec)
        self.exit_ = exit_

    def _losses(self, outputs, labels):
        return [loss * (e == self.exit_) for e, loss in enumerate(super()._losses(outputs, labels), 1)]


def sources(sizes, **spec):
    """S_b of every block: the exits (from 1) whose loss alone leaves a gradient there. Heads are checked on the way."""
    found = [set() for _ in sizes]
    for exit_ in range(1, len(sizes) + 1):
        net = chain(sizes)
        Only(exit_, **spec).backward(net, net(inputs()), LABELS, progress_of(net))
        assert touched(net.heads) == {exit_}
        for block in touched(blocks(net)):
            found[block - 1].add(exit_)
    return found


SCHEMES = [
    ({"reach": 7}, [{*range(b, 8)} for b in range(1, 8)]),
    ({"reach": 1}, [{1}, {2}, {3}, {4}, {5}, {6}, {7}]),
    ({"groups": [3, 4]}, [{1, 2, 3}, {2, 3}, {3}, {4, 5, 6, 7}, {5, 6, 7}, {6, 7}, {7}]),
    ({"reach": 3}, [{1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {4, 5, 6}, {5, 6, 7}, {6, 7}, {7}]),
    ({}, [{1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {4, 5, 6}, {5, 6, 7}, {6, 7}, {7}]),
    ({"reach": 3, "final": True}, [{1, 2, 3, 7}, {2, 3, 4, 7}, {3, 4, 5, 7}, {4, 5, 6, 7}, {5, 6, 7}, {6, 7}, {7}]),
    ({"reach": 2}, [{1, 2}, {2, 3}, {3, 4}, {4, 5}, {5}]),
    ({"reach": 2, "final": True}, [{1, 2, 5}, {2, 3, 5}, {3, 4, 5}, {4, 5}, {5}]),
    ({"reach": 1, "final": True}, [{1, 3}, {2, 3}, {3}]),
    ({"reach": 2}, [{1}]),
]


@pytest.mark.parametrize(("spec", "expected"), SCHEMES)
def test_losses_reach_the_blocks_of_their_scheme_and_no_other(spec, expected):
    assert sources([1] * len(expected), **spec) == expected


@pytest.mark.parametrize("seed", range(6))
def test_losses_reach_their_blocks_for_any_number_of_exits_and_any_reach(seed):
    rng = np.random.default_rng(seed)
    sizes, reach, final = rng.integers(1, 4, rng.integers(1, 7)).tolist(), int(rng.integers(1, 9)), bool(seed % 2)
    exits = len(sizes)
    expected = [{*range(b, min(b + reach - 1, exits) + 1)} | ({exits} if final else set()) for b in range(1, exits + 1)]
    assert sources(sizes, reach=reach, final=final) == expected


def gradients(net, objective):
    objective.backward(net, net(inputs()), LABELS, progress_of(net))
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("distill", [0.0, 0.3])
def test_as_many_blocks_as_there_are_is_joint_training(distill):
    block = gradients(chain([1, 2, 1, 1]), BlockDependent(reach=4, distill=distill))
    joint = gradients(chain([1, 2, 1, 1]), Joint(weights="uniform", distill=distill))
    for ours, theirs in zip(block, joint, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def by_running_again(net, reach, final):
    """As the authors do it: for every loss, its blocks run again on the detached output of the block before them."""
    parts, features = blocks(net), [inputs()]
    for part in parts:
        features.append(nn.Sequential(*part)(features[-1]).detach())
    for exit_ in range(len(parts)):
        first = 0 if final and exit_ == len(parts) - 1 else max(0, exit_ - reach + 1)
        x = features[first]
        for part in parts[first : exit_ + 1]:
            x = nn.Sequential(*part)(x)
        F.cross_entropy(net.heads[exit_](x), LABELS).backward()
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize(("reach", "final"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
def test_gradients_equal_those_of_running_blocks_again_on_detached_inputs(reach, final):
    sizes = [1, 1, 2, 1, 1]
    ours = gradients(chain(sizes), BlockDependent(reach=reach, final=final))
    for one, again in zip(ours, by_running_again(chain(sizes), reach, final), strict=True):
        torch.testing.assert_close(one, again, rtol=0, atol=1e-12)


def test_batch_norm_is_updated_once_in_a_step():
    net = chain([1, 1, 1, 1, 1])
    gradients(net, BlockDependent(reach=3, final=True))
    assert [int(m.num_batches_tracked) for m in net.modules() if isinstance(m, nn.BatchNorm1d)] == [1] * 5


def test_a_parameter_that_heads_share_is_counted_once_for_each():
    nets = chain([1, 1]), chain([1, 1])
    for net in nets:
        net.heads[1].weight = net.heads[0].weight
    block, joint = gradients(nets[0], BlockDependent(reach=2)), gradients(nets[1], Joint(weights="uniform"))
    for ours, theirs in zip(block, joint, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_groups_must_add_up_to_the_exits():
    net = chain([1, 1, 1])
    with pytest.raises(UsageError, match="groups of 2, 2 blocks do not add up to the 3 exits"):
        gradients(net, BlockDependent(groups=[2, 2]))


# EENet


def by_probabilities(logits, costs):
    """The recursion as it stands in the paper: Ŷ_n of the label and Ĉ_n, of every n from 0 to N."""
    rows = torch.arange(len(LABELS))
    label = [z[:, :CLASSES].softmax(1)[rows, LABELS] for z in logits]
    stop = [z[:, CLASSES].sigmoid() for z in logits[:-1]]
    found, cost = [label[-1]], [torch.ones(len(LABELS), dtype=torch.float64)]
    for h, y, c in zip(reversed(stop), reversed(label[:-1]), reversed(costs[:-1]), strict=True):
        found.insert(0, h * y + (1 - h) * found[0])
        cost.insert(0, h * c + (1 - h) * cost[0])
    return found, cost


@pytest.mark.parametrize("cost_weight", [0, 1.0, 3.5])
def test_eenet_is_the_recursion_in_logarithms(cost_weight):
    logits = outputs(exits=4, extra=1)
    costs = (0.1, 0.3, 0.7, 1.0)
    found, cost = by_probabilities(logits, costs)
    terms = [cost_weight * c.mean() - f.log().mean() for f, c in zip(found, cost, strict=True)]
    for version, expected in ((1, terms[0]), (2, sum(terms))):
        loss = EENetLoss(version=version, cost_weight=cost_weight).loss(logits, LABELS, Progress(costs, 0.0))
        torch.testing.assert_close(loss, expected)


def test_version_2_is_version_1_summed_over_all_that_is_left_of_the_network():
    logits = outputs(exits=4, extra=1)
    costs = (0.1, 0.3, 0.7, 1.0)
    suffixes = [EENetLoss(version=1).loss(logits[n:], LABELS, Progress(costs[n:], 0.0)) for n in range(4)]
    torch.testing.assert_close(EENetLoss().loss(logits, LABELS, Progress(costs, 0.0)), sum(suffixes))


def test_where_all_exits_agree_confidences_cost_but_do_not_change_the_answer():
    logits = outputs(extra=1)
    agreeing = [torch.cat([logits[-1], z[:, CLASSES:]], dim=1) for z in logits[:-1]] + [logits[-1]]
    loss = EENetLoss(version=1, cost_weight=0).loss(agreeing, LABELS, HALF_WAY)
    torch.testing.assert_close(loss, F.cross_entropy(logits[-1], LABELS))


def with_confidence(values):
    made = [z.detach() for z in outputs(extra=1)]
    for z, value in zip(made[:-1], values, strict=True):
        z[:, CLASSES] = value
    return [z.requires_grad_() for z in made]


def test_eenet_may_begin_with_the_plain_sum():
    logits = outputs(extra=1)
    loss = EENetLoss(warm_up=0.3)
    plain = Joint(weights="uniform").loss(logits, LABELS, Progress(COSTS, 0.29))
    torch.testing.assert_close(loss.loss(logits, LABELS, Progress(COSTS, 0.29)), plain)
    after = Progress(COSTS, 0.3)
    torch.testing.assert_close(loss.loss(logits, LABELS, after), EENetLoss().loss(logits, LABELS, after))
    with pytest.raises(UsageError, match="warm_up must be a number from 0 to 1, found 1.5"):
        create(OBJECTIVES, parse_spec("eenet:warm_up=1.5"))


def test_a_first_exit_that_always_stops_is_all_there_is():
    logits = with_confidence((60.0, 0.0))
    loss = EENetLoss(version=1).loss(logits, LABELS, HALF_WAY)
    torch.testing.assert_close(loss, F.cross_entropy(logits[0][:, :CLASSES], LABELS) + COSTS[0])
    loss.backward()
    assert max(float(z.grad.abs().max()) for z in logits[1:]) < 1e-12
    again = with_confidence((60.0, 0.0))
    EENetLoss(version=2).loss(again, LABELS, HALF_WAY).backward()
    assert min(float(z.grad.abs().max()) for z in again[1:]) > 1e-3, "later suffixes go on learning"


def test_exits_that_never_stop_leave_the_exit_free_network():
    logits = with_confidence((-60.0, -60.0))
    loss = EENetLoss(version=1).loss(logits, LABELS, HALF_WAY)
    torch.testing.assert_close(loss, F.cross_entropy(logits[-1], LABELS) + 1)
    loss.backward()
    assert max(float(z.grad.abs().max()) for z in logits[:-1]) < 1e-12


def test_cost_pushes_cheap_exits_open_and_those_dearer_than_going_on_shut():
    costs = (0.2, 1.3, 1.0)
    gradient = []
    for cost_weight in (0.0, 1.0):
        logits = outputs(extra=1)
        EENetLoss(version=1, cost_weight=cost_weight).loss(logits, LABELS, Progress(costs, 0.0)).backward()
        gradient.append([z.grad[:, CLASSES] for z in logits[:-1]])
    cheap, dear = (with_cost - without for without, with_cost in zip(*gradient, strict=True))
    assert (cheap < 0).all(), "descent raises its confidence"
    assert (dear > 0).all()


def test_the_more_cost_counts_the_less_is_spent():
    def spent(cost_weight, seed):
        logits = outputs(seed, extra=1)
        optimiser = torch.optim.Adam(logits, lr=0.05)
        for _ in range(40):
            optimiser.zero_grad()
            EENetLoss(cost_weight=cost_weight).loss(logits, LABELS, HALF_WAY).backward()
            optimiser.step()
        return by_probabilities(logits, COSTS)[1][0].mean().item()

    means = [np.mean([spent(weight, seed) for seed in range(3)]) for weight in (0.0, 0.5, 4.0)]
    assert means[0] > means[1] > means[2]


def test_eenet_needs_heads_that_learn_a_confidence():
    with pytest.raises(UsageError, match="the head of exit 0 learns no confidence"):
        EENetLoss().loss(outputs(), LABELS, HALF_WAY)


# Class exclusion


@pytest.mark.parametrize(("classes", "pos_weight", "expected"), [(10, None, 36), (100, None, 396), (10, 2.5, 2.5)])
def test_exclusion_is_the_sum_of_the_authors_code(classes, pos_weight, expected):
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(4, classes, generator=generator, dtype=torch.float64) for _ in range(7)]
    labels = torch.tensor([0, 3, 3, 9])
    by_hand = F.cross_entropy(logits[-1], labels)
    for z, weight in zip(logits[:-1], (1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2), strict=True):
        p, true = z.sigmoid(), F.one_hot(labels, classes).bool()
        by_hand = by_hand - weight * torch.where(true, expected * p.log(), (1 - p).log()).mean()
    torch.testing.assert_close(ClassExclusion(pos_weight=pos_weight).loss(logits, labels, HALF_WAY), by_hand)


# Hyper-parameters as they come from the command line


@pytest.mark.parametrize(
    "text",
    [
        "joint:weights=costs",
        "joint:weights=1",
        "joint:weights=a/b",
        "joint:distill=-0.1",
        "joint:temperature=0",
        "block-dependent:reach=0",
        "block-dependent:reach=1.5",
        "block-dependent:reach=true",
        "block-dependent:groups=7",
        "block-dependent:groups=3/0",
        "block-dependent:groups=3/4,reach=2",
        "block-dependent:final=1",
        "block-dependent:distill=much",
        "block-dependent:temperature=Infinity",
        "eenet:version=3",
        "eenet:version=true",
        "eenet:cost_weight=-1",
        "exclusion:pos_weight=0",
    ],
)
def test_wrong_hyper_parameters_are_refused_by_name(text):
    with pytest.raises(UsageError, match=f"objective '{text.partition(':')[0]}': "):
        create(OBJECTIVES, parse_spec(text))


def test_hyper_parameters_are_kept_as_they_were_given():
    objective = create(OBJECTIVES, parse_spec("block-dependent:groups=3/4,final=true,distill=0.25,temperature=1.5"))
    kept = (objective.reach, objective.groups, objective.final, objective.distill, objective.temperature)
    assert kept == (None, [3, 4], True, 0.25, 1.5)


# Trainings

CONFIDENT = f"{Confident.__module__}:Confident"


@pytest.mark.parametrize(
    ("objective", "head"),
    [
        ("eenet:cost_weight=0.5", CONFIDENT),
        ("block-dependent:reach=2,final=true,distill=0.3", "pooled"),
        ("block-dependent:groups=1/2", "pooled"),
        ("exclusion", "pooled"),
        ("joint:weights=linear,distill=0.3", CONFIDENT),
    ],
)
def test_a_network_learns_by_it(tmp_path, objective, head):
    recipe = dataclasses.replace(TINY, epochs=3, objective=parse_spec(objective), head={"name": head})
    bundle = train(recipe, source=stripes(), test=None, out=tmp_path)
    first, *_, last = bundle.spec.training["epochs"]
    assert math.isfinite(first["loss"])
    assert last["loss"] < 0.9 * first["loss"]
    assert last["accuracy"][-1] > 0.5


@pytest.mark.parametrize("objective", ["block-dependent:distill=0.3", "eenet", "exclusion"])
def test_frozen_parts_stay_as_they_were(tmp_path, objective):
    recipe = dataclasses.replace(TINY, epochs=1, limit=120)
    alone = train(dataclasses.replace(recipe, shares=()), source=stripes(), test=None, out=tmp_path / "twin")
    head = {"name": CONFIDENT if objective == "eenet" else "pooled"}
    later = dataclasses.replace(recipe, init=str(alone.path), freeze=True, objective=parse_spec(objective), head=head)
    beside = train(later, source=stripes(), test=None, out=tmp_path / "exits")
    nets = (multi_exit.load(bundle) for bundle in (alone, beside))
    before, after = ([*net.stages.state_dict().values(), *net.heads[-1].state_dict().values()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_objective_that_routes_gradients_goes_with_no_coupling(tmp_path):
    recipe = dataclasses.replace(TINY, objective={"name": "block-dependent"}, coupling=0.5)
    with pytest.raises(UsageError, match="objective 'block-dependent' itself decides which blocks a loss reaches"):
        train(recipe, source=stripes(), test=None, out=tmp_path)


def test_a_large_confidence_does_not_count_as_a_class():
    images = data.read(stripes())
    torch.manual_seed(0)
    net = multi_exit.build(NetConfig(TINY.backbone, images.shape, 3, TINY.shares, {"name": CONFIDENT}))
    low = accuracies(net, images)
    for head in net.heads[:-1]:
        nn.init.constant_(head.linear.bias[-1:], 100.0)
    assert accuracies(net, images) == low
    assert min(low) > 0
