"""What a network is trained for: a weighted sum of losses, each a small frozen object.

A loss sees a `Batch`: measurements, the operators that made them, and the model. The reconstruction
x1 = f(y, A) is computed once and shared by all losses that ask for it.

All losses are means over the batch and over the entries of a measurement or image, of |.|² for complex data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Generator, Tensor

from invlearn.learning.selection import select
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.operator import LinearOperator

Model = Callable[[Tensor, LinearOperator], Tensor]


@dataclass(eq=False)
class Batch:
    """What a loss sees of one batch.

    Attributes
    ----------
    model
        f(y, A), the reconstruction that is being trained: `(N, *codomain)` to `(N, *domain)`.
    operators
        All the operators.
    y
        Measurements `(N, *codomain.shape)`.
    index
        `(N,)`: which operator measured each sample.
    generator
        Source of all randomness of the losses.
    truth
        `(N, *domain.shape)`, if there is any.
    learned
        Numbers that losses learn along, by name (see `Loss.initial`).
    """

    model: Model
    operators: OperatorFamily
    y: Tensor
    index: Tensor
    generator: Generator
    truth: Tensor | None = None
    learned: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def A(self) -> LinearOperator:
        """The operators of this batch's samples."""
        return select(self.operators, self.index)

    @cached_property
    def x1(self) -> Tensor:
        """f(y, A)."""
        return self.reconstruct(self.y, self.A)

    def reconstruct(self, y: Tensor, A: LinearOperator) -> Tensor:
        """f(y, A), checked.

        Raises
        ------
        ValueError
            The model gives another shape than images of the operators' domain.
        """
        x = A.domain.check(self.model(y, A), "the space of reconstructions (the output of the model)")
        if A.domain.batch_shape(x) != A.codomain.batch_shape(y):
            raise ValueError(
                f"the model made {tuple(x.shape)} of measurements {tuple(y.shape)}: expected "
                f"({len(y)}, {', '.join(map(str, A.domain.shape))})"
            )
        return x

    def integers(self, low: int, high: int, count: int | None = None) -> Tensor:
        """`count` random integers in low ... high-1, by default one a sample."""
        shape = (len(self.y) if count is None else count,)
        drawn = torch.randint(low, high, shape, generator=self.generator, device=self.generator.device)
        return drawn.to(self.y.device)


def mean_square(r: Tensor) -> Tensor:
    """The mean of |r|² over all entries."""
    return (r * r.conj()).real.mean() if r.is_complex() else r.square().mean()


class Loss(ABC):
    """One term of an objective: ``loss(batch)`` is a real number.

    ``2 * loss`` and ``loss + other`` are objectives. What a loss says of itself decides, before training,
    whether it can work (see `invlearn.learning.gate`).

    Attributes
    ----------
    needs_truth
        Whether it compares with ground truth.
    couples
        Whether it makes what is learned from one operator hold for the others.
    group
        Under which it makes the reconstruction equivariant; None for none.
    initial
        Start values of numbers that are learned along, by name.
    """

    needs_truth: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    group: Group | None = None

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor: ...

    @property
    def initial(self) -> dict[str, float]:
        """Numbers that the loss learns beside the network, by name, and where they begin."""
        return {}

    def check(self, operators: OperatorFamily) -> None:
        """Raise ValueError where this loss cannot be computed for these operators."""
        if self.group is not None:
            self.group.check_domain(operators.domain)

    def __add__(self, other: Loss | Objective) -> Objective:
        return Objective.of(self) + other

    def __mul__(self, weight: float | int) -> Objective:
        return Objective.of(self) * weight

    __rmul__ = __mul__


@dataclass(frozen=True)
class Objective:
    """A sum of weighted losses.

    Attributes
    ----------
    terms
        Pairs of a weight and a loss.

    Raises
    ------
    ValueError
        No term, a weight that is not positive and finite.
    TypeError
        A term that is no loss.
    """

    terms: tuple[tuple[float, Loss], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("an objective needs at least one loss")
        for weight, loss in self.terms:
            if not isinstance(loss, Loss):
                raise TypeError(f"a loss is an object such as MeasurementConsistency(), got {loss!r}")
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"the weight of {type(loss).__name__} must be positive and finite, got {weight}"
                )

    @classmethod
    def of(cls, losses: Loss | Objective | Iterable[Loss | Objective]) -> Objective:
        """The objective of one loss, of an objective (itself), or of several: their sum."""
        if isinstance(losses, Objective):
            return losses
        if isinstance(losses, Loss):
            return cls(((1.0, losses),))
        if isinstance(losses, str) or not isinstance(losses, Iterable):
            raise TypeError(f"a loss is an object such as MeasurementConsistency(), got {losses!r}")
        return cls(tuple(term for loss in losses for term in cls.of(loss).terms))

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses without their weights."""
        return tuple(loss for _, loss in self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        """One name a term: the loss's class, numbered where it occurs twice."""
        names: list[str] = []
        for loss in self.losses:
            name = type(loss).__name__
            earlier = sum(isinstance(other, type(loss)) for other in self.losses[: len(names)])
            names.append(f"{name}-{earlier + 1}" if earlier else name)
        return tuple(names)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum as `"loss"`, and each term without its weight by name."""
        values = {name: loss(batch) for name, loss in zip(self.names, self.losses, strict=True)}
        total = torch.stack([w * v for (w, _), v in zip(self.terms, values.values(), strict=True)]).sum()
        return {"loss": total, **values}

    def __add__(self, other: Loss | Objective) -> Objective:
        return Objective(self.terms + Objective.of(other).terms)

    def __mul__(self, weight: float | int) -> Objective:
        return Objective(tuple((float(weight * w), loss) for w, loss in self.terms))

    __rmul__ = __mul__
