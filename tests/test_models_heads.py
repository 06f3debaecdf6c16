"""The single exit heads: what they compute, by hand, and what they cost, by formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from splitexit.errors import UsageError
from splitexit.models.exits import HEADS
from splitexit.models.exits.eenet import EENet
from splitexit.models.exits.exclusion import Exclusion
from splitexit.models.exits.msdnet import MSDNet
from splitexit.models.exits.pooled import Pooled
from splitexit.models.exits.sdn import SDN
from splitexit.models.exits.sidenet import SideNet
from splitexit.models.macs import measure
from splitexit.models.multi_exit import NetConfig, build, save
from splitexit.models.runtime import Runtime
from splitexit.models.spec import create, parse_spec


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def weights(module):
    return sum(p.numel() for p in module.parameters())


def head(text, shape, num_classes=10):
    return create(HEADS, parse_spec(text), shape=shape, num_classes=num_classes)


@pytest.mark.parametrize(
    ("text", "shape", "macs"),
    [
        ("pooled", (16, 32, 32), 16 * 10),
        ("pooled:size=3", (16, 32, 32), 16 * 9 * 10),
        ("pooled:size=4", (16, 2, 9), 16 * 2 * 4 * 10),
        ("eenet", (16, 32, 32), 16 * 11),
        ("eenet:trunk=bnpool", (16, 32, 32), 16 * 11),
        ("eenet:trunk=plain", (16, 8, 6), 16 * 8 * 6 * 11),
        ("sdn", (16, 32, 32), 16 * 16 * 10),
        ("sdn:size=2", (16, 7, 5), 16 * 4 * 10),
        ("sdn", (16, 7, 3), 16 * 4 * 3 * 10),
        ("sidenet", (64, 8, 8), 64 * 512 + 512 * 10),
        ("sidenet:hidden=32", (64, 8, 8), 64 * 32 + 32 * 10),
        ("exclusion", (64, 8, 8), 64 * 10),
        ("exclusion:size=2", (64, 8, 8), 64 * 4 * 10),
        ("msdnet", (160, 8, 8), 9 * 128 * (160 * 16 + 128 * 4) + 128 * 10),
        ("msdnet:width=16", (8, 5, 5), 9 * 16 * (8 * 9 + 16 * 4) + 16 * 10),
        ("bof", (16, 32, 32), 16 * 64 * 1024 + 64 * 10),
        ("bof:words=8,bins=2", (16, 7, 5), 16 * 8 * 35 + 32 * 10),
        ("bof:words=8,variant=classical", (16, 7, 5), 16 * 8 * 35 + 8 * 10),
    ],
)
def test_macs_equal_arithmetic(text, shape, macs):
    assert measure(head(text, shape), shape).macs == macs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conv:size=0", "exit head 'conv': size must be a whole number from 1 to 256, found 0"),
        ("eenet:trunk=max", "exit head 'eenet': trunk must be pool or bnpool or plain, found 'max'"),
        ("eenet:trunks=pool", "did you mean 'trunk'"),
        ("bof:variant=fuzzy", "exit head 'bof': variant must be logistic or classical, found 'fuzzy'"),
        ("msdnet:width=0", "exit head 'msdnet': width must be a whole number from 1 to 65536, found 0"),
    ],
)
def test_wrong_hyper_parameters_say_what_to_try(text, words):
    with pytest.raises(UsageError, match=words):
        head(text, (100, 1, 1))


# Pooled


def test_pooled_reads_the_mean_or_the_means_of_parts():
    maps = torch.randn(6, 5, 4, 6)
    one, four = Pooled(shape=(5, 4, 6), num_classes=4), Pooled(shape=(5, 4, 6), num_classes=4, size=2)
    assert torch.equal(one(maps), one.linear(maps.mean(dim=(2, 3))))
    torch.testing.assert_close(four(maps), four.linear(F.avg_pool2d(maps, (2, 3)).flatten(1)))
    assert list(one.state_dict()) == list(four.state_dict()) == ["linear.weight", "linear.bias"]


# EENet


@pytest.mark.parametrize(
    ("trunk", "parameters"), [("pool", 6 * 5), ("bnpool", 6 * 5 + 2 * 5), ("plain", (5 * 4 * 3 + 1) * 5)]
)
def test_eenets_exit_block_has_the_parameters_of_the_reference(trunk, parameters):
    assert weights(EENet(shape=(5, 4, 3), num_classes=4, trunk=trunk)) == parameters


def test_eenets_output_is_the_classifier_and_then_the_confidence():
    module, maps = EENet(shape=(5, 4, 3), num_classes=4), torch.randn(6, 5, 4, 3)
    output, pooled = module(maps), maps.mean(dim=(2, 3))
    torch.testing.assert_close(output[:, :4], pooled @ module.classifier.weight.T + module.classifier.bias)
    torch.testing.assert_close(output[:, 4:], pooled @ module.confidence.weight.T + module.confidence.bias)


def test_eenets_branches_learn_apart():
    module = EENet(shape=(5, 4, 3), num_classes=4)
    module(torch.randn(6, 5, 4, 3))[:, -1].sum().backward()
    assert module.confidence.weight.grad.any()
    assert module.classifier.weight.grad is None or not module.classifier.weight.grad.any()


def test_eenets_batch_norm_belongs_to_the_block():
    """In the authors' code a Python list hides it: never trained, saved or switched to evaluation."""
    module, maps = EENet(shape=(5, 4, 3), num_classes=4, trunk="bnpool"), 3 + torch.randn(6, 5, 4, 3)
    assert {"trunk.0.weight", "trunk.0.running_mean"} <= set(module.state_dict())
    module(maps)
    assert module.trunk[0].num_batches_tracked == 1
    module.eval()(maps)
    assert module.trunk[0].num_batches_tracked == 1


