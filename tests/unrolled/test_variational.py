"""Classical reconstructions against independent solvers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.testing import assert_close

from invlearn.physics import Dense
from invlearn.physics.mri import CartesianMRI
from invlearn.unrolled import (
    ADMM,
    FISTA,
    HQS,
    L1,
    PDHG,
    PGD,
    Box,
    TotalVariation,
    Variational,
    WaveletShrinkage,
    Zero,
)

RNG = np.random.default_rng(1)
A, Y = RNG.standard_normal((24, 6)), 2 * RNG.standard_normal(24)
OPERATOR, MEASUREMENT = Dense(torch.from_numpy(A)), torch.from_numpy(Y)
CONVERGENT = pytest.mark.parametrize("iteration", [PGD(), FISTA(), ADMM(), PDHG()], ids=repr)


def bounded(objective, size: int) -> np.ndarray:
    """Minimise a smooth function of non-negative numbers."""
    found = scipy.optimize.minimize(
        objective, np.full(size, 0.1), jac=True, method="L-BFGS-B", bounds=[(0, None)] * size,
        options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 10_000},
    )  # fmt: skip
    return found.x


def lasso(weight: float) -> np.ndarray:
    """The minimiser of ½‖Ax - y‖² + weight ‖x‖₁, x split into its positive and negative parts."""

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        r = A @ (v[:6] - v[6:]) - Y
        slope = A.T @ r
        return 0.5 * r @ r + weight * v.sum(), np.concatenate([slope, -slope]) + weight

    v = bounded(objective, 12)
    return v[:6] - v[6:]


@CONVERGENT
@pytest.mark.parametrize("weight", [0.5, 8.0])
def test_lasso(iteration, weight: float) -> None:
    found = Variational(L1(weight), iteration, tolerance=1e-8).solve(MEASUREMENT, OPERATOR)
    assert found.converged
    np.testing.assert_allclose(found.value.numpy(), lasso(weight), atol=1e-5)


@CONVERGENT
def test_non_negative_least_squares(iteration) -> None:
    found = Variational(Box(), iteration, tolerance=1e-8).solve(MEASUREMENT, OPERATOR)
    np.testing.assert_allclose(found.value.numpy(), scipy.optimize.nnls(A, Y)[0], atol=1e-6)


@CONVERGENT
def test_without_prior_least_squares(iteration) -> None:
    found = Variational(Zero(), iteration, tolerance=1e-8).solve(MEASUREMENT, OPERATOR)
    np.testing.assert_allclose(found.value.numpy(), np.linalg.lstsq(A, Y)[0], atol=1e-6)


def test_half_quadratic_splitting_solves_its_own_problem() -> None:
    # min over x and z of ½‖Ax - y‖² + ‖x - z‖²/(2τ) + weight ‖z‖₁
    weight, step = 4.0, 2.0
    tau = step / np.linalg.norm(A, 2) ** 2

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        x, z = v[:6] - v[6:12], v[12:18] - v[18:]
        r, gap = A @ x - Y, (x - z) / tau
        slope, other = A.T @ r + gap, -gap
        value = 0.5 * r @ r + tau / 2 * gap @ gap + weight * v[12:].sum()
        return value, np.concatenate([slope, -slope, other + weight, -other + weight])

    v = bounded(objective, 24)
    method = Variational(L1(weight), HQS(), step=step, tolerance=1e-8, norm=float(np.linalg.norm(A, 2)))
    z = method.solve(MEASUREMENT, OPERATOR).value.numpy()
    np.testing.assert_allclose(z, v[12:18] - v[18:], atol=1e-5)
    assert np.abs(z - lasso(weight)).max() > 1e-3
    small = Variational(L1(weight), HQS(), step=0.2, tolerance=1e-6)
    nearer = small.solve(MEASUREMENT, OPERATOR).value.numpy()
    assert np.abs(nearer - lasso(weight)).max() < 0.3 * np.abs(z - lasso(weight)).max()


def test_orthogonal_operator_in_closed_form() -> None:
    # of a full Fourier transform the problem is a denoising problem: the proximal operator itself
    generator = torch.Generator().manual_seed(0)
    fourier = CartesianMRI(torch.ones(16, 16, dtype=torch.bool))
    y = torch.randn(2, 16, 16, dtype=torch.complex128, generator=generator)
    for prior in (WaveletShrinkage(0.5, "db2", level=1), TotalVariation(0.2, tolerance=1e-5)):
        expected = prior.prox(fourier.adjoint(y), 1.0)
        for iteration in (PGD(), ADMM()):
            assert_close(
                Variational(prior, iteration, tolerance=1e-5)(y, fourier), expected, atol=1e-3, rtol=0
            )


def test_settings(caplog: pytest.LogCaptureFixture) -> None:
    def run(**settings):
        return Variational(L1(0.5), **settings).solve(MEASUREMENT, OPERATOR)

    assert run(tolerance=1e-2).iterations < run(tolerance=1e-8).iterations
    assert len(run(tolerance=1e-2).residuals) == run(tolerance=1e-2).iterations
    assert run(step=0.1).iterations > run().iterations
    assert run(norm=50.0).iterations > run().iterations
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert not run(max_iterations=3).converged
    assert "Variational with FISTA did not converge" in caplog.text
    done = run().value
    assert Variational(L1(0.5), tolerance=1e-6).solve(MEASUREMENT, OPERATOR, x0=done).iterations <= 2


def test_numpy_in_numpy_out() -> None:
    x = Variational(L1(0.5))(Y, OPERATOR)
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(x, Variational(L1(0.5))(MEASUREMENT, OPERATOR).numpy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0.0}, "the step must be positive"),
        ({"max_iterations": 0}, "max_iterations must be at least 1"),
        ({"tolerance": 2.0}, "tolerance lies between 0 and 1"),
        ({"norm": -1.0}, "norm of Dense.* must be positive"),
    ],
)
def test_bad_settings(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variational(L1(0.5), **settings).solve(MEASUREMENT, OPERATOR)


def test_bad_measurements() -> None:
    with pytest.raises(ValueError, match=r"measurement of Dense.* has NaN or infinite"):
        Variational(Zero())(MEASUREMENT * torch.nan, OPERATOR)
    with pytest.raises(ValueError, match="expects"):
        Variational(Zero())(MEASUREMENT[:4], OPERATOR)
    with pytest.raises(ValueError, match="x0 expects"):
        Variational(Zero()).solve(MEASUREMENT, OPERATOR, x0=MEASUREMENT)
