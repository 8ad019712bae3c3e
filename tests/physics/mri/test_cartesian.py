"""Cartesian MRI against SigPy's operators and the defining sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Space, check_adjoint
from invlearn.physics.mri import CartesianMRI


def random_complex(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("shape", [(9,), (8, 7), (4, 5, 6)])
@pytest.mark.parametrize("coils", [0, 3])
def test_as_sigpy(shape, coils):
    import sigpy.linop

    mask = np.random.default_rng(1).random(shape) < 0.5
    x = random_complex(*shape)
    maps = random_complex(coils, *shape, seed=2) if coils else None
    a = CartesianMRI(mask, maps)
    kspace = (coils, *shape) if coils else shape
    axes = list(range(-len(shape), 0))
    oracle = sigpy.linop.Multiply(kspace, mask) * sigpy.linop.FFT(kspace, axes=axes, center=True)
    if coils:
        oracle = oracle * sigpy.linop.Multiply(shape, maps)
    np.testing.assert_allclose(a(x), oracle(x), atol=1e-12)
    y = random_complex(*kspace, seed=3)
    np.testing.assert_allclose(a.adjoint(y), oracle.H(y), atol=1e-12)
    np.testing.assert_allclose(a.normal(x), oracle.N(x), atol=1e-11)


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("centered", [True, False])
def test_is_the_defining_sum(n, centered):
    mask = np.arange(n) % 3 != 1
    index = np.arange(n) - (n // 2 if centered else 0)
    expected = mask[:, None] * np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n)
    a = CartesianMRI(mask, centered=centered)
    np.testing.assert_allclose(a.to_dense().numpy(), expected, atol=1e-12)


def test_middle_of_the_mask_is_the_zero_frequency():
    for shape in ((6, 7), (5, 8)):
        mask = torch.zeros(shape)
        mask[tuple(n // 2 for n in shape)] = 1
        x = torch.randn(shape, dtype=torch.complex128)
        assert_close(CartesianMRI(mask).normal(x), x.mean().expand(shape))
        # the spectrum lists the zero frequency first
        values = CartesianMRI(mask).spectrum().values
        assert values[(0,) * len(shape)] == 1
        assert values.sum() == 1


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    coils=st.integers(0, 2),
    centered=st.booleans(),
)
def test_fast_normal_and_adjoint(shape, coils, centered):
    mask = np.random.default_rng(0).random(shape) < 0.6
    a = CartesianMRI(mask, random_complex(coils, *shape) if coils else None, centered)
    x = a.domain.random(2, generator=torch.Generator().manual_seed(0))
    assert_close(a.normal(x), a.adjoint(a(x)), atol=1e-12, rtol=1e-10)
    assert check_adjoint(a)


def test_coil_maps_shape_the_codomain():
    maps = torch.ones(4, 5, 6)
    a = CartesianMRI(torch.ones(5, 6), maps)
    assert (a.domain, a.codomain) == (Space((5, 6), True), Space((4, 5, 6), True))
    assert CartesianMRI(torch.ones(5, 6), maps[:1]).codomain == Space((1, 5, 6), True)
    assert CartesianMRI(torch.ones(5, 6)).codomain == Space((5, 6), True)
    x = a.domain.random()
    assert_close(CartesianMRI(torch.ones(5, 6), 2j * maps)(x), 2j * a(x))
    maps.zero_()
    assert float(a(x).abs().sum()) > 0


def test_real_images_are_taken_as_complex():
    a = CartesianMRI(torch.ones(4, 4))
    x = torch.randn(4, 4)
    assert_close(a(x), a(x.to(torch.complex64)))


NAN = torch.full((2, 4, 4), float("nan"))


@pytest.mark.parametrize(
    ("mask", "maps", "error", "message"),
    [
        (torch.full((4, 4), 0.5), None, ValueError, "only 0 and 1"),
        (torch.full((4, 4), float("nan")), None, ValueError, "only 0 and 1"),
        (torch.ones(2, 2, 2, 2), None, ValueError, "1 to 3 axes"),
        (torch.ones(4, 0), None, ValueError, "positive sizes"),
        (torch.ones(4, 4), torch.ones(2, 4, 5), ValueError, r"\(C, 4, 4\)"),
        (torch.ones(4, 4), torch.ones(4, 4), ValueError, r"\(C, 4, 4\)"),
        (torch.ones(4, 4), torch.ones(0, 4, 4), ValueError, r"\(C, 4, 4\)"),
        (torch.ones(4, 4), NAN, ValueError, "NaN"),
        (torch.ones(4, 4), torch.ones(2, 4, 4, dtype=torch.float16), TypeError, "float16"),
    ],
)
def test_bad_input(mask, maps, error, message):
    with pytest.raises(error, match=message):
        CartesianMRI(mask, maps)


def test_single_precision_conversion_keeps_the_phase_of_the_maps():
    a = CartesianMRI(torch.ones(4, 4), random_complex(2, 4, 4))
    x = a.domain.random(generator=torch.Generator().manual_seed(0))
    expected = a(x)
    a.to(torch.float32)
    assert a.coil_maps.dtype == torch.complex64
    assert_close(a(x), expected, atol=1e-5, rtol=1e-5)