@pytest.mark.parametrize("trunk", ["pool", "bnpool", "plain"])
def test_eenets_exits_stand_behind_strides_too(trunk):
    """Where `plain` of the authors' code crashes: a ResNet-20 with its exits at equal distances."""
    head = {"name": "eenet", "trunk": trunk}
    net = build(NetConfig({"name": "resnet", "depth": 20, "width": 2}, (3, 16, 16), 10, (1 / 3, 2 / 3), head))
    assert len({stage.output_shape[1] for stage in net.spec.stages}) > 1
    assert [tuple(z.shape) for z in net(torch.rand(2, 3, 16, 16))] == [(2, 11), (2, 11), (2, 10)]


# SDN


@pytest.mark.parametrize("side", [8, 12, 32])
def test_sdn_pools_as_the_reference_where_four_divides_the_map(side):
    module, maps = SDN(shape=(3, side, side), num_classes=4), torch.randn(5, 3, side, side)
    kernel, m = side // 4, module.mix
    mixed = m * F.max_pool2d(maps, kernel) + (1 - m) * F.avg_pool2d(maps, kernel)
    torch.testing.assert_close(module(maps), module.linear(mixed.flatten(1)))


@pytest.mark.parametrize(("mix", "pool"), [(1.0, F.adaptive_max_pool2d), (0.0, F.adaptive_avg_pool2d)])
def test_sdns_mix_goes_from_mean_to_max(mix, pool):
    module, maps = SDN(shape=(3, 7, 5), num_classes=4), torch.randn(5, 3, 7, 5)
    torch.nn.init.constant_(module.mix, mix)
    torch.testing.assert_close(module(maps), module.linear(pool(maps, 4).flatten(1)))


def test_sdns_mix_starts_between_the_two_and_the_seed_decides_it():
    first = [SDN(shape=(3, 8, 8), num_classes=4).mix.item() for _ in range(20)]
    torch.manual_seed(0)
    assert first == [SDN(shape=(3, 8, 8), num_classes=4).mix.item() for _ in range(20)]
    assert len(set(first)) == 20
    assert all(0 <= mix < 1 for mix in first)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 2, 3)])
def test_sdn_reads_small_maps_whole_and_mixes_nothing(shape):
    module, maps = SDN(shape=shape, num_classes=4), torch.randn(5, *shape)
    assert [name for name, _ in module.named_parameters()] == ["linear.weight", "linear.bias"]
    torch.testing.assert_close(module(maps), module.linear(maps.flatten(1)))


# SideNet


def side_net():
    head = {"name": "sidenet", "hidden": 16}
    return build(NetConfig({"name": "resnet", "depth": 8, "width": 4}, (3, 16, 16), 10, (0.4,), head))


