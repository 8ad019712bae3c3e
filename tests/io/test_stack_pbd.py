"""Compressed stacks of Vaa3D, against an encoder that takes any record that is allowed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from invlearn.io.stacks import open_stack

KEY = b"v3d_volume_pkbitdf_encod"
SHAPE = (2, 4, 11, 13)  # channels, z, y, x
FIRST = {1: {2: 33}, 2: {3: 32, 4: 80, 5: 183}}  # code of one difference, by bytes a sample and bits
LAST = {1: {2: 127}, 2: {3: 79, 4: 182, 5: 222}}
REPEAT = {1: 128, 2: 223}
LITERALS = {1: 33, 2: 32}


def packed(values: list[int], bits: int, lowest_first: bool) -> bytes:
    """Numbers of a few bits in whole bytes, through a text of digits."""
    digits = [format(v, f"0{bits}b") for v in values]
    if lowest_first:
        text = "".join(d[::-1] for d in digits)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[k : k + 8][::-1], 2) for k in range(0, len(text), 8))
    text = "".join(digits)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8))


def run(steps: np.ndarray, most: int, low: int, high: int) -> int:
    """How many steps from the first on are between two numbers."""
    outside = np.flatnonzero((steps[:most] < low) | (steps[:most] > high))
    return int(outside[0]) if len(outside) else len(steps[:most])


def encoded(data: np.ndarray, order: str, seed: int = 0) -> bytes:
    """Records of random kinds and lengths, among those that fit."""
    rng, width = np.random.default_rng(seed), data.itemsize
    x = data.ravel().astype(np.int64)
    steps = np.diff(x, prepend=0)
    raw = data.astype(data.dtype.newbyteorder(order)).tobytes()
    out, at = bytearray(), 0
    while at < len(x):
        kinds = {}
        for bits, code in FIRST[width].items():
            half = 1 << (bits - 1)
            longest = LAST[width][bits] - code + 1
            if count := run(steps[at:], longest, 1 - half, half):
                kinds[bits] = count
        same = 1 + run(steps[at + 1 :], 255 - REPEAT[width], 0, 0)
        kinds |= {0: min(LITERALS[width], len(x) - at), 1: same}
        kind = int(rng.choice([k for k in kinds if k != 1 or same > 2] or [0]))
        count = int(rng.integers(1, kinds[kind] + 1)) if rng.random() < 0.5 else kinds[kind]
        if kind == 0:
            out += bytes([count - 1]) + raw[at * width : (at + count) * width]
        elif kind == 1:
            out += bytes([REPEAT[width] + count - 1]) + raw[at * width : (at + 1) * width]
        else:
            half = 1 << (kind - 1)
            codes = [int(s) if s >= 0 else half - int(s) for s in steps[at : at + count]]
            out += bytes([FIRST[width][kind] + count - 1]) + packed(codes, kind, width == 1)
        at += count
    return bytes(out)


def header(width: int, shape: tuple[int, ...], order: str) -> bytes:
    flag = b"L" if order == "<" else b"B"
    return KEY + flag + struct.pack(f"{order}h4i", width, *shape[::-1])


def written(path: Path, data: np.ndarray, order: str = "<", seed: int = 0) -> Path:
    path.write_bytes(header(data.itemsize, data.shape, order) + encoded(data, order, seed))
    return path


def stacks(dtype: type, seed: int) -> np.ndarray:
    """Noise, slopes, and flat parts."""
    rng = np.random.default_rng(seed)
    x = np.abs(np.cumsum(rng.integers(-9, 10, np.prod(SHAPE)) * (rng.random(np.prod(SHAPE)) < 0.6)))
    jumps = rng.random(x.size) < 0.02
    x[jumps] = rng.integers(0, np.iinfo(dtype).max, jumps.sum())
    x = np.minimum(x, np.iinfo(dtype).max).reshape(SHAPE)
    x[:, 1] = 7
    return x.astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_record_is_read(tmp_path: Path, dtype: type, order: str) -> None:
    for seed in range(6):
        data = stacks(dtype, seed)
        path = written(tmp_path / "a.v3dpbd", data, order, seed)
        for channel in (0, 1):
            stack = open_stack(path, channel=channel)
            assert (stack.shape, stack.dtype, stack.voxel_size) == (SHAPE[1:], dtype, None)
            np.testing.assert_array_equal(stack.array(), data[channel])


def test_records_that_were_counted_by_hand(tmp_path: Path) -> None:
    # 5; then +1, -1, +2, 0 in two bits from the lowest; then four times 9
    small = bytes([0, 5, 36, 0b00_10_11_01, 131, 9])
    path = tmp_path / "small.v3dpbd"
    path.write_bytes(header(1, (1, 2, 2, 2), "<") + small[:4] + bytes([130, 9]))
    assert open_stack(path).array().ravel().tolist() == [5, 6, 5, 7, 7, 9, 9, 9]
    # 300; then +4, -3, -1 in three bits from the highest: 100 111 101; then twice 1
    wide = bytes([0, 44, 1, 34, 0b10011110, 0b10000000, 226, 1, 0])
    path.write_bytes(header(2, (1, 2, 2, 2), "<") + wide)
    assert open_stack(path).array().ravel().tolist() == [300, 304, 301, 300, 1, 1, 1, 1]


def test_sums_go_round(tmp_path: Path) -> None:
    """0 - 1 is the largest number, as in the arithmetic of the samples' own type."""
    path = tmp_path / "a.v3dpbd"
    path.write_bytes(header(1, (1, 2, 2, 2), "<") + bytes([40, 0b00_00_00_11, 0]))
    assert open_stack(path).array().ravel().tolist() == [255] * 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_cut_off_is_refused(tmp_path: Path, dtype: type) -> None:
    data = stacks(dtype, 3)
    path = written(tmp_path / "a.v3dpbd", data)
    whole = path.read_bytes()
    for keep in (len(whole) - 1, len(whole) // 2, 60, 43):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"a\.v3dpbd is truncated"):
            open_stack(path, channel=0)
    for keep in (42, 10, 0):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="is no v3dpbd stack"):
            open_stack(path)
    path.write_bytes(whole + b"more")  # as files that were padded
    np.testing.assert_array_equal(open_stack(path, channel=1).array(), data[1])


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.v3dpbd"
    for head, message in (
        (header(1, (1, 2, 2, 2), "<") + bytes([140, 1]), "more samples than its sizes allow"),
        (header(33, SHAPE, "<"), "3-bit samples"),
        (header(4, SHAPE, "<"), "4 bytes a sample"),
        (header(1, (1, 0, 2, 2), "<"), "sizes"),
        (header(1, (30000, 30000, 30000, 30000), "<") + bytes(99), "truncated"),  # nothing is reserved for it
        (b"raw_image_stack_by_hpeng" + header(1, SHAPE, "<")[24:], "its header is another"),
    ):
        path.write_bytes(head)
        with pytest.raises(ValueError, match=message):
            open_stack(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_stack(tmp_path / "none.v3dpbd")
    path.write_bytes(header(1, (1, 2, 2, 2), "<") + bytes([135, 4]))
    with pytest.raises(ValueError, match="no 1"):
        open_stack(path, channel=1)
