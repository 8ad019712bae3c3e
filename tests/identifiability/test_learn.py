from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.identifiability.learn import LearnedSubspace, learn_subspace, recovery_error
from invlearn.physics.family import OperatorFamily

Problem = tuple[np.ndarray, np.ndarray, list[np.ndarray]]


def problem(n: int, k: int, m: int, operators: int, *, seed: int, cplx: bool = False) -> Problem:
    """Gaussian matrices `(G, m, n)`, the subspace `(n, k)`, and measurements, `(4k, m)` each."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if cplx else 0)

    basis = np.linalg.qr(draw(n, k))[0]
    matrices = draw(operators, m, n)
    return matrices, basis, [draw(4 * k, k) @ (a @ basis).T for a in matrices]


def distance(found: np.ndarray, basis: np.ndarray) -> float:
    """Sine of the largest angle between two subspaces with orthonormal bases."""
    return float(np.linalg.norm(basis - found @ (found.conj().T @ basis), 2))


def held_out(basis: np.ndarray, samples: int = 20) -> np.ndarray:
    return np.random.default_rng(77).standard_normal((samples, basis.shape[1])) @ basis.T


# Theory: a generic subspace is fixed by generic operators from m = k + (n-k)/G on, and not before.
@pytest.mark.parametrize(("n", "k", "operators"), [(30, 3, 2), (30, 3, 5), (30, 8, 4), (40, 5, 7)])
def test_learned_exactly_from_the_threshold_on(n: int, k: int, operators: int) -> None:
    threshold = math.ceil(k + (n - k) / operators)
    matrices, basis, y = problem(n, k, threshold, operators, seed=1)
    learned = learn_subspace(matrices, y, k)
    assert learned.converged
    assert distance(learned.basis, basis) < 1e-6
    assert recovery_error(learned, matrices, held_out(basis)) < 1e-3


@pytest.mark.parametrize(("n", "k", "operators"), [(30, 3, 2), (30, 3, 5), (30, 8, 4), (40, 5, 7)])
def test_below_the_threshold_the_data_are_explained_by_another_subspace(
    n: int, k: int, operators: int
) -> None:
    threshold = math.ceil(k + (n - k) / operators)
    matrices, basis, y = problem(n, k, threshold - 1, operators, seed=1)
    learned = learn_subspace(matrices, y, k)
    assert learned.residual < 1e-9
    assert distance(learned.basis, basis) > 0.1
    assert recovery_error(learned, matrices, held_out(basis)) > 0.1


def test_complex_counts_complex_numbers() -> None:
    for m, learns in ((8, False), (9, True)):  # 3 + 27/5 = 8.4
        matrices, basis, y = problem(30, 3, m, 5, seed=2, cplx=True)
        learned = learn_subspace(matrices, y, 3)
        assert learned.basis.dtype == np.complex128
        assert (distance(learned.basis, basis) < 1e-6) is learns


def test_a_full_matrix_gives_the_principal_subspace() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 8)) + 0.1 * rng.standard_normal((50, 8))
    learned = learn_subspace(np.eye(8)[None], [y], 3)
    principal = np.linalg.svd(y.T)[0][:, :3]
    values = np.linalg.svd(y, compute_uv=False)
    assert distance(learned.basis, principal) < 1e-4
    assert learned.residual == pytest.approx(np.sqrt((values[3:] ** 2).sum() / (values**2).sum()), rel=1e-6)
    assert learned.converged


def test_noise_costs_in_proportion() -> None:
    matrices, basis, clean = problem(20, 2, 8, 5, seed=3)
    rng = np.random.default_rng(1)
    angles = []
    for sd in (1e-4, 1e-2):
        y = [p + sd * rng.standard_normal(p.shape) for p in clean]
        learned = learn_subspace(matrices, y, 2, restarts=3)
        assert learned.converged
        angles.append(distance(learned.basis, basis))
    assert angles[0] < 1e-3
    assert 10 < angles[1] / angles[0] < 1000


def test_masks_operators_and_sizes_that_differ() -> None:
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.standard_normal((16, 2)))[0]
    masks = rng.permuted(np.tile(np.arange(16) < 9, (6, 1)), axis=1)
    masks[0, masks[0].argmax()] = False
    x = [rng.standard_normal((10, 2)) @ basis.T for _ in masks]
    rows = [np.eye(16)[m] for m in masks]
    from_rows = learn_subspace(rows, [p[:, m] for p, m in zip(x, masks, strict=True)], 2)
    assert distance(from_rows.basis, basis) < 1e-6

    family = OperatorFamily.from_masks(torch.from_numpy(masks.reshape(6, 4, 4)))
    y = np.concatenate([p * m for p, m in zip(x, masks, strict=True)])
    from_family = learn_subspace(family, y, 2, operator_index=np.repeat(np.arange(6), 10))
    assert distance(from_family.basis, basis) < 1e-6
    assert recovery_error(from_family, family, held_out(basis)) < 1e-6
    with_one = learn_subspace(family[0], [y[:10]], 2)
    assert with_one.residual < 1e-9


def test_index_form_list_form_and_tensors_agree() -> None:
    matrices, _, y = problem(12, 2, 6, 3, seed=5)
    listed = learn_subspace(matrices, y, 2)
    index = np.repeat(np.arange(3), 8)
    order = np.random.default_rng(0).permutation(24)
    indexed = learn_subspace(
        torch.from_numpy(matrices),
        torch.from_numpy(np.concatenate(y)[order]),
        2,
        operator_index=torch.from_numpy(index[order]),
    )
    assert distance(listed.basis, indexed.basis) < 1e-8


def test_every_setting_counts() -> None:
    matrices, _, y = problem(30, 3, 6, 10, seed=6)
    learned = learn_subspace(matrices, y, 3)
    assert learned.to_dict() == learn_subspace(matrices, y, 3).to_dict()
    assert not np.array_equal(learned.basis, learn_subspace(matrices, y, 3, seed=1).basis)
    assert learned.iterations > 1
    short = learn_subspace(matrices, y, 3, iterations=1, restarts=2)
    assert short.iterations <= 1
    assert not short.converged
    assert short.restarts == 2
    loose = learn_subspace(matrices, y, 3, tolerance=0.5)
    assert loose.restarts == 1
    assert loose.residual > learned.residual
    assert len(learned.residuals) == learned.iterations + 1
    assert sorted(learned.residuals, reverse=True) == list(learned.residuals)
    json.dumps(learned.to_dict())


def test_the_start_is_no_copy_of_data_drawn_with_the_same_seed() -> None:
    for seed in range(3):
        basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((12, 2)))[0]
        y = [np.random.default_rng(9).standard_normal((8, 2)) @ basis[:2].T]
        learned = learn_subspace(np.eye(12)[None, :2], y, 2, seed=seed)
        assert distance(learned.basis, basis) > 0.1  # two rows of one operator cannot tell


@settings(max_examples=10)
@given(scale=st.floats(1e-8, 1e8), rotation=st.integers(0, 100))
def test_units_and_rotated_measurements_change_nothing(scale: float, rotation: int) -> None:
    matrices, basis, y = problem(12, 2, 7, 4, seed=7)
    q = np.linalg.qr(np.random.default_rng(rotation).standard_normal((7, 7)))[0]
    learned = learn_subspace(q @ matrices, [scale * p @ q.T for p in y], 2)
    assert distance(learned.basis, basis) < 1e-6


def test_recover_takes_what_the_operator_does_not_see_as_zero() -> None:
    learned = LearnedSubspace(np.eye(4)[:, :2], 0.0, True, 0, 1, (0.0,))
    y = np.array([[3.0]])
    np.testing.assert_allclose(learned.recover(y, np.array([[1.0, 0, 0, 0]])), [[3.0, 0, 0, 0]])
    x = np.array([[1.0, 1.0, 0, 0]])
    assert recovery_error(learned, np.eye(4)[None, :1], x) == pytest.approx(math.sqrt(0.5))
    assert recovery_error(learned, np.eye(4)[None, :2], x) == pytest.approx(0, abs=1e-12)


A = np.ones((2, 3, 6))
Y = [np.ones((4, 3))] * 2


@pytest.mark.parametrize(
    ("operators", "y", "kwargs", "error", "message"),
    [
        ([], [], {}, ValueError, "no operators"),
        ([np.ones((3, 6)), np.ones((3, 5))], Y, {}, ValueError, "operator 1 has shape"),
        (np.full((2, 3, 6), np.nan), Y, {}, ValueError, "operator 0 has NaN"),
        (A, Y[:1], {}, ValueError, "a list of 2 arrays"),
        (A, [np.ones((4, 2))] * 2, {}, ValueError, "has? ?.*2 entries, its matrix 3 rows"),
        (A, [np.full((4, 3), np.inf)] * 2, {}, ValueError, "measurements of operator 0 have NaN"),
        (A, [np.zeros((4, 3))] * 2, {}, ValueError, "all measurements are zero"),
        (A, Y, {"dimension": 7}, ValueError, r"dimension must be in 1 ... 6"),
        (A, Y, {"dimension": 0}, ValueError, r"dimension must be in 1 ... 6"),
        (A, Y, {"restarts": 0}, ValueError, "restarts and iterations must be 1 or more"),
        (A, Y, {"iterations": 0}, ValueError, "restarts and iterations must be 1 or more"),
        (A, Y, {"operator_index": np.zeros(4, int)}, TypeError, "one array"),
        (A, np.ones((4, 3)), {"operator_index": np.zeros(3, int)}, ValueError, "integers of shape"),
        (A, np.ones((4, 3)), {"operator_index": np.full(4, 2)}, ValueError, "out of range for 2 operators"),
        (np.ones((1, 2, 3001)), [np.ones((4, 2))], {}, ValueError, "takes 6000 at most"),
    ],
)
def test_bad_input(operators: object, y: object, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learn_subspace(operators, y, **{"dimension": 2, **kwargs})  # type: ignore[arg-type]


def test_bad_held_out_signals() -> None:
    learned = LearnedSubspace(np.eye(6)[:, :2], 0.0, True, 0, 1, (0.0,))
    with pytest.raises(ValueError, match="signals are"):
        recovery_error(learned, A, np.ones((4, 5)))
    with pytest.raises(ValueError, match="all held-out signals are zero"):
        recovery_error(learned, A, np.zeros((4, 6)))
