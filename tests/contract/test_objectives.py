"""What every objective must do, over the table; and what the joint loss is."""

import pytest
import torch
import torch.nn.functional as F

from splitexit.errors import UsageError
from splitexit.models.objectives import OBJECTIVES, Progress
from splitexit.models.objectives.joint import Joint

COSTS = (0.2, 0.6, 1.0)
HALF_WAY = Progress(COSTS, 0.5)


def outputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 5, generator=generator).requires_grad_() for _ in COSTS]


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.fixture(params=OBJECTIVES.names())
def objective(request):
    return OBJECTIVES.load(request.param)()


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


def test_half_precision_logits_are_judged_in_single(objective):
    logits = [z.detach().bfloat16() for z in outputs()]
    assert objective.loss(logits, LABELS, HALF_WAY).dtype == torch.float32


def test_one_exit_alone_is_plain_cross_entropy(objective):
    logits = outputs()[:1]
    loss = objective.loss(logits, LABELS, Progress((1.0,), 0.0))
    torch.testing.assert_close(loss, F.cross_entropy(logits[0], LABELS))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", [1, 1, 1]),
        ("cost", [0.2, 0.6, 1]),
        ("sdn", [0.01 + 0.2 / 2, 0.01 + 0.6 / 2, 1]),
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


@pytest.mark.parametrize("weights", ["costs", [1.0, 1.0]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(UsageError, match="objective 'joint'"):
        Joint(weights=weights).loss(outputs(), LABELS, HALF_WAY)
