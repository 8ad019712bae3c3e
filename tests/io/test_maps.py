"""Maps in files: `.npz` and NIfTI, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from invlearn.io.maps import TissueMaps, read_estimate, read_map, read_maps, write_map

SHAPE = (3, 5)


def tissue(shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "t1": 0.5 + rng.random(shape),
        "t2": 0.05 + 0.1 * rng.random(shape),
        "pd": 0.5 + rng.random(shape),
    }


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 5)])
def test_npz_keeps_every_number(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = tissue(shape)
    b1, b0 = np.full(shape, 0.9), np.full(shape, -3.0)
    maps = read_maps(save(tmp_path / "m.npz", **arrays, b1=b1, b0=b0))
    for name, value in arrays.items():
        np.testing.assert_array_equal(getattr(maps, name), value)
    np.testing.assert_array_equal(maps.b1, b1)
    np.testing.assert_array_equal(maps.b0, b0)
    assert maps.inside.all()
    assert maps.voxel_size == (1.0,) * len(shape)


def test_nifti_has_the_columns_first_and_no_flips(tmp_path: Path) -> None:
    array = np.arange(15.0).reshape(SHAPE)
    write_map(tmp_path / "T1map.nii.gz", array, (2.0, 0.5), "s")
    image = nibabel.load(tmp_path / "T1map.nii.gz")
    assert image.shape == (5, 3, 1)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata()[4, 1, 0], array[1, 4])
    np.testing.assert_allclose(image.header.get_zooms(), (0.5, 2.0, 1.0))
    assert json.loads((tmp_path / "T1map.json").read_text()) == {"Units": "s"}
    back, size = read_map(tmp_path / "T1map.nii.gz")
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(size, (2.0, 0.5))


def test_a_volume_becomes_w_h_d(tmp_path: Path) -> None:
    array = np.arange(30.0).reshape(2, 3, 5)
    write_map(tmp_path / "T2map.nii.gz", array, (3.0, 2.0, 1.0), "s")
    image = nibabel.load(tmp_path / "T2map.nii.gz")
    assert image.shape == (5, 3, 2)
    np.testing.assert_array_equal(read_map(tmp_path / "T2map.nii.gz")[0], array)
    with pytest.raises(ValueError, match="a map is"):
        write_map(tmp_path / "x.nii.gz", array[None], (1.0,) * 4, "s")


@pytest.mark.parametrize("prefix", ["", "sub-01_"])
def test_a_folder_of_nifti_files(tmp_path: Path, prefix: str) -> None:
    arrays = tissue()
    for name, bids in (("t1", "T1map"), ("t2", "T2map"), ("pd", "PDmap")):
        write_map(tmp_path / f"{prefix}{bids}.nii.gz", arrays[name], (2.0, 1.5), "s")
    write_map(tmp_path / f"{prefix}TB1map.nii.gz", np.full(SHAPE, 1.1), (2.0, 1.5), "1")
    maps = read_maps(tmp_path)
    for name, value in arrays.items():
        np.testing.assert_allclose(getattr(maps, name), value, rtol=1e-6)
    np.testing.assert_allclose(maps.b1, 1.1, rtol=1e-6)
    assert maps.voxel_size == (2.0, 1.5)
    np.testing.assert_allclose(read_estimate(tmp_path)[1], arrays["t2"], rtol=1e-6)


def test_a_folder_without_a_map_says_which(tmp_path: Path) -> None:
    write_map(tmp_path / "T1map.nii.gz", tissue()["t1"], (1.0, 1.0), "s")
    with pytest.raises(FileNotFoundError, match=r"T2map.nii.gz and PDmap.nii.gz missing"):
        read_maps(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_estimate(tmp_path / "nothing")
    for subject in ("a", "b"):
        write_map(tmp_path / f"{subject}_T2map.nii.gz", tissue()["t2"], (1.0, 1.0), "s")
    with pytest.raises(ValueError, match="which one is meant"):
        read_maps(tmp_path)


def test_values_outside_the_mask_are_ignored(tmp_path: Path) -> None:
    arrays = tissue()
    mask = np.ones(SHAPE, bool)
    mask[0, 0] = False
    arrays["t1"][0, 0], arrays["t2"][0, 0], arrays["pd"][0, 0] = -1, np.nan, np.inf
    maps = read_maps(save(tmp_path / "m.npz", **arrays, mask=mask))
    np.testing.assert_array_equal(maps.inside, mask)
    assert maps.t1[0, 0] == maps.t2[0, 0] == maps.pd[0, 0] == 0


def test_voxels_without_density_are_outside() -> None:
    arrays = tissue()
    arrays["pd"][1, 2], arrays["t1"][1, 2] = 0, 0
    maps = TissueMaps(**arrays)
    assert not maps.inside[1, 2]
    assert maps.inside.sum() == 14


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("t1", -1.0, r"t1 must be positive .* it is -1 s at \(1, 2\)"),
        ("t2", 0.0, r"t2 must be positive"),
        ("pd", -0.5, r"pd must be positive"),
        ("b1", 0.0, r"b1 must be positive"),
        ("t1", np.nan, r"t1 is NaN or infinite in 1 voxels"),
        ("pd", np.inf, r"pd is NaN or infinite"),
        ("b0", np.inf, r"b0 is NaN or infinite"),
        ("t2", 5.0, r"T2 is above T1 in 1 voxels, the first at \(1, 2\)"),
    ],
)
def test_impossible_tissue(tmp_path: Path, name: str, value: float, message: str) -> None:
    arrays = tissue() | {"b1": np.ones(SHAPE), "b0": np.zeros(SHAPE)}
    arrays[name][1, 2] = value
    with pytest.raises(ValueError, match=message) as error:
        read_maps(save(tmp_path / "m.npz", **arrays))
    assert str(error.value).startswith(str(tmp_path / "m.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t2": np.ones((2, 2))}, "one shape"),
        ({"t1": np.ones(4)}, r"\(H, W\)"),
        ({"pd": np.zeros(SHAPE)}, "no voxel with signal"),
        ({"t1": np.full(SHAPE, 900.0), "t2": np.full(SHAPE, 80.0)}, "seem to be in ms"),
        ({"voxel_size": (1.0, 0.0)}, "voxel_size"),
        ({"voxel_size": (1.0,)}, "voxel_size"),
    ],
)
def test_maps_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TissueMaps(**(tissue() | change))  # type: ignore[arg-type]


def test_files_that_are_no_maps(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_maps(tmp_path / "no.npz")
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"maps are an \.npz"):
        read_maps(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"t2 and pd missing; found the keys t1, x"):
        read_maps(save(tmp_path / "few.npz", t1=np.ones(SHAPE), x=np.ones(2)))
    with pytest.raises(ValueError, match="maps are real numbers"):
        read_maps(save(tmp_path / "c.npz", **(tissue() | {"t1": np.ones(SHAPE, complex)})))
    whole = save(tmp_path / "whole.npz", **tissue()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="truncated"):
        read_maps(tmp_path / "cut.npz")
    spoilt = bytearray(whole)
    spoilt[200] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(spoilt)
    with pytest.raises(ValueError, match="damaged"):
        read_maps(tmp_path / "bad.npz")


def test_maps_larger_than_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m.npz", **tissue())
    monkeypatch.setattr("invlearn.io.arrays.memory_limit", lambda: 1000)
    with pytest.raises(ValueError, match="would need 360 bytes of memory"):
        read_maps(path)
