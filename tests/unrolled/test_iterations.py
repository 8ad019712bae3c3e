"""One step of each algorithm against the textbook, written with dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invlearn.physics import Dense
from invlearn.unrolled import ADMM, FISTA, HQS, L1, PDHG, PGD, DataTerm
from invlearn.unrolled.iterations import ITERATIONS, Iteration, iteration_by_name

RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((5, 8)), RNG.standard_normal(5)
L = np.linalg.norm(A, 2) ** 2
WEIGHT = 0.3


def soft(x: np.ndarray, t: float) -> np.ndarray:
    return np.sign(x) * np.maximum(np.abs(x) - WEIGHT * t, 0)


def textbook_pgd(steps: list[float]) -> np.ndarray:
    x = np.zeros(8)
    for s in steps:
        x = soft(x - s / L * A.T @ (A @ x - Y), s / L)
    return x


def textbook_fista(steps: list[float]) -> np.ndarray:
    x = z = np.zeros(8)
    for k, s in enumerate(steps):
        before, x = x, soft(z - s / L * A.T @ (A @ z - Y), s / L)
        z = x + k / (k + 3) * (x - before)
    return x


def data_prox(z: np.ndarray, t: float) -> np.ndarray:
    return np.linalg.solve(np.eye(8) + t * A.T @ A, z + t * A.T @ Y)


def textbook_hqs(steps: list[float]) -> np.ndarray:
    z = np.zeros(8)
    for s in steps:
        z = soft(data_prox(z, s / L), s / L)
    return z


def textbook_hqs_data_last(steps: list[float]) -> np.ndarray:
    x = data_prox(np.zeros(8), steps[0] / L)
    for s in steps:
        x = data_prox(soft(x, s / L), s / L)
    return x


def textbook_admm(steps: list[float]) -> np.ndarray:
    z = u = np.zeros(8)
    for s in steps:
        x = data_prox(z - u, s / L)
        z = soft(x + u, s / L)
        u = u + x - z
    return z


def textbook_pdhg(steps: list[float]) -> np.ndarray:
    x, u = np.zeros(8), np.zeros(5)
    for s in steps:
        new = soft(x - s / L * A.T @ u, s / L)
        u = (u + (A @ (2 * new - x) - Y) / s) / (1 + 1 / s)
        x = new
    return x


TEXTBOOK = {
    "pgd": (PGD(), textbook_pgd),
    "fista": (FISTA(), textbook_fista),
    "hqs": (HQS(), textbook_hqs),
    "hqs, data last": (HQS(data_last=True), textbook_hqs_data_last),
    "admm": (ADMM(), textbook_admm),
    "pdhg": (PDHG(), textbook_pdhg),
}


@pytest.mark.parametrize("name", TEXTBOOK)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_textbook(name: str, batch: tuple[int, ...]) -> None:
    iteration, textbook = TEXTBOOK[name]
    steps = [1.0, 0.8, 0.9, 0.5, 1.0, 0.7]
    data = DataTerm(
        Dense(torch.from_numpy(A)), torch.from_numpy(Y).expand(*batch, 5), norm=L**0.5, tolerance=1e-13
    )
    state = iteration.start(data, data.zero())
    for k, step in enumerate(steps):
        state = iteration.advance(state, data, L1(WEIGHT).prox, step, k)
    expected = np.broadcast_to(textbook(steps), (*batch, 8))
    np.testing.assert_allclose(iteration.image(state).numpy(), expected, atol=1e-10)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("name", TEXTBOOK)
def test_starts_at_the_image_given(name: str) -> None:
    iteration: Iteration = TEXTBOOK[name][0]
    data = DataTerm(Dense(torch.from_numpy(A)), torch.from_numpy(Y))
    x = torch.from_numpy(RNG.standard_normal(8))
    assert torch.equal(iteration.image(iteration.start(data, x)), x)


def test_the_tolerance_of_the_data_steps() -> None:
    data = DataTerm(Dense(torch.from_numpy(A)), torch.from_numpy(Y), norm=L**0.5, tolerance=1e-13)
    exact = data_prox(np.zeros(8), 5 / L)
    for tolerance in (0.3, None):
        iteration = HQS(tolerance=tolerance)
        (x,) = iteration.advance(iteration.start(data, data.zero()), data, lambda x, step: x, 5.0, 0)
        system = np.eye(8) + 5 / L * A.T @ A
        residual = np.linalg.norm(system @ (x.numpy() - exact)) / np.linalg.norm(system @ exact)
        assert residual < (tolerance or 1e-12)
        assert tolerance is None or residual > 1e-9


def test_names() -> None:
    assert set(ITERATIONS) == set(TEXTBOOK) - {"hqs, data last"}
    assert iteration_by_name("pdhg") == PDHG()
    with pytest.raises(ValueError, match="no iteration 'newton'; there are pgd, fista"):
        iteration_by_name("newton")
