"""The transform against its defining sum and torch.fft."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Fourier, Space


def explicit_sum(n, centered):
    """F[k, r] = exp(-2πi k r / n)/√n, both counted from n//2 where centred."""
    origin = n // 2 if centered else 0
    index = np.arange(n) - origin
    return np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("centered", [False, True])
def test_is_the_defining_sum(n, centered):
    np.testing.assert_allclose(
        Fourier((n,), centered=centered).to_dense().numpy(), explicit_sum(n, centered), atol=1e-12
    )


def test_two_axes_are_a_kronecker_product():
    matrix = Fourier((4, 3), centered=True).to_dense().numpy()
    np.testing.assert_allclose(matrix, np.kron(explicit_sum(4, True), explicit_sum(3, True)), atol=1e-12)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
    centered=st.booleans(),
)
def test_unitary_over_chosen_axes(shape, data, centered):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    f = Fourier(shape, axes, centered)
    x = f.domain.random(2, generator=torch.Generator().manual_seed(0))
    y = f(x)
    dims = [a + 1 for a in axes]
    if not centered:
        assert_close(y, torch.fft.fftn(x, dim=dims, norm="ortho"))
    assert_close(f.codomain.norm(y), f.domain.norm(x))
    assert_close(f.adjoint(y), x)
    assert_close(f.normal(x), x)


def test_negative_axes_and_one_number():
    x = torch.randn(4, 5, dtype=torch.complex128)
    assert_close(Fourier((4, 5), axes=-1)(x), Fourier((4, 5), axes=[1])(x))
    assert not torch.allclose(Fourier((4, 5), axes=0)(x), Fourier((4, 5), axes=1)(x))


def test_real_images():
    f = Fourier((5, 4), complex=False)
    assert (f.domain, f.codomain) == (Space((5, 4)), Space((5, 4), True))
    x = torch.randn(5, 4, dtype=torch.float64)
    assert_close(f(x), torch.fft.fft2(x, norm="ortho"))
    y = f.codomain.random()
    assert_close(f.adjoint(y), torch.fft.ifft2(y, norm="ortho").real)
    with pytest.raises(ValueError, match="real data"):
        f(x.to(torch.complex128))


@pytest.mark.parametrize(
    ("axes", "message"), [((0, 2), "do not name axes"), ((), "do not name"), ((0, -2), "twice")]
)
def test_bad_axes(axes, message):
    with pytest.raises(ValueError, match=message):
        Fourier((3, 4), axes)


def test_empty_shape_is_refused():
    with pytest.raises(ValueError, match="positive sizes"):
        Fourier((3, 0))
