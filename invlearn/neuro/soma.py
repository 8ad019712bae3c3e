"""Cell bodies: balls much thicker than the branches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from invlearn.neuro.foreground import Foreground
from invlearn.neuro.skeleton import Skeleton

_TIMES = 3.0  # a soma's radius, in typical radii of the branches
_VOXELS = 3.5  # a soma's radius at least, in the shortest side of a voxel
_SHARE = 0.4  # of the largest soma's radius, at least


@dataclass(frozen=True)
class Soma:
    """A ball.

    Attributes
    ----------
    centre
        (3,), µm, (z, y, x).
    radius
        µm.
    node
        The node of the skeleton at its centre.
    """

    centre: np.ndarray
    radius: float
    node: int

    def holds(self, skeleton: Skeleton) -> np.ndarray:
        """(N,), bool: the nodes inside the ball, of this part of the skeleton."""
        near = ((skeleton.points - self.centre) ** 2).sum(axis=1) <= self.radius**2
        return near & (skeleton.component == skeleton.component[self.node])


def find_somas(skeleton: Skeleton, foreground: Foreground) -> list[Soma]:
    """Balls on the centre lines that stand out from the branches, the largest first.

    A soma's radius R is at least three times the median over all nodes, and three and a half voxels (their
    shortest side); between 1.5 R and 3 R from its centre, three of four nodes are at most half as thick; and
    it is at least 0.4 times as large as the largest. Two somas are at least 1.5 R apart.
    """
    points, radius = skeleton.points, skeleton.radius
    search = cKDTree(points)
    least = max(_TIMES * float(np.median(radius)), _VOXELS * float(skeleton.voxel_size.min()))
    found: list[Soma] = []
    free = np.ones(len(skeleton), dtype=bool)
    for node in np.argsort(-radius, kind="stable"):
        size = float(radius[node])
        if size < max(least, _SHARE * (found[0].radius if found else 0.0)):
            break
        if not free[node]:
            continue
        free[search.query_ball_point(points[node], 1.5 * size)] = False
        if _stands_out(skeleton, search, int(node)):
            found.append(_centred(foreground, skeleton.voxels[node], int(node)))
    return found


def _centred(foreground: Foreground, voxel: np.ndarray, node: int) -> Soma:
    """The largest ball around a voxel: thinning may pass beside its centre."""
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    while True:
        around = voxel + steps
        around = around[foreground.find(around) >= 0]
        radius = foreground.radius(around)
        best = int(np.argmax(radius))
        if radius[best] <= foreground.radius(voxel[None])[0]:
            return Soma(voxel * foreground.voxel_size, float(radius[best]), node)
        voxel = around[best]


def _stands_out(skeleton: Skeleton, search: cKDTree, node: int) -> bool:
    """Whether the branches around a ball are thin."""
    size = skeleton.radius[node]
    near = np.array(search.query_ball_point(skeleton.points[node], 3 * size))
    away = np.linalg.norm(skeleton.points[near] - skeleton.points[node], axis=1)
    around = near[(away > 1.5 * size) & (skeleton.component[near] == skeleton.component[node])]
    return not len(around) or bool(np.quantile(skeleton.radius[around], 0.75) <= 0.5 * size)


def given_soma(skeleton: Skeleton, voxel: Sequence[float | int], shape: Sequence[int]) -> Soma:
    """The soma at a place (z, y, x) that the user names, in voxels: the ball around the nearest centre line.

    Raises
    ------
    ValueError
        Not three numbers inside the volume.
    """
    place = np.asarray(voxel, dtype=np.float64)
    if place.shape != (3,) or not ((place >= 0) & (place <= np.subtract(shape, 1))).all():
        raise ValueError(
            f"soma is 'auto', None, or a voxel (z, y, x) inside the volume {tuple(shape)}, got {voxel!r}"
        )
    _, node = cKDTree(skeleton.points).query(place * skeleton.voxel_size)
    return Soma(skeleton.points[node], float(skeleton.radius[node]), int(node))
