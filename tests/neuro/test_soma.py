"""Cell bodies among branches, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from invlearn.io.swc import Tree
from invlearn.neuro.foreground import Foreground, Volume, gather
from invlearn.neuro.rasterise import swc_to_mask
from invlearn.neuro.skeleton import Skeleton, thin
from invlearn.neuro.soma import find_somas, given_soma

SHAPE = (50, 60, 160)


def scene(
    balls: list[tuple[float, float]], branch: float = 1.2, taper: float | None = None
) -> tuple[Skeleton, Foreground]:
    """A branch along x with balls (x, radius) on it."""
    x = np.linspace(5, 155, 151)
    radius = np.full(len(x), branch) if taper is None else np.linspace(taper, branch, len(x))
    xyz = np.stack([x, np.full(len(x), 30.0), np.full(len(x), 25.0)], axis=1)
    mask = swc_to_mask(Tree(xyz, radius, np.arange(len(x)) - 1, np.full(len(x), 3)), SHAPE)
    for place, size in balls:
        at = np.array([[place, 30.0, 25.0]])
        mask |= swc_to_mask(Tree(at, np.array([size]), np.array([-1]), np.array([1])), SHAPE)
    found = gather(Volume(mask, 0.5), (1, 1, 1))
    return thin(found), found


def test_somas_are_found_largest_first() -> None:
    skeleton, foreground = scene([(40, 7.0), (110, 10.0)])
    somas = find_somas(skeleton, foreground)
    assert [soma.radius for soma in somas] == [pytest.approx(10, abs=0.5), pytest.approx(7, abs=0.5)]
    np.testing.assert_allclose([soma.centre for soma in somas], [(25, 30, 110), (25, 30, 40)], atol=1)
    inside = somas[0].holds(skeleton)
    assert inside[somas[0].node]
    distance = np.linalg.norm(skeleton.points - somas[0].centre, axis=1)
    np.testing.assert_array_equal(inside, distance <= somas[0].radius)


@pytest.mark.parametrize(
    ("balls", "branch", "taper"),
    [
        ([], 1.2, None),  # nothing
        ([(60, 3.0)], 1.2, None),  # a bouton: not three times as thick and of less than 3.5 voxels
        ([], 1.0, 8.0),  # a trunk that gets thin: its thick end goes on
        ([(60, 7.0)], 3.0, None),  # not three times as thick
    ],
)
def test_boutons_and_trunks_are_no_somas(
    balls: list[tuple[float, float]], branch: float, taper: float | None
) -> None:
    assert find_somas(*scene(balls, branch, taper)) == []


def test_swellings_beside_a_large_soma_are_none() -> None:
    somas = find_somas(*scene([(40, 4.5), (110, 14.0)], 0.8))
    assert [round(soma.radius) for soma in somas] == [14]
    assert len(find_somas(*scene([(40, 4.5)], 0.8))) == 1  # alone it is one


def test_a_ball_alone_is_a_soma_if_it_stands_out() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[20, 20, 2:38] = True
    mask[10:31, 10:31, 10:31] |= np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) <= 9
    found = gather(Volume(mask, 0.5), (1, 1, 1))
    (soma,) = find_somas(thin(found), found)
    np.testing.assert_allclose(soma.centre, (20, 20, 20), atol=0.5)


def test_the_given_place_is_taken() -> None:
    skeleton, _ = scene([(110, 10.0)])
    soma = given_soma(skeleton, (25, 33, 20), SHAPE)
    np.testing.assert_allclose(soma.centre, (25, 30, 20), atol=1)
    assert soma.radius == pytest.approx(1.6, abs=0.4)
    for wrong in ((0, 0), (0, 0, 160), (-1, 0, 0), (0, np.nan, 0)):
        with pytest.raises(ValueError, match="inside the volume"):
            given_soma(skeleton, wrong, SHAPE)
