"""Low-rank priors: shrinking the singular values of matrices made of an image series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from invlearn.physics.space import complex_dtype
from invlearn.unrolled.proximal import Regulariser, Step, check_axes, check_weight, cycle_spin


class _SpectralFilter(torch.autograd.Function):
    """h(G) for Hermitian G >= 0 with h(s²) = max(1 - t/s, 0), differentiable at equal eigenvalues too.

    By Daleckii and Krein, d h(G) = U (Φ ∘ Uᴴ dG U) Uᴴ with the divided differences Φ of h, which have
    closed forms here; the derivative of the eigenvectors alone would not exist.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor, threshold: Tensor) -> Tensor:
        eigenvalues, u = torch.linalg.eigh(gram)
        s = eigenvalues.clamp_min(0).sqrt()
        ctx.save_for_backward(u, s, threshold)
        return (u * _gain(s, threshold).to(u.dtype).unsqueeze(-2)) @ u.mH

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        u, s, t = ctx.saved_tensors  # type: ignore[attr-defined]
        inner = u.mH @ grads[0] @ u
        gain, kept = _gain(s, t), s > t
        safe = torch.where(kept, s, torch.ones_like(s))
        a, b = safe.unsqueeze(-1), safe.unsqueeze(-2)
        both = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        squared = s.square()
        apart = squared.unsqueeze(-1) - squared.unsqueeze(-2)
        mixed = (gain.unsqueeze(-1) - gain.unsqueeze(-2)) / torch.where(apart == 0, 1, apart)
        quotients = torch.where(both, t / (a * b * (a + b)), mixed)
        towards_threshold = -(torch.diagonal(inner, dim1=-2, dim2=-1).real * kept / safe).sum()
        return u @ (quotients.to(u.dtype) * inner) @ u.mH, towards_threshold


