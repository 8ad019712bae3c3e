"""One analysis step of a two-channel filter bank and its exact adjoint, in plain torch.

Everything the transforms compute is one linear map, `Analysis`, or its adjoint: `dwt` is an analysis
with the decomposition filters, `idwt` the adjoint of an analysis with the synthesis filters, and each is
the derivative of the other. The functions here are the reference: they work on every device and dtype,
trace into plain ATen operations, and are what the compiled kernels are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from invlearn.wavelets.filters import FilterBank, Mode


@dataclass(frozen=True)
class Analysis:
    """What one analysis step does along each of its axes.

    Along an axis of `n` samples, ``c[i] = Σ_t taps[t] x[2i - start + t]`` for ``i`` in ``0 … count - 1``,
    samples outside ``0 … n - 1`` being supplied by `rule`.

    Parameters
    ----------
    low, high : tuple of float
        Correlation taps of the two channels, of one even length.
    sizes, counts : tuple of int
        Samples and coefficients (per channel) along each axis.
    start : int
        How far the first window reaches before sample 0.
    rule : Mode
        How the signal goes on beyond its ends.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    start: int
    rule: Mode

    @property
    def ndim(self) -> int:
        return len(self.sizes)

    @property
    def half(self) -> int:
        """Taps per phase and channel."""
        return len(self.low) // 2

    @property
    def lead(self) -> int:
        """First pair of the adjoint's output, counted in coefficient positions."""
        if self.rule in ("periodization", "zero"):
            return self.start // 2
        return 0

    @property
    def shift(self) -> int:
        """1 where a pair of the adjoint's output begins at an odd sample (circular axes only)."""
        return self.start % 2 if self.rule == "periodization" else 0

    @property
    def unfolded(self) -> tuple[int, ...]:
        """Sizes of the adjoint's output before folding."""
        if self.rule == "zero":
            return self.sizes
        return tuple(2 * self.pairs(k) for k in range(self.ndim))

    def pairs(self, axis: int) -> int:
        """Pairs of samples that the adjoint computes along `axis` before folding."""
        if self.rule == "periodization":
            return self.counts[axis]
        if self.rule == "zero":
            return (self.sizes[axis] + 1) // 2
        return self.counts[axis] + self.half - 1


