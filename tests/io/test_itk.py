"""ITK fields and affines: SimpleITK, applying what is written, gives the image that we give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from invlearn.io import Volume, write_volume
from invlearn.io.itk import (
    millimetres_to_voxels,
    points_of,
    read_affine,
    read_field,
    voxels_to_millimetres,
    write_affine,
    write_field,
)

RNG = np.random.default_rng(0)


def placed(
    angle: float, spacing: tuple[float, float, float], origin: tuple[float, float, float]
) -> np.ndarray:
    """Oblique, with unequal spacings, the first axis mirrored."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing) @ np.diag([-1, 1, 1])
    affine[:3, 3] = origin
    return affine


FIXED = placed(0.3, (1.0, 1.5, 2.0), (10, -5, 3))
MOVING = placed(-0.2, (1.2, 0.8, 1.7), (14, -9, -2))
SHAPES = (14, 12, 10), (16, 18, 13)


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5).astype(np.float32)


def resampled_here(moving: np.ndarray, field: np.ndarray) -> np.ndarray:
    at = np.indices(field.shape[1:]) + field
    return ndimage.map_coordinates(moving, at, order=1, mode="constant")


def inside(field: np.ndarray) -> np.ndarray:
    at = np.indices(field.shape[1:]) + field
    return np.all([(a > 0) & (a < n - 1) for a, n in zip(at, SHAPES[1], strict=True)], axis=0)


def voxel_field() -> np.ndarray:
    """From the fixed to the moving grid: the world map between them and a smooth deformation."""
    zero = millimetres_to_voxels(np.zeros((3, *SHAPES[0])), FIXED, MOVING)
    return zero + np.stack([8 * smooth(SHAPES[0], s) for s in (1, 2, 3)])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_simpleitk_warps_with_our_field_as_we_do(tmp_path: Path, suffix: str) -> None:
    moving, field = smooth(SHAPES[1]), voxel_field()
    write_volume(tmp_path / "moving.nii", Volume(moving, MOVING))
    write_volume(tmp_path / "fixed.nii", Volume(np.zeros(SHAPES[0], np.float32), FIXED))
    write_field(tmp_path / f"field{suffix}", voxels_to_millimetres(field, FIXED, MOVING), FIXED)

    displacement = sitk.ReadImage(str(tmp_path / f"field{suffix}"), sitk.sitkVectorFloat64)
    assert displacement.GetDimension() == 3
    transform = sitk.DisplacementFieldTransform(displacement)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.ReadImage(str(tmp_path / "moving.nii")),
            sitk.ReadImage(str(tmp_path / "fixed.nii")),
            transform,
        )
    ).T
    ours, where = resampled_here(moving, field), inside(field)
    assert where.mean() > 0.3
    assert np.abs(theirs - ours)[where].max() < 1e-3 * np.ptp(moving)


def test_simpleitk_applies_our_affine_to_points(tmp_path: Path) -> None:
    matrix = placed(0.4, (1.1, 0.9, 1.0), (3, -4, 5))
    write_affine(tmp_path / "affine.txt", matrix)
    transform = sitk.ReadTransform(str(tmp_path / "affine.txt"))
    point = np.array([12.0, -7, 31])
    theirs = np.array(transform.TransformPoint(tuple(point * (-1, -1, 1)))) * (-1, -1, 1)
    np.testing.assert_allclose(theirs, (matrix @ [*point, 1])[:3], atol=1e-9)
    np.testing.assert_allclose(read_affine(tmp_path / "affine.txt"), matrix, atol=1e-12)


def test_affines_of_simpleitk_with_a_centre_are_read(tmp_path: Path) -> None:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(tuple(placed(0.2, (1, 1, 1.1), (0, 0, 0))[:3, :3].ravel()))
    transform.SetCenter((5, 6, 7))
    transform.SetTranslation((1, 2, 3))
    sitk.WriteTransform(transform, str(tmp_path / "t.txt"))
    matrix = read_affine(tmp_path / "t.txt")
    theirs = np.array(transform.TransformPoint((1.0, 2.0, 4.0))) * (-1, -1, 1)
    np.testing.assert_allclose((matrix @ [-1, -2, 4, 1])[:3], theirs, atol=1e-9)


def test_fields_come_back(tmp_path: Path) -> None:
    displacement = RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)
    write_field(tmp_path / "f.nii.gz", displacement, FIXED)
    back, affine = read_field(tmp_path / "f.nii.gz")
    np.testing.assert_allclose(back, displacement, rtol=1e-6)
    np.testing.assert_allclose(affine, FIXED, atol=1e-5)
    import nibabel

    header = nibabel.load(tmp_path / "f.nii.gz").header
    assert int(header["intent_code"]) == 1007
    assert header.get_data_shape() == (4, 5, 6, 1, 3)


def test_voxels_and_millimetres_undo_one_another() -> None:
    field = voxel_field()
    np.testing.assert_allclose(
        millimetres_to_voxels(voxels_to_millimetres(field, FIXED, MOVING), FIXED, MOVING), field, atol=1e-9
    )
    np.testing.assert_allclose(
        millimetres_to_voxels(voxels_to_millimetres(field, FIXED), FIXED), field, atol=1e-9
    )
    np.testing.assert_allclose(
        voxels_to_millimetres(field, FIXED), voxels_to_millimetres(field, FIXED, FIXED), atol=1e-9
    )
    np.testing.assert_allclose(points_of(FIXED, SHAPES[0])[:, 2, 3, 4], (FIXED @ [2, 3, 4, 1])[:3])


def test_bad_files_are_named(tmp_path: Path) -> None:
    import nibabel

    with pytest.raises(FileNotFoundError):
        read_field(tmp_path / "none.nii.gz")
    write_volume(tmp_path / "v.nii", Volume(np.zeros((3, 4, 5), np.float32), np.eye(4)))
    with pytest.raises(ValueError, match="no transform"):
        read_field(tmp_path / "v.nii")
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5, 1, 3), np.float32), np.eye(4))
    image.header.set_intent(1006)
    nibabel.save(image, tmp_path / "fsl.nii")
    with pytest.raises(ValueError, match="1006"):
        read_field(tmp_path / "fsl.nii")
    write_field(tmp_path / "nan.nii", np.full((3, 2, 2, 2), np.nan), np.eye(4))
    with pytest.raises(ValueError, match="NaN"):
        read_field(tmp_path / "nan.nii")
    with pytest.raises(ValueError, match=r"\(3, D, H, W\)"):
        write_field(tmp_path / "f.nii", np.zeros((4, 5, 6)), np.eye(4))
    with pytest.raises(ValueError, match="ends with neither"):
        write_field(tmp_path / "f.mha", np.zeros((3, 4, 5, 6)), np.eye(4))
    with pytest.raises(FileNotFoundError):
        read_affine(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_text("1 0 0 0")
    with pytest.raises(ValueError, match="no ITK transform"):
        read_affine(tmp_path / "a.txt")
    sitk.WriteTransform(sitk.Euler3DTransform(), str(tmp_path / "e.txt"))
    with pytest.raises(ValueError, match="Euler"):
        read_affine(tmp_path / "e.txt")
    with pytest.raises(ValueError, match="singular"):
        write_affine(tmp_path / "s.txt", np.diag([1.0, 1, 0, 1]))
