"""Stacks in TIFF files (BigTIFF, ImageJ, OME, LSM, plain): mapped into memory, or read slice by slice."""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from invlearn.io.damage import damage_named
from invlearn.io.stack_source import Source, file_of, micrometres, plausible
from invlearn.io.voxels import VoxelSize

_BROKEN = re.compile(
    "invalid page offset|invalid value offset|corrupt|invalid offset|incomplete|missing data"
)
_IMAGEJ_LIMIT = 2**32 - 2**25  # bytes that fit a classic TIFF


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile says, instead of printing it."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("tifffile"), Listener()
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


class Pages:
    """The pages of a series as one array, read when they are asked for."""

    def __init__(self, path: Path, file: Any, series: Any) -> None:
        self.path, self.file, self.series, self.lock = path, file, series, threading.Lock()
        self.shape, self.dtype = tuple(series.shape), np.dtype(series.dtype)
        self.leading = self.shape[: len(self.shape) - len(series.keyframe.shape)]

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        ahead, rest = key[: len(self.leading)], key[len(self.leading) :]
        numbers = np.arange(int(np.prod(self.leading))).reshape(self.leading)[ahead]
        with self.lock:
            handle = self.file.filehandle
            handle.open()  # while it is read, and not longer
            try:
                pages = [self._page(int(number))[rest] for number in numbers.ravel()]
            finally:
                handle.close()
        if not pages:
            return np.empty(self.shape, self.dtype)[key]
        return np.stack(pages).reshape(numbers.shape + pages[0].shape)

    def _page(self, number: int) -> np.ndarray:
        try:
            return self.series.pages[number].asarray().reshape(self.series.keyframe.shape)
        except Exception as error:  # the decoders raise whatever they like
            reason = str(error) or type(error).__name__
            hint = "install imagecodecs" if "imagecodecs" in reason else "copy or save it again"
            raise ValueError(f"{self.path}: page {number} cannot be decoded ({reason}); {hint}") from error


def read_tiff(path: Path) -> Source:
    """The first series of a TIFF file.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No TIFF, truncated or damaged, or one of several files that belong together.
    """
    import tifffile

    size = file_of(path).stat().st_size
    what = "is no TIFF file, or a damaged one"
    with _complaints() as said, damage_named(path, what, "save it again"):
        _require_end(path)
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            broken = _truncated(file, series, size)
            voxel_size, note = _voxel_size(file, series)
    broken = broken or next((text for text in said if _BROKEN.search(text)), None)
    if broken:
        raise ValueError(f"{path} is truncated or damaged ({broken}); copy or save it again")
    axes = _axes(path, series)
    if series.dataoffset is None:
        return Source(Pages(path, file, series), axes, voxel_size, note)
    dtype = series.dtype.newbyteorder(file.byteorder)
    mapped = np.memmap(path, dtype=dtype, mode="r", offset=series.dataoffset, shape=tuple(series.shape))
    return Source(mapped, axes, voxel_size, note)


