"""Numeric arrays in MATLAB files of version 5 to 7.2, checked piece by piece while they are read.

Cells, structures, text, sparse matrices and objects are listed, not read. The format: "MAT-File Format",
The MathWorks.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from invlearn.io.damage import DEFLATE

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX, _LOGICAL = 0x08, 0x02
_CHUNK = 1 << 16  # bytes that are unpacked at a time
_LONGEST = 1 << 12  # bytes of a name, or of a list of dimensions


@dataclass(frozen=True)
class Variable:
    """What a file says of a variable.

    Attributes
    ----------
    name
        Its name.
    shape
        Its shape; MATLAB has two axes or more.
    dtype
        Of the array; `object` for what is no full array of numbers.
    offset
        Where it stands in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


class _Pieces:
    """The bytes of one variable, unpacked if they are compressed."""

    def __init__(self, stream: BinaryIO, size: int, packed: bool, order: str) -> None:
        self.stream, self.left, self.order = stream, size, order
        self.unpacker = zlib.decompressobj() if packed else None

    def read(self, count: int) -> bytes:
        """So many bytes."""
        most = self.left if self.unpacker is None else DEFLATE * (self.left + _CHUNK)
        if count > most:
            raise ValueError(f"a piece of {count:,} bytes in a variable that has not as many")
        found = bytearray()
        while len(found) < count:
            part = self._more(count - len(found))
            if not part:
                raise ValueError("it ends within a variable")
            found += part
        return bytes(found)

    def _more(self, count: int) -> bytes:
        if self.unpacker is None:
            part = self.stream.read(min(count, self.left))
            self.left -= len(part)
            return part
        while not self.unpacker.eof:
            packed = self.unpacker.unconsumed_tail
            if not packed:
                packed = self.stream.read(min(_CHUNK, self.left))
                self.left -= len(packed)
            part = self.unpacker.decompress(packed, count)
            if part or not packed:
                return part
        return b""

    def tag(self) -> tuple[int, int]:
        """Type and bytes of the next element; four bytes at most stand in the tag itself."""
        kind, size = struct.unpack(f"{self.order}II", self.read(8))
        return kind, size

    def element(self, longest: int) -> tuple[int, bytes]:
        """Type and content of the next element, of at most so many bytes."""
        head = self.read(8)
        kind, size = struct.unpack(f"{self.order}II", head)
        if kind >> 16:  # the small form
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError("a short element of more than four bytes")
            return kind, head[4 : 4 + size]
        if size > longest:
            raise ValueError(f"an element of {size:,} bytes, where {longest:,} are the most")
        content = self.read(size)
        if size % 8:
            self.read(8 - size % 8)
        return kind, content

    def numbers(self, longest: int) -> np.ndarray:
        """An element as an array."""
        kind, content = self.element(longest)
        if kind not in _NUMBERS:
            raise ValueError(f"an element of the type {kind}, where numbers stand")
        dtype = np.dtype(f"{self.order}{_NUMBERS[kind]}")
        if len(content) % dtype.itemsize:
            raise ValueError(f"{len(content)} bytes of {dtype} numbers")
        return np.frombuffer(content, dtype)

    def finish(self) -> None:
        """See that the checksum is right."""
        while self.unpacker is not None and not self.unpacker.eof:
            if not self._more(_CHUNK) and not self.unpacker.eof:
                raise ValueError("it ends within a variable")


def _order(head: bytes) -> str:
    """The byte order by the header of a file."""
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if len(head) < 128 or order is None:
        raise ValueError("its header is none of version 5")
    (version,) = struct.unpack(f"{order}H", head[124:126])
    if version != 0x0100:
        raise ValueError(f"it is of version {version >> 8}")
    return order


def _variables(stream: BinaryIO, size: int) -> Iterator[tuple[int, _Pieces]]:
    """Where each variable stands, and its pieces after the first tag."""
    order = _order(stream.read(128))
    at = 128
    while at < size:
        stream.seek(at)
        pieces = _Pieces(stream, size - at, False, order)
        kind, length = pieces.tag()
        if length > size - at - 8:
            raise ValueError(f"a variable of {length:,} bytes reaches beyond its end")
        if kind in (_MATRIX, _COMPRESSED):
            found = _Pieces(stream, length, kind == _COMPRESSED, order)
            inner = found.tag()[0] if kind == _COMPRESSED else kind
            if inner != _MATRIX:
                raise ValueError(f"a variable of the type {inner}")
            yield at, found
        at += 8 + length


def _header(pieces: _Pieces, offset: int) -> Variable:
    """Flags, dimensions, name."""
    flags = pieces.numbers(8).view(np.uint8)
    if flags.size < 8:
        raise ValueError("a variable without flags")
    word = flags[:4] if pieces.order == "<" else flags[3::-1]
    kind, bits = int(word[0]), int(word[1])
    if kind > 15:  # functions and objects have no dimensions here
        return Variable("", (), np.dtype(object), offset)
    shape = tuple(int(n) for n in pieces.numbers(_LONGEST))
    name = pieces.element(_LONGEST)[1].rstrip(b"\0").decode("latin-1")
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"the variable {name!r} of the shape {shape}")
    dtype = np.dtype(_CLASSES.get(kind, "O"))
    if dtype.hasobject:
        return Variable(name, shape, dtype, offset)
    if bits & _LOGICAL:
        dtype = np.dtype(bool)
    elif bits & _COMPLEX:
        dtype = np.result_type(dtype, np.complex64)
    return Variable(name, shape, dtype, offset)


def list_variables(path: str | os.PathLike[str]) -> list[Variable]:
    """The variables of a file, by their headers.

    Raises
    ------
    ValueError
        Damaged, or no MATLAB file of version 5 to 7.2.
    """
    path = Path(path)
    with path.open("rb") as stream:
        found = [_header(pieces, at) for at, pieces in _variables(stream, path.stat().st_size)]
    return [variable for variable in found if variable.name]


def read_variable(path: str | os.PathLike[str], variable: Variable) -> np.ndarray:
    """The array of a variable that `list_variables` found.

    Raises
    ------
    ValueError
        Damaged, or no full array of numbers.
    """
    if variable.dtype.hasobject:
        raise ValueError(f"{variable.name} is no full array of numbers")
    path = Path(path)
    with path.open("rb") as stream:
        pieces = next(p for at, p in _variables(stream, path.stat().st_size) if at == variable.offset)
        _header(pieces, variable.offset)
        count = math.prod(variable.shape)
        parts = [pieces.numbers(8 * count) for _ in range(1 + (variable.dtype.kind == "c"))]
        pieces.finish()
    if any(part.size != count for part in parts):
        raise ValueError(f"{variable.name} has {parts[0].size} numbers for the shape {variable.shape}")
    values = parts[0].astype(variable.dtype)
    if len(parts) == 2:
        values.imag = parts[1]
    return values.reshape(variable.shape, order="F")
