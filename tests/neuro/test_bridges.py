"""Bridges over gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from invlearn.neuro.bridges import find_bridges, with_bridges
from invlearn.neuro.foreground import Volume, gather
from invlearn.neuro.skeleton import Skeleton, thin
from invlearn.neuro.soma import Soma


def scene(between: float = 0.0, gap: int = 6, row: int = 10) -> tuple[Skeleton, Volume]:
    """Two bars one voxel thick along x, with a certainty between them; the second one in a row."""
    probability = np.zeros((12, 40, 60), np.float32)
    probability[6, 10, 5:25] = 1
    probability[6, 10, 25 : 25 + gap] = between
    probability[6, row, 25 + gap : 55] = 1
    volume = Volume(probability, 0.5)
    return thin(gather(volume, (1, 1, 1))), volume


def test_the_cost_is_the_darkness() -> None:
    """In the dark the length; half of the threshold makes it half, but for the price of light itself."""
    for between, darkness in ((0.0, 1.0), (0.25, 0.05 + 0.95 * 0.5), (0.45, 0.05 + 0.95 * 0.1)):
        skeleton, volume = scene(between)
        best = find_bridges(skeleton, volume, 20)[0]
        # from the last voxel of one bar to the first of the other: the two voxels at the ends count half
        expected = 6 * darkness + 0.05
        assert best.cost == pytest.approx(expected, abs=0.02)
        assert len(best.voxels) == 6
        np.testing.assert_allclose(best.certainty, between)


def test_too_long_and_too_dark_is_refused() -> None:
    assert find_bridges(*scene(), 5.9) == []
    assert find_bridges(*scene(), 6.2)
    assert find_bridges(*scene(), 2.5) == []
    assert find_bridges(*scene(0.45), 2.5)
    assert find_bridges(*scene(0.45, gap=20), 5) == []  # beyond three times the limit
    assert find_bridges(*scene(0.45, gap=13), 5)


def test_sideways_costs_more() -> None:
    ahead = find_bridges(*scene(), 30)[0]
    skeleton, volume = scene(row=17, gap=0)
    aside = find_bridges(skeleton, volume, 30)[0]
    length = float(np.linalg.norm(skeleton.points[aside.ends[0]] - skeleton.points[aside.ends[1]]))
    assert ahead.cost == pytest.approx(6, abs=0.1)
    assert aside.cost > 1.6 * length


def test_paths_go_around_the_dark() -> None:
    """A lit detour is taken instead of the straight dark way."""
    skeleton, volume = scene(gap=8)
    volume.source[6, 12, 24:34] = volume.source[6, 10:13, 24] = volume.source[6, 10:13, 33] = 0.45
    best = find_bridges(skeleton, volume, 20)[0]
    assert (best.voxels[:, 1] == 12).any()
    assert best.cost < 4


def test_joined_parts_are_one_and_somas_stay_apart() -> None:
    skeleton, volume = scene()
    bridges = find_bridges(skeleton, volume, 10)
    left, right = (int(np.argmin(skeleton.voxels[:, 2])), int(np.argmax(skeleton.voxels[:, 2])))
    joined = with_bridges(skeleton, bridges, [])
    assert connected_components(joined.graph, directed=False)[0] == 1
    assert len(joined) == len(skeleton) + 6  # the second bridge, from the other end, would close a loop
    assert sorted(joined.degree)[:2] == [1, 1]
    assert (joined.radius > 0).all()
    somas = [Soma(skeleton.points[node], 2.0, node) for node in (left, right)]
    assert len(with_bridges(skeleton, bridges, somas)) == len(skeleton)
    assert len(with_bridges(skeleton, bridges, somas[:1])) == len(joined)
    assert len(with_bridges(skeleton, [], [])) == len(skeleton)
