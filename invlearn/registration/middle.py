"""Two fields that meet in the middle, for a registration that prefers neither volume.

Points p of a grid in the middle look at the one volume at ``p + a(p)`` and at the other at ``p + b(p)``. A
step s moves both by as much, the one there and the other back; in the end the points of one volume are taken
to the other's by ``b∘a⁻¹``, and back by ``a∘b⁻¹``.

References
----------
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal. 12,
2008, doi:10.1016/j.media.2007.06.004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invlearn.registration import cpu
from invlearn.registration.fields import (
    compose,
    inverse,
    jacobian_determinant,
    linear_field,
    resize,
    warp,
)
from invlearn.registration.interpolation import sample_channels
from invlearn.registration.smoothing import smooth

Volume = Float[Tensor, "D H W"]
Field = Float[Tensor, "3 D H W"]
OtherField = Float[Tensor, "3 d h w"]

#: Of the fixed-point iteration for an inverse, on a grid half as fine and on the grid itself: its mean error
#: is then about a thousandth of a voxel.
_COARSE_STEPS, _INVERSE_STEPS = 10, 3
_MOSTLY = 0.5  # of a point in a mask
_FOLDED = 1e-9  # a determinant below counts as this


def undone(u: Field, roughly: OtherField | None = None) -> Field:
    """The field that undoes another: found on a grid half as fine, unless it is known, then made exact."""
    start = _finer(undone_roughly(u) if roughly is None else roughly, u)
    return inverse(u, iterations=_INVERSE_STEPS, start=start)


def undone_roughly(u: Field) -> OtherField:
    """The field that undoes another, on a grid half as fine."""
    depth, height, width = (-(-n // 2) for n in u.shape[1:])
    return inverse(resize(u, (depth, height, width)), iterations=_COARSE_STEPS)


def _finer(u: OtherField, like: Field) -> Field:
    return resize(u, (like.shape[1], like.shape[2], like.shape[3]))


@dataclass(eq=False)
class Middle:
    """The two fields.

    Attributes
    ----------
    to_fixed, to_moving
        ``(3, D, H, W)`` in voxels, pull-back, from the grid in the middle.
    """

    to_fixed: Field
    to_moving: Field
    _before: tuple[Field, Field] | None = field(default=None, repr=False)  # where the last step set out

    @classmethod
    def at_rest(cls, like: Volume) -> Middle:
        """Nothing has moved yet on the grid of a volume."""
        return cls(like.new_zeros((3, *like.shape)), like.new_zeros((3, *like.shape)))

    def changed(self, how: Callable[[Field], Field]) -> Middle:
        """Both fields put through the same."""
        return Middle(how(self.to_fixed), how(self.to_moving))

    def look(self, fixed: Volume, moving: Volume) -> tuple[Volume, Volume]:
        """What the middle sees of the two volumes."""
        return _sampled(fixed, self.to_fixed), _sampled(moving, self.to_moving)

    def seen(self, mask: Bool[Tensor, "D H W"]) -> Bool[Tensor, "D H W"]:
        """Where the middle sees a mask on the fixed volume; all of the mask itself if it sees none of it."""
        found = _sampled(mask.to(self.to_fixed), self.to_fixed) > _MOSTLY
        return found if bool(found.any()) else mask

    def go(self, step: Field, smoothing: Sequence[float]) -> None:
        """Take a step ahead in the moving volume and as far back in the fixed one, and smooth both fields.

        Parameters
        ----------
        step
            In voxels.
        smoothing
            Standard deviation along each axis, in voxels.
        """
        old = self.to_fixed, self.to_moving
        room = self._before or (torch.empty_like(step), torch.empty_like(step))
        self.to_moving = _composed(self.to_moving, step, room[1])
        self.to_fixed = _composed(self.to_fixed, step.neg_(), room[0])
        step.neg_()
        for u in (self.to_fixed, self.to_moving):
            smooth(u, smoothing, u)
        self._before = old

    def shorten(self, share: float) -> None:
        """Keep a share of what the last step changed."""
        assert self._before is not None
        self.to_fixed, self.to_moving = (
            torch.lerp(old, new, share)
            for old, new in zip(self._before, (self.to_fixed, self.to_moving), strict=True)
        )

    def roughness(self, where: Bool[Tensor, "D H W"]) -> float:
        """Standard deviation of ln |J| of the map from volume to volume, over a part of the middle."""
        there, back = (
            jacobian_determinant(u)[where].clamp(min=_FOLDED).log() for u in (self.to_moving, self.to_fixed)
        )
        return float((there - back).double().std(correction=0)) if there.numel() else 0.0

    @cached_property
    def _back_roughly(self) -> tuple[OtherField, OtherField]:
        """What undoes the two fields, on a grid half as fine."""
        return undone_roughly(self.to_fixed), undone_roughly(self.to_moving)

    def joined(self) -> tuple[Field, Field]:
        """From the fixed volume to the moving one, and back; nothing moves any more."""
        from_fixed, from_moving = self._back_roughly
        return (
            compose(self.to_moving, undone(self.to_fixed, from_fixed)),
            compose(self.to_fixed, undone(self.to_moving, from_moving)),
        )

    def turned(self, matrix: np.ndarray, shape: Sequence[int]) -> tuple[OtherField, OtherField]:
        """From the moving volume to the fixed one, and back, on another grid.

        To interpolate what `joined` gives would smooth it.

        Parameters
        ----------
        matrix
            (4, 4): the voxels q of the other grid are at ``matrix q``.
        shape
            Of the other grid.

        Returns
        -------
        tuple
            ``(3, *shape)`` each, in voxels of the other grid.
        """
        at = linear_field(matrix, shape, self.to_fixed)

        def through(roughly: Tensor, first: Tensor, second: Tensor) -> Tensor:
            x = warp(_finer(roughly, first), at)
            for _ in range(_INVERSE_STEPS):
                x = warp(first, at + x).neg_()
            return _in_voxels_of(x + warp(second, at + x), matrix)

        from_fixed, from_moving = self._back_roughly
        return (
            through(from_moving, self.to_moving, self.to_fixed),
            through(from_fixed, self.to_fixed, self.to_moving),
        )


def carried(u: Field, matrix: np.ndarray, shape: Sequence[int]) -> OtherField:
    """A field on another grid, whose voxels q are at ``p = matrix q``: there it reads ``M⁻¹ u(p)``."""
    return _in_voxels_of(warp(u, linear_field(matrix, shape, u)), matrix)


def _in_voxels_of(u: Field, matrix: np.ndarray) -> Field:
    back = torch.as_tensor(np.linalg.inv(matrix[:3, :3]), dtype=torch.float64).to(u)
    return torch.einsum("ij,jdhw->idhw", back, u).contiguous()


def _sampled(x: Volume, u: Field) -> Volume:
    return sample_channels(x[None, None], u[None])[0, 0]


def _composed(u: Field, step: Field, out: Field) -> Field:
    """``step + u∘(id + step)``, into `out` where the kernels serve."""
    if cpu.serves(u, step):
        return cpu.warp(u, step, add=True, out=out)
    return compose(u, step)
