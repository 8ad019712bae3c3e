"""Conversion: exact where haar is an average, counted by hand on MONAI's networks, refusals by name."""

from __future__ import annotations

import copy
import functools
import json

import pytest
import torch
from torch import Tensor, nn

from invlearn.wavelets import Conversion, WaveletDownsample, dwt, replace_downsampling


def vgg(ndim: int = 2, pool: type[nn.Module] | None = None) -> nn.Sequential:
    """A plain VGG: (convolution, ReLU, pool) twice, then a classifier."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
    pool = pool or (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[ndim - 1]
    layers = [conv(1, 4, 3, padding=1), nn.ReLU(), pool(2), conv(4, 6, 3, padding=1), nn.ReLU(), pool(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 2**ndim, 3))


def image(ndim: int, n: int = 8, channels: int = 1) -> Tensor:
    return torch.randn(2, channels, *[n] * ndim, generator=torch.Generator().manual_seed(0))


def names(conversion: Conversion) -> dict[str, str]:
    return {r.name: r.kind for r in conversion.replacements}


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_vgg(ndim):
    model = vgg(ndim)
    before = copy.deepcopy(model.state_dict())
    conversion = replace_downsampling(model)
    assert names(conversion) == {"2": "max-pool", "5": "max-pool"}
    assert isinstance(conversion.model[2], WaveletDownsample)
    assert conversion.model[2].ndim == ndim
    assert conversion.model(image(ndim)).shape == (2, 3)
    # weights and names kept, and the given network untouched
    assert conversion.model.state_dict().keys() == before.keys()
    assert all(torch.equal(a, b) for a, b in zip(weights(conversion.model), before.values(), strict=True))
    assert type(model[2]).__name__ == f"MaxPool{ndim}d"


def test_haar_with_unit_gain_computes_what_average_pooling_did():
    model = vgg(2, nn.AvgPool2d)
    x = image(2)
    same = replace_downsampling(model, "haar", unit_gain=True)
    assert names(same) == {"2": "average-pool", "5": "average-pool"}
    torch.testing.assert_close(same.model(x), model(x))
    assert not torch.allclose(replace_downsampling(model, "haar").model(x), model(x))
    assert not torch.allclose(replace_downsampling(model, "db2", unit_gain=True).model(x), model(x))


@pytest.mark.parametrize("wavelet", ["haar", "bior2.2"])
@pytest.mark.parametrize(
    ("kernel", "kind"), [(1, "strided shortcut"), (3, "strided convolution"), (7, "strided convolution")]
)
def test_a_strided_convolution_becomes_low_pass_then_itself(wavelet, kernel, kind):
    conv = nn.Conv2d(3, 5, kernel, stride=2, padding=kernel // 2)
    conversion = replace_downsampling(conv, wavelet)  # the network itself is replaced
    assert names(conversion) == {"": kind}
    x = image(2, channels=3)
    low = dwt(x, wavelet, ndim=2)["aa"]
    expected = nn.functional.conv2d(low, conv.weight, conv.bias, padding=kernel // 2)
    torch.testing.assert_close(conversion.model(x), expected)
    assert conv.stride == (2, 2)
    assert list(conversion.model.state_dict()) == ["conv.weight", "conv.bias"]


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1),
        nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 2, 3, stride=2, padding=2, dilation=2),
        nn.Conv2d(1, 2, 1, stride=2, padding="valid"),
    ],
)
def test_sizes_are_kept(module, n):
    x = image(2, n)
    if n == 8 or not getattr(module, "ceil_mode", False):
        assert replace_downsampling(module).model(x).shape == module(x).shape
    assert replace_downsampling(module).model(x).shape[2:] == (-(-n // 2),) * 2


def test_batch_normalisation_follows_pools_on_request():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.MaxPool2d(2))
    conversion = replace_downsampling(model, batch_norm=True)
    out = conversion.model(image(2, 16))
    norm = conversion.model[1].norm
    assert norm.num_features == 4
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert isinstance(conversion.model[0], nn.Sequential)
    assert len(conversion.model[0]) == 2  # a convolution gets none
    assert "BatchNorm2d" not in str(replace_downsampling(model).model)


def test_skip_leaves_modules_and_all_inside_them():
    model = nn.Sequential()
    model.stem = nn.Conv2d(1, 2, 7, stride=2, padding=3)
    model.body = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2))
    assert names(replace_downsampling(model, skip="stem")) == {"body.0": "max-pool", "body.1": "average-pool"}
    kept = replace_downsampling(model, skip=("body",))
    assert names(kept) == {"stem": "strided convolution"}
    assert isinstance(kept.model.body[0], nn.MaxPool2d)
    with pytest.raises(ValueError, match=r"skip has 'body.2', which is not in the model: body"):
        replace_downsampling(model, skip=("body.2",))


def test_a_module_under_two_names_stays_one():
    pool, conv = nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, stride=2, padding=1)
    model = nn.ModuleDict({"a": pool, "b": conv, "c": pool, "d": nn.Sequential(conv)})
    conversion = replace_downsampling(model)
    assert list(names(conversion)) == ["a", "b", "c", "d.0"]
    assert conversion.model["a"] is conversion.model["c"]
    assert conversion.model["b"] is conversion.model["d"][0]
    kept = replace_downsampling(model, skip="b")
    assert list(names(kept)) == ["a", "c"]
    assert kept.model["d"][0].stride == (2, 2)


def test_a_block_under_two_names_is_converted_once():
    block = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1))
    conversion = replace_downsampling(nn.Sequential(block, block))
    assert conversion.model[0] is conversion.model[1]
    assert conversion.model(image(2)).shape == (2, 1, 2, 2)


def test_what_does_not_down_sample_stays():
    model = nn.Sequential(
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1),
        nn.Conv2d(1, 1, 3),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
    )
    assert names(replace_downsampling(model)) == {"3": "max-pool"}


def test_the_report_is_plain_data_and_readable():
    conversion = replace_downsampling(vgg(), "db2")
    data = json.loads(json.dumps(conversion.to_dict()))
    assert data["wavelet"] == "db2"
    assert [r["name"] for r in data["replacements"]] == ["2", "5"]
    assert data["replacements"][0]["before"].startswith("MaxPool2d(kernel_size=2")
    assert "db2" in data["replacements"][0]["after"]
    text = str(conversion)
    assert text.startswith("2 replaced by wavelet 'db2'")
    assert "\n2: max-pool MaxPool2d" in text
    assert "(the network itself)" in str(replace_downsampling(nn.MaxPool2d(2)))
    assert "-> Conv2d(1, 1" in str(replace_downsampling(nn.Conv2d(1, 1, 3, 2, 1)))
    with pytest.raises(AttributeError):
        conversion.wavelet = "haar"  # type: ignore[misc]


def test_the_converted_network_trains_from_the_weights_it_had():
    torch.manual_seed(0)
    model = replace_downsampling(vgg()).model
    model(image(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(3), "stride \\(3, 3\\): one wavelet level halves every axis"),
        (nn.AvgPool2d(4), "stride \\(4, 4\\)"),
        (nn.MaxPool3d(2, stride=(1, 2, 2)), "stride \\(1, 2, 2\\)"),
        (nn.MaxPool2d(2, return_indices=True), "returns indices for unpooling"),
        (nn.MaxPool2d(3, 2), "does not halve an even size"),
        (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), "does not halve an even size"),
        (nn.Conv2d(1, 1, 3, stride=2), "at stride 1 it would change the size"),
        (nn.Conv2d(1, 1, 2, stride=2), "kernel \\(2, 2\\) with padding \\(0, 0\\)"),
        (nn.Conv2d(1, 1, 4, stride=2, padding=1), "at stride 1 it would change the size"),
        (nn.LPPool2d(2, 2), "LPPool2d: has no wavelet counterpart"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), "has no wavelet counterpart"),
        (nn.PixelUnshuffle(2), "has no wavelet counterpart"),
    ],
)
def test_what_cannot_be_replaced_is_refused_by_name(module, message):
    with pytest.raises(ValueError, match=f"cannot replace body.1 .*{message}.*name them in skip"):
        replace_downsampling(nn.ModuleDict({"body": nn.Sequential(nn.MaxPool2d(2), module)}))
    with pytest.raises(ValueError, match=f"cannot replace the model itself .*{message}"):
        replace_downsampling(module)
    # left alone on request
    left = replace_downsampling(nn.Sequential(nn.MaxPool2d(2), module), skip=("1",))
    assert names(left) == {"0": "max-pool"}


def test_all_refusals_come_at_once():
    with pytest.raises(ValueError, match=r"0 \(MaxPool2d.*; 2 \(LPPool2d"):
        replace_downsampling(nn.Sequential(nn.MaxPool2d(3), nn.MaxPool2d(2), nn.LPPool2d(2, 2)))


def test_a_hidden_strided_function_is_refused_by_name():
    model = nn.Sequential(nn.MaxPool2d(2))
    model.shortcut = functools.partial(nn.functional.avg_pool2d, kernel_size=1, stride=2)
    with pytest.raises(ValueError, match="cannot replace shortcut \\(a function with stride=2"):
        replace_downsampling(model)
    assert names(replace_downsampling(model, skip=("shortcut",))) == {"0": "max-pool"}
    model.shortcut = functools.partial(nn.functional.avg_pool2d, kernel_size=1, stride=1)
    assert names(replace_downsampling(model)) == {"0": "max-pool"}


def test_bad_input():
    with pytest.raises(ValueError, match="Sequential has no pooling or strided convolution to replace"):
        replace_downsampling(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"unknown wavelet 'har'.*haar"):
        replace_downsampling(vgg(), "har")
    with pytest.raises(TypeError):
        replace_downsampling(nn.MaxPool2d)


@pytest.fixture(scope="module")
def nets():
    return pytest.importorskip("monai.networks.nets")


class TestMonai:
    """Counts by hand from the architectures; sizes against the unconverted networks."""

    def check(self, model: nn.Module, x: Tensor, expected: dict[str, str], **options) -> None:
        conversion = replace_downsampling(model, "haar", **options)
        assert names(conversion) == expected
        for a, b in zip(weights(model), weights(conversion.model), strict=True):
            assert torch.equal(a, b)
        with torch.no_grad():
            out, before = conversion.model.eval()(x), model.eval()(x)
        assert out.shape == before.shape
        assert out.isfinite().all()
        assert not torch.allclose(out, before)

    @pytest.mark.parametrize("ndim", [2, 3])
    def test_resnet(self, nets, ndim):
        model = nets.ResNet(
            "basic", [1, 1, 1, 1], [4, 4, 8, 8], ndim, n_input_channels=1, num_classes=3, conv1_t_stride=2
        )
        stages = {f"layer{k}.0.conv1": "strided convolution" for k in (2, 3, 4)}
        stages |= {f"layer{k}.0.downsample.0": "strided shortcut" for k in (2, 3, 4)}
        stem = {"conv1": "strided convolution", "maxpool": "max-pool"}
        self.check(model, image(ndim, 33), stem | stages)
        self.check(model, image(ndim, 33), {"maxpool": "max-pool"} | stages, skip="conv1")

    def test_resnet_with_bottlenecks(self, nets):
        model = nets.ResNet("bottleneck", [1, 1, 1, 1], [2, 2, 4, 4], 2, n_input_channels=1, num_classes=3)
        expected = {f"layer{k}.0.conv2": "strided convolution" for k in (2, 3, 4)}
        expected |= {f"layer{k}.0.downsample.0": "strided shortcut" for k in (2, 3, 4)}
        self.check(model, image(2, 32), {"maxpool": "max-pool"} | expected)

    def test_resnet_with_parameter_free_shortcuts_is_refused_by_name(self, nets):
        model = nets.ResNet("basic", [1, 1, 1, 1], [4, 4, 8, 8], 2, n_input_channels=1, shortcut_type="A")
        with pytest.raises(ValueError, match=r"layer2.0.downsample \(a function with stride=2"):
            replace_downsampling(model)

    @pytest.mark.parametrize("ndim", [2, 3])
    def test_densenet(self, nets, ndim):
        model = nets.DenseNet(ndim, 1, 3, init_features=4, growth_rate=2, block_config=(1, 1, 1))
        stem = {"features.conv0": "strided convolution", "features.pool0": "max-pool"}
        transitions = {f"features.transition{k}.pool": "average-pool" for k in (1, 2)}
        self.check(model, image(ndim, 32), stem | transitions)

    @pytest.mark.parametrize("ndim", [2, 3])
    @pytest.mark.parametrize("units", [0, 2])
    def test_unet(self, nets, ndim, units):
        model = nets.UNet(ndim, 1, 2, channels=(2, 4, 8), strides=(2, 2), num_res_units=units)
        blocks = ("model.0", "model.1.submodule.0")
        expected = {f"{b}.conv" if units == 0 else f"{b}.conv.unit0.conv" for b in blocks}
        expected |= {f"{b}.residual" for b in blocks} if units else set()
        self.check(model, image(ndim, 16), dict.fromkeys(expected, "strided convolution"))
