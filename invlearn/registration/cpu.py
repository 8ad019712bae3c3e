"""Runs the processor kernels of `loops` on tensors, in as many threads as torch uses."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from invlearn.wavelets.kernels.cpu import in_threads

#: Of (source, target, first, last): some planes or rows of a channel.
Filter = Callable[[np.ndarray, np.ndarray, int, int], None]


@functools.lru_cache(maxsize=1)
def _loops() -> ModuleType:
    """The compiled kernels; compiling them, once a machine, takes seconds."""
    from invlearn.registration import loops

    return loops


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels can compute this: float32 on the processor, and no gradient is wanted."""
    grad = torch.is_grad_enabled()
    return all(
        t.device.type == "cpu" and t.dtype == torch.float32 and not (grad and t.requires_grad)
        for t in tensors
    )


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _planes(work: Callable[[int, int], None], count: int, samples: int) -> None:
    in_threads(work, count, samples)


def warp(image: Tensor, field: Tensor, *, add: bool = False, out: Tensor | None = None) -> Tensor:
    """``image(p + u(p))`` for ``(C, D, H, W)`` and ``(3, d, h, w)``; plus the field if `add`."""
    x, u = _array(image), _array(field)
    result = torch.empty((x.shape[0], *u.shape[1:])) if out is None else out
    y = result.numpy()
    if y.size:
        _planes(lambda a, b: _loops().warp(x, u, y, add, a, b), u.shape[1], y.size)
    return result


def smooth(x: Tensor, taps: Sequence[Tensor], out: Tensor) -> Tensor:
    """Symmetric separable filter of ``(C, D, H, W)``, half taps for each axis; `out` may be `x`."""
    tz, ty, tx = (_array(t) for t in taps)
    return _by_channels(
        x,
        out,
        lambda source, between, a, b: _loops().smooth_planes(source, between, ty, tx, a, b),
        lambda between, target, a, b: _loops().smooth_depth(between, target, tz, a, b),
    )


def box(x: Tensor, radius: Sequence[int], out: Tensor) -> Tensor:
    """Sums of ``(C, D, H, W)`` over windows cut at the border; `out` may be `x`."""
    rz, ry, rx = radius
    return _by_channels(
        x,
        out,
        lambda source, between, a, b: _loops().box_planes(source, between, ry, rx, a, b),
        lambda between, target, a, b: _loops().box_depth(between, target, rz, a, b),
    )


def _by_channels(x: Tensor, out: Tensor, within: Filter, across: Filter) -> Tensor:
    """Filter each channel within its planes, then across them: one channel at a time takes little room."""
    source, target = _array(x), out.numpy()
    between = np.empty_like(source[:1])
    _, d, h, _ = source.shape
    for one, found in zip(np.split(source, len(source)), np.split(target, len(target)), strict=True):
        _planes(functools.partial(within, one, between), d, one.size)
        _planes(functools.partial(across, between, found), h, one.size)
    return out


def jacobian(field: Tensor) -> Tensor:
    """``det(I + ∇u)`` of ``(3, D, H, W)``."""
    u = _array(field)
    result = torch.empty(u.shape[1:])
    y = result.numpy()
    if y.size:
        _planes(lambda a, b: _loops().jacobian(u, y, a, b), u.shape[1], u.size)
    return result


def products(fixed: Tensor, moving: Tensor, means: Sequence[float], out: Tensor) -> Tensor:
    """f, m, f², m² and f m, less the two means, into ``(5, D, H, W)``."""
    f, m, y = _array(fixed), _array(moving), out.numpy()
    off = np.array(means, np.float32)
    _planes(lambda a, b: _loops().products(f, m, y, off, a, b), f.shape[0], y.size)
    return out


def correlation_weights(share: Tensor, sums: Tensor, floors: Sequence[float]) -> float:
    """What windows give to their voxels, in place of their sums; returns the mean squared correlation."""
    s, x = _array(share), sums.numpy()
    values = np.zeros(x.shape[1])
    added = np.array(floors, np.float32)
    _planes(lambda a, b: _loops().correlation_weights(s, x, added, values, a, b), x.shape[1], x.size)
    return float(values.sum() / math.prod(x.shape[1:]))


def correlation_force(
    pair: tuple[Tensor, Tensor],
    weights: Tensor,
    out: Tensor,
    means: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """Force and curvature into ``(4, D, H, W)`` from the summed weights of the windows."""
    (f, m), x, y = map(_array, pair), _array(weights), out.numpy()
    off, s = np.array(means, np.float32), np.array(spacing, np.float32)
    _planes(lambda a, b: _loops().correlation_force(f, m, x, y, off, s, a, b), f.shape[0], y.size)
    return out


def limited_step(
    force: Tensor, out: Tensor, damping: float, largest: Sequence[float], momentum: float
) -> Tensor:
    """Steps ``(3, D, H, W)`` of at most `largest` voxels along each axis, plus `momentum` times `out`."""
    x, y = _array(force), out.numpy()
    limits = (1 / np.array(largest)).astype(np.float32)
    own, kept = np.float32(damping), np.float32(momentum)
    _planes(lambda a, b: _loops().limited_step(x, y, own, limits, kept, a, b), x.shape[1], y.size)
    return out
