"""Stacks in NRRD files, attached or with a detached header."""

from __future__ import annotations

import bz2
import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from invlearn.io.arrays import require_memory
from invlearn.io.damage import damage_named
from invlearn.io.stack_source import Source, file_of, micrometres, plausible

_PACKED: dict[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}


def read_nrrd(path: Path) -> Source:
    """`.nrrd` and `.nhdr`; the first axis varies fastest and is x.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No NRRD, or a damaged one, one too large for the memory, or the package pynrrd is missing.
    """
    file_of(path)
    try:
        import nrrd
    except ImportError as error:
        raise ValueError(f"{path}: NRRD stacks need the package pynrrd (pip install pynrrd)") from error
    with damage_named(path, "is no NRRD file, or a damaged one", "save it again"), path.open("rb") as stream:
        header = nrrd.read_header(stream)
        samples = _samples(path, header, nrrd.reader._determine_datatype(header), stream)
        axes = _nrrd_axes(header, samples.ndim)
        return Source(samples, axes, *_nrrd_size(header, axes))


def _samples(path: Path, header: Mapping[str, Any], dtype: np.dtype, stream: BinaryIO) -> np.ndarray:
    """The samples; mapped into memory where the file holds them as they are."""
    sizes = tuple(int(n) for n in header["sizes"])
    if len(sizes) != header["dimension"] or min(sizes, default=0) < 1:
        raise ValueError(f"{header['dimension']} dimensions of the sizes {sizes}")
    lines, skipped = (_either(header, f"{what} skip", 0) for what in ("line", "byte"))
    apart = _either(header, "data file", None)
    if header["encoding"] == "raw" and apart is None and not lines and not skipped:
        return np.memmap(path, dtype, "r", stream.tell(), sizes, order="F")
    needed = math.prod(sizes) * dtype.itemsize
    require_memory(needed, f"its samples {sizes}", path)
    with (path.parent / apart).open("rb") if apart is not None else stream as data:
        if any(not data.readline() for _ in range(lines)):
            raise ValueError(f"fewer than the {lines} lines to skip")
        content = _content(data, header["encoding"], int(skipped), needed)
    if header["encoding"] in ("ASCII", "ascii", "text", "txt"):
        values = np.array(content.split(), dtype)
    else:
        values = np.frombuffer(content, dtype)
    if values.size != math.prod(sizes):
        raise ValueError(f"{values.size} samples where the sizes are {sizes}")
    return values.reshape(sizes, order="F")


def _either(header: Mapping[str, Any], name: str, default: Any) -> Any:
    """An entry whose name is written with or without its blank."""
    return header.get(name, header.get(name.replace(" ", ""), default))


def _content(stream: BinaryIO, encoding: str, skipped: int, needed: int) -> bytes:
    """The bytes of the samples; hardly more is unpacked than they are."""
    if encoding in _PACKED:
        with _PACKED[encoding](stream) as unpacked:
            content = unpacked.read(needed + max(skipped, 0) + 1)  # the end has the checksum
        return content[-needed:] if skipped == -1 else content[skipped:]
    stream.seek(*((-needed, 2) if skipped == -1 else (skipped, 1)))
    return stream.read(needed) if encoding == "raw" else stream.read()


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
