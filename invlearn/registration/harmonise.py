"""Bring the brightness of one volume to that of another: an increasing curve, and a smooth field of gain.

Local correlation is blind to gain that hardly varies within a window, not to a steep coil profile nor to a
bent contrast curve. Both are estimated between the roughly aligned volumes and taken out of one of them.
They are looked up on a coarse grid, and only where both volumes are object in a whole neighbourhood: at the
rims, brightness is a matter of blur and of what is not aligned yet. The gain is the exponential of a
polynomial of degree three at most: few enough numbers not to follow anatomy, and unlike an average over
neighbours not flattened towards the rims. The contrast that both get is that of the one, unless it is
compressed: what is nearly as bright, such as grey and white matter, is then told apart better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from invlearn.registration.fields import warp
from invlearn.registration.smoothing import shrink

_NODES = 33  # quantiles
_LOWEST = 0.05  # of them; what is darker, at rims and in fluid, is too rare to be told by its share
_BENT = 3.0  # largest power of a curve below its lowest node, and of `balance_`
_SPREAD = 0.5  # of the logarithm of an object's brightness between its quartiles, at least
_ACROSS = 96  # voxels along the longest edge: the grid of the estimates
_POINTS = 40_000  # voxels that are looked at
_ROWS = 16  # of a volume that are changed at a time
_UNLIKE = 1.4  # things of one kind differ less in volume once they are affinely aligned
_FEWEST = 100  # of which there must be so many
_DEGREE = 3  # at most, of the gain's logarithm, along the longest edge
_CUBES = 6  # along the longest edge, to tell gain from anatomy
_LARGEST = 1.5  # gain at most e^1.5
_OUTLIER = 0.15  # of the logarithm: what is farther off than that counts less (Huber)
_WEIGHINGS = 3
_ROUNDS = 3  # curve and gain in turns
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


def _loud(x: Float[Tensor, "D H W"]) -> bool:
    """Whether the border holds too much to be background."""
    return _SIGMAS * noise(x) > _MOST_NOISE * float(x.amax() - x.amin())


def foreground(x: Float[Tensor, "D H W"], share: float = 0.02) -> Bool[Tensor, "D H W"]:
    """What differs from the background by more than that share of the range, and more than its noise."""
    span = float(x.amax() - x.amin())
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
    """The foreground less its outermost voxels; the border of the volume is none."""
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

    Below the first one along the power of x that joins it to the middle one, beyond the last in proportion.
    """
    k = torch.searchsorted(source, x.contiguous()).clamp(1, len(source) - 1)
    width = (source[k] - source[k - 1]).clamp(min=1e-6 * float(source[-1]))
    within = target[k - 1] + (x - source[k - 1]) / width * (target[k] - target[k - 1])
    beyond = x * (target[-1] / source[-1])
    first = source[0].clamp(min=torch.finfo(x.dtype).tiny)  # zero where an object is darker than its ground
    below = target[0] * (x.clamp(min=0) / first) ** _power(source, target)
    return torch.where(x > source[-1], beyond, torch.where(x < source[0], below, within))


