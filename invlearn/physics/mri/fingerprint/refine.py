"""Off-grid fit of T1, T2 (and B1) by safeguarded Gauss-Newton with the amplitude eliminated.

The model of a voxel is x = ρ a(θ) + noise, ρ complex. For given θ the best ρ is aᴴx / ‖a‖², so that
the residual r(θ) = x - ρ(θ) a(θ) depends on θ alone (variable projection: Golub and Pereyra, SIAM J.
Numer. Anal. 10 (1973) 413, doi:10.1137/0710036; with the derivative of ρ left out as by Kaufman, BIT 15
(1975) 49, doi:10.1007/BF01932995).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Atoms `(n, K)` and their derivatives `(n, 3, K)` at points `(n, 3)`: log T1, log T2, B1.
Model = Callable[[Tensor], tuple[Tensor, Tensor]]

_LONGEST = 0.3  # largest step of a log T1, log T2 or B1
_CONVERGED = 1e-7
_DAMPING = (1e-3, 1e-12, 1e8)  # at the start, lowest, given up
_WALL = 1e9  # stiffness of an active constraint, relative


class Region(NamedTuple):
    """Where the fit may go: low <= θ <= high, and log T2 <= log T1.

    Attributes
    ----------
    low, high
        `(n, 3)`; equal where a parameter is held.
    """

    low: Tensor
    high: Tensor

    def nearest(self, point: Tensor) -> Tensor:
        """The point brought inside."""
        point = torch.maximum(torch.minimum(point, self.high), self.low)
        return torch.stack([point[:, 0], torch.minimum(point[:, 1], point[:, 0]), point[:, 2]], -1)

    def walls(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Outward normals `(7, 3)` of the constraints, and which of them `point` touches `(n, 7)`."""
        eye = torch.eye(3, dtype=point.dtype, device=point.device)
        diagonal = (eye[1] - eye[0])[None] / 2**0.5
        touched = [point <= self.low, point >= self.high, point[:, 1:2] >= point[:, 0:1]]
        return torch.cat([-eye, eye, diagonal]), torch.cat(touched, 1)

    def rows(self, which: Tensor) -> Region:
        """The regions of some of the voxels."""
        return Region(self.low[which], self.high[which])


class _State(NamedTuple):
    """A point, with all that the next step needs from the model there."""

    point: Tensor
    cost: Tensor
    hessian: Tensor
    gradient: Tensor

    def rows(self, which: Tensor) -> _State:
        return _State(*(part[which] for part in self))


def amplitude(atoms: Tensor, x: Tensor) -> Tensor:
    """ρ = aᴴx / ‖a‖², `(n,)`."""
    return torch.linalg.vecdot(atoms.to(x.dtype), x) / atoms.abs().square().sum(-1)


def _evaluate(model: Model, x: Tensor, point: Tensor) -> _State:
    atoms, slopes = model(point)
    rho = amplitude(atoms, x)
    residual = x - rho[:, None] * atoms
    length = atoms.abs().square().sum(-1)
    along = (slopes * atoms.conj()[:, None]).sum(-1) / length[:, None]
    across = (slopes - along[..., None] * atoms[:, None]) * rho[:, None, None]
    return _State(
        point,
        residual.abs().square().sum(-1),
        torch.real(across.conj() @ across.mT),
        torch.real(across.conj() @ residual[..., None])[..., 0],
    )


def _solve(hessian: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    scale = torch.diagonal(hessian, dim1=-2, dim2=-1)
    floor = 1e-14 * scale.amax(-1, keepdim=True) + torch.finfo(scale.dtype).tiny
    damped = hessian + torch.diag_embed(damping[:, None] * scale + floor)
    return torch.linalg.solve_ex(damped, gradient[..., None])[0][..., 0]


def _step(state: _State, region: Region, damping: Tensor) -> Tensor:
    """The damped Gauss-Newton step, along the walls that it would otherwise cross."""
    step = _solve(state.hessian, state.gradient, damping)
    normals, touched = region.walls(state.point)
    stiffness = _WALL * torch.diagonal(state.hessian, dim1=-2, dim2=-1).amax(-1)
    for _ in range(3):  # a step along one wall may meet another
        blocked = touched & (step @ normals.T > 0)
        if not bool(blocked.any()):
            break
        walls = torch.einsum("nc,ci,cj->nij", blocked.to(step.dtype), normals, normals)
        step = _solve(state.hessian + stiffness[:, None, None] * walls, state.gradient, damping)
    longest = step.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)
    return step * (_LONGEST / longest).clamp_max(1)


def refine_points(model: Model, x: Tensor, point: Tensor, region: Region, iterations: int) -> Tensor:
    """Minimise ‖x - ρ a(θ)‖ from `point`; the residual of no voxel ever increases.

    Parameters
    ----------
    model
        Atoms and derivatives.
    x
        Coefficients `(n, K)`, complex.
    point
        Start `(n, 3)`, inside the region.
    region
        Constraints.
    iterations
        At most.

    Returns
    -------
    Tensor
        `(n, 3)`.
    """
    found = point.clone()
    which = torch.arange(len(point), device=point.device)
    state = _evaluate(model, x, point)
    damping = torch.full_like(state.cost, _DAMPING[0])
    for _ in range(iterations):
        inside = region.rows(which)
        trial = _evaluate(model, x, inside.nearest(state.point + _step(state, inside, damping)))
        moved = (trial.point - state.point).abs().amax(-1)
        better = trial.cost < state.cost
        state = _State(
            *(
                torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(trial, state, strict=True)
            )
        )
        found[which] = state.point
        damping = torch.where(better, damping / 10, damping * 10).clamp_min(_DAMPING[1])
        going = (moved > _CONVERGED) & (damping < _DAMPING[2])
        if not bool(going.any()):
            break
        which, x, state, damping = which[going], x[going], state.rows(going), damping[going]
    return found
