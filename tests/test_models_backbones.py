"""Each backbone against the costs and parameter counts that are published for it."""

from itertools import accumulate

import pytest
import torch
from torch import nn

from splitexit.errors import UsageError
from splitexit.models import multi_exit
from splitexit.models.backbones import BACKBONES
from splitexit.models.backbones.msdnet import MSDNet, Scales, pack, unpack
from splitexit.models.macs import measure
from splitexit.models.multi_exit import LastChannels, NetConfig
from splitexit.models.spec import create, parse_spec


def backbone(text):
    return create(BACKBONES, parse_spec(text))


def whole(text, channels=3):
    return nn.Sequential(*backbone(text).blocks(channels)).eval()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def macs_by_block(text, shape):
    """Multiply-accumulates of every block, and the shape at the end."""
    macs = []
    for block in backbone(text).blocks(shape[0]):
        cost = measure(block, shape)
        macs.append(cost.macs)
        shape = cost.output_shape
    return macs, shape


def network(text, shape=(3, 32, 32), **more):
    return multi_exit.build(NetConfig(parse_spec(text), shape, 10, mean=(0.5,) * 3, std=(0.25,) * 3, **more)).eval()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnet18:width=0", "width must be a whole number from 1, found 0"),
        ("resnet18:stem=big", "stem must be small or imagenet, found 'big'"),
        ("vgg-small:width=0", "width must be a number from 0.0078125 to 16"),
        ("vgg-small:width=half", "found 'half'"),
        ("mobilenetv2:width=5", "width must be a number from 0.1 to 4"),
        ("mobilenetv2:stem=1", "stem must be small or imagenet"),
        ("eenet8:width=1.5", "width must be a whole number from 1"),
        ("msdnet:depth=0", "depth must be a whole number from 1, found 0"),
        ("msdnet:step=true", "step must be a whole number"),
        ("msdnet:factors=1", "factors must be a list of 2 or more such as 1/2/4, each a whole number from 1"),
        ("msdnet:factors=1/2", "bottleneck must be as long as factors"),
        ("msdnet:factors=1/1/1,growth=5", "growth must be even"),
        ("msdnet:reduction=0", "reduction must be a number above 0 to 1"),
        ("msdnet:stem=big", "stem must be small or imagenet"),
        ("msdnet:scales=3", "has no 'scales'"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused_in_one_line(text, words):
    with pytest.raises(UsageError, match=words) as refused:
        backbone(text)
    assert "\n" not in str(refused.value)


# torchvision documents 11,689,512 parameters and 1.814 G multiply-accumulates, 513,000 and 512,000 of them the
# classifier's; on CIFAR, with the small stem, 11,173,962 and 5,130 are what is usual.
@pytest.mark.parametrize(("stem", "count"), [("imagenet", 11_689_512 - 513_000), ("small", 11_173_962 - 5_130)])
def test_resnet18_has_the_published_parameters(stem, count):
    assert parameters(whole(f"resnet18:stem={stem}")) == count


@pytest.mark.parametrize(
    ("stem", "size", "first", "stem_macs"),
    [("imagenet", 224, 56, 3 * 49 * 64 * 112**2), ("small", 64, 64, 3 * 9 * 64 * 64**2)],
)
def test_resnet18_macs_equal_arithmetic(stem, size, first, stem_macs):
    groups = 4 * 9 * 64 * 64 * first**2
    for group in (1, 2, 3):
        c, positions = 64 * 2**group, (first // 2**group) ** 2
        groups += positions * c * (9 * c // 2 + c // 2 + 3 * 9 * c)
    macs, shape = macs_by_block(f"resnet18:stem={stem}", (3, size, size))
    assert sum(macs) == stem_macs + groups
    assert shape == (512, first // 8, first // 8)
    if stem == "imagenet":
        assert sum(macs) + 512_000 == pytest.approx(1.814e9, rel=1e-3)


# Cumulative shares at the six exits of class exclusion's own network (arXiv 2309.13443) by arithmetic, of 617 M.
def test_vgg_small_costs_what_the_paper_s_does():
    macs, shape = macs_by_block("vgg-small", (3, 32, 32))
    total = sum(macs) + 10_240
    assert shape == (1024, 1, 1)
    assert total == pytest.approx(617e6, abs=0.5e6)
    shares = [spent / total for spent in accumulate(macs)][:6]
    assert shares == pytest.approx((0.006, 0.250, 0.373, 0.618, 0.740, 0.985), abs=6e-4)


def test_vgg_small_takes_an_exit_behind_every_convolution():
    net = network("vgg-small:width=0.125", shares=(0.001, 0.2, 0.3, 0.5, 0.7, 0.9), cuts="blocks")
    assert net.spec.exit_stages == (1, 2, 3, 4, 5, 6, 8)
    assert [net.spec.shape_at(s) for s in (2, 6, 7)] == [(16, 16, 16), (64, 4, 4), (128, 1, 1)]


def test_half_of_vgg_small_is_half_as_wide():
    macs, shape = macs_by_block("vgg-small:width=0.5", (3, 32, 32))
    full, _ = macs_by_block("vgg-small", (3, 32, 32))
    assert shape == (512, 1, 1)
    assert [4 * m for m in macs[1:]] == full[1:]
    assert 2 * macs[0] == full[0]


def test_at_32_pixels_vgg_small_s_linear_layers_read_every_element():
    """No average is left in front of them: swapping two places of a map changes what comes out."""
    *_, first, _ = backbone("vgg-small:width=0.1").blocks(3)
    channels = first[1].in_channels
    maps = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    linear = torch.relu(maps.flatten(1) @ first[1].weight.flatten(1).T + first[1].bias)
    torch.testing.assert_close(first(maps).flatten(1), linear)


# torchvision documents 3,504,872 parameters and 0.301 G multiply-accumulates, the classifier's 1,281,000 and
# 1,280,000 of them; the paper rounds to 3.4 M and 300 M.
def test_mobilenetv2_has_the_published_size():
    macs, shape = macs_by_block("mobilenetv2:stem=imagenet", (3, 224, 224))
    assert parameters(whole("mobilenetv2:stem=imagenet")) == 3_504_872 - 1_281_000
    assert sum(macs) + 1_280_000 == pytest.approx(300.8e6, rel=1e-3)
    assert shape == (1280, 7, 7)
    assert len(macs) == 19


def test_the_small_stem_of_mobilenetv2_has_the_same_weights_and_larger_maps():
    assert parameters(whole("mobilenetv2")) == 3_504_872 - 1_281_000
    assert measure(whole("mobilenetv2:width=0.35"), (3, 32, 32)).output_shape == (1280, 4, 4)
    assert measure(whole("mobilenetv2:width=0.35,stem=imagenet"), (3, 64, 64)).output_shape == (1280, 2, 2)
    assert measure(whole("mobilenetv2:width=1.4"), (3, 32, 32)).output_shape == (1792, 4, 4)


@pytest.mark.parametrize(("width", "total"), [(2, 1_490), (4, 5_332)])
def test_eenet8_has_the_authors_parameters_with_their_exits(width, total):
    """Grey images, 10 classes: an exit is a classifier and a confidence, each linear in the averaged channels."""
    exits = sum((channels + 1) * 11 for channels in (width, 2 * width))
    final = (4 * width + 1) * 10
    assert parameters(whole(f"eenet8:width={width}", channels=1)) + exits + final == total


@pytest.mark.parametrize(("width", "total"), [(2, 1_490), (4, 5_332)])
def test_eenet8_with_eenet_heads_has_them_too(width, total):
    spec, norm = {"name": "eenet8", "width": width}, {"mean": (0.5,), "std": (0.25,)}
    net = multi_exit.build(NetConfig(spec, (1, 28, 28), 10, shares=(0.01, 0.6), head={"name": "eenet"}, **norm))
    assert net.spec.backbone["cuts"] == [2, 3, 4]
    assert parameters(net) == total


def test_eenet8_s_exits_lie_behind_the_first_two_blocks():
    macs, shape = macs_by_block("eenet8", (1, 28, 28))
    assert shape == (16, 7, 7)
    shares = [spent / (sum(macs) + 160) for spent in accumulate(macs)]
    assert shares[1:3] == pytest.approx((0.42, 0.71), abs=0.005)


def test_eenet8_s_stem_activates_for_the_first_block():
    stem, first, second, _ = backbone("eenet8").blocks(1)
    kinds = [[type(m) for m in block.modules() if not list(m.children())] for block in (stem, first, second)]
    assert kinds[0] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds[1][0] is nn.Conv2d
    assert kinds[2][:2] == [nn.BatchNorm2d, nn.ReLU]


class Reference:
    """What the public op counter of MSDNet counts: conv layers, ReLU and average pooling by element, and heads.

    Heads are two 3×3 convolutions of stride 2 with BN and ReLU, a mean over 2×2, and a linear layer with bias; as in
    its tables, an exit pays for the heads before it too.
    """

    def __init__(self, text, size, classes, width):
        self.backbone, self.classes, self.width, self.shape = backbone(text), classes, width, (3, size, size)

    def exits(self):
        """For every exit, operations and parameters up to it."""
        operations = parameters_ = 0
        for number, block in enumerate(self.backbone.blocks(3), start=1):
            operations += measure(block, self.shape).macs + relu_elements(block, self.shape)
            self.shape = measure(block, self.shape).output_shape
            parameters_ += parameters(block)
            head_operations, head_parameters = self.head(self.backbone.head_channels(number))
            operations += head_operations
            parameters_ += head_parameters
            yield operations / 1e6, parameters_ / 1e6

    def head(self, channels):
        """Operations and parameters of the head behind a coarsest map of so many channels."""
        width, (_, height, _) = self.width or channels, self.shape
        positions = (-(-height // 2)) ** 2, (-(-height // 4)) ** 2
        weights = 9 * channels * width, 9 * width * width
        pooled = (-(-height // 4) // 2) ** 2
        linear = (width * pooled + 1) * self.classes
        convolutions = sum(p * (w + width) for p, w in zip(positions, weights, strict=True))
        return convolutions + 4 * pooled * width + linear, sum(weights) + 4 * width + linear


def relu_elements(block, shape):
    counted = []
    for module in block.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, inputs, output: counted.append(output.numel()))
    with torch.no_grad():
        block.eval()(torch.zeros(1, *shape))
    return sum(counted)


# Million operations and parameters of the 7 exits that Han et al. (TNNLS 2023) train on CIFAR-100.
CIFAR_OPERATIONS = (15.14, 25.51, 37.10, 46.33, 57.34, 66.96, 75.94)
CIFAR_PARAMETERS = (0.434, 0.877, 1.275, 1.696, 2.178, 2.603, 3.068)
IMAGENET = "msdnet:depth=5,base=4,step=4,channels=32,growth=16,factors=1/2/4/4,bottleneck=1/2/4/4,stem=imagenet"
IMAGENET_OPERATIONS = (339.9, 685.5, 1008.2, 1254.5, 1360.5)


def test_msdnet_on_cifar_costs_what_the_reference_does():
    operations, count = zip(*Reference("msdnet", 32, 100, width=128).exits(), strict=True)
    assert operations == pytest.approx(CIFAR_OPERATIONS, abs=0.006)
    assert count == pytest.approx(CIFAR_PARAMETERS, abs=6e-4)


def test_multiply_accumulates_of_msdnet_lie_within_2_percent_of_the_reference():
    macs, shape = macs_by_block("msdnet", (3, 32, 32))
    heads = [9 * 128 * (c * 16 + 128 * 4) + 12_800 for c in map(backbone("msdnet").head_channels, range(1, 8))]
    spent = [m / 1e6 for m in accumulate(m + h for m, h in zip(macs, heads, strict=True))]
    assert spent == pytest.approx(CIFAR_OPERATIONS, rel=0.02)
    relative = [m / spent[-1] for m in spent]
    assert relative == pytest.approx([m / CIFAR_OPERATIONS[-1] for m in CIFAR_OPERATIONS], rel=0.02)
    assert shape[1:] == (8, 8)


def test_msdnet_on_imagenet_costs_what_the_reference_does():
    operations, _ = zip(*Reference(IMAGENET, 224, 1000, width=None).exits(), strict=True)
    assert operations == pytest.approx(IMAGENET_OPERATIONS, rel=0.01)


def test_msdnet_holds_three_scales_then_two_then_one():
    counts = [len(block.layers[-1].grow) for block in MSDNet().blocks(3)]
    assert counts == [3, 3, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("text", ["msdnet:depth=2,base=1,step=1", "msdnet:depth=1,base=1", "msdnet:depth=3,base=2"])
def test_msdnet_of_few_layers_ends_in_one_scale_too(text):
    spec = f"{text},channels=4,growth=2"
    assert measure(whole(spec), (3, 16, 16)).output_shape == (backbone(spec).head_channels(backbone(spec).depth), 4, 4)


@pytest.mark.parametrize("channels", [(3,), (3, 2), (1, 2, 4)])
def test_packing_is_exact(channels):
    scales = len(channels)
    maps = [torch.rand(2, c, 3 * 2 ** (scales - 1 - k), 5 * 2 ** (scales - 1 - k)) for k, c in enumerate(channels)]
    packed = pack(maps)
    assert packed.shape == (2, sum(m[0].numel() for m in maps) // 15, 3, 5)
    assert torch.equal(packed[:, -channels[-1] :], maps[-1])
    assert all(torch.equal(a, b) for a, b in zip(unpack(packed, channels), maps, strict=True))


def test_what_msdnet_computes_does_not_depend_on_where_its_blocks_end():
    wide = MSDNet(depth=3, base=2, step=2, channels=4, growth=2).blocks(3)
    fine = MSDNet(depth=6, base=1, step=1, channels=4, growth=2).blocks(3)
    layers = [layer for block in wide for layer in block.layers]
    for block, layer in zip(fine, layers, strict=True):
        block.layers[0].load_state_dict(layer.state_dict())
    fine[0].entry.load_state_dict(wide[0].entry.state_dict())
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        outputs = [nn.Sequential(*blocks).eval()(images) for blocks in (wide, fine)]
    assert torch.equal(*outputs)


def test_msdnet_s_exits_read_the_coarsest_scale_alone():
    net = network("msdnet:channels=4,growth=2", shares=(0.01, 0.02), head={"name": "conv", "size": 4})
    features = net.run_stages(torch.rand(2, 3, 32, 32), 0, 1)
    channels = MSDNet(channels=4, growth=2).head_channels(1)
    assert isinstance(net.heads[0][0], LastChannels)
    assert features.shape[1] > channels
    other = features.clone()
    other[:, :-channels] = 0
    assert torch.equal(net.read_exit(features, 0), net.read_exit(other, 0))
    assert net.spec.exits[0].macs == 9 * channels * 2 * channels * 16 + 2 * channels * 10
    assert not isinstance(net.heads[-1], nn.Sequential)


def test_msdnet_with_its_own_heads_costs_what_the_reference_does_up_to_its_exits():
    shares = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    config = NetConfig(
        parse_spec("msdnet"), (3, 32, 32), 100, shares, {"name": "msdnet"}, mean=(0.5,) * 3, std=(1,) * 3
    )
    spec = multi_exit.build(config).spec
    stages, heads = accumulate(stage.macs for stage in spec.stages), accumulate(e.macs for e in spec.exits[:-1])
    spent = [(a + b) / 1e6 for a, b in zip(stages, heads, strict=False)]
    assert spent == pytest.approx(CIFAR_OPERATIONS[:-1], rel=0.02)


def test_one_percent_steps_put_an_exit_behind_every_block_of_msdnet():
    net = network("msdnet", shares=(0.01, 0.02, 0.03, 0.04, 0.05, 0.06), head={"name": "pooled"})
    assert net.spec.backbone["cuts"] == [1, 2, 3, 4, 5, 6, 7]


def test_maps_that_cannot_be_halved_are_refused_in_one_line():
    with pytest.raises(UsageError, match="3 scales need maps whose height and width are multiples of 4, found 30×32"):
        network("msdnet", shape=(3, 30, 32), shares=())


def test_msdnet_s_first_layer_makes_every_scale_of_the_one_before():
    entry = MSDNet().blocks(3)[0].entry
    assert isinstance(entry, Scales)
    assert [m.shape[1:] for m in entry(torch.rand(1, 3, 32, 32))] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
