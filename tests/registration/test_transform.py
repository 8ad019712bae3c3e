"""Saved transforms: images are pulled back, points are carried, and both agree with known maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from invlearn.io import Volume
from invlearn.io.itk import points_of, write_field
from invlearn.registration.transform import Transform, as_labels, same_grid

SHAPE = (18, 16, 14)
AFFINE = np.array([[-2, 0.2, 0, 15], [0.2, 1.5, 0, -12], [0, 0, 2.5, -16], [0, 0, 0, 1.0]])
TURN = np.array([[0.94, -0.34, 0, 3], [0.34, 0.94, 0, -2], [0, 0, 1.1, 1], [0, 0, 0, 1.0]])


def bent(points: np.ndarray) -> np.ndarray:
    """A smooth map of space, (N, 3): a turn of 20 degrees and waves."""
    x, y, z = (points @ TURN[:3, :3].T + TURN[:3, 3]).T
    return np.stack([x + 1.5 * np.sin(y / 9), y + np.cos(z / 10), z + np.sin(x / 11)], 1)


def made(map_of: object, shape: tuple[int, ...] = SHAPE, affine: np.ndarray = AFFINE) -> Transform:
    grid = points_of(affine, shape).reshape(3, -1).T
    u = (map_of(grid) - grid).T.reshape(3, *shape)  # type: ignore[operator]
    return Transform(u.astype(np.float32), affine)


def some_points(count: int = 50) -> np.ndarray:
    voxels = np.random.default_rng(0).uniform(1, np.array(SHAPE) - 2, (count, 3))
    return voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3]


def test_points_follow_the_map_and_come_back() -> None:
    transform, points = made(bent), some_points()
    assert transform.covers(points).all()
    np.testing.assert_allclose(transform.points(points), bent(points), atol=0.08)
    np.testing.assert_allclose(transform.source(transform.points(points)), points, atol=1e-3)
    assert transform.source(np.empty((0, 3))).shape == (0, 3)


def test_an_affine_map_goes_on_beyond_the_grid() -> None:
    transform = made(lambda x: x @ TURN[:3, :3].T + TURN[:3, 3])
    far = np.array([[200.0, -100, 50], [0, 0, 0]])
    assert transform.covers(far).tolist() == [False, True]
    np.testing.assert_allclose(transform.points(far), far @ TURN[:3, :3].T + TURN[:3, 3], atol=1e-3)
    np.testing.assert_allclose(transform.source(transform.points(far)), far, atol=2e-3)


def test_the_inverse_undoes_it() -> None:
    transform = made(bent)
    back, points = transform.inverted(), some_points()
    inner = points[transform.covers(back.points(points))]
    assert len(inner) > 20
    np.testing.assert_allclose(transform.points(back.points(inner)), inner, atol=0.1)


def test_a_steep_field_is_inverted_too() -> None:
    """The undamped iteration diverges where the slope of the displacement exceeds one."""
    steep = made(
        lambda p: p + np.stack([0 * p[:, 0], 0 * p[:, 1], 3.2 * np.sin(p[:, 0] / 2.2)], 1),
        (30, 8, 8),
        np.eye(4),
    )
    points = np.random.default_rng(1).uniform(1.5, 6, (40, 3)) * [3, 1, 1]
    np.testing.assert_allclose(steep.source(steep.points(points)), points, atol=1e-3)
    squeezed = made(
        lambda p: p + np.stack([2.0 * np.tanh((p[:, 0] - 15) / 1.5), 0 * p[:, 0], 0 * p[:, 0]], 1),
        (30, 8, 8),
        np.eye(4),
    )
    np.testing.assert_allclose(squeezed.source(squeezed.points(points)), points, atol=1e-3)


def test_flat_space_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        made(lambda p: p * [1, 1, 0]).source(some_points())


def test_images_are_pulled_back_from_any_grid() -> None:
    """A linear function of space is sampled exactly by linear interpolation."""
    other = np.array([[0, 0, 1.2, -20], [1.1, 0, 0, -18], [0, 1.6, 0, -24], [0, 0, 0, 1.0]])
    shape = (34, 32, 36)
    x = points_of(other, shape)
    slope = np.array([1.0, -2.0, 0.5])
    volume = Volume(np.einsum("i,idhw->dhw", slope, x).astype(np.float32), other)
    transform = made(bent)
    found = transform.image(volume)
    np.testing.assert_array_equal(found.affine, AFFINE)
    partners = points_of(AFFINE, SHAPE) + transform.displacement
    at = np.einsum("ij,jdhw->idhw", np.linalg.inv(other)[:3, :3], partners - other[:3, 3].reshape(3, 1, 1, 1))
    inside = np.all([(a > 0) & (a < n - 1) for a, n in zip(at, shape, strict=True)], axis=0)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(
        found.data[inside], np.einsum("i,in->n", slope, partners[:, inside]), atol=1e-3
    )
    nearest = transform.image(volume, "nearest").data
    assert np.abs(nearest - found.data)[inside].max() > 0.01
    whole = volume.like((volume.data > 3).astype(np.uint16) * 65_000)
    labels = transform.image(whole, "labels")
    assert labels.data.dtype == np.uint16
    assert set(np.unique(labels.data)) == {0, 65_000}


def test_single_slices(tmp_path: Path) -> None:
    step = np.array([1.0, 2, 0])
    transform = made(lambda p: p + step, (12, 10, 1))
    points = np.array([[3.0, 2, -16], [1, 1, -16]])
    np.testing.assert_allclose(transform.points(points), points + step, atol=1e-4)
    np.testing.assert_allclose(transform.source(points), points - step, atol=1e-3)


def test_folders_and_files(tmp_path: Path) -> None:
    forward, back = made(bent), made(lambda p: p + 1.0)
    for name, one in (("forward_field.nii.gz", forward), ("inverse_field.nii.gz", back)):
        write_field(tmp_path / name, one.displacement, one.affine)
    np.testing.assert_allclose(Transform.read(tmp_path).displacement, forward.displacement, atol=1e-5)
    np.testing.assert_allclose(Transform.read(tmp_path, inverse=True).displacement, 1, atol=1e-5)
    one = Transform.read(tmp_path / "inverse_field.nii.gz", inverse=True)
    np.testing.assert_allclose(one.displacement, -1, atol=1e-3)
    (tmp_path / "inverse_field.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no inverse_field.nii.gz"):
        Transform.read(tmp_path, inverse=True)


def test_labels_and_grids() -> None:
    volume = Volume(np.array([0, 1, 2.0]).reshape(1, 1, 3), np.eye(4))
    assert as_labels(volume, "x").data.dtype == np.int32
    assert as_labels(volume.like(volume.data > 0), "x").data.dtype == np.uint8
    same = volume.like(volume.data.astype(np.uint16))
    assert as_labels(same, "x") is same
    for data, words in (
        (volume.data / 2, "no whole numbers"),
        (volume.data * 1e10, "32 bits"),
        (volume.data[0], "2 dim"),
    ):
        with pytest.raises(ValueError, match=words):
            as_labels(volume.like(data), "x")
    same_grid(volume, volume, "they")
    moved = Volume(volume.data, np.diag([1, 1, 1, 1.0]) + np.eye(4, k=3))
    with pytest.raises(ValueError, match="at different places"):
        same_grid(volume, moved, "they")
