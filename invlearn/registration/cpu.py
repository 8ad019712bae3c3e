"""Runs the processor kernels of `loops` on tensors, in as many threads as torch uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from invlearn.wavelets.kernels.cpu import in_threads


@lru_cache(maxsize=1)
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
    source, target = _array(x), out.numpy()
    tz, ty, tx = (_array(t) for t in taps)
    between = np.empty_like(source)
    c, d, h, _ = source.shape
    _planes(lambda a, b: _loops().smooth_planes(source, between, ty, tx, a, b), c * d, source.size)
    _planes(lambda a, b: _loops().smooth_depth(between, target, tz, a, b), h, source.size)
    return out


def box(x: Tensor, radius: Sequence[int], out: Tensor) -> Tensor:
    """Sums of ``(C, D, H, W)`` over windows cut at the border; `out` may be `x`."""
    source, target = _array(x), out.numpy()
    between = np.empty_like(source)
    c, d, h, _ = source.shape
    rz, ry, rx = radius
    _planes(lambda a, b: _loops().box_planes(source, between, ry, rx, a, b), c * d, source.size)
    _planes(lambda a, b: _loops().box_depth(between, target, rz, a, b), h, source.size)
    return out


def jacobian(field: Tensor) -> Tensor:
    """``det(I + ∇u)`` of ``(3, D, H, W)``."""
    u = _array(field)
    result = torch.empty(u.shape[1:])
    y = result.numpy()
    if y.size:
        _planes(lambda a, b: _loops().jacobian(u, y, a, b), u.shape[1], u.size)
    return result


def products(fixed: Tensor, warped: Tensor, out: Tensor) -> Tensor:
    """w, w² and f w into ``(3, D, H, W)``."""
    f, w, y = _array(fixed), _array(warped), out.numpy()
    _planes(lambda a, b: _loops().products(f, w, y, a, b), f.shape[0], y.size)
    return out


def correlation_weights(stats: Tensor, sums: Tensor, out: Tensor, floors: tuple[float, float]) -> float:
    """What windows give to their voxels, into ``(4, D, H, W)``; returns the mean squared correlation."""
    s, x, y = _array(stats), _array(sums), out.numpy()
    values = np.zeros(x.shape[1])
    own, shared = (np.float32(v) for v in floors)
    _planes(lambda a, b: _loops().correlation_weights(s, x, y, own, shared, values, a, b), x.shape[1], y.size)
    return float(values.sum() / math.prod(x.shape[1:]))


def correlation_force(
    fixed: Tensor, warped: Tensor, weights: Tensor, out: Tensor, spacing: Sequence[float]
) -> Tensor:
    """Force and curvature into ``(4, D, H, W)`` from the summed weights of the windows."""
    f, w, x, y = _array(fixed), _array(warped), _array(weights), out.numpy()
    s = np.array(spacing, np.float32)
    _planes(lambda a, b: _loops().correlation_force(f, w, x, y, s, a, b), f.shape[0], y.size)
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
