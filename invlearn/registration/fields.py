"""Displacement fields: warp, compose, exponential, inverse, Jacobian determinant.

One convention: images are ``(..., D, H, W)``, fields ``(..., 3, D, H, W)`` in voxels, ``ij`` indexing, and
fields pull back: ``warped(p) = image(p + u(p))``. Samples beyond the border count as the nearest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from invlearn.io.tensors import as_tensor
from invlearn.registration import cpu, interpolation

MODES = ("linear", "nearest", "cubic", "labels")
T = TypeVar("T", Tensor, np.ndarray)

#: Largest displacement, in voxels, of the smallest step that scaling and squaring starts from.
_SMALLEST_STEP = 0.25


def grid(shape: tuple[int, ...], like: Tensor) -> Float[Tensor, "3 D H W"]:
    """The position of every voxel, in voxels, in the dtype and on the device of `like`."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def linear_field(matrix: np.ndarray, shape: Sequence[int], like: Tensor) -> Float[Tensor, "3 D H W"]:
    """The displacement in voxels of ``p -> matrix p`` on a grid."""
    m = torch.as_tensor(matrix, dtype=torch.float64, device=like.device)
    m = (m - torch.eye(4, dtype=m.dtype, device=m.device)).to(like.dtype)
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(
        [
            m[i, 0] * axes[0][:, None, None] + m[i, 1] * axes[1][:, None] + m[i, 2] * axes[2] + m[i, 3]
            for i in range(3)
        ]
    )


def as_field(field: T, who: str) -> Tensor:
    """A field as a floating-point tensor.

    Raises
    ------
    ValueError
        Not ``(..., 3, D, H, W)``.
    """
    u = as_tensor(field, who)
    if u.ndim < 4 or u.shape[-4] != 3:
        raise ValueError(f"{who} takes a field (..., 3, D, H, W) in voxels, got the shape {tuple(u.shape)}")
    return u if u.is_floating_point() else u.to(torch.float32)


def _back(result: Tensor, given: T) -> T:
    """As a numpy array, if that is what came."""
    return result.numpy() if isinstance(given, np.ndarray) else result


def warp(image: T, field: T, mode: str = "linear", *, outside: int | float | None = None) -> T:
    """Sample an image at displaced positions: ``image(p + u(p))``.

    Parameters
    ----------
    image
        ``(..., D, H, W)``; for `labels` of an integer dtype, which is kept.
    field
        ``(..., 3, d, h, w)`` in voxels of `image`; its own grid may differ from the image's. Leading
        dimensions broadcast.
    mode
        `linear`; `nearest`; `cubic`, B-splines with mirrored borders (exact at the samples);
        `labels`, the label with the largest linear weight among the eight neighbours, the smallest of
        equals: what warping every label's indicator linearly and taking the largest gives.
    outside
        The value farther than half a voxel beyond the border; None takes the nearest sample.

    Returns
    -------
    Tensor or ndarray
        ``(..., d, h, w)``. Integers stay integers with `nearest` and `labels`, else become float32.

    Raises
    ------
    ValueError
        Shapes that do not fit, or an unknown mode.
    TypeError
        `labels` of an image that is not of an integer dtype.
    """
    u, x = as_field(field, "warp"), as_tensor(image, "warp")
    if x.ndim < 3:
        raise ValueError(f"warp takes an image (..., D, H, W), got the shape {tuple(x.shape)}")
    if mode not in MODES:
        raise ValueError(f"the mode is one of {', '.join(MODES)}, got {mode!r}")
    if mode == "labels" and (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"labels are integers, got an image of {x.dtype}; convert it, or take mode='linear'")
    if mode in ("linear", "cubic") and not x.is_floating_point():
        x = x.to(torch.float32)
    try:
        batch = torch.broadcast_shapes(x.shape[:-3], u.shape[:-4])
    except RuntimeError:
        raise ValueError(
            f"an image {tuple(x.shape)} and a field {tuple(u.shape)} have leading dimensions that do not fit"
        ) from None
    x, kind = x.to(u.device), x.dtype
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.int64)  # uint16 and wider lack comparisons in torch
    result = interpolation.sample(
        x.expand(*batch, *x.shape[-3:]).reshape(-1, *x.shape[-3:]),
        u.expand(*batch, *u.shape[-4:]).reshape(-1, *u.shape[-4:]),
        mode,
    ).reshape(*batch, *u.shape[-3:])
    if outside is not None:
        result = torch.where(interpolation.inside(u, x.shape[-3:]), result, result.new_tensor(outside))
    return _back(result.to(kind), image)


def compose(outer: T, inner: T) -> T:
    """The displacement of ``p -> outer_map(inner_map(p))``: ``inner(p) + outer(p + inner(p))``.

    Warping an image with it is warping it with `outer`, then the result with `inner`.

    Parameters
    ----------
    outer, inner
        ``(..., 3, D, H, W)`` in voxels, leading dimensions alike.

    Returns
    -------
    Tensor or ndarray
        ``(..., 3, D, H, W)`` on the grid of `inner`.
    """
    u, v = as_field(outer, "compose"), as_field(inner, "compose")
    if u.shape[:-4] != v.shape[:-4]:
        raise ValueError(f"fields {tuple(u.shape)} and {tuple(v.shape)} differ in their leading dimensions")
    result = interpolation.sample_channels(
        u.reshape(-1, *u.shape[-4:]), v.reshape(-1, *v.shape[-4:]), add=True
    )
    return _back(result.reshape(v.shape), outer)


