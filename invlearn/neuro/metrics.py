"""How well a mask or a tracing agrees with a truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from invlearn.io.swc import Tree
from invlearn.io.voxels import VoxelSize, checked_voxel_size
from invlearn.neuro.distance import TreeDistance, nearest, pieces, segments, tree_distance

_APART, _TOGETHER = 0.2, 0.5  # shares of a tree near the other one: hardly, and mostly


@dataclass(frozen=True)
class Overlap:
    """Voxels of a mask against those of a truth.

    Attributes
    ----------
    precision
        Share of the mask's voxels that lie within the tolerance of a true one.
    recall
        Share of the true voxels that lie within the tolerance of one of the mask.
    f1
        Their harmonic mean; the Dice coefficient at tolerance 0.
    iou
        Intersection over union, without tolerance.
    cldice
        Harmonic mean of the share of the mask's skeleton inside the truth and the share of the truth's
        skeleton inside the mask.
    tolerance
        In voxels.
    """

    precision: float
    recall: float
    f1: float
    iou: float
    cldice: float
    tolerance: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def harmonic(a: float, b: float) -> float:
    """2ab / (a + b), 0 for two zeros."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _within(tested: np.ndarray, reference: np.ndarray, tolerance: float) -> float:
    """Share of the voxels of one mask within the tolerance of the other."""
    if not tested.any() or not reference.any():
        return 0.0
    if tolerance:
        from scipy.ndimage import distance_transform_edt

        return float((distance_transform_edt(~reference)[tested] <= tolerance).mean())
    return float(reference[tested].mean())


def overlap(mask: Any, truth: Any, *, tolerance: float = 0.0) -> Overlap:
    """Compare a mask with a truth, voxel by voxel and along the skeletons.

    Parameters
    ----------
    mask, truth
        (D, H, W), NumPy or torch; what is not 0 counts.
    tolerance
        Distance in voxels at which a voxel still counts as found.

    Returns
    -------
    Overlap
        An empty mask scores 0.

    Raises
    ------
    ValueError
        Shapes that differ or are not (D, H, W), an empty truth, or a negative tolerance.

    References
    ----------
    clDice: S. Shit et al., clDice: a novel topology-preserving loss function for tubular structure
    segmentation, CVPR 2021, arXiv:2003.07311.
    """
    from skimage.morphology import skeletonize

    found, true = (np.asarray(m.cpu() if hasattr(m, "cpu") else m) != 0 for m in (mask, truth))
    if found.shape != true.shape or found.ndim != 3:
        raise ValueError(f"a mask and its truth have one shape (D, H, W), got {found.shape} and {true.shape}")
    if not true.any():
        raise ValueError("the true mask has no voxel, so that nothing can be found of it")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"the tolerance is at least 0 voxels, got {tolerance}")
    box = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(found | true))
    found, true = np.pad(found[box], 1), np.pad(true[box], 1)
    precision, recall = _within(found, true, tolerance), _within(true, found, tolerance)
    lines = _within(skeletonize(found), true, 0.0), _within(skeletonize(true), found, 0.0)
    iou = float((found & true).sum() / (found | true).sum())
    return Overlap(precision, recall, harmonic(precision, recall), iou, harmonic(*lines), float(tolerance))


@dataclass(frozen=True)
class Matches:
    """Points of a kind, such as ends, that two trees have in common, paired one to one.

    Attributes
    ----------
    found, true
        How many the tree has, and the truth.
    missing, extra
        How many of the truth have no partner in the tree, and the other way round.
    """

    found: int
    true: int
    missing: int
    extra: int


@dataclass(frozen=True)
class Comparison:
    """A tracing against a truth.

    Attributes
    ----------
    distance
        ESA, DSA and PDS.
    precision
        Share of the tracing's length within the tolerance of the truth.
    recall
        Share of the truth's length within the tolerance of the tracing.
    f1
        Their harmonic mean.
    length_ratio
        Length of the tracing over that of the truth.
    branch_points, ends
        Matched within `point_tolerance`.
    trees, true_trees
        Number of roots.
    tolerance, point_tolerance
        In `unit`.
    unit
        Of all lengths: "um" or "voxel".
    """

    distance: TreeDistance
    precision: float
    recall: float
    f1: float
    length_ratio: float
    branch_points: Matches
    ends: Matches
    trees: int
    true_trees: int
    tolerance: float
    point_tolerance: float
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the JSON of ``invlearn neuron evaluate``."""
        own = asdict(self)
        return {**own.pop("distance"), **own}


def _length_within(tree: Tree, other: Tree, tolerance: float) -> float:
    """Share of a tree's length within the tolerance of another."""
    start, end = segments(tree)
    length = np.linalg.norm(end - start, axis=1)
    count = np.maximum(np.ceil(4 * length / tolerance).astype(np.int64), 1)
    segment, place = pieces(start, end, count)
    middle = start[segment] + ((place + 0.5) / count[segment])[:, None] * (end - start)[segment]
    weight = (length / count)[segment]
    if not weight.sum():
        return float((nearest(middle, other) <= tolerance).mean())
    return float(weight[nearest(middle, other) <= tolerance].sum() / weight.sum())


