"""What a file holds before one stack is picked from it: samples with named axes, and voxel sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"C": "channel", "T": "time point"}
_UNITS = {
    1.0: "um µm μm \\u00b5m micron microns micrometer micrometers micrometre micrometres",
    1e-4: "å angstrom",
    1e-3: "nm nanometer nanometers nanometre nanometres",
    1e3: "mm millimeter millimeters millimetre millimetres",
    1e4: "cm centimeter centimetre",
    1e6: "m meter meters metre metres",
}
_MICROMETRES = {name: size for size, names in _UNITS.items() for name in names.split()}
_SMALLEST, _LARGEST, _FLATTEST = 1e-4, 1e4, 100.0  # µm, µm, ratio: beyond, a number was not meant as a size


@dataclass(frozen=True, eq=False)
class Source:
    """Samples of a file, none of them read yet.

    Attributes
    ----------
    samples
        Anything with a shape, a dtype, and slices on ``samples[...]``.
    axes
        A letter an axis: Z, Y, X, C (channel), T (time).
    voxel_size
        (z, y, x), µm, or None.
    note
        Where the voxel size is from, or why there is none.
    """

    samples: Any
    axes: str
    voxel_size: tuple[float, float, float] | None
    note: str


@dataclass(frozen=True, eq=False)
class Picked:
    """One channel at one time, as (z, y, x), of samples with other axes."""

    samples: Any
    axes: str
    fixed: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        depth, height, width = (int(self.samples.shape[self.axes.index(a)]) for a in "ZYX")
        return depth, height, width

    @property
    def dtype(self) -> np.dtype:
        """Of the samples."""
        return np.dtype(self.samples.dtype)

    @property
    def block(self) -> tuple[int, int, int]:
        """(z, y, x) of what is read at once: a chunk of Zarr or Dask, a slice of anything else."""
        chunks = getattr(self.samples, "shards", None) or getattr(self.samples, "chunks", None)
        if not chunks:
            return (1, *self.shape[1:])
        depth, height, width = (np.max(chunks[self.axes.index(a)]) for a in "ZYX")
        return int(depth), int(height), int(width)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        part = dict(zip("ZYX", key, strict=True))
        found = np.asarray(
            self.samples[tuple(self.fixed[a] if a in self.fixed else part[a] for a in self.axes)]
        )
        left = [a for a in self.axes if a not in self.fixed]
        return found.transpose([left.index(a) for a in "ZYX"])


def micrometres(unit: str | None) -> float | None:
    """The unit of a length in µm, None if it is none."""
    return _MICROMETRES.get(str(unit).strip().lower())


def plausible(sizes: Sequence[float | None], source: str) -> tuple[tuple[float, float, float] | None, str]:
    """A voxel size (z, y, x) in µm that can be one, and where it is from; None, and why not, otherwise."""
    if any(s is None for s in sizes):
        missing = [axis for axis, s in zip("zyx", sizes, strict=True) if s is None]
        return None, f"{source}: no voxel size along {', '.join(missing)}"
    dz, dy, dx = (float(s) for s in sizes if s is not None)
    said = f"{source} ({dz:.6g}, {dy:.6g}, {dx:.6g} µm)"
    if not all(_SMALLEST <= s <= _LARGEST for s in (dz, dy, dx)):
        return None, f"{said}: ignored, no size of a voxel"
    if max(dz, dy, dx) > _FLATTEST * min(dz, dy, dx):
        return None, f"{said}: ignored, one side is more than {_FLATTEST:g} times another"
    return (dz, dy, dx), source


def pick(source: Source, name: str, channel: int | None, time: int | None) -> Picked:
    """One channel at one time.

    Raises
    ------
    ValueError
        There are several and none was chosen, or there is no such one; or the axes are not those of a stack.
    """
    sizes = dict(zip(source.axes, source.samples.shape, strict=True))
    if any(a not in sizes for a in "ZYX") or set(sizes) - set("ZYXCT"):
        raise ValueError(
            f"{name} has the axes {source.axes or 'of a number'} {tuple(source.samples.shape)}, where a "
            "stack has slices, rows and columns; save the three of them alone"
        )
    fixed = {}
    for axis, chosen, flag in (("C", channel, "channel"), ("T", time, "time")):
        count = sizes.get(axis, 1)
        if chosen is None and count > 1:
            raise ValueError(
                f"{name} holds {count} {NAMES[axis]}s; pick one of 0 … {count - 1} with {flag}= (--{flag})"
            )
        if chosen is not None and not 0 <= chosen < count:
            raise ValueError(f"{name} has the {NAMES[axis]}s 0 … {count - 1}, and no {chosen}")
        if axis in sizes:
            fixed[axis] = chosen or 0
    return Picked(source.samples, source.axes, fixed)


def file_of(path: Path) -> Path:
    """The path, if it is a file.

    Raises
    ------
    FileNotFoundError
        It is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    return path
