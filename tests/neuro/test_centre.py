"""Nodes in the middle of their branch, finer than voxels."""

from __future__ import annotations

import numpy as np
import pytest

from invlearn.io.swc import Tree
from invlearn.neuro.centre import recentred, tangents
from invlearn.neuro.foreground import Volume, gather
from invlearn.neuro.forest import Forest
from invlearn.neuro.rasterise import swc_to_mask

VOXEL = (2.0, 1.0, 1.0)


def chain(points: np.ndarray, radius: float) -> Forest:
    count = len(points)
    return Forest(points, np.full(count, radius), np.arange(count) - 1, np.ones(count), np.zeros(count, bool))


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.4), (-0.9, 0.5)])
@pytest.mark.parametrize("radius", [1.5, 3.0])
def test_nodes_beside_the_middle_find_it(offset: tuple[float, float], radius: float) -> None:
    """A tube along x whose middle lies between voxels; nodes start on voxels."""
    y, z = 20.5 + offset[0], 16.7 + offset[1]
    ends = np.array([(4.0, y, z), (60.0, y, z)])
    tube = Tree(ends, np.full(2, radius), np.array([-1, 0]), np.array([3, 3]))
    mask = swc_to_mask(tube, (16, 40, 64), VOXEL)
    x = np.arange(10.0, 55.0)
    nodes = np.stack([np.full(len(x), 2.0 * round(z / 2)), np.full(len(x), float(round(y))), x], axis=1)
    foreground = gather(Volume(mask, 0.5), VOXEL)
    moved = recentred(chain(nodes, radius), foreground)
    np.testing.assert_allclose(moved[:, 2], x)  # never along the branch
    assert np.abs(moved[:, 1] - y).max() < 0.3
    assert np.abs(moved[:, 0] - z).max() < 0.5
    before = np.hypot(nodes[:, 1] - y, nodes[:, 0] - z).mean()
    assert np.hypot(moved[:, 1] - y, moved[:, 0] - z).mean() < max(0.8 * before, 0.15)


def test_probability_weighs() -> None:
    probability = np.zeros((3, 9, 30), np.float32)
    probability[1, 4], probability[1, 5] = 1.0, 0.6
    nodes = np.stack([np.ones(20), np.full(20, 4.0), np.arange(5.0, 25)], axis=1)
    for weight in (0.6, 1.0):
        probability[1, 5] = weight
        moved = recentred(chain(nodes, 1.0), gather(Volume(probability, 0.5), (1, 1, 1)))
        np.testing.assert_allclose(moved[5:-5, 1], 4 + weight / (1 + weight), atol=1e-6)


def test_no_node_jumps_and_somas_stay() -> None:
    mask = np.zeros((3, 30, 30), bool)
    mask[1, 4:12] = True
    nodes = np.stack([np.ones(20), np.full(20, 4.0), np.arange(5.0, 25)], axis=1)
    forest = chain(nodes, 6.0)
    forest.soma[3] = True
    moved = recentred(forest, gather(Volume(mask, 0.5), (1, 1, 1)))
    assert np.abs(moved - nodes).max() == pytest.approx(1)
    np.testing.assert_array_equal(moved[3], nodes[3])


def test_tangents_are_unit_vectors_along_the_branch() -> None:
    s = np.linspace(0, 2, 50)
    circle = np.stack([np.zeros(50), np.cos(s), np.sin(s)], axis=1)
    along = tangents(chain(circle, 1.0))
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1)
    expected = np.stack([np.zeros(50), -np.sin(s), np.cos(s)], axis=1)
    np.testing.assert_allclose(np.abs((along * expected).sum(axis=1))[1:-1], 1, atol=1e-3)
    assert not tangents(chain(np.ones((1, 3)), 1.0)).any()
