"""Sampling at displaced positions: the kernels on a processor, torch where gradients or a GPU are wanted."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

from invlearn.registration import cpu

_POLE = math.sqrt(3) - 2  # of the inverse of the cubic B-spline's samples (1, 4, 1) / 6
_REACH = 14  # |pole|^14 is below float32's precision
_CHUNK = 1 << 21  # samples gathered at once


def inside(u: Float[Tensor, "*batch 3 D H W"], shape: torch.Size) -> Bool[Tensor, "*batch D H W"]:
    """Where ``p + u(p)`` is at most half a voxel beyond the outermost samples of a volume of that shape."""
    at = positions(u, 0, u.shape[-3])
    low, high = zip(
        *[(p >= -0.5, p <= n - 0.5) for p, n in zip(at.unbind(-4), shape, strict=True)], strict=True
    )
    return torch.stack([*low, *high]).all(0)


def positions(u: Float[Tensor, "*batch 3 D H W"], first: int, last: int) -> Float[Tensor, "*batch 3 d H W"]:
    """``p + u(p)`` for the planes first … last."""
    axes = [torch.arange(n, dtype=u.dtype, device=u.device) for n in u.shape[-3:]]
    axes[0] = axes[0][first:last]
    return u[..., first:last, :, :] + torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample(
    image: Shaped[Tensor, "B D H W"], u: Float[Tensor, "B 3 d h w"], mode: str
) -> Shaped[Tensor, "B d h w"]:
    """One volume per field: `linear`, `nearest`, `cubic` or `labels`."""
    if mode == "linear":
        return sample_channels(image[:, None], u)[:, 0]
    gather = {"nearest": _nearest, "cubic": _cubic, "labels": _labels}[mode]
    if mode == "cubic":
        image = _spline_coefficients(image)
    planes = max(1, _CHUNK // max(1, math.prod(u.shape[-2:])))
    rows = []
    for volume, field in zip(image, u, strict=True):
        starts = range(0, field.shape[1], planes)
        rows.append(torch.cat([gather(volume, positions(field, z, z + planes)) for z in starts]))
    return torch.stack(rows) if rows else image.new_empty((0, *u.shape[-3:]))


def sample_channels(
    image: Float[Tensor, "B C D H W"], u: Float[Tensor, "B 3 d h w"], *, add: bool = False
) -> Float[Tensor, "B C d h w"]:
    """Linear, all channels of one volume at the same positions; plus `u` itself if `add`."""
    if cpu.serves(image, u):
        if len(u) == 1:
            return cpu.warp(image[0], u[0], add=add)[None]
        return torch.stack([cpu.warp(x, v, add=add) for x, v in zip(image, u, strict=True)])
    at, normalised = positions(u, 0, u.shape[-3]), []
    for axis in (2, 1, 0):  # grid_sample counts x first
        n = image.shape[axis + 2]
        p = at[:, axis]
        normalised.append(p * (2 / (n - 1)) - 1 if n > 1 else torch.zeros_like(p))
    sampled = functional.grid_sample(
        image, torch.stack(normalised, -1).to(image.dtype), "bilinear", "border", align_corners=True
    )
    return sampled + u if add else sampled


def _take(volume: Shaped[Tensor, "D H W"], z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    _, h, w = volume.shape
    return volume.reshape(-1)[(z * h + y) * w + x]


def _clamped(at: Tensor, shape: torch.Size) -> list[Tensor]:
    return [p.clamp(0, n - 1) for p, n in zip(at, shape, strict=True)]


def _nearest(volume: Tensor, at: Tensor) -> Tensor:
    z, y, x = ((p + 0.5).floor().long() for p in _clamped(at.detach(), volume.shape))
    (d, h, w) = volume.shape
    return _take(volume, z.clamp(max=d - 1), y.clamp(max=h - 1), x.clamp(max=w - 1))


def _labels(volume: Tensor, at: Tensor) -> Tensor:
    """The label whose indicator, warped linearly, is largest: only the eight neighbours can have it."""
    axes = []
    for p, n in zip(_clamped(at.detach(), volume.shape), volume.shape, strict=True):
        low = p.floor()
        f, low = p - low, low.long()
        axes.append(((low, 1 - f), ((low + 1).clamp(max=n - 1), f)))
    corners = [(_take(volume, z, y, x), a * b * c) for (z, a), (y, b), (x, c) in itertools.product(*axes)]
    best, label = torch.full_like(corners[0][1], -1), torch.zeros_like(corners[0][0])
    for candidate, _ in corners:
        score = sum((weight * (other == candidate) for other, weight in corners), torch.zeros_like(best))
        better = (score > best) | ((score == best) & (candidate < label))
        best, label = torch.where(better, score, best), torch.where(better, candidate, label)
    return label


def _mirrored(index: Tensor, n: int) -> Tensor:
    """Indices beyond the border, reflected at the outermost samples."""
    if n == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (n - 1))
    return torch.minimum(index, 2 * (n - 1) - index)


def _spline_coefficients(image: Shaped[Tensor, "B D H W"]) -> Shaped[Tensor, "B D H W"]:
    """What cubic B-splines are weighted with, so that their sum passes through the samples."""
    for axis in (1, 2, 3):
        n = image.shape[axis]
        if n == 1:
            continue
        index, result = torch.arange(n, device=image.device), torch.zeros_like(image)
        for k in range(-_REACH, _REACH + 1):
            weight = -6 * _POLE / (1 - _POLE**2) * _POLE ** abs(k)
            result = result + weight * image.index_select(axis, _mirrored(index + k, n))
        image = result
    return image


def _cubic(coefficients: Tensor, at: Tensor) -> Tensor:
    axes = []
    for p, n in zip(_clamped(at, coefficients.shape), coefficients.shape, strict=True):
        low = p.detach().floor()
        f, g = p - low, 1 - (p - low)
        weights = (g**3 / 6, 2 / 3 - f**2 * (2 - f) / 2, 2 / 3 - g**2 * (2 - g) / 2, f**3 / 6)
        axes.append([(_mirrored(low.long() + k - 1, n), w) for k, w in enumerate(weights)])
    total = torch.zeros_like(at[0])
    for z, a in axes[0]:
        for y, b in axes[1]:
            ab = a * b
            for x, c in axes[2]:
                total = total + ab * c * _take(coefficients, z, y, x)
    return total
