"""The groups that act on images: shifts, rotations, flips, D4, and any given permutations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from invlearn.physics.group import Group, image_shape, square_shape
from invlearn.physics.irreps import Irrep, abelian_irreps, dihedral_irreps
from invlearn.physics.permutation_group import Permutations
from invlearn.physics.rotations import Rotations

__all__ = [
    "Dihedral",
    "Flips",
    "Group",
    "Permutations",
    "Rotations",
    "Rotations90",
    "Shifts",
    "group_by_name",
]


class _CyclicProduct(Group):
    """Z_r1 x Z_r2 x ...: an element is its digits, in row-major order."""

    def __init__(self, shape: Sequence[int], radices: Sequence[int]) -> None:
        self.radices = tuple(radices)
        order = math.prod(self.radices)
        strides = [math.prod(self.radices[a + 1 :]) for a in range(len(self.radices))]
        units = [stride for stride, radix in zip(strides, self.radices, strict=True) if radix > 1]
        super().__init__(shape, order, units, cyclic=math.lcm(*self.radices) == order)

    def digits(self, g: int) -> tuple[int, ...]:
        """How often element `g` applies each cyclic factor."""
        rest, out = self._element(g), []
        for radix in reversed(self.radices):
            rest, digit = divmod(rest, radix)
            out.append(digit)
        return tuple(reversed(out))

    def _number(self, digits: Sequence[int]) -> int:
        number = 0
        for digit, radix in zip(digits, self.radices, strict=True):
            number = number * radix + digit % radix
        return number

    def _compose(self, g: int, h: int) -> int:
        return self._number([a + b for a, b in zip(self.digits(g), self.digits(h), strict=True)])

    def _inverse(self, g: int) -> int:
        return self._number([-a for a in self.digits(g)])

    def _decompose(self) -> tuple[Irrep, ...]:
        return abelian_irreps(self.radices, self.fixed_points())


class Shifts(_CyclicProduct):
    """Cyclic shifts over all axes of an image of any rank.

    Parameters
    ----------
    shape
        Shape of the images.
    step
        Only shifts by multiples of this many entries, one number or one an axis. On an axis of
        length N these are the multiples of gcd(step, N); 0 leaves an axis in place.

    Raises
    ------
    ValueError
        No axis, a size below 1, a negative step, or a number of steps that is not the number of axes.
    """

    name = "shifts"

    def __init__(self, shape: Sequence[int], step: int | Sequence[int] = 1) -> None:
        shape = image_shape(shape, "Shifts")
        steps = (step,) * len(shape) if isinstance(step, int) else tuple(step)
        if len(steps) != len(shape) or any(s < 0 for s in steps):
            raise ValueError(
                f"Shifts of images {shape} need one step >= 0, or one an axis ({len(shape)}), got {step}"
            )
        self.steps = tuple(math.gcd(s, size) for s, size in zip(steps, shape, strict=True))
        super().__init__(shape, [size // s for s, size in zip(self.steps, shape, strict=True)])

    def _move(self, x: Tensor, g: int) -> Tensor:
        amounts = [digit * s for digit, s in zip(self.digits(g), self.steps, strict=True)]
        return torch.roll(x, amounts, tuple(range(-len(self.shape), 0)))

    def __repr__(self) -> str:
        return f"Shifts({self.shape}, step={self.steps})"

    def fixed_points(self) -> Int[Tensor, " order"]:
        counts = torch.zeros(self.order, dtype=torch.int64)
        counts[0] = self.size  # a shift moves every entry or none
        return counts

    def fourier_permutation(self, g: int) -> Int[Tensor, " n"]:
        self._element(g)
        return torch.arange(self.size)  # a shift multiplies frequencies by phases


class Rotations90(_CyclicProduct):
    """Quarter turns of the last two axes, about the centre of a square image.

    Parameters
    ----------
    shape
        Shape of the images, `(..., N, N)` with N >= 2.

    Raises
    ------
    ValueError
        The last two axes are not a square of side at least 2.
    """

    name = "rotations90"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(square_shape(shape, "Rotations90"), (4,))

    def _move(self, x: Tensor, g: int) -> Tensor:
        return torch.rot90(x, g, (-2, -1))


class Flips(_CyclicProduct):
    """Mirror images along all axes and their combinations (an axis of length 1 has none).

    Parameters
    ----------
    shape
        Shape of the images.

    Raises
    ------
    ValueError
        No axis, or a size below 1.
    """

    name = "flips"

    def __init__(self, shape: Sequence[int]) -> None:
        shape = image_shape(shape, "Flips")
        super().__init__(shape, [min(size, 2) for size in shape])

    def _move(self, x: Tensor, g: int) -> Tensor:
        return torch.flip(x, [axis - len(self.shape) for axis, digit in enumerate(self.digits(g)) if digit])


class Dihedral(Group):
    """The eight symmetries of the square, D4, on the last two axes.

    Element k + 4a flips the last axis a times (0 or 1), then makes k quarter turns.

    Parameters
    ----------
    shape
        Shape of the images, `(..., N, N)` with N >= 2.

    Raises
    ------
    ValueError
        The last two axes are not a square of side at least 2.
    """

    name = "dihedral"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(square_shape(shape, "Dihedral"), order=8, generators=(1, 4), cyclic=False)

    def _move(self, x: Tensor, g: int) -> Tensor:
        flips, turns = divmod(g, 4)
        return torch.rot90(torch.flip(x, (-1,)) if flips else x, turns, (-2, -1))

    def _compose(self, g: int, h: int) -> int:
        (a, k), (b, j) = divmod(g, 4), divmod(h, 4)
        return (k + (-j if a else j)) % 4 + 4 * (a ^ b)  # a flip turns a rotation round

    def _inverse(self, g: int) -> int:
        return g if g >= 4 else -g % 4

    def _decompose(self) -> tuple[Irrep, ...]:
        return dihedral_irreps(self.fixed_points())


_BY_NAME: dict[str, Callable[[Sequence[int]], Group]] = {
    kind.name: kind for kind in (Shifts, Rotations90, Flips, Dihedral)
}


def group_by_name(name: str, shape: Sequence[int]) -> Group:
    """The group of that name on images of `shape`: shifts, rotations90, flips or dihedral.

    Raises
    ------
    ValueError
        No such group, or it does not act on that shape.
    """
    if name not in _BY_NAME:
        raise ValueError(f"no group {name!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name](shape)
