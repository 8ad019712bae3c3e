"""What pulls a field towards a better match: residual times image gradient, and its curvature.

With the warped image w, a small displacement v changes a similarity S by ``Σ r ∇w · v``, r = ∂S/∂w. A force
is ``r ∇w`` together with a curvature ``p |∇w|²``, the diagonal of a Gauss-Newton matrix (Lucas and Kanade's
with one step length for all directions): force / curvature is a step in voxels. Analytic for local
correlation and squares; by automatic differentiation for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invlearn.registration import cpu, similarity
from invlearn.registration.fields import difference
from invlearn.registration.smoothing import smooth

Volume = Float[Tensor, "D H W"]
Mask = Bool[Tensor, "D H W"]
Force = Float[Tensor, "4 D H W"]


_ROUGH = 1.5  # voxels: over that much the slope of a histogram or of patches is averaged

#: Of (warped, out): the similarity, and into `out` the three components of the force with their curvature.
ForceOf = Callable[[Tensor, Tensor], float]


def _weighted(
    residual: Tensor, curvature: Tensor, warped: Tensor, spacing: Sequence[float], out: Force
) -> None:
    """``r ∂w/s²`` per axis and ``p |∇w/s|²``: lengths in the unit of `spacing`, displacements in voxels."""
    squares = torch.zeros_like(warped)
    for axis in range(3):
        slope = difference(warped, axis)
        out[axis] = residual * slope / spacing[axis] ** 2
        squares += (slope / spacing[axis]) ** 2
    out[3] = curvature * squares


class LocalCorrelation:
    """Force of the squared local correlation, exact, and the curvature of its residuals.

    With means, variances and covariance of a window (and the floors that `similarity.lncc` adds),
    ``ρ² = cov² / (v_f v_w)`` has at a voxel q of it the
    derivative ``2/n cov/(v_f v_w) [(f - f̄) - cov/v_w (w - w̄)]``: an affine function of f(q) and w(q). The
    sum over the windows around q is therefore three box sums of window values, and the curvature
    ``Σ 2/n ρ²/v_w`` a fourth: the residual's own derivative, for windows explained well or badly alike.

    Parameters
    ----------
    fixed
        The volume to match.
    radius
        Of the windows along the three axes, in voxels.
    spacing
        Distance of neighbouring voxels along the three axes, in any unit.
    reuse
        Only every so many calls look at the windows anew; between, they pull as they did.
    mask
        Where to compare: windows around its voxels, and of them only what lies in it; None: everywhere.
    """

    def __init__(
        self,
        fixed: Volume,
        radius: Sequence[int],
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        reuse: int = 1,
        mask: Mask | None = None,
    ) -> None:
        self.radius, self.spacing, self.mask = radius, spacing, mask
        self.fixed = self._cut(similarity.centred(fixed)).contiguous()
        self.reuse, self._calls, self._value = reuse, 0, 0.0
        share = self._cut(1 / similarity.box(self._cut(torch.ones_like(fixed)), radius).clamp(min=1))
        self.floor = self._floor(fixed)
        self.stats = torch.stack([share, share, share])
        _, mean, variance = self.stats
        mean *= similarity.box(self.fixed, radius)
        variance *= similarity.box(self.fixed * self.fixed, radius)
        variance.sub_(mean * mean).clamp_(min=0).add_(self.floor)
        self._weights = fixed.new_empty((4, *fixed.shape))

    def __call__(self, warped: Volume, out: Force) -> float:
        """The mean squared correlation; `out` becomes force and curvature."""
        if self._calls % self.reuse == 0:
            self._value = self._look(warped, out[:3])
        self._calls += 1
        if cpu.serves(warped):
            cpu.correlation_force(self.fixed, warped, self._weights, out, self.spacing)
        else:
            a, b, c, p = self._weights
            _weighted(a * self.fixed - b * warped + c, p, warped, self.spacing, out)
        return self._value

    def _cut(self, x: Tensor) -> Tensor:
        """Nothing outside the mask."""
        return x if self.mask is None else x * self.mask

    def _floor(self, x: Volume) -> float:
        return float(similarity.floor_of(x if self.mask is None else x[self.mask][None, None]))

    def _look(self, warped: Volume, room: Tensor) -> float:
        """The mean squared correlation; `_weights` becomes what the windows give to every voxel."""
        floor, warped = self._floor(warped), self._cut(warped)
        value = self._windows(warped, room, floor, math.sqrt(floor * self.floor))
        if self.mask is None:
            return value
        self._weights *= self.mask
        share = float(self.mask.double().mean())
        return (value - (1 - share)) / share  # windows around other voxels are empty, and count as 1

    def _windows(self, warped: Volume, room: Tensor, floor: float, shared: float) -> float:
        """The mean over all windows."""
        if cpu.serves(warped):
            cpu.box(cpu.products(self.fixed, warped, room), self.radius, room)
            value = cpu.correlation_weights(self.stats, room, self._weights, (floor, shared))
            cpu.box(self._weights, self.radius, self._weights)
            return value
        share, mean, variance = self.stats
        sw, sww, sfw = (
            similarity.box(x, self.radius) * share for x in (warped, warped**2, self.fixed * warped)
        )
        vw = (sww - sw * sw).clamp(min=0) + floor
        covariance = sfw - mean * sw + shared
        slope, ratio = covariance / vw, covariance / variance
        pull = 2 * share * ratio / vw
        windows = torch.stack(
            [pull, pull * slope, pull * (slope * sw - mean), 2 * share * slope * ratio / vw]
        )
        self._weights = similarity.box(windows, self.radius)
        return float((slope * ratio).mean())


class Squares:
    """Force of the squared difference: residual f - w, curvature 1.

    Parameters
    ----------
    fixed
        The volume to match.
    spacing
        Distance of neighbouring voxels along the three axes, in any unit.
    mask
        Where to compare; None: everywhere.
    """

    def __init__(
        self, fixed: Volume, spacing: Sequence[float] = (1.0, 1.0, 1.0), mask: Mask | None = None
    ) -> None:
        self.fixed, self.spacing = fixed, spacing
        self.mask = torch.ones_like(fixed) if mask is None else mask.to(fixed.dtype)

    def __call__(self, warped: Volume, out: Force) -> float:
        """Minus the mean squared difference; `out` becomes force and curvature."""
        residual = (self.fixed - warped) * self.mask
        _weighted(residual, self.mask, warped, self.spacing, out)
        return -float((residual**2).sum() / self.mask.sum())


class Differentiated:
    """Force of any differentiable similarity, averaged; its curvature is the typical force, everywhere.

    So that a step is of the order of half a voxel where the force is typical.

    Parameters
    ----------
    name
        The similarity, one of `similarity.CLIMBED`.
    fixed
        The volume to match.
    spacing
        Distance of neighbouring voxels along the three axes, in any unit.
    mask
        Where to compare, see `similarity.seen`; None: everywhere.
    """

    def __init__(
        self,
        name: str,
        fixed: Volume,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        mask: Mask | None = None,
    ) -> None:
        self.similarity, self.spacing, self.mask = similarity.CLIMBED[name], spacing, mask
        self.fixed = similarity.seen(fixed, mask)

    def __call__(self, warped: Volume, out: Force) -> float:
        """The similarity; `out` becomes force and curvature."""
        with torch.enable_grad():
            w = warped.detach().requires_grad_()
            value = self.similarity(self.fixed, similarity.seen(w, self.mask))
            (residual,) = torch.autograd.grad(value, w)
        _weighted(residual, torch.zeros_like(residual), warped, self.spacing, out)
        smooth(out[:3], [_ROUGH / s for s in self.spacing], out[:3])
        length = out[:3].square().sum(0).sqrt()
        typical = length.square().sum() / length.sum().clamp(min=torch.finfo(length.dtype).tiny)
        out[3] = typical
        return float(value.detach())


def force_of(
    name: str,
    fixed: Volume,
    radius: int,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    reuse: int = 1,
    mask: Mask | None = None,
) -> ForceOf:
    """The force of a similarity by its name; `radius`, in voxels of the smallest spacing, is for lncc."""
    similarity.check_name(name)
    if name == "lncc":
        return LocalCorrelation(fixed, [max(1, round(radius / s)) for s in spacing], spacing, reuse, mask)
    if name == "mse":
        return Squares(fixed, spacing, mask)
    return Differentiated(name, fixed, spacing, mask)
