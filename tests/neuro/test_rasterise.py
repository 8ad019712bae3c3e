"""Trees in voxels: against balls written out one by one, and the published way of drawing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from invlearn.io.swc import Tree, read_swc
from invlearn.neuro import swc_to_mask
from invlearn.neuro.rasterise import paint


def tree_of(xyz: list[tuple[float, float, float]], radius: list[float], unit: str = "um") -> Tree:
    n = len(xyz)
    return Tree(np.array(xyz, float), np.array(radius), np.arange(-1, n - 1), np.zeros(n, int), unit)


def balls(
    tree: Tree, shape: tuple[int, int, int], size: float, inflate: float, steps: int = 500
) -> np.ndarray:
    """The union of many balls along each edge, cubic voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mask = np.zeros(shape, bool)
    place, radius = tree.xyz[:, ::-1] / size, tree.radius / size
    for child, parent in tree.edges:
        for t in np.linspace(0, 1, steps):
            centre = place[child] + t * (place[parent] - place[child])
            reach = radius[child] + t * (radius[parent] - radius[child]) + inflate
            mask |= ((grid - centre) ** 2).sum(-1) <= reach**2
    return mask


CASES = {
    "a cylinder": [2.0, 2.0],
    "a cone": [4.0, 1.0],
    "a cone the other way": [0.8, 3.5],
    "a ball that holds the other": [6.5, 0.5],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("inflate", [0.0, 0.25, 1.0])
def test_an_edge_is_the_union_of_its_balls(case: str, inflate: float) -> None:
    tree = tree_of([(4.0, 5.2, 6.0), (9.4, 8.1, 7.3)], [0.5 * r for r in CASES[case]], "um")
    tree = Tree(0.5 * tree.xyz, tree.radius, tree.parent, tree.kind, "um")
    found = swc_to_mask(tree, (14, 15, 16), (0.5, 0.5, 0.5), inflate=inflate)
    expected = balls(tree, (14, 15, 16), 0.5, inflate)
    assert expected.sum() > 40
    # steps between the many balls: voxels within 0.001 of the surface may differ
    assert (found != expected).sum() <= 1
    assert found[~balls(tree, (14, 15, 16), 0.5, inflate + 0.01)].sum() == 0


def test_voxels_are_counted_from_their_centres() -> None:
    mask = swc_to_mask(tree_of([(3, 2, 1)], [0.6]), (4, 5, 6), inflate=0.0)
    assert np.argwhere(mask).tolist() == [[1, 2, 3]]
    mask = swc_to_mask(tree_of([(3, 2, 1)], [1.0]), (4, 5, 6), inflate=0.0)
    assert mask.sum() == 7  # a centre exactly at the radius is inside
    in_voxels = tree_of([(3, 2, 1)], [1.0], "voxel")
    np.testing.assert_array_equal(swc_to_mask(in_voxels, (4, 5, 6), (3, 0.1, 0.2), inflate=0.0), mask)


def test_a_ball_on_flat_voxels_is_an_ellipsoid() -> None:
    mask = swc_to_mask(tree_of([(8, 8, 8)], [4.0]), (9, 17, 33), (2, 1, 0.5), inflate=0.0)
    z, y, x = np.nonzero(mask)
    assert (np.ptp(z), np.ptp(y), np.ptp(x)) == (4, 8, 16)
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.1)  # of 1 µm³ each
    wider = swc_to_mask(tree_of([(8, 8, 8)], [4.0]), (9, 17, 33), (2, 1, 0.5), inflate=1.001)
    z, y, x = np.nonzero(wider)  # a voxel more on each side, along every axis
    assert (np.ptp(z), np.ptp(y), np.ptp(x)) == (6, 10, 18)


@given(st.integers(0, 10_000), st.sampled_from([(1, 1, 1), (3, 1, 1), (1, 0.5, 2)]))
def test_thin_branches_stay_in_one_piece(seed: int, size: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(2, 18, (6, 3)) * np.array(size[::-1])
    tree = Tree(xyz, np.full(6, 0.01), np.array([-1, 0, 1, 1, 2, 0]), np.zeros(6, int), "um")
    mask = swc_to_mask(tree, (20, 20, 20), size, inflate=0.0)
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    at = np.rint(tree.zyx(size)).astype(int)
    assert mask[tuple(at.T)].all()


def test_what_lies_outside_is_left_out() -> None:
    across = tree_of([(-20, 3, 3), (30, 3, 3)], [1.0, 1.0])
    mask = swc_to_mask(across, (7, 7, 7))
    assert mask[3, 3].all()
    assert mask.sum() == 7 * 5
    assert not swc_to_mask(tree_of([(50, 3, 3), (60, 3, 3)], [1.0, 1.0]), (7, 7, 7)).any()


def test_brightness_runs_along_the_edges_and_the_brightest_wins() -> None:
    tree = tree_of([(0, 2, 2), (10, 2, 2)], [1.0, 1.0])
    volume = np.zeros((5, 5, 11), np.float32)
    paint(volume, tree, bright=np.array([1.0, 2.0]))
    # a voxel may be lit by the ball around a brighter place, at most 1.25 away
    excess = volume[2, 2] - np.linspace(1, 2, 11)
    assert excess.min() > -1e-6
    assert excess.max() < 0.126
    paint(volume, tree, bright=np.array([1.5, 1.5]))
    np.testing.assert_allclose(volume[2, 2, :5], 1.5)
    assert volume[2, 2, -1] == 2


def test_a_soft_surface_falls_from_one_to_none() -> None:
    volume = np.zeros((11, 11, 11), np.float32)
    paint(volume, tree_of([(5, 5, 5)], [2.0]), soft=2.0, margin=1.0)
    np.testing.assert_allclose(volume[5, 5, 5:], [1, 1, 0.5, 0, 0, 0], atol=1e-6)


def test_the_published_stack_is_where_its_tree_is(data_folder: Path) -> None:
    stack = tifffile.imread(data_folder / "neurons" / "snake_noise10.tif")
    mask = swc_to_mask(read_swc(data_folder / "neurons" / "snake_noise10.swc"), stack.shape)
    bright = stack > 60
    assert 2 * (mask & bright).sum() / (mask.sum() + bright.sum()) > 0.9


def test_bad_input_is_refused() -> None:
    tree = tree_of([(1, 1, 1)], [1.0])
    for shape in ((4, 4), (4, 4, 0), (4, 4, -1)):
        with pytest.raises(ValueError, match="three positive whole numbers"):
            swc_to_mask(tree, shape)
    for size in ((1, 1), (1, 0, 1), (1, 1, np.nan)):
        with pytest.raises(ValueError, match="a voxel size is three positive"):
            swc_to_mask(tree, (4, 4, 4), size)
    with pytest.raises(ValueError, match="inflate is at least 0"):
        swc_to_mask(tree, (4, 4, 4), inflate=-0.1)
