"""Convolutions against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Blur, Space, check_adjoint

NDIMAGE = {"circular": "wrap", "replicate": "nearest"}


@st.composite
def problems(draw):
    d = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=d, max_size=d)))
    kernel = tuple(draw(st.lists(st.integers(1, 6), min_size=d, max_size=d)))
    return shape, kernel


@given(problem=problems(), mode=st.sampled_from(["circular", "replicate"]))
def test_borders_as_ndimage(problem, mode):
    shape, size = problem
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal(shape), rng.standard_normal(size)
    blur = Blur(h, shape, mode)
    expected = scipy.ndimage.convolve(x, h, mode=NDIMAGE[mode])
    np.testing.assert_allclose(blur(x), expected, atol=1e-12)
    assert check_adjoint(blur)


@given(problem=problems(), cplx=st.booleans())
def test_valid_as_scipy_signal(problem, cplx):
    shape, size = problem
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal(shape), rng.standard_normal(size)
    if cplx:
        x, h = x + 1j * rng.standard_normal(shape), h + 1j * rng.standard_normal(size)
    if any(k > n for k, n in zip(size, shape, strict=True)):
        with pytest.raises(ValueError, match="larger than the image"):
            Blur(h, shape, "valid")
        return
    blur = Blur(h, shape, "valid")
    np.testing.assert_allclose(blur(x), scipy.signal.convolve(x, h, "valid", "direct"), atol=1e-12)
    assert check_adjoint(blur)


def test_centre_of_the_kernel():
    for size in (4, 5):
        kernel = torch.zeros(size)
        kernel[size // 2] = 1
        x = torch.randn(9, dtype=torch.float64)
        for mode in ("circular", "replicate"):
            assert_close(Blur(kernel, (9,), mode)(x), x)


def test_leading_axes_are_blurred_alike():
    h, x = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 6, 5, dtype=torch.float64)
    for mode in ("circular", "valid", "replicate"):
        stacked, single = Blur(h, (4, 6, 5), mode), Blur(h, (6, 5), mode)
        assert_close(stacked(x), torch.stack([single(c) for c in x]))


def test_modes_differ_and_field_follows_the_kernel():
    h = torch.tensor([1.0, 2.0, 4.0])
    x = torch.arange(5.0)
    outs = [Blur(h, (5,), mode)(x).tolist() for mode in ("circular", "replicate", "valid")]
    assert len({tuple(o) for o in outs}) == 3
    assert not Blur(h, (5,)).domain.complex
    assert Blur(h, (5,), complex=True).domain == Space((5,), True)
    assert Blur(h + 1j, (5,)).domain == Space((5,), True)


def test_spectrum_is_the_transfer_function():
    h = torch.randn(3, 5, dtype=torch.float64)
    wide = torch.zeros(8, 9, dtype=torch.float64)
    wide[:3, :5] = h
    expected = torch.fft.fft2(wide).abs().square()
    spectrum = Blur(h, (8, 9)).spectrum()
    assert spectrum.basis == "fourier"
    assert_close(spectrum.values, expected)
    # the real normal operator's is the same at opposite frequencies
    opposite = expected.flip(0, 1).roll((1, 1), (0, 1))
    assert_close(spectrum.values, opposite)


def test_kernel_is_kept_at_its_own_time():
    h = torch.ones(3, dtype=torch.float64)
    blur = Blur(h, (5,))
    before = blur(torch.ones(5, dtype=torch.float64))
    h.zero_()
    assert_close(blur(torch.ones(5, dtype=torch.float64)), before)


@pytest.mark.parametrize(
    ("kernel", "shape", "kwargs", "error", "message"),
    [
        (torch.tensor([1.0, float("nan")]), (4,), {}, ValueError, "NaN"),
        (torch.tensor([1.0, float("inf")]), (4,), {}, ValueError, "infinite"),
        (torch.ones(2, dtype=torch.float16), (4,), {}, TypeError, "float16"),
        (torch.ones(2, 2), (4,), {}, ValueError, "axes"),
        (torch.ones(1, 1, 1, 1), (4, 4, 4, 4), {}, ValueError, "1 to 3 axes"),
        (torch.ones(0), (4,), {}, ValueError, "1 to 3 axes"),
        (torch.ones(()), (4,), {}, ValueError, "1 to 3 axes"),
        (torch.ones(2) + 1j, (4,), {"complex": False}, ValueError, "complex kernel"),
    ],
)
def test_bad_input(kernel, shape, kwargs, error, message):
    with pytest.raises(error, match=message):
        Blur(kernel, shape, **kwargs)


def test_unknown_mode():
    with pytest.raises((ValueError, TypeError), match="mode"):
        Blur(torch.ones(2), (4,), "reflect")
