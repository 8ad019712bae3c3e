"""What pulls two volumes towards one another: residuals times image gradients, and their curvature.

Both are seen from the middle, as f and m. A small displacement v of the points that look at m, and -v of
those that look at f, changes a similarity S by ``Σ (r_m ∇m - r_f ∇f) · v``, r = ∂S/∂f and ∂S/∂m. That is the
force; with it goes a curvature ``p_m |∇m|² + p_f |∇f|²``, the diagonal of a Gauss-Newton matrix (Lucas and
Kanade's with one step length for all directions): force / curvature is a step in voxels. Analytic for local
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

#: Of (fixed, moving, out): the similarity, and into `out` the components of the force with their curvature.
ForceOf = Callable[[Tensor, Tensor, Tensor], float]


def _pull(
    out: Force, image: Volume, residual: Tensor, curvature: Tensor | float, spacing: Sequence[float]
) -> None:
    """Add ``r ∂w/s²`` per axis and ``p |∇w/s|²``: lengths in the unit of `spacing`, moves in voxels."""
    for axis in range(3):
        slope = difference(image, axis)
        out[axis] += residual * slope / spacing[axis] ** 2
        out[3] += curvature * (slope / spacing[axis]) ** 2


class LocalCorrelation:
    """Force of the squared local correlation, exact, and the curvature of its residuals.

    With means, variances and covariance of a window (and the floors that `similarity.lncc` adds),
    ``ρ² = cov² / (v_f v_m)`` has at a voxel q of it the derivative
    ``2/n cov/(v_f v_m) [(f - f̄) - cov/v_m (m - m̄)]`` by m(q), and the same with f and m exchanged by f(q):
    affine functions of f(q) and m(q). The sums over the windows around q are therefore five box sums of
    window values. The curvature ``Σ 2/n ρ²/v_m`` is one of them: the residual's own derivative, for windows
    explained well or badly alike.

    Parameters
    ----------
    like
        A volume on the grid.
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
        like: Volume,
        radius: Sequence[int],
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        reuse: int = 1,
        mask: Mask | None = None,
    ) -> None:
        self.radius, self.spacing, self.mask = radius, spacing, mask
        self.reuse, self._calls, self._value = reuse, 0, 0.0
        self._share = self._cut(1 / similarity.box(self._cut(torch.ones_like(like)), radius).clamp(min=1))
        self._weights = like.new_empty((5, *like.shape))
        self._means = 0.0, 0.0

    def __call__(self, fixed: Volume, moving: Volume, out: Force) -> float:
        """The mean squared correlation; `out` becomes force and curvature."""
        if self._calls % self.reuse == 0:
            self._value = self._look(fixed, moving)
        self._calls += 1
        if cpu.serves(fixed, moving):
            cpu.correlation_force((fixed, moving), self._weights, out, self._means, self.spacing)
        else:
            out.zero_()
            a, b, c, d, e = self._weights
            f, m = fixed - self._means[0], moving - self._means[1]
            _pull(out, fixed, b * f - a * m - c, b, self.spacing)
            _pull(out, moving, a * f - d * m + e, d, self.spacing)
        return self._value

    def _cut(self, x: Tensor) -> Tensor:
        """Nothing outside the mask."""
        return x if self.mask is None else x * self.mask

    def _look(self, fixed: Volume, moving: Volume) -> float:
        """The mean squared correlation; `_weights` becomes what the windows give to every voxel."""
        pair = (fixed, moving) if self.mask is None else (fixed[self.mask], moving[self.mask])
        own, other = (float(similarity.floor_of(x.reshape(1, 1, -1))) for x in pair)
        floors = own, other, math.sqrt(own * other)
        # differences of squares keep more digits without the means
        self._means = float(pair[0].mean()), float(pair[1].mean())
        value = self._windows(fixed, moving, floors)
        if self.mask is None:
            return value
        self._weights *= self.mask
        inside = float(self.mask.double().mean())
        return (value - (1 - inside)) / inside  # windows around other voxels are empty, and count as 1

    def _windows(self, fixed: Volume, moving: Volume, floors: tuple[float, float, float]) -> float:
        """The mean over all windows."""
        if cpu.serves(fixed, moving):
            cpu.products(fixed, moving, self._means, self._weights)
            if self.mask is not None:
                self._weights *= self.mask
            cpu.box(self._weights, self.radius, self._weights)
            value = cpu.correlation_weights(self._share, self._weights, floors)
            cpu.box(self._weights, self.radius, self._weights)
            return value
        f, m = (self._cut(x - mean) for x, mean in zip((fixed, moving), self._means, strict=True))
        share, (own, other, shared) = self._share, floors
        mf, mm, ff, mm2, fm = (similarity.box(x, self.radius) * share for x in (f, m, f * f, m * m, f * m))
        vf, vm = (ff - mf * mf).clamp(min=0) + own, (mm2 - mm * mm).clamp(min=0) + other
        covariance = fm - mf * mm + shared
        by_f, by_m = covariance / vf, covariance / vm
        pull = 2 * share * by_f / vm
        windows = [pull, pull * by_f, pull * (by_f * mf - mm), pull * by_m, pull * (by_m * mm - mf)]
        self._weights = similarity.box(torch.stack(windows), self.radius)
        return float((by_f * by_m).mean())


