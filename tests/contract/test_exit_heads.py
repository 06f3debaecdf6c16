"""What every exit head must do, over the table."""

from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors.torch import load, save
from torch.utils.flop_counter import FlopCounterMode

from splitexit.bundle import Bundle
from splitexit.errors import UsageError
from splitexit.models import multi_exit
from splitexit.models.exits import HEADS, Additive
from splitexit.models.exits.pooled import Pooled
from splitexit.models.macs import measure
from splitexit.models.multi_exit import NetConfig
from splitexit.models.spec import create

SHAPES = [(16, 32, 32), (3, 1, 1), (64, 7, 5), (2, 13, 9)]
MAP = (8, 12, 10)
"""Wider than what any head leaves as it is, so that all its parts are there."""


@pytest.fixture(params=HEADS.names())
def name(request):
    return request.param


@pytest.fixture
def head(name):
    return HEADS.load(name)


def used(head, shape=MAP):
    """A head whose running statistics, if it has any, are no longer those it starts with; in evaluation mode."""
    torch.manual_seed(0)
    module = head(shape=shape, num_classes=4)
    module(torch.rand(6, *shape) * 2)
    return module.eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_all_classes_and_at_most_a_confidence_for_any_map(head, shape):
    rows, columns = head(shape=shape, num_classes=7)(torch.rand(5, *shape)).shape
    assert rows == 5
    assert columns in (7, 8)


def test_a_sample_is_judged_alone(head):
    module = used(head)
    maps = torch.rand(6, *MAP, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([module(one[None]) for one in maps])
    torch.testing.assert_close(module(maps), alone, rtol=1e-5, atol=1e-5)


def test_every_parameter_is_registered_and_learns(head):
    torch.manual_seed(0)
    module = head(shape=MAP, num_classes=4)
    module(torch.rand(6, *MAP)).square().sum().backward()
    assert list(module.parameters())
    assert [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_weights_survive_a_file(head):
    module, again = used(head), head(shape=MAP, num_classes=4).eval()
    maps = torch.rand(2, *MAP)
    assert not torch.equal(module(maps), again(maps))
    again.load_state_dict(load(save(module.state_dict())))
    assert torch.equal(module(maps), again(maps))


@pytest.mark.parametrize("shape", SHAPES)
def test_macs_equal_torchs_flop_counter(head, shape):
    module = head(shape=shape, num_classes=7).eval()
    cost = measure(module, shape)
    with FlopCounterMode(display=False) as counter:
        output = module(torch.rand(1, *shape))
    assert cost.macs == counter.get_total_flops() // 2 > 0
    assert cost.layers > 0
    assert cost.output_shape == output.shape[1:]


def test_half_precision_and_channels_last_are_fine(head):
    torch.manual_seed(0)
    module, maps = used(head), torch.rand(4, *MAP)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(maps.to(memory_format=torch.channels_last))
    torch.testing.assert_close(half.float(), module(maps), rtol=0.05, atol=0.05)


def test_hyper_parameters_beyond_their_range_are_refused(name):
    hints = get_type_hints(HEADS.load(name).__init__, include_extras=True)
    for key, hint in hints.items():
        if get_origin(hint) is Annotated:
            _, least, most = get_args(hint)
            for value in (least.ge - 1, most.le + 1, least.ge + 0.5, str(most.le), True):
                with pytest.raises(UsageError, match=f"exit head '{name}': {key} must be a whole number from"):
                    create(HEADS, {"name": name, key: value}, shape=MAP, num_classes=4)


def test_a_network_with_it_is_the_same_after_saving_and_loading(name, tmp_path):
    config = NetConfig({"name": "resnet", "depth": 8, "width": 4}, (1, 16, 12), 3, (0.3, 0.6), {"name": name})
    net = multi_exit.build(config).eval()
    multi_exit.save(net, tmp_path, {})
    images = torch.rand(2, 1, 16, 12)
    outputs = net(images)
    again = multi_exit.load(Bundle.open(tmp_path))(images)
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))
    assert [z.shape[1] in (3, 4) for z in outputs[:-1]] == [True, True]
    assert outputs[-1].shape == (2, 3)


@torch.no_grad()
def test_read_one_after_another_the_exits_say_what_they_say_in_one_pass(name):
    """Some put out what they add to the exit before them; all do so where a training has let them begin from images."""
    config = NetConfig({"name": "resnet", "depth": 8, "width": 4}, (1, 16, 12), 3, (0.3, 0.6), {"name": name})
    net, images = multi_exit.build(config).train(), torch.rand(4, 1, 16, 12)
    net.initialise(images)
    features, done, said = images, 0, []
    for exit_, of in enumerate(net.eval().spec.exits):
        features, done = net.run_stages(features, done, of.stage), of.stage
        output = net.read_exit(features, exit_)
        said.append(output + said[-1] if of.additive else output)
    assert all(torch.equal(a, b) for a, b in zip(said, net(images), strict=True))


def test_an_additive_head_adds_to_its_own_kind_alone(head):
    module = head(shape=MAP, num_classes=4)
    if isinstance(module, Additive):
        with pytest.raises(UsageError, match="of the first"):
            module.follow(Pooled(shape=MAP, num_classes=4))
    else:
        assert not hasattr(module, "follow")
