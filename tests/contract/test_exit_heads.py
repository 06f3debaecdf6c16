"""What every exit head must do, over the table."""

import pytest
import torch

from splitexit.models.exits import HEADS

SHAPES = [(16, 32, 32), (3, 1, 1), (64, 7, 5)]


@pytest.fixture(params=HEADS.names())
def head(request):
    return HEADS.load(request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_all_classes_for_any_map(head, shape):
    assert head(shape=shape, num_classes=7)(torch.rand(5, *shape)).shape == (5, 7)


def test_a_sample_is_judged_alone(head):
    module = head(shape=(8, 6, 6), num_classes=4).eval()
    maps = torch.rand(6, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([module(one[None]) for one in maps])
    torch.testing.assert_close(module(maps), alone)


def test_every_parameter_is_registered_and_learns(head):
    module = head(shape=(8, 6, 6), num_classes=4)
    module(torch.rand(6, 8, 6, 6)).square().sum().backward()
    assert list(module.parameters())
    assert all(p.grad is not None for p in module.parameters())
