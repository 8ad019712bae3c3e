"""Learn a k-dimensional subspace from incomplete measurements alone.

The experiment that the learnability conditions speak about, run for real: given y_i = A_{g(i)} x_i
with every x_i in an unknown subspace V, find V without ever seeing a signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from invlearn.physics.family import OperatorFamily
from invlearn.physics.operator import LinearOperator

Matrices = OperatorFamily | LinearOperator | np.ndarray | torch.Tensor | Sequence[np.ndarray | torch.Tensor]
Samples = np.ndarray | torch.Tensor

_RANK = 1e-12
_UNKNOWNS = 6000
_STATIONARY = 1e-12
_STREAM = 0x5EED


@dataclass(frozen=True)
class LearnedSubspace:
    """A subspace learned from measurements, and how well it explains them.

    Attributes
    ----------
    basis
        `(n, k)` orthonormal, float64 or complex128.
    residual
        sqrt(sum_i min_c ||y_i - A_g U c||^2 / sum_i ||y_i||^2): the unexplained part of the data.
    converged
        The data are explained to `tolerance`, or the gradient vanished (noisy data).
    iterations
        Damped Gauss-Newton steps of the best start.
    restarts
        Random starts that were used.
    residuals
        `residual` after every step of the best start.
    """

    basis: np.ndarray
    residual: float
    converged: bool
    iterations: int
    restarts: int
    residuals: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; a complex basis as its real and imaginary parts."""
        if np.iscomplexobj(self.basis):
            basis: Any = {"real": self.basis.real.tolist(), "imag": self.basis.imag.tolist()}
        else:
            basis = self.basis.tolist()
        return {
            "basis": basis,
            "residual": self.residual,
            "converged": self.converged,
            "iterations": self.iterations,
            "restarts": self.restarts,
            "residuals": list(self.residuals),
        }

    def recover(self, y: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Signals `(N, n)` of the learned subspace that best explain `y` `(N, m)` = A x, `matrix` `(m, n)`.

        Directions of the subspace that A does not see are set to zero (pseudo-inverse).
        """
        return y @ (self.basis @ np.linalg.pinv(matrix @ self.basis, rcond=_RANK)).T


def dense_matrices(operators: Matrices) -> list[np.ndarray]:
    """The operators as matrices `(m_g, n)`, float64 or complex128.

    Raises
    ------
    ValueError
        Matrices with different numbers of columns, or not two-dimensional; NaN or infinite entries.
    """
    if isinstance(operators, LinearOperator):
        operators = OperatorFamily([operators])
    if isinstance(operators, OperatorFamily):
        found = [op.to_dense().detach().cpu().numpy() for op in operators]
    else:
        found = [np.asarray(a.detach().cpu() if isinstance(a, torch.Tensor) else a) for a in operators]
    found = [a.astype(np.complex128 if np.iscomplexobj(a) else np.float64) for a in found]
    if not found:
        raise ValueError("there are no operators; give matrices (G, m, n) or an OperatorFamily")
    for g, a in enumerate(found):
        if a.ndim != 2 or a.shape[1] != found[0].shape[1]:
            raise ValueError(
                f"operator {g} has shape {a.shape}, operator 0 {found[0].shape}: expected matrices "
                "(m_g, n) with one n; give (G, m, n) or an OperatorFamily"
            )
        if not np.isfinite(a).all():
            raise ValueError(f"operator {g} has NaN or infinite entries")
    return found


def split_measurements(
    y: Samples | Sequence[Samples], operator_index: Samples | None, matrices: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Measurements sorted by operator: one `(N_g, m_g)` each.

    Raises
    ------
    ValueError
        A number of operators, of measurements or an index that does not fit the matrices; NaN.
    """
    if operator_index is None:
        if len(y) != len(matrices) or any(p.ndim != 2 for p in y):
            raise ValueError(
                f"measurements without operator_index are a list of {len(matrices)} arrays (N_g, m_g), "
                f"one per operator; got {len(y)} of shapes {[tuple(p.shape) for p in y]}"
            )
        parts = [np.asarray(p) for p in y]
    else:
        if isinstance(y, Sequence):
            raise TypeError("with operator_index, the measurements are one array (N, m)")
        values, index = np.asarray(y), np.asarray(operator_index)
        if index.shape != (len(values),) or index.dtype.kind not in "iu":
            raise ValueError(
                f"operator_index must be integers of shape ({len(values)},), got {index.dtype} {index.shape}"
            )
        if index.size and (index.min() < 0 or index.max() >= len(matrices)):
            raise ValueError(
                f"operator_index {index.min()}..{index.max()} is out of range for {len(matrices)} operators"
            )
        parts = [values[index == g] for g in range(len(matrices))]
    for g, (part, a) in enumerate(zip(parts, matrices, strict=True)):
        if part.shape[1] != len(a):
            raise ValueError(
                f"the measurements of operator {g} have {part.shape[1]} entries, its matrix {len(a)} rows"
            )
        if not np.isfinite(part).all():
            raise ValueError(f"the measurements of operator {g} have NaN or infinite entries")
    return parts


class _Problem:
    """min over U of sum_g ||(I - P_{A_g U}) Y_g||^2, batched over g.

    Only Y_g Y_g^H matters, so the samples are replaced by its square root: at most m_g columns.
    Operators with fewer rows are padded with zero rows, which add nothing.
    """

    def __init__(self, matrices: Sequence[np.ndarray], parts: Sequence[np.ndarray]) -> None:
        rows = max(len(a) for a in matrices)
        dtype = np.result_type(*matrices, *parts, np.float64)
        roots = []
        for part in parts:
            u, s, _ = np.linalg.svd(part.T, full_matrices=False)
            roots.append(u * s)
        columns = max(1, max(r.shape[1] for r in roots))
        self.a = np.zeros((len(matrices), rows, matrices[0].shape[1]), dtype)
        self.y = np.zeros((len(matrices), rows, columns), dtype)
        for g, (a, root) in enumerate(zip(matrices, roots, strict=True)):
            self.a[g, : len(a)] = a
            self.y[g, : root.shape[0], : root.shape[1]] = root
        self.scale = float(np.linalg.norm(self.y))
        if self.scale == 0:
            raise ValueError("all measurements are zero (or there are none): nothing to learn from")
        self.y /= self.scale
        self.n = self.a.shape[2]

    def fit(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best coefficients C_g, what they leave unexplained, and an orthonormal basis of A_g U."""
        images = self.a @ basis
        u, s, vh = np.linalg.svd(images, full_matrices=False)
        # A direction that an operator does not see must not blow up its coefficients.
        seen = s > _RANK * s[:, :1]
        u = u * seen[:, None, :]
        inverse = np.where(seen, 1 / np.where(seen, s, 1.0), 0.0)
        projected = u.conj().swapaxes(1, 2) @ self.y
        coefficients = vh.conj().swapaxes(1, 2) @ (inverse[..., None] * projected)
        return coefficients, self.y - u @ projected, u

    def step(
        self,
        basis: np.ndarray,
        coefficients: np.ndarray,
        residual: np.ndarray,
        u: np.ndarray | None,
        damping: float,
    ) -> tuple[np.ndarray, float]:
        """A damped Gauss-Newton step for U, and the decrease of the squared residual it promises.

        With `u`, the coefficients follow U (variable projection, Kaufman's Jacobian); without, they
        stay as they are, which makes it the basis half of alternating minimisation.
        """
        n, k = basis.shape
        a = self.a if u is None else self.a - u @ (u.conj().swapaxes(1, 2) @ self.a)
        left = (a.conj().swapaxes(1, 2) @ a).reshape(len(a), -1)
        right = (coefficients.conj() @ coefficients.swapaxes(1, 2)).reshape(len(a), -1)
        hessian = (left.T @ right).reshape(n, n, k, k).swapaxes(1, 2).reshape(n * k, n * k)
        size = float(np.trace(hessian).real) / (n * k)
        # Moving U inside its own span changes nothing: fix that gauge, then damp.
        gauge = np.kron(basis @ basis.conj().T, np.eye(k)) if u is not None else 0.0
        hessian = hessian + size * gauge + (damping * size + 1e-300) * np.eye(n * k)
        gradient = (self.a.conj().swapaxes(1, 2) @ residual @ coefficients.conj().swapaxes(1, 2)).sum(0)
        try:
            step = np.linalg.solve(hessian, gradient.reshape(-1)).reshape(n, k)
        except np.linalg.LinAlgError:
            step = np.linalg.lstsq(hessian, gradient.reshape(-1), rcond=None)[0].reshape(n, k)
        return step, float(np.vdot(gradient, step).real)

    def solve(
        self, basis: np.ndarray, alternations: int, iterations: int, tolerance: float
    ) -> tuple[np.ndarray, list[float], bool]:
        """Alternating minimisation, then damped variable projection, from one start."""
        for _ in range(alternations):
            coefficients, residual, _ = self.fit(basis)
            basis = np.linalg.qr(basis + self.step(basis, coefficients, residual, None, 1e-6)[0])[0]
        coefficients, residual, u = self.fit(basis)
        history = [float(np.linalg.norm(residual))]
        damping = 1e-2
        for _ in range(iterations):
            if history[-1] < tolerance:
                break
            step, gain = self.step(basis, coefficients, residual, u, damping)
            # The gain that is still to be had vanishes: a minimum above zero, as noisy data have.
            # Damping shrinks step and gain alike, so it is taken out.
            if (1 + damping) * gain < _STATIONARY * history[-1] ** 2:
                return basis, history, True
            trial = np.linalg.qr(basis + step)[0]
            new = self.fit(trial)
            value = float(np.linalg.norm(new[1]))
            if value < history[-1]:
                basis, (coefficients, residual, u) = trial, new
                damping = max(damping / 5, 1e-15)
                history.append(value)
            else:
                damping *= 4
                if damping > 1e8:
                    break
        return basis, history, history[-1] < tolerance


def learn_subspace(
    operators: Matrices,
    y: Samples | Sequence[Samples],
    dimension: int,
    *,
    operator_index: Samples | None = None,
    restarts: int = 20,
    iterations: int = 300,
    tolerance: float = 1e-11,
    seed: int = 0,
) -> LearnedSubspace:
    """Learn the k-dimensional subspace that best explains incomplete measurements.

    Minimises sum_i min_c ||y_i - A_{g(i)} U c||^2 over orthonormal U `(n, k)`, from random starts: a
    few rounds of alternating minimisation over coefficients and basis, then Levenberg-Marquardt
    steps on the problem in U alone (variable projection), which converge where plain
    alternation crawls, that is close to the thresholds. No ground truth enters, and nothing of
    the rank certificates.

    Parameters
    ----------
    operators
        Matrices `(G, m, n)`, a list of `(m_g, n)`, or an `OperatorFamily` (made dense).
    y
        `(N, m)` with `operator_index`, or one array `(N_g, m_g)` per operator. Real or complex.
    dimension
        k, the dimension of the subspace to find.
    operator_index
        `(N,)` integers: which operator measured sample i.
    restarts
        Random starts; the first that explains the data to `tolerance` ends the search, otherwise
        the best one is returned.
    iterations
        Gauss-Newton steps per start.
    tolerance
        Relative residual at which the data count as explained.
    seed
        Seed of the starts.

    Returns
    -------
    LearnedSubspace
        That it explains the data does not make it the true subspace: without identifiability
        others explain them as well. Compare with `recovery_error`.

    Raises
    ------
    ValueError
        Sizes that do not fit, NaN, k outside 1 ... n, no data, n k above 6000 (the dense
        Gauss-Newton matrix would need more than 300 MB).

    References
    ----------
    .. [1] G. Golub, V. Pereyra, "Separable nonlinear least squares: the variable projection method and
       its applications", Inverse Problems 19, 2003, doi:10.1088/0266-5611/19/2/201.
    .. [2] J. Tachella, D. Chen, M. Davies, "Unsupervised learning from incomplete measurements for
       inverse problems", NeurIPS 2022, arXiv:2201.12151.
    """
    matrices = dense_matrices(operators)
    n = matrices[0].shape[1]
    if not 1 <= dimension <= n:
        raise ValueError(f"dimension must be in 1 ... {n} (the size of a signal), got {dimension}")
    if n * dimension > _UNKNOWNS:
        raise ValueError(
            f"a {dimension}-dimensional subspace of {n} entries has {n * dimension} unknowns; "
            f"learn_subspace is dense and takes {_UNKNOWNS} at most; use smaller signals (patches) "
            "or a smaller dimension"
        )
    if restarts < 1 or iterations < 1:
        raise ValueError(
            f"restarts and iterations must be 1 or more, got {restarts} restarts, {iterations} iterations"
        )
    problem = _Problem(matrices, split_measurements(y, operator_index, matrices))
    # A stream of its own: data drawn with default_rng(seed) must not hand the start the true subspace.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    best: tuple[np.ndarray, list[float], bool] | None = None
    used = 0
    while used < restarts and (best is None or best[1][-1] >= tolerance):
        used += 1
        start = rng.standard_normal((n, dimension)).astype(problem.a.dtype)
        if np.iscomplexobj(start):
            start = start + 1j * rng.standard_normal((n, dimension))
        found = problem.solve(np.linalg.qr(start)[0], 10, iterations, tolerance)
        if best is None or found[1][-1] < best[1][-1]:
            best = found
    assert best is not None
    basis, history, converged = best
    return LearnedSubspace(basis, history[-1], converged, len(history) - 1, used, tuple(history))


def recovery_error(learned: LearnedSubspace, operators: Matrices, signals: Samples) -> float:
    """Relative error of recovering held-out signals from their measurements.

    Every signal is measured by every operator and recovered in the learned subspace:
    sqrt(sum_{g,i} ||x_i - U (A_g U)^+ A_g x_i||^2 / (G sum_i ||x_i||^2)).

    Parameters
    ----------
    learned
        The result of `learn_subspace`.
    operators
        As in `learn_subspace`.
    signals
        `(N, n)` ground truth that was not learned from.

    Raises
    ------
    ValueError
        Signals of another size, or all zero.
    """
    x = np.asarray(signals)
    matrices = dense_matrices(operators)
    if x.ndim != 2 or x.shape[1] != matrices[0].shape[1]:
        raise ValueError(f"signals are (N, {matrices[0].shape[1]}), got {x.shape}")
    energy = float(np.linalg.norm(x)) ** 2
    if energy == 0:
        raise ValueError("all held-out signals are zero: there is no relative error")
    errors = [float(np.linalg.norm(x - learned.recover(x @ a.T, a))) ** 2 for a in matrices]
    return float(np.sqrt(sum(errors) / (len(errors) * energy)))
