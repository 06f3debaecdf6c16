"""What every backbone must do, over the table."""

from itertools import accumulate

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from splitexit.bundle import Bundle
from splitexit.models import multi_exit
from splitexit.models.backbones import BACKBONES
from splitexit.models.macs import measure
from splitexit.models.multi_exit import NetConfig

SMALL = {
    "resnet": {"depth": 8, "width": 4},
    "resnet18": {"width": 4},
    "vgg-small": {"width": 1 / 32},
    "mobilenetv2": {"width": 0.2},
    "msdnet": {"depth": 3, "base": 2, "step": 2, "channels": 4, "growth": 2},
    "eenet8": {"width": 2},
}
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 48, 48), (3, 64, 64), (3, 32, 64)]


def test_every_backbone_has_a_small_variant_here():
    assert set(SMALL) == set(BACKBONES.names())


@pytest.fixture(params=BACKBONES.names())
def spec(request):
    return {"name": request.param, **SMALL[request.param]}


def net(spec, shape=(3, 32, 32), cuts="blocks", head="pooled"):
    channels = shape[0]
    norm = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    return multi_exit.build(NetConfig(spec, shape, 10, shares=(0.4,), cuts=cuts, head={"name": head}, **norm)).eval()


def pixels(shape, batch=1):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))


def used(model):
    """The network in evaluation mode, with the running statistics of real features."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches, without what they start with
    model.train()
    with torch.no_grad():
        model(pixels((3, 32, 32), batch=8))
    return model.eval()


def test_hyper_parameters_are_stored_under_their_names(spec):
    backbone = BACKBONES.load(spec["name"])(**SMALL[spec["name"]])
    assert {key: getattr(backbone, key) for key in SMALL[spec["name"]]} == SMALL[spec["name"]]


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_in_the_description_are_those_that_come_out(spec, shape):
    model = net(spec, shape)
    features = pixels(shape, batch=2)
    for stage, described in enumerate(model.spec.stages):
        features = model.run_stages(features, stage, stage + 1)
        assert tuple(features.shape[1:]) == described.output_shape


@pytest.mark.parametrize("shape", SHAPES)
def test_macs_equal_torchs_flop_counter(spec, shape):
    model = net(spec, shape)
    features = pixels(shape)
    exits = {e.stage: (number, e) for number, e in enumerate(model.spec.exits)}
    for stage, described in enumerate(model.spec.stages):
        with FlopCounterMode(display=False) as counter:
            features = model.run_stages(features, stage, stage + 1)
        assert counter.get_total_flops() == 2 * described.macs
        if stage + 1 in exits:
            number, exit_ = exits[stage + 1]
            with FlopCounterMode(display=False) as counter:
                model.read_exit(features, number)
            assert counter.get_total_flops() == 2 * exit_.macs


def test_running_in_two_parts_is_bit_exact_at_every_split(spec):
    model, image = net(spec), pixels((3, 32, 32))
    with torch.no_grad():
        whole = model(image)[-1]
        for split in range(model.spec.num_stages + 1):
            sent = torch.from_numpy(model.run_stages(image, 0, split).numpy().copy())
            features = model.run_stages(sent, split, model.spec.num_stages)
            assert torch.equal(model.read_exit(features, model.spec.final_exit), whole)


def test_every_parameter_learns(spec):
    # In evaluation mode, because a bias in front of a batch norm does nothing in training.
    model = used(net(spec))
    loss = sum(z.square().sum() for z in model(pixels((3, 32, 32), batch=4)))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_image_is_judged_alone(spec):
    model, images = used(net(spec)), pixels((3, 32, 32), batch=5)
    with torch.no_grad():
        together, alone = model(images), zip(*(model(image[None]) for image in images), strict=True)
    for outputs, single in zip(together, alone, strict=True):
        torch.testing.assert_close(outputs, torch.cat(single), rtol=1e-5, atol=1e-5)
        assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_the_seed_decides_the_weights(spec):
    first, again = net(spec).state_dict(), net(spec).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("cuts", ["exits", "blocks"])
def test_the_description_alone_builds_the_same_modules(spec, cuts):
    model = net(spec, cuts=cuts)
    again = multi_exit.from_spec(type(model.spec).from_json(model.spec.to_json()))
    again.load_state_dict(model.state_dict())
    image = pixels((3, 32, 32))
    assert all(torch.equal(a, b) for a, b in zip(model(image), again.eval()(image), strict=True))


@pytest.mark.parametrize("head", ["pooled", "conv"])
def test_what_was_saved_answers_the_same(spec, head, tmp_path):
    model = used(net(spec, head=head))
    multi_exit.save(model, tmp_path, {})
    again = multi_exit.load(Bundle.open(tmp_path))
    image = pixels((3, 32, 32))
    assert all(torch.equal(a, b) for a, b in zip(model(image), again(image), strict=True))


def test_no_exit_lies_in_front_of_the_first_place(spec):
    first = BACKBONES.load(spec["name"]).first_exit
    channels = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    model = multi_exit.build(NetConfig(spec, (3, 32, 32), 10, shares=(1e-9,), cuts="blocks", **channels))
    assert model.spec.exit_stages[0] == first


def test_block_costs_add_up_to_the_whole(spec):
    blocks = BACKBONES.load(spec["name"])(**SMALL[spec["name"]]).blocks(3)
    shape, spent = (3, 32, 32), []
    for block in blocks:
        cost = measure(block, shape)
        shape = cost.output_shape
        spent.append(cost.macs)
    assert list(accumulate(spent))[-1] == measure(torch.nn.Sequential(*blocks), (3, 32, 32)).macs
