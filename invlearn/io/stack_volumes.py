"""Stacks in NIfTI, NRRD, v3draw and NumPy files."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.nifti import open_nifti, read_samples
from invlearn.io.stack_source import Source, file_of, micrometres, plausible
from invlearn.io.stack_zarr import from_array

_VAA3D = b"raw_image_stack_by_hpeng"
_VAA3D_TYPES = {1: "u1", 2: "u2", 4: "f4"}  # by bytes a sample


def read_nifti(path: Path) -> Source:
    """`.nii` and `.nii.gz`: (i, j, k, time, channel) become x, y, z, T, C.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No NIfTI, damaged, or colours.
    """
    image = open_nifti(path)
    axes = "XYZTC"[: len(image.shape)]
    lazy = path.suffix == ".nii" and not image.get_data_dtype().names
    # a compressed file is unpacked from its beginning for every slice
    samples = image.dataobj if lazy else read_samples(image, path)
    if (
        lazy
        and path.stat().st_size
        < image.dataobj.offset + np.prod(image.shape) * image.get_data_dtype().itemsize
    ):
        raise ValueError(f"{path} is truncated: it ends before its samples do; copy or save it again")
    name = image.header.get_xyzt_units()[0]
    unit = micrometres(name)
    zooms = image.header.get_zooms()[:3][::-1]
    if len(zooms) < 3:
        return Source(samples, axes, None, "NIfTI header: no size of slices")
    source = "NIfTI header" if unit else "NIfTI header, taken as µm as it names no unit"
    return Source(samples, axes, *plausible([float(z) * (unit or 1.0) for z in zooms], source))


def read_nrrd(path: Path) -> Source:
    """`.nrrd` and `.nhdr`; the first axis varies fastest and is x.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No NRRD, or a damaged one, or the package pynrrd is missing.
    """
    file_of(path)
    try:
        import nrrd
    except ImportError as error:
        raise ValueError(f"{path}: NRRD stacks need the package pynrrd (pip install pynrrd)") from error
    try:
        header = nrrd.read_header(str(path))
        samples = _mapped(path, header)
        if samples is None:
            samples, header = nrrd.read(str(path), index_order="F")
    except Exception as error:  # damaged headers and samples come as many kinds
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is no NRRD file, or a damaged one ({reason}); save it again") from error
    axes = _nrrd_axes(header, samples.ndim)
    return Source(samples, axes, *_nrrd_size(header, axes))


def _mapped(path: Path, header: Mapping[str, Any]) -> np.ndarray | None:
    """The samples mapped into memory, if the file holds them as they are."""
    if header["encoding"] != "raw" or {"data file", "datafile", "line skip", "byte skip"} & set(header):
        return None
    import nrrd

    with path.open("rb") as stream:
        nrrd.read_header(stream)
        offset = stream.tell()
    dtype = nrrd.reader._determine_datatype(header)
    return np.memmap(path, dtype, "r", offset, tuple(int(n) for n in header["sizes"]), order="F")


def _nrrd_axes(header: Mapping[str, Any], ndim: int) -> str:
    """Letters of the axes: what is no axis of space is a channel or time."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * ndim)]
    spatial = iter("XYZ")
    letters = []
    for k in range(ndim):
        kind = kinds[k] if k < len(kinds) else "domain"
        apart = kind not in ("domain", "space", "???", "none")
        letters.append(("T" if kind == "time" else "C") if apart else next(spatial, "C"))
    return "".join(letters)


def _nrrd_size(header: Mapping[str, Any], axes: str) -> tuple[tuple[float, float, float] | None, str]:
    """Lengths of the space directions, or the spacings."""
    if "space directions" in header:
        spacing = np.linalg.norm(np.asarray(header["space directions"], dtype=np.float64), axis=1)
        units = header.get("space units", [])
        names = [units[k] if k < len(units) else None for k in range(3)]
    elif "spacings" in header:
        spacing = np.asarray(header["spacings"], dtype=np.float64)
        listed = list(header.get("units", []))
        names = [listed[axes.index(a)] if axes.index(a) < len(listed) else None for a in "XYZ" if a in axes]
    else:
        return None, "NRRD header: no spacing"
    known = [u for name in names if (u := micrometres(name)) is not None]
    source = "NRRD header" if known else "NRRD header, taken as µm as it names no unit"
    sizes = [float(spacing[axes.index(a)]) if a in axes else None for a in "ZYX"]
    unit = known[0] if known else 1.0
    return plausible([None if s is None or not np.isfinite(s) else s * unit for s in sizes], source)


def read_npy(path: Path) -> Source:
    """`.npy`, mapped into memory.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No NumPy file, a damaged one, one of objects, or not three axes.
    """
    file_of(path)
    try:
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no NumPy array, or a damaged one ({error})") from error
    return from_array(samples, str(path))


def read_v3draw(path: Path) -> Source:
    """`.v3draw`, Vaa3D's raw stacks, mapped into memory; x varies fastest, the channel slowest.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No such stack, or a truncated one.
    """
    size = file_of(path).stat().st_size
    with path.open("rb") as stream:
        head = stream.read(len(_VAA3D) + 19)
    order = {b"L": "<", b"B": ">"}.get(head[len(_VAA3D) : len(_VAA3D) + 1])
    if not head.startswith(_VAA3D) or order is None or len(head) < len(_VAA3D) + 19:
        raise ValueError(f"{path} is no v3draw stack: its header is another; save it again")
    width, *shape = struct.unpack(f"{order}h4i", head[len(_VAA3D) + 1 :])
    if width not in _VAA3D_TYPES or min(shape) < 1:
        raise ValueError(f"{path} is no v3draw stack: {width} bytes a sample, sizes {shape}; save it again")
    if size < len(head) + width * math.prod(shape):
        raise ValueError(f"{path} is truncated: it ends before its samples do; copy or save it again")
    dtype = np.dtype(f"{order}{_VAA3D_TYPES[width]}")
    samples = np.memmap(path, dtype, "r", len(head), tuple(shape[::-1]))
    return Source(samples, "CZYX", None, "v3draw has no voxel size")
