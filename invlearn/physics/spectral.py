"""Singular values and eigenvalues of operators known only by what they do.

Eigenpairs come from a block method: a Krylov space grown from one vector (ARPACK's `eigsh`) needs
about half the applications, but holds one vector of a repeated eigenvalue in exact arithmetic, and
was seen to miss copies; how many there are is what a null space is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator
from invlearn.physics.solvers import Solution, check_budget, check_square, report
from invlearn.physics.space import Space


class Eigenpairs(NamedTuple):
    """`values` `(k,)` in rising order, `vectors` `(k, *space)` orthonormal."""

    values: Tensor
    vectors: Tensor


class Singular(NamedTuple):
    """`u` `(k, *codomain)`, `s` `(k,)` in falling order, `v` `(k, *domain)`: A ≈ Σ s_i u_i v_iᴴ."""

    u: Tensor
    s: Tensor
    v: Tensor


class _Columns:
    """A linear map on matrices whose columns are flattened elements.

    Where the operator is linear over the reals only, complex elements are real vectors of twice
    the size: only so do sums with real factors, and angles, mean what they should.
    """

    def __init__(self, call: Callable[[Tensor], Tensor], a: Space, b: Space, real: bool) -> None:
        self.call, self.a, self.b, self.real = call, a, b, real

    def elements(self, x: Tensor, space: Space) -> Tensor:
        rows = x.T.contiguous()
        return space.from_real(rows) if self.real else space.unflatten(rows)

    def columns(self, x: Tensor, space: Space) -> Tensor:
        return (space.to_real(x) if self.real else space.flatten(x)).T

    def __call__(self, x: Tensor) -> Tensor:
        return self.columns(self.call(self.elements(x, self.a)), self.b)

    def size(self) -> int:
        return self.a.size * (2 if self.real and self.a.complex else 1)

    def random(self, count: int, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
        # Drawn on the CPU: the same start on every device.
        generator = torch.Generator().manual_seed(seed)
        kind = dtype if self.real else self.a.dtype(dtype)
        return torch.randn(self.size(), count, dtype=kind, generator=generator).to(device)


@torch.no_grad()
def power_norm(
    operator: LinearOperator,
    *,
    tolerance: float = 1e-2,
    max_iterations: int = 500,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Solution[float]:
    """The norm ‖A‖, its largest singular value (not squared), by the power method on AᴴA.

    Exact, without iterations, where the spectrum is known in closed form.

    Parameters
    ----------
    operator
        Any linear operator.
    tolerance
        On ‖AᴴA v - λ v‖/λ. The estimate is a lower bound of ‖A‖ and, by then, within this fraction
        of a singular value, usually far closer; a random start makes that the largest one.
    max_iterations
        Applications of AᴴA allowed.
    dtype
        Precision, float32 or float64.
    seed
        Of the start.
    """
    spectrum = operator.spectrum()
    if spectrum is not None:
        return Solution(float(spectrum.values.max().clamp_min(0).sqrt()), True, 0, (0.0,))
    check_budget(max_iterations, max_iterations)
    space = operator.domain
    generator = torch.Generator().manual_seed(seed)
    v = space.random(dtype=dtype, generator=generator).to(operator.device)
    v = v / space.norm(v)
    history: list[float] = []
    value = 0.0
    for _ in range(max_iterations):
        av = operator.normal(v)
        rayleigh = float(torch.real(space.inner(v, av)))
        value = max(rayleigh, 0.0) ** 0.5
        length = float(space.norm(av))
        if length == 0:
            history.append(0.0)
            break
        history.append(float(space.norm(av - rayleigh * v)) / max(rayleigh, torch.finfo(dtype).tiny))
        if history[-1] <= tolerance:
            break
        v = av / length
    done = history[-1] <= tolerance
    return report("power_norm", Solution(value, done, len(history), tuple(history)), tolerance)


def _orthonormal(w: Tensor, bases: list[Tensor]) -> Tensor:
    """Orthonormal columns that span `w` beyond `bases`; columns that add nothing are left out."""
    eps = torch.finfo(w.dtype).eps
    for _ in range(2):
        norms = torch.linalg.vector_norm(w, dim=0)
        w = w[:, norms > 0] / norms[norms > 0]
        for basis in bases:
            w = w - basis @ (basis.mH @ w)
        # what is left of a unit column after projection says how much of it is rounding
        w = w[:, torch.linalg.vector_norm(w, dim=0) > 100 * eps]
        if w.shape[1] == 0:
            return w
        values, vectors = torch.linalg.eigh(w.mH @ w)
        keep = values > 100 * eps * values.max()
        w = w @ (vectors[:, keep] / values[keep].sqrt().to(w.dtype))
    return w


@torch.no_grad()
def lowest_eigenpairs(
    operator: LinearOperator,
    k: int,
    *,
    constraints: Tensor | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Solution[Eigenpairs]:
    """The k lowest eigenvalues of a Hermitian operator and their vectors, by block LOBPCG.

    Of AᴴA: ``lowest_eigenpairs(A.H @ A, k)``. Small problems are solved by a dense
    eigendecomposition. An eigenvalue is found to within ‖Ax - λx‖ of *an* eigenvalue; that none
    below was missed is seen, not proved.

    Parameters
    ----------
    operator
        Hermitian, from a space to itself.
    k
        Number of eigenpairs.
    constraints
        `(c, *space)`, linearly independent: search in their orthogonal complement only.
    preconditioner
        An approximation of the inverse, for residuals `(batch, *space)`.
    start
        `(s, *space)`, approximate eigenvectors to start from.
    tolerance
        On ‖Ax - λx‖ relative to the largest eigenvalue seen.
    max_iterations
        Each applies A to a few more than k vectors, which speed up the last ones.
    dtype
        Precision, float32 or float64.
    seed
        Of the start.

    Returns
    -------
    Solution
        Of `Eigenpairs`; `residuals` are the largest of the k.

    Raises
    ------
    ValueError
        k out of range, an operator that changes the space or is linear over the reals
        only on complex elements, constraints that are dependent.

    References
    ----------
    Knyazev, SIAM J. Sci. Comput. 23 (2001) 517, doi:10.1137/S1064827500366124; with the basis
    of Duersch, Shao, Yang and Gu, SIAM J. Sci. Comput. 40 (2018) C655, doi:10.1137/17M1129830.
    """
    check_square(operator, "lowest_eigenpairs")
    space, device = operator.domain, operator.device
    if operator.real_linear and space.complex:
        raise ValueError(
            f"{operator.label} is linear over the reals only: its eigenvectors are no complex space; "
            "use a complex domain throughout"
        )
    a = _Columns(operator, space, space, False)
    n = space.size
    fixed = torch.zeros(n, 0, dtype=space.dtype(dtype), device=device)
    if constraints is not None:
        given = a.columns(space.check(constraints, "constraints").to(device, fixed.dtype), space)
        fixed = _orthonormal(given.reshape(n, -1), [])
        if fixed.shape[1] < given.reshape(n, -1).shape[1]:
            raise ValueError("lowest_eigenpairs: the constraints are linearly dependent; pass a basis")
    free = n - fixed.shape[1]
    if not 1 <= k <= free:
        raise ValueError(f"lowest_eigenpairs: k = {k} must lie between 1 and {free}, the dimension left")
    block = min(k + max(2, k // 4), free)
    check_budget(max_iterations, max_iterations)

    if 5 * block >= free or n <= 64:
        return _dense_lowest(operator, k, fixed, dtype)

    x = a.random(block, dtype, device, seed)
    if start is not None:
        guess = a.columns(space.check(start, "start").to(x), space).reshape(n, -1)[:, :block]
        x = torch.cat([guess, x[:, guess.shape[1] :]], 1)
    x = _orthonormal(x, [fixed])
    ax = a(x)
    values, turn = torch.linalg.eigh(x.mH @ ax)
    x, ax = x @ turn, ax @ turn
    p = ap = x[:, :0]
    largest = values.abs().max()
    history: list[float] = []
    while True:
        r = ax - x * values.to(x.dtype)
        r = r - fixed @ (fixed.mH @ r)
        errors = torch.linalg.vector_norm(r, dim=0) / largest.clamp_min(torch.finfo(dtype).tiny)
        history.append(float(errors[:k].max()))
        if history[-1] <= tolerance or len(history) > max_iterations:
            break
        w = r[:, errors > 0.1 * tolerance]
        if preconditioner is not None:
            w = a.columns(preconditioner(a.elements(w, space)), space)
        w = _orthonormal(w, [fixed, x, p])
        if w.shape[1] == 0:
            break
        basis, image = torch.cat([x, p, w], 1), torch.cat([ax, ap, a(w)], 1)
        gram = basis.mH @ image
        ritz, c = torch.linalg.eigh((gram + gram.mH) / 2)
        largest = torch.maximum(largest, ritz.abs().max())
        size = x.shape[1]
        values, c_x = ritz[:size], c[:, :size]
        # the part of the new block outside the old one, orthonormal to the new block
        c_p = c_x.clone()
        c_p[:size] = 0
        c_p = _orthonormal(c_p, [c_x])
        x, ax = basis @ c_x, image @ c_x
        p, ap = basis @ c_p, image @ c_p
    ax = a(x[:, :k])
    r = ax - x[:, :k] * values[:k].to(x.dtype)
    r = r - fixed @ (fixed.mH @ r)
    history[-1] = float(torch.linalg.vector_norm(r, dim=0).max() / largest.clamp_min(torch.finfo(dtype).tiny))
    found = Eigenpairs(values[:k], a.elements(x[:, :k], space))
    # the recurrence of the images may be ahead by rounding
    done = history[-1] <= 2 * tolerance
    return report("lowest_eigenpairs", Solution(found, done, len(history) - 1, tuple(history)), tolerance)


def _dense_lowest(
    operator: LinearOperator, k: int, fixed: Tensor, dtype: torch.dtype
) -> Solution[Eigenpairs]:
    matrix = operator.to_dense(dtype)
    complement = torch.linalg.qr(fixed, mode="complete")[0][:, fixed.shape[1] :] if fixed.shape[1] else None
    small = matrix if complement is None else complement.mH @ matrix @ complement
    values, vectors = torch.linalg.eigh((small + small.mH) / 2)
    vectors = vectors if complement is None else complement @ vectors
    return Solution(Eigenpairs(values[:k], operator.domain.unflatten(vectors[:, :k].T)), True, 0, (0.0,))


@torch.no_grad()
def randomized_svd(
    operator: LinearOperator,
    k: int,
    *,
    oversampling: int = 10,
    tolerance: float = 1e-3,
    max_iterations: int = 30,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Solution[Singular]:
    """The k largest singular values and vectors, by block subspace iteration from a random start.

    Between a real and a complex space the singular vectors are those of the real operator.

    Parameters
    ----------
    operator
        Any linear operator.
    k
        Number of singular triplets, at most the smaller dimension.
    oversampling
        Vectors iterated beyond k; more converge in fewer passes.
    tolerance
        On ‖Aᴴu - s v‖/s_1, the largest of the k (A v = s u holds to rounding). The singular values
        are then off by the square of it where they lie apart.
    max_iterations
        Passes, each one A and one Aᴴ on the block.
    dtype
        Precision, float32 or float64.
    seed
        Of the start.

    Raises
    ------
    ValueError
        k out of range, a negative oversampling.

    References
    ----------
    Halko, Martinsson and Tropp, SIAM Review 53 (2011) 217, doi:10.1137/090771806.
    """
    real = operator.real_linear
    forward = _Columns(operator, operator.domain, operator.codomain, real)
    backward = _Columns(operator.adjoint, operator.codomain, operator.domain, real)
    most = min(forward.size(), backward.size())
    if not 1 <= k <= most:
        raise ValueError(f"randomized_svd: k = {k} must lie between 1 and {most}, the smaller dimension")
    if oversampling < 0:
        raise ValueError(f"randomized_svd: oversampling must not be negative, got {oversampling}")
    check_budget(max_iterations, max_iterations)
    block = min(k + oversampling, most)
    v = torch.linalg.qr(forward.random(block, dtype, operator.device, seed))[0]
    history: list[float] = []
    while True:
        left, s, turn = torch.linalg.svd(forward(v), full_matrices=False)
        v = v @ turn.mH
        back = backward(left)
        errors = torch.linalg.vector_norm(back[:, :k] - v[:, :k] * s[:k].to(v.dtype), dim=0)
        history.append(float(errors.max() / s[0].clamp_min(torch.finfo(dtype).tiny)))
        if history[-1] <= tolerance or len(history) == max_iterations:
            break
        v = torch.linalg.qr(back)[0]
    found = Singular(
        forward.elements(left[:, :k], operator.codomain), s[:k], forward.elements(v[:, :k], operator.domain)
    )
    done = history[-1] <= tolerance
    return report("randomized_svd", Solution(found, done, len(history), tuple(history)), tolerance)
