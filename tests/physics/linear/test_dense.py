"""Matrices against the matrix product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics import Dense, Space
from invlearn.physics.linear.dense import looks_structured


def test_matrix_product_on_images():
    rng = np.random.default_rng(0)
    m, x = rng.standard_normal((5, 12)), rng.standard_normal((2, 3, 4))
    a = Dense(m, shape=(3, 4))
    assert (a.domain, a.codomain) == (Space((3, 4)), Space((5,)))
    np.testing.assert_allclose(a(x), x.reshape(2, 12) @ m.T)
    np.testing.assert_allclose(a.adjoint(a(x)), (x.reshape(2, 12) @ m.T @ m).reshape(2, 3, 4))


def test_batch_of_matrices_side_by_side():
    m, x = torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    a = Dense(m)
    assert_close(a(x), torch.einsum("bmn,sbn->sbm", m, x))
    assert_close(a.to_dense(), torch.block_diag(*m))


def test_field():
    assert Dense(torch.ones(2, 3)).domain == Space((3,))
    assert Dense(torch.ones(2, 3), complex=True).codomain == Space((2,), True)
    assert Dense(torch.ones(2, 3) + 0j).domain.complex
    assert Dense(np.eye(3, dtype=np.int64)).matrix.dtype == torch.float64


def test_integers_and_read_only_arrays():
    m = np.arange(6).reshape(2, 3)
    m.flags.writeable = False
    np.testing.assert_array_equal(Dense(m)(np.ones(3)), m.sum(1))
    np.testing.assert_array_equal(Dense(np.arange(6.0).reshape(2, 3)[:, ::-1])(np.eye(3)[0]), [2, 5])


@pytest.mark.parametrize(
    ("matrix", "kwargs", "error", "message"),
    [
        (torch.full((2, 2), float("nan")), {}, ValueError, "NaN"),
        (torch.full((2, 2), float("inf")), {}, ValueError, "infinite"),
        (torch.ones(2, 2, dtype=torch.float16), {}, TypeError, "float16"),
        (torch.ones(2, 2, dtype=torch.bfloat16), {}, TypeError, "bfloat16"),
        (torch.ones(3), {}, ValueError, r"\(m, n\)"),
        (torch.ones(0, 3), {}, ValueError, "positive"),
        (torch.ones(2, 6), {"shape": (2, 2)}, ValueError, "6 columns"),
        (torch.ones(2, 2, 4), {"shape": (2, 2)}, ValueError, "one matrix"),
        (torch.ones(2, 2) + 1j, {"complex": False}, ValueError, "complex=True"),
        (np.array([["a", "b"]]), {}, TypeError, "convert"),
    ],
)
def test_bad_input(matrix, kwargs, error, message):
    with pytest.raises(error, match=message):
        Dense(matrix, **kwargs)


def test_structure_is_noticed():
    g = torch.Generator().manual_seed(0)
    assert not looks_structured(torch.randn(6, 9, generator=g))
    assert not Dense(torch.randn(6, 9, generator=g, dtype=torch.float64)).structured
    signs = torch.sign(torch.randn(6, 9, generator=g))
    fourier = torch.fft.fft(torch.eye(8, dtype=torch.complex128))
    for special in (torch.eye(5), signs, fourier, torch.zeros(3, 3)):
        assert Dense(special).structured


@pytest.mark.parametrize("shape", [(5, 16), (4, 5, 16)])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_mixed_precision_leaves_the_physics_in_full_precision(shape, half):
    generator = torch.Generator().manual_seed(0)
    a = Dense(torch.randn(shape, generator=generator))
    x = torch.randn(3, *a.domain.shape, generator=generator, requires_grad=True)
    y, normal = a(x), a.normal(x)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    with torch.autocast("cpu", dtype=half):
        mixed = a(x)
        assert mixed.dtype == torch.float32
        assert torch.equal(mixed, y)
        assert torch.equal(a.adjoint(mixed), normal)
        assert torch.equal(a.normal(x), normal)
    (mixed_slope,) = torch.autograd.grad(mixed.square().sum(), x)
    assert torch.equal(mixed_slope, slope)
