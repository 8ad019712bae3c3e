"""Losses that hide a part of each measurement from the model and test it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from invlearn.learning.losses import require_group
from invlearn.learning.objective import Batch, Loss, Model, mean_square
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.linear.mask import Mask
from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space


@dataclass(frozen=True, kw_only=True)
class Splitting(Loss):
    """Reconstruct from a random part a of the measurement, test on the rest b: ‖A_b f(y_a, A_a) -
    y_b‖²/((1-keep) m).

    A_a = M_a A with a mask M_a on the measurements, one a step, the same for all samples of a batch; A_b = (1
    - M_a) A; m counts the entries outside `centre`. Its expectation is the supervised loss with the error
    weighted by E[A_bᴴA_b | A_a]: see `invlearn.identifiability.check_splitting` for when that has the
    supervised minimiser.

    Attributes
    ----------
    keep
        Probability that an entry goes to a, strictly between 0 and 1.
    shared_axes
        Axes of one measurement along which entries are kept or hidden together: 0 for `(coils, samples)`.
    centre
        Sizes of a box in the middle (around index N//2) of the last axes of a measurement that always goes to
        a: the centre of k-space, without which no model can do much. It is never tested; let the model keep
        to the measurements there, as `invlearn.unrolled.HQS(data_last=True)` does.

    Raises
    ------
    ValueError
        `keep` outside (0, 1); axes the measurements do not have, or all of them; a centre that is empty,
        larger than a measurement or all of it.

    References
    ----------
    B. Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks without fully
    sampled reference data", MRM 84 (2020) 3172, doi:10.1002/mrm.28378.
    """

    couples: ClassVar[bool] = True

    keep: float = 0.6
    shared_axes: tuple[int, ...] = ()
    centre: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_keep(self.keep, type(self).__name__)

    def __call__(self, batch: Batch) -> Tensor:
        return self._test(batch, None, 0)

    def _test(self, batch: Batch, group: Group | None, g: int) -> Tensor:
        """The loss for the operator A T_g and the reconstruction T_g f(y_a, M_a A T_g)."""
        kept = self.draw(batch.A.codomain, batch.generator).to(batch.y.device)
        A = batch.A if group is None else batch.A @ group.action(g, batch.A.domain.complex).to(batch.y.device)
        A_a = Mask(kept, A.codomain.complex) @ A
        x = batch.reconstruct(batch.y * kept, A_a)
        tested = (1 - self.keep) * float((~self._middle(A.codomain)).float().mean())
        return mean_square((A(x) - batch.y) * ~kept) / tested

    def draw(self, space: Space, generator: Generator) -> Tensor:
        """Which entries of a measurement go to a, `(*space.shape)`: some do, and some do not."""
        middle = self._middle(space)
        chance = torch.rand(middle.shape, generator=generator, device=generator.device)
        chance = chance.masked_fill(middle.to(chance.device), 0)
        kept = ((chance < self.keep) | (chance == chance.min())) & (chance != chance.max())
        return kept.expand(space.shape)

    def _middle(self, space: Space) -> Tensor:
        """Which entries always go to a; of length 1 along the shared axes."""
        axes = {axis % space.ndim for axis in self.shared_axes}
        shape = [1 if axis in axes else size for axis, size in enumerate(space.shape)]
        middle = torch.zeros(shape, dtype=torch.bool)
        if self.centre:
            box = [slice(None)] * (space.ndim - len(self.centre))
            for axis, size in enumerate(self.centre, start=len(box)):
                first = 0 if axis in axes else shape[axis] // 2 - size // 2
                box.append(slice(first, first + size))
            middle[tuple(box)] = True
        return middle

    def check(self, operators: OperatorFamily) -> None:
        super().check(operators)
        for A in operators:
            _check_axes(self.shared_axes, A.codomain, type(self).__name__)
            _check_centre(self.centre, A.codomain, type(self).__name__)
            if self._middle(A.codomain).all():
                raise ValueError(
                    f"{type(self).__name__}: the centre {self.centre} is all of a measurement "
                    f"{A.codomain.shape}; nothing is left to test on"
                )


@dataclass(frozen=True)
class EquivariantSplitting(Splitting):
    """Splitting for the operator moved by a group: E_g ‖A_b T_g f(y_a, A_a T_g) - y_b‖²/((1-keep) m).

    One random g a step, the identity among them. T_g f(y, A T_g), averaged over g, is an equivariant
    reconstruction: `Equivariant` is that average, to be used with a model trained so.

    Attributes
    ----------
    group
        Under which the signal set is invariant; acts on the operators' domain.
    keep, shared_axes, centre
        As for `Splitting`.

    References
    ----------
    V. Sechaud et al., "Equivariant splitting: self-supervised learning from incomplete data", 2025,
    arXiv:2510.00929.
    """

    group: Group | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_group(self.group, type(self).__name__)

    def __call__(self, batch: Batch) -> Tensor:
        assert self.group is not None
        return self._test(batch, self.group, int(batch.integers(0, self.group.order, 1)))


class Equivariant(nn.Module):
    """A model made equivariant by averaging, mean_g T_g f(y, A T_g).

    Parameters
    ----------
    model
        f(y, A).
    group
        Acts on the operators' domain.
    elements
        How many group elements to average, the identity first; all by default.
    seed
        Of the choice of elements.
    """

    def __init__(self, model: Model, group: Group, elements: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.group = group
        self.elements = group.subset(group.order if elements is None else elements, seed)

    def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
        """`(N, *codomain)` to `(N, *domain)`."""
        moved = (A @ self.group.action(g, A.domain.complex).to(y.device) for g in self.elements)
        turned = [self.group(self.model(y, B), g) for B, g in zip(moved, self.elements, strict=True)]
        return torch.stack(turned).mean(0)


def _check_keep(keep: float, who: str) -> None:
    if not isinstance(keep, int | float) or not 0 < keep < 1:
        raise ValueError(
            f"{who}: keep must lie strictly between 0 and 1, got {keep!r}: the model needs something to see, "
            f"and "
            "something to be tested on"
        )


def _check_axes(axes: tuple[int, ...], space: Space, who: str) -> None:
    if any(not -space.ndim <= axis < space.ndim for axis in axes):
        raise ValueError(f"{who}: shared_axes {axes} do not name axes of measurements {space.shape}")
    if len({axis % space.ndim for axis in axes}) == space.ndim:
        raise ValueError(f"{who}: shared_axes {axes} are all axes of {space.shape}; nothing is left to split")


def _check_centre(centre: tuple[int, ...], space: Space, who: str) -> None:
    last = space.shape[space.ndim - len(centre) :]
    if len(centre) > space.ndim or any(not 1 <= size <= n for size, n in zip(centre, last, strict=True)):
        raise ValueError(f"{who}: no box {centre} fits into the last axes of measurements {space.shape}")
