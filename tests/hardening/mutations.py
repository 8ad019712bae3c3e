"""Real files damaged at random: bytes, lengths, pieces, text, JSON, and what is inside compressed files."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator

_HEADER = 512  # bytes at the beginning, where most of what matters stands
_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1e-320",
    "99999999999999999999",
    "2147483648",
    "0x10",
    "1_0",
    "١",
    "µ",
    "None",
    "..",
    "/",
    "\x00",
    "\ufeff",
    "a" * 3000,
    '"',
    "[]",
    "{}",
    ",",
    ";",
    "#",
    "-0",
    "3.5",
    "1e308",
)
_VALUES = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    10**30,
    1e308,
    "",
    "x",
    "float32",
    "|O",
    "<f8",
    [],
    {},
    [-1],
    [2**40] * 3,
    {"name": "blosc"},
    [[]],
    "../../etc",
    "NaN",
)
_TOKEN = re.compile(rb"[^\s,;:=()<>\[\]{}\"']+")


def _place(data: bytes, rng: Random) -> int:
    """Half of the time in the header."""
    end = min(len(data), _HEADER) if rng.random() < 0.5 else len(data)
    return int(rng.integers(max(1, end)))


def _flip(data: bytes, rng: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        changed[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _random_byte(data: bytes, rng: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    changed[_place(data, rng)] = int(rng.integers(256))
    return bytes(changed)


def _number(data: bytes, rng: Random, other: bytes) -> bytes:
    """A length field enlarged, most likely: a number of 1 to 8 bytes of either order, put anywhere."""
    size, order = int(rng.choice([1, 2, 4, 8])), rng.choice(["little", "big"])
    value = int(_NUMBERS[rng.integers(len(_NUMBERS))]) % 256**size
    at = _place(data, rng)
    if rng.random() < 0.5:
        at -= at % size
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def _float(data: bytes, rng: Random, other: bytes) -> bytes:
    value = float(rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-38, 0.0, -1.0]))
    at = _place(data, rng) // 4 * 4
    return data[:at] + struct.pack("<f", value) + data[at + 4 :]


def _truncate(data: bytes, rng: Random, other: bytes) -> bytes:
    return data[: _place(data, rng)]


def _cut(data: bytes, rng: Random, other: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 64)) :]


def _double(data: bytes, rng: Random, other: bytes) -> bytes:
    at, size = _place(data, rng), int(rng.integers(1, 64))
    return data[: at + size] + data[at:]


def _insert(data: bytes, rng: Random, other: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 32))) + data[at:]


def _splice(data: bytes, rng: Random, other: bytes) -> bytes:
    """A piece of another file of the kind, at its place or anywhere."""
    start, size = _place(other, rng), int(rng.integers(1, 256))
    at = start if rng.random() < 0.5 else _place(data, rng)
    return data[:at] + other[start : start + size] + data[at + size :]


def _graft(data: bytes, rng: Random, other: bytes) -> bytes:
    """The beginning of one file, the end of another."""
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _zero(data: bytes, rng: Random, other: bytes) -> bytes:
    at, size = _place(data, rng), int(rng.integers(1, 64))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def _token(data: bytes, rng: Random, other: bytes) -> bytes:
    """A word of the header replaced."""
    words = list(_TOKEN.finditer(data))
    if not words:
        return data
    word = words[int(rng.integers(len(words)))]
    new = _WORDS[rng.integers(len(_WORDS))].encode()
    return data[: word.start()] + new + data[word.end() :]


def _lines(data: bytes, rng: Random, other: bytes) -> bytes:
    """A line removed, repeated, or moved."""
    lines = data.splitlines(keepends=True) or [b""]
    line = lines[int(rng.integers(len(lines)))]
    if rng.random() < 0.5:
        lines.remove(line)
    lines[(at := int(rng.integers(len(lines) + 1))) : at] = [line] * int(rng.choice([0, 1, 3]))
    return b"".join(lines)


Edit = Callable[[bytes, Random, bytes], bytes]
BINARY: tuple[Edit, ...] = (
    _flip,
    _random_byte,
    _number,
    _number,
    _float,
    _truncate,
    _cut,
    _double,
    _insert,
    _splice,
    _graft,
    _zero,
)
TEXT: tuple[Edit, ...] = (*BINARY, *[_token] * 12, *[_lines] * 4)


def edited(data: bytes, rng: Random, other: bytes, edits: Sequence[Edit]) -> bytes:
    """One to three edits."""
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data = edits[int(rng.integers(len(edits)))](data, rng, other or data)
    return data


def edited_json(value: Any, rng: Random) -> Any:
    """A key or an entry replaced, removed or renamed, anywhere in it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(value)
    if not places:
        return _VALUES[rng.integers(len(_VALUES))]
    node, key = places[int(rng.integers(len(places)))]
    kind = rng.random()
    if kind < 0.6:
        node[key] = _VALUES[rng.integers(len(_VALUES))]
    elif kind < 0.8:
        del node[key]
    elif isinstance(node, dict):
        node[f"{key}{rng.integers(3)}"] = node.pop(key)
    else:
        node.insert(key, node[key])
    return value


