"""Bring the brightness of one volume to that of another: an increasing curve, and a smooth field of gain.

Local correlation is blind to gain that hardly varies within a window, not to a steep coil profile nor to a
bent contrast curve. Both are estimated between the roughly aligned volumes and taken out: the curve of one of
them, the gain of the one that it leaves more even, or of both in part. They are looked up on a coarse grid,
and only where both volumes are object in a whole neighbourhood: at the rims, brightness is a matter of blur
and of what is not aligned yet. The contrast that both get is that of the one, unless it is compressed: what
is nearly as bright, such as grey and white matter, is then told apart better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from invlearn.registration.fields import warp
from invlearn.registration.gain import DEGREE, Gain
from invlearn.registration.smoothing import shrink

_NODES = 33  # quantiles
_LOWEST = 0.002  # of them: a hole or two in an object must not bend the curve
_BENT = 3.0  # largest power of a curve below its lowest node, and of `balance_`
_SPREAD = 0.5  # of the logarithm of an object's brightness between its quartiles, at least
_ACROSS = 96  # voxels along the longest edge: the grid of the estimates
_POINTS = 40_000  # voxels that are looked at
_ROWS = 16  # of a volume that are changed at a time
_UNLIKE = 1.4  # things of one kind differ less in volume once they are affinely aligned
_FEWEST = 100  # of which there must be so many
_SHARES = 11  # of the gain that are tried in the fixed volume
_CLEARLY = 0.02  # nats: so much more even
_BINS = 64  # of the histograms that say how even a volume is
_ROUNDS = 4  # curve and gain in turns
_ONE_SIGMA = 0.8413  # share of a Gaussian below one standard deviation
_SIGMAS = 4.0  # noise that far out is rare
_SAMPLES = 500_000  # of a volume, that tell its range
_STICKING = 10_000  # one voxel of so many may stick out of the range
_BLOCKS = 16  # along an edge, in which noise averages out
_MOST_NOISE = 0.2  # of the range: where the border holds more, it is object


def _faces(x: Float[Tensor, "D H W"]) -> list[Tensor]:
    """The samples of the six border planes."""
    return [x.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]


def background(x: Float[Tensor, "D H W"]) -> float:
    """The usual brightness at the border of the volume."""
    return float(torch.cat(_faces(x)).median())


def ground(x: Float[Tensor, "D H W"]) -> float:
    """What brightness is counted from: the background, or the darkest where object fills a volume."""
    if not _loud(x):
        return background(x)
    values = _some(x)
    return float(values.kthvalue(1 + len(values) // _STICKING).values)


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


def _some(x: Float[Tensor, "D H W"]) -> Float[Tensor, samples]:
    return x.flatten()[:: -(-x.numel() // _SAMPLES)]


def _span(x: Float[Tensor, "D H W"]) -> float:
    """The range of a volume, less the few voxels that stick out of it."""
    values = _some(x)
    rare = len(values) // _STICKING
    ends = (torch.kthvalue(values, k).values for k in (len(values) - rare, 1 + rare))
    return float(next(ends) - next(ends))


def _loud(x: Float[Tensor, "D H W"]) -> bool:
    """Whether the border holds too much to be background: more than noise, which block means even out."""
    coarse = shrink(x[None], [max(1, n // _BLOCKS) for n in x.shape])[0]
    return _SIGMAS * noise(coarse) > _MOST_NOISE * _span(x)


def foreground(x: Float[Tensor, "D H W"], share: float = 0.02) -> Bool[Tensor, "D H W"]:
    """What differs from the background by more than that share of the range, and more than its noise.

    Everything where the border holds too much to be background.
    """
    if _loud(x):
        return torch.ones_like(x, dtype=torch.bool)
    span = _span(x)
    least = max(share * span, min(_SIGMAS * noise(x), _MOST_NOISE * span))
    return (x - background(x)).abs() > least


def solid(
    x: Float[Tensor, "D H W"], spacing: Sequence[float] = (1.0, 1.0, 1.0), across: int = _ACROSS
) -> Bool[Tensor, "D H W"] | None:
    """The foreground with its cavities, looked up on a coarse grid; None if the border is no background."""
    factors = _factors(x.shape, spacing, across)
    coarse = shrink(x[None], factors)[0]
    if _loud(coarse):
        return None
    found = torch.from_numpy(ndimage.binary_fill_holes(foreground(coarse).cpu().numpy())).to(x.device)
    for axis, k in enumerate(factors):
        found = found.repeat_interleave(k, axis).narrow(axis, 0, x.shape[axis])
    return found


def filled(x: Float[Tensor, "D H W"], spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """The share of a volume that its object fills, roughly; 0 if nothing tells it from a background."""
    found = solid(x, spacing, _ACROSS // 2)
    return 0.0 if found is None else float(found.double().mean())


def part(ours: float, theirs: float) -> bool:
    """Whether objects of two sizes are so unlike that one must be a part of the other."""
    return bool(min(ours, theirs) > 0 and max(ours, theirs) > _UNLIKE * min(ours, theirs))


def interior(x: Float[Tensor, "D H W"]) -> Bool[Tensor, "D H W"]:
    """The foreground less its outermost voxels; the border of the volume is none of them."""
    rest = (~foreground(x)).to(x.dtype)
    return functional.max_pool3d(rest[None, None], 3, 1, 1)[0, 0] == 0


def _quantiles(values: Tensor) -> Tensor:
    values = values.sort().values
    at = torch.linspace(_LOWEST * (values.numel() - 1), values.numel() - 1, _NODES, device=values.device)
    return values[at.long()]


def curved(
    x: Float[Tensor, "*shape"], source: Float[Tensor, nodes], target: Float[Tensor, nodes]
) -> Float[Tensor, "*shape"]:
    """Values through the curve of nodes.

    Below the first one along the power of x that joins it to the middle one, beyond the last in proportion;
    what is darker than the ground stays.
    """
    k = torch.searchsorted(source, x.contiguous()).clamp(1, len(source) - 1)
    width = (source[k] - source[k - 1]).clamp(min=1e-6 * float(source[-1]))
    change = target - source  # what is added, so that equal nodes leave every value exactly
    within = x + change[k - 1] + (x - source[k - 1]) / width * (change[k] - change[k - 1])
    beyond = x * (target[-1] / source[-1])
    first = source[0].clamp(min=torch.finfo(x.dtype).tiny)  # zero where an object is darker than its ground
    dark = x.clamp(min=0)
    below = x + (target[0] * (dark / first) ** _power(source, target) - first * (dark / first))
    return torch.where(x > source[-1], beyond, torch.where(x < source[0], below, within))


def _power(source: Tensor, target: Tensor) -> float:
    """Of the brightness, so that the first node and the middle one lie on it; 1 where that says nothing."""
    ours, theirs = (float(n[0]) / max(float(n[len(n) // 2]), 1e-12) for n in (target, source))
    if not (0 < ours < 1 and 0 < theirs < 1):
        return 1.0
    return min(max(math.log(ours) / math.log(theirs), 1 / _BENT), _BENT)


def balance_(
    x: Float[Tensor, "D H W"],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    *others: Float[Tensor, "d h w"],
) -> Float[Tensor, "D H W"]:
    """Another contrast, in place, for a volume whose own is compressed: what is nearly as bright comes apart.

    The brightness above the ground is put to the power, from 1 to 3, that spreads its logarithm over 0.5
    from the lower to the upper quartile of the object; the upper quartile stays. So the contrast that things
    are compared in hardly depends on the power of the brightness that a scanner shows. Others, of the same
    contrast and ground, are changed as it is.
    """
    low = ground(x)
    coarse = shrink((x - low).clamp_(min=0)[None], _factors(x.shape, spacing))[0]
    values = coarse[interior(coarse)].sort().values
    if len(values) < _FEWEST:
        return x
    first, last = (float(values[int(q * (len(values) - 1))]) for q in (0.25, 0.75))
    if not 0 < first < last:
        return x
    power = min(_SPREAD / math.log(last / first), _BENT)
    if power > 1:
        for volume in (x, *others):
            bright = (volume - low).clamp_(min=0)
            volume -= bright
            volume += bright.div_(last).pow_(power).mul_(last)
    return x


def _factors(shape: Sequence[int], spacing: Sequence[float], across: int = _ACROSS) -> list[int]:
    """Voxels to average along each axis, so that the longest edge has about so many left."""
    size = max(n * s for n, s in zip(shape, spacing, strict=True)) / across
    return [max(1, min(round(size / s), n)) for n, s in zip(shape, spacing, strict=True)]


def _entropy(values: Float[Tensor, N]) -> float:
    """Of a density, by its histogram, in nats; the rarest are left out."""
    low, high = (float(values.kthvalue(1 + int(q * (len(values) - 1))).values) for q in (0.02, 0.98))
    if not high > low:
        return -math.inf
    p = torch.histc(values, _BINS, low, high)
    p = p[p > 0] / p.sum()
    return float(-(p * p.log()).sum()) + math.log((high - low) / _BINS)


@dataclass(frozen=True)
class Difference:
    """How the brightness of two volumes differs.

    Attributes
    ----------
    low
        The grounds of the fixed and the moving volume.
    source, target
        Nodes of the curve from the moving volume's brightness to the fixed one's.
    gain
        Of the fixed volume over the moving one.
    share
        How much of its logarithm is in the fixed volume.
    uneven
        Entropy of the brightness of both volumes without the gain, in nats.
    """

    low: tuple[float, float]
    source: Float[Tensor, nodes]
    target: Float[Tensor, nodes]
    gain: Gain
    share: float
    uneven: float

    def removed(
        self, fixed: Float[Tensor, "D H W"], moving: Float[Tensor, "D H W"]
    ) -> tuple[Float[Tensor, "D H W"], Float[Tensor, "D H W"]]:
        """Both volumes without it, from the fixed one's ground up."""
        f, m = fixed - self.low[0], moving - self.low[1]
        source, target = self.source.to(moving), self.target.to(moving)
        for first in range(0, len(f), _ROWS):  # a whole volume would need room for several
            rows = slice(first, first + _ROWS)
            logarithm = self.gain.over(moving, rows)
            f[rows] *= (-self.share * logarithm).exp()
            m[rows] = curved(m[rows], source, target).mul_(((1 - self.share) * logarithm).exp())
        return f.add_(self.low[0]), m.add_(self.low[0])


