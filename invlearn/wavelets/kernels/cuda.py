"""Triton kernels of one analysis step and of its adjoint: all axes in one pass over memory.

A program computes the sub-bands (or the samples) of a block of output positions. It reads every sample of
its windows directly, which the caches serve; for long filters, where the windows grow with the number of
axes, the axes are done one after another instead (`_FUSED_TAPS`). Sums are in float32 for 16-bit types.
"""
# mypy: disable-error-code="no-untyped-def, arg-type"

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from invlearn.wavelets.polyphase import Analysis, adjoint_tables, fold, forward_tables

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_BLOCK = 256  # output positions of a program
_FUSED_TAPS = 64  # up to this many samples a window, all axes go in one pass


@triton.jit
def _source(table, position, inside):
    """A table entry and whether it stands for a sample (see `polyphase.forward_tables`)."""
    source = tl.load(table + position, mask=inside, other=-1)
    return tl.where(source >= 0, source, ~source), source >= 0


@triton.jit
def _pick(b0, b1, b2, b3, b4, b5, b6, b7, INDEX: tl.constexpr):
    if INDEX < 4:
        low = b0 if INDEX == 0 else b1
        high = b2 if INDEX == 2 else b3
        return low if INDEX < 2 else high
    else:
        low = b4 if INDEX == 4 else b5
        high = b6 if INDEX == 6 else b7
        return low if INDEX < 6 else high


