"""MATLAB files of version 5, as SciPy writes and reads them; what is damaged is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import eye

from invlearn.io.matlab import list_variables, read_variable

DTYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c16", "c8", "?")


def both(path: Path) -> dict[str, np.ndarray]:
    """All full arrays, compared with what SciPy reads."""
    found = {v.name: read_variable(path, v) for v in list_variables(path) if not v.dtype.hasobject}
    expected = loadmat(path)
    for name, values in found.items():
        assert values.shape == expected[name].shape
        np.testing.assert_array_equal(values, expected[name])
    return found


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), min_size=2, max_size=4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_arrays_are_those_of_scipy(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: list[int], packed: bool, seed: int
) -> None:
    path = tmp_path_factory.mktemp("m") / "a.mat"
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    if values.dtype.kind == "c":
        values = values + 2j * values
    savemat(path, {"first": values, "a_long_name": np.arange(7.0)}, do_compression=packed)
    found = both(path)
    assert set(found) == {"first", "a_long_name"}
    assert found["first"].dtype == values.dtype


def test_other_variables_are_listed_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    others: dict[str, Any] = {"text": "abc", "cell": np.array([1, "a"], object), "s": {"x": 1.0}, "e": eye(3)}
    savemat(path, {**others, "x": np.eye(2)})
    listed = {v.name: v for v in list_variables(path)}
    assert set(listed) == {*others, "x"}
    for name in others:
        with pytest.raises(ValueError, match=f"{name} is no full array of numbers"):
            read_variable(path, listed[name])
    np.testing.assert_array_equal(read_variable(path, listed["x"]), np.eye(2))


def test_the_other_byte_order(tmp_path: Path) -> None:
    """Made by hand, as MATLAB on other machines wrote it."""
    flags = struct.pack(">II", 6, 8) + struct.pack(">BBBBI", 0, 0, 0, 6, 0)
    shape = struct.pack(">II2i", 5, 8, 2, 3)
    name = struct.pack(">HH", 1, 1) + b"x\0\0\0"  # a small element
    real = struct.pack(">II6d", 9, 48, *range(6))
    body = flags + shape + name + real
    head = b"MATLAB 5.0".ljust(116) + bytes(8) + struct.pack(">H", 0x0100) + b"MI"
    path = tmp_path / "big.mat"
    path.write_bytes(head + struct.pack(">II", 14, len(body)) + body)
    (variable,) = list_variables(path)
    assert (variable.name, variable.shape, variable.dtype) == ("x", (2, 3), np.float64)
    np.testing.assert_array_equal(read_variable(path, variable), np.arange(6.0).reshape(3, 2).T)


def damaged(content: bytes, kind: str) -> bytes:
    changed = bytearray(content)
    at = content.index(struct.pack("<II", 5, 8)) + 8  # the dimensions
    if kind == "version":
        changed[124:126] = b"\0\2"
    elif kind == "another file":
        changed = bytearray(200)
    elif kind == "type":  # SciPy looks it up in a table without seeing whether it is in it
        changed[at + 16 + 7 * 0 : at + 18] = b"\x11\0"
        changed[content.index(struct.pack("<II", 9, 72)) :][:4] = b"\x11\0\0\0"
        at = content.index(struct.pack("<II", 9, 72))
        changed[at : at + 4] = struct.pack("<I", 17)
    elif kind == "shape":
        changed[at : at + 8] = struct.pack("<ii", 3, 70000)
    elif kind == "negative":
        changed[at : at + 8] = struct.pack("<ii", -3, 3)
    elif kind == "length":
        changed[132:136] = struct.pack("<I", 2**31)
    else:
        changed = changed[:-20]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["version", "another file", "type", "shape", "negative", "length", "end"])
def test_damage_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(9.0).reshape(3, 3) + 0.5})
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(ValueError, match=r"\w"):
        read_variable(path, list_variables(path)[0])


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(9.0) + 0.5}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (variable,) = list_variables(path)
    with pytest.raises((ValueError, zlib.error)):
        read_variable(path, variable)