class Squares:
    """Force of the squared difference: residual f - m, curvature 1.

    Parameters
    ----------
    spacing
        Distance of neighbouring voxels along the three axes, in any unit.
    mask
        Where to compare; None: everywhere.
    """

    def __init__(self, spacing: Sequence[float] = (1.0, 1.0, 1.0), mask: Mask | None = None) -> None:
        self.spacing, self.mask = spacing, mask

    def __call__(self, fixed: Volume, moving: Volume, out: Force) -> float:
        """Minus the mean squared difference; `out` becomes force and curvature."""
        weight = 1.0 if self.mask is None else self.mask.to(fixed.dtype)
        residual = (fixed - moving) * weight
        out.zero_()
        for image in (fixed, moving):
            _pull(out, image, residual, weight, self.spacing)
        return -float(residual.square().sum() / (residual.numel() if self.mask is None else self.mask.sum()))


class Differentiated:
    """Force of any differentiable similarity, averaged; its curvature is the typical force, everywhere.

    So that a step is of the order of half a voxel where the force is typical.

    Parameters
    ----------
    name
        The similarity, one of `similarity.CLIMBED`.
    spacing
        Distance of neighbouring voxels along the three axes, in any unit.
    mask
        Where to compare, see `similarity.seen`; None: everywhere.
    """

    def __init__(
        self, name: str, spacing: Sequence[float] = (1.0, 1.0, 1.0), mask: Mask | None = None
    ) -> None:
        self.similarity, self.spacing, self.mask = similarity.CLIMBED[name], spacing, mask

    def __call__(self, fixed: Volume, moving: Volume, out: Force) -> float:
        """The similarity; `out` becomes force and curvature."""
        with torch.enable_grad():
            f, m = (x.detach().requires_grad_() for x in (fixed, moving))
            value = self.similarity(similarity.seen(f, self.mask), similarity.seen(m, self.mask))
            by_f, by_m = torch.autograd.grad(value, (f, m))
        out.zero_()
        _pull(out, fixed, -by_f, 0.0, self.spacing)
        _pull(out, moving, by_m, 0.0, self.spacing)
        smooth(out[:3], [_ROUGH / s for s in self.spacing], out[:3])
        length = out[:3].square().sum(0).sqrt()
        typical = length.square().sum() / length.sum().clamp(min=torch.finfo(length.dtype).tiny)
        out[3] = typical
        return float(value.detach())


def force_of(
    name: str,
    like: Volume,
    radius: int,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    reuse: int = 1,
    mask: Mask | None = None,
) -> ForceOf:
    """The force of a similarity by its name; `radius`, in voxels of the smallest spacing, is for lncc."""
    similarity.check_name(name)
    if name == "lncc":
        return LocalCorrelation(like, [max(1, round(radius / s)) for s in spacing], spacing, reuse, mask)
    if name == "mse":
        return Squares(spacing, mask)
    return Differentiated(name, spacing, mask)
