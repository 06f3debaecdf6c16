"""Codecs of a bundle: weights by (split, codec), and training the bottleneck."""

import dataclasses

import numpy as np
import pytest
import torch

from splitexit.errors import ArtifactError, InputError, UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.learned.bottleneck import BottleneckNet
from splitexit.models.train_codec import CodecRecipe, spec_of, train_codec
from tests.models_tiny import fresh_bundle, stripes, trained

ID = "bottleneck:channels=2"


def weights(seed=0, channels=2, wide=4):
    rng = np.random.default_rng(seed)
    return {
        "encoder.weight": rng.normal(size=(channels, wide)).astype(np.float32),
        "encoder.bias": np.zeros(channels, np.float32),
        "decoder.weight": rng.normal(size=(wide, channels)).astype(np.float32),
        "decoder.bias": np.zeros(wide, np.float32),
        "low": np.array(-3, np.float32),
        "high": np.array(3, np.float32),
    }


@pytest.fixture
def bundle(tmp_path):
    return fresh_bundle(tmp_path)


def features(net, split, n=32):
    images = data.read(stripes("test"))
    pixels = torch.from_numpy(images.images[:n]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return net.run_stages(pixels, 0, split)


def test_weights_come_back_by_split_and_codec(bundle):
    assert codecs.read(bundle) == {}
    assert codecs.made(bundle) == {}
    groups = {(1, ID): weights(0), (2, ID): weights(1)}
    codecs.write(bundle, groups, {"how": "by hand"})
    again = codecs.read(bundle)
    assert again.keys() == groups.keys()
    assert all(np.array_equal(again[1, ID][name], values) for name, values in groups[1, ID].items())
    assert codecs.made(bundle) == {"how": "by hand"}


def test_the_digest_tells_trainings_apart():
    assert codecs.digest(weights(0)) == codecs.digest(dict(reversed(weights(0).items())))
    assert codecs.digest(weights(0)) != codecs.digest(weights(1))


def test_a_bundles_codecs_are_opened_with_their_shapes_and_weights(bundle):
    codecs.write(bundle, {(1, ID): weights()}, {})
    opened = codecs.open_codecs(bundle, [(0, "png"), (1, ID), (2, "fp16")])
    assert {pair: codec.shape for pair, codec in opened.items()} == {
        (0, "png"): (1, 12, 12),
        (1, ID): (4, 12, 12),
        (2, "fp16"): bundle.spec.shape_at(2),
    }


@pytest.mark.parametrize(
    ("pair", "error", "words"),
    [
        ((1, "bottlneck:channels=2"), InputError, "did you mean 'bottleneck'"),
        ((1, "png"), InputError, "for split 0"),
        ((3, "raw"), InputError, r"splits are 0\.\.2"),
        ((2, ID), ArtifactError, "train-codec .* --codec bottleneck:channels=2 --split 2"),
    ],
)
def test_pairs_that_do_not_fit_say_what_to_try(bundle, pair, error, words):
    with pytest.raises(error, match=words):
        codecs.open_codecs(bundle, [pair])


def test_a_corrupt_file_is_refused(bundle):
    bundle.codec_weights.write_bytes(b"\x00" * 64)
    with pytest.raises(ArtifactError, match="train-codec"):
        codecs.read(bundle)


def test_it_starts_at_the_principal_components():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(6, 2, generator=generator) @ torch.randn(2, 40, generator=generator) + 5
    maps = plane.T.reshape(10, 4, 6).permute(0, 2, 1)[..., None].clamp_min(0)
    decoded = BottleneckNet(maps, 6, 256)(maps)
    span = BottleneckNet(maps, 6, 256)
    assert (decoded - maps).abs().max() < 6 * (span.high - span.low) / 255
    poor, rich = (torch.nn.functional.mse_loss(BottleneckNet(maps, c, 256)(maps), maps) for c in (1, 2))
    assert rich < 0.1 * poor


def test_training_and_codec_agree(bundle):
    net = multi_exit.load(bundle)
    maps = features(net, 1)
    bottleneck = BottleneckNet(maps, 2, 64)
    codecs.write(bundle, {(1, ID): bottleneck.tensors()}, {})
    codec = codecs.open_codecs(bundle, [(1, ID)])[1, ID]
    by_codec = np.stack([codec.decode(codec.encode(one)) for one in maps.numpy()])
    by_torch = bottleneck(maps).detach().numpy()
    step = (bottleneck.high - bottleneck.low) / 255
    # A value halfway between two levels may be rounded either way: almost all agree, none is off by more.
    off = np.abs(by_codec - by_torch)
    assert np.quantile(off, 0.99) < 1e-4
    assert off.max() < 2 * step


def test_the_gradient_passes_the_rounding():
    maps = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    bottleneck = BottleneckNet(maps, 2, 16)
    bottleneck(maps).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in bottleneck.parameters())


