"""Centre lines: a mask thinned to a graph of voxels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from invlearn.neuro.foreground import Foreground

# One of each pair of opposite steps to the 26 neighbours.
_STEPS = np.array([s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)])


@dataclass(frozen=True)
class Skeleton:
    """A graph whose nodes are voxels on the centre lines.

    Attributes
    ----------
    voxels
        (N, 3), int64.
    radius
        (N,), µm.
    certainty
        (N,), the probability, 1 in a mask.
    edges
        (E, 2): neighbours, and ends of bridges.
    voxel_size
        (z, y, x), µm.
    """

    voxels: np.ndarray
    radius: np.ndarray
    certainty: np.ndarray
    edges: np.ndarray
    voxel_size: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    @cached_property
    def points(self) -> np.ndarray:
        """(N, 3), µm, (z, y, x)."""
        return self.voxels * self.voxel_size

    @cached_property
    def graph(self) -> csr_matrix:
        """(N, N), not symmetric: an entry an edge."""
        start, end = self.edges.T
        return coo_matrix((np.ones(len(start)), (start, end)), shape=(len(self), len(self))).tocsr()

    @cached_property
    def component(self) -> np.ndarray:
        """(N,): which connected part each node is in."""
        return connected_components(self.graph, directed=False)[1]

    @property
    def degree(self) -> np.ndarray:
        """(N,): the number of neighbours."""
        return np.bincount(self.edges.ravel(), minlength=len(self))


def neighbours(keys: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """(E, 2): pairs of voxels that touch by a face, an edge or a corner.

    Parameters
    ----------
    keys
        (N,), increasing: one number a voxel.
    strides
        (3,): how much a step along each axis adds to it.
    """
    pairs = []
    for step in _STEPS @ strides:
        place = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        there = np.flatnonzero(keys[place] == keys + step)
        pairs.append(np.stack([there, place[there]], axis=1))
    return np.concatenate(pairs)


def thin(foreground: Foreground) -> Skeleton:
    """The centre lines of a mask, one voxel wide, by thinning (Lee et al. 1994, as in scikit-image).

    Parameters
    ----------
    foreground
        Filled: thinning would keep the walls around cavities.
    """
    from skimage.morphology import skeletonize

    thinned = [np.argwhere(skeletonize(box)) + low for box, low in foreground.parts()]
    voxels = np.concatenate(thinned)
    voxels = voxels[np.argsort(foreground.keys(voxels))]
    keys = foreground.keys(voxels)
    strides = foreground.keys(np.eye(3, dtype=np.int64)) - foreground.keys(np.zeros((1, 3), dtype=np.int64))
    certainty = foreground.certainty[foreground.find(voxels)]
    return Skeleton(
        voxels, foreground.radius(voxels), certainty, neighbours(keys, strides), foreground.voxel_size
    )