def _power(source: Tensor, target: Tensor) -> float:
    """Of the brightness, so that the first node and the middle one lie on it; 1 where that says nothing."""
    ours, theirs = (float(n[0]) / max(float(n[len(n) // 2]), 1e-12) for n in (target, source))
    if not (0 < ours < 1 and 0 < theirs < 1):
        return 1.0
    return min(max(math.log(ours) / math.log(theirs), 1 / _BENT), _BENT)


def balance_(x: Float[Tensor, "D H W"], spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Float[Tensor, "D H W"]:
    """Another contrast, in place, for a volume whose own is compressed: what is nearly as bright comes apart.

    The brightness above the background is put to the power, from 1 to 3, that spreads its logarithm over 0.5
    from the lower to the upper quartile of the object; the upper quartile stays. So the contrast that things
    are compared in hardly depends on the power of the brightness that a scanner shows.
    """
    low = background(x)
    coarse = shrink((x - low).clamp_(min=0)[None], _factors(x.shape, spacing))[0]
    values = coarse[interior(coarse)].sort().values
    if len(values) < _FEWEST:
        return x
    first, last = (float(values[int(q * (len(values) - 1))]) for q in (0.25, 0.75))
    if not 0 < first < last:
        return x
    power = min(_SPREAD / math.log(last / first), _BENT)
    if power > 1:
        bright = (x - low).clamp_(min=0)
        x -= bright
        x += bright.div_(last).pow_(power).mul_(last)
    return x


class Gain:
    """Smooth factors between two volumes: ``exp`` of a polynomial of the place, by robust least squares.

    Parameters
    ----------
    shape
        Of the grid.
    spacing
        Distance of voxels along the three axes: along short edges the polynomial has a lower degree.
    degree
        Of the polynomial, at most.
    """

    def __init__(
        self, shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0), degree: int = _DEGREE
    ) -> None:
        self.shape, self._spacing = shape, spacing
        edges = [n * s for n, s in zip(shape, spacing, strict=True)]
        highest = [min(n - 1, round(degree * e / max(edges))) for n, e in zip(shape, edges, strict=True)]
        powers = itertools.product(*(range(k + 1) for k in highest))
        self.powers = [p for p in powers if sum(p) <= degree]
        self.coefficients = torch.zeros(len(self.powers), dtype=torch.float64)
        self.limits = 0.0, 0.0

    def terms(self, at: Float[Tensor, "N 3"]) -> Float[Tensor, "terms N"]:
        """The monomials at voxels; the grid reaches from -1 to 1 along every axis."""
        x = [(2 * at[:, k].double() + 1) / n - 1 for k, n in enumerate(self.shape)]
        return torch.stack([x[0] ** i * x[1] ** j * x[2] ** k for i, j, k in self.powers])

    def sides(self, at: Float[Tensor, "N 3"]) -> Bool[Tensor, N]:
        """Which colour voxels have on a board of cubes: what is learned on one is tested on the other."""
        width = max(self.shape[k] * self._spacing[k] for k in range(3)) / _CUBES
        cubes = [torch.floor(at[:, k].double() * self._spacing[k] / width) for k in range(3)]
        return (cubes[0] + cubes[1] + cubes[2]) % 2 == 0

    def fit(
        self, ratio: Float[Tensor, N], terms: Float[Tensor, "terms N"], side: Bool[Tensor, N]
    ) -> Float[Tensor, N]:
        """Bring the gain as near as it gets to ratios at some voxels; what it is there.

        Of the degree that foretells one half of the cubes best from the other: gain goes on
        from cube to cube, anatomy does not.
        """
        logarithm = ratio.double().log().clamp(-_LARGEST, _LARGEST)
        weight = torch.ones_like(logarithm)
        for _ in range(_WEIGHINGS):
            halves = []
            for own in (side, ~side):
                weighted = terms * (weight * own)
                halves.append((weighted @ terms.T, weighted @ logarithm))
            self.coefficients = self._foretold(halves)
            found = self.coefficients @ terms
            weight = _OUTLIER / (logarithm - found).abs().clamp(min=_OUTLIER)
        self.limits = float(found.amin()), float(found.amax())  # it runs away where nothing was seen
        return found.exp().to(ratio.dtype)

    def _foretold(self, halves: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Coefficients of the normal equations of both halves together, of the best degree."""
        (a, b), (c, d) = halves
        best, found = math.inf, torch.zeros_like(b)
        for degree in range(1 + max(map(sum, self.powers))):
            few = torch.tensor([k for k, p in enumerate(self.powers) if sum(p) <= degree])
            at = few[:, None], few
            wrong = 0.0
            for (own, told), (other, rest) in (((a, b), (c, d)), ((c, d), (a, b))):
                x = _solved(own[at], told[few])
                wrong += float(x @ other[at] @ x - 2 * x @ rest[few])  # less what no degree changes
            if wrong < best:
                best, found = wrong, torch.zeros_like(b)
                found[few] = _solved((a + c)[at], (b + d)[few])
        return found

    def over(self, like: Float[Tensor, "D H W"], rows: slice = slice(None)) -> Float[Tensor, "rows H W"]:
        """The gain on a grid of any size over the same extent, or on some rows of its first axis."""
        total = 0.0
        axes = [((2 * torch.arange(n).double() + 1) / n - 1).to(like) for n in like.shape]
        axes[0] = axes[0][rows]
        for p, c in zip(self.powers, self.coefficients.tolist(), strict=True):
            z, y, x = (axis**k for axis, k in zip(axes, p, strict=True))
            total = total + (c * z)[:, None, None] * (y[:, None] * x)
        return torch.as_tensor(total).clamp(*self.limits).exp()


def _solved(normal: Tensor, told: Tensor) -> Tensor:
    """Of normal equations, some of whose terms hardly differ."""
    ridge = 1e-6 * normal.diagonal().mean()
    return torch.linalg.solve(normal + ridge * torch.eye(len(told), dtype=normal.dtype), told)


def _factors(shape: Sequence[int], spacing: Sequence[float], across: int = _ACROSS) -> list[int]:
    """Voxels to average along each axis, so that the longest edge has about so many left."""
    size = max(n * s for n, s in zip(shape, spacing, strict=True)) / across
    return [max(1, min(round(size / s), n)) for n, s in zip(shape, spacing, strict=True)]


def harmonise(
    fixed: Float[Tensor, "D H W"],
    moving: Float[Tensor, "D H W"],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    field: Float[Tensor, "3 D H W"] | None = None,
    degree: int = _DEGREE,
) -> Float[Tensor, "D H W"]:
    """The moving volume with the fixed one's contrast and without a smooth gain between them.

    Parameters
    ----------
    fixed, moving
        On one grid, roughly aligned; of one kind of contrast (brighter is brighter in both).
    spacing
        Distance of voxels along the three axes, mm.
    field
        In voxels, pull-back: how the moving volume is to be seen to lie upon the fixed one; None: as it is.
        The better they are aligned, the less of their anatomy counts as gain.
    degree
        Of the gain's logarithm, at most.

    Returns
    -------
    Tensor
        The moving volume where it was, its background at the fixed one's; as it came if they have no bright
        object in common.
    """
    factors = _factors(fixed.shape, spacing)
    low = background(fixed), background(moving)
    seen = moving if field is None else warp(moving, field)
    f = (shrink(fixed[None], factors)[0] - low[0]).clamp(min=0)
    m = (shrink(seen[None], factors)[0] - low[1]).clamp(min=0)
    at = (interior(f) & interior(m)).nonzero()
    if len(at) < _FEWEST:
        return moving
    at = at[:: -(-len(at) // _POINTS)]
    ours, theirs, where = f[tuple(at.T)].cpu(), m[tuple(at.T)].cpu(), at.cpu().double()
    if field is not None:
        moved = shrink(field, factors)[(slice(None), *at.T)].T.cpu()
        where += moved / torch.tensor(factors)
    gain = Gain(f.shape, [s * k for s, k in zip(spacing, factors, strict=True)], degree)
    terms, side, here = gain.terms(where), gain.sides(where), torch.ones_like(ours)
    source, tiny = _quantiles(theirs), 1e-6 * float(ours.amax())
    for _ in range(_ROUNDS):
        target = _quantiles(ours / here)
        here = gain.fit(ours.clamp(min=tiny) / curved(theirs, source, target).clamp(min=tiny), terms, side)
    found, source, target = moving - low[1], source.to(moving), target.to(moving)
    for first in range(0, len(found), _ROWS):  # a whole volume would need room for several
        rows = slice(first, first + _ROWS)
        found[rows] = curved(found[rows], source, target).mul_(gain.over(moving, rows)).add_(low[0])
    return found
