"""Rotations by any fraction of a full turn, interpolated: a group only approximately."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.group import Group, square_shape
from invlearn.physics.irreps import Irrep, abelian_irreps
from invlearn.physics.linear.interop import Sparse
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space

Interpolation = Literal["linear", "cubic"]


class Rotations(Group):
    """Rotations of the last two axes about the centre of a square image, by multiples of 2π/angles.

    Element g turns by 2π g/angles radians counter-clockwise. Pixels are interpolated, and what
    turns out of the square is lost: T_g T_h = T_gh holds only approximately, for smooth images that
    vanish outside the inscribed disc. So ``exact`` is False, and the learnability check refuses this
    group; a loss such as equivariant imaging needs only its action. Quarter turns among the elements
    are exact (`Rotations90` has nothing else).

    Parameters
    ----------
    angles
        Number of elements, the order of the group.
    shape
        Shape of the images, `(..., N, N)` with N >= 2.
    interpolation
        `"cubic"` (16 pixels) keeps more of the sharpness than `"linear"` (4 pixels).

    Raises
    ------
    ValueError
        Fewer than one angle, an unknown interpolation, images that are not square; a question about
        permutations (`permutation`, `fixed_points`, `orbits`, `irreps`, ...).

    Notes
    -----
    An element is a sparse matrix, made when it is first used and kept: 16 N² interpolation weights,
    32 bytes each. Cubic interpolation is Keys' convolution with a = -1/2.

    References
    ----------
    Keys, IEEE Trans. Acoust. Speech Signal Process. 29 (1981) 1153, doi:10.1109/TASSP.1981.1163711.
    """

    name = "rotations"
    exact = False

    def __init__(self, angles: int, shape: Sequence[int], interpolation: Interpolation = "cubic") -> None:
        if angles < 1:
            raise ValueError(f"Rotations needs at least one angle, got {angles}")
        if interpolation not in ("linear", "cubic"):
            raise ValueError(f"Rotations: interpolation is 'linear' or 'cubic', got {interpolation!r}")
        super().__init__(square_shape(shape, "Rotations"), angles, (1,) if angles > 1 else (), cyclic=True)
        self.interpolation: Interpolation = interpolation
        self._turns: dict[tuple[int, torch.device], Sparse] = {}

    def _matrix(self, g: int) -> Any:
        return _rotation(self.shape[-1], 2 * math.pi * g / self.order, self.interpolation)

    def _move(self, x: Tensor, g: int) -> Tensor:
        if not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"{self!r} interpolates and takes floating-point images, got {x.dtype}")
        if g == 0:
            return x.clone()
        key = (g, x.device)
        if key not in self._turns:
            plane = Space(self.shape[-2:])
            self._turns[key] = Sparse(self._matrix(g), plane, plane).to(x.device)
        return self._turns[key]._forward(x)

    def action(self, g: int, complex: bool = False) -> LinearOperator:
        """T_g as an operator with its exact adjoint (which is not its inverse)."""
        import scipy.sparse

        planes = scipy.sparse.eye_array(math.prod(self.shape[:-2]))
        space = Space(self.shape, complex)
        return Sparse(scipy.sparse.kron(planes, self._matrix(self._element(g))), space, space)

    def _compose(self, g: int, h: int) -> int:
        return (g + h) % self.order

    def _inverse(self, g: int) -> int:
        return -g % self.order

    def _decompose(self) -> tuple[Irrep, ...]:
        return abelian_irreps((self.order,), self.fixed_points())

    def __repr__(self) -> str:
        return f"Rotations({self.order}, {self.shape}, {self.interpolation!r})"


def _cubic(distance: np.ndarray) -> np.ndarray:
    t = np.abs(distance)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def _rotation(n: int, angle: float, interpolation: Interpolation) -> Any:
    """The sparse matrix `(n², n²)` that turns an image counter-clockwise by `angle`."""
    import scipy.sparse

    # rounded, so that quarter turns meet the pixels exactly
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    centre = (n - 1) / 2
    x, y = np.arange(n)[None, :] - centre, centre - np.arange(n)[:, None]
    column, row = (x * cos + y * sin + centre).ravel(), (centre - (y * cos - x * sin)).ravel()
    reach = range(-1, 3) if interpolation == "cubic" else range(2)
    kernel = _cubic if interpolation == "cubic" else lambda t: np.maximum(1 - np.abs(t), 0)
    target, source, weight = [], [], []
    for i in (np.floor(row).astype(np.int64) + step for step in reach):
        for j in (np.floor(column).astype(np.int64) + step for step in reach):
            w = kernel(row - i) * kernel(column - j)
            kept = (i >= 0) & (i < n) & (j >= 0) & (j < n) & (w != 0)
            target.append(np.flatnonzero(kept))
            source.append((i * n + j)[kept])
            weight.append(w[kept])
    parts = (np.concatenate(weight), (np.concatenate(target), np.concatenate(source)))
    return scipy.sparse.coo_array(parts, shape=(n * n, n * n))


@register("rotation/cubic, planes")
def _example(generator: torch.Generator) -> LinearOperator:
    return Rotations(7, (2, 6, 6)).action(2)


@register("rotation/linear complex")
def _complex_example(generator: torch.Generator) -> LinearOperator:
    return Rotations(5, (7, 7), "linear").action(1, complex=True)