def _require_end(path: Path) -> None:
    """The directories of a file, one a page, form a chain; a circle would be followed for ever."""
    with path.open("rb") as stream:
        head = stream.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return  # what is wrong with it is said by who reads it
        big = head[2:4] in (b"+\0", b"\0+")
        count, entry, offset = (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
        at, seen = struct.unpack_from(offset, head, 8 if big else 4)[0], set[int]()
        while at:
            if at in seen:
                raise ValueError(f"its pages run in a circle, back to byte {at:,}")
            seen.add(at)
            stream.seek(at)
            entries = stream.read(struct.calcsize(count))
            if len(entries) < struct.calcsize(count):
                return
            stream.seek(entry * struct.unpack(count, entries)[0], 1)
            following = stream.read(struct.calcsize(offset))
            if len(following) < struct.calcsize(offset):
                return
            (at,) = struct.unpack(offset, following)


def _truncated(file: Any, series: Any, size: int) -> str | None:
    """Which samples lie beyond the end of the file."""
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
        return f"samples end at byte {end:,}, the file at {size:,}" if end > size else None
    for number, page in enumerate(series.pages):
        if page is None:
            return f"page {number} is missing, or in another file"
        end = max((a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if end > size:
            return f"page {number} ends at byte {end:,}, the file at {size:,}"
    stated = (file.imagej_metadata or {}).get("images") if file.is_imagej else None
    found = int(np.prod(series.shape[: series.axes.find("Y")]))
    return f"{stated} slices are stated, {found} are there" if stated and stated > found else None


def _axes(path: Path, series: Any) -> str:
    """The axes in our letters."""
    axes = series.axes.replace("S", "C" if "C" not in series.axes else "S")
    unnamed = [a for a in axes if a not in "ZYXCTS"]
    if "Z" not in axes and len(unnamed) == 1:
        axes = axes.replace(unnamed[0], "Z")
    if "Z" not in axes and "T" in axes:
        raise ValueError(
            f"{path} holds {series.shape[axes.index('T')]} time points of one slice; if they are slices, say "
            "so in the file (in Fiji: Image > Properties), otherwise there is no stack in it"
        )
    if "Z" not in axes:
        what = "one colour picture" if "C" in axes else "one slice"
        raise ValueError(f"{path} holds {what}, where a stack has several slices; save all in one file")
    return axes


def _voxel_size(file: Any, series: Any) -> tuple[tuple[float, float, float] | None, str]:
    """Of the file's metadata."""
    page = series.keyframe
    if file.is_ome and file.ome_metadata:
        return plausible(_ome_sizes(file.ome_metadata), "OME metadata")
    if file.is_lsm and file.lsm_metadata:
        sizes = [file.lsm_metadata.get(f"VoxelSize{axis}") for axis in "ZYX"]
        return plausible([None if s is None else s * 1e6 for s in sizes], "LSM metadata")
    if not file.is_imagej:
        return None, "the TIFF has no distance of its slices"
    said = file.imagej_metadata or {}
    unit = micrometres(said.get("unit"))
    if unit is None or unit == micrometres("cm"):
        return (
            None,
            f"ImageJ metadata: the unit {said.get('unit', 'of length is missing')!r} is no length here",
        )
    # ImageJ leaves the spacing out where it is 1
    sizes = [float(said.get("spacing", 1.0)), _pixel(page, "YResolution"), _pixel(page, "XResolution")]
    return plausible([None if s is None else abs(s) * unit for s in sizes], "ImageJ metadata")


def _pixel(page: Any, tag: str) -> float | None:
    """The size of a pixel by its resolution tag."""
    if tag not in page.tags:
        return None
    pixels, units = page.tags[tag].value
    return units / pixels if pixels else None


def _ome_sizes(text: str) -> list[float | None]:
    """Physical sizes (z, y, x) in µm."""
    root = ElementTree.fromstring(text)
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    sizes: list[float | None] = []
    for axis in "ZYX":
        value = None if pixels is None else pixels.get(f"PhysicalSize{axis}")
        unit = micrometres("µm" if pixels is None else pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if value is None or unit is None else float(value) * unit)
    return sizes


def write_tiff(
    path: Path,
    slices: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: np.dtype,
    voxel_size: VoxelSize,
) -> None:
    """Write slices one by one: ImageJ's form where it can hold them, else OME-BigTIFF."""
    import tifffile

    dz, dy, dx = map(float, voxel_size)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    common: dict[str, Any] = {"shape": tuple(shape), "dtype": dtype, "photometric": "minisblack"}
    if dtype in (np.uint8, np.uint16, np.float32) and nbytes < _IMAGEJ_LIMIT:
        tifffile.imwrite(
            path,
            iter(slices),
            imagej=True,
            resolution=(1 / dx, 1 / dy),
            metadata={"axes": "ZYX", "spacing": dz, "unit": "um"},
            **common,
        )
        return
    physical = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (dz, dy, dx), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        file.write(iter(slices), metadata={"axes": "ZYX", **physical, **units}, **common)
