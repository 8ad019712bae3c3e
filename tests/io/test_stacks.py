"""Stacks of every format, read back by us and by others, and what is refused of them."""

from __future__ import annotations

import errno
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
import zarr

from invlearn.io import stack_tiff, stacks
from invlearn.io.stack_source import Picked
from invlearn.io.stacks import Stack, create_stack, open_stack, write_stack

SHAPE = (7, 20, 30)
SIZE = (1.5, 0.4, 0.5)


def samples(dtype: Any = np.uint8, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 200, shape).astype(dtype)


def imagej(path: Path, data: np.ndarray, axes: str = "ZYX", unit: str = "um", **options: Any) -> Path:
    metadata = {"axes": axes, "spacing": 1.5, "unit": unit}
    tifffile.imwrite(path, data, imagej=True, resolution=(2.0, 2.5), metadata=metadata, **options)
    return path


def ome(path: Path, data: np.ndarray, axes: str = "ZYX", **options: Any) -> Path:
    physical = {
        "PhysicalSizeX": 500,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.4,
        "PhysicalSizeZ": 0.0015,
        "PhysicalSizeZUnit": "mm",
    }
    tifffile.imwrite(path, data, ome=True, metadata={"axes": axes, **physical}, **options)
    return path


def nifti(path: Path, data: np.ndarray, unit: str = "mm") -> Path:
    factor = {"mm": 1e-3, "micron": 1.0, "meter": 1e-6, "unknown": 1.0}[unit]
    image = nibabel.Nifti1Image(data.T, np.diag([0.5 * factor, 0.4 * factor, 1.5 * factor, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def nrrd_file(path: Path, data: np.ndarray, **header: Any) -> Path:
    given = {"space directions": np.diag([0.5, 0.4, 1.5]), "space": "RAS", "space units": ["microns"] * 3}
    nrrd.write(str(path), data.T, header={**given, **header}, index_order="F")
    return path


def ome_zarr(path: Path, data: np.ndarray, *, old: bool = False, unit: str = "nanometer") -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    level = group.create_array("s0", shape=data.shape, dtype=data.dtype, chunks=data.shape)
    level[...] = data
    names = "tczyx"[-data.ndim :]
    axes = [{"name": a, "type": "space", **({"unit": unit} if a in "zyx" else {})} for a in names]
    scale = [1.0] * (data.ndim - 3) + [3000.0, 800.0, 1000.0]
    level_of = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    whole = [{"type": "scale", "scale": [1.0] * (data.ndim - 3) + [0.5, 0.5, 0.5]}]
    image = {"axes": axes, "datasets": [level_of], "coordinateTransformations": whole, "version": "0.4"}
    group.attrs.update({"multiscales": [image]} if old else {"ome": {"multiscales": [image]}})
    return path


def v3draw(path: Path, data: np.ndarray, order: str = "<") -> Path:
    channels = data if data.ndim == 4 else data[None]
    header = b"raw_image_stack_by_hpeng" + (b"L" if order == "<" else b"B")
    header += struct.pack(f"{order}h4i", data.itemsize, *channels.shape[::-1])
    path.write_bytes(header + channels.astype(channels.dtype.newbyteorder(order)).tobytes())
    return path


FORMATS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "imagej.tif": imagej,
    "compressed.tif": lambda path, data: imagej(path, data, compression="zlib"),
    "big endian.tif": lambda path, data: imagej(path, data, byteorder=">"),
    "micron.tif": lambda path, data: imagej(path, data, "ZYX", "micron"),
    "escaped.tif": lambda path, data: imagej(path, data, "ZYX", "\\u00B5m"),
    "a.ome.tif": ome,
    "b.ome.tiff": lambda path, data: ome(path, data, bigtiff=True, compression="zlib", tile=(16, 16)),
    "mm.nii": nifti,
    "mm.nii.gz": nifti,
    "micron.nii": lambda path, data: nifti(path, data, "micron"),
    "metre.nii": lambda path, data: nifti(path, data, "meter"),
    "unknown.nii": lambda path, data: nifti(path, data, "unknown"),
    "gzip.nrrd": nrrd_file,
    "raw.nrrd": lambda path, data: nrrd_file(path, data, encoding="raw"),
    "detached.nhdr": lambda path, data: nrrd_file(path, data, encoding="raw"),
    "three.zarr": ome_zarr,
    "two.zarr": lambda path, data: ome_zarr(path, data, old=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_samples_and_the_voxel_size(tmp_path: Path, name: str) -> None:
    data = samples()
    stack = open_stack(FORMATS[name](tmp_path / name, data))
    assert stack.shape == SHAPE
    assert stack.dtype == np.uint8
    assert stack.voxel_size == pytest.approx(SIZE, rel=1e-6), stack.voxel_size_source
    np.testing.assert_array_equal(stack[2:5, 3:17, 10:11], data[2:5, 3:17, 10:11])
    np.testing.assert_array_equal(stack.array(), data)
    np.testing.assert_array_equal(np.concatenate(list(stack.slabs(3))), data)
    assert stack[4:4].shape == (0, *SHAPE[1:])


@pytest.mark.parametrize("most", [1, 100, 700, 2000, 1 << 22])
@pytest.mark.parametrize("name", ["ours.tif", "chunks.zarr", "channels.zarr", "dask"])
def test_boxes_and_slabs_cover_a_stack_in_pieces_of_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    data, path = samples(), tmp_path / name
    if name == "ours.tif":
        write_stack(path, data, SIZE)
        stack, block = open_stack(path), (1, 20, 30)
    elif name == "dask":
        dask = pytest.importorskip("dask.array")
        stack, block = open_stack(dask.from_array(data, chunks=(3, 8, 16))), (3, 8, 16)
    else:
        several = np.stack([0 * data, data]) if name == "channels.zarr" else data
        chunks = (1, 2, 8, 8)[4 - several.ndim :]
        array = zarr.create_array(path, shape=several.shape, chunks=chunks, dtype="u1")
        array[...] = several
        block = chunks[-3:]
        stack = Stack(Picked(array, "CZYX"[4 - several.ndim :], {"C": 1} if several.ndim == 4 else {}))
    monkeypatch.setattr(stacks, "_BOX", most)
    seen = np.zeros(SHAPE, int)
    for box in stack.boxes():
        seen[box] += 1
        np.testing.assert_array_equal(stack[box], data[box])
        assert all(part.start % side == 0 for part, side in zip(box, block, strict=True))
        assert seen[box].size <= max(most, np.prod(block))
    assert (seen == 1).all()
    assert seen[next(stack.boxes())].size > min(most, data.size) / 3
    slabs = list(stack.slabs())
    np.testing.assert_array_equal(np.concatenate(slabs), data)
    assert max(len(slab) for slab in slabs) == min(7, max(1, most // 600))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.float32, np.float64, bool])
def test_samples_keep_their_type(tmp_path: Path, dtype: type) -> None:
    data = samples(np.uint8).astype(dtype)
    np.save(tmp_path / "a.npy", data)
    found = open_stack(tmp_path / "a.npy")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.array(), data)
    assert open_stack(data).array().dtype == dtype


def test_samples_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    assert isinstance(open_stack(imagej(tmp_path / "a.tif", samples())).samples.samples, np.memmap)
    raw = nrrd_file(tmp_path / "a.nrrd", samples(), encoding="raw")
    assert isinstance(open_stack(raw).samples.samples, np.memmap)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32, np.float64])
def test_what_was_written_comes_back(tmp_path: Path, suffix: str, dtype: type) -> None:
    data = samples(dtype)
    path = tmp_path / f"out{suffix}"
    write_stack(path, data, SIZE)
    stack = open_stack(path)
    assert stack.dtype == dtype
    assert stack.voxel_size == pytest.approx(SIZE, rel=1e-5)
    np.testing.assert_array_equal(stack.array(), data)
    assert list(tmp_path.iterdir()) == [path]


def test_masks_are_written_as_0_and_255_and_copied_from_one_format_to_another(tmp_path: Path) -> None:
    mask = samples() > 100
    write_stack(tmp_path / "a.tif", mask, SIZE)
    write_stack(tmp_path / "b.zarr", mask, SIZE)
    write_stack(tmp_path / "c.zarr", open_stack(tmp_path / "a.tif"), SIZE)
    for name in ("a.tif", "b.zarr", "c.zarr"):
        np.testing.assert_array_equal(open_stack(tmp_path / name).array(), mask * np.uint8(255))


def test_others_read_our_calibration(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.tif", samples(), SIZE)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["spacing"], file.imagej_metadata["unit"]) == (1.5, "um")
        assert file.series[0].axes == "ZYX"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.tif"))), samples())
    write_stack(tmp_path / "b.tif", samples(np.int32), SIZE)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_ome
        assert 'PhysicalSizeZ="1.5"' in str(file.ome_metadata)


def test_a_large_stack_is_a_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_tiff, "_IMAGEJ_LIMIT", 1000)
    write_stack(tmp_path / "a.tif", samples(), SIZE)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
    assert open_stack(tmp_path / "a.tif").voxel_size == pytest.approx(SIZE)


def test_a_zarr_stack_is_written_box_by_box(tmp_path: Path) -> None:
    target = create_stack(tmp_path / "a.zarr", SHAPE, "float32", voxel_size=SIZE, chunks=(4, 8, 16))
    assert target.chunks == (4, 8, 16)
    target[2:4, :5, 7:9] = 2.5
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.voxel_size == SIZE
    assert stack.array().sum() == 2.5 * 2 * 5 * 2
    np.testing.assert_array_equal(open_stack(tmp_path / "a.zarr" / "0").array(), stack.array())
    with pytest.raises(FileExistsError, match="exists already"):
        create_stack(tmp_path / "a.zarr", SHAPE, "float32", voxel_size=SIZE)
    with pytest.raises(ValueError, match=r"ends with \.zarr"):
        create_stack(tmp_path / "a.tif", SHAPE, "float32", voxel_size=SIZE)


def test_what_is_given_wins_over_the_file(tmp_path: Path) -> None:
    stack = open_stack(imagej(tmp_path / "a.tif", samples()), voxel_size=(3, 2, 1))
    assert stack.voxel_size == (3, 2, 1)
    assert stack.voxel_size_source == "given"
    again = open_stack(stack, voxel_size=(1, 1, 1))
    assert again.voxel_size == (1, 1, 1)
    assert open_stack(stack) is stack


CHANNELS = samples(np.uint8, (4, 7, 3, 20, 30))  # TZCYX


def test_channel_and_time_are_picked(tmp_path: Path) -> None:
    path = imagej(tmp_path / "a.tif", CHANNELS, "TZCYX")
    with pytest.raises(ValueError, match=r"holds 3 channels; pick one of 0 … 2 with channel= \(--channel\)"):
        open_stack(path)
    with pytest.raises(ValueError, match=r"holds 4 time points; pick one of 0 … 3 with time= \(--time\)"):
        open_stack(path, channel=1)
    with pytest.raises(ValueError, match="channels 0 … 2, and no 3"):
        open_stack(path, channel=3, time=0)
    stack = open_stack(path, channel=1, time=2)
    np.testing.assert_array_equal(stack[1:6, 2:9], CHANNELS[2, 1:6, 1, 2:9])
    compressed = ome(tmp_path / "b.ome.tif", CHANNELS, "TZCYX", compression="zlib")
    np.testing.assert_array_equal(open_stack(compressed, channel=2, time=3).array(), CHANNELS[3, :, 2])
    in_zarr = ome_zarr(tmp_path / "c.zarr", CHANNELS.swapaxes(1, 2))
    np.testing.assert_array_equal(open_stack(in_zarr, channel=0, time=1).array(), CHANNELS[1, :, 0])
    assert open_stack(in_zarr, channel=0, time=1).voxel_size == SIZE
    series = nibabel.Nifti1Image(CHANNELS[:, :, 0].T, np.eye(4))
    nibabel.save(series, tmp_path / "d.nii")
    with pytest.raises(ValueError, match="4 time points"):
        open_stack(tmp_path / "d.nii")
    np.testing.assert_array_equal(open_stack(tmp_path / "d.nii", time=3).array(), CHANNELS[3, :, 0])
    kinds = ["vector", "domain", "domain", "domain"]
    colours = np.moveaxis(CHANNELS[0], 1, -1)  # ZYXC
    nrrd.write(str(tmp_path / "e.nrrd"), colours.T, header={"kinds": kinds}, index_order="F")
    np.testing.assert_array_equal(open_stack(tmp_path / "e.nrrd", channel=2).array(), colours[..., 2])


@pytest.mark.parametrize(("dtype", "order"), [(np.uint8, "<"), (np.uint16, ">"), (np.float32, "<")])
def test_stacks_of_vaa3d(tmp_path: Path, dtype: type, order: str) -> None:
    data = samples(dtype)
    stack = open_stack(v3draw(tmp_path / "a.v3draw", data, order))
    assert (stack.shape, stack.dtype, stack.voxel_size) == (SHAPE, dtype, None)
    np.testing.assert_array_equal(stack.array(), data)
    both = open_stack(v3draw(tmp_path / "b.v3draw", np.stack([data, data + 1]), order), channel=1)
    np.testing.assert_array_equal(both.array(), data + 1)
    whole = (tmp_path / "a.v3draw").read_bytes()
    for keep, message in ((0.9, "truncated"), (0.001, "no v3draw stack")):
        (tmp_path / "a.v3draw").write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(ValueError, match=message):
            open_stack(tmp_path / "a.v3draw")
    (tmp_path / "c.v3draw").write_bytes(whole[:25] + b"\x09\x09" + whole[27:])
    with pytest.raises(ValueError, match="bytes a sample"):
        open_stack(tmp_path / "c.v3draw")


def test_tensors_are_stacks() -> None:
    np.testing.assert_array_equal(open_stack(torch.from_numpy(samples())).array(), samples())


def test_a_colour_stack_says_how_to_pick(tmp_path: Path) -> None:
    colours = samples(np.uint8, (*SHAPE, 3))
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    with pytest.raises(ValueError, match=r"3 channels.*--channel"):
        open_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif", channel=1).array(), colours[..., 1])
    with pytest.raises(ValueError, match="pick one channel"):
        open_stack(colours)
    with pytest.raises(ValueError, match="a stack is"):
        open_stack(samples(shape=(5, 6)))


@pytest.mark.parametrize("slices", ["one", "time", "colour picture"])
def test_one_slice_is_no_stack(tmp_path: Path, slices: str) -> None:
    path = tmp_path / "a.tif"
    if slices == "one":
        imagej(path, samples(shape=(20, 30)), "YX")
    elif slices == "time":
        imagej(path, samples(), "TYX")
    else:
        tifffile.imwrite(path, samples(shape=(20, 30, 3)), photometric="rgb")
    with pytest.raises(ValueError, match=slices):
        open_stack(path)
    with pytest.raises(ValueError, match="one slice; a stack has at least two"):
        open_stack(samples(shape=(1, 20, 30)))


KINDS: dict[str, dict[str, Any]] = {
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um"}},
    "imagej zlib": {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    "big": {"bigtiff": True, "compression": "zlib", "metadata": None},
    "plain": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.5, 0.8, 0.93])
def test_a_truncated_tiff_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples(shape=(12, 40, 50)), photometric="minisblack", **KINDS[kind])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"a\.tif is (truncated|no TIFF file)") as caught:
        open_stack(path)
    assert "\n" not in str(caught.value)


def test_samples_that_cannot_be_decoded_are_refused(tmp_path: Path) -> None:
    path = imagej(tmp_path / "a.tif", samples(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]  # type: ignore[union-attr]
    broken = bytearray(path.read_bytes())
    broken[offset : offset + count] = bytes(count)
    path.write_bytes(broken)
    stack = open_stack(path)
    stack[:3]
    with pytest.raises(ValueError, match="page 3 cannot be decoded"):
        stack[2:5]


@pytest.mark.parametrize("name", ["mm.nii", "mm.nii.gz", "gzip.nrrd", "raw.nrrd"])
def test_other_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    path = FORMATS[name](tmp_path / name, samples())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.7)])
    with pytest.raises(ValueError, match=r"truncated|damaged"):
        open_stack(path)


