"""The foreground as a list: reading, looking up, distances as of the dense transform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from invlearn.neuro import foreground as module
from invlearn.neuro.foreground import Foreground, Volume, gather


def made(mask: np.ndarray, voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Foreground:
    return gather(Volume(mask, 0.5), voxel_size)


@given(seed=st.integers(0, 1000), dz=st.sampled_from([1.0, 2.7]))
def test_the_list_is_the_mask(seed: int, dz: float) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((5, 7, 6)).astype(np.float32)
    probability[2, 3, 4] = 1
    found = gather(Volume(probability, 0.6), (dz, 1, 1))
    np.testing.assert_array_equal(found.voxels, np.argwhere(probability >= np.float32(0.6)))
    np.testing.assert_array_equal(found.certainty, probability[probability >= np.float32(0.6)])
    everywhere = np.argwhere(np.ones((5, 7, 6)))
    place = found.find(everywhere)
    np.testing.assert_array_equal(place >= 0, (probability >= np.float32(0.6)).ravel())
    np.testing.assert_array_equal(found.voxels[place[place >= 0]], everywhere[place >= 0])
    ((box, low),) = found.parts()
    np.testing.assert_array_equal(np.argwhere(box) + low, found.voxels)


@given(seed=st.integers(0, 1000), density=st.floats(0.4, 0.9))
def test_filled_is_the_mask_with_its_holes(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random((6, 9, 8)) < density, rng.uniform(0.5, 1, (6, 9, 8)), 0)
    probability[0, 0, 0] = 0.7
    found = gather(Volume(probability.astype(np.float32), 0.5), (1, 1, 1)).filled()
    np.testing.assert_array_equal(found.voxels, np.argwhere(binary_fill_holes(probability > 0)))
    held = probability[tuple(found.voxels.T)]
    np.testing.assert_allclose(found.certainty, np.where(held > 0, held, probability[probability > 0].min()))


def test_parts_far_apart_have_boxes_of_their_own() -> None:
    mask = np.zeros((70, 100, 130), bool)
    mask[2, 3, 4:9] = mask[60, 30:50, 120] = mask[60, 60, 100] = True
    boxes = {tuple(low): box for box, low in made(mask).parts()}
    assert {low: box.shape for low, box in boxes.items()} == {
        (2, 3, 4): (1, 1, 5),
        (60, 30, 100): (1, 31, 21),
    }
    assert sum(int(box.sum()) for box in boxes.values()) == mask.sum()


def test_neighbours_of_a_border_are_no_foreground() -> None:
    """The end of one row is not beside the start of the next."""
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 2] = mask[1, 2, 0] = True
    found = made(mask)
    assert (found.find(np.array([[1, 1, 3], [1, 2, -1], [3, 0, 0]])) == -1).all()


@given(seed=st.integers(0, 1000))
def test_the_radius_is_the_distance_to_the_background(seed: int) -> None:
    """As by the dense distance transform, before the half voxel is taken off."""
    rng = np.random.default_rng(seed)
    mask = rng.random((8, 9, 10)) < 0.9
    mask[4, 4, 4], mask[0, 0, 0] = True, False
    found = made(mask)
    distance = distance_transform_edt(mask)[mask]
    expected = np.sqrt(np.maximum(distance**2 - 0.5, 0.25))
    np.testing.assert_allclose(found.radius(found.voxels), expected)


def test_the_radius_knows_the_voxel() -> None:
    """A plate one slice thick, and the same on its side."""
    mask = np.zeros((9, 9, 9), bool)
    mask[4] = True
    assert made(mask, (4.0, 1.0, 1.0)).radius(np.array([[4, 4, 4]]))[0] == pytest.approx(4 / np.sqrt(2))
    assert made(mask, (1.0, 4.0, 4.0)).radius(np.array([[4, 4, 4]]))[0] == pytest.approx(1 / np.sqrt(2))


def test_slabs_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((7, 5, 6)) < 0.3
    whole = made(mask)
    monkeypatch.setattr(module, "_SLAB", 60)
    parts = made(mask)
    np.testing.assert_array_equal(whole.voxels, parts.voxels)


def test_reading_gives_certainties() -> None:
    labels = np.zeros((3, 4, 5), np.int16)
    labels[1, 2, 3], labels[0, 0, 0] = 7, -2
    part = Volume(labels, 0.5).read((0, 0, 0), (2, 3, 4))
    assert part.shape == (2, 3, 4)
    assert part.dtype == np.float32
    assert part[1, 2, 3] == part[0, 0, 0] == 1
    assert part.sum() == 2


def test_what_is_no_volume_is_refused() -> None:
    for volume, words in (
        (np.zeros((3, 3)), "choose one channel"),
        (np.zeros((1, 3, 3, 3)), "choose one channel"),
    ):
        with pytest.raises(ValueError, match=words):
            Volume(volume, 0.5)
    for threshold in (0, -1, 1.5):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            Volume(np.zeros((3, 3, 3)), threshold)
    with pytest.raises(ValueError, match="numbers"):
        made(np.full((3, 3, 3), "a"))
    full = made(np.ones((3, 3, 3), bool))
    with pytest.raises(ValueError, match="whole volume"):
        full.radius(full.voxels)
