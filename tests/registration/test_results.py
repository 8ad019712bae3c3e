"""What a registration leaves behind, against plain computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from invlearn.io import Volume, read_volume
from invlearn.registration import Registration, register
from invlearn.registration.results import FILES, by_header, measure, overlap, write_results

SHAPE = (16, 14, 12)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def body(shift: int) -> Volume:
    x = np.zeros(SHAPE, np.uint16)
    x[3 + shift : 9 + shift, 3:10, 3:9] = 1
    x[5 + shift : 7 + shift, 5:8, 5:7] = 40_000
    return Volume(x, AFFINE)


@pytest.fixture(scope="module")
def result() -> Registration:
    """A shift of two voxels, told and not found."""
    matrix = np.eye(4)
    matrix[0, 3] = 4.0
    fixed, moving = (v.like((v.data > 0) + 0.5 * (v.data > 1)) for v in (body(0), body(2)))
    return register(fixed, moving, affine=matrix, iterations=0)


def test_labels_are_compared_before_and_after(result: Registration) -> None:
    found = measure(result, (body(0), body(2)))
    assert found["dice_after"] == {"mean": 1.0, "1": 1.0, "40000": 1.0}
    assert found["hd95_mm"] == {"mean": 0.0, "1": 0.0, "40000": 0.0}
    before = found["dice_before"]
    a, b = body(0).data, body(2).data
    for k in (1, 40_000):
        assert before[str(k)] == pytest.approx(
            2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum())
        )
    assert before["mean"] == pytest.approx((before["1"] + before["40000"]) / 2)


def test_a_label_that_one_side_lacks_has_no_distance(result: Registration) -> None:
    other = body(2)
    found = overlap(result, (body(0), other.like(np.minimum(other.data, 1))))
    assert found["dice_after"]["40000"] == 0
    assert found["hd95_mm"]["40000"] is None
    assert found["hd95_mm"]["mean"] is not None
    empty = other.like(np.zeros(SHAPE, np.uint8))
    assert overlap(result, (empty, empty))["dice_after"] == {"mean": None}


def test_without_labels_their_numbers_are_none(result: Registration) -> None:
    found = measure(result)
    assert found["dice_before"] is found["dice_after"] is found["hd95_mm"] is None
    assert found["similarity"]["name"] == "lncc"
    assert found["sd_log_jacobian"] == 0


def test_before_is_by_the_headers_alone(result: Registration) -> None:
    np.testing.assert_allclose(by_header(result.fixed, result.moving).data, result.moving.data, atol=1e-6)
    moved = Volume(result.moving.data, AFFINE + np.array([[0, 0, 0, -4.0]] + 3 * [[0.0] * 4]))
    np.testing.assert_allclose(by_header(result.fixed, moved).data[3:9], result.fixed.data[3:9], atol=1e-5)


def test_labels_on_another_grid_are_refused(result: Registration) -> None:
    with pytest.raises(ValueError, match="fixed volume and its labels lie on different grids"):
        overlap(result, (Volume(body(0).data[1:], AFFINE), body(2)))
    with pytest.raises(ValueError, match="moving volume and its labels lie on different grids"):
        overlap(result, (body(0), Volume(body(2).data, 2 * AFFINE - np.diag([0, 0, 0, 1.0]))))


def test_the_files(result: Registration, tmp_path: Path) -> None:
    write_results(tmp_path, result)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    np.testing.assert_array_equal(read_volume(tmp_path / "jacobian.nii.gz").data, 1)
    warped = read_volume(tmp_path / "warped.nii.gz")
    np.testing.assert_allclose(warped.data, result.warped.data)
    np.testing.assert_allclose(warped.affine, AFFINE)
    assert torch.equal(result.deformation, torch.zeros(3, *SHAPE))
