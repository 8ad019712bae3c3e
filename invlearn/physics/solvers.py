"""Iterative solvers: functions that change nothing and say whether they converged.

All work on tensors on any device, real or complex, with leading batch dimensions (each element is
solved on its own and stops on its own), and can be differentiated through.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Relative accuracy asked for by default.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True)
class Solution(Generic[T]):
    """What a solver found, and whether that is what was asked for.

    Attributes
    ----------
    value
        The solution.
    converged
        Whether the tolerance was reached by every element of the batch.
    iterations
        Steps made.
    residuals
        Relative residual after 0, 1, ... steps, the largest of the batch. The last one is
        measured at `value`, not carried along by a recursion.
    """

    value: T
    converged: bool
    iterations: int
    residuals: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; all but the value."""
        return {
            "converged": self.converged,
            "iterations": self.iterations,
            "residuals": list(self.residuals),
        }


def report(solver: str, solution: Solution[T], tolerance: float) -> Solution[T]:
    """Log a solution that did not converge, so that it is never silent."""
    if not solution.converged:
        last = solution.residuals[-1] if solution.residuals else float("nan")
        _log.warning(
            "%s did not converge: residual %.1e after %d iterations, asked for %.1e",
            solver,
            last,
            solution.iterations,
            tolerance,
        )
    return solution


def default_tolerance(tolerance: float | None, x: Tensor) -> float:
    """The tolerance asked for, or the default at the precision of `x`: 1e-4 or 1e-8."""
    if tolerance is None:
        return _TOLERANCE[torch.zeros(0, dtype=x.dtype).real.dtype]
    if not 0 < tolerance < 1:
        raise ValueError(f"a relative tolerance lies between 0 and 1, got {tolerance}")
    return tolerance


def check_budget(max_iterations: int | None, default: int) -> int:
    """The number of iterations allowed, at least one."""
    if max_iterations is None:
        return default
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    return max_iterations


def check_square(operator: LinearOperator, who: str) -> None:
    """Refuse an operator that does not map its domain to itself."""
    if operator.domain != operator.codomain:
        raise ValueError(
            f"{who} takes an operator from a space to itself, got {operator.label}; "
            "for least squares use A.H @ A, or lsqr"
        )


F = TypeVar("F", bound=Callable[..., Solution[Any]])


def _numpy_edge(solve: F) -> F:
    """Numpy right-hand side in, numpy solution out."""

    @functools.wraps(solve)
    def run(operator: LinearOperator, b: Any, *args: Any, **kwargs: Any) -> Solution[Any]:
        if not isinstance(b, np.ndarray):
            return solve(operator, b, *args, **kwargs)
        found = solve(operator, as_tensor(b, solve.__name__).to(operator.device), *args, **kwargs)
        return replace(found, value=found.value.detach().cpu().numpy())

    return cast(F, run)


def _element(space: Space, b: Tensor, who: str) -> Tensor:
    b = space.check(b, who)
    if not bool(torch.isfinite(b).all()):
        raise ValueError(f"{who}: the right-hand side has NaN or infinite entries")
    return b


def _dot(space: Space, x: Tensor, y: Tensor) -> Tensor:
    # The recurrences of all three methods have real coefficients, also for complex data: so they
    # serve operators that are linear over the reals only too.
    return torch.real(space.inner(x, y))


def _times(space: Space, a: Tensor, x: Tensor) -> Tensor:
    """A real number a batch entry times the batch."""
    return a.reshape(*a.shape, *[1] * space.ndim).to(x.dtype) * x


def _plus(space: Space, x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """x + a y in one pass, a real number a batch entry."""
    return torch.addcmul(x, a.reshape(*a.shape, *[1] * space.ndim).to(y.dtype), y)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and 0 where b is 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))


def _largest(x: Tensor) -> float:
    return float(x.detach().max()) if x.numel() else 0.0


