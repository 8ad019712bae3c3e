"""Centre lines as graphs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label
from skimage.morphology import skeletonize

from invlearn.neuro.cavities import without_cavities
from invlearn.neuro.foreground import Volume, gather
from invlearn.neuro.skeleton import Skeleton, thin

FULL = np.ones((3, 3, 3))


def thinned(probability: np.ndarray, voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Skeleton:
    return thin(gather(Volume(probability, 0.5), voxel_size).filled())


@given(seed=st.integers(0, 1000), density=st.floats(0.02, 0.6))
def test_the_graph_has_the_parts_of_the_mask(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((6, 9, 8)) < density
    mask[3, 3, 3] = True
    mask[0, 0, 0] = False
    skeleton = thinned(mask)
    number, count = label(mask, FULL)
    assert skeleton.component.max() + 1 == count
    inside = number[tuple(skeleton.voxels.T)]
    filled = inside == 0  # of a cavity
    assert (skeleton.certainty == 1).all()
    same = skeleton.component[:, None] == skeleton.component
    np.testing.assert_array_equal(same[~filled][:, ~filled], (inside[:, None] == inside)[~filled][:, ~filled])
    gap = np.abs(skeleton.voxels[skeleton.edges[:, 0]] - skeleton.voxels[skeleton.edges[:, 1]])
    assert (gap.max(axis=1) == 1).all()
    near = np.abs(skeleton.voxels[:, None] - skeleton.voxels).max(axis=2) == 1
    assert near.sum() == 2 * len(skeleton.edges)


def test_parts_thinned_one_by_one_are_what_the_whole_is_thinned_to() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 300, 300), bool)
    for z, y, x in rng.integers(0, (36, 291, 293), (8, 3)):
        mask[z : z + 4, y : y + 9, x : x + 7] = rng.random((4, 9, 7)) < 0.7
    assert len(list(gather(Volume(mask, 0.5), (1, 1, 1)).parts())) > 3
    np.testing.assert_array_equal(thinned(mask).voxels, np.argwhere(skeletonize(without_cavities(mask))))


def test_a_bar_is_a_chain() -> None:
    probability = np.zeros((9, 9, 40), np.float32)
    probability[3:6, 3:6, 4:36] = np.linspace(0.6, 1, 32, dtype=np.float32)
    skeleton = thinned(probability, (2.0, 0.5, 0.5))
    assert sorted(skeleton.degree) == [1, 1] + [2] * (len(skeleton) - 2)
    np.testing.assert_allclose(skeleton.points[:, :2], [(8.0, 2.0)] * len(skeleton))
    inner = (skeleton.voxels[:, 2] > 8) & (skeleton.voxels[:, 2] < 32)
    np.testing.assert_allclose(skeleton.radius[inner], np.sqrt(1 - 0.125))  # two voxels of 0.5 µm to the side
    expected = probability[tuple(skeleton.voxels.T)]
    np.testing.assert_array_equal(skeleton.certainty, expected)
