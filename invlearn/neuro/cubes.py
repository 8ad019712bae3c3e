"""Cubes that cover a stack, and how their probabilities are joined without seams.

Along each axis cubes begin at multiples of 16 voxels, because the network commutes with such shifts only.
Two neighbours overlap; in the middle of the overlap one fades into the other over a few voxels, and what lies
closer to a cube's face, its margin, is not used. So the weights add up to one by construction, and every
voxel knows which cubes it needs: none has to be kept in memory for another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter

from invlearn.neuro.normalise import Normaliser
from invlearn.neuro.slabs import cut_axis
from invlearn.neuro.waveunet import MULTIPLE

Slices = tuple[slice, slice, slice]

MARGIN = 8  # voxels at the inner faces of a cube that are not used
TAPER = 16  # voxels over which neighbours fade into one another
VOXELS = 7 << 20  # of a cube: about 0.7 GB in the network
_STANDS_OUT = 5.0  # standard deviations of the smoothed noise, from which on an average stands out
_BRIGHT = 12.0  # standard deviations that a voxel counts for at most: one or two alone do not stand out
_BLOCK = 32  # voxels along an axis of a block in which averages are counted
_LIKE_NOISE, _FEW = 1.5, 5  # times as many as by chance, and so many more, is still noise
_CROWDED = 150  # averages of a block above by chance, from which on chance tells nothing


@dataclass(frozen=True)
class Span:
    """A cube along one axis.

    Attributes
    ----------
    start, stop
        What the network sees; `stop` may lie beyond the stack, which is then mirrored.
    low, high
        Where it has a weight above zero.
    rise, fall
        Length of the ramps at `low` and `high`; 0 at the stack's ends.
    """

    start: int
    stop: int
    low: int
    high: int
    rise: int
    fall: int

    def weight(self, positions: np.ndarray) -> Float[np.ndarray, " n"]:
        """The share of this cube in the result at some positions along the axis, float32."""
        up = (positions - self.low + 0.5) / self.rise if self.rise else np.ones(len(positions))
        down = (self.high - positions - 0.5) / self.fall if self.fall else np.ones(len(positions))
        inside = (positions >= self.low) & (positions < self.high)
        return (np.clip(np.minimum(up, down), 0, 1) * inside).astype(np.float32)


@dataclass(frozen=True)
class CubeGrid:
    """Cubes over a stack.

    Attributes
    ----------
    shape
        (D, H, W) of the stack.
    cube
        Voxels of a cube along each axis, multiples of 16; cut down where the stack is smaller.
    margin
        Voxels at every inner face that are not used. 112 make tiles equal to one pass exactly, as far as the
        network reaches; the default leaves the far field of the network out.
    taper
        Voxels over which neighbours fade.

    Raises
    ------
    ValueError
        A size that is no multiple of 16, a negative margin, or a margin that leaves nothing of a cube.
    """

    shape: tuple[int, int, int]
    cube: tuple[int, int, int]
    margin: int = MARGIN
    taper: int = TAPER

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.cube) < 1 or any(n % MULTIPLE for n in self.cube):
            raise ValueError(
                f"CubeGrid: a stack has at least one voxel, and the sides of a cube are multiples of "
                f"{MULTIPLE}; got stack {self.shape}, cube {self.cube}"
            )
        if self.margin < 0 or self.taper < 1:
            raise ValueError(
                f"CubeGrid: the margin is not negative and the taper at least one voxel, got {self.margin} "
                f"and {self.taper}"
            )
        for axis, (n, side) in enumerate(zip(self.shape, self.cube, strict=True)):
            if side < n and self._step(side) < MULTIPLE:
                raise ValueError(
                    f"CubeGrid: cubes of {side} voxels along axis {axis} are too small for a margin of "
                    f"{self.margin} and a taper of {self.taper}: take {self._least()} at least"
                )

    @classmethod
    def for_stack(
        cls, shape: Sequence[int], voxels: int = VOXELS, margin: int = MARGIN, taper: int = TAPER
    ) -> CubeGrid:
        """The cubes of at most so many voxels that are the least work for a stack; of those, the slimmest."""
        size = (int(shape[0]), int(shape[1]), int(shape[2]))
        least = MULTIPLE * math.ceil((2 * margin + taper + MULTIPLE) / MULTIPLE)
        sides = [_sides(n, least, voxels) for n in size]
        work = [
            [_covered(n, side, margin, taper) for side in found] for n, found in zip(size, sides, strict=True)
        ]
        a, b, c = (np.array(x, dtype=float) for x in sides)
        total = np.multiply.outer(np.multiply.outer(work[0], work[1]), work[2])
        total[np.multiply.outer(np.multiply.outer(a, b), c) > voxels] = np.inf
        if not np.isfinite(total).any():
            raise ValueError(
                f"CubeGrid: {voxels} voxels are too few for a cube with a margin of {margin}: allow "
                f"{math.prod(found[0] for found in sides)}"
            )
        cubes = [
            (sides[0][i], sides[1][j], sides[2][k]) for i, j, k in np.argwhere(total == total.min()).tolist()
        ]
        return cls(size, min(cubes, key=_section), margin, taper)

    def _step(self, side: int) -> int:
        return (side - 2 * self.margin - self.taper) // MULTIPLE * MULTIPLE

    def _least(self) -> int:
        return MULTIPLE * math.ceil((2 * self.margin + self.taper + MULTIPLE) / MULTIPLE)

    @cached_property
    def axes(self) -> tuple[tuple[Span, ...], ...]:
        """The spans along each axis, in order."""
        return tuple(self._spans(n, side) for n, side in zip(self.shape, self.cube, strict=True))

    def _spans(self, n: int, side: int) -> tuple[Span, ...]:
        padded = MULTIPLE * math.ceil(n / MULTIPLE)
        if padded <= side:
            return (Span(0, padded, 0, n, 0, 0),)
        starts = [*range(0, padded - side, self._step(side)), padded - side]
        # the ramp between two neighbours lies in the middle of their overlap
        ramps = [(b + a + side) // 2 - self.taper // 2 for a, b in itertools.pairwise(starts)]
        spans = []
        for k, start in enumerate(starts):
            first, last = k == 0, k == len(starts) - 1
            low = 0 if first else ramps[k - 1]
            high = n if last else min(n, ramps[k] + self.taper)
            rise, fall = (0 if first else self.taper), (0 if last else self.taper)
            spans.append(Span(start, start + side, low, high, rise, fall))
        return tuple(spans)

    def __len__(self) -> int:
        return math.prod(len(spans) for spans in self.axes)

    def __getitem__(self, number: int) -> tuple[Span, Span, Span]:
        i, j, k = np.unravel_index(number, [len(spans) for spans in self.axes])
        return self.axes[0][i], self.axes[1][j], self.axes[2][k]

    def touching(self, region: Slices) -> Iterator[int]:
        """Numbers of the cubes with a weight in a region."""
        found = [
            [k for k, span in enumerate(spans) if span.low < part.stop and span.high > part.start]
            for spans, part in zip(self.axes, region, strict=True)
        ]
        counts = [len(spans) for spans in self.axes]
        for place in itertools.product(*found):
            yield int(np.ravel_multi_index(place, counts))


def _section(cube: Sequence[int]) -> tuple[int, int]:
    """Voxels of the plane in which the network cuts a cube, with which its memory grows; and across what."""
    axis = cut_axis(cube)
    return math.prod(cube) // cube[axis], axis


def _sides(n: int, least: int, voxels: int) -> list[int]:
    """Sides of a cube along an axis that are worth a try."""
    whole = MULTIPLE * math.ceil(n / MULTIPLE)
    most = max(least, MULTIPLE * (voxels // (MULTIPLE * MULTIPLE) // MULTIPLE))
    if whole <= least:
        return [whole]
    return list(range(least, min(whole, most) + 1, MULTIPLE))


def _covered(n: int, side: int, margin: int, taper: int) -> float:
    """Voxels along an axis that the network sees, those seen twice counted twice."""
    padded = MULTIPLE * math.ceil(n / MULTIPLE)
    if side >= padded:
        return float(padded)
    step = (side - 2 * margin - taper) // MULTIPLE * MULTIPLE
    return float(side * (1 + math.ceil((padded - side) / step)))


def mirrored(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`x` with its end mirrored until it has `shape`."""
    missing = [(0, want - have) for want, have in zip(shape, x.shape, strict=True)]
    return np.pad(x, missing, mode="symmetric") if any(after for _, after in missing) else x


