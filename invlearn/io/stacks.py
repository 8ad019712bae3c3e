"""Stacks of slices: opened without reading them, written with their voxel size.

Axes are (z, y, x): slices, rows, columns. Voxel sizes are (z, y, x) in µm.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.arrays import memory_limit, require_memory
from invlearn.io.atomic import replacing
from invlearn.io.damage import damage_named
from invlearn.io.stack_nrrd import read_nrrd
from invlearn.io.stack_pbd import read_v3dpbd
from invlearn.io.stack_source import Source, pick
from invlearn.io.stack_tiff import read_tiff, write_tiff
from invlearn.io.stack_volumes import read_nifti, read_npy, read_v3draw
from invlearn.io.stack_zarr import from_array, new_zarr, read_zarr
from invlearn.io.voxels import VoxelSize, checked_voxel_size

READERS: dict[str, Callable[[Path], Source]] = {
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".btf": read_tiff,
    ".lsm": read_tiff,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".v3draw": read_v3draw,
    ".v3dpbd": read_v3dpbd,
    ".zarr": read_zarr,
    ".npy": read_npy,
}
_BOX = 1 << 22  # voxels that are read at a time
_SMALL = 1 << 26  # bytes for which there is always memory


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack whose samples are read when they are asked for: ``stack[z0:z1, y0:y1, x0:x1]``.

    Attributes
    ----------
    samples
        Anything with a shape (D, H, W), a dtype, and slices.
    voxel_size
        (z, y, x), µm; None if nothing is known of it.
    voxel_size_source
        Where it is from, or why there is none.
    name
        For messages.

    Raises
    ------
    ValueError
        No three axes, fewer than two slices, rows or columns, or samples that are no real numbers.
    """

    samples: Any
    voxel_size: tuple[float, float, float] | None = None
    voxel_size_source: str = "unknown"
    name: str = "the stack"
    shape: tuple[int, int, int] = field(init=False)
    dtype: np.dtype = field(init=False)

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.samples.shape)
        dtype = np.dtype(self.samples.dtype)
        if len(shape) != 3:
            raise ValueError(f"{self.name} has the shape {shape}, where a stack is (z, y, x)")
        if min(shape) < 2:
            what = "one slice" if shape[0] == 1 else f"the shape {shape}"
            raise ValueError(
                f"{self.name} has {what}; a stack has at least two slices, rows and columns: save all in one "
                "file"
            )
        if dtype.kind not in "buif":
            raise ValueError(f"{self.name} holds {dtype}, where a stack holds whole or real numbers")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype.newbyteorder("="))

    def __getitem__(self, key: Any) -> np.ndarray:
        """A box: slices along z, y and x; those left out are whole.

        Raises
        ------
        ValueError
            NaN or infinity in it, samples that cannot be decoded, or more of them than memory.
        """
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts or len(parts) > 3 or not all(isinstance(part, slice) for part in parts):
            raise TypeError(f"{self.name} is read by up to three slices, such as stack[0:10], got {key!r}")
        box = (*parts, *[slice(None)] * (3 - len(parts)))
        self._require_room(box)
        with damage_named(self.name, "cannot be read"):
            found = np.ascontiguousarray(self.samples[box], dtype=self.dtype)
        if self.dtype.kind == "f" and not np.isfinite(found).all():
            raise ValueError(f"{self.name} has samples that are NaN or infinite; replace them, such as by 0")
        return found

    def _require_room(self, box: tuple[slice, ...]) -> None:
        ranges = [part.indices(n) for part, n in zip(box, self.shape, strict=True)]
        counts = [max(0, -((first - last) // step)) for first, last, step in ranges]
        needed = math.prod(counts) * self.dtype.itemsize
        if needed > _SMALL:
            hint = "; read a part of it, or convert the stack to Zarr"
            require_memory(needed, f"a box {tuple(counts)} of it", self.name, memory_limit(), hint)

    def array(self) -> np.ndarray:
        """All of it, (D, H, W)."""
        return self[:]

    def slabs(self, count: int | None = None) -> Iterator[np.ndarray]:
        """All of it, `count` slices at a time; None takes as many as hold about four million voxels."""
        step = count or max(1, _BOX // math.prod(self.shape[1:]))
        for z in range(0, self.shape[0], step):
            yield self[z : z + step]

    def boxes(self) -> Iterator[tuple[slice, slice, slice]]:
        """Boxes of about four million voxels that cover it, cut as it is stored: by chunks, or by slices."""
        block = getattr(self.samples, "block", (1, *self.shape[1:]))
        sides = [min(side, n) for side, n in zip(block, self.shape, strict=True)]
        while 2 * math.prod(sides) <= _BOX and sides != list(self.shape):
            k = min((k for k in range(3) if sides[k] < self.shape[k]), key=sides.__getitem__)
            sides[k] = min(2 * sides[k], self.shape[k])
        cuts = [
            [slice(a, min(a + side, n)) for a in range(0, n, side)]
            for n, side in zip(self.shape, sides, strict=True)
        ]
        yield from itertools.product(*cuts)


def _three(voxel_size: VoxelSize) -> tuple[float, float, float]:
    dz, dy, dx = checked_voxel_size(voxel_size).tolist()
    return dz, dy, dx


def suffix_of(path: Path) -> str:
    """The ending that tells the format.

    Raises
    ------
    ValueError
        None that is known.
    """
    name = path.name.lower()
    found = max((s for s in READERS if name.endswith(s)), key=len, default=None)
    if found is None and any(part.lower().endswith(".zarr") for part in path.parts):
        return ".zarr"  # an array inside a store
    if found is None:
        raise ValueError(f"{path} ends with none of {', '.join(READERS)}; save the stack as one of them")
    return found


def open_stack(
    source: str | os.PathLike[str] | Stack | Any,
    *,
    channel: int | None = None,
    time: int | None = None,
    voxel_size: VoxelSize | None = None,
) -> Stack:
    """Open a stack: TIFF (Big, ImageJ, OME, LSM), NIfTI, NRRD, v3draw, v3dpbd, (OME-)Zarr, NumPy, an array.

    Parameters
    ----------
    source
        A path, or an array (D, H, W): NumPy, Zarr, Dask, torch.
    channel, time
        The numbers, from 0, of the channel and the time point, where there are several.
    voxel_size
        (z, y, x), µm; wins over what the file says.

    Returns
    -------
    Stack
        Uncompressed files are mapped into memory, others are read slice by slice.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Another format, a damaged file, colours, channels or time points of which none was picked, a single
        slice, or a voxel size that is none.
    """
    given = None if voxel_size is None else _three(voxel_size)
    if isinstance(source, Stack):
        return source if given is None else Stack(source.samples, given, "given", source.name)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name, found = str(path), READERS[suffix_of(path)](path)
    elif hasattr(source, "detach"):
        name, found = "the tensor", from_array(source.detach().cpu().numpy(), "the tensor")
    elif all(hasattr(source, what) for what in ("shape", "dtype", "__getitem__")):
        name, found = "the array", from_array(source, "the array")
    else:
        raise TypeError(f"a stack is a path or an array, got {type(source).__name__}")
    picked = pick(found, name, channel, time)
    if given is not None:
        return Stack(picked, given, "given", name)
    return Stack(picked, found.voxel_size, found.note, name)


def _slices(stack: Stack, dtype: np.dtype) -> Iterator[np.ndarray]:
    """One by one; True becomes 255."""
    for slab in stack.slabs():
        yield from (slab * np.uint8(255) if stack.dtype == bool else slab.astype(dtype, copy=False))


def write_stack(
    path: str | os.PathLike[str],
    stack: Stack | np.ndarray | Any,
    voxel_size: VoxelSize,
    *,
    overwrite: bool = False,
) -> None:
    """Write a stack with its voxel size, a slab at a time.

    Parameters
    ----------
    path
        `.tif` or `.tiff` (as ImageJ reads it with its calibration, or OME-BigTIFF for what ImageJ's form
        cannot hold: from 4 GB on, and other numbers than uint8, uint16, float32), or `.zarr` (OME-Zarr 0.5).
    stack
        (D, H, W). Booleans are written as 0 and 255.
    voxel_size
        (z, y, x), µm.
    overwrite
        Whether what exists may be replaced.

    Raises
    ------
    ValueError
        Another suffix, or a voxel size that is none.
    FileExistsError
        It exists, and may not be replaced.
    OSError
        It cannot be written, such as on a full disk; then nothing is left of it.
    """
    path, sizes = Path(path), checked_voxel_size(voxel_size)
    whole = stack if isinstance(stack, Stack) else Stack(stack)
    dtype = np.dtype(np.uint8) if whole.dtype == bool else whole.dtype
    suffix = suffix_of(path)
    if suffix not in (".tif", ".tiff", ".zarr"):
        raise ValueError(f"{path}: stacks are written as .tif, .tiff or .zarr")
    with replacing(path, overwrite=overwrite) as place:
        if suffix != ".zarr":
            write_tiff(place, _slices(whole, dtype), whole.shape, dtype, sizes)
            return
        target = new_zarr(place, whole.shape, dtype, sizes)
        step = target.chunks[0]
        for z in range(0, whole.shape[0], step):
            slab = whole[z : z + step]
            target[z : z + step] = slab * np.uint8(255) if slab.dtype == bool else slab


def create_stack(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: Any,
    *,
    voxel_size: VoxelSize,
    chunks: Sequence[int] | None = None,
) -> Any:
    """An empty OME-Zarr stack to write boxes into.

    Parameters
    ----------
    path
        Ends with `.zarr`; must not exist.
    shape, dtype
        (D, H, W), and the type of the samples, which are 0.
    voxel_size
        (z, y, x), µm.
    chunks
        (z, y, x); 64 each without.

    Returns
    -------
    zarr.Array
        Takes ``array[z0:z1, y0:y1, x0:x1] = box``.

    Raises
    ------
    ValueError
        Another suffix, or a voxel size that is none.
    FileExistsError
        It exists.
    """
    path = Path(path)
    if suffix_of(path) != ".zarr":
        raise ValueError(f"{path}: a stack that is written in boxes ends with .zarr")
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it, or choose another place")
    return new_zarr(path, shape, np.dtype(dtype), checked_voxel_size(voxel_size), chunks)
