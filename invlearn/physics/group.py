"""What a finite group is here: numbered elements that permute the entries of an image.

The identity is element 0, ``group(x, g)`` is T_g x, and ``T_g T_h = T_{gh}`` with
``gh = group.compose(g, h)``. Where the action interpolates (`Rotations`) this holds approximately only:
such a group says ``exact = False``, moves images, and refuses every question about permutations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from operator import index
from typing import Any, ClassVar, overload

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.irreps import Irrep, components
from invlearn.physics.linear.permutation import Permutation
from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space


class Group(ABC):
    """A finite group with a numbering of its elements and an action on arrays of one shape.

    Parameters
    ----------
    shape
        Shape of the images, without batch dimensions.
    order
        Number of elements |G|.
    generators
        Numbers of elements that generate the group (none for the trivial group).
    cyclic
        Whether one element generates the group.

    Attributes
    ----------
    name
        What kind of group it is: `"shifts"`, `"rotations90"`, `"flips"`, `"dihedral"`,
        `"permutations"` or `"rotations"`.
    exact
        Whether the action is an exact permutation of entries, without interpolation.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    identity: ClassVar[int] = 0

    def __init__(self, shape: Sequence[int], order: int, generators: Sequence[int], cyclic: bool) -> None:
        self.shape = tuple(shape)
        self.order = order
        self.generators = tuple(generators)
        self.cyclic = cyclic

    @abstractmethod
    def _move(self, x: Tensor, g: int) -> Tensor:
        """T_g on the trailing axes of `(*batch, *shape)`."""

    @abstractmethod
    def _compose(self, g: int, h: int) -> int:
        """The number of gh."""

    @abstractmethod
    def _inverse(self, g: int) -> int:
        """The number of the inverse of g."""

    @abstractmethod
    def _decompose(self) -> tuple[Irrep, ...]:
        """The irreps that occur, computed once."""

    @property
    def size(self) -> int:
        """Number of entries n of one image."""
        return math.prod(self.shape)

    @overload
    def __call__(self, x: Tensor, g: int) -> Tensor: ...
    @overload
    def __call__(self, x: np.ndarray, g: int) -> np.ndarray: ...
    def __call__(self, x: Any, g: int) -> Any:
        """T_g x for `(*batch, *shape)` of any dtype.

        Raises
        ------
        TypeError
            Neither a tensor nor a numpy array, or an element that is no integer.
        ValueError
            The trailing dimensions differ from `shape`, or there is no element `g`.
        """
        g = self._element(g)
        if not isinstance(x, Tensor):
            return self(as_tensor(x, repr(self)), g).numpy()
        if tuple(x.shape[max(x.ndim - len(self.shape), 0) :]) != self.shape:
            raise ValueError(
                f"{self!r} acts on (*batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        return self._move(x, g)

    def permutation(self, g: int) -> Int[Tensor, " n"]:
        """Indices p of element `g`: ``(T_g x).flatten()[i] = x.flatten()[p[i]]``; int64.

        Raises
        ------
        ValueError
            No such element, or a group that interpolates.
        """
        g = self._element(g)
        if not self.exact:
            raise ValueError(
                f"{self!r} interpolates: its elements are no permutations of pixels, and form a group only "
                "approximately; use Rotations90, whose quarter turns are exact"
            )
        return self._move(torch.arange(self.size).reshape(self.shape), g).reshape(-1)

    def action(self, g: int, complex: bool = False) -> LinearOperator:
        """T_g as an operator on real or complex images."""
        return Permutation(self.permutation(g), self.shape, complex)

    def compose(self, g: int, h: int) -> int:
        """The element that acts as `g` after `h`: T_gh = T_g T_h."""
        return self._compose(self._element(g), self._element(h))

    def inverse(self, g: int) -> int:
        """The element that undoes `g`."""
        return self._inverse(self._element(g))

    def _element(self, g: int) -> int:
        if not 0 <= index(g) < self.order:
            raise ValueError(f"{self!r} has the elements 0 to {self.order - 1}, got {g}")
        return index(g)

    def subset(self, count: int, seed: int) -> list[int]:
        """`count` distinct random elements, the identity first.

        Raises
        ------
        ValueError
            `count` is below 1 or above the order.
        """
        if not 1 <= count <= self.order:
            raise ValueError(f"{self!r} has {self.order} elements, cannot choose {count} of them")
        others = np.random.default_rng(seed).choice(self.order - 1, count - 1, replace=False)
        return [0, *(others + 1).tolist()]

    def fixed_points(self) -> Int[Tensor, " order"]:
        """Number of entries that each element leaves in place: the trace of T_g; int64."""
        entries = torch.arange(self.size)
        return torch.stack([(self.permutation(g) == entries).sum() for g in range(self.order)])

    def orbits(self) -> Int[Tensor, " n"]:
        """For each entry the number of its orbit, 0, 1, ...: entries that the group can exchange."""
        moves = [self.permutation(g).numpy() for g in self.generators]
        stacked = np.stack(moves) if moves else np.empty((0, self.size), dtype=np.int64)
        return torch.from_numpy(components(stacked, self.size).astype(np.int64))

    @cached_property
    def _irreps(self) -> tuple[Irrep, ...]:
        return self._decompose()

    def irreps(self) -> tuple[Irrep, ...]:
        """The irreducible representations over C that occur in the action.

        Their dimensions s_j and multiplicities c_j satisfy sum_j s_j c_j = n.
        """
        return self._irreps

    def max_multiplicity(self) -> int:
        """max_j c_j."""
        return max(irrep.multiplicity for irrep in self.irreps())

    def minimal_measurements(self) -> int:
        """max_j ceil(c_j / s_j): rows that a generic A needs for [A T_1; ...; A T_|G|] to have rank n.

        The number of generators of C^n as a module over the group algebra. It is at least n / |G|,
        and more where the group leaves entries in place.
        """
        return max(math.ceil(irrep.multiplicity / irrep.dimension) for irrep in self.irreps())

    def check_domain(self, space: Space) -> None:
        """Raise unless the group acts on the elements of `space`.

        Raises
        ------
        ValueError
            Another shape.
        """
        if space.shape != self.shape:
            raise ValueError(
                f"{self!r} acts on images of shape {self.shape} but the signals have shape {space.shape}; "
                "build the group for that shape, or give the operator a domain of the image's shape"
            )

    def fourier_permutation(self, g: int) -> Int[Tensor, " n"] | None:
        """How `g` moves frequencies: indices f with ``|F T_g x|^2.flatten()[i] = |F x|^2.flatten()[f[i]]``.

        F is the discrete Fourier transform over all axes of the shape, zero frequency first. T_g
        maps complex exponentials to multiples of complex exponentials exactly if it is an affine
        map of the periodic grid, u to Mu + b; otherwise there is no such f and the answer is None.
        """
        return _frequency_map(self.permutation(g), self.shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape})"


