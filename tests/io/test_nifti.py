"""NIfTI volumes: nibabel and SimpleITK see what was written, and what is wrong is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from invlearn.io import Volume, read_volume, write_volume

RNG = np.random.default_rng(0)
AFFINE = np.array([[-1.5, 0, 0, 90], [0, 2, 0, -126], [0, 0, 0.75, -72], [0, 0, 0, 1.0]])


def oblique() -> np.ndarray:
    """Unequal spacings, turned about two axes, one of them mirrored."""
    a, b = 0.3, -0.4
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = x @ z @ np.diag([-1.2, 0.9, 2.5])
    affine[:3, 3] = 10, -20, 5
    return affine


@given(
    dtype=st.sampled_from(["u1", "i2", "i4", "f4", "f8", "u2"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_what_is_written_comes_back(tmp_path_factory, dtype: str, suffix: str, shape: tuple) -> None:
    path = tmp_path_factory.mktemp("v") / f"v{suffix}"
    data = RNG.integers(0, 200, shape).astype(dtype)
    write_volume(path, Volume(data, oblique()))
    back = read_volume(path)
    np.testing.assert_array_equal(back.data, data)
    assert back.data.dtype == data.dtype
    np.testing.assert_allclose(back.affine, oblique(), atol=1e-5)
    np.testing.assert_allclose(back.spacing, (1.2, 0.9, 2.5), rtol=1e-6)
    assert back.note == ""


def test_simpleitk_places_voxels_where_we_do(tmp_path: Path) -> None:
    data = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    write_volume(tmp_path / "v.nii.gz", Volume(data, oblique()))
    image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    lps = np.array(image.TransformIndexToPhysicalPoint((3, 1, 4)))
    np.testing.assert_allclose(lps * (-1, -1, 1), (oblique() @ (3, 1, 4, 1))[:3], atol=1e-4)
    assert image[3, 1, 4] == pytest.approx(float(data[3, 1, 4]))


def test_the_header_of_the_source_is_kept(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), AFFINE)
    image.header["descrip"] = b"a study"
    image.header["cal_max"] = 7
    image.set_sform(AFFINE, "mni")
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    write_volume(tmp_path / "b.nii", volume.like(np.ones((3, 4, 5), np.float32)))
    back = nibabel.load(tmp_path / "b.nii")
    assert bytes(back.header["descrip"]).startswith(b"a study")
    assert int(back.header["sform_code"]) == int(back.header["qform_code"]) == 4
    assert back.header["cal_max"] == 0
    assert back.get_data_dtype() == np.float32
    np.testing.assert_allclose(back.affine, AFFINE)


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = Volume(RNG.normal(size=(5, 5, 5)), AFFINE)
    for name in "ab":
        (tmp_path / name).mkdir()
        write_volume(tmp_path / name / "v.nii.gz", volume)
    assert gzip.decompress((tmp_path / "a" / "v.nii.gz").read_bytes()) == gzip.decompress(
        (tmp_path / "b" / "v.nii.gz").read_bytes()
    )


def test_scaled_integers_are_scaled(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, tmp_path / "s.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "s.nii").data.ravel(), 0.5 * np.arange(8) + 1)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1e3), ("micron", 1e-3), ("unknown", 1)])
def test_declared_units_become_millimetres(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "u.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "u.nii").affine[:3], AFFINE[:3] * factor)


def test_the_sform_wins_and_a_note_says_so(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), AFFINE)
    image.set_sform(AFFINE, 1)
    moved = AFFINE.copy()
    moved[0, 3] += 12
    image.set_qform(moved, 1)
    nibabel.save(image, tmp_path / "v.nii")
    volume = read_volume(tmp_path / "v.nii")
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert "disagree by up to 12" in volume.note
    assert "sform was used" in volume.note


def test_without_forms_a_note_says_what_is_assumed(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    image.header.set_zooms((2, 2, 3))
    nibabel.save(image, tmp_path / "v.nii")
    volume = read_volume(tmp_path / "v.nii")
    assert "neither sform nor qform" in volume.note
    np.testing.assert_allclose(volume.spacing, (2, 2, 3))


def test_bool_half_and_wide_integers_are_stored_in_shared_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    for given_dtype, stored in [(bool, np.uint8), (np.float16, np.float32), (np.int64, np.int32)]:
        write_volume(path, Volume(np.ones((2, 2, 2), given_dtype), np.eye(4)))
        assert read_volume(path).data.dtype == stored
    write_volume(path, Volume(np.full((2, 2, 2), 2**32 - 1, np.int64), np.eye(4)))
    assert read_volume(path).data.max() == 2**32 - 1
    with pytest.raises(ValueError, match="32 bits"):
        write_volume(path, Volume(np.full((2, 2, 2), 2**40), np.eye(4)))
    with pytest.raises(TypeError, match="numbers"):
        write_volume(path, Volume(np.full((2, 2, 2), "a"), np.eye(4)))


def test_a_sheared_affine_survives(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.8
    write_volume(tmp_path / "v.nii", Volume(np.zeros((2, 2, 2), np.uint8), sheared))
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii").affine, sheared)


def test_trailing_axes_of_size_one_are_dropped(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 1), np.uint8), AFFINE), tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii").shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2)])
def test_other_dimensions_are_refused(tmp_path: Path, shape: tuple) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), AFFINE), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=f"has {len(shape)} dimensions"):
        read_volume(tmp_path / "v.nii")


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_volume(tmp_path / "nothing.nii")
    (tmp_path / "text.nii").write_text("no volume")
    with pytest.raises(ValueError, match="no NIfTI file"):
        read_volume(tmp_path / "text.nii")
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"v{suffix}"
        write_volume(path, Volume(RNG.normal(size=(9, 9, 9)), AFFINE))
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match="truncated or damaged"):
            read_volume(path)
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(ValueError, match="colours"):
        read_volume(tmp_path / "rgb.nii")
    nibabel.save(nibabel.MGHImage(np.zeros((2, 2, 2), np.float32), np.eye(4)), tmp_path / "v.mgz")
    with pytest.raises(ValueError, match="not NIfTI"):
        read_volume(tmp_path / "v.mgz")


def test_affines_that_place_nothing_are_refused(tmp_path: Path) -> None:
    data = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="singular"):
        Volume(data, np.diag([1.0, 0, 1, 1]))
    with pytest.raises(ValueError, match="NaN"):
        Volume(data, np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        Volume(data, np.eye(3))
    with pytest.raises(ValueError, match="ends with the row"):
        Volume(data, np.ones((4, 4)))
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header["srow_y"] = 0
    image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "v.nii")
    raw = bytearray((tmp_path / "v.nii").read_bytes())
    raw[296:312] = bytes(16)  # srow_y
    (tmp_path / "v.nii").write_bytes(raw)
    with pytest.raises(ValueError, match="singular"):
        read_volume(tmp_path / "v.nii")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends with neither"):
        write_volume(tmp_path / "v.img", Volume(np.zeros((2, 2, 2)), np.eye(4)))
