"""Gaussian smoothing of volumes and fields, and pyramids of coarser volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from invlearn.registration import cpu

_MOSTLY = 0.5  # of a block in a mask: then all of it counts


def taps(sigma: float) -> Float[Tensor, taps]:
    """The middle and one side of a Gaussian, cut at three standard deviations, with the sum one in all."""
    if sigma <= 0:
        return torch.ones(1)
    k = torch.arange(max(1, math.ceil(3 * sigma)) + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (k / sigma) ** 2)
    return (weights / (weights[0] + 2 * weights[1:].sum())).to(torch.float32)


def smooth(
    x: Float[Tensor, "C D H W"], sigma: Sequence[float], out: Tensor | None = None
) -> Float[Tensor, "C D H W"]:
    """Convolve with a Gaussian along the three axes; the border samples count on beyond the border.

    Parameters
    ----------
    x
        Channels of a volume.
    sigma
        Standard deviation along each axis, in voxels; 0 leaves an axis alone.
    out
        Where the result goes, `x` itself too; None makes a new tensor.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    kernels = [taps(s if n > 1 else 0.0) for s, n in zip(sigma, x.shape[1:], strict=True)]
    if cpu.serves(x):
        return cpu.smooth(x, kernels, torch.empty_like(x) if out is None else out)
    result = x[:, None]
    for axis, half in enumerate(kernels):
        radius = len(half) - 1
        if radius == 0:
            continue
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = 2 * radius + 1
        kernel = torch.cat([half.flip(0), half[1:]]).to(x).reshape(shape)
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        result = functional.conv3d(functional.pad(result, padding, mode="replicate"), kernel)
    return result[:, 0] if out is None else out.copy_(result[:, 0])


def shrink(x: Float[Tensor, "C D H W"], factors: Sequence[int]) -> Float[Tensor, "C d h w"]:
    """Means over blocks of `factors` voxels; the last samples count on where a block is not full."""
    if max(factors) == 1:
        return x
    missing = [-n % f for n, f in zip(x.shape[1:], factors, strict=True)]
    if any(missing):
        padding = [0, missing[2], 0, missing[1], 0, missing[0]]
        x = functional.pad(x[None], padding, mode="replicate")[0]
    return functional.avg_pool3d(x[None], list(factors))[0]


def shrink_mask(mask: Bool[Tensor, "D H W"], factors: Sequence[int]) -> Bool[Tensor, "d h w"]:
    """The blocks that lie in a mask by half at least; the fullest ones if none does."""
    share = shrink(mask[None].to(torch.float32), factors)[0]
    return share >= min(_MOSTLY, float(share.amax()))


def halvings(
    shape: Sequence[int], spacing: Sequence[float], levels: int, smallest: int = 12
) -> list[list[int]]:
    """By how much each axis is coarser at every level, from the coarsest to the full grid.

    An axis is halved while it keeps `smallest` voxels and its spacing is not already 1.5 times that of
    the finest axis, so that coarse grids are nearly isotropic.

    Parameters
    ----------
    shape
        Voxels along each axis.
    spacing
        Distance of voxels along each axis.
    levels
        At most so many; fewer where there is nothing left to halve.
    smallest
        The least number of voxels along a halved axis.

    Returns
    -------
    list
        Of factors for the three axes, powers of two; the last is [1, 1, 1].
    """
    factors = [[1, 1, 1]]
    while len(factors) < levels:
        last = factors[0]
        here = [s * f for s, f in zip(spacing, last, strict=True)]
        finest = min(h for h, n in zip(here, shape, strict=True) if n > 1) if max(shape) > 1 else 1
        coarser = [
            2 * f if n / (2 * f) >= smallest and h < 1.5 * finest else f
            for f, n, h in zip(last, shape, here, strict=True)
        ]
        if coarser == last:
            break
        factors.insert(0, coarser)
    return factors