def forward_analysis(bank: FilterBank, sizes: Sequence[int], mode: Mode) -> Analysis:
    """The analysis that `dwt` applies to axes of these sizes."""
    length = len(bank.dec_lo)
    if mode == "periodization":
        counts, start = tuple((n + 1) // 2 for n in sizes), length // 2 - 1
    else:
        counts, start = tuple((n + length - 1) // 2 for n in sizes), length - 2
    return Analysis(bank.dec_lo[::-1], bank.dec_hi[::-1], tuple(sizes), counts, start, mode)


def inverse_analysis(bank: FilterBank, counts: Sequence[int], mode: Mode) -> Analysis:
    """The analysis whose adjoint `idwt` applies to sub-bands of these sizes."""
    length = len(bank.dec_lo)
    if mode == "periodization":
        sizes, start = tuple(2 * c for c in counts), length // 2 - 1
        rule: Mode = "periodization"
    else:
        sizes, start, rule = tuple(2 * c - length + 2 for c in counts), length - 2, "zero"
    return Analysis(bank.rec_lo, bank.rec_hi, sizes, tuple(counts), start, rule)


def source_positions(
    first: int, length: int, n: int, rule: Mode, device: torch.device | None = None
) -> Tensor:
    """Which of `n` samples stands at each of the positions ``first … first + length - 1``.

    The rule "zero" has no source outside: -1 stands there.
    """
    p = torch.arange(first, first + length, device=device)
    if rule == "zero":
        return torch.where((p >= 0) & (p < n), p, -1)
    if rule == "constant":
        return p.clamp(0, n - 1)
    if rule == "periodic":
        return p % n
    if rule == "periodization":  # an odd signal repeats its last sample once
        return (p % (n + n % 2)).clamp(max=n - 1)
    if rule == "symmetric":
        p = p % (2 * n)
        return torch.minimum(p, 2 * n - 1 - p)
    p = p % max(2 * n - 2, 1)
    return torch.minimum(p, 2 * n - 2 - p)


def _table(first: int, length: int, n: int, rule: Mode) -> Tensor:
    source = source_positions(first, length, n, rule)
    return torch.where(source >= 0, source, ~source_positions(first, length, n, "constant"))


def forward_tables(analysis: Analysis) -> list[Tensor]:
    """For the kernels: along each axis, the source of every sample that the windows of `analyse` see.

    Window i covers the entries ``2i … 2i + L - 1``. ``~p`` marks a zero beyond the border next to sample p.
    """
    reach = analysis.half - 1
    return [
        _table(-analysis.start, 2 * (count + reach), n, analysis.rule)
        for n, count in zip(analysis.sizes, analysis.counts, strict=True)
    ]


def adjoint_tables(analysis: Analysis) -> list[Tensor]:
    """Likewise the coefficients that `synthesise` sees: pair i draws on the entries ``i … i + L / 2 - 1``."""
    reach = analysis.half - 1
    rule: Mode = "periodic" if analysis.rule == "periodization" else "zero"
    return [
        _table(analysis.lead - reach, analysis.pairs(k) + reach, count, rule)
        for k, count in enumerate(analysis.counts)
    ]


def _extend(x: Tensor, axis: int, first: int, length: int, rule: Mode) -> Tensor:
    """`x` at the positions ``first … first + length - 1`` (`first` <= 0) along `axis`."""
    n = x.shape[axis]
    left, body = -first, min(n, first + length)
    right = length - left - body
    if rule == "zero":
        pads = [0, 0] * (x.ndim - 1 - axis) + [left, right]
        return functional.pad(x.narrow(axis, 0, body), pads)
    pieces = [x.narrow(axis, 0, body)]
    if left > 0:
        index = source_positions(first, left, n, rule, x.device)
        pieces.insert(0, x.index_select(axis, index))
    if right > 0:
        index = source_positions(body, right, n, rule, x.device)
        pieces.append(x.index_select(axis, index))
    return torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0]


def _combine(streams: Sequence[Tensor], taps: Sequence[Sequence[float]], axis: int, length: int) -> Tensor:
    """``Σ_c Σ_u taps[c][u] streams[c][u + i]`` for `length` values of ``i`` along `axis`."""
    total: Tensor | None = None
    for stream, weights in zip(streams, taps, strict=True):
        for u, weight in enumerate(weights):
            if weight != 0.0:
                term = stream.narrow(axis, u, length)
                total = term * weight if total is None else torch.add(total, term, alpha=weight)
    return torch.zeros_like(streams[0].narrow(axis, 0, length)) if total is None else total


def analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    """Analysis over the last axes of `x`: the 2^ndim sub-bands, in the order of `pywt.dwtn`.

    Parameters
    ----------
    x : Tensor, (*batch, *sizes), floating or complex
    analysis : Analysis

    Returns
    -------
    list of Tensor, each (*batch, *counts)
        The first axis' channel varies slowest, low before high.
    """
    bands = [x]
    for k in range(analysis.ndim):
        axis = x.ndim - analysis.ndim + k
        count = analysis.counts[k]
        length = 2 * (count + analysis.half - 1)
        split = []
        for band in bands:
            ext = _extend(band, axis, -analysis.start, length, analysis.rule).unflatten(axis, (-1, 2))
            phases = [ext.select(axis + 1, 0), ext.select(axis + 1, 1)]
            for taps in (analysis.low, analysis.high):
                split.append(_combine(phases, [taps[0::2], taps[1::2]], axis, count))
        bands = split
    return bands


def synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    """The exact adjoint of `analyse`.

    Parameters
    ----------
    bands : sequence of 2^ndim Tensors, each (*batch, *counts)
    analysis : Analysis

    Returns
    -------
    Tensor, (*batch, *sizes)
    """
    current = list(bands)
    half, lead, shift = analysis.half, analysis.lead, analysis.shift
    low, high = analysis.low, analysis.high
    for k in range(analysis.ndim - 1, -1, -1):  # the last axis' channel varies fastest
        axis = current[0].ndim - analysis.ndim + k
        pairs = analysis.pairs(k)
        rule: Mode = "periodic" if analysis.rule == "periodization" else "zero"
        merged = []
        for a, d in zip(current[0::2], current[1::2], strict=True):
            streams = [_extend(c, axis, lead - half + 1, pairs + half - 1, rule) for c in (a, d)]
            phases = [_combine(streams, [low[r::2][::-1], high[r::2][::-1]], axis, pairs) for r in (0, 1)]
            full = torch.stack(phases, axis + 1).flatten(axis, axis + 1)
            if shift:
                full = full.roll(-1, axis)
            merged.append(fold(full, analysis, k))
        current = merged
    return current[0]


def fold(full: Tensor, analysis: Analysis, k: int) -> Tensor:
    """Adjoint of the border rule of axis `k`: adds what lies beyond the ends to its source samples."""
    axis = full.ndim - analysis.ndim + k
    n, length = analysis.sizes[k], full.shape[axis]
    left = 0 if analysis.rule in ("periodization", "zero") else analysis.start
    out = full.narrow(axis, left, n)
    if analysis.rule == "zero":
        return out
    for first, count, at in ((-left, left, 0), (n, length - left - n, left + n)):
        if count > 0:
            index = source_positions(first, count, n, analysis.rule, full.device)
            out = out.index_add(axis, index, full.narrow(axis, at, count))
    return out
