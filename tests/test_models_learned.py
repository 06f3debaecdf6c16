"""Learned codecs that send a latent: their training, and that the codec in numpy is what was trained."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from typer.testing import CliRunner

from splitexit.cli import models as cli
from splitexit.codecs import CODECS, create, load
from splitexit.codecs._latent import even_table
from splitexit.errors import ArtifactError, InputError, PayloadError, UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.learned import LEARNED
from splitexit.models.learned.aecnn import AecnnNet
from splitexit.models.learned.bottlenetpp import BottleNetPlusPlusNet
from splitexit.models.learned.entropic import FactorisedPrior
from splitexit.models.macs import measure
from splitexit.models.train_codec import CodecRecipe, Training, at_split, spec_of, train_codec, with_tables
from tests.models_tiny import fresh_bundle, stripes, trained

SPLIT, SHAPE = 2, (8, 6, 6)
HEADER_BYTES = 10
IDS = [
    "aecnn:channels=3",
    "aecnn:bits=4,channels=3,refine=true",
    "bottlenetpp:channels=2",
    "bottlenetpp:bits=5,channels=3,stride=2",
    "progressive:channels=4",
    "entropic:channels=4",
    "entropic:channels=6,stride=2",
]


@cache
def net():
    return multi_exit.load(trained()).requires_grad_(False)


@cache
def parts():
    """Training images and validation images."""
    return data.parted(trained().spec, stripes())[:2]


@cache
def features(kind="validation"):
    """Behind the second of three stages."""
    images = data.read(stripes("test")) if kind == "test" else parts()[1]
    return at_split(net(), images, SPLIT, 60)


@cache
def learned(codec_id, epochs=2, seed=0, **options):
    """The trained network of a codec, and the codec with its tables."""
    recipe = CodecRecipe(options, epochs=epochs, batch=16, lr=0.01, seed=seed)
    spec = spec_of(codec_id, options)
    of = Training(net(), SPLIT, spec, recipe, parts()[0], lambda done, total: None).run()
    return of, create(codec_id, shape=SHAPE, tensors=with_tables(of, codec_id, features()))


def through(codec, maps):
    return np.stack([codec.decode(codec.encode(one)) for one in maps])


def loss_behind(maps):
    """Cross entropy of the final exit on the test images."""
    labels = torch.from_numpy(data.read(stripes("test")).labels)
    with torch.no_grad():
        end = net().run_stages(torch.from_numpy(maps), SPLIT, net().spec.num_stages)
        return float(F.cross_entropy(net().read_exit(end, net().spec.final_exit), labels))


def test_every_trained_codec_is_a_codec():
    assert set(LEARNED.names()) <= set(CODECS.names())
    assert all(CODECS.load(name).learned for name in LEARNED.names())
    assert {codec_id.split(":")[0] for codec_id in IDS} == set(LEARNED.names()) - {"bottleneck", "crbq"}


@pytest.mark.parametrize("codec_id", IDS)
def test_the_codec_computes_what_was_trained(codec_id):
    """Batch norms folded, on features that neither has seen; a value between two levels may go either way."""
    of, codec = learned(codec_id)
    with torch.no_grad():
        by_torch = of(torch.from_numpy(features("test"))).numpy()
    by_codec = through(codec, features("test"))
    assert by_codec.shape == by_torch.shape
    off = np.abs(by_codec - by_torch)
    assert np.quantile(off, 0.99) < 1e-4
    assert off.max() < 0.5 * by_torch.std()


@pytest.mark.parametrize("codec_id", IDS)
def test_training_helps(codec_id):
    (_, before), (_, after) = learned(codec_id, epochs=0), learned(codec_id, epochs=6)
    assert loss_behind(through(after, features("test"))) < loss_behind(through(before, features("test")))


@pytest.mark.parametrize("codec_id", IDS)
def test_tables_make_payloads_smaller(codec_id):
    """Than the levels are in so many bits each, which is what even tables come to."""
    of, codec = learned(codec_id)
    channels, symbols = of.tensors()["table"].shape
    flat = even_table(channels, symbols.bit_length() - 1)
    even = create(codec_id, shape=SHAPE, tensors={**of.tensors(), "table": flat})
    small, large = (sum(len(c.encode(one)) for one in features("test")) for c in (codec, even))
    assert small < large
    np.testing.assert_array_equal(codec.levels(features()[0]), even.levels(features()[0]))


def test_all_channels_as_they_are_give_the_features_back():
    """To the last bit, and so the logits of the network."""
    of, codec = learned("aecnn:bits=32,channels=8", epochs=0)
    np.testing.assert_array_equal(through(codec, features("test")), features("test"))
    with torch.no_grad():
        assert torch.equal(of(torch.from_numpy(features("test"))), torch.from_numpy(features("test")))
    _, refined = learned("aecnn:bits=32,channels=8,refine=true", epochs=0)
    np.testing.assert_array_equal(through(refined, features("test")), features("test"))


def test_important_channels_beat_random_ones():
    """At the same number, untrained decoder: what the final exit loses, averaged over three seeds each."""
    ranked, random = [], []
    for seed in (0, 1, 2):
        of, _ = learned("aecnn:channels=2", epochs=10, seed=seed)
        drawn = AecnnNet(of.features, channels=2, bits=8, refine=False)
        for kept, losses in ((of.kept, ranked), (_random(seed), random)):
            drawn._choose(kept)
            with torch.no_grad():
                losses.append(loss_behind(drawn(torch.from_numpy(features("test"))).numpy()))
    assert np.mean(ranked) < 0.8 * np.mean(random)


def _random(seed):
    return torch.from_numpy(np.random.default_rng(seed).permutation(SHAPE[0])[:2])


def test_the_order_decides_what_is_sent():
    ranked, _ = learned("aecnn:channels=2", epochs=10)
    assert set(ranked.kept.tolist()) == set(ranked.importance().topk(2).indices.tolist())
    drawn = [learned("aecnn:channels=2", epochs=0, seed=seed, order="random")[0].kept.tolist() for seed in range(4)]
    assert len(set(map(tuple, drawn))) > 1


def test_more_channels_or_bits_are_more_bytes():
    for ids in (["aecnn:channels=2", "aecnn:channels=4"], ["aecnn:bits=3,channels=3", "aecnn:channels=3"]):
        few, many = (sum(len(learned(i, epochs=0)[1].encode(one)) for one in features("test")) for i in ids)
        assert few < many


def test_features_of_both_signs_are_not_cut_at_zero():
    maps = torch.from_numpy(features()) - 1
    of = AecnnNet(maps, channels=8, bits=8, refine=False)
    codec = create("aecnn:channels=8", shape=SHAPE, tensors=of.tensors())
    assert np.abs(through(codec, maps.numpy()) - maps.numpy()).max() < 0.2 * np.ptp(maps.numpy())
    assert through(codec, maps.numpy()).min() < -0.5


@pytest.mark.parametrize("over", ["awgn", "erasure"])
def test_noise_crosses_the_latent_in_training_only(over):
    maps = torch.from_numpy(features())
    torch.manual_seed(0)
    of = BottleNetPlusPlusNet(maps, channels=2, stride=1, bits=8, over=over, noise=0.5).eval()
    with torch.no_grad():
        assert torch.equal(of(maps), of(maps))
    of.train()
    noisy = of(maps)
    assert not torch.equal(noisy, of(maps))
    noisy.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in of.parameters())


def test_noise_is_as_strong_as_the_encoder_is_told():
    of = BottleNetPlusPlusNet(torch.from_numpy(features()), channels=2, stride=1, bits=8, over="erasure", noise=1)
    latent = torch.full((400, 2, 5, 5), 1.0)
    strength = torch.tensor([0.0, 0.25, 1.0, 0.5]).repeat(100)[:, None, None, None]
    level = (of._crossed(latent, strength) * 255).round().to(torch.int)
    lost = 1 - sum((level >> bit) & 1 for bit in range(8)) / 8
    by_strength = lost.reshape(100, 4, -1).mean((0, 2))
    assert torch.allclose(by_strength, torch.tensor([0.0, 0.25, 1.0, 0.5]), atol=0.02)
    of.over = "awgn"
    spread = (of._crossed(latent, strength) - latent).reshape(100, 4, -1).transpose(0, 1).flatten(1).std(1)
    assert torch.allclose(spread, torch.tensor([0.0, 0.25, 1.0, 0.5]), atol=0.04)


def test_any_prefix_decodes_and_more_of_it_is_better():
    """Cut between slices: the very tensor that was meant to be sent so, and from slice to slice a smaller error."""
    of, codec = learned("progressive:channels=4", epochs=4)
    tensors = with_tables(of, codec.codec_id, features())
    errors, losses = [], []
    for send in (1, 2, 3, 4):
        short = create(f"progressive:channels=4,send={send}", shape=SHAPE, tensors=tensors)
        whole, part = codec.encode(features("test")[0]), short.encode(features("test")[0])
        body = part[HEADER_BYTES:]
        assert whole[HEADER_BYTES:].startswith(body)
        cut = whole[:HEADER_BYTES] + body
        np.testing.assert_array_equal(codec.decode(cut), short.decode(part))
        decoded = through(short, features("test"))
        errors.append(float(np.square(decoded - features("test")).mean()))
        losses.append(loss_behind(decoded))
    assert all(less < more for more, less in pairwise(errors))
    assert losses[0] > losses[-1]


def test_a_slice_that_is_cut_is_refused():
    _, codec = learned("progressive:channels=4")
    payload = codec.encode(features("test")[0])
    for bad in (payload[:-1], payload[: HEADER_BYTES + 1], payload[:HEADER_BYTES], payload + payload[HEADER_BYTES:]):
        with pytest.raises(PayloadError):
            codec.decode(bad)


def test_the_learned_prior_tells_what_is_sent():
    """Its bits are the payload's, which are close to what tables of the very features would need."""
    of, codec = learned("entropic:channels=4", epochs=6)
    with torch.no_grad():
        stated = of.bits(of.blocks.latent(torch.from_numpy(features("test"))).round()).numpy() / 8
    sent = np.array([len(codec.encode(one)) - HEADER_BYTES for one in features("test")])
    assert abs(sent.mean() - stated.mean()) < 0.05 * stated.mean() + 4
    refitted = create("entropic:channels=4", shape=SHAPE, tensors=codec.fitted(features("test")))
    assert sent.mean() + HEADER_BYTES < 1.2 * np.mean([len(refitted.encode(one)) for one in features("test")])