def test_sidenet_is_a_perceptron_on_the_means():
    module, maps = SideNet(shape=(5, 4, 3), num_classes=4, hidden=7), torch.randn(6, 5, 4, 3)
    first, _, second = module.perceptron
    hidden = (maps.mean(dim=(2, 3)) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(module(maps), hidden @ second.weight.T + second.bias)
    assert weights(module) == 6 * 7 + 8 * 4


def test_training_sidenet_leaves_a_frozen_mainnet_bit_for_bit_as_it_was():
    net, images, labels = side_net(), torch.rand(8, 3, 16, 16), torch.arange(8)
    net.freeze_backbone()
    side, main = (z.detach().clone() for z in net.eval()(images))
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net.train()
    for _ in range(5):
        optimiser.zero_grad()
        F.cross_entropy(net(images)[0], labels).backward()
        optimiser.step()
    after, same = net.eval()(images)
    assert torch.equal(main, same)
    assert F.cross_entropy(after, labels) < F.cross_entropy(side, labels)


@torch.no_grad()
@pytest.mark.parametrize("leaving", [0, 3, 8])
def test_sidenets_mean_cost_is_that_of_the_formula(leaving):
    """Head and SideNet for all samples, the tail for those that are not confident: multiply-accumulates, counted."""
    net, images = side_net().eval(), torch.rand(8, 3, 16, 16)
    ranked = torch.stack([net(image[None])[0].softmax(1).max() for image in images]).sort(descending=True).values
    alpha = float(ranked[leaving - 1]) if leaving else 1.1
    spent = 0
    for image in images:
        with FlopCounterMode(display=False) as counter:
            features = net.run_stages(image[None], 0, 1)
            if net.read_exit(features, 0).softmax(1).max() < alpha:
                net.read_exit(net.run_stages(features, 1, 2), 1)
        spent += counter.get_total_flops() // 2
    (head, tail), (side, final) = net.spec.stages, net.spec.exits
    stay = (8 - leaving) / 8
    assert spent / 8 == pytest.approx(head.macs + side.macs + stay * (tail.macs + final.macs), rel=1e-12)


# Class exclusion


def test_exclusion_of_size_one_is_the_layer_of_the_pooled_head():
    module, pooled = Exclusion(shape=(5, 4, 3), num_classes=4), Pooled(shape=(5, 4, 3), num_classes=4)
    pooled.load_state_dict(module.state_dict())
    maps = torch.randn(6, 5, 4, 3)
    torch.testing.assert_close(module(maps), pooled(maps))


def test_exclusion_of_size_two_reads_the_means_of_the_quarters():
    module, maps = Exclusion(shape=(5, 4, 6), num_classes=4, size=2), torch.randn(3, 5, 4, 6)
    quarters = [maps[:, :, y : y + 2, x : x + 3].mean(dim=(2, 3)) for y in (0, 2) for x in (0, 3)]
    torch.testing.assert_close(module(maps), module.linear(torch.stack(quarters, dim=2).flatten(1)))


def test_exclusion_repeats_no_value_of_a_smaller_map():
    module, maps = Exclusion(shape=(5, 1, 6), num_classes=4, size=2), torch.randn(3, 5, 1, 6)
    halves = torch.stack([maps[:, :, 0, :3].mean(2), maps[:, :, 0, 3:].mean(2)], dim=2)
    torch.testing.assert_close(module(maps), module.linear(halves.flatten(1)))


# Some classes alone


@pytest.fixture(params=["pooled", "pooled:size=2", "exclusion", "sdn", "bof:words=8", "conv:size=4", "eenet"])
def pruned(request):
    return build(
        NetConfig({"name": "resnet", "depth": 14, "width": 4}, (3, 16, 16), 10, (0.3, 0.6), parse_spec(request.param))
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("classes", [[7], [0, 3, 4, 9], [8, 2], list(range(10))])
def test_of_some_classes_every_exit_says_what_it_says_of_all(pruned, classes):
    chosen, images = torch.tensor(classes), torch.rand(5, 3, 16, 16)
    for exit_, stage in enumerate(pruned.spec.exit_stages):
        features = pruned.run_stages(images, 0, stage)
        few, all_ = pruned.read_exit(features, exit_, chosen), pruned.read_exit(features, exit_)[:, chosen]
        assert few.shape == (5, len(classes))
        torch.testing.assert_close(few, all_, rtol=1e-4, atol=1e-4)
        assert torch.equal(few.argmax(1), all_.argmax(1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("text", "rows"), [("pooled:size=2", 3), ("exclusion", 3), ("sdn", 3), ("bof", 3), ("eenet", 11)]
)
def test_a_linear_layer_computes_no_class_that_is_not_asked_for(text, rows):
    module, maps = head(text, (16, 8, 8)).eval(), torch.rand(1, 16, 8, 8)
    net = build(NetConfig({"name": "resnet", "depth": 8, "width": 16}, (3, 8, 8), 10, (0.4,), parse_spec(text))).eval()
    net.heads[0] = module
    with FlopCounterMode(display=False) as counter:
        net.read_exit(maps, 0, torch.tensor([1, 4, 6]))
    columns = 11 if text == "eenet" else 10
    assert counter.get_total_flops() // 2 == measure(module, (16, 8, 8)).macs - (columns - rows) * weights_of(module)


def weights_of(module):
    """That one class has in the last layer."""
    return (module.classifier if isinstance(module, EENet) else module.linear).in_features


def test_a_runtime_reads_some_classes_of_one_sample_and_of_several(tmp_path):
    config = NetConfig({"name": "resnet", "depth": 8, "width": 4}, (1, 16, 16), 10, (0.4,), {"name": "exclusion"})
    runtime = Runtime(save(build(config), tmp_path, {}))
    images = torch.rand(3, 1, 16, 16).numpy()
    features, classes = runtime.run_stages(images, 0, 2), np.array([9, 0, 4])
    together = runtime.read_exit(features, 1, classes)
    np.testing.assert_allclose(together, runtime.read_exit(features, 1)[:, classes], rtol=1e-4, atol=1e-4)
    alone = runtime.read_exit(features[0], 1, classes)
    assert alone.shape == (3,)
    np.testing.assert_allclose(alone, together[0], rtol=1e-4, atol=1e-4)


# MSDNet


def test_msdnets_mean_is_the_pooling_of_the_public_code_on_its_maps():
    """8×8 maps of CIFAR: two halvings leave 2×2, and average pooling of 2×2 one number for every channel."""
    module, maps = MSDNet(shape=(160, 8, 8), num_classes=100).eval(), torch.randn(2, 160, 8, 8)
    pooled = F.avg_pool2d(module.branch(maps), 2).flatten(1)
    torch.testing.assert_close(module(maps), module.pooled.linear(pooled))
    assert weights(module) == 9 * 128 * (160 + 128) + 4 * 128 + 129 * 100
