"""From a tree to the voxels that it fills."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from invlearn.io.swc import Tree
from invlearn.io.voxels import VoxelSize, checked_shape, checked_voxel_size
from invlearn.neuro.loops import paint_cones, paint_lines

_PIECE = 6.0  # voxels: longer edges are cut, as the box around a slanted one is mostly empty


def paint(
    volume: np.ndarray,
    tree: Tree,
    voxel_size: VoxelSize = (1.0, 1.0, 1.0),
    *,
    bright: np.ndarray | None = None,
    soft: float = 0.0,
    margin: float = 0.25,
) -> None:
    """Draw a tree into a volume: its nodes as balls, its edges as the cones between them; the brightest wins.

    Parameters
    ----------
    volume
        (D, H, W), float32, changed.
    tree
        Coordinates and radii in µm or in voxels.
    voxel_size
        (z, y, x), µm.
    bright
        (N,): brightness of each node, interpolated along the edges; 1 without.
    soft
        Width of the surface, in voxels: from full brightness to none; 0 is a sharp one.
    margin
        Added to the radius, in voxels along each axis; with `soft`, where brightness ends.
    """
    size = checked_voxel_size(voxel_size)
    in_voxels = tree.unit == "voxel"
    tree = tree if in_voxels else tree.in_um()
    relative = np.ones(3) if in_voxels else size / size.min()
    radius = tree.radius if in_voxels else tree.radius / size.min()
    light = np.ones(len(tree)) if bright is None else np.asarray(bright, dtype=np.float64)
    lone = np.flatnonzero(tree.children + (tree.parent >= 0) == 0)
    pairs = np.concatenate([tree.edges, np.stack([lone, lone], axis=1)])
    ends = np.column_stack([tree.zyx(size), radius, light])[pairs]  # (E, 2, 5)
    ends = _cut(ends)
    start, end = np.ascontiguousarray(ends[:, 0, :3]), np.ascontiguousarray(ends[:, 1, :3])
    thick, shine = np.ascontiguousarray(ends[..., 3]), np.ascontiguousarray(ends[..., 4])
    # a ball, grown by the margin along each axis of voxels, is an ellipsoid: stretched, it is a ball again
    core = thick.mean(axis=1, keepdims=True)
    scale = relative * (core + margin) / (core + margin * relative)
    paint_cones(volume, start, end, thick, scale, shine, float(soft), float(margin))
    if soft == 0:
        paint_lines(volume, start, end, shine)


def _cut(ends: np.ndarray) -> np.ndarray:
    """Edges (E, 2, C) in pieces of at most `_PIECE` voxels."""
    length = np.linalg.norm(ends[:, 1, :3] - ends[:, 0, :3], axis=1)
    pieces = np.maximum(np.ceil(length / _PIECE), 1).astype(np.int64)
    edge = np.repeat(np.arange(len(ends)), pieces)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    t = np.stack([number, number + 1], axis=1) / pieces[edge][:, None]
    first, last = ends[edge, 0][:, None], ends[edge, 1][:, None]
    return first + t[..., None] * (last - first)


def swc_to_mask(
    tree: Tree,
    shape: Sequence[int],
    voxel_size: VoxelSize = (1.0, 1.0, 1.0),
    *,
    inflate: float = 0.25,
) -> np.ndarray:
    """The voxels of a tree: balls at its nodes, and cones between each node and its parent.

    Where a branch is thinner than the voxels, those that its centre line runs through are filled, so that it
    stays in one piece.

    Parameters
    ----------
    tree
        In µm or in voxels.
    shape
        (D, H, W) of the stack. What lies outside is left out.
    voxel_size
        (z, y, x), µm.
    inflate
        Added to the radius, in voxels along each axis.

    Returns
    -------
    numpy.ndarray
        (D, H, W), bool.

    Raises
    ------
    ValueError
        A shape or a voxel size that is none, or a negative `inflate`.

    References
    ----------
    The radius plus 0.25 voxel and the interpolated balls are those of the NeuCuDa labels: Li and Shen,
    3D WaveUNet, IEEE Transactions on Medical Imaging 41 (2022), 440.
    """
    if not 0 <= inflate < np.inf:
        raise ValueError(f"inflate is at least 0 voxels, got {inflate}")
    volume = np.zeros(checked_shape(shape), dtype=np.float32)
    paint(volume, tree, voxel_size, margin=inflate)
    return volume > 0