@_numpy_edge
def cg(
    operator: LinearOperator,
    b: Tensor,
    x0: Tensor | None = None,
    *,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    partial: bool = False,
) -> Solution[Tensor]:
    """Solve A x = b for a Hermitian positive (semi)definite A by conjugate gradients.

    Parameters
    ----------
    operator
        A, from a space to itself; ``A.H @ A + 0.1 * identity(...)`` for regularised least squares.
    b
        `(*batch, *space)`.
    x0
        Start, same shape; zero by default.
    preconditioner
        An approximation of the inverse, Hermitian positive definite: an operator or a function.
    tolerance
        On ‖b - Ax‖/‖b‖; by default 1e-4 in single and 1e-8 in double precision.
    max_iterations
        By default twice the dimension, at most 1000.
    partial
        An early stop is meant, as inside another iteration: no warning is logged for it.

    Returns
    -------
    Solution
        `converged` is False too where A shows itself not positive definite.

    Raises
    ------
    ValueError
        An operator that changes the space, shapes that differ, NaN or infinite entries.

    References
    ----------
    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409, doi:10.6028/jres.049.044.
    """
    check_square(operator, "cg")
    space = operator.domain
    b = _element(space, b, "cg")
    x = torch.zeros_like(b) if x0 is None else _start(space, x0, b)
    tolerance = default_tolerance(tolerance, b)
    budget = check_budget(max_iterations, min(2 * space.size * (2 if space.complex else 1), 1000))
    precondition = preconditioner or (lambda r: r)

    scale = space.norm(b)
    r = b if x0 is None else b - operator(x)
    residual = _ratio(space.norm(r), scale)
    history = [_largest(residual)]
    z = precondition(r)
    p, rz = z, _dot(space, r, z)
    indefinite = torch.zeros_like(residual, dtype=torch.bool)
    iterations, restarted_at = 0, float("inf")
    while iterations < budget:
        active = (residual > tolerance) & ~indefinite
        if not bool(active.any()):
            # The recursion says done; the residual itself decides, and the search goes on from there.
            r = b - operator(x)
            residual = _ratio(space.norm(r), scale)
            worst = _largest(residual)
            if worst <= tolerance or worst > restarted_at / 2 or bool(indefinite.any()):
                break
            restarted_at = worst
            z = precondition(r)
            p, rz = z, _dot(space, r, z)
            continue
        ap = operator(p)
        curvature = _dot(space, p, ap)
        indefinite = indefinite | (active & (curvature <= 0) & (rz != 0))
        step = torch.where(active & ~indefinite, _ratio(rz, curvature), torch.zeros_like(rz))
        x = _plus(space, x, step, p)
        r = _plus(space, r, -step, ap)
        z = precondition(r)
        rz, before = _dot(space, r, z), rz
        p = _plus(space, z, _ratio(rz, before), p)
        residual = _ratio(space.norm(r), scale)
        iterations += 1
        history.append(_largest(residual))
    history[-1] = _largest(_ratio(space.norm(b - operator(x)), scale))
    done = history[-1] <= tolerance
    solution = Solution(x, done, iterations, tuple(history))
    return solution if partial else report("cg", solution, tolerance)


def _start(space: Space, x0: Tensor, b: Tensor) -> Tensor:
    x = space.check(x0, "x0").to(b)
    if x.shape != b.shape:
        raise ValueError(f"x0 {tuple(x.shape)} and b {tuple(b.shape)} must have one shape")
    return x