def _frequency_map(permutation: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    sizes = torch.tensor(shape)
    strides = torch.tensor([math.prod(shape[a + 1 :]) for a in range(len(shape))])

    def coordinates(flat: Tensor) -> Tensor:
        return (flat[:, None] // strides).remainder(sizes)

    def flat(coordinate: Tensor) -> Tensor:
        return (coordinate.remainder(sizes) * strides).sum(-1)

    grid = coordinates(torch.arange(permutation.numel()))
    target = coordinates(permutation)
    units = torch.eye(len(shape), dtype=torch.int64)
    offset = target[0]
    columns = (target[flat(units)] - offset).remainder(sizes)  # row a: M e_a
    if bool(((columns * sizes[:, None]).remainder(sizes) != 0).any()):
        return None  # e_a has order N_a and so must M e_a
    if not torch.equal((grid @ columns + offset).remainder(sizes), target):
        return None
    # the exponential k after M^-1 is the exponential k': k'_a = N_a sum_b k_b (M^-1)_ba / N_b
    inverse = coordinates(torch.argsort(permutation)[flat(units + offset)])  # row a: M^-1 e_a
    return flat(grid @ (inverse * sizes[:, None] // sizes).T)


def image_shape(shape: Sequence[int], who: str) -> tuple[int, ...]:
    """`shape` as a checked tuple of at least one axis; `who` is named in the message."""
    checked = Space(tuple(shape)).shape
    if not checked:
        raise ValueError(f"{who} needs the shape of an image with at least one axis, got ()")
    return checked


def square_shape(shape: Sequence[int], who: str) -> tuple[int, ...]:
    """`shape` checked to end in two equal axes of at least 2; `who` is named in the message."""
    checked = image_shape(shape, who)
    if len(checked) < 2 or checked[-1] != checked[-2] or checked[-1] < 2:
        raise ValueError(
            f"{who} turns squares: the last two axes must be equal and at least 2, got shape {checked}; "
            "crop or pad the images to a square"
        )
    return checked
