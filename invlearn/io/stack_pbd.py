"""Stacks in v3dpbd files: Vaa3D's lossless compression by repeats and small differences ("PBD").

After the header that v3draw has too, but for its key, the samples of all channels follow as one sequence of
records. A record begins with a code of one byte, which tells its kind and how many samples it gives:

=====================  ==================  ===================  =========================================
kind                   code, 8 bits        code, 16 bits        what follows
=====================  ==================  ===================  =========================================
literal                0-32: code + 1      0-31: code + 1       the samples
differences, 2 bits    33-127: code - 32                        packed, the first in the lowest bits
differences, 3 bits                        32-79: code - 31     packed, the first in the highest bits
differences, 4 bits                        80-182: code - 79    likewise (not written by Vaa3D itself)
differences, 5 bits                        183-222: code - 182  likewise (not written by Vaa3D itself)
repeat                 128-255: code - 127  223-255: code - 222  one sample
=====================  ==================  ===================  =========================================

Differences are to the sample before, in b bits 0, 1, ..., 2^(b-1), -1, -2, ..., filled up to whole bytes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from invlearn.io.stack_source import Source
from invlearn.io.stack_volumes import vaa3d_header

_KEY = b"v3d_volume_pkbitdf_encod"
_THREE_BITS = 33  # the type of stacks that Vaa3D rounded to eight levels
_MOST = {1: 64, 2: 11}  # samples that a byte can give, by bytes a sample


def read_v3dpbd(path: Path) -> Source:
    """`.v3dpbd`, Vaa3D's compressed stacks, unpacked into memory; x varies fastest, the channel slowest.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No such stack, a truncated or damaged one, or one of another depth than 8 or 16 bits.
    """
    order, width, shape, start = vaa3d_header(path, _KEY, "v3dpbd")
    if width == _THREE_BITS:
        raise ValueError(
            f"{path} holds 3-bit samples, which are not read; save it from Vaa3D as v3draw or TIFF"
        )
    if width not in _MOST:
        raise ValueError(f"{path} is no v3dpbd stack of 8 or 16 bits: {width} bytes a sample; save it again")
    count = math.prod(shape)
    given = np.fromfile(path, np.uint8, offset=start)
    filled = 0
    if count <= _MOST[width] * len(given):
        samples = np.empty(count, np.dtype(f"u{width}"))
        filled = _unpack()(given, samples, width == 2, order == ">")
    if filled > count:
        raise ValueError(
            f"{path} is damaged: it has more samples than its sizes allow; copy or save it again"
        )
    if filled < count:
        raise ValueError(f"{path} is truncated: it ends before its samples do; copy or save it again")
    return Source(samples.reshape(shape[::-1]), "CZYX", None, "v3dpbd has no voxel size")


@lru_cache(maxsize=1)
def _unpack() -> Any:
    """The compiled loop over the records; compiling waits until a stack needs it."""
    from numba import njit

    try:
        return njit(cache=True, nogil=True)(unpack)
    except RuntimeError:  # nowhere to keep it: compiled once a process
        return njit(nogil=True)(unpack)


@no_type_check
def unpack(given, samples, wide, swapped):
    """Fill `samples`, uint8 or (`wide`) uint16, from bytes; how many there were, as far as records go.

    `swapped`: the high byte comes first. A record that is cut off by the end of the bytes gives nothing; one
    that goes beyond the samples ends it.
    """
    width = 2 if wide else 1
    literals, differences = (31, 222) if wide else (32, 127)
    low, high = (1, 0) if swapped else (0, 1)
    at, filled, last = 0, 0, 0
    while filled < len(samples) and at < len(given):
        code = np.int64(given[at])
        at += 1
        bits = 0
        if code <= literals:
            count = code + 1
            size = count * width
        elif code > differences:
            count = code - differences
            size = width
        else:
            if not wide:
                bits, count = 2, code - 32
            elif code < 80:
                bits, count = 3, code - 31
            elif code < 183:
                bits, count = 4, code - 79
            else:
                bits, count = 5, code - 182
            size = (count * bits + 7) // 8
        if at + size > len(given):
            return filled
        if filled + count > len(samples):
            return filled + count
        for k in range(count):
            if bits:
                place, shift = at + k * bits // 8, k * bits % 8
                window = np.int64(given[place]) << 8
                if shift + bits > 8:
                    window |= np.int64(given[place + 1])
                window >>= 8 + shift if not wide else 16 - bits - shift
                half = 1 << (bits - 1)
                step = window & (2 * half - 1)
                last += step if step <= half else half - step
                last &= 0xFFFF if wide else 0xFF
            elif k == 0 or code <= literals:
                place = at + k * width
                last = np.int64(given[place + low * (width - 1)])
                if wide:
                    last |= np.int64(given[place + high]) << 8
            samples[filled + k] = last
        filled += count
        at += size
    return filled
