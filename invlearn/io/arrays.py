"""Numeric arrays from `.npy`, `.npz` and `.mat` (version 5) files.

A file's headers are looked at first: what would not fit in memory is refused with the memory it
would need, before anything is read. Pickled objects are never loaded.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import resource
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from invlearn.io import matlab
from invlearn.io.damage import DEFLATE, damage_named

SUFFIXES = (".npy", ".npz", ".mat")


@dataclass(frozen=True)
class ArrayInfo:
    """What a file says about one of its arrays, before the array is read.

    Attributes
    ----------
    name
        The key in an `.npz` or `.mat` file; empty for the one array of an `.npy` file.
    shape
        Its shape.
    dtype
        Its dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def memory_limit() -> int:
    """Bytes of memory that this process may hope for: the machine's, or what its limits leave of it."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError):
            allowed -= page * int(Path("/proc/self/statm").read_text().split()[0])
        total = min(total, max(0, allowed))
    return total


def require_memory(
    needed: int, what: str, path: str | os.PathLike[str], limit: int | None = None, hint: str = ""
) -> None:
    """Refuse what there is no room for.

    Parameters
    ----------
    needed
        Bytes.
    what
        Needs them.
    path
        Of the file.
    limit
        Bytes it may take; by default a quarter of the machine's, as a computation holds several copies.
    hint
        What to do about it.

    Raises
    ------
    ValueError
        There is not as much memory.
    """
    limit = memory_limit() // 4 if limit is None else limit
    if needed > limit:
        raise ValueError(
            f"{path}: {what} would need {format_bytes(needed)} of memory, more than the "
            f"{format_bytes(limit)} there is room for{hint}"
        )


def format_bytes(count: int) -> str:
    """`1500000` to `"1.5 MB"`."""
    if count < 1000:
        return f"{count} bytes"
    power = min(int(math.log10(count)) // 3, 5)
    return f"{count / 1000**power:,.1f} {' kMGTP'[power]}B"


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array as `.npy`.

    Raises
    ------
    OSError
        It cannot be written; a full disk, of which NumPy says nothing when it writes into a file itself.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getbuffer())


def _npy_info(stream: Any, name: str, where: str) -> ArrayInfo:
    with damage_named(where, "is no NumPy array file, or a damaged one", "save it again"):
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(
            f"{where} holds pickled Python objects, which are never loaded; save a plain numeric array"
        )
    if any(s < 0 for s in shape):
        raise ValueError(f"{where} is damaged: its header claims the shape {shape}")
    return ArrayInfo(name, tuple(int(s) for s in shape), dtype)


def _inspect_npy(path: Path) -> dict[str, ArrayInfo]:
    with path.open("rb") as stream:
        return {"": _npy_info(stream, "", str(path))}


def _inspect_npz(path: Path) -> dict[str, ArrayInfo]:
    infos = {}
    with damage_named(path, "is truncated or damaged: no whole zip archive", "save it again"):
        archive = zipfile.ZipFile(path)
    with archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            with damage_named(path, f"is damaged: its member {name!r} cannot be read"):
                stream = archive.open(member)
            with stream:
                infos[name] = _npy_info(stream, name, f"{path}: the array {name!r}")
            if infos[name].nbytes > DEFLATE * member.compress_size:
                raise ValueError(
                    f"{path}: the array {name!r} is truncated or damaged: its header claims "
                    f"{format_bytes(infos[name].nbytes)}, packed in {format_bytes(member.compress_size)}"
                )
    return infos


def _inspect_mat(path: Path) -> dict[str, ArrayInfo]:
    with path.open("rb") as stream:
        head = stream.read(520)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):
        raise ValueError(
            f"{path} is a MATLAB 7.3 (HDF5) file; save it in version 5: "
            f"save('{path.name}', 'name', '-v7') in MATLAB, or numpy.savez in Python"
        )
    with damage_named(path, "is truncated or damaged, or no .mat file of version 5"):
        return {v.name: ArrayInfo(v.name, v.shape, v.dtype) for v in matlab.list_variables(path)}


def _load_npy(path: Path, name: str) -> Any:
    return np.load(path, allow_pickle=False)


def _load_npz(path: Path, name: str) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name]


def _load_mat(path: Path, name: str) -> Any:
    return matlab.read_variable(path, {v.name: v for v in matlab.list_variables(path)}[name])


_INSPECT: Mapping[str, Callable[[Path], dict[str, ArrayInfo]]] = {
    ".npy": _inspect_npy,
    ".npz": _inspect_npz,
    ".mat": _inspect_mat,
}
_LOAD: Mapping[str, Callable[[Path, str], Any]] = {".npy": _load_npy, ".npz": _load_npz, ".mat": _load_mat}


def inspect(path: str | os.PathLike[str]) -> dict[str, ArrayInfo]:
    """What a file holds, by name, from its headers alone.

    Parameters
    ----------
    path
        An `.npy`, `.npz` or `.mat` (version 5) file.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        An unknown extension, an empty or damaged file, a MATLAB 7.3 file, pickled objects.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file ({', '.join(SUFFIXES)})")
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise ValueError(f"{path}: arrays are read from {kinds} files, not {path.suffix or 'this'}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    infos = _INSPECT[path.suffix.lower()](path)
    if not infos:
        raise ValueError(f"{path} holds no arrays")
    return infos


def _fits(path: Path, info: ArrayInfo, itemsize: int, limit: int | None) -> None:
    """Refuse what cannot be held: the array as stored, or as the numbers it becomes."""
    needed = math.prod(info.shape) * max(info.dtype.itemsize, itemsize)
    hint = " (a computation holds several copies); use fewer or smaller operators or samples"
    require_memory(needed, f"an array {info.shape}", path, limit, hint)
    if path.suffix.lower() == ".npy" and path.stat().st_size < info.nbytes:
        raise ValueError(
            f"{path} is truncated: its header claims {info.shape} {info.dtype} "
            f"({format_bytes(info.nbytes)}), the file has {format_bytes(path.stat().st_size)}; save it again"
        )


def _numbers(path: Path, name: str, array: Any) -> np.ndarray:
    """Native booleans, integers, or floats of single or double precision."""
    label = f"{path}: {name}" if name else str(path)
    array = np.asarray(array)
    if array.dtype.kind not in "?biufc":
        raise ValueError(f"{label} holds {array.dtype} entries, not numbers")
    if array.dtype.kind in "fc" and array.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise TypeError(f"{label} is {array.dtype}; save it as float32 or float64 (or complex)")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _require_finite(array: np.ndarray, label: str) -> None:
    if array.dtype.kind not in "fc":
        return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = np.unravel_index(int(bad.argmax()), array.shape)
        where = ", ".join(map(str, first))
        raise ValueError(
            f"{label} has {count} NaN or infinite value{'s' if count > 1 else ''}, "
            f"the first ({array[first]}) at index ({where})"
        )


def _find(path: Path, infos: Mapping[str, ArrayInfo], names: Sequence[str]) -> str:
    """The name of the array that is meant: an expected one, or the only one."""
    for name in names:
        if name in infos:
            return name
    if len(infos) == 1:
        return next(iter(infos))
    raise ValueError(f"{path}: found the keys {', '.join(infos)}, expected {' or '.join(names)}")


def _read(path: Path, info: ArrayInfo, itemsize: int, limit: int | None) -> np.ndarray:
    name = info.name
    if info.dtype.hasobject:
        raise ValueError(
            f"{path}: {name} is a cell, struct, text or sparse variable; save a full numeric array"
        )
    if math.prod(info.shape) == 0:
        raise ValueError(f"{path}: {name + ' ' if name else ''}is empty, its shape is {info.shape}")
    _fits(path, info, itemsize, limit)
    with damage_named(path):
        array = _LOAD[path.suffix.lower()](path, name)
    array = _numbers(path, name, array)
    _require_finite(array, f"{path}: {name}" if name else str(path))
    return array


def read_array(
    path: str | os.PathLike[str], names: Sequence[str], itemsize: int = 8, limit: int | None = None
) -> np.ndarray:
    """One array of finite numbers.

    Parameters
    ----------
    path
        An `.npy`, `.npz` or `.mat` (version 5) file.
    names
        Keys under which the array is looked for in an `.npz` or `.mat` file; when the file holds
        one array only, its name does not matter.
    itemsize
        Bytes an entry takes in the computation that follows, for the memory check: 8 for numbers
        (float64), 1 for masks.
    limit
        Bytes of memory that the array may take; by default a quarter of the machine's.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not readable, too large, none of the names among several arrays, NaN or infinite entries.
    TypeError
        float16 or extended precision.
    """
    path = Path(path)
    infos = inspect(path)
    return _read(path, infos[_find(path, infos, names)], itemsize, limit)


def _to_shape(array: np.ndarray, shape: Sequence[int] | None, label: str, first: str) -> np.ndarray:
    """`(first, *shape)` from that, from flattened `(first, n)`, or from one element `shape`."""
    if shape is None:
        if array.ndim < 2:
            raise ValueError(
                f"{label} has the shape {array.shape}, expected ({first}, *image); "
                "for a single one save array[None]"
            )
        return array
    shape = tuple(shape)
    if array.shape == shape:
        return array[None]
    if array.shape[1:] in (shape, (math.prod(shape),)):
        return array.reshape(-1, *shape)
    raise ValueError(
        f"{label} has the shape {array.shape}, expected ({first}, {', '.join(map(str, shape))}) by --shape"
    )


def read_masks(
    path: str | os.PathLike[str],
    shape: Sequence[int] | None = None,
    names: Sequence[str] = ("masks", "mask"),
    limit: int | None = None,
) -> np.ndarray:
    """Masks `(G, *image)` of booleans.

    Parameters
    ----------
    path
        An `.npy`, `.npz` or `.mat` file with booleans or the numbers 0 and 1.
    shape
        Shape of the image. Without it the first axis counts the masks: a 2-D array is G masks of
        a 1-D signal. With it, flattened masks `(G, n)` and one bare mask `shape` are understood.
    names
        Keys looked for in a file with several arrays.
    limit
        Bytes of memory the array may take; by default a quarter of the machine's.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        As `read_array`; also entries other than 0 and 1, and a shape that does not fit.
    """
    array = read_array(path, names, itemsize=1, limit=limit)
    if array.dtype != bool:
        odd = (array != 0) & (array != 1)
        if odd.any():
            first = np.unravel_index(int(odd.argmax()), array.shape)
            raise ValueError(
                f"{path}: a mask holds only 0 and 1 (or booleans), found {array[first]} "
                f"at index ({', '.join(map(str, first))}); threshold it first"
            )
        array = array != 0
    return _to_shape(array, shape, str(path), "G")


def read_matrices(
    path: str | os.PathLike[str],
    names: Sequence[str] = ("matrices", "matrix", "A"),
    limit: int | None = None,
) -> np.ndarray:
    """Matrices `(G, m, n)`, float or complex; one matrix `(m, n)` is taken as G = 1.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        As `read_array`; also another number of axes.
    """
    array = read_array(path, names, limit=limit)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ValueError(f"{path} has the shape {array.shape}, expected matrices (G, m, n) or one (m, n)")
    return array if array.dtype.kind in "fc" else array.astype(np.float64)


def read_signals(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    names: Sequence[str] = ("signals", "x"),
    limit: int | None = None,
) -> np.ndarray:
    """Signals `(N, *shape)`, float or complex; flattened ones `(N, n)` are brought to shape.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        As `read_array`; also a shape that does not fit the operators'.
    """
    array = read_array(path, names, limit=limit)
    shape = tuple(shape)
    if array.shape[1:] not in (shape, (math.prod(shape),)):
        raise ValueError(
            f"{path} has the shape {array.shape}, but the operators act on signals of shape {shape}: "
            f"expected (N, {', '.join(map(str, shape))})"
        )
    array = array.reshape(-1, *shape)
    return array if array.dtype.kind in "fc" else array.astype(np.float64)


def read_measurements(
    path: str | os.PathLike[str], operators: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Measurements `y` `(N, ...)` and the number `operator_index` `(N,)` of the operator of each.

    Parameters
    ----------
    path
        An `.npz` (or `.mat`) file with the keys `y` and `operator_index`.
    operators
        How many operators there are; indices run from 0 to `operators` - 1.
    limit
        Bytes of memory each array may take; by default a quarter of the machine's.

    Returns
    -------
    y
        float32, float64, complex64 or complex128.
    operator_index
        int64.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        As `read_array`; also a missing key, lengths that differ, indices out of range.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        raise ValueError(f"{path}: measurements are an .npz with y (N, m) and operator_index (N,)")
    infos = inspect(path)
    missing = [name for name in ("y", "operator_index") if name not in infos]
    if missing:
        raise ValueError(
            f"{path}: found the keys {', '.join(infos)}, expected y (N, m) and operator_index (N,); "
            f"{' and '.join(missing)} missing"
        )
    y = _read(path, infos["y"], 8, limit)
    index = _read(path, infos["operator_index"], 8, limit)
    if y.ndim < 2:
        raise ValueError(f"{path}: y has the shape {y.shape}, expected (N, m)")
    # MATLAB has no 1-D arrays: a row or a column is meant.
    if index.size != len(y) or index.size != max(index.shape, default=1):
        raise ValueError(
            f"{path}: operator_index has the shape {index.shape}, expected ({len(y)},), one for each row of y"
        )
    index = index.reshape(-1)
    whole = index.real.astype(np.int64)
    if (whole != index).any():
        raise ValueError(f"{path}: operator_index holds numbers that are not whole")
    low, high = int(whole.min()), int(whole.max())
    if low < 0 or high >= operators:
        hint = "; they seem to count from 1" if (low, high) == (1, operators) else ""
        raise ValueError(
            f"{path}: operator_index runs from {low} to {high}, "
            f"but the {operators} operators count from 0 to {operators - 1}{hint}"
        )
    return (y if y.dtype.kind in "fc" else y.astype(np.float64)), whole