def _gain(s: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(s > threshold, 1 - threshold / torch.where(s > 0, s, torch.ones_like(s)), 0)


def shrink_singular_values(matrix: Tensor, threshold: Step) -> Tensor:
    """`(*batch, m, n)` with each singular value made smaller by `threshold`, at least 0.

    By the eigenvalues of the smaller Gram matrix, in double precision; singular values below
    1e-8 of the largest drown in rounding.
    """
    wide = matrix.to(complex_dtype(torch.float64) if matrix.is_complex() else torch.float64)
    t = torch.as_tensor(threshold, dtype=torch.float64, device=matrix.device)
    if matrix.shape[-2] <= matrix.shape[-1]:
        return (_SpectralFilter.apply(wide @ wide.mH, t) @ wide).to(matrix.dtype)
    return (wide @ _SpectralFilter.apply(wide.mH @ wide, t)).to(matrix.dtype)


@dataclass(frozen=True)
class NuclearNorm(Regulariser):
    """R(x) = weight ‖X‖_*, X the Casorati matrix `(K, pixels)` of a series `(*batch, K, *image)`.

    Parameters
    ----------
    weight
        At least 0.
    ndim
        Number of image axes; 1 for plain matrices `(K, n)`.

    Raises
    ------
    ValueError
        A negative weight, no image axis, or a tensor with too few axes.

    References
    ----------
    Cai, Candès and Shen, SIAM J. Optim. 20 (2010) 1956, doi:10.1137/080738970.
    """

    weight: float = 1.0
    ndim: int = 2

    def __post_init__(self) -> None:
        check_weight(self.weight, "NuclearNorm")
        if self.ndim < 1:
            raise ValueError(f"NuclearNorm: ndim must be at least 1, got {self.ndim}")

    def _matrix(self, x: Tensor) -> Tensor:
        check_axes(x, self.ndim + 1, "NuclearNorm", f"K, {self.ndim} image axes")
        return x.flatten(-self.ndim)

    def value(self, x: Tensor) -> Tensor:
        return self.weight * torch.linalg.svdvals(self._matrix(x)).sum()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return shrink_singular_values(self._matrix(x), self.weight * step).reshape(x.shape)


@dataclass(frozen=True)
class LocallyLowRank(Regulariser):
    """R(x) = weight Σ_b ‖X_b‖_*, X_b the Casorati matrix `(K, pixels)` of block b of `(*batch, K, *image)`.

    The blocks tile the image without overlap (those at the far border may be smaller); with several
    `shifts` the proximal operator is averaged over tilings shifted along the diagonal, periodic at
    the border, which removes the block pattern. It is then the proximal operator of the proximal
    average of the shifted regularisers, of which `value` is an upper bound.

    Parameters
    ----------
    weight
        At least 0.
    patch
        Size of a block in pixels, one number an image axis.
    shifts
        Number of tilings, spread evenly over the block.

    Raises
    ------
    ValueError
        A negative weight, an empty block, no shift, more shifts than the block's smallest side, or
        a tensor with too few axes.

    References
    ----------
    Trzasko and Manduca, Proc. ISMRM 19 (2011) 4371; Bauschke, Goebel, Lucet and Wang, SIAM J. Optim.
    19 (2008) 766, doi:10.1137/070687542 (the proximal average).
    """

    weight: float = 1.0
    patch: Sequence[int] = (8, 8)
    shifts: int = 1

    def __post_init__(self) -> None:
        check_weight(self.weight, "LocallyLowRank")
        object.__setattr__(self, "patch", tuple(self.patch))
        if not self.patch or min(self.patch) < 1:
            raise ValueError(f"LocallyLowRank: a block needs positive sizes, got {self.patch}")
        if not 1 <= self.shifts <= min(self.patch):
            raise ValueError(
                f"LocallyLowRank: shifts must lie between 1 and {min(self.patch)}, the block's smallest "
                f"side, got {self.shifts}"
            )

    @property
    def _offsets(self) -> list[int]:
        return [k * min(self.patch) // self.shifts for k in range(self.shifts)]

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.patch), 0))

    def _order(self, x: Tensor) -> list[int]:
        """Axes of `(*batch, K, n1, p1, n2, p2, ...)` as `(*batch, n1, n2, ..., K, p1, p2, ...)`."""
        d = len(self.patch)
        lead = x.ndim - 2 * d - 1
        blocks, pixels = range(lead + 1, x.ndim, 2), range(lead + 2, x.ndim, 2)
        return [*range(lead), *blocks, lead, *pixels]

    def _split(self, x: Tensor) -> Tensor:
        """`(*batch, K, *image)`, zero-padded to whole blocks, to `(*batch, *blocks, K, pixels)`."""
        d = len(self.patch)
        check_axes(x, d + 1, "LocallyLowRank", f"K, {d} image axes")
        fill = [-n % p for n, p in zip(x.shape[-d:], self.patch, strict=True)]
        x = F.pad(x, [side for f in reversed(fill) for side in (0, f)])
        sizes = [s for n, p in zip(x.shape[-d:], self.patch, strict=True) for s in (n // p, p)]
        x = x.reshape(*x.shape[:-d], *sizes)
        return x.permute(self._order(x)).flatten(-d)

    def _join(self, blocks: Tensor, shape: Sequence[int]) -> Tensor:
        d = len(self.patch)
        x = blocks.unflatten(-1, self.patch)
        order = self._order(x)
        x = x.permute([order.index(axis) for axis in range(x.ndim)])
        sizes = [n * p for n, p in zip(x.shape[-2 * d :: 2], self.patch, strict=True)]
        x = x.reshape(*shape[:-d], *sizes)
        return x[(..., *(slice(n) for n in shape[-d:]))]

    def _shrink(self, x: Tensor, step: Step) -> Tensor:
        return self._join(shrink_singular_values(self._split(x), self.weight * step), x.shape)

    def value(self, x: Tensor) -> Tensor:
        shifted = [x.roll([-o] * len(self.patch), self._axes) for o in self._offsets]
        norms = [torch.linalg.svdvals(self._split(s)).sum() for s in shifted]
        return self.weight * torch.stack(norms).mean()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return cycle_spin(lambda s: self._shrink(s, step), x, self._offsets, self._axes)