def _parted(ours: Float[Tensor, N], theirs: Float[Tensor, N], gain: Float[Tensor, N]) -> tuple[float, float]:
    """How uneven two volumes are without a gain, and how much of it is in the first; all as logarithms.

    What is shaded has a histogram with wider peaks: both entropies together are least where all is taken out.
    """
    shares = [k / (_SHARES - 1) for k in range(_SHARES)] if float(gain.abs().amax()) > 0 else [0.0]
    return min((_entropy(ours - t * gain) + _entropy(theirs + (1 - t) * gain), t) for t in shares)


def difference(
    low: tuple[float, float],
    fixed: Float[Tensor, N],
    moving: Float[Tensor, N],
    at: Float[Tensor, "N 3"],
    gain: Gain,
) -> Difference:
    """The curve and the gain between samples above the grounds, at voxels of the gain's grid."""
    order, half = gain.board(at)
    fixed, moving, at = fixed[order], moving[order], at[order]
    tiny = 1e-6 * float(fixed.amax())
    fixed, source = fixed.clamp(min=tiny), _quantiles(moving)
    terms, here = gain.terms(at), torch.ones_like(fixed)
    for _ in range(_ROUNDS):
        target = _quantiles(fixed / here)
        bent = curved(moving, source, target).clamp(min=tiny)
        here = gain.fit(fixed / bent, terms, half)
    alike = curved(moving, source, _quantiles(fixed)).clamp(min=tiny)  # whatever the gain
    uneven, share = _parted(fixed.log(), alike.log(), here.log())
    return Difference(low, source, target, gain, share, uneven)