@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (3, 0.6)])
def test_the_quantiser_comes_with_the_inference(bits, most):
    """CR + BQ: the network is trained without it, so the codec is off by what its levels take, and fewer are worse."""
    of, codec = learned(f"crbq:bits={bits},channels=4")
    with torch.no_grad():
        unquantised = of(torch.from_numpy(features("test"))).numpy()
    off = np.abs(through(codec, features("test")) - unquantised).mean() / unquantised.std()
    assert 0.01 * most < off < most


def test_distillation_needs_no_labels():
    (_, before), (_, after) = (learned("crbq:channels=2,stride=2", epochs=epochs) for epochs in (0, 8))
    errors = [np.square(through(c, features("test")) - features("test")).mean() for c in (before, after)]
    assert errors[1] < errors[0]


def test_a_prior_s_probabilities_are_those_of_one_density():
    torch.manual_seed(0)
    prior = FactorisedPrior(2)
    levels = torch.arange(-300.0, 301.0).reshape(1, 1, -1, 1).expand(1, 2, -1, 1)
    with torch.no_grad():
        shares = prior(levels)[0, :, :, 0]
    assert torch.allclose(shares.sum(1), torch.ones(2), atol=1e-4)
    table = prior.table().astype(float) / 2**16
    assert np.abs(table[:, 1:-1] - shares[:, 173:427].numpy()).max() < 2e-3