def match_points(found: np.ndarray, true: np.ndarray, tolerance: float) -> Matches:
    """Pair as many points (N, 3) of two sets as can be, one to one, not further apart than the tolerance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import cKDTree

    paired = 0
    if len(found) and len(true):
        close = cKDTree(found).sparse_distance_matrix(cKDTree(true), tolerance, output_type="ndarray")
        graph = coo_array((np.ones(len(close)), (close["i"], close["j"])), shape=(len(found), len(true)))
        paired = int((maximum_bipartite_matching(graph.tocsr()) >= 0).sum())
    return Matches(len(found), len(true), len(true) - paired, len(found) - paired)


def in_one_unit(tree: Tree, truth: Tree, voxel_size: VoxelSize | None = None) -> tuple[Tree, Tree]:
    """Both trees in voxels if the voxel size is known, else in µm, or in voxels if both are.

    An unknown unit counts as that of the other tree, and as µm, the format's own, if both are unknown.

    Raises
    ------
    ValueError
        One is in voxels, the other is not, and no voxel size is given.
    """
    units = {tree.unit, truth.unit} - {"unknown"}
    if voxel_size is not None:
        size = checked_voxel_size(voxel_size)
        tree, truth = (replace(t, xyz=t.zyx(size)[:, ::-1], unit="voxel") for t in (tree, truth))
    elif units == {"voxel"}:
        tree, truth = replace(tree, unit="voxel"), replace(truth, unit="voxel")
    elif "voxel" in units:
        raise ValueError(
            "one tree is in voxels, the other is not; give the voxel size (z y x, µm) to compare them"
        )
    else:
        tree, truth = tree.in_um(), truth.in_um()
    return tree, truth


def compare(
    tree: Tree,
    truth: Tree,
    *,
    voxel_size: VoxelSize | None = None,
    tolerance: float = 2.0,
    threshold: float = 2.0,
) -> Comparison:
    """Compare a tracing with a truth: distances, shares of cable found, topology.

    Parameters
    ----------
    tree, truth
        At least one edge each.
    voxel_size
        (z, y, x), µm: to compare in voxels, as the measures were meant; without, lengths are in µm, or in
        voxels if both files say so.
    tolerance
        Distance at which cable counts as found; branch points and ends at twice that.
    threshold
        Of `tree_distance`.

    Returns
    -------
    Comparison
        With the unit of its lengths.

    Raises
    ------
    ValueError
        Trees without an edge, or whose units cannot be brought together, or a distance that is not positive.
    """
    if not 0 < tolerance < np.inf:
        raise ValueError(f"the tolerance is a positive distance, got {tolerance}")
    tree, truth = in_one_unit(tree, truth, voxel_size)
    if not truth.length:
        raise ValueError("the true tree has no length, so that nothing can be found of it")
    precision, recall = _length_within(tree, truth, tolerance), _length_within(truth, tree, tolerance)
    points = [
        match_points(tree.xyz[mine], truth.xyz[true], 2 * tolerance)
        for mine, true in ((tree.branch_points, truth.branch_points), (tree.ends, truth.ends))
    ]
    return Comparison(
        distance=tree_distance(tree, truth, threshold=threshold),
        precision=precision,
        recall=recall,
        f1=harmonic(precision, recall),
        length_ratio=tree.length / truth.length,
        branch_points=points[0],
        ends=points[1],
        trees=len(tree.roots),
        true_trees=len(truth.roots),
        tolerance=float(tolerance),
        point_tolerance=2 * float(tolerance),
        unit=tree.unit,
    )


def suspected_flip(tree: Tree, truth: Tree, *, tolerance: float = 2.0) -> float | None:
    """The y of the last row, if the trees lie apart but together once y is counted from the other end.

    Returns
    -------
    float or None
        `last` for ``tree.flipped_y(last)``; None if there is no reason to suspect a flip.
    """
    if _length_within(tree, truth, tolerance) > _APART:
        return None
    mine, true = tree.xyz[:, 1], truth.xyz[:, 1]
    for last in (mine.max() + true.min(), mine.min() + true.max(), np.median(mine) + np.median(true)):
        if _length_within(tree.flipped_y(last), truth, tolerance) > _TOGETHER:
            return float(last)
    return None
