"""Bring the brightness of one volume to that of another: a smooth field of gain, then equal histograms.

Local correlation is blind to gain that hardly varies within a window, not to a steep coil profile nor to a
bent contrast curve. Both are estimated between the roughly aligned volumes and taken out of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from invlearn.registration.smoothing import shrink, smooth

_NODES = 65  # quantiles
_SAMPLES = 200_000
_COARSE_MM = 4.0  # the gain is found on a grid of such voxels
_REACH_MM = 30.0  # standard deviation of its smoothing
_LARGEST = 1.5  # gain at most e^1.5
_ONE_SIGMA = 0.8413  # share of a Gaussian below one standard deviation
_SIGMAS = 4.0  # noise that far out is rare
_MOST_NOISE = 0.2  # of the range: where the border holds more, it is object


def _faces(x: Float[Tensor, "D H W"]) -> list[Tensor]:
    """The samples of the six border planes."""
    return [x.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]


def background(x: Float[Tensor, "D H W"]) -> float:
    """The usual brightness at the border of the volume."""
    return float(torch.cat(_faces(x)).median())


def noise(x: Float[Tensor, "D H W"]) -> float:
    """Standard deviation of what the background holds, from the border planes.

    In each plane, how far the brightest sixth lies above the median: one standard deviation for Gaussian
    noise, whole or with all that is negative set to zero. Of the six planes the middle: an object may be
    cut by two.
    """
    spreads = []
    for face in _faces(x):
        values = face.sort().values
        at = [int(q * (len(values) - 1)) for q in (0.5, _ONE_SIGMA)]
        spreads.append(float(values[at[1]] - values[at[0]]))
    return sorted(spreads)[2]


def foreground(x: Float[Tensor, "D H W"], share: float = 0.02) -> Bool[Tensor, "D H W"]:
    """What differs from the background by more than that share of the range, and more than its noise."""
    span = float(x.amax() - x.amin())
    least = max(share * span, min(_SIGMAS * noise(x), _MOST_NOISE * span))
    return (x - background(x)).abs() > least


def _quantiles(values: Tensor) -> Tensor:
    values = values[:: max(1, values.numel() // _SAMPLES)].sort().values
    at = torch.linspace(0, values.numel() - 1, _NODES, device=values.device).long()
    return values[at]


def match_histogram(moving: Float[Tensor, "D H W"], fixed: Float[Tensor, "D H W"]) -> Float[Tensor, "D H W"]:
    """Moving values through the increasing curve that gives them the quantiles of the fixed ones.

    Both are foreground above a background of zero; zero stays zero.
    """
    zero = moving.new_zeros(1)
    source = torch.cat([zero, _quantiles(moving[foreground(moving)])])
    target = torch.cat([zero, _quantiles(fixed[foreground(fixed)])])
    k = torch.searchsorted(source, moving.contiguous()).clamp(1, _NODES)
    width = (source[k] - source[k - 1]).clamp(min=1e-12)
    mapped = target[k - 1] + (moving - source[k - 1]) / width * (target[k] - target[k - 1])
    return torch.where(moving > 0, mapped.clamp(0, float(target[-1])), 0.0)


def gain_between(
    fixed: Float[Tensor, "D H W"], moving: Float[Tensor, "D H W"], spacing: Sequence[float]
) -> Float[Tensor, "D H W"]:
    """The smooth factor from the moving volume's brightness to the fixed one's, where both are bright."""
    factors = [max(1, min(round(_COARSE_MM / s), n // 4)) for n, s in zip(fixed.shape, spacing, strict=True)]
    f, m = (shrink(x[None], factors)[0] for x in (fixed, moving))
    both = ((f > 0.1 * f.amax()) & (m > 0.1 * m.amax())).to(f.dtype)
    logarithm = torch.where(both > 0, (f.clamp(min=1e-6) / m.clamp(min=1e-6)).log(), 0.0)
    sums = smooth(
        torch.stack([logarithm * both, both]),
        [_REACH_MM / (s * k) for s, k in zip(spacing, factors, strict=True)],
    )
    smoothed = (sums[0] / (sums[1] + 1e-3)).clamp(-_LARGEST, _LARGEST)
    size = [n * k for n, k in zip(f.shape, factors, strict=True)]
    large = functional.interpolate(smoothed[None, None], size=size, mode="trilinear", align_corners=False)[
        0, 0
    ]
    d, h, w = fixed.shape
    return large[:d, :h, :w].exp()


def harmonise(
    fixed: Float[Tensor, "D H W"], moving: Float[Tensor, "D H W"], spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Float[Tensor, "D H W"]:
    """The moving volume with the fixed one's contrast and without a smooth gain between them.

    Parameters
    ----------
    fixed, moving
        On one grid, roughly aligned; of one kind of contrast (brighter is brighter in both).
    spacing
        Distance of voxels along the three axes, mm.

    Returns
    -------
    Tensor
        The moving volume, its background at the fixed one's; as it came if either has no bright object.
    """
    low = background(fixed)
    f, m = (fixed - low).clamp(min=0), (moving - background(moving)).clamp(min=0)
    if min(int(foreground(x).sum()) for x in (f, m)) < _NODES:
        return moving
    m = match_histogram(m, f)  # first the curve, so that the gain is of equal brightness
    return match_histogram(m * gain_between(f, m, spacing), f) + low