@triton.jit
def _analyse_kernel(
    x, b0, b1, b2, b3, b4, b5, b6, b7, table_d, table_h, table_w, taps, total,
    D, H, W, d, h, w,
    LD: tl.constexpr, LH: tl.constexpr, LW: tl.constexpr, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sub-bands of (batch, D, H, W); `taps` is (channel, tap).

    Either W, or H and W, or all axes are transformed, or D alone; an axis with one tap stays as it is.
    """
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < total
    j, i, k = position % w, position // w % h, position // w // h % d
    batch = position // w // h // d
    zero = tl.zeros([BLOCK], dtype=taps.dtype.element_ty)
    aaa, aad, ada, add, daa, dad, dda, ddd = zero, zero, zero, zero, zero, zero, zero, zero
    for t in tl.static_range(LD):
        if LD > 1:
            z, in_z = _source(table_d, 2 * k + t, inside)
        else:
            z, in_z = k, inside
        aa, ad, da, dd = zero, zero, zero, zero
        for r in tl.static_range(LH):
            if LH > 1:
                y, in_y = _source(table_h, 2 * i + r, inside)
            else:
                y, in_y = i, inside
            a, c = zero, zero
            for s in tl.static_range(LW):
                if LW > 1:
                    q, in_x = _source(table_w, 2 * j + s, inside)
                else:
                    q, in_x = j, inside
                at = ((batch * D + z) * H + y) * W + q
                value = tl.load(x + at, mask=inside & in_z & in_y & in_x, other=0.0).to(zero.dtype)
                if LW > 1:
                    a += tl.load(taps + s) * value
                    c += tl.load(taps + L + s) * value
                else:
                    a += value
            if LH > 1:
                low, high = tl.load(taps + r), tl.load(taps + L + r)
                aa += low * a
                ad += low * c
                da += high * a
                dd += high * c
            else:
                aa += a
                ad += c
        if LD > 1:
            low, high = tl.load(taps + t), tl.load(taps + L + t)
            aaa += low * aa
            aad += low * ad
            ada += low * da
            add += low * dd
            daa += high * aa
            dad += high * ad
            dda += high * da
            ddd += high * dd
        else:
            aaa += aa
            aad += ad
            ada += da
            add += dd
    tl.store(b0 + position, aaa.to(b0.dtype.element_ty), mask=inside)
    if LW > 1:
        tl.store(b1 + position, aad.to(b0.dtype.element_ty), mask=inside)
    if LH > 1:
        tl.store(b2 + position, ada.to(b0.dtype.element_ty), mask=inside)
        tl.store(b3 + position, add.to(b0.dtype.element_ty), mask=inside)
    if LD > 1:
        tl.store((b4 if LW > 1 else b1) + position, daa.to(b0.dtype.element_ty), mask=inside)
        if LW > 1:
            tl.store(b5 + position, dad.to(b0.dtype.element_ty), mask=inside)
            tl.store(b6 + position, dda.to(b0.dtype.element_ty), mask=inside)
            tl.store(b7 + position, ddd.to(b0.dtype.element_ty), mask=inside)


@triton.jit
def _target(index, PHASE: tl.constexpr, size, shift, TAPS: tl.constexpr):
    """Which sample the phase of a pair is, and whether there is one."""
    if TAPS == 0:
        return index, index >= 0
    sample = 2 * index + PHASE - shift
    sample = tl.where(sample < 0, sample + size, sample)
    return sample, sample < size


@triton.jit
def _synthesise_kernel(
    x, b0, b1, b2, b3, b4, b5, b6, b7, table_d, table_h, table_w, taps, total,
    D, H, W, d, h, w, pairs_d, pairs_h, pairs_w, shift,
    QD: tl.constexpr, QH: tl.constexpr, QW: tl.constexpr, Q: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Samples (batch, D, H, W) of sub-bands; an axis with 0 taps stays. `taps` is (phase, channel, tap)."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < total
    j, i, k = position % pairs_w, position // pairs_w % pairs_h, position // pairs_w // pairs_h % pairs_d
    batch = position // pairs_w // pairs_h // pairs_d
    CD: tl.constexpr = 2 if QD > 0 else 1
    CH: tl.constexpr = 2 if QH > 0 else 1
    CW: tl.constexpr = 2 if QW > 0 else 1
    zero = tl.zeros([BLOCK], dtype=taps.dtype.element_ty)
    x000, x001, x010, x011, x100, x101, x110, x111 = zero, zero, zero, zero, zero, zero, zero, zero
    for td in tl.static_range(CD * (QD if QD > 0 else 1)):
        if QD > 0:
            z, in_z = _source(table_d, k + td % Q, inside)
        else:
            z, in_z = k, inside
        x00, x01, x10, x11 = zero, zero, zero, zero
        for th in tl.static_range(CH * (QH if QH > 0 else 1)):
            if QH > 0:
                y, in_y = _source(table_h, i + th % Q, inside)
            else:
                y, in_y = i, inside
            x0, x1 = zero, zero
            for tw in tl.static_range(CW * (QW if QW > 0 else 1)):
                if QW > 0:
                    q, in_x = _source(table_w, j + tw % Q, inside)
                else:
                    q, in_x = j, inside
                band = _pick(b0, b1, b2, b3, b4, b5, b6, b7, ((td // Q) * CH + th // Q) * CW + tw // Q)
                at = ((batch * d + z) * h + y) * w + q
                value = tl.load(band + at, mask=inside & in_z & in_y & in_x, other=0.0).to(zero.dtype)
                if QW > 0:
                    x0 += tl.load(taps + tw) * value
                    x1 += tl.load(taps + 2 * Q + tw) * value
                else:
                    x0 += value
            if QH > 0:
                even, odd = tl.load(taps + th), tl.load(taps + 2 * Q + th)
                x00 += even * x0
                x01 += even * x1
                x10 += odd * x0
                x11 += odd * x1
            else:
                x00 += x0
                x01 += x1
        if QD > 0:
            even, odd = tl.load(taps + td), tl.load(taps + 2 * Q + td)
            x000 += even * x00
            x001 += even * x01
            x010 += even * x10
            x011 += even * x11
            x100 += odd * x00
            x101 += odd * x01
            x110 += odd * x10
            x111 += odd * x11
        else:
            x000 += x00
            x001 += x01
            x010 += x10
            x011 += x11
    for phase in tl.static_range(8):
        # an axis that stays as it is has one phase only
        if (phase < 4 or QD > 0) and (phase % 4 < 2 or QH > 0) and (phase % 2 == 0 or QW > 0):
            z, in_z = _target(k, phase // 4, D, shift, QD)
            y, in_y = _target(i, phase // 2 % 2, H, shift, QH)
            q, in_x = _target(j, phase % 2, W, shift, QW)
            value = _pick(x000, x001, x010, x011, x100, x101, x110, x111, phase)
            at = ((batch * D + z) * H + y) * W + q
            tl.store(x + at, value.to(x.dtype.element_ty), mask=inside & in_z & in_y & in_x)


@lru_cache(maxsize=256)
def _plan(
    analysis: Analysis, dtype: torch.dtype, device: torch.device, adjoint: bool
) -> tuple[list[Tensor], Tensor]:
    """Tables and taps on the device."""
    tables = [table.to(device) for table in (adjoint_tables if adjoint else forward_tables)(analysis)]
    taps = torch.tensor((analysis.low, analysis.high), dtype=torch.float64)
    if adjoint:  # (channel, tap) to (phase, channel, tap)
        taps = taps.unflatten(1, (-1, 2)).permute(2, 0, 1).flip(-1)
    return tables, taps.contiguous().to(device, torch.promote_types(dtype, torch.float32))


def _groups(analysis: Analysis) -> list[list[int]]:
    """The axes of each pass: all of them if the windows are small, else one after another."""
    axes = list(range(analysis.ndim))
    fused = analysis.ndim == 1 or len(analysis.low) ** analysis.ndim <= _FUSED_TAPS
    return [axes] if fused else [[axis] for axis in axes]


def _layout(shape: Sequence[int], axes: list[int], ndim: int) -> tuple[list[int], list[bool]]:
    """The trailing `ndim` axes as the kernels' (D, H, W), and which of these a pass transforms."""
    sizes = list(shape[len(shape) - ndim :])
    if len(axes) == ndim:
        return [1] * (3 - ndim) + sizes, [False] * (3 - ndim) + [True] * ndim
    return [sizes[axes[0]], 1, math.prod(sizes[axes[0] + 1 :])], [True, False, False]


def _pointers(
    bands: Sequence[Tensor], tables: Sequence[Tensor], axes: list[int], used: list[bool]
) -> list[Tensor]:
    """Eight sub-bands and three tables, with stand-ins for those that the kernel will not touch."""
    chosen = iter(axes)
    placed = [tables[next(chosen)] if use else tables[0] for use in used]
    return [*bands, *[bands[0]] * (8 - len(bands)), *placed]


def _analyse_axes(x: Tensor, analysis: Analysis, axes: list[int]) -> list[Tensor]:
    ndim, length = analysis.ndim, len(analysis.low)
    tables, taps = _plan(analysis, x.dtype, x.device, False)
    shape = list(x.shape)
    for axis in axes:
        shape[x.ndim - ndim + axis] = analysis.counts[axis]
    bands = [x.new_empty(shape) for _ in range(2 ** len(axes))]
    sizes, used = _layout(x.shape, axes, ndim)
    counts, _ = _layout(shape, axes, ndim)
    if total := bands[0].numel():
        with torch.cuda.device_of(x):
            _analyse_kernel[(triton.cdiv(total, _BLOCK),)](
                x, *_pointers(bands, tables, axes, used), taps, total, *sizes, *counts,
                *(length if use else 1 for use in used), length, _BLOCK,
            )  # fmt: skip
    return bands


def analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    """`polyphase.analyse` for a real tensor of `DTYPES` on a CUDA device."""
    bands = [x.detach().contiguous()]
    for axes in _groups(analysis):
        bands = [part for band in bands for part in _analyse_axes(band, analysis, axes)]
    return bands


def _synthesise_axes(bands: Sequence[Tensor], analysis: Analysis, axes: list[int]) -> Tensor:
    first, ndim, half = bands[0], analysis.ndim, analysis.half
    tables, taps = _plan(analysis, first.dtype, first.device, True)
    shape, paired = list(first.shape), list(first.shape)
    for axis in axes:
        at = first.ndim - ndim + axis
        shape[at], paired[at] = analysis.unfolded[axis], analysis.pairs(axis)
    x = first.new_empty(shape)
    sizes, used = _layout(shape, axes, ndim)
    counts, _ = _layout(first.shape, axes, ndim)
    pairs, _ = _layout(paired, axes, ndim)
    if total := math.prod(paired):
        with torch.cuda.device_of(x):
            _synthesise_kernel[(triton.cdiv(total, _BLOCK),)](
                x, *_pointers(bands, tables, axes, used), taps, total, *sizes, *counts, *pairs,
                analysis.shift, *(half if use else 0 for use in used), half, _BLOCK,
            )  # fmt: skip
    return x


def synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    """`polyphase.synthesise` for real tensors of `DTYPES` on a CUDA device."""
    bands = [band.detach().contiguous() for band in bands]
    for axes in reversed(_groups(analysis)):
        step = 2 ** len(axes)  # the last axis' channel varies fastest
        bands = [_synthesise_axes(bands[k : k + step], analysis, axes) for k in range(0, len(bands), step)]
    x = bands[0]
    for k in range(analysis.ndim):
        x = fold(x, analysis, k)
    return x