def test_what_is_no_stack_is_refused_in_one_line(tmp_path: Path) -> None:
    for suffix in (".tif", ".nii", ".nrrd", ".npy"):
        path = tmp_path / f"no{suffix}"
        path.write_text("not a stack")
        with pytest.raises(ValueError, match=f"no{suffix} is no"):
            open_stack(path)
        with pytest.raises(FileNotFoundError, match="does not exist"):
            open_stack(tmp_path / f"absent{suffix}")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_stack(tmp_path / "absent.zarr")
    (tmp_path / "no.zarr").mkdir()
    with pytest.raises(ValueError, match="no Zarr array or group"):
        open_stack(tmp_path / "no.zarr")
    zarr.open_group(tmp_path / "group.zarr", mode="w").create_array("volume", shape=SHAPE, dtype="u1")
    with pytest.raises(ValueError, match="it holds volume"):
        open_stack(tmp_path / "group.zarr")
    assert open_stack(tmp_path / "group.zarr" / "volume").shape == SHAPE
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"ends with none of \.tif"):
        open_stack(tmp_path / "a.png")
    with pytest.raises(TypeError, match="path or an array, got int"):
        open_stack(5)
    with pytest.raises(ValueError, match="complex64"):
        open_stack(samples(np.complex64))


def test_damaged_ome_metadata_is_refused(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", samples())
    group = zarr.open_group(path, mode="a")
    group.attrs["ome"] = {"multiscales": [{"datasets": []}]}
    with pytest.raises(ValueError, match="multiscales"):
        open_stack(path)


@pytest.mark.parametrize("size", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (1, 1), (1, 1, np.inf)])
def test_a_voxel_size_that_is_none_is_refused(tmp_path: Path, size: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="three positive numbers"):
        open_stack(samples(), voxel_size=size)
    with pytest.raises(ValueError, match="three positive numbers"):
        write_stack(tmp_path / "a.tif", samples(), size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_when_they_are_read(value: float) -> None:
    data = samples(np.float32)
    data[4, 2, 2] = value
    stack = open_stack(data)
    assert np.isfinite(stack[:4]).all()
    with pytest.raises(ValueError, match="NaN or infinite"):
        stack.array()


def test_boxes_are_three_slices() -> None:
    stack = open_stack(samples())
    for key in (3, (slice(None), 2), (slice(None),) * 4, ...):
        with pytest.raises(TypeError, match="up to three slices"):
            stack[key]


ABSURD = {
    "dots an inch": (72.0, 72.0, "inch", 1.0),
    "no unit": (2.0, 2.0, "", 1.0),
    "pixels": (1.0, 1.0, "pixel", 1.0),
    "huge": (1e-9, 1e-9, "um", 1.0),
    "flat": (2.0, 2.0, "um", 900.0),
    "zero": (2.0, 2.0, "um", 0.0),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_calibrations_are_ignored_and_that_is_said(tmp_path: Path, case: str) -> None:
    x, y, unit, spacing = ABSURD[case]
    metadata = {"axes": "ZYX", "spacing": spacing, **({"unit": unit} if unit else {})}
    tifffile.imwrite(tmp_path / "a.tif", samples(), imagej=True, resolution=(x, y), metadata=metadata)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.voxel_size is None
    assert "ImageJ metadata" in stack.voxel_size_source


def test_a_calibration_that_is_missing_is_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples(), photometric="minisblack", resolution=(72, 72))
    assert "no distance of its slices" in open_stack(tmp_path / "a.tif").voxel_size_source
    tifffile.imwrite(tmp_path / "b.ome.tif", samples(), metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})
    assert "no voxel size along z, y" in open_stack(tmp_path / "b.ome.tif").voxel_size_source
    assert open_stack(samples()).voxel_size is None
    nrrd.write(str(tmp_path / "c.nrrd"), samples().T)
    assert "no spacing" in open_stack(tmp_path / "c.nrrd").voxel_size_source
    assert "names no unit" in open_stack(nifti(tmp_path / "d.nii", samples(), "unknown")).voxel_size_source
    assert open_stack(ome_zarr(tmp_path / "e.zarr", samples(), unit="parsec")).voxel_size is None