def is_background(x: np.ndarray, normaliser: Normaliser) -> bool:
    """Whether nothing in a cube stands out from its noise, so that the network need not look at it.

    Averages over 3 x 3 x 3 voxels are compared with the background, at five of their standard deviations. Of
    background and noise, those of the stack and of the cube, the lower count. How many averages noise alone
    brings above that, in a block of 32 voxels a side, is seen on the same voxels in random order: a neurite
    is a matter of order, noise is not, whatever its distribution. A doubt keeps the cube.

    Parameters
    ----------
    x
        (D, H, W), raw intensities.
    """
    x = x.astype(np.float32)
    level = min(normaliser.background, float(np.median(x[::2, ::2, ::2])))
    below = x[x <= level] - level
    noise = min(normaliser.noise, math.sqrt(float(np.mean(below**2))) if below.size else math.inf)
    bound = level + _STANDS_OUT * noise / math.sqrt(27)
    if float(x.max()) <= bound:
        return True
    if noise == 0:
        return False
    np.minimum(x, level + _BRIGHT * noise, out=x)  # a single voxel is no neurite, however bright
    found = _most_above(x, bound)
    if not 0 < found <= _LIKE_NOISE * _CROWDED + _FEW:
        return found == 0
    by_chance = _most_above(_shuffled(x), bound)
    return by_chance <= _CROWDED and found <= _LIKE_NOISE * by_chance + _FEW


def _most_above(x: np.ndarray, bound: float) -> int:
    """How many averages over 3 x 3 x 3 voxels lie above a bound, in the block that has most of them."""
    smooth = uniform_filter(x, 3, mode="nearest")
    smooth = smooth[tuple(slice(1, -1) if n > 2 else slice(None) for n in x.shape)]  # whole windows alone
    count = smooth > bound
    for axis, n in enumerate(count.shape):
        count = np.add.reduceat(count, np.arange(0, n, _BLOCK), axis, dtype=np.int32)
    return int(count.max())


def _shuffled(x: np.ndarray) -> np.ndarray:
    """The voxels in another order, always the same one: rows change places, and so do columns."""
    rng, rows = np.random.default_rng(0), x.reshape(-1, x.shape[-1])
    return rows[rng.permutation(len(rows))][:, rng.permutation(x.shape[-1])].reshape(x.shape)
