"""A smooth gain between two volumes: the exponential of a polynomial of the place.

Few enough numbers not to follow anatomy, and unlike an average over neighbours not flattened towards the
rims. How bent it may be is told by the volumes themselves: gain goes on from one place to the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Of the gain's logarithm along the longest edge, at most.
DEGREE = 6
_CUBES = 3  # along the longest edge, to tell gain from anatomy
_RIDGE = 1e-6  # where voxels do not tell some terms apart
_LARGEST = 1.5  # gain at most e^1.5
_OUTLIER = 0.15  # of the logarithm: what is farther off than that counts less (Huber)
_WEIGHINGS = 2


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
        self, shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0), degree: int = DEGREE
    ) -> None:
        self.shape, self._spacing = shape, spacing
        edges = [n * s for n, s in zip(shape, spacing, strict=True)]
        highest = [min(n - 1, round(degree * e / max(edges))) for n, e in zip(shape, edges, strict=True)]
        powers = itertools.product(*(range(k + 1) for k in highest))
        self.powers = [p for p in powers if sum(p) <= degree]
        self.coefficients = torch.zeros(len(self.powers), dtype=torch.float64)
        self.limits = 0.0, 0.0

    def terms(self, at: Float[Tensor, "N 3"]) -> Float[Tensor, "terms N"]:
        """The Legendre products at voxels; the grid reaches from -1 to 1 along every axis."""
        z, y, x = (
            _legendre((2 * at[:, k].double() + 1) / n - 1, self._highest(k)) for k, n in enumerate(self.shape)
        )
        return torch.stack([z[i] * y[j] * x[k] for i, j, k in self.powers])

    def _highest(self, axis: int) -> int:
        return max(p[axis] for p in self.powers)

    def board(self, at: Float[Tensor, "N 3"]) -> tuple[Int[Tensor, N], int]:
        """An order of voxels, by their colour on a board of cubes, and how many are of the first.

        What is learned on one colour is tested on the other.
        """
        width = max(self.shape[k] * self._spacing[k] for k in range(3)) / _CUBES
        cubes = [torch.floor(at[:, k].double() * self._spacing[k] / width) for k in range(3)]
        colour = (cubes[0] + cubes[1] + cubes[2]) % 2
        return colour.argsort(stable=True), int((colour == 0).sum())

    def fit(self, ratio: Float[Tensor, N], terms: Float[Tensor, "terms N"], half: int) -> Float[Tensor, N]:
        """Bring the gain as near as it gets to ratios at voxels, of which the first half is of one colour.

        Of the degree that foretells one half of the cubes best from the other: gain goes on
        from cube to cube, anatomy does not.
        """
        logarithm = ratio.double().log().clamp(-_LARGEST, _LARGEST)
        weight, found = torch.ones_like(logarithm), torch.zeros_like(logarithm)
        for _ in range(_WEIGHINGS):
            halves = []
            for own in (slice(half), slice(half, None)):
                weighted = terms[:, own] * weight[own]
                halves.append((weighted @ terms[:, own].T, weighted @ logarithm[own]))
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
        """Its logarithm on a grid of any size over the same extent, or on some rows of its first axis."""
        axes = [(2 * torch.arange(n).double() + 1) / n - 1 for n in like.shape]
        axes[0] = axes[0][rows]
        z, y, x = (_legendre(axis, self._highest(k)).to(like) for k, axis in enumerate(axes))
        cube = like.new_zeros(len(z), len(y), len(x))
        cube[tuple(torch.tensor(self.powers).T)] = self.coefficients.to(like)
        return torch.einsum("ijk,id,jh,kw->dhw", cube, z, y, x).clamp(*self.limits)


def _solved(normal: Tensor, told: Tensor) -> Tensor:
    """Of normal equations, some of whose terms hardly differ."""
    ridge = _RIDGE * normal.diagonal().mean() + torch.finfo(normal.dtype).tiny  # a half may be empty
    return torch.linalg.solve(normal + ridge * torch.eye(len(told), dtype=normal.dtype), told)


def _legendre(x: Float[Tensor, N], highest: int) -> Float[Tensor, "degrees N"]:
    """The Legendre polynomials, by their recurrence."""
    found = [torch.ones_like(x), x]
    for n in range(1, highest):
        found.append(((2 * n + 1) * x * found[n] - n * found[n - 1]) / (n + 1))
    return torch.stack(found[: highest + 1])
