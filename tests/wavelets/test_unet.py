"""The encoder-decoder: parameter counts by hand, and each pair against its parts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from invlearn.wavelets import PAIRS, EncoderDecoder, Pair, WaveletDownsample

NEURON_NETWORKS = (
    *("SegNet", "UNet_V1", "UNet_V2"),
    *("WaveSNet_V1", "WaveSNet_V2", "WaveSNet_V3", "WaveSNet_V4"),
)
UNLEARNED = ("WaveSNet_V1", "WaveSNet_V3", "WaveSNet_V4")  # neither way has parameters


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def widths(w: int) -> tuple[int, ...]:
    return (w, 2 * w, 4 * w, 8 * w)


def test_the_neuron_papers_seven_networks_and_segnets_wavelet_version_are_there():
    assert set(PAIRS) == {*NEURON_NETWORKS, "WaveSegNet"}


@pytest.mark.parametrize(
    ("w", "with_bias", "without"), [(4, 203_122, 202_846), (8, 810_594, 810_042), (16, 3_238_594, 3_237_490)]
)
def test_parameter_counts_of_the_reference(w, with_bias, without):
    for name in UNLEARNED:
        assert parameters(EncoderDecoder(1, 2, name, channels=widths(w))) == with_bias
    bare = EncoderDecoder(1, 2, "WaveSNet_V4", channels=widths(w), bias=False)
    assert parameters(bare) == without
    assert bare.head.bias is not None
    assert all(m.bias is None for m in bare.encoder.modules() if isinstance(m, nn.Conv3d))


@pytest.mark.parametrize("w", [4, 8])
def test_the_other_pairs_add_only_what_their_ways_learn(w):
    base = parameters(EncoderDecoder(1, 2, "WaveSNet_V3", channels=widths(w)))
    mixing = sum(c * c + c for c in widths(w))  # a 1 x 1 convolution per level
    unjoined = 27 * sum(c * c for c in widths(w))  # without concatenation half the input channels
    for name, expected in (
        ("UNet_V1", base + mixing),
        ("UNet_V2", base + mixing),
        ("WaveSNet_V2", base + mixing),
        ("SegNet", base - unjoined),
        ("WaveSegNet", base - unjoined),
    ):
        assert parameters(EncoderDecoder(1, 2, name, channels=widths(w))) == expected


def test_segnet_in_2d_has_the_encoder_of_vgg16():
    """13 convolutions of VGG-16 have 14,714,688 parameters, their batch normalisations 2 x 4,224 more."""
    model = EncoderDecoder(
        3, 11, "WaveSegNet", ndim=2, channels=(64, 128, 256, 512, 512), convs=(2, 2, 3, 3, 3), bottleneck=0
    )
    assert parameters(model.encoder) == 14_714_688 + 2 * 4_224
    assert parameters(model.bottom) == 0
    assert [block[-3].out_channels for block in model.decoder] == [512, 256, 128, 64, 64]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("ndim", "size"), [(1, (21,)), (2, (16, 19)), (3, (9, 8, 11))])
def test_every_network_takes_any_size_in_every_dimension_and_learns(name, ndim, size):
    torch.manual_seed(0)
    model = EncoderDecoder(2, 3, name, ndim=ndim, channels=(3, 4), convs=1, bottleneck=1)
    out = model(torch.randn(2, 2, *size))
    assert out.shape == (2, 3, *size)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.abs().max() > 0 for p in model.encoder[0].parameters())


def test_reference_cube_becomes_two_by_eight_by_eight_at_the_bottom():
    model = EncoderDecoder(1, 2, "WaveSNet_V4", channels=(1, 1, 1, 1), convs=1, bottleneck=1).eval()
    sizes = []
    model.bottom.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[2:]))
    with torch.no_grad():
        assert model(torch.randn(1, 1, 32, 128, 128)).shape == (1, 2, 32, 128, 128)
    assert sizes == [(2, 8, 8)]


def identity_below(model: EncoderDecoder) -> torch.Tensor:
    """What the way up of the deepest level makes of what the way down left, with nothing in between."""
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    lower = model.downs[0](x)
    deep, memory = lower if isinstance(lower, tuple) else (lower, None)
    return x, model.ups[0](deep, memory, x.shape[2:])


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior3.3"])
@pytest.mark.parametrize("name", ["WaveSNet_V3", "WaveSegNet"])
def test_wavelet_pairs_lose_nothing(name, wavelet):
    x, back = identity_below(EncoderDecoder(1, 2, name, ndim=2, channels=(1,), wavelet=wavelet))
    torch.testing.assert_close(back, x)


def test_max_unpooling_puts_the_maxima_back_where_they_were():
    x, back = identity_below(EncoderDecoder(1, 2, "SegNet", ndim=2, channels=(1,)))
    kept = back != 0
    assert kept.sum() == 16
    assert torch.equal(back[kept], x[kept])
    assert torch.equal(nn.functional.max_pool2d(back.abs(), 2), nn.functional.max_pool2d(x, 2).abs())


def test_stuffing_writes_every_second_sample():
    _, back = identity_below(EncoderDecoder(1, 2, "WaveSNet_V2", ndim=2, channels=(1,)))
    bias = back[0, 0, 1, 1]
    assert torch.equal(back[0, 0, 1::2], bias.expand(4, 8))
    assert (back[0, 0, ::2, ::2] != bias).all()


def test_linear_up_sampling_keeps_the_corners_and_ramps():
    up = EncoderDecoder(1, 2, "UNet_V2", ndim=1, channels=(1,)).ups[0]
    ramp = torch.linspace(0, 1, 4)[None, None]
    torch.testing.assert_close(up(ramp, None, (8,)), torch.linspace(0, 1, 8)[None, None])


def test_strided_convolution_down_uses_a_1x1_kernel():
    down = EncoderDecoder(1, 2, "UNet_V2", ndim=2, channels=(5,)).downs[0]
    assert (down.kernel_size, down.stride, down.out_channels) == ((1, 1), (2, 2), 5)


def test_v4_is_v3_with_its_details_thresholded_at_a_quarter():
    x = torch.randn(1, 4, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    models = {}
    for name in ("WaveSNet_V3", "WaveSNet_V4"):
        torch.manual_seed(0)
        models[name] = EncoderDecoder(4, 2, name, channels=(4, 4)).eval()
    low, details = models["WaveSNet_V3"].downs[0](x)
    shrunk_low, shrunk = models["WaveSNet_V4"].downs[0](x)
    assert torch.equal(low, shrunk_low)
    for key, band in details.items():
        assert torch.equal(shrunk[key], nn.functional.hardshrink(band, 0.25))
    assert not torch.allclose(models["WaveSNet_V3"](x), models["WaveSNet_V4"](x))


def test_networks_of_one_seed_differ_by_their_pair_alone():
    """Same keys and weights for all pairs without parameters: weights can be moved from one to the other."""
    plain = EncoderDecoder(1, 2, "WaveSNet_V1").state_dict()
    for name in UNLEARNED:
        EncoderDecoder(1, 2, name).load_state_dict(plain)


def test_arguments_reach_the_network():
    def shape(**arguments):
        return {key: value.shape for key, value in EncoderDecoder(**arguments).state_dict().items()}

    base = shape(channels=(2, 4))
    for other in (
        {"in_channels": 3},
        {"classes": 5},
        {"convs": (1, 3)},
        {"bottleneck": 0},
        {"ndim": 2},
        {"bias": False},
    ):
        assert shape(**{"channels": (2, 4)} | other) != base
    assert shape(channels=(2, 4), pair=Pair("bands", "wavelet")) == base
    outputs = []
    for wavelet in ("haar", "db2"):
        torch.manual_seed(0)
        model = EncoderDecoder(channels=(2,), ndim=2, wavelet=wavelet).eval()
        assert isinstance(model.downs[0], WaveletDownsample)
        outputs.append(model(5 * torch.randn(1, 1, 8, 8)))
    assert not torch.allclose(*outputs)


def test_a_pair_of_ones_own_works_and_prints():
    pair = Pair("bands", "linear", skip=False)
    assert pair.to_dict() == {"down": "bands", "up": "linear", "skip": False}
    out = EncoderDecoder(1, 2, pair, ndim=2, channels=(2, 4))(torch.randn(2, 1, 8, 8))
    assert out.shape == (2, 2, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pool", "linear"), "unknown way down 'pool': use one of max, conv"),
        (("max", "bilinear"), "unknown way up 'bilinear': use one of unpool"),
        (("bands", "unpool"), "needs the indices .* use 'max'"),
        (("low", "wavelet"), "needs the details .* use 'bands', 'shrunk bands'"),
    ],
)
def test_pairs_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pair(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair": "UNetV1"}, "did you mean 'UNet_V1'"),
        ({"pair": "transformer"}, "known are SegNet"),
        ({"ndim": 4}, "ndim must be 1, 2 or 3, got 4"),
        ({"channels": ()}, "at least one level"),
        ({"convs": (2, 2)}, "2 entries in convs for 4 levels"),
        ({"convs": 0}, "must be at least 1"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"classes": 0}, "classes=0"),
        ({"channels": (4, 0)}, "must be at least 1"),
        ({"bottleneck": -1}, "bottleneck=-1"),
        ({"wavelet": "db99"}, "unknown wavelet 'db99'"),
    ],
)
def test_networks_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoder(**arguments)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 2, 8, 8), (1, 1, 8, 8, 8)])
def test_wrong_input_is_refused(shape):
    with pytest.raises(ValueError, match="expected \\(batch, 1, 2 spatial axes\\)"):
        EncoderDecoder(1, 2, ndim=2, channels=(2,))(torch.zeros(shape))


@pytest.mark.parametrize("name", ["SegNet", "UNet_V1", "WaveSNet_V4"])
def test_export_gives_the_same_network(name):
    model = EncoderDecoder(1, 2, name, ndim=2, channels=(2, 3), wavelet="db2").eval()
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


CAPTURE = """
import torch
from invlearn.wavelets import EncoderDecoder
for name in ("SegNet", "UNet_V1", "WaveSNet_V4"):
    torch.manual_seed(0)
    model = EncoderDecoder(1, 2, name, ndim=2, channels=(2, 3), wavelet="db2").eval()
    x = torch.randn(1, 1, 12, 12)
    captured = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(captured(x), model(x))
"""


def test_compile_captures_one_graph():
    # in a process of its own: the run-time type checks of the tests cannot be captured
    done = subprocess.run([sys.executable, "-c", CAPTURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bfloat16_autocast_runs_through_the_wavelets():
    model = EncoderDecoder(1, 2, "WaveSNet_V4", ndim=2, channels=(2, 3)).eval()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), model(x).detach(), atol=0.1, rtol=0.1)
