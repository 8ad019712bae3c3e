"""Stacks whose voxels are longer than those a network was trained on: looked at on a finer grid.

The centre of voxel 0 is the same point on both grids. Only axes with long voxels are interpolated, never
averaged: no detail is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invlearn.io.voxels import VoxelSize
from invlearn.neuro.cubes import Slices
from invlearn.neuro.normalise import Sliceable

ELONGATION = (5.0, 1.6, 1.6)  # longest voxels along z, y, x, in the shortest side: what training goes up to


@dataclass(frozen=True)
class Zoom:
    """The grid of the network over the grid of the stack.

    Attributes
    ----------
    shape
        (D, H, W) of the stack.
    factors
        Network voxels a stack voxel along each axis, at least 1.

    Raises
    ------
    ValueError
        A factor below 1.
    """

    shape: tuple[int, int, int]
    factors: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(1 <= f < math.inf for f in self.factors):
            raise ValueError(f"Zoom: factors are at least 1, got {self.factors}")

    @classmethod
    def for_voxels(
        cls,
        shape: Sequence[int],
        voxel_size: VoxelSize,
        elongation: Sequence[float] = ELONGATION,
    ) -> Zoom:
        """The coarsest grid with voxels no longer than the network knows.

        Parameters
        ----------
        shape
            (D, H, W).
        voxel_size
            (dz, dy, dx) in µm.
        elongation
            Longest sides of a voxel along z, y, x, in units of its shortest side.
        """
        shortest = min(voxel_size)
        z, y, x = (max(1.0, v / (e * shortest)) for v, e in zip(voxel_size, elongation, strict=True))
        return cls((int(shape[0]), int(shape[1]), int(shape[2])), (z, y, x))

    @property
    def is_identity(self) -> bool:
        """Whether both grids are one."""
        return all(f == 1 for f in self.factors)

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """(D, H, W) of the network's grid."""
        d, h, w = (
            n if f == 1 else math.ceil((n - 1) * f - 1e-9) + 1
            for n, f in zip(self.shape, self.factors, strict=True)
        )
        return d, h, w

    def read(self, stack: Sliceable, region: Slices) -> np.ndarray:
        """Voxels of the network's grid; the stack's own type where nothing is interpolated."""
        parts = []
        for part, n, f in zip(region, self.shape, self.factors, strict=True):
            parts.append(_Axis(np.arange(part.start, part.stop) / f, n))
        x = np.asarray(stack[tuple(axis.source for axis in parts)])
        return _interpolated(x, parts, self.factors)

    def source(self, region: Slices) -> Slices:
        """The region of the network's grid that a region of the stack needs."""
        z, y, x = (axis.source for axis in self._axes(region))
        return z, y, x

    def back(self, values: np.ndarray, region: Slices) -> np.ndarray:
        """Values at the stack's voxels from those on the network's grid, given on `source(region)`."""
        return _interpolated(values, self._axes(region), self.factors)

    def _axes(self, region: Slices) -> list[_Axis]:
        return [
            _Axis(np.arange(part.start, part.stop) * f, n)
            for part, n, f in zip(region, self.network_shape, self.factors, strict=True)
        ]


class _Axis:
    """Where positions along an axis of `n` samples lie between the samples."""

    def __init__(self, positions: np.ndarray, n: int) -> None:
        positions = np.clip(positions, 0, n - 1)
        first = np.floor(positions).astype(int)
        self.source = slice(int(first[0]), min(n, int(first[-1]) + 2))
        self.below = first - first[0]
        self.above = np.minimum(self.below + 1, self.source.stop - self.source.start - 1)
        self.share = (positions - first).astype(np.float32)


def _interpolated(x: np.ndarray, axes: Sequence[_Axis], factors: Sequence[float]) -> np.ndarray:
    for k, (axis, factor) in enumerate(zip(axes, factors, strict=True)):
        if factor == 1:  # the last sample read is one too many, perhaps
            x = x.take(axis.below, k) if x.shape[k] != len(axis.below) else x
            continue
        share = axis.share.reshape([-1 if d == k else 1 for d in range(3)])
        x = x.astype(np.float32, copy=False)
        x = x.take(axis.below, k) * (1 - share) + x.take(axis.above, k) * share
    return x
