"""Distances between trees: from points along the one to the nearest edge of the other, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from invlearn.io.swc import Tree

_NEAR = 8  # pieces of the other tree that are tried first
_PAIRS = 1_000_000  # points times pieces that are looked at in one go


@dataclass(frozen=True)
class TreeDistance:
    """Distances between two trees, in their unit, as Vaa3D's neuron_distance defines them.

    Attributes
    ----------
    esa
        Entire structure average: the mean distance from one tree to the other, mean of both directions.
    dsa
        Different structure average: the mean distance of the points at least `threshold` away, mean of the
        directions that have any; 0 if none has.
    pds
        Percentage of different structure, as a share from 0 to 1: of those points, mean of both directions.
    esa_forth, esa_back, pds_forth, pds_back
        From the first tree to the second, and from the second to the first.
    maximum
        The smaller of the two one-way maxima.
    threshold
        From which distance on points are different.
    """

    esa: float
    dsa: float
    pds: float
    esa_forth: float
    esa_back: float
    pds_forth: float
    pds_back: float
    maximum: float
    threshold: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def segments(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """(E, 3) and (E, 3): nodes and their parents."""
    child, parent = tree.edges.T
    if not len(child):
        raise ValueError("a tree without an edge has no distance to another")
    return tree.xyz[child], tree.xyz[parent]


def pieces(start: np.ndarray, end: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For `count` places on each segment, its number and the number of the place."""
    segment = np.repeat(np.arange(len(start)), count)
    return segment, np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)


def sample_points(tree: Tree) -> np.ndarray:
    """Points on every edge of length l: int(1.5 + l) of them, its ends included; its node if that is one.

    Returns
    -------
    numpy.ndarray
        (P, 3), x y z. Nodes in the middle of a branch count more than once.
    """
    start, end = segments(tree)
    count = np.maximum((1.5 + np.linalg.norm(end - start, axis=1)).astype(np.int64), 1)
    segment, place = pieces(start, end, count)
    t = (place / np.maximum(count[segment] - 1, 1))[:, None]
    return start[segment] + t * (end - start)[segment]


def nearest(points: np.ndarray, tree: Tree) -> np.ndarray:
    """Distance from each point (P, 3) to the nearest edge of the tree, exactly; in its unit.

    Edges are cut into pieces of about equal length. The pieces whose middles are nearest are tried, more of
    them until those that are left are too far away to matter.
    """
    from scipy.spatial import cKDTree

    start, end = segments(tree)
    length = np.linalg.norm(end - start, axis=1)
    longest = max(float(length.mean()), 1e-12)
    count = np.maximum(np.ceil(length / longest).astype(np.int64), 1)
    segment, place = pieces(start, end, count)
    step = (end - start)[segment] / count[segment][:, None]
    first = start[segment] + place[:, None] * step
    middles = cKDTree(first + step / 2)
    found, left, tried = np.full(len(points), np.inf), np.arange(len(points)), min(_NEAR, len(first))
    while len(left):
        for part in _parts(left, tried):
            away, which = middles.query(points[part], k=np.arange(1, tried + 1))
            found[part] = _to_segments(points[part][:, None], first[which], step[which]).min(axis=1)
            done = away[:, -1] - longest / 2 >= found[part]
            part[done] = -1
        left = left[left >= 0] if tried < len(first) else left[:0]
        tried = min(4 * tried, len(first))
    return found


def _parts(numbers: np.ndarray, each: int) -> Iterator[np.ndarray]:
    """Views of an array that keep the work of one go small."""
    step = max(_PAIRS // each, 1)
    return (numbers[k : k + step] for k in range(0, len(numbers), step))


def _to_segments(point: np.ndarray, start: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Distances from points to the segments from `start` to ``start + step``."""
    away = point - start
    square = np.einsum("...i,...i", step, step)
    t = np.einsum("...i,...i", away, step) / np.where(square > 0, square, 1)
    return np.linalg.norm(away - np.clip(t, 0, 1)[..., None] * step, axis=-1)


def tree_distance(tree: Tree, truth: Tree, *, threshold: float = 2.0) -> TreeDistance:
    """Entire and different structure averages between two trees of one unit.

    Parameters
    ----------
    tree, truth
        At least one edge each. The measure was made for voxels, and its points are a unit apart.
    threshold
        Distance from which points count as different.

    Returns
    -------
    TreeDistance
        In the unit of the trees.

    Raises
    ------
    ValueError
        Trees without an edge or of different units, or a threshold that is not positive.

    References
    ----------
    H. Peng et al., V3D enables real-time 3D visualization and quantitative analysis of large-scale biological
    image data sets, Nature Biotechnology 28 (2010), 348, doi:10.1038/nbt.1612.
    """
    if tree.unit != truth.unit:
        raise ValueError(f"one tree is in {tree.unit}, the other in {truth.unit}; bring them to one unit")
    if not 0 < threshold < np.inf:
        raise ValueError(f"the threshold is a positive distance, got {threshold}")
    ways = nearest(sample_points(tree), truth), nearest(sample_points(truth), tree)
    means = [float(d.mean()) for d in ways]
    shares = [float((d >= threshold).mean()) for d in ways]
    different = [float(d[d >= threshold].mean()) for d in ways if (d >= threshold).any()]
    return TreeDistance(
        esa=sum(means) / 2,
        dsa=sum(different) / len(different) if different else 0.0,
        pds=sum(shares) / 2,
        esa_forth=means[0],
        esa_back=means[1],
        pds_forth=shares[0],
        pds_back=shares[1],
        maximum=min(float(d.max()) for d in ways),
        threshold=float(threshold),
    )
