"""Solvers against dense linear algebra and SciPy, on problems that converge and ones that cannot."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Blur, Dense, Fourier, Mask, cg, identity, lsqr, minres, stack, to_scipy
from invlearn.physics.mri import CartesianMRI

FIELDS = pytest.mark.parametrize("cplx", [False, True])


def random(*shape, cplx=False, seed=0):
    kind = torch.complex128 if cplx else torch.float64
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def hermitian(values, cplx=False, seed=0):
    """A Hermitian matrix with these eigenvalues."""
    q = torch.linalg.qr(random(len(values), len(values), cplx=cplx, seed=seed))[0]
    return Dense((q * torch.tensor(values).to(q.dtype)) @ q.mH)


def solve(a, b):
    return torch.linalg.solve(a.matrix, b.unsqueeze(-1)).squeeze(-1)


# conjugate gradients


@given(
    n=st.integers(1, 12),
    cplx=st.booleans(),
    batch=st.lists(st.integers(1, 3), max_size=2),
    seed=st.integers(0, 50),
)
def test_cg_as_dense(n, cplx, batch, seed):
    a = hermitian(np.linspace(0.5, 3, n), cplx, seed)
    b = random(*batch, n, cplx=cplx, seed=seed + 1)
    found = cg(a, b, tolerance=1e-11)
    assert found.converged
    assert_close(found.value, solve(a, b), atol=1e-9, rtol=1e-8)
    assert found.iterations <= n + 2


@FIELDS
def test_cg_stops_each_element_on_its_own(cplx):
    a = hermitian(np.linspace(1, 50, 30), cplx)
    eigenvector = torch.linalg.eigh(a.matrix)[1][:, 3]
    b = torch.stack(
        [random(30, cplx=cplx), eigenvector, 1e-9 * random(30, cplx=cplx, seed=2), 0 * eigenvector]
    )
    found = cg(a, b, tolerance=1e-10)
    assert found.converged
    for one, value in zip(b, found.value, strict=True):
        assert_close(value, solve(a, one), atol=1e-18, rtol=1e-7)
    # an eigenvector takes one step
    assert cg(a, eigenvector).iterations == 1


def test_cg_preconditioner_and_start_save_steps():
    n = 200
    scale = torch.logspace(0, 6, n, dtype=torch.float64)
    a = Dense(torch.diag(scale) + 0.1)
    b = random(n)
    plain = cg(a, b, tolerance=1e-8, max_iterations=2000)
    better = cg(a, b, preconditioner=lambda r: r / scale, tolerance=1e-8)
    by_operator = cg(a, b, preconditioner=Dense(torch.diag(1 / scale)), tolerance=1e-8)
    assert better.converged
    assert better.iterations < plain.iterations / 5
    assert by_operator.iterations == better.iterations
    assert_close(better.value, solve(a, b), rtol=1e-6, atol=1e-8)
    assert cg(a, b, x0=solve(a, b), tolerance=1e-8).iterations == 0
    started = cg(a, b, x0=better.value + 1e-9, preconditioner=lambda r: r / scale, tolerance=1e-10)
    assert_close(started.value, solve(a, b), rtol=1e-8, atol=1e-9)


def test_cg_on_images_as_scipy():
    blur = Blur(torch.tensor([[0.1, 0.2, 0.1], [0.2, 1.0, 0.2]]), (9, 8), "replicate")
    a = blur.H @ blur + 0.05 * identity((9, 8))
    b = random(9, 8)
    expected, info = scipy.sparse.linalg.cg(to_scipy(a), b.numpy().ravel(), rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(cg(a, b, tolerance=1e-11).value.numpy().ravel(), expected, atol=1e-8)


def test_cg_on_a_singular_but_consistent_system():
    mask = CartesianMRI(torch.rand(8, 7, generator=torch.Generator().manual_seed(0)) < 0.5)
    y = mask(mask.domain.random(generator=torch.Generator().manual_seed(1)))
    found = cg(mask.H @ mask, mask.adjoint(y))
    assert found.converged
    assert_close(found.value, mask.adjoint(y))


@FIELDS
def test_cg_says_that_an_operator_is_not_positive(cplx, caplog):
    a = hermitian([-1.0, 1.0, 2.0, 3.0], cplx)
    found = cg(a, torch.linalg.eigh(a.matrix)[1][:, 0])
    assert not found.converged
    assert found.iterations <= 1
    assert "cg did not converge" in caplog.text


def test_cg_says_nothing_of_an_early_stop_that_is_meant(caplog):
    a, b = hermitian([1.0, 2.0, 3.0], False), random(3)
    for partial in (True, False):
        assert not cg(a, b, max_iterations=1, partial=partial).converged
        assert ("did not converge" in caplog.text) is not partial


def test_cg_on_an_operator_through_the_reals():
    f = Fourier((6,), complex=False)
    a = f @ f.H + identity((6,), complex=True)
    b = random(6, cplx=True)
    found = cg(a, b, tolerance=1e-10)
    assert found.converged
    assert_close(a(found.value), b, atol=1e-9, rtol=0)


# MINRES


@given(n=st.integers(1, 12), cplx=st.booleans(), seed=st.integers(0, 50))
def test_minres_on_indefinite_systems_as_dense(n, cplx, seed):
    values = np.linspace(1, 4, n) * np.where(np.arange(n) % 2, -1, 1)
    a = hermitian(values, cplx, seed)
    b = random(3, n, cplx=cplx, seed=seed + 1)
    found = minres(a, b, tolerance=1e-10)
    assert found.converged
    assert_close(found.value, solve(a, b), atol=1e-7, rtol=1e-7)


def test_minres_as_scipy():
    a = hermitian(np.linspace(-3, 5, 40) + 0.05)
    b = random(40)
    ours = minres(a, b, max_iterations=15, tolerance=1e-12)
    theirs, _ = scipy.sparse.linalg.minres(to_scipy(a), b.numpy(), rtol=1e-14, maxiter=15)
    # the same Krylov iterate, and never a growing residual
    np.testing.assert_allclose(ours.value.numpy(), theirs, atol=1e-8)
    assert all(
        later <= earlier + 1e-12 for earlier, later in zip(ours.residuals, ours.residuals[1:], strict=False)
    )


@FIELDS
def test_minres_on_singular_systems(cplx, caplog):
    a = hermitian([0.0, 0.0, -1.0, 2.0, 3.0, 5.0], cplx)
    b = a(random(6, cplx=cplx))
    found = minres(a, b, tolerance=1e-10)
    assert found.converged
    assert_close(a(found.value), b, atol=1e-8, rtol=0)
    # least norm
    assert_close(found.value, torch.linalg.pinv(a.matrix, rtol=1e-10) @ b, atol=1e-8, rtol=0)
    outside = b + torch.linalg.svd(a.matrix)[0][:, -1]
    lost = minres(a, outside)
    assert not lost.converged
    assert bool(torch.isfinite(torch.view_as_real(lost.value + 0j)).all())
    assert "minres did not converge" in caplog.text
    nothing = minres(a, torch.zeros_like(b))
    assert nothing.converged
    assert nothing.iterations == 0
    assert float(nothing.value.abs().max()) == 0


# least squares


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    cplx=st.booleans(),
    damping=st.sampled_from([0.0, 0.3, 2.0]),
    seed=st.integers(0, 50),
)
def test_lsqr_as_dense(m, n, cplx, damping, seed):
    a, b = Dense(random(m, n, cplx=cplx, seed=seed)), random(2, m, cplx=cplx, seed=seed + 1)
    found = lsqr(a, b, damping=damping, tolerance=1e-11, max_iterations=400)
    wide = torch.cat([a.matrix, damping * torch.eye(n, dtype=a.matrix.dtype)])
    expected = torch.linalg.pinv(wide)[:, :m] @ b.T
    assert found.converged
    assert_close(found.value, expected.T, atol=1e-6, rtol=1e-5)


def test_lsqr_as_scipy():
    a, b = Dense(random(30, 20)), random(30)
    for damping in (0.0, 1.5):
        ours = lsqr(a, b, damping=damping, max_iterations=7, tolerance=1e-14)
        theirs = scipy.sparse.linalg.lsqr(
            a.matrix.numpy(), b.numpy(), damp=damping, iter_lim=7, atol=0, btol=0
        )
        np.testing.assert_allclose(ours.value.numpy(), theirs[0], atol=1e-10)


def test_lsqr_gives_the_least_norm_solution():
    mask = Mask(torch.tensor([1, 0, 1, 1]))
    found = lsqr(mask, torch.tensor([1.0, 5.0, 2.0, 3.0], dtype=torch.float64))
    assert found.converged
    assert_close(found.value, torch.tensor([1.0, 0.0, 2.0, 3.0], dtype=torch.float64))


def test_lsqr_on_coils_and_a_real_image():
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 6, 7, dtype=torch.complex128, generator=g)
    coils = CartesianMRI(torch.rand(6, 7, generator=g) < 0.5, maps)
    x = coils.domain.random(2, generator=g)
    found = lsqr(coils, coils(x), tolerance=1e-11)
    assert found.converged
    assert_close(found.value, x, atol=1e-7, rtol=1e-6)
    # a real image from half of a transform: conjugate symmetry gives the rest
    half = Mask(torch.arange(7) <= 3, complex=True) @ Fourier((7,), centered=True, complex=False)
    real = half.domain.random(generator=g)
    assert_close(lsqr(half, half(real), tolerance=1e-11).value, real, atol=1e-8, rtol=1e-7)


def test_lsqr_on_data_it_cannot_see():
    mask = Mask(torch.tensor([1, 0]))
    found = lsqr(mask, torch.tensor([0.0, 3.0]))
    assert found.converged
    assert float(found.value.abs().max()) == 0


# all of them

SOLVERS = pytest.mark.parametrize("solver", [cg, minres, lsqr])


@SOLVERS
def test_too_few_iterations_are_reported(solver, caplog):
    a = hermitian(np.linspace(1, 500, 60))
    with caplog.at_level(logging.WARNING):
        found = solver(a, random(60), max_iterations=3)
    assert not found.converged
    assert found.iterations == 3
    assert len(found.residuals) == 4
    assert "did not converge: residual" in caplog.text
    assert json.loads(json.dumps(found.to_dict()))["converged"] is False


@SOLVERS
def test_the_last_residual_is_the_true_one(solver):
    a, b = hermitian(np.linspace(1, 20, 25)), random(25)
    found = solver(a, b, max_iterations=6, tolerance=1e-12)
    r = b - a(found.value)
    expected = r.norm() / b.norm()
    if solver is lsqr:
        # of the normal equations; ‖A‖_F is estimated from below
        exact = a.adjoint(r).norm() / (torch.linalg.matrix_norm(a.matrix) * r.norm())
        assert float(exact) <= found.residuals[-1] * (1 + 1e-9)
        expected = min(expected, found.residuals[-1])
    assert found.residuals[-1] == pytest.approx(float(expected), rel=1e-9)


@SOLVERS
def test_tolerance_is_kept_and_follows_the_precision(solver):
    a = hermitian(np.linspace(1, 100, 50))
    b = random(50)
    steps = [solver(a, b, tolerance=t).iterations for t in (1e-2, 1e-5, 1e-9)]
    assert steps == sorted(set(steps))
    single = solver(a, b.float())
    assert single.converged
    assert single.value.dtype == torch.float32
    assert 1e-8 < single.residuals[-1] <= 2e-4
    assert solver(a, b).residuals[-1] <= 2e-8


@SOLVERS
def test_nothing_is_changed(solver):
    a, b = hermitian(np.linspace(1, 9, 8)), random(8)
    b0, state = b.clone(), {k: v.clone() for k, v in a.state_dict().items()}
    first, second = solver(a, b), solver(a, b)
    assert torch.equal(first.value, second.value)
    assert first.residuals == second.residuals
    assert torch.equal(b, b0)
    assert all(torch.equal(state[k], v) for k, v in a.state_dict().items())
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.converged = False


@SOLVERS
def test_numpy_in_numpy_out(solver):
    a, b = hermitian(np.linspace(1, 9, 8)), random(2, 8)
    found = solver(a, b.numpy())
    assert isinstance(found.value, np.ndarray)
    np.testing.assert_array_equal(found.value, solver(a, b).value.numpy())


@SOLVERS
def test_gradients_pass_through(solver):
    a, b = hermitian(np.linspace(1, 3, 5)), random(5)
    b.requires_grad_(True)
    solver(a, b, tolerance=1e-12).value.sum().backward()
    expected = solve(a, torch.ones(5, dtype=torch.float64))
    assert_close(b.grad, expected, atol=1e-6, rtol=1e-6)


@SOLVERS
def test_empty_batch(solver):
    found = solver(hermitian([1.0, 2.0]), torch.zeros(0, 2))
    assert found.converged
    assert found.value.shape == (0, 2)


@SOLVERS
@pytest.mark.parametrize(
    ("b", "kwargs", "error", "message"),
    [
        (torch.full((3,), float("nan")), {}, ValueError, "NaN or infinite"),
        (torch.tensor([1.0, float("inf"), 0.0]), {}, ValueError, "NaN or infinite"),
        (torch.ones(4), {}, ValueError, r"expects \(\*batch, 3\)"),
        (torch.ones(3, dtype=torch.float16), {}, TypeError, "float16"),
        (torch.ones(3) + 1j, {}, ValueError, "real data"),
        (torch.ones(3), {"tolerance": 0.0}, ValueError, "between 0 and 1"),
        (torch.ones(3), {"tolerance": 2.0}, ValueError, "between 0 and 1"),
        (torch.ones(3), {"max_iterations": 0}, ValueError, "at least 1"),
    ],
)
def test_bad_input(solver, b, kwargs, error, message):
    with pytest.raises(error, match=message):
        solver(hermitian([1.0, 2.0, 3.0]), b, **kwargs)


@pytest.mark.parametrize("solver", [cg, minres])
def test_an_operator_that_changes_the_space_is_refused(solver):
    with pytest.raises(ValueError, match=r"to itself.*least squares"):
        solver(Dense(random(3, 4)), torch.ones(3))
    with pytest.raises(ValueError, match="to itself"):
        solver(stack([identity((3,))]), torch.ones(1, 3))


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="damping must not be negative"):
        lsqr(Dense(random(3, 4)), torch.ones(3), damping=-1.0)
    with pytest.raises(ValueError, match="must have one shape"):
        cg(identity((3,)), torch.ones(2, 3), x0=torch.ones(3))
