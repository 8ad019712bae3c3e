"""HDF5 files, looked at before the library that reads them is let in."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\1\0\0\0"  # a collection of the global heap, where pieces of varying length are
_OBJECT = 16  # bytes of the header of one of its objects


def require_room(path: Path, nbytes: int) -> None:
    """Find out that the disk is full before HDF5 does, which may crash the process then.

    Parameters
    ----------
    path
        A file that is to be written; what is there is lost.
    nbytes
        That it will have at least.

    Raises
    ------
    OSError
        There is no room for so many bytes, or a file may not have so many.
    """
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, max(nbytes, 1))
    path.unlink()


def open_hdf5(path: Path, what: str) -> Any:
    """The file, opened to read.

    Parameters
    ----------
    path
        The file.
    what
        It should be, for the message.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A folder, no HDF5, or a heap that HDF5 would search for ever.
    OSError
        HDF5 cannot open it.
    """
    import h5py

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give {what}")
    with path.open("rb") as stream:
        if stream.read(8) != _SIGNATURE:
            raise ValueError(f"{path} is not an HDF5 file; give {what}")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _require_heaps(content, path)
    return h5py.File(path, "r")


def require_layout(dtype: np.dtype, path: Path) -> None:
    """Refuse records whose members overlap: reading them, HDF5 writes beyond its memory.

    Raises
    ------
    ValueError
        They do.
    """
    if dtype.subdtype is not None:
        require_layout(dtype.base, path)
    end = 0
    members = [(entry[1], entry[0], name) for name, entry in (dtype.fields or {}).items()]
    for offset, member, name in sorted(members, key=lambda entry: entry[0]):
        if offset < end:
            raise ValueError(
                f"{path} is truncated or damaged (the member {name} of its records overlaps with another); "
                "copy or convert it again"
            )
        end = offset + member.itemsize
        require_layout(member, path)


def _require_heaps(content: mmap.mmap, path: Path) -> None:
    """Objects of a heap follow each other; HDF5 comes to no end where one has no length."""
    start = content.find(_HEAP)
    while start >= 0:
        end = start + int.from_bytes(content[start + 8 : start + 16], "little")
        at = start + 16
        while at + _OBJECT <= min(end, len(content)):
            number, size = struct.unpack("<H6xQ", content[at : at + _OBJECT])
            step = _OBJECT + -(-size // 8) * 8 if number else size
            if step < (_OBJECT if number else 1) or at + step > end:
                raise ValueError(
                    f"{path} is truncated or damaged (an object of {size:,} bytes in its heap at byte "
                    f"{at:,}); copy or convert it again"
                )
            at += step
        start = content.find(_HEAP, start + 8)