def harmonise(
    fixed: Float[Tensor, "D H W"],
    moving: Float[Tensor, "D H W"],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    fields: tuple[Float[Tensor, "3 D H W"], Float[Tensor, "3 D H W"]] | None = None,
    degrees: Sequence[int] = (DEGREE,),
) -> tuple[Float[Tensor, "D H W"], Float[Tensor, "D H W"]]:
    """Both volumes in the fixed one's contrast and without a smooth gain between them.

    Parameters
    ----------
    fixed, moving
        On one grid, roughly aligned; of one kind of contrast (brighter is brighter in both).
    spacing
        Distance of voxels along the three axes, mm.
    fields
        In voxels, pull-back: how the fixed and the moving volume are to be seen to lie upon one another;
        None: as they are. The better they are aligned, the less of their anatomy counts as gain.
    degrees
        Of the gain's logarithm, at most; of several, the one that leaves both volumes the most even, the
        first unless another is clearly better.

    Returns
    -------
    tuple
        The two volumes where they were, the moving one's ground at the fixed one's. The gain is taken
        out of the one that is shaded. As they came if they have no bright object in common.
    """
    factors = _factors(fixed.shape, spacing)
    low = ground(fixed), ground(moving)
    seen = (fixed, moving) if fields is None else (warp(fixed, fields[0]), warp(moving, fields[1]))
    f, m = ((shrink(x[None], factors)[0] - b).clamp(min=0) for x, b in zip(seen, low, strict=True))
    at = (interior(f) & interior(m)).nonzero()
    if len(at) < _FEWEST:
        return fixed, moving
    at = at[:: -(-len(at) // _POINTS)]
    where = at.cpu().double()
    if fields is not None:
        where += shrink(fields[1], factors)[(slice(None), *at.T)].T.cpu() / torch.tensor(factors)
    here = [s * k for s, k in zip(spacing, factors, strict=True)]
    ours, theirs = (x[tuple(at.T)].cpu() for x in (f, m))
    found = [difference(low, ours, theirs, where, Gain(f.shape, here, degree)) for degree in degrees]
    best = min(found, key=lambda d: d.uneven + (0 if d is found[0] else _CLEARLY))
    return best.removed(fixed, moving)
