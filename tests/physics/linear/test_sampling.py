"""Downsampling against SciPy's Gaussian filter; windows against slicing and numpy.pad."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Crop, Downsample, Fourier, Pad, check_adjoint


@given(shape=st.lists(st.integers(1, 12), min_size=1, max_size=3), data=st.data(), antialias=st.booleans())
def test_downsampling_as_scipy(shape, data, antialias):
    factors = tuple(data.draw(st.integers(1, min(4, n))) for n in shape)
    x = np.random.default_rng(0).standard_normal(shape)
    down = Downsample(shape, factors, antialias)
    filtered = x
    if antialias:
        sd = [(f - 1) / 2 for f in factors]
        filtered = scipy.ndimage.gaussian_filter(x, sd, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(down(x), filtered[tuple(slice(None, None, f) for f in factors)], atol=1e-12)
    assert check_adjoint(down)


def test_filter_keeps_constants_and_stops_what_would_fold():
    n = 64
    alternating = torch.tensor([1.0, -1.0]).repeat(n // 2).to(torch.float64)
    ones = torch.ones(n, dtype=torch.float64)
    assert_close(Downsample((n,), 2)(ones), ones[::2])
    # sampled at every other pixel the finest wave looks constant
    assert_close(Downsample((n,), 2, antialias=False)(alternating), ones[::2])
    # a Gaussian of σ pixels passes exp(-σ²ω²/2), here ω = π
    folded = Downsample((n,), 4)(alternating)
    assert float(folded[2:-2].abs().max()) < 1.01 * np.exp(-(1.5**2) * np.pi**2 / 2) + 1e-3


def test_one_factor_for_all_or_the_last_axes():
    assert Downsample((6, 9), 3).codomain.shape == (2, 3)
    assert Downsample((6, 9), (3,)).codomain.shape == (6, 3)
    assert Downsample((7, 9), 2, complex=True).codomain.complex
    # of five axes the last three are filtered
    assert Downsample((2, 2, 4, 4, 4), (2, 2, 2)).codomain.shape == (2, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="last three axes"):
        Downsample((4, 4, 4, 4), 2)
    assert Downsample((4, 4, 4, 4), 2, antialias=False).codomain.shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0, ValueError, "between 1"),
        (7, ValueError, "between 1"),
        ((2, 2, 2), ValueError, "3 factors"),
        ((1.5, 2), TypeError, "."),
    ],
)
def test_bad_factors(factor, error, message):
    with pytest.raises(error, match=message):
        Downsample((6, 6), factor)


@given(data=st.data(), d=st.integers(1, 3))
def test_windows(data, d):
    outer = tuple(data.draw(st.integers(1, 7)) for _ in range(d))
    inner = tuple(data.draw(st.integers(1, n)) for n in outer)
    start = tuple(data.draw(st.integers(0, n - m)) for n, m in zip(outer, inner, strict=True))
    rng = np.random.default_rng(0)
    big, small = rng.standard_normal((2, *outer)), rng.standard_normal((2, *inner))
    window = tuple(slice(b, b + m) for b, m in zip(start, inner, strict=True))
    crop, pad = Crop(outer, inner, start), Pad(inner, outer, start)
    np.testing.assert_array_equal(crop(big), big[(slice(None), *window)])
    widths = [(0, 0), *((b, n - b - m) for b, n, m in zip(start, outer, inner, strict=True))]
    np.testing.assert_array_equal(pad(small), np.pad(small, widths))
    np.testing.assert_array_equal(crop.adjoint(small), pad(small))
    np.testing.assert_array_equal(pad.adjoint(big), crop(big))
    np.testing.assert_array_equal(crop(pad(small)), small)


@pytest.mark.parametrize(("n", "m"), [(8, 5), (8, 4), (7, 4), (7, 3)])
def test_default_window_keeps_the_centre(n, m):
    point = torch.zeros(n)
    point[n // 2] = 1
    assert int(Crop((n,), (m,))(point).argmax()) == m // 2
    small = torch.zeros(m)
    small[m // 2] = 1
    assert int(Pad((m,), (n,))(small).argmax()) == n // 2
    # so that padding does not move the phase of a centred transform
    spectrum = (Fourier((n,), centered=True) @ Pad((m,), (n,), complex=True))(small)
    assert_close(spectrum.imag, torch.zeros(n))


@pytest.mark.parametrize(
    ("size", "start", "message"),
    [
        ((5, 3), None, "does not fit"),
        ((2, 2), (3, 0), "does not fit"),
        ((2, 2), (-1, 0), "does not fit"),
        ((2,), None, "different numbers of axes"),
        ((2, 2), (0,), "one number for each"),
    ],
)
def test_bad_windows(size, start, message):
    with pytest.raises(ValueError, match=message):
        Crop((4, 4), size, start)
    with pytest.raises(ValueError, match=message):
        Pad(size, (4, 4), start)


def test_empty_window_is_refused():
    with pytest.raises(ValueError, match="positive sizes"):
        Crop((4, 4), (0, 2))
