"""Bag-of-Features exits: histograms by hand, one shared classifier, and logits that add up wherever they are read."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import codecs, data, multi_exit, record
from splitexit.models.exits.bof import BoF
from splitexit.models.multi_exit import NetConfig, build
from splitexit.models.runtime import Runtime
from splitexit.models.spec import parse_spec
from splitexit.models.train import train
from tests.models_tiny import TINY, stripes

VARIANTS = ["logistic", "classical"]
SHAPE = (5, 6, 4)
WORDS = 7


def head(variant="logistic", shape=SHAPE, **more):
    """A head whose numbers are none of those it starts with."""
    torch.manual_seed(0)
    module = BoF(shape=shape, num_classes=4, words=WORDS, variant=variant, **more)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5) if parameter.ndim < 2 else nn.init.normal_(parameter)
    return module


def maps(shape=SHAPE, samples=3):
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(1))


def network(text="bof:words=8", shares=(0.3, 0.5, 0.8), seed=0, **more):
    """Four exits, of which the three early ones are of the kind that is asked for."""
    backbone = {"name": "resnet", "depth": 14, "width": 4}
    config = NetConfig(backbone, (1, 12, 12), 3, shares, parse_spec(text), cuts="blocks", **more)
    return build(config, seed).eval()


def images(samples=4):
    return torch.rand(samples, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def histograms(net, pixels):
    """What the early heads read of these images, by exit."""
    found, done, features = [], 0, pixels
    for bof, stage in zip(net.heads[:-1], net.spec.exit_stages, strict=False):
        features, done = net.run_stages(features, done, stage), stage
        found.append(bof.read(features))
    return found


# One head


def test_logistic_memberships_are_those_of_the_authors_code():
    module, x = head(), maps()
    membership, w = module.membership, module.membership.codewords
    z = torch.einsum("bchw,kc->bkhw", x, w.weight[:, :, 0, 0]) + w.bias.view(-1, 1, 1)
    a = (torch.tanh(membership.alpha * z + membership.gamma) + 1) / 2
    u = membership(x)
    torch.testing.assert_close(u, a / a.sum(dim=1, keepdim=True))
    torch.testing.assert_close(module.read(x), module.n2 * (module.n1 * u).mean(dim=(2, 3)))


def test_classical_memberships_fall_with_the_distance_to_the_codeword():
    module, x = head("classical"), maps()
    words, widths = module.membership.codewords.weight[:, :, 0, 0], module.membership.widths
    points = x.movedim(1, -1).reshape(-1, SHAPE[0])
    distance = (points[:, None] - words[None]).norm(dim=2)
    kernel = torch.exp(-distance / widths.abs())
    u = (kernel / kernel.sum(dim=1, keepdim=True)).view(3, 6, 4, WORDS).movedim(-1, 1)
    torch.testing.assert_close(module.membership(x), u)
    torch.testing.assert_close(module.read(x), module.n2 * (module.n1 * u).mean(dim=(2, 3)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_memberships_are_shares(variant, scale):
    u = head(variant).membership(scale * maps())
    assert u.shape == (3, WORDS, 6, 4)
    assert (u >= 0).all()
    torch.testing.assert_close(u.sum(dim=1), torch.ones(3, 6, 4))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_point_on_a_codeword_and_saturated_points_have_finite_gradients(variant):
    module = head(variant)
    on, far = module.membership.codewords.weight.detach().view(WORDS, SHAPE[0], 1, 1), torch.full((1, 5, 1, 1), -1e4)
    module(torch.cat([on, far, -far])).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_where_something_lies_in_the_map_does_not_matter(variant):
    module, x = head(variant), maps()
    moved = x.flatten(2)[:, :, torch.randperm(24, generator=torch.Generator().manual_seed(3))].view_as(x)
    assert not torch.equal(x, moved)
    torch.testing.assert_close(module.read(moved), module.read(x))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (6, 4), (9, 2)])
def test_every_map_becomes_a_histogram_of_one_size_and_mass(variant, size):
    fresh = BoF(shape=(5, *size), num_classes=4, words=WORDS, variant=variant)
    s = fresh.read(maps((5, *size)))
    assert s.shape == (3, WORDS)
    torch.testing.assert_close(s.sum(dim=1), torch.full((3,), float(WORDS)))
    other = BoF(shape=SHAPE, num_classes=4, words=WORDS, variant=variant).read(maps())
    torch.testing.assert_close(other.sum(dim=1), s.sum(dim=1))


@pytest.mark.parametrize(("words", "bins"), [(4, 1), (64, 1), (64, 2), (64, 4)])
def test_histograms_begin_in_two_equal_factors_and_with_a_norm_that_bins_leave(words, bins):
    fresh = BoF(shape=SHAPE, num_classes=4, words=words, bins=bins)
    assert fresh.n1.item() == fresh.n2.item()
    even = (fresh.n1 * fresh.n2).detach() / words * torch.ones(words * bins**2)
    torch.testing.assert_close(even.norm(), torch.tensor(words**0.5))


def test_bins_hold_the_histograms_of_parts_of_the_map():
    module, x = head(bins=2), maps()
    parts = [x[:, :, y : y + 3, z : z + 2] for y in (0, 3) for z in (0, 2)]
    alone = torch.stack([module.n1 * module.n2 * module.membership(part).mean(dim=(2, 3)) for part in parts], dim=2)
    torch.testing.assert_close(module.read(x), alone.flatten(1))
    assert module.linear.in_features == 4 * WORDS


def test_codewords_begin_as_clusters_of_what_is_read():
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x = centres.repeat(40, 1) + 0.1 * torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    module = BoF(shape=(2, 1, 1), num_classes=4, words=3, variant="classical")
    module.initialise(x.view(120, 2, 1, 1))
    found = module.membership.codewords.weight[:, :, 0, 0]
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.1
    torch.testing.assert_close(module.membership.widths, torch.full((3,), (8 + 8 + 128**0.5) / 3), rtol=0.02, atol=0)
    assert module.membership.widths.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_colour_alone_makes_codewords_too(variant):
    module = BoF(shape=(2, 4, 4), num_classes=4, words=6, variant=variant)
    module.initialise(torch.zeros(3, 2, 4, 4))
    assert torch.isfinite(module(torch.zeros(1, 2, 4, 4))).all()


def test_logistic_responses_begin_standardised():
    module, x = BoF(shape=SHAPE, num_classes=4, words=WORDS), 3 + 0.2 * maps()
    before = module.membership.codewords(x)
    module.initialise(x)
    z = module.membership.codewords(x)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(WORDS), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(dim=(0, 2, 3)), torch.ones(WORDS))
    for word in range(WORDS):
        both = torch.stack([before[:, word].flatten(), z[:, word].flatten()])
        assert both.corrcoef()[0, 1] > 0.999, "the direction is that which was drawn"


# Exits that add up


@pytest.mark.parametrize("text", ["bof:words=8", "bof:words=8,variant=classical", "bof:words=8,bins=2"])
def test_an_exit_adds_what_the_classifier_makes_of_its_own_histogram(text):
    net, pixels = network(text), images()
    assert [e.additive for e in net.spec.exits] == [False, True, True, False]
    own, said = histograms(net, pixels), net(pixels)
    weight, bias = net.heads[0].linear.weight, net.heads[0].linear.bias
    for exit_, logits in enumerate(said[:-1]):
        torch.testing.assert_close(logits, sum(own[: exit_ + 1]) @ weight.T + bias)
    for before, after, s in zip(said[:-2], said[1:-1], own[1:], strict=True):
        torch.testing.assert_close(after - before, s @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("variant", "scalars"), [("logistic", 4), ("classical", 2)])
def test_an_added_exit_brings_its_codewords_and_a_few_scalars(variant, scalars):
    text = f"bof:words=8,variant={variant}"
    count = [sum(p.numel() for p in network(text, shares).parameters()) for shares in ((0.3, 0.5), (0.3, 0.5, 0.8))]
    net = network(text)
    channels = net.spec.shape_at(net.spec.exit_stages[2])[0]
    assert count[1] - count[0] == channels * 8 + 8 + scalars
    assert not {p for p in net.heads[2].parameters() if p is not net.heads[0].linear.weight} & set(
        net.heads[0].parameters()
    )


def test_one_classifier_is_one_tensor_in_memory_and_on_disk(tmp_path):
    net = network()
    bundle = multi_exit.save(net, tmp_path, {})
    with safe_open(bundle.weights, "pt") as file:
        names = [name for name in file.keys() if "linear.weight" in name]  # noqa: SIM118  # it is no mapping
    assert len(names) == 2, "that of all early heads, and the final one"
    again = multi_exit.load(Bundle.open(tmp_path))
    for one in (net, again):
        assert all(later.linear.weight is one.heads[0].linear.weight for later in one.heads[1:-1])
        assert [early.linear.bias is None for early in one.heads[:-1]] == [False, True, True]
        assert one.heads[-1].linear.weight is not one.heads[0].linear.weight
    assert [e.additive for e in again.spec.exits] == [False, True, True, False]
    assert all(torch.equal(a, b) for a, b in zip(net(images()), again(images()), strict=True))
    with torch.no_grad():
        again.heads[2].linear.weight.zero_()
    assert not again.heads[0].linear.weight.any()


def test_other_histograms_cannot_share_a_classifier(tmp_path):
    multi_exit.save(network(), tmp_path, {})
    content = json.loads((tmp_path / "model.json").read_text())
    content["exits"][1]["head"]["words"] = 9
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="words and bins must be those of the first"):
        multi_exit.load(Bundle.open(tmp_path))


def test_weights_of_another_number_of_words_are_refused(tmp_path):
    multi_exit.save(network(), tmp_path, {})
    content = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(content.replace('"words": 8', '"words": 9'))
    with pytest.raises(ArtifactError, match="does not fit"):
        multi_exit.load(Bundle.open(tmp_path))


def test_a_final_classifier_of_this_kind_stands_alone():
    net = network(final={"name": "bof", "words": 8})
    assert not net.spec.exits[-1].additive
    assert net.heads[-1].linear.weight is not net.heads[0].linear.weight
    features = net.run_stages(images(), 0, net.spec.num_stages)
    assert torch.equal(net(images())[-1], net.heads[-1](features))


def test_behind_several_scales_they_read_the_coarsest_and_add_up():
    backbone = {"name": "msdnet", "depth": 4, "base": 2, "step": 1, "growth": 4}
    net = build(NetConfig(backbone, (1, 12, 12), 3, (0.01, 0.02), {"name": "bof", "words": 8})).eval()
    assert net.heads[1][1].linear.weight is net.heads[0][1].linear.weight
    first, second, _ = net(images())
    features = net.run_stages(images(), 0, 2)
    torch.testing.assert_close(second, first + net.read_exit(features, 1))


def test_cost_of_an_exit_holds_the_heads_that_it_adds_to():
    spec, costs = network().spec, network().relative_costs()
    stages = [sum(stage.macs for stage in spec.stages[: e.stage]) for e in spec.exits]
    heads = [e.macs for e in spec.exits]
    expected = [stages[0] + heads[0], stages[1] + sum(heads[:2]), stages[2] + sum(heads[:3]), stages[3] + heads[3]]
    assert costs == pytest.approx([macs / spec.macs for macs in expected], rel=1e-12)
    channels, height, width = spec.shape_at(spec.exits[1].stage)
    assert heads[1] == channels * 8 * height * width + 8 * 3


def test_every_head_runs_once_for_every_sample(tmp_path):
    net, counts = network(), [0, 0, 0]
    runtime = Runtime(multi_exit.save(net, tmp_path, {}))
    for number, bof in enumerate(runtime._net.heads[:-1]):
        bof.membership.register_forward_hook(lambda *_, n=number: counts.__setitem__(n, counts[n] + 1))
    runtime.exits_from(images()[0].numpy(), 0, (0, 1, 2, 3))
    assert counts == [1, 1, 1]


# Learning


def learns(net):
    """Names of the parameters that the sum of all exits' losses does not reach."""
    labels = torch.tensor([0, 1, 2, 0])
    sum(F.cross_entropy(z, labels) for z in net.train()(images())).backward()
    return [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("text", ["bof:words=8", "bof:words=8,variant=classical"])
def test_gradients_reach_every_parameter(text):
    assert learns(network(text)) == []


def test_a_later_exit_teaches_the_heads_that_it_adds_to():
    net = network()
    net(images())[2].square().sum().backward()
    assert all(net.heads[exit_].n2.grad != 0 for exit_ in range(3))
    assert net.heads[0].linear.bias.grad.any()


def test_sums_are_taken_in_single_precision():
    net, pixels = network(), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(pixels)
    assert [z.dtype for z in half] == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    torch.testing.assert_close(half[2], net(pixels)[2], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_network_learns(tmp_path, variant):
    head_ = {"name": "bof", "variant": variant}
    recipe = dataclasses.replace(TINY, head=head_, objective={"name": "joint", "weights": "uniform"})
    first, *_, last = train(recipe, source=stripes(), test=None, out=tmp_path).spec.training["epochs"]
    assert last["loss"] < 0.9 * first["loss"]
    assert min(last["accuracy"]) > 0.5


def test_an_interruption_changes_nothing(tmp_path):
    """Clusters are taken once: when a training begins, not when it goes on."""
    head_ = {"name": "bof", "words": 8, "variant": "classical"}
    recipe = dataclasses.replace(TINY, epochs=2, limit=120, head=head_)
    whole = train(recipe, source=stripes(), test=None, out=tmp_path / "whole")
    assert train(recipe, source=stripes(), test=None, out=tmp_path / "parts", stop_after=1) is None
    parts = train(recipe, source=stripes(), test=None, out=tmp_path / "parts")
    nets = [multi_exit.load(bundle).state_dict() for bundle in (whole, parts)]
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_them_alone_leaves_the_final_logits_bit_for_bit(tmp_path, variant):
    recipe = dataclasses.replace(TINY, epochs=1, limit=120)
    twin = train(dataclasses.replace(recipe, shares=()), source=stripes(), test=None, out=tmp_path / "twin")
    head_ = {"name": "bof", "words": 8, "variant": variant}
    later = dataclasses.replace(recipe, init=str(twin.path), freeze=True, head=head_)
    beside = multi_exit.load(train(later, source=stripes(), test=None, out=tmp_path / "exits"))
    assert torch.equal(beside(images())[-1], multi_exit.load(twin)(images())[-1])


@pytest.mark.parametrize(("variant", "other"), [("logistic", "codewords.bias"), ("classical", "widths")])
def test_looking_at_images_before_training_leaves_batch_norms_alone(variant, other):
    net = network(f"bof:words=8,variant={variant}").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.initialise(images())
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    expected = [f"heads.{n}.membership.{part}" for n in range(3) for part in (other, "codewords.weight")]
    assert sorted(changed) == sorted(expected)


# Recordings and the edge


@pytest.fixture
def bundle(tmp_path):
    return multi_exit.save(network(), tmp_path / "bundle", {})


@pytest.fixture
def parts():
    read = data.read(stripes("test"), "test").take(np.arange(6))
    return [record.Samples(part, read, np.arange(6)) for part in ("calibration", "test")]


def test_a_recording_holds_what_the_exits_say_and_not_what_they_add(bundle, parts):
    test = record.record(bundle, parts, [(0, "image")], keep_logits=True).test
    said = multi_exit.load(bundle)(torch.from_numpy(np.stack([parts[1].images.pixels(n) for n in range(6)])))
    for of_exit, logits in zip(test.exits, said, strict=True):
        np.testing.assert_allclose(of_exit.logits, logits.detach().numpy(), rtol=1e-4, atol=1e-4)
        assert (of_exit.prediction == logits.argmax(1).numpy()).all()
    assert not np.allclose(test.exits[1].logits, test.exits[0].logits, atol=1e-3)


def test_behind_a_lossy_codec_the_edge_adds_to_what_the_device_said(bundle, parts):
    """The device has read its exits on its own features; what comes behind is read on decoded ones."""
    split, pair = 3, (3, "uint8")
    assert [at <= split for at in bundle.spec.exit_stages] == [True, False, False, False]
    test = record.record(bundle, parts, [pair], all_edge_exits=True, keep_logits=True).test
    runtime, codec = Runtime(bundle), codecs.open_codecs(bundle, [pair])[pair]
    stages = bundle.spec.exit_stages
    for sample in range(6):
        features = runtime.run_stages(parts[1].images.pixels(sample), 0, split)
        decoded, total = codec.decode(codec.encode(features)), test.exits[0].logits[sample]
        for exit_ in (1, 2):
            total = runtime.read_exit(runtime.run_stages(decoded, split, stages[exit_]), exit_) + total
            np.testing.assert_array_equal(test.pair(*pair).exits[exit_].logits[sample], total)


def test_an_image_sent_lossily_is_read_by_all_exits_there(bundle, parts):
    pair = (0, "jpeg")
    test = record.record(bundle, parts, [pair], all_edge_exits=True, keep_logits=True).test
    codec = codecs.open_codecs(bundle, [pair])[pair]
    decoded = codec.decode(codec.encode(parts[1].images.pixels(0)))
    said = Runtime(bundle).exits_from(decoded, 0, (0, 1, 2))
    for exit_, logits in said.items():
        np.testing.assert_array_equal(test.pair(*pair).exits[exit_].logits[0], logits)


def test_exits_that_one_adds_to_are_read_on_the_way(bundle):
    runtime, image = Runtime(bundle), images()[0].numpy()
    whole = runtime.exits_from(image, 0, (0, 1, 2, 3))
    alone = runtime.exits_from(image, 0, (2,))
    assert list(alone) == [2]
    np.testing.assert_array_equal(alone[2], whole[2])
    split = bundle.spec.exit_stages[0]
    features = runtime.run_stages(image, 0, split)
    np.testing.assert_array_equal(runtime.exits_from(features, split, (2,), whole[0])[2], whole[2])
    with pytest.raises(ValueError, match="needs what the exit before it says"):
        runtime.exits_from(features, split, (2,))


def test_samples_together_say_what_each_says_alone(bundle):
    runtime, pixels = Runtime(bundle), images().numpy()
    together = runtime.exits_from(pixels, 0, (0, 1, 2, 3))
    for number, image in enumerate(pixels):
        for exit_, logits in runtime.exits_from(image, 0, (0, 1, 2, 3)).items():
            np.testing.assert_allclose(together[exit_][number], logits, rtol=1e-5, atol=1e-5)