def test_a_higher_rate_is_fewer_bytes():
    sizes = [
        sum(len(learned("entropic:channels=4", epochs=4, rate=rate)[1].encode(one)) for one in features("test"))
        for rate in (0.0, 0.02, 0.2)
    ]
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.parametrize("target", [20.0, 60.0])
def test_a_target_is_begun_at_and_kept_to(target):
    """At a rate that alone would end elsewhere."""
    for epochs, rate in ((0, 0.02), (6, 1e-4), (6, 0.3)):
        _, codec = learned("entropic:channels=4", epochs=epochs, rate=rate, target=target)
        sent = np.mean([len(codec.encode(one)) for one in features("test")]) - HEADER_BYTES
        assert 0.8 * target < sent < 1.3 * target + 6


def test_all_prefixes_stand_in_the_bundle(tmp_path):
    bundle = fresh_bundle(tmp_path)
    recipe = CodecRecipe(epochs=1, batch=16)
    reports = list(train_codec(bundle, "progressive:slices=2,channels=4", [SPLIT], recipe, source=stripes()))
    ids = ["progressive:channels=4,slices=2", "progressive:channels=4,send=1,slices=2"]
    assert [report.codec_id for report in reports] == ids
    assert reports[1].payload_bytes < reports[0].payload_bytes
    assert sorted(codecs.read(bundle)) == sorted((SPLIT, one) for one in ids)
    assert codecs.made(bundle)[f"{ids[1]}/s{SPLIT}"]["batch"] == 16
    codec = codecs.open_codecs(bundle, [(SPLIT, ids[1])])[SPLIT, ids[1]]
    assert codec.encoder_macs == 2 * 8 * 36


