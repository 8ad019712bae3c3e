"""Layers: oracles are the transforms themselves, torch's own shrinkage, and average pooling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from invlearn.wavelets import (
    DWT,
    IDWT,
    FilterBank,
    HardShrinkage,
    SoftShrinkage,
    WaveletDownsample,
    WaveletUpsample,
    dwt,
)

SIZES = {1: (9,), 2: (6, 7), 3: (4, 5, 6)}


def image(ndim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, *SIZES[ndim], dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("wavelet", ["haar", "db3", "bior2.2"])
@pytest.mark.parametrize("mode", ["periodization", "symmetric", "zero"])
def test_dwt_is_the_transform_and_idwt_its_inverse(ndim, wavelet, mode):
    x = image(ndim)
    bands = DWT(wavelet, ndim, mode)(x)
    expected = dwt(x, wavelet, ndim, mode)
    assert list(bands) == list(expected)
    assert all(torch.equal(bands[key], expected[key]) for key in expected)
    back = IDWT(wavelet, ndim, mode)(bands, size=x.shape[2:])
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)


def test_idwt_without_size_keeps_the_even_size():
    x = image(1)
    assert IDWT("haar", 1)(DWT("haar", 1)(x)).shape == (2, 3, 10)


@pytest.mark.parametrize("layer", [DWT, IDWT, WaveletDownsample, WaveletUpsample])
def test_layers_have_no_state_and_say_what_they_are(layer):
    module = layer("bior3.3", 2, "reflect")
    assert not module.state_dict()
    for part in ("bior3.3", "2", "reflect"):
        assert part in repr(module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_layers_follow_the_dtype(dtype):
    x = image(2, torch.float32).to(dtype)
    low, details = WaveletDownsample("db2", 2, keep="low+shrunk details")(x)
    assert {low.dtype, *(d.dtype for d in details.values())} == {dtype}
    assert WaveletUpsample("db2", 2)(low, details).dtype == dtype


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_keep_low_is_the_low_band_and_haar_with_unit_gain_an_average(ndim):
    x = image(ndim)[..., : SIZES[ndim][-1] // 2 * 2]
    x = x[:, :, :4, :4] if ndim == 2 else x[:, :, :4, :4, :4] if ndim == 3 else x
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[ndim]
    low = WaveletDownsample("haar", ndim, keep="low")(x)
    assert torch.equal(low, dwt(x, "haar", ndim)["a" * ndim])
    torch.testing.assert_close(low, pool(x, 2) * 2 ** (ndim / 2))
    torch.testing.assert_close(WaveletDownsample("haar", ndim, unit_gain=True)(x), pool(x, 2))


@pytest.mark.parametrize("wavelet", ["db2", "bior2.2", "sym4"])
def test_unit_gain_keeps_constants(wavelet):
    x = torch.full((1, 1, 16, 16), 3.0)
    torch.testing.assert_close(
        WaveletDownsample(wavelet, 2, unit_gain=True)(x), torch.full((1, 1, 8, 8), 3.0)
    )


def test_unit_gain_of_a_custom_bank_follows_its_filters():
    bank = FilterBank((1.0, 2.0), (1.0, -1.0), (1.0, 1.0), (1.0, -1.0))
    x = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(WaveletDownsample(bank, 2, unit_gain=True)(x), torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(WaveletDownsample(bank, 2)(x), torch.full((1, 1, 4, 4), 9.0))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_down_and_up_reconstruct_at_odd_sizes(ndim):
    x = image(ndim)
    low, details = WaveletDownsample("bior3.3", ndim, keep="all")(x)
    assert set(details) | {"a" * ndim} == set(dwt(x, "bior3.3", ndim))
    assert low.shape[2:] == tuple(-(-n // 2) for n in SIZES[ndim])
    torch.testing.assert_close(WaveletUpsample("bior3.3", ndim)(low, details, x.shape[2:]), x)


def test_mode_reaches_every_layer():
    x = image(2)
    lows = [WaveletDownsample("db2", 2, mode, keep="all")(x) for mode in ("symmetric", "zero")]
    assert not torch.allclose(lows[0][0], lows[1][0])
    torch.testing.assert_close(WaveletUpsample("db2", 2, "symmetric")(*lows[0], x.shape[2:]), x)


def test_shrunk_details_are_shrunk_and_the_low_band_is_not():
    x = image(2)
    low, details = WaveletDownsample("haar", 2, keep="all")(x)
    for shrink, function in (
        (None, lambda t: F.hardshrink(t, 0.25)),
        (SoftShrinkage(0.4), lambda t: F.softshrink(t, 0.4)),
    ):
        shrunk_low, shrunk = WaveletDownsample("haar", 2, keep="low+shrunk details", shrink=shrink)(x)
        assert torch.equal(shrunk_low, low)
        for key, band in details.items():
            torch.testing.assert_close(shrunk[key], function(band))
            assert not torch.equal(shrunk[key], band)


@given(threshold=st.floats(0, 3), seed=st.integers(0, 50))
def test_fixed_shrinkage_is_torchs(threshold, seed):
    x = image(2, seed=seed)
    torch.testing.assert_close(SoftShrinkage(threshold)(x), F.softshrink(x, threshold))
    torch.testing.assert_close(HardShrinkage(threshold)(x), F.hardshrink(x, threshold))


@given(threshold=st.floats(0.01, 3))
def test_learned_shrinkage_starts_at_its_threshold_with_the_same_values(threshold):
    x = image(2, torch.float32)
    for layer in (SoftShrinkage, HardShrinkage):
        learned = layer(threshold, learned=True)
        start = learned.threshold.item()
        assert start == pytest.approx(threshold, rel=1e-4)
        torch.testing.assert_close(learned(x), layer(start)(x))
        assert "learned=True" in repr(learned)
        assert f"{start:.4g}" in repr(learned)


def test_shrinkage_of_complex_numbers_keeps_the_phase():
    x = torch.tensor([3 + 4j, 0.3 + 0.4j, 0j], dtype=torch.complex128)
    soft, hard = SoftShrinkage(1.0)(x), HardShrinkage(1.0)(x)
    torch.testing.assert_close(soft, torch.tensor([2.4 + 3.2j, 0j, 0j], dtype=torch.complex128))
    torch.testing.assert_close(hard, torch.tensor([3 + 4j, 0j, 0j], dtype=torch.complex128))


def test_gradients_of_shrinkage():
    x = torch.tensor([-2.0, -0.5, 0.2, 1.5], dtype=torch.float64, requires_grad=True)
    for layer in (SoftShrinkage, HardShrinkage):
        for learned in (False, True):
            (grad,) = torch.autograd.grad(layer(1.0, learned=learned)(x).sum(), x)
            assert grad.tolist() == [1, 0, 0, 1]
    soft = SoftShrinkage(1.0, learned=True)
    # d/dt of sum |soft(x)| = -(number of survivors), and dt/draw = sigmoid(raw)
    (grad,) = torch.autograd.grad(soft(x).abs().sum(), soft.raw)
    assert float(grad) == pytest.approx(-2 * float(torch.sigmoid(soft.raw.detach())))


@pytest.mark.parametrize("layer", [SoftShrinkage, HardShrinkage])
def test_a_learned_threshold_finds_the_noise_level(layer):
    """Denoising sparse spikes: both thresholds must leave their start for one that suits the noise."""
    generator = torch.Generator().manual_seed(0)
    clean = 5.0 * (torch.rand(4000, generator=generator) < 0.05)
    noisy = clean + 0.5 * torch.randn(4000, generator=generator)
    shrink = layer(0.1, learned=True)
    before = F.mse_loss(shrink(noisy), clean).item()
    optimiser = torch.optim.Adam(shrink.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = F.mse_loss(shrink(noisy), clean)
        loss.backward()
        optimiser.step()
    assert 0.5 < shrink.threshold.item() < 4
    assert loss.item() < 0.5 * before


def test_gradients_reach_the_input_through_down_and_up():
    x = image(2)[:1, :1].requires_grad_()
    down, up = WaveletDownsample("bior2.2", 2, keep="all"), WaveletUpsample("bior2.2", 2)
    assert torch.autograd.gradcheck(lambda t: up(*down(t), t.shape[2:]) * 2, x)
    (grad,) = torch.autograd.grad(up(*down(x), x.shape[2:]).sum(), x)
    torch.testing.assert_close(grad, torch.ones_like(x))


@pytest.mark.parametrize("layer", [DWT, IDWT, WaveletDownsample, WaveletUpsample])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("harr", 2), "haar"), (("haar", 4), "ndim must be 1, 2 or 3"), (("haar", 2, "mirror"), "unknown mode")],
)
def test_wrong_constructors_are_refused_at_once(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": "high"}, "keep must be one of 'low', 'all'"),
        ({"keep": "all", "shrink": SoftShrinkage()}, "shrink has no effect with keep='all'"),
        ({"keep": "all", "unit_gain": True}, "it is for keep='low'"),
        (
            {"wavelet": ((1.0, -1.0), (1.0, 1.0), (1.0, 1.0), (1.0, -1.0)), "unit_gain": True},
            "removes constants",
        ),
    ],
)
def test_wrong_downsampling_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WaveletDownsample(**{"wavelet": "haar", "ndim": 2} | arguments)


@pytest.mark.parametrize("layer", [SoftShrinkage, HardShrinkage])
@pytest.mark.parametrize(
    ("threshold", "learned", "message"),
    [(-0.1, False, "at least 0"), (float("nan"), False, "at least 0"), (0.0, True, "must start above 0")],
)
def test_wrong_thresholds_are_refused(layer, threshold, learned, message):
    with pytest.raises(ValueError, match=message):
        layer(threshold, learned=learned)


def test_wrong_bands_and_sizes_are_refused():
    x = image(2)
    low, details = WaveletDownsample("haar", 2, keep="all")(x)
    up = WaveletUpsample("haar", 2)
    with pytest.raises(ValueError, match="missing: dd"):
        up(low, {key: band for key, band in details.items() if key != "dd"})
    with pytest.raises(ValueError, match="all must agree"):
        up(low[..., :1], details)
    with pytest.raises(ValueError, match="size"):
        up(low, details, (20, 20))
    with pytest.raises(TypeError, match="float"):
        DWT("haar", 2)(torch.ones(4, 4, dtype=torch.int64))
