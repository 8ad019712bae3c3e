"""Centre lines finer than voxels: nodes moved to the middle of their branch."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from invlearn.neuro.foreground import Foreground
from invlearn.neuro.forest import Forest

_AROUND = 0.75  # voxels beyond the radius
_BATCH = 4096  # nodes at a time


def tangents(forest: Forest) -> np.ndarray:
    """(N, 3): unit vectors along the branches, 0 for lone nodes."""
    inner = np.flatnonzero(forest.parent >= 0)
    above = forest.parent[inner]
    many = np.bincount(above, minlength=len(forest))
    below = np.zeros((len(forest), 3))
    np.add.at(below, above, forest.points[inner])
    below = np.where(many[:, None] > 0, below / np.maximum(many, 1)[:, None], forest.points)
    along = np.where((forest.parent >= 0)[:, None], forest.points[forest.parent], forest.points) - below
    return along / np.maximum(np.linalg.norm(along, axis=1), 1e-12)[:, None]


def recentred(forest: Forest, foreground: Foreground) -> np.ndarray:
    """(N, 3), µm: nodes moved across their branch to the mean of the foreground around them.

    Around a node are the voxels in an ellipsoid that reaches three quarters of a voxel beyond its radius
    along each axis, weighted by their probability. No node moves by more than a voxel; somas stay.
    """
    size = foreground.voxel_size
    places = foreground.voxels * size
    search = cKDTree(places)
    moved = forest.points.copy()
    along = tangents(forest)
    for start in range(0, len(forest), _BATCH):
        part = slice(start, start + _BATCH)
        points, radius = forest.points[part], forest.radius[part]
        lists = search.query_ball_point(points, radius + _AROUND * size.max())
        node = np.repeat(np.arange(len(points)), [len(found) for found in lists])
        if not len(node):
            continue
        voxel = np.concatenate([np.asarray(found, dtype=np.int64) for found in lists])
        away = places[voxel] - points[node]
        near = ((away / (radius[node][:, None] + _AROUND * size)) ** 2).sum(axis=1) <= 1
        node, away, weight = node[near], away[near], foreground.certainty[voxel[near]]
        total = np.bincount(node, weights=weight, minlength=len(points))
        sums = np.stack([np.bincount(node, weight * a, len(points)) for a in away.T], axis=1)
        mean = sums / np.maximum(total, 1e-12)[:, None]
        across = mean - (mean * along[part]).sum(axis=1)[:, None] * along[part]
        moved[part] = points + np.clip(across, -size, size)
    return np.where(forest.soma[:, None], forest.points, moved)