def test_encoders_cost_what_their_layers_cost():
    for codec_id in ("bottlenetpp:channels=2", "bottlenetpp:bits=5,channels=3,stride=2"):
        of, codec = learned(codec_id)
        with_plane = measure(of.encoder, (9, 6, 6)).macs
        assert codec.encoder_macs == with_plane * 8 // 9
    of, codec = learned("progressive:channels=4")
    assert codec.encoder_macs == measure(of.encoder, SHAPE).macs
    assert learned("aecnn:channels=3")[1].encoder_macs == 0


@pytest.mark.parametrize(
    ("codec_id", "shape", "words"),
    [
        ("aecnn:channels=9", SHAPE, "the tensor has 8 channels"),
        ("aecnn:bits=9,channels=2", SHAPE, "1 to 8, or 32"),
        ("progressive:channels=3", SHAPE, "4 slices of 3 channels"),
        ("progressive:channels=8,send=5", SHAPE, "there are 4 slices"),
        ("progressive:channels=4", (8, 300, 300), "take more slices"),
    ],
)
def test_codecs_that_do_not_fit_the_shape(codec_id, shape, words):
    with pytest.raises(InputError, match=words):
        create(codec_id, shape=shape, tensors={})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("step", [0.1, 0.1, 0.0], "empty"),
        ("low", [0.0, 1e39, 0.0], "no float32|finite|beyond"),
        ("table", np.ones((3, 256), np.uint16), "sum"),
        ("kept", [0, 5, 5], "ascending"),
        ("kept", [0, 5, 8], "below 8"),
        ("decoder.bias", np.zeros(7), "expected"),
    ],
)
def test_tensors_that_are_wrong_are_refused(name, value, words):
    of, _ = learned("aecnn:channels=3")
    with pytest.raises(ArtifactError, match=words):
        create("aecnn:channels=3", shape=SHAPE, tensors={**of.tensors(), name: np.asarray(value)})


@pytest.mark.parametrize("codec_id", [*IDS, "aecnn:bits=32,channels=8", "crbq:channels=2"])
@pytest.mark.filterwarnings("error")
def test_numbers_too_large_are_refused_or_clipped(codec_id):
    """Whatever finite features come, and whatever a payload holds, no infinity goes out."""
    _, codec = learned(codec_id, epochs=0)
    huge = np.full(SHAPE, 3e38, np.float32)
    for maps in (huge, -huge, huge * np.where(np.indices(SHAPE).sum(0) % 2, 1, -1).astype(np.float32)):
        try:
            assert np.isfinite(codec.decode(codec.encode(maps))).all()
        except PayloadError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("value", ["nan", "inf", "3e38"])
def test_raw_values_that_lead_to_no_number_are_refused(value):
    of, codec = learned("aecnn:bits=32,channels=8", epochs=0)
    louder = {**of.tensors(), "decoder.weight": 2 * of.tensors()["decoder.weight"]}
    codec = create("aecnn:bits=32,channels=8", shape=SHAPE, tensors=louder)
    payload = codec.encode(features()[0])
    bad = payload[:HEADER_BYTES] + np.full(SHAPE, value, "<f4").tobytes()
    with pytest.raises(PayloadError, match="too large"):
        codec.decode(bad)


def run(*arguments):
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, ["train-codec", *map(str, arguments)])


def test_the_command_trains(tmp_path):
    bundle = fresh_bundle(tmp_path)
    options = ("--split=2", "--epochs=1", "--option=over=awgn", "--option=noise=0.2", "--images=200")
    result = run(bundle.path, "--codec=bottlenetpp:stride=2,channels=3", *options)
    assert result.exit_code == 0, result.output
    assert "bottlenetpp:channels=3,stride=2" in result.stderr
    recipe = codecs.made(bundle)["bottlenetpp:channels=3,stride=2/s2"]
    assert recipe["options"] == {"over": "awgn", "noise": 0.2}
    assert load("bottlenetpp:channels=3").learned


def test_options_of_another_codec_are_refused():
    result = run(trained().path, "--codec=aecnn:channels=3", "--levels=16")
    assert isinstance(result.exception, UsageError)
    assert "levels" in str(result.exception)
    result = run(trained().path, "--codec=range", "--option=order=random")
    assert isinstance(result.exception, UsageError)
    assert "fitted, not trained" in str(result.exception)
