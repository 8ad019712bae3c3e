"""The algebra of operators: results against matrices, refusals, derivatives of nonlinear ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import (
    Blur,
    Dense,
    Fourier,
    LinearOperator,
    Mask,
    Operator,
    Space,
    identity,
    zero,
)
from invlearn.physics.mri import CartesianMRI
from invlearn.physics.operator import Composition, Normal, is_flat


def dense(m, n, seed=0, cplx=False):
    kind = torch.complex128 if cplx else torch.float64
    return Dense(torch.randn(m, n, dtype=kind, generator=torch.Generator().manual_seed(seed)))


class Product(Operator):
    """x to x² times its neighbour."""

    def __init__(self, n):
        super().__init__(Space((n,)), Space((n,)))

    def _forward(self, x):
        return x.square() * x.roll(1, -1)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    cplx=st.booleans(),
    scalar=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_algebra_is_that_of_matrices(sizes, cplx, scalar, seed):
    m, k, n = sizes
    a, b, c = dense(m, k, seed, cplx), dense(k, n, seed + 1, cplx), dense(k, n, seed + 2, cplx)
    factor = scalar * (1 - 2j) if cplx else scalar
    combined = a @ (b + factor * c - c)
    expected = a.matrix @ (b.matrix + factor * c.matrix - c.matrix)
    assert_close(combined.to_dense(), expected)
    assert_close(combined.H.to_dense(), expected.mH)
    assert_close((a @ b).H.to_dense(), (b.H @ a.H).to_dense())
    assert_close((factor * b).H.to_dense(), np.conj(factor) * b.matrix.mH)
    assert_close((b * 2 / 4).to_dense(), b.matrix / 2)
    assert isinstance(combined, LinearOperator)


def test_adjoint_is_lazy_and_involutive():
    a = dense(3, 4)
    assert a.H.H is a
    assert (a.H.H.H.domain, a.H.domain) == (a.codomain, a.codomain)
    assert identity((3,)).H.H.to_dense().equal(torch.eye(3, dtype=torch.float64))


def test_normal_takes_the_fast_way():
    calls = []

    class Counting(Mask):
        def _normal(self, x):
            calls.append("normal")
            return super()._normal(x)

    a = Counting(torch.tensor([1, 0, 1]))
    x = torch.ones(3)
    for n in (a.H @ a, (a @ a.H).H):
        assert isinstance(n, Normal)
    assert_close((a.H @ a)(x), a.adjoint(a(x)))
    (dense(2, 3) @ a).normal(x)
    (3 * a).normal(x)
    assert calls == ["normal"] * 2
    assert isinstance(dense(3, 2, 1).H @ dense(3, 2, 2), Composition)
    assert (a.H @ a).H is not a


def test_numpy_scalars_and_arrays_on_the_left():
    a = dense(2, 3)
    assert_close((np.float64(2) * a).to_dense(), 2 * a.matrix)
    assert_close((a * np.int64(2)).to_dense() if isinstance(np.int64(2), int) else 2 * a.matrix, 2 * a.matrix)
    with pytest.raises(TypeError):
        np.ones(3) @ a
    with pytest.raises(TypeError):
        np.ones(3) * a


def test_zero_and_identity():
    z = zero(Space((2, 3)), Space((4,), True))
    assert_close(z(torch.ones(5, 2, 3)), torch.zeros(5, 4, dtype=torch.complex64))
    assert_close(z.adjoint(torch.ones(4)), torch.zeros(2, 3))
    x = torch.randn(2, 3)
    assert identity((2, 3))(x) is x
    assert identity((2,), complex=True).codomain.complex


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dense(2, 3) @ dense(2, 3), ValueError, r"cannot compose.*R\[3\].*R\[2\]"),
        (lambda: dense(2, 3) @ dense(3, 2, cplx=True), ValueError, "cannot compose"),
        (lambda: dense(2, 3) + dense(3, 2), ValueError, "cannot add"),
        (lambda: dense(2, 3) + dense(2, 3, cplx=True), ValueError, "cannot add"),
        (lambda: dense(2, 3) @ torch.ones(3), TypeError, r"apply it with A\(x\)"),
        (lambda: dense(2, 3) @ np.ones(3), TypeError, r"apply it with A\(x\)"),
        (lambda: dense(2, 3) + 1, TypeError, "."),
        (lambda: dense(2, 3) - torch.ones(3), TypeError, "."),
        (lambda: dense(2, 3) * "2", TypeError, "."),
        (lambda: dense(2, 3) / dense(2, 3), TypeError, "."),
        (lambda: 1j * dense(2, 3), ValueError, "needs complex spaces"),
        (lambda: 1j * Fourier((3,), complex=False), ValueError, "needs complex spaces"),
        (lambda: float("nan") * dense(2, 3), ValueError, "not finite"),
        (lambda: dense(2, 3) * float("inf"), ValueError, "not finite"),
        (lambda: dense(2, 3) / 0, ZeroDivisionError, "."),
        (lambda: Product(3) @ Product(4), ValueError, "cannot compose"),
        (lambda: Product(3) @ 2.0, TypeError, "composes operators, got float"),
    ],
)
def test_bad_algebra(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    if error is ValueError:
        assert "\n" not in str(caught.value)


def test_a_complex_factor_without_imaginary_part_is_real():
    assert_close(((2 + 0j) * dense(2, 3)).to_dense(), 2 * dense(2, 3).matrix)


def test_real_linear():
    f = Fourier((4,), complex=False)
    assert f.real_linear
    assert f.H.real_linear
    assert (f @ f.H).real_linear
    assert (f.H @ f).real_linear
    assert (2 * f).real_linear
    assert (f + f).real_linear
    assert not Fourier((4,)).real_linear
    assert not dense(2, 3).real_linear


def test_nonlinear_composition_and_linearisation():
    f, a = Product(5), dense(5, 4)
    g = f @ a
    assert isinstance(g, Operator)
    assert not isinstance(g, LinearOperator)
    x = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_close(g(x), f(a(x)))
    assert_close((dense(2, 5) @ g)(x), dense(2, 5)(f(a(x))))
    expected = torch.autograd.functional.jacobian(g, x)
    j = g.linearize(x)
    assert_close(j.to_dense(), expected)
    assert_close(j.H.to_dense(), expected.mT)
    v = torch.randn(2, 3, 4, dtype=torch.float64)
    assert_close(j(v), v @ expected.mT)
    # a Jacobian is a linear operator like any other, and keeps its point
    x0 = x.clone()
    x.zero_()
    assert_close(j.to_dense(), expected)
    assert_close((2 * j.H @ j).to_dense(), 2 * expected.mT @ expected)
    del x0


def test_jacobian_of_a_function_that_is_not_holomorphic():
    class Intensity(Operator):
        def _forward(self, x):
            return x.abs().square()

    f = Intensity(Space((3,), True), Space((3,)))
    x = f.domain.random(generator=torch.Generator().manual_seed(0))
    v = f.domain.random(generator=torch.Generator().manual_seed(1))
    j = f.linearize(x)
    assert j.real_linear
    assert_close(j(v), 2 * (x.conj() * v).real)
    w = torch.randn(3, dtype=torch.float64)
    assert_close(j.adjoint(w), 2 * x * w)


def test_linearising_at_a_batch_is_refused():
    with pytest.raises(ValueError, match="at one element, got a batch"):
        Product(3).linearize(torch.ones(2, 3))
    with pytest.raises(ValueError, match="expects"):
        Product(3).linearize(torch.ones(4))


def test_composition_spectrum_needs_an_isometry_outside():
    mask = Mask(torch.tensor([1, 0, 1, 1]), complex=True)
    assert (Fourier((4,)) @ mask).spectrum().values.tolist() == [1, 0, 1, 1]
    assert (mask @ Fourier((4,))).spectrum() is None
    assert is_flat(Fourier((4,)).spectrum())
    assert not is_flat(mask.spectrum())


def test_structured():
    assert not dense(3, 4).structured
    assert not (2 * dense(3, 4)).structured
    assert not (dense(3, 4).H @ dense(3, 4)).structured
    assert (dense(3, 4) @ Mask(torch.ones(4))).structured
    assert (dense(4, 4) + identity((4,))).structured
    assert Blur(torch.ones(2), (4,)).structured


def test_precision_of_complex_buffers_survives_conversion():
    maps = torch.randn(2, 3, dtype=torch.complex128)
    a = CartesianMRI(torch.ones(3), maps)
    for convert, dtype in (
        (lambda m: m.float(), torch.complex64),
        (lambda m: m.double(), torch.complex128),
        (lambda m: m.to(torch.float32), torch.complex64),
    ):
        a = convert(a)
        assert a.coil_maps.dtype == dtype
        assert_close(a.coil_maps.to(torch.complex128), maps, atol=1e-6, rtol=1e-6)
    with pytest.warns(UserWarning, match="Complex modules"):
        assert a.to(torch.complex128).coil_maps.dtype == torch.complex128
    # inside another module too
    torch.nn.Sequential(a).to(torch.float32)
    assert float(a.coil_maps.imag.abs().sum()) > 0


def test_to_dense_does_not_depend_on_the_chunk(monkeypatch):
    a = dense(5, 9)
    blur = Blur(torch.tensor([1.0, 2.0]), (3, 4))
    whole = (a @ Dense(torch.eye(9, dtype=torch.float64))).to_dense(), blur.to_dense()
    assert_close(whole[0], a.matrix)
    assert_close(
        whole[1] @ torch.arange(12.0, dtype=torch.float64),
        blur(torch.arange(12.0, dtype=torch.float64).reshape(3, 4)).flatten(),
    )


def test_label_and_repr():
    a = Blur(torch.ones(2, 3), (5, 6), "valid")
    assert a.label == "Blur[R[5, 6] -> R[4, 4]]"
    assert "mode='valid'" in repr(a)
    assert "Mask(R[2] -> R[2])" in repr(dense(3, 2) @ Mask(torch.ones(2)))


def test_abstract_operators_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        LinearOperator(Space((1,)), Space((1,)))