def _json_text(data: bytes, rng: Random) -> bytes:
    return json.dumps(edited_json(json.loads(data), rng)).encode()


def mutate(source: Path, target: Path, rng: Random, other: Path) -> Path:
    """A damaged copy of a file, or of a folder with one damaged file in it."""
    target = target.with_name(target.name + source.name)
    if source.is_dir():
        shutil.copytree(source, target)
        files = sorted(p for p in target.rglob("*") if p.is_file())
        chosen = files[int(rng.integers(len(files)))]
        if rng.random() < 0.05:
            chosen.unlink()
        else:
            chosen.write_bytes(_damaged(chosen, rng, chosen.read_bytes()))
        return target
    beside = source.with_suffix(".raw")
    if beside.exists():  # a detached header keeps its samples
        shutil.copy(beside, target.with_name(beside.name))
    target.write_bytes(_damaged(source, rng, other.read_bytes()))
    return target


def _damaged(path: Path, rng: Random, other: bytes) -> bytes:
    data = path.read_bytes()
    inside = rng.random() < 0.6
    suffix = path.suffix.lower()
    if inside and suffix == ".gz":
        return gzip.compress(edited(gzip.decompress(data), rng, other, BINARY), 1, mtime=0)
    if inside and suffix == ".npz":
        return _npz(path, rng, other)
    if inside and suffix == ".h5":
        return _hdf5(path, rng)
    if inside and suffix == ".safetensors":
        return _safetensors(data, rng)
    if path.name in (".zarray", ".zattrs", ".zgroup", "zarr.json", ".zmetadata") and rng.random() < 0.8:
        return _json_text(data, rng)
    text = suffix in (".swc", ".csv", ".txt", ".nrrd", ".nhdr", ".tif", ".npy", "")
    return edited(data, rng, other, TEXT if text else BINARY)


def _npz(path: Path, rng: Random, other: bytes) -> bytes:
    """A member damaged, in a whole archive."""
    scratch = path.with_name(".scratch.npz")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as out:
        names = archive.namelist()
        chosen = names[int(rng.integers(len(names)))]
        for name in names:
            data = archive.read(name)
            out.writestr(name, edited(data, rng, data, TEXT) if name == chosen else data)
    data = scratch.read_bytes()
    scratch.unlink()
    return data


def _hdf5(path: Path, rng: Random) -> bytes:
    """Entries of acquisition headers, or words of the XML header, replaced in a whole file."""
    import h5py

    scratch = path.with_name(".scratch.h5")
    shutil.copy(path, scratch)
    with h5py.File(scratch, "r+") as file:
        group = next(iter(file.values()))
        if rng.random() < 0.5:
            text = bytes(np.asarray(group["xml"][()]).reshape(-1)[0])
            group["xml"][0] = edited(text, rng, text, (_token, _token, _flip, _cut)).replace(b"\0", b"")
        else:
            rows = group["data"][:]
            heads = rows["head"]
            name = heads.dtype.names[int(rng.integers(len(heads.dtype.names)))]
            at = int(rng.integers(len(rows)))
            column = heads[name]
            if column.dtype.names:
                column = column[column.dtype.names[int(rng.integers(len(column.dtype.names)))]]
            size = column.dtype.itemsize
            raw = int(_NUMBERS[rng.integers(len(_NUMBERS))]) % 256**size
            value = np.frombuffer(raw.to_bytes(size, "little"), column.dtype)[0]
            if rng.random() < 0.5:
                column[at] = value
            else:
                column[...] = value
            group["data"][:] = rows
    data = scratch.read_bytes()
    scratch.unlink()
    return data


def _safetensors(data: bytes, rng: Random) -> bytes:
    """The header, or the card in it, edited, its length made right."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    if rng.random() < 0.5:
        card = json.loads(header["__metadata__"]["invlearn"])
        header["__metadata__"]["invlearn"] = json.dumps(edited_json(card, rng))
    else:
        header = edited_json(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