def test_fewer_levels_span_fewer_of_the_256():
    maps = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    fine, coarse = BottleneckNet(maps, 2, 256), BottleneckNet(maps, 2, 16)
    assert coarse.high - coarse.low == pytest.approx(17 * (fine.high - fine.low))


def test_training_helps_and_is_written_split_by_split(bundle):
    rough = CodecRecipe({"levels": 4}, epochs=0, batch=16)
    better = dataclasses.replace(rough, epochs=8, lr=0.02)
    (before,) = train_codec(bundle, "bottleneck:channels=1", [1], rough, source=stripes())
    after = list(train_codec(bundle, "bottleneck:channels=1", [1, 2], better, source=stripes()))
    assert after[0].accuracy >= before.accuracy
    assert after[0].accuracy > 0.8
    assert [report.split for report in after] == [1, 2]
    assert after[0].payload_bytes < 4 * 12 * 12 / 4
    assert set(codecs.read(bundle)) == {(1, "bottleneck:channels=1"), (2, "bottleneck:channels=1")}
    assert codecs.made(bundle)["bottleneck:channels=1/s2"]["epochs"] == 8


def test_only_the_bundles_own_images_train_its_codecs(bundle):
    with pytest.raises(UsageError, match="by their digest"):
        list(train_codec(bundle, ID, [1], CodecRecipe(), source=stripes("test")))


def test_what_is_trained_is_built_of_id_and_options():
    spec = {"name": "bottleneck", "channels": 4, "levels": 16}
    assert spec_of("bottleneck:channels=04", {"levels": 16}) == spec
    params = {"bits": 8, "channels": 3, "refine": False, "order": "random"}
    assert spec_of("aecnn:channels=3", {"order": "random"}) == {"name": "aecnn", **params}


@pytest.mark.parametrize(
    ("codec_id", "options", "words"),
    [
        ("uint8", {}, "neither trained nor fitted"),
        ("range", {}, "neither trained nor fitted"),
        ("bottleneck:channels=2", {"levels": 300}, "levels must be a whole number from 2 to 256"),
        ("aecnn:channels=2", {"oder": "random"}, "did you mean 'order'"),
        ("aecnn:channels=2", {"order": "worst"}, "importance or random"),
        ("aecnn:channels=2", {"bits": 4}, "write it into --codec"),
        ("bottlenetpp:channels=2", {"noise": 2}, "noise must be a number from 0 to 1"),
        ("progressive:channels=4,send=2", {}, "leave it out"),
    ],
)
def test_what_cannot_be_trained_is_refused(bundle, codec_id, options, words):
    with pytest.raises(UsageError, match=words):
        list(train_codec(bundle, codec_id, [1], CodecRecipe(options, epochs=0), source=stripes()))
    assert not bundle.codec_weights.exists()


def test_the_network_stays_frozen(bundle):
    before = bundle.weights.read_bytes()
    list(train_codec(bundle, ID, [2], CodecRecipe(epochs=1, batch=16), source=stripes()))
    assert bundle.weights.read_bytes() == before
    assert trained().weights.read_bytes() == before
