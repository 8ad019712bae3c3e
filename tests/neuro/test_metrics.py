"""Masks and tracings against a truth: numbers that can be worked out by hand, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import skeletonize

from invlearn.io.swc import Tree
from invlearn.neuro import compare, overlap, tree_distance
from invlearn.neuro.metrics import harmonic, in_one_unit, match_points, suspected_flip


def line(*points: tuple[float, float, float], unit: str = "um") -> Tree:
    n = len(points)
    return Tree(np.array(points, float), np.ones(n), np.arange(-1, n - 1), np.zeros(n, int), unit)


def bar(start: int, stop: int, row: int = 5) -> np.ndarray:
    mask = np.zeros((9, 12, 40), bool)
    mask[4, row, start:stop] = True
    return mask


def test_overlap_by_hand() -> None:
    found = overlap(bar(0, 20), bar(5, 30))
    assert found.precision == pytest.approx(15 / 20)
    assert found.recall == pytest.approx(15 / 25)
    assert found.f1 == pytest.approx(2 * 15 / 45)
    assert found.iou == pytest.approx(15 / 30)
    assert found.cldice == pytest.approx(harmonic(15 / 20, 15 / 25))  # a line is its own skeleton
    beside = overlap(bar(0, 20), bar(0, 20, row=7))
    assert (beside.f1, beside.cldice) == (0, 0)
    for tolerance, share in ((1.9, 0.0), (2.0, 1.0)):
        assert overlap(bar(0, 20), bar(0, 20, row=7), tolerance=tolerance).f1 == share
    assert overlap(bar(0, 20), bar(5, 30), tolerance=3.0).recall == pytest.approx(18 / 25)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 2.0]))
def test_overlap_is_what_whole_array_operations_give(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    one, two = (ndimage.gaussian_filter(rng.normal(size=(12, 14, 16)), 1.5) > 0.05 for _ in range(2))
    ball = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3)).astype(float)
    ball = (ball**2).sum(axis=0) <= tolerance**2
    found = overlap(one, two, tolerance=tolerance)
    assert found.precision == pytest.approx((one & ndimage.binary_dilation(two, ball)).sum() / one.sum())
    assert found.recall == pytest.approx((two & ndimage.binary_dilation(one, ball)).sum() / two.sum())
    assert found.iou == pytest.approx((one & two).sum() / (one | two).sum())
    again = overlap(torch.from_numpy(one), torch.from_numpy(two).to(torch.uint8) * 255, tolerance=tolerance)
    assert again == found


def test_cldice_is_that_of_the_whole_stacks() -> None:
    one = ndimage.binary_dilation(bar(3, 30), np.ones((3, 3, 3)))
    two = ndimage.binary_dilation(bar(8, 37, row=6), np.ones((3, 3, 3)))
    shares = (
        (skeletonize(one) & two).sum() / skeletonize(one).sum(),
        (skeletonize(two) & one).sum() / skeletonize(two).sum(),
    )
    assert overlap(one, two).cldice == pytest.approx(harmonic(*shares))
    assert 0.5 < overlap(one, two).cldice < 1


def test_an_empty_mask_scores_nothing_and_an_empty_truth_is_refused() -> None:
    empty = np.zeros_like(bar(0, 1))
    found = overlap(empty, bar(0, 20), tolerance=2.0)
    assert set(found.to_dict().values()) == {0.0, 2.0}
    with pytest.raises(ValueError, match="the true mask has no voxel"):
        overlap(bar(0, 20), empty)
    with pytest.raises(ValueError, match="one shape"):
        overlap(bar(0, 20), empty[1:])
    with pytest.raises(ValueError, match="at least 0 voxels"):
        overlap(bar(0, 20), bar(0, 20), tolerance=-1.0)


def test_cable_is_found_within_the_tolerance() -> None:
    truth = line((0, 0, 0), (40, 0, 0))
    tracing = line((0, 1, 0), (30, 1, 0), (30, 21, 0))  # 30 along the truth, then 20 away from it
    found = compare(tracing, truth, tolerance=2.0)
    assert found.precision == pytest.approx(31 / 50, abs=0.02)
    assert found.recall == pytest.approx((30 + np.sqrt(3)) / 40, abs=0.02)
    assert found.f1 == pytest.approx(harmonic(found.precision, found.recall))
    assert found.length_ratio == pytest.approx(50 / 40)
    assert found.distance == tree_distance(tracing, truth)
    assert compare(tracing, truth, tolerance=0.9).recall == 0
    assert compare(tracing, truth, threshold=5.0).distance.pds < found.distance.pds
    assert (found.unit, found.tolerance, found.point_tolerance) == ("um", 2.0, 4.0)


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    found = compare(line((0, 0, 0), (9, 0, 0)), line((0, 0, 0), (10, 0, 0))).to_dict()
    assert {"esa", "dsa", "pds", "precision", "recall", "f1", "length_ratio", "unit"} <= set(found)
    assert found["ends"] == {"found": 2, "true": 2, "missing": 0, "extra": 0}


def test_topology_errors_are_counted() -> None:
    def fork(arms: int) -> Tree:
        xyz = [(0, 0, 0), (20, 0, 0), *[(40, 30 * k, 0) for k in range(arms)]]
        parent = np.array([-1, 0, *[1] * arms])
        return Tree(np.array(xyz, float), np.ones(len(xyz)), parent, np.zeros(len(xyz), int), "um")

    found = compare(fork(3), fork(2))
    assert (found.ends.found, found.ends.true, found.ends.missing, found.ends.extra) == (4, 3, 0, 1)
    assert (found.branch_points.missing, found.branch_points.extra) == (0, 0)
    straight = compare(fork(1), fork(2))
    assert (straight.branch_points.missing, straight.ends.missing, straight.ends.extra) == (1, 1, 0)
    two = Tree(
        np.array([(0, 0, 0), (5, 0, 0), (9, 0, 0), (20, 0, 0)], float),
        np.ones(4),
        np.array([-1, 0, -1, 2]),
        np.zeros(4, int),
    )
    assert (compare(two, fork(1)).trees, compare(two, fork(1)).true_trees) == (2, 1)


def test_points_are_paired_one_to_one_and_as_many_as_can_be() -> None:
    # greedily, 0 would take 1 and leave -0.5 and 1.5 alone
    found, true = np.array([[0.0, 0, 0], [2.5, 0, 0]]), np.array([[1.0, 0, 0], [-1.2, 0, 0]])
    pairs = match_points(found, true, 1.6)
    assert (pairs.missing, pairs.extra) == (0, 0)
    crowd = match_points(np.zeros((3, 3)), np.zeros((1, 3)), 1.0)
    assert (crowd.missing, crowd.extra) == (0, 2)
    assert match_points(np.empty((0, 3)), np.zeros((2, 3)), 1.0).missing == 2


def test_units_are_brought_together() -> None:
    um, voxel = line((0, 0, 0), (10, 4, 6)), line((0, 0, 0), (20, 8, 3), unit="voxel")
    a, b = in_one_unit(um, voxel, (2, 0.5, 0.5))
    np.testing.assert_allclose(a.xyz, b.xyz)
    assert a.unit == b.unit == "voxel"
    assert compare(um, voxel, voxel_size=(2, 0.5, 0.5)).distance.esa == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="give the voxel size"):
        compare(um, voxel)
    assert compare(voxel, voxel).unit == "voxel"
    unknown = line((0, 0, 0), (10, 4, 6), unit="unknown")
    assert in_one_unit(unknown, voxel)[0].unit == "voxel"
    assert in_one_unit(unknown, unknown)[0].unit == "um"
    nm = um.scaled((1000, 1000, 1000), "nm")
    assert compare(nm, um).distance.esa == pytest.approx(0, abs=1e-9)


@given(st.floats(-30, 30), st.floats(20, 400))
def test_a_flip_is_suspected_where_there_is_one(shift: float, last: float) -> None:
    truth = line((0, shift, 0), (20, shift + 12, 3), (25, shift + 40, 9), (60, shift + 44, 0))
    assert suspected_flip(truth, truth) is None
    flipped = truth.flipped_y(last)
    found = suspected_flip(flipped, truth)
    if abs(last - 2 * shift - 44) > 40:  # far enough from lying on itself
        assert found == pytest.approx(last)
    assert suspected_flip(truth, line((0, 0, 500), (1, 0, 590))) is None


def test_bad_input_is_refused() -> None:
    tree = line((0, 0, 0), (5, 0, 0))
    with pytest.raises(ValueError, match="tolerance is a positive"):
        compare(tree, tree, tolerance=0.0)
    with pytest.raises(ValueError, match="threshold is a positive"):
        compare(tree, tree, threshold=0.0)
    with pytest.raises(ValueError, match="no length"):
        compare(tree, line((1, 1, 1), (1, 1, 1)))
    with pytest.raises(ValueError, match="without an edge"):
        compare(line((1, 1, 1)), tree)