def exponential(velocity: T, steps: int | None = None) -> T:
    """The displacement after flowing along a stationary velocity for unit time: exp(v).

    Scaling and squaring: ``exp(v) = exp(v / 2^n) ∘ … ∘ exp(v / 2^n)`` by n self-compositions, starting
    from ``v / 2^n``. Its inverse is ``exponential(-v)``.

    Parameters
    ----------
    velocity
        ``(..., 3, D, H, W)`` in voxels per unit time.
    steps
        n; None takes the least with which the first step moves no voxel by more than a quarter voxel.

    Returns
    -------
    Tensor or ndarray
        The displacement, ``(..., 3, D, H, W)``, in voxels.

    References
    ----------
    Arsigny et al., A log-Euclidean framework for statistics on diffeomorphisms, MICCAI 2006,
    doi:10.1007/11866565_113.
    """
    v = as_field(velocity, "exponential")
    if steps is None:
        largest = float(v.detach().abs().max()) if v.numel() else 0.0
        if not math.isfinite(largest):
            raise ValueError("exponential: the velocity has NaN or infinite entries")
        steps = max(0, math.ceil(math.log2(largest / _SMALLEST_STEP))) if largest > 0 else 0
    elif steps < 0:
        raise ValueError(f"exponential takes a number of squarings from 0, got {steps}")
    u = v / 2**steps
    for _ in range(steps):
        u = compose(u, u)
    return _back(u, velocity)


def inverse(field: T, *, iterations: int = 50, tolerance: float = 0.01, start: Tensor | None = None) -> T:
    """The field x that undoes `field`: ``x(p) + u(p + x(p)) = 0``.

    The damped fixed-point iteration ``x <- x - d (x + u(p + x))``, which converges for a diffeomorphism
    whose gradient's eigenvalues stay below 2 / d; d is 1 until the residual stops falling, then less.

    Parameters
    ----------
    field
        ``(..., 3, D, H, W)`` in voxels.
    iterations
        At most so many.
    tolerance
        Stop when the largest residual is below it, in voxels.
    start
        Where to start, such as the inverse found on a coarser grid; None starts from ``-field``.

    Returns
    -------
    Tensor or ndarray
        ``(..., 3, D, H, W)`` in voxels, on the same grid.

    References
    ----------
    Chen et al., A simple fixed-point approach to invert a deformation field, Med. Phys. 35, 2008,
    doi:10.1118/1.2816107.
    """
    u = as_field(field, "inverse")
    x, damping, last = -u if start is None else start.to(u), 1.0, math.inf
    for _ in range(iterations):
        residual = compose(u, x)
        size = float(residual.detach().abs().max()) if residual.numel() else 0.0
        if size <= tolerance:
            break
        if size > 0.9 * last:
            damping = max(0.75 * damping, 0.25)
        last = size
        x = torch.sub(x, residual, alpha=damping)
    return _back(x, field)


def jacobian_determinant(field: T, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> T:
    """``det(I + ∇u)``: the local change of volume. Central differences inside, one-sided at the border.

    The determinant does not depend on the units: `spacing` only says that the field is in mm.

    Parameters
    ----------
    field
        ``(..., 3, D, H, W)`` in the unit of `spacing`; by default in voxels.
    spacing
        Distance of neighbouring voxels along the three axes.

    Returns
    -------
    Tensor or ndarray
        ``(..., D, H, W)``; not positive where the map folds.
    """
    u = as_field(field, "jacobian_determinant")
    if u.dtype == torch.float32 and cpu.serves(u) and spacing == (1.0, 1.0, 1.0):
        flat = u.reshape(-1, *u.shape[-4:])
        result = torch.stack([cpu.jacobian(one) for one in flat]) if len(flat) else flat[:, 0]
        return _back(result.reshape(*u.shape[:-4], *u.shape[-3:]), field)
    rows = []
    for i in range(3):
        row = [difference(u[..., i, :, :, :], axis) / spacing[axis] for axis in range(3)]
        row[i] = row[i] + 1
        rows.append(row)
    (a, b, c), (d, e, f), (g, h, k) = rows
    return _back(a * (e * k - f * h) - b * (d * k - f * g) + c * (d * h - e * g), field)


def difference(x: Shaped[Tensor, "*batch D H W"], axis: int) -> Shaped[Tensor, "*batch D H W"]:
    """Central differences along axis 0, 1 or 2 of the volume, one-sided at the border; zero for one voxel."""
    axis -= 3
    n = x.shape[axis]
    if n == 1:
        return torch.zeros_like(x)
    index = torch.arange(n, device=x.device)
    after, before = (index + 1).clamp(max=n - 1), (index - 1).clamp(min=0)
    shape = [1] * x.ndim
    shape[axis] = n
    return (x.index_select(axis, after) - x.index_select(axis, before)) / (after - before).reshape(shape)


def resize(field: T, shape: tuple[int, int, int]) -> T:
    """A field on a finer or coarser grid over the same extent; displacements change with the voxels.

    Parameters
    ----------
    field
        ``(..., 3, D, H, W)`` in voxels.
    shape
        The new (D, H, W); the outer faces of the border voxels stay where they are.

    Returns
    -------
    Tensor or ndarray
        ``(..., 3, *shape)`` in voxels of the new grid, interpolated linearly.
    """
    u = as_field(field, "resize")
    factors = torch.tensor(
        [n / m for n, m in zip(shape, u.shape[-3:], strict=True)], dtype=u.dtype, device=u.device
    )
    larger = functional.interpolate(
        u.reshape(-1, *u.shape[-4:]), size=shape, mode="trilinear", align_corners=False
    )
    return _back((larger * factors.reshape(3, 1, 1, 1)).reshape(*u.shape[:-3], *shape), field)
