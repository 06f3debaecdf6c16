"""What every objective must do, over the table."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from splitexit.models import multi_exit
from splitexit.models.multi_exit import NetConfig
from splitexit.models.objectives import OBJECTIVES, Progress
from splitexit.models.spec import create

COSTS = (0.2, 0.6, 1.0)
HALF_WAY = Progress(COSTS, 0.5)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
CLASSES = 5


class Confident(nn.Module):
    """The least head that learns a confidence: pooled class logits and one column more."""

    def __init__(self, *, shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(shape[0], num_classes + 1)

    def forward(self, features):
        """B×C×H×W -> B×(K+1)."""
        return self.linear(features.mean(dim=(2, 3)))


MATCHING = {"eenet": {"name": f"{__name__}:Confident"}}


def outputs(seed=0, scale=1.0):
    """Early exits have a column for a learned confidence, which not every objective reads."""
    generator = torch.Generator().manual_seed(seed)
    widths = [CLASSES + 1] * (len(COSTS) - 1) + [CLASSES]
    return [(scale * torch.randn(6, width, generator=generator)).requires_grad_() for width in widths]


def network(name):
    config = NetConfig(
        {"name": "resnet", "depth": 8, "width": 4},
        (1, 8, 8),
        CLASSES,
        (0.4, 0.7),
        MATCHING.get(name, {"name": "pooled"}),
    )
    return multi_exit.build(config).train()


def images():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=OBJECTIVES.names())
def name(request):
    return request.param


@pytest.fixture
def objective(name):
    return create(OBJECTIVES, {"name": name})


def test_a_finite_scalar_that_reaches_every_exit(objective):
    logits = outputs()
    loss = objective.loss(logits, LABELS, HALF_WAY)
    loss.backward()
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert all(z.grad is not None and z.grad.abs().sum() > 0 for z in logits)


def test_a_step_against_the_gradient_helps(objective):
    logits = outputs()
    before = objective.loss(logits, LABELS, HALF_WAY)
    before.backward()
    after = objective.loss([z - 0.1 * z.grad for z in logits], LABELS, HALF_WAY)
    assert after < before


def test_half_precision_outputs_are_judged_in_single(objective):
    logits = [z.detach().bfloat16() for z in outputs()]
    assert objective.loss(logits, LABELS, HALF_WAY).dtype == torch.float32
    assert objective.loss([z.double() for z in logits], LABELS, HALF_WAY).dtype == torch.float64


def test_one_exit_alone_learns_as_from_plain_cross_entropy(objective):
    alone, plain = outputs()[-1:], outputs()[-1]
    objective.loss(alone, LABELS, Progress((1.0,), 0.0)).backward()
    F.cross_entropy(plain, LABELS).backward()
    torch.testing.assert_close(alone[0].grad, plain.grad)


def test_saturated_outputs_give_a_finite_loss_and_gradient(objective):
    logits = outputs(scale=1e4)
    wrong = logits[-1].argmin(1)
    loss = objective.loss(logits, wrong, HALF_WAY)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(z.grad).all() for z in logits)


def test_gradients_reach_every_parameter(name, objective):
    net = network(name)
    objective.backward(net, net(images()), LABELS, Progress(net.relative_costs(), 0.5))
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_backward_gives_the_loss_without_its_graph(name, objective):
    net = network(name)
    progress = Progress(net.relative_costs(), 0.5)
    made = net(images())
    loss = objective.backward(net, made, LABELS, progress)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, objective.loss([z.detach() for z in made], LABELS, progress))


def test_gradients_of_two_backwards_add_up(name, objective):
    once, twice = network(name), network(name)
    progress = Progress(once.relative_costs(), 0.5)
    objective.backward(once, once(images()), LABELS, progress)
    for _ in range(2):
        objective.backward(twice, twice(images()), LABELS, progress)
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(2 * one.grad, two.grad)


def test_what_is_frozen_gets_no_gradient_and_the_rest_does(name, objective):
    net = network(name)
    net.freeze_backbone()
    net.train()
    objective.backward(net, net(images()), LABELS, Progress(net.relative_costs(), 0.5))
    with_gradient = {key for key, p in net.named_parameters() if p.grad is not None}
    assert with_gradient == {key for key, _ in net.named_parameters() if key.startswith(("heads.0", "heads.1"))}