def test_nothing_is_overwritten_unless_it_may_be(tmp_path: Path) -> None:
    for name in ("a.tif", "a.zarr"):
        write_stack(tmp_path / name, samples(), SIZE)
        with pytest.raises(FileExistsError, match="exists already"):
            write_stack(tmp_path / name, 2 * samples(), SIZE)
        np.testing.assert_array_equal(open_stack(tmp_path / name).array(), samples())
        write_stack(tmp_path / name, samples() + 1, SIZE, overwrite=True)
        np.testing.assert_array_equal(open_stack(tmp_path / name).array(), samples() + 1)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_stack(tmp_path / "absent" / "a.tif", samples(), SIZE)
    with pytest.raises(ValueError, match=r"written as \.tif"):
        write_stack(tmp_path / "a.nrrd", samples(), SIZE)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "a.zarr"}


class FullDisk:
    """A stack whose third slab cannot be written: the disk is full by then."""

    shape, dtype = (200, 20, 30), np.dtype(np.uint8)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        if key[0].start >= 128:
            raise OSError(errno.ENOSPC, "No space left on device")
        return np.ones(self.shape, self.dtype)[key]


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_BOX", 64 * 20 * 30)
    write_stack(tmp_path / name, samples(), SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OSError, match="No space left on device; nothing was written") as caught:
            write_stack(tmp_path / name, Stack(FullDisk()), SIZE, overwrite=True)
    assert caught.value.filename == str(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(open_stack(tmp_path / name).array(), samples())


def test_real_stacks_are_opened(data_folder: Path) -> None:
    stack = open_stack(data_folder / "neurons" / "snake_noise10.tif")
    assert (stack.shape, stack.dtype, stack.voxel_size) == ((129, 129, 129), np.uint8, None)
    assert stack[60:70].max() > 100
