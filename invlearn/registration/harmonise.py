"""Bring the brightness of one volume to that of another: an increasing curve, and a smooth field of gain.

Local correlation is blind to gain that hardly varies within a window, not to a steep coil profile nor to a
bent contrast curve. Both are estimated between the roughly aligned volumes and taken out of one of them.
They are looked up on a coarse grid, and only where both volumes are object in a whole neighbourhood: at the
rims, brightness is a matter of blur and of what is not aligned yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from invlearn.registration.smoothing import shrink, smooth

_NODES = 33  # quantiles
_ACROSS = 96  # voxels along the longest edge: the grid of the estimates
_GAIN_ACROSS = 48  # the same of the gain
_REACH = 1 / 6  # of the longest edge: standard deviation of the gain's smoothing
_LARGEST = 1.5  # gain at most e^1.5
_ROUNDS = 2  # curve and gain in turns
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


def interior(x: Float[Tensor, "D H W"]) -> Bool[Tensor, "D H W"]:
    """The foreground less its outermost voxels; the border of the volume is none."""
    rest = (~foreground(x)).to(x.dtype)
    return functional.max_pool3d(rest[None, None], 3, 1, 1)[0, 0] == 0


def _quantiles(values: Tensor) -> Tensor:
    values = values.sort().values
    at = torch.linspace(0, values.numel() - 1, _NODES, device=values.device).long()
    return torch.cat([values.new_zeros(1), values[at]])


def curved(
    x: Float[Tensor, "*shape"], source: Float[Tensor, nodes], target: Float[Tensor, nodes]
) -> Float[Tensor, "*shape"]:
    """Values through the curve of nodes that starts at (0, 0), and on in proportion after the last."""
    k = torch.searchsorted(source, x.contiguous()).clamp(1, len(source) - 1)
    width = (source[k] - source[k - 1]).clamp(min=1e-6 * float(source[-1]))
    within = target[k - 1] + (x - source[k - 1]) / width * (target[k] - target[k - 1])
    beyond = x * (target[-1] / source[-1])
    return torch.where(x > 0, torch.where(x > source[-1], beyond, within), 0.0)


def gain_between(
    fixed: Float[Tensor, "D H W"], moving: Float[Tensor, "D H W"], where: Bool[Tensor, "D H W"]
) -> Float[Tensor, "D H W"]:
    """The smooth factor from the moving volume's brightness to the fixed one's, seen `where` both have some.

    ``exp`` of the Gaussian average of ``ln(fixed / moving)``; voxels count as cubes.
    """
    factors = _factors(fixed.shape, (1.0, 1.0, 1.0), _GAIN_ACROSS)
    tiny = 1e-6 * float(fixed.amax())
    logarithm = (fixed.clamp(min=tiny) / moving.clamp(min=tiny)).log().clamp(-_LARGEST, _LARGEST)
    weight = where.to(fixed.dtype)
    sums = shrink(torch.stack([logarithm * weight, weight]), factors)
    sigma = _REACH * max(fixed.shape)
    sums = smooth(sums, [sigma / k for k in factors])
    return _enlarged(sums[0] / (sums[1] + 1e-3), factors, fixed.shape).exp()


def _factors(shape: Sequence[int], spacing: Sequence[float], across: int) -> list[int]:
    """Voxels to average along each axis, so that the longest edge has about `across` left."""
    size = max(n * s for n, s in zip(shape, spacing, strict=True)) / across
    return [max(1, min(round(size / s), n)) for n, s in zip(shape, spacing, strict=True)]


def _enlarged(x: Tensor, factors: Sequence[int], shape: Sequence[int]) -> Tensor:
    """From the grid of `shrink` back to that of `shape`."""
    size = [n * k for n, k in zip(x.shape, factors, strict=True)]
    large = functional.interpolate(x[None, None], size=size, mode="trilinear", align_corners=False)[0, 0]
    d, h, w = shape
    return large[:d, :h, :w]


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
        The moving volume, its background at the fixed one's; as it came if they have no bright object in
        common.
    """
    factors = _factors(fixed.shape, spacing, _ACROSS)
    low = background(fixed), background(moving)
    f = (shrink(fixed[None], factors)[0] - low[0]).clamp(min=0)
    m = (shrink(moving[None], factors)[0] - low[1]).clamp(min=0)
    both = interior(f) & interior(m)
    if int(both.sum()) < _NODES:
        return moving
    source, gain = _quantiles(m[both]), torch.ones_like(f)
    for _ in range(_ROUNDS):
        target = _quantiles((f / gain)[both])
        gain = gain_between(f, curved(m, source, target), both)
    return curved(moving - low[1], source, target) * _enlarged(gain, factors, fixed.shape) + low[0]
