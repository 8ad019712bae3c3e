"""Voxel sizes and shapes of stacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VoxelSize = Sequence[float | int] | np.ndarray


def checked_voxel_size(voxel_size: VoxelSize) -> np.ndarray:
    """(z, y, x) in µm, float64.

    Raises
    ------
    ValueError
        Not three finite positive numbers.
    """
    size = np.asarray(voxel_size, dtype=np.float64)
    if size.shape != (3,) or not np.isfinite(size).all() or (size <= 0).any():
        raise ValueError(f"a voxel size is three positive numbers (z, y, x) in µm, got {size.tolist()}")
    return size


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(D, H, W).

    Raises
    ------
    ValueError
        Not three positive whole numbers.
    """
    if len(shape) != 3 or any(n != int(n) or n < 1 for n in shape):
        raise ValueError(
            f"the shape of a stack is three positive whole numbers (z, y, x), got {tuple(shape)}"
        )
    depth, height, width = map(int, shape)
    return depth, height, width
