"""Eigenvalues and singular values against dense linear algebra, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import (
    Blur,
    Dense,
    FiniteDifference,
    Fourier,
    Mask,
    Space,
    identity,
    lowest_eigenpairs,
    power_norm,
    randomized_svd,
    stack,
    to_scipy,
    zero,
)
from invlearn.physics.mri import CartesianMRI

FIELDS = pytest.mark.parametrize("cplx", [False, True])


def random(*shape, cplx=False, seed=0):
    kind = torch.complex128 if cplx else torch.float64
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def hermitian(values, cplx=False, seed=0):
    q = torch.linalg.qr(random(len(values), len(values), cplx=cplx, seed=seed))[0]
    return Dense((q * torch.tensor(values).to(q.dtype)) @ q.mH)


# the norm


@given(m=st.integers(1, 10), n=st.integers(1, 10), cplx=st.booleans(), seed=st.integers(0, 50))
def test_norm_as_dense_and_not_squared(m, n, cplx, seed):
    a = Dense(random(m, n, cplx=cplx, seed=seed))
    exact = float(torch.linalg.matrix_norm(a.matrix, 2))
    found = power_norm(a)
    assert found.converged
    assert 0.98 * exact <= found.value <= exact * (1 + 1e-12)
    assert power_norm(3 * a).value == pytest.approx(3 * found.value)
    assert power_norm(a, tolerance=1e-9, max_iterations=100_000).value == pytest.approx(exact, rel=1e-8)


def test_norm_in_closed_form():
    blur = Blur(torch.tensor([1.0, 2.0, 4.0]), (9,))
    found = power_norm(-2 * blur)
    assert (found.value, found.iterations) == (pytest.approx(14.0), 0)
    assert found.value == pytest.approx(float(torch.linalg.matrix_norm((2 * blur).to_dense(), 2)))
    assert power_norm(Mask(torch.tensor([0, 1]))).value == 1


def test_norm_arguments_matter(caplog):
    a = Dense(random(40, 40))
    assert power_norm(a, seed=1).value != power_norm(a, seed=2).value
    assert power_norm(a, seed=1).value == power_norm(a, seed=1).value
    assert power_norm(a, dtype=torch.float32).value == pytest.approx(power_norm(a).value, rel=1e-2)
    short = power_norm(a, max_iterations=2, tolerance=1e-6)
    assert not short.converged
    assert short.iterations == 2
    assert "power_norm did not converge" in caplog.text
    with pytest.raises(ValueError, match="at least 1"):
        power_norm(a, max_iterations=0)


def test_norm_of_nothing():
    assert power_norm(zero(Space((3,)), Space((2,)))).value == 0
    found = power_norm(Dense(torch.zeros(2, 3)))
    assert found.value == 0
    assert found.converged


# lowest eigenpairs


@FIELDS
@pytest.mark.parametrize("n", [5, 60, 200])
def test_lowest_as_dense(n, cplx):
    values = np.linspace(0.1, 10, n)
    a = hermitian(values, cplx)
    found = lowest_eigenpairs(a, 3, tolerance=1e-9)
    assert found.converged
    assert_close(found.value.values, torch.tensor(values[:3]))
    v = found.value.vectors
    assert v.shape == (3, n)
    assert_close(a.domain.flatten(v).conj() @ v.T, torch.eye(3, dtype=v.dtype), atol=1e-10, rtol=0)
    assert float((a(v) - found.value.values[:, None] * v).abs().max()) < 1e-7


def test_multiplicities_and_the_null_space_are_found_whole():
    # eigenvalues of the circular gradient: 4 sin²(πk/n) summed over axes; 0 once, the next one 4 times
    a = FiniteDifference((14, 14), mode="circular")
    exact = a.spectrum().values.flatten().sort()[0][:6]
    assert exact[1] == pytest.approx(float(exact[4]))
    found = lowest_eigenpairs(a.H @ a, 6, tolerance=1e-8)
    assert found.converged
    assert_close(found.value.values, exact, atol=1e-8, rtol=1e-7)
    mask = CartesianMRI(torch.rand(13, 12, generator=torch.Generator().manual_seed(0)) < 0.95)
    unseen = int((~mask.mask).sum())
    assert unseen > 2
    lowest = lowest_eigenpairs(mask.H @ mask, unseen + 1).value.values
    assert_close(lowest, torch.tensor([0.0] * unseen + [1.0], dtype=torch.float64), atol=1e-8, rtol=0)


@FIELDS
@pytest.mark.parametrize("n", [30, 150])
def test_constraints_are_deflated(n, cplx):
    a = hermitian(np.linspace(0, 10, n), cplx)
    vectors = torch.linalg.eigh(a.matrix)[1]
    # any basis of the constraint, not only an orthonormal one
    basis = (vectors[:, :4] @ random(4, 4, cplx=cplx)).T
    found = lowest_eigenpairs(a, 2, constraints=basis, tolerance=1e-9)
    assert found.converged
    assert_close(found.value.values, torch.tensor(np.linspace(0, 10, n)[4:6]))
    assert float((basis.conj() @ found.value.vectors.T).abs().max()) < 1e-8


def test_constraints_that_are_no_eigenvectors():
    a = hermitian(np.linspace(0, 10, 150))
    c = random(3, 150)
    complement = torch.linalg.qr(c.T, mode="complete")[0][:, 3:]
    exact = torch.linalg.eigvalsh(complement.T @ a.matrix @ complement)[:2]
    found = lowest_eigenpairs(a, 2, constraints=c, tolerance=1e-9)
    assert found.converged
    assert_close(found.value.values, exact)


def test_preconditioner_and_start_save_steps():
    n = 150
    scale = torch.logspace(0, 3, n, dtype=torch.float64)
    a = Dense(torch.diag(scale))
    plain = lowest_eigenpairs(a, 2, max_iterations=2000)
    quick = lowest_eigenpairs(a, 2, preconditioner=lambda r: r / scale)
    assert quick.converged
    assert quick.iterations < plain.iterations / 3
    assert_close(quick.value.values, scale[:2])
    warm = lowest_eigenpairs(a, 2, start=quick.value.vectors + 1e-5)
    assert warm.iterations < plain.iterations
    by_operator = lowest_eigenpairs(a, 2, preconditioner=Dense(torch.diag(1 / scale)))
    assert by_operator.iterations == quick.iterations


def test_images_as_scipy_and_in_closed_form():
    # the Laplacian with nearest-pixel borders has eigenvalues Σ 4 sin²(πk/2n) (cosine transform)
    d = FiniteDifference((9, 12))
    found = lowest_eigenpairs(d.H @ d, 4, tolerance=1e-9)
    waves = [4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in (9, 12)]
    exact = np.sort(np.add.outer(*waves).ravel())[:4]
    np.testing.assert_allclose(found.value.values, exact, atol=1e-8)
    np.testing.assert_allclose(np.linalg.eigvalsh(to_scipy(d.H @ d) @ np.eye(108))[:4], exact, atol=1e-8)
    assert found.value.vectors.shape == (4, 9, 12)


def test_a_real_image_behind_a_complex_measurement():
    f = Mask(torch.arange(90) % 5 != 1, complex=True) @ Fourier((90,), centered=True, complex=False)
    found = lowest_eigenpairs(f.H @ f, 3, tolerance=1e-9)
    exact = torch.linalg.eigvalsh((f.H @ f).to_dense())[:3]
    assert_close(found.value.values, exact, atol=1e-8, rtol=0)
    assert not found.value.vectors.is_complex()


def test_lowest_arguments(caplog):
    a = hermitian(np.linspace(0, 10, 200))
    short = lowest_eigenpairs(a, 3, max_iterations=2)
    assert not short.converged
    assert short.iterations == 2
    assert "lowest_eigenpairs did not converge" in caplog.text
    assert lowest_eigenpairs(a, 3, tolerance=1e-2).iterations < lowest_eigenpairs(a, 3).iterations
    first, again, other = (lowest_eigenpairs(a, 2, seed=s).value.vectors for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    single = lowest_eigenpairs(a, 2, dtype=torch.float32, tolerance=1e-3)
    assert single.value.values.dtype == torch.float32
    assert single.converged


def test_zero_operator():
    found = lowest_eigenpairs(0 * identity((100,)), 2)
    assert found.converged
    assert found.value.values.abs().max() == 0


@pytest.mark.parametrize(
    ("operator", "k", "kwargs", "message"),
    [
        (identity((5,)), 0, {}, "between 1 and 5"),
        (identity((5,)), 6, {}, "between 1 and 5"),
        (identity((5,)), 4, {"constraints": torch.eye(5)[:2]}, "between 1 and 3"),
        (identity((5,)), 1, {"constraints": torch.ones(2, 5)}, "linearly dependent"),
        (identity((5,)), 1, {"max_iterations": 0}, "at least 1"),
        (identity((5,)), 1, {"constraints": torch.ones(4)}, "expects"),
        (stack([identity((5,))]), 1, {}, "to itself"),
        (Fourier((4,), complex=False) @ Fourier((4,), complex=False).H, 1, {}, "over the reals only"),
    ],
)
def test_bad_eigenproblems(operator, k, kwargs, message):
    with pytest.raises(ValueError, match=message):
        lowest_eigenpairs(operator, k, **kwargs)


# singular values


@given(m=st.integers(1, 12), n=st.integers(1, 12), cplx=st.booleans(), data=st.data())
def test_svd_as_dense(m, n, cplx, data):
    k = data.draw(st.integers(1, min(m, n)))
    a = Dense(random(m, n, cplx=cplx, seed=m + 20 * n))
    found = randomized_svd(a, k, tolerance=1e-6)
    assert found.converged
    u, s, v = found.value
    assert_close(s, torch.linalg.svdvals(a.matrix)[:k], rtol=1e-8, atol=1e-10)
    assert_close(a(v), s[:, None] * u, atol=1e-10, rtol=0)
    assert_close(u.conj() @ u.T, torch.eye(k, dtype=u.dtype), atol=1e-10, rtol=0)
    assert_close(v.conj() @ v.T, torch.eye(k, dtype=v.dtype), atol=1e-10, rtol=0)


def test_svd_of_images_as_scipy():
    a = Blur(torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 4)), (12, 13), "valid")
    found = randomized_svd(a, 5, tolerance=1e-6, max_iterations=300)
    exact = np.sort(scipy.sparse.linalg.svds(to_scipy(a), 5, return_singular_vectors=False))[::-1]
    assert found.converged
    np.testing.assert_allclose(found.value.s, exact, rtol=1e-6)
    assert found.value.u.shape == (5, *a.codomain.shape)
    assert found.value.v.shape == (5, 12, 13)


def test_svd_of_a_real_to_complex_operator_is_the_real_one(real_matrix):
    a = Mask(torch.arange(9) % 3 != 1, complex=True) @ Fourier((9,), centered=True, complex=False)
    found = randomized_svd(a, 4, tolerance=1e-8)
    assert_close(found.value.s, torch.linalg.svdvals(real_matrix(a))[:4])
    assert not found.value.v.is_complex()
    assert found.value.u.is_complex()
    assert_close(a(found.value.v), found.value.s[:, None] * found.value.u)


def test_svd_arguments(caplog):
    g = torch.Generator().manual_seed(0)
    a = Dense(torch.randn(120, 100, dtype=torch.float64, generator=g))
    short = randomized_svd(a, 3, max_iterations=2)
    assert not short.converged
    assert short.iterations == 2
    assert "randomized_svd did not converge" in caplog.text
    few, many = (randomized_svd(a, 3, oversampling=p, max_iterations=500).iterations for p in (2, 40))
    assert many < few
    first, again, other = (randomized_svd(a, 2, seed=s, max_iterations=3).value.v for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert randomized_svd(a, 2, dtype=torch.float32, max_iterations=99).value.s.dtype == torch.float32


def test_svd_beyond_the_rank():
    a = Dense(torch.outer(torch.arange(5.0), torch.ones(4)).double())
    found = randomized_svd(a, 3)
    assert found.converged
    assert_close(
        found.value.s, torch.tensor([30.0**0.5 * 2, 0, 0], dtype=torch.float64), atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize(
    ("k", "kwargs", "message"),
    [
        (0, {}, "between 1 and 3"),
        (4, {}, "between 1 and 3"),
        (1, {"oversampling": -1}, "must not be negative"),
        (1, {"max_iterations": 0}, "at least 1"),
    ],
)
def test_bad_svd(k, kwargs, message):
    with pytest.raises(ValueError, match=message):
        randomized_svd(Dense(random(3, 5)), k, **kwargs)
