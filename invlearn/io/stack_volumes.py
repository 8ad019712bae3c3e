"""Stacks in NIfTI, v3draw and NumPy files."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from invlearn.io.arrays import inspect
from invlearn.io.damage import damage_named
from invlearn.io.nifti import open_nifti, read_samples, require_whole
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
    require_whole(image, path)
    name = image.header.get_xyzt_units()[0]
    unit = micrometres(name)
    zooms = image.header.get_zooms()[:3][::-1]
    if len(zooms) < 3:
        return Source(samples, axes, None, "NIfTI header: no size of slices")
    source = "NIfTI header" if unit else "NIfTI header, taken as µm as it names no unit"
    return Source(samples, axes, *plausible([float(z) * (unit or 1.0) for z in zooms], source))


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
    inspect(path)
    with damage_named(path, "is no NumPy array, or a damaged one"):
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
    return from_array(samples, str(path))


def vaa3d_header(path: Path, key: bytes, name: str) -> tuple[str, int, list[int], int]:
    """Byte order (`<` or `>`), bytes a sample, sizes (x, y, z, channel), and where the samples begin.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Another key, or sizes that are none.
    """
    length = len(key) + 19
    with file_of(path).open("rb") as stream:
        head = stream.read(length)
    order = {b"L": "<", b"B": ">"}.get(head[len(key) : len(key) + 1])
    if not head.startswith(key) or order is None or len(head) < length:
        raise ValueError(f"{path} is no {name} stack: its header is another; save it again")
    width, *shape = struct.unpack(f"{order}h4i", head[len(key) + 1 :])
    if min(shape) < 1:
        raise ValueError(f"{path} is no {name} stack: {width} bytes a sample, sizes {shape}; save it again")
    return order, width, shape, length


def read_v3draw(path: Path) -> Source:
    """`.v3draw`, Vaa3D's raw stacks, mapped into memory; x varies fastest, the channel slowest.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No such stack, or a truncated one.
    """
    order, width, shape, start = vaa3d_header(path, _VAA3D, "v3draw")
    if width not in _VAA3D_TYPES:
        raise ValueError(f"{path} is no v3draw stack: {width} bytes a sample, sizes {shape}; save it again")
    if path.stat().st_size < start + width * math.prod(shape):
        raise ValueError(f"{path} is truncated: it ends before its samples do; copy or save it again")
    dtype = np.dtype(f"{order}{_VAA3D_TYPES[width]}")
    samples = np.memmap(path, dtype, "r", start, tuple(shape[::-1]))
    return Source(samples, "CZYX", None, "v3draw has no voxel size")