@_numpy_edge
def minres(
    operator: LinearOperator,
    b: Tensor,
    *,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Solution[Tensor]:
    """Solve A x = b for a Hermitian A, indefinite or singular with b in its range, by MINRES.

    Parameters
    ----------
    operator
        A, from a space to itself.
    b
        `(*batch, *space)`.
    tolerance
        On ‖b - Ax‖/‖b‖; by default 1e-4 in single and 1e-8 in double precision.
    max_iterations
        By default five times the dimension, at most 1000.

    Returns
    -------
    Solution
        Not converged where b is outside the range of A: no solution exists.

    Raises
    ------
    ValueError
        An operator that changes the space, NaN or infinite entries.

    References
    ----------
    Paige and Saunders, SIAM J. Numer. Anal. 12 (1975) 617, doi:10.1137/0712047.
    """
    check_square(operator, "minres")
    space = operator.domain
    b = _element(space, b, "minres")
    tolerance = default_tolerance(tolerance, b)
    budget = check_budget(max_iterations, min(5 * space.size, 1000))

    scale = space.norm(b)
    beta = scale
    one = torch.ones_like(beta)
    v, v_old = _times(space, _ratio(one, beta), b), torch.zeros_like(b)
    x, w, w_old = torch.zeros_like(b), torch.zeros_like(b), torch.zeros_like(b)
    c = c_old = torch.ones_like(beta)
    s = s_old = torch.zeros_like(beta)
    eta = beta
    residual = _ratio(eta, scale)
    history = [_largest(residual)]
    norm = torch.zeros_like(beta)  # of the tridiagonal matrix, at most that of A
    eps = torch.finfo(beta.dtype).eps
    alive = scale > 0
    iterations = 0
    while iterations < budget and bool((alive & (residual > tolerance)).any()):
        av = operator(v)
        alpha = _dot(space, v, av)
        new = _plus(space, _plus(space, av, -alpha, v), -beta, v_old)
        beta_new = space.norm(new)
        norm = torch.maximum(norm, alpha.abs() + beta + beta_new) if iterations else alpha.abs() + beta_new
        # Lanczos has found an invariant subspace: the next vector is rounding
        beta_new = torch.where(beta_new <= 10 * eps * norm, torch.zeros_like(beta), beta_new)
        off = beta if iterations else torch.zeros_like(beta)
        delta = c * alpha - c_old * s * off
        rho1 = torch.hypot(delta, beta_new)
        rho2 = s * alpha + c_old * c * off
        rho3 = s_old * off
        # a zero pivot: A is singular on the subspace and b outside its range
        go = alive & (residual > tolerance) & (rho1 > 10 * eps * norm)
        c_old, s_old = c, s
        c, s = _ratio(delta, rho1), _ratio(beta_new, rho1)
        w_new = _times(space, _ratio(one, rho1), _plus(space, _plus(space, v, -rho3, w_old), -rho2, w))
        x = _plus(space, x, torch.where(go, c * eta, torch.zeros_like(eta)), w_new)
        w_old, w = w, w_new
        eta = torch.where(go, -s * eta, eta)
        residual = _ratio(eta.abs(), scale)
        v_old, v = v, _times(space, _ratio(one, beta_new), new)
        beta = beta_new
        alive = go & (beta_new > 0)
        iterations += 1
        history.append(_largest(residual))
    history[-1] = _largest(_ratio(space.norm(b - operator(x)), scale))
    # the recursion may be ahead of the residual itself by rounding
    done = history[-1] <= 2 * tolerance
    return report("minres", Solution(x, done, iterations, tuple(history)), tolerance)


@_numpy_edge
def lsqr(
    operator: LinearOperator,
    b: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Solution[Tensor]:
    """Minimise ‖Ax - b‖² + damping² ‖x‖² by LSQR: better conditioned than CG on AᴴA.

    Without damping the solution of least norm, as the iteration starts at zero.

    Parameters
    ----------
    operator
        A, any linear operator.
    b
        `(*batch, *codomain)`.
    damping
        Not negative; in the units of A.
    tolerance
        On ‖Aᴴr - damping² x‖ / (‖A‖_F ‖(r, damping x)‖), r = b - Ax, or on ‖r‖/‖b‖ where the
        equations can be met; by default 1e-4 in single and 1e-8 in double precision.
    max_iterations
        By default twice the larger dimension, at most 1000.

    Returns
    -------
    Solution
        `residuals` are those of the first kind: zero at a minimum.

    Raises
    ------
    ValueError
        A wrong shape, NaN or infinite entries, a negative damping.

    References
    ----------
    Paige and Saunders, ACM Trans. Math. Softw. 8 (1982) 43, doi:10.1145/355984.355989.
    """
    a, c = operator.codomain, operator.domain
    b = _element(a, b, "lsqr")
    if not damping >= 0:
        raise ValueError(f"lsqr: damping must not be negative, got {damping}")
    tolerance = default_tolerance(tolerance, b)
    budget = check_budget(max_iterations, min(2 * max(a.size, c.size), 1000))

    scale = beta = a.norm(b)
    one = torch.ones_like(beta)
    u = _times(a, _ratio(one, beta), b)
    v = operator.adjoint(u)
    alpha = c.norm(v)
    v = _times(c, _ratio(one, alpha), v)
    w, x = v, torch.zeros_like(v)
    phi, rho = beta, alpha
    frobenius = alpha.square()
    shifted = torch.zeros_like(beta)  # what the damping adds to the squared residual
    residual = torch.where(alpha * beta == 0, torch.zeros_like(beta), one)
    history = [_largest(residual)]
    active = residual > 0
    iterations = 0
    while iterations < budget and bool(active.any()):
        u = _plus(a, operator(v), -alpha, u)
        beta = a.norm(u)
        u = _times(a, _ratio(one, beta), u)
        frobenius = frobenius + beta.square() + damping**2
        v_new = _plus(c, operator.adjoint(u), -beta, v)
        alpha = c.norm(v_new)
        frobenius = frobenius + alpha.square()
        v = _times(c, _ratio(one, alpha), v_new)

        # one rotation removes the damping, one the subdiagonal
        rho_damped = torch.hypot(rho, torch.full_like(rho, damping))
        shifted = shifted + (damping * _ratio(phi, rho_damped)).square()
        phi = _ratio(rho, rho_damped) * phi
        rho_new = torch.hypot(rho_damped, beta)
        cos, sin = _ratio(rho_damped, rho_new), _ratio(beta, rho_new)
        theta, rho = sin * alpha, -cos * alpha
        step = torch.where(active, _ratio(cos * phi, rho_new), torch.zeros_like(phi))
        x = _plus(c, x, step, w)
        w = _plus(c, v, -_ratio(theta, rho_new), w)
        phi = sin * phi

        r = (phi.square() + shifted).sqrt()
        gradient = alpha * phi.abs() * cos
        residual = torch.where(active, _ratio(gradient, frobenius.sqrt() * r), residual)
        met = (phi.abs() <= tolerance * scale) if damping == 0 else torch.zeros_like(active)
        residual = torch.where(met & active, torch.minimum(residual, _ratio(phi.abs(), scale)), residual)
        active = active & (residual > tolerance) & ~met
        iterations += 1
        history.append(_largest(residual))

    r = b - operator(x)
    gradient = c.norm(operator.adjoint(r) - damping**2 * x)
    size = (a.norm(r).square() + (damping * c.norm(x)).square()).sqrt()
    final = _ratio(gradient, frobenius.sqrt() * size)
    if damping == 0:
        final = torch.minimum(final, _ratio(a.norm(r), scale))
    history[-1] = _largest(final)
    done = history[-1] <= 2 * tolerance
    return report("lsqr", Solution(x, done, iterations, tuple(history)), tolerance)
