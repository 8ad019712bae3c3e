"""The wavelet operator against PyWavelets, and what its adjoint and inverse promise."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from torch.testing import assert_close

from invlearn.physics import Wavelet, check_adjoint
from invlearn.wavelets import MODES


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(21,), (12, 17), (7, 8, 9)])
def test_coefficients_of_pywavelets(shape: tuple[int, ...], mode: str) -> None:
    operator = Wavelet(shape, "bior2.2", level=1, mode=mode)
    x = noise(*shape)
    expected = np.concatenate([band.ravel() for band in pywt.dwtn(x.numpy(), "bior2.2", mode).values()])
    np.testing.assert_allclose(operator(x), expected, atol=1e-12)
    assert check_adjoint(operator)
    assert_close(operator.inverse(operator(x)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("complex", [False, True])
def test_levels_leading_axes_and_batch(complex: bool) -> None:
    operator = Wavelet((3, 20, 26), "db2", level=2, ndim=2, complex=complex)
    x = noise(5, 3, 20, 26, dtype=torch.complex128 if complex else torch.float64)
    y = operator(x)
    assert y.shape == (5, *operator.codomain.shape)
    assert operator.codomain.complex == complex
    expected = pywt.wavedecn(x[1, 2].numpy(), "db2", "periodization", 2)
    split = operator.split(y)
    np.testing.assert_allclose(split[0][1, 2], expected[0], atol=1e-12)
    for bands, reference in zip(split[1:], expected[1:], strict=True):
        for name, band in reference.items():
            np.testing.assert_allclose(bands[name][1, 2], band, atol=1e-12)
    assert_close(operator.inverse(y), x)
    assert check_adjoint(operator)


def test_unitary_where_it_says_so() -> None:
    unitary = Wavelet((16, 8), "db2", level=1)
    x = noise(16, 8)
    assert unitary.unitary
    assert_close(unitary.adjoint(unitary(x)), x)
    assert_close(unitary.normal(x), x)
    for other in (
        Wavelet((16, 9), "db2", level=1),
        Wavelet((16, 8), "bior2.2", level=1),
        Wavelet((16, 8), "db2", level=1, mode="periodic"),
    ):
        assert not other.unitary
        x = noise(*other.domain.shape)
        assert_close(other.normal(x), other.adjoint(other(x)))
        assert (other.normal(x) - x).abs().max() > 0.01


def test_default_level_is_the_deepest() -> None:
    assert Wavelet((32, 64)).level == pywt.dwtn_max_level((32, 64), "haar")
    identity = Wavelet((5,), "db4")
    assert identity.level == 0
    assert_close(identity(noise(5)), noise(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8), "level": 4}, "level=4 is out of range; the maximum .* is 3"),
        ({"shape": (8, 8), "wavelet": "hear"}, "did you mean 'haar'"),
        ({"shape": (8, 8), "mode": "cubic"}, "unknown mode"),
        ({"shape": (2, 2, 2, 2)}, "ndim=4 does not fit"),
        ({"shape": (8,), "ndim": 2}, "ndim=2 does not fit"),
        ({"shape": (8, 0)}, "empty"),
        ({"shape": (8, 1), "mode": "reflect"}, "at least 2 samples"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wavelet(**arguments)
