"""Losses for data without noise: supervised, measurement consistency, equivariance, several operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from invlearn.learning.objective import Batch, Loss, mean_square
from invlearn.learning.selection import select
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.noise import Noise, PoissonNoise


@dataclass(frozen=True)
class Supervised(Loss):
    """With ground truth: ‖f(y, A) - x‖²/n."""

    needs_truth: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.truth is not None
        return mean_square(batch.x1 - batch.truth)


@dataclass(frozen=True)
class MeasurementConsistency(Loss):
    """The reconstruction explains the measurements: ‖A f(y, A) - y‖²/m.

    Says nothing of what A does not see: A⁺y plus any function with values in the null space minimises it.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return mean_square(batch.A(batch.x1) - batch.y)


@dataclass(frozen=True)
class EquivariantImaging(Loss):
    """The signal set is invariant under a group: E_g ‖f(A T_g x1, A) - T_g x1‖²/n with x1 = f(y, A).

    One random g other than the identity a sample and step. Add it to a loss of the measurements, such as
    `MeasurementConsistency` or (robust equivariant imaging) `SURE`.

    Attributes
    ----------
    group
        Acts on the operators' domain.
    noise
        Put on the virtual measurements A T_g x1, for a model that is to be used on noisy ones.

    Raises
    ------
    ValueError
        No group, or one of a single element.

    References
    ----------
    D. Chen, J. Tachella, M. Davies, "Equivariant imaging: learning beyond the range space", ICCV 2021,
    arXiv:2103.14756; with noise: "Robust equivariant imaging", CVPR 2022, arXiv:2111.12855.
    """

    group: Group | None = None
    noise: Noise | None = None

    def __post_init__(self) -> None:
        require_group(self.group, type(self).__name__)

    def __call__(self, batch: Batch) -> Tensor:
        assert self.group is not None
        elements = batch.integers(1, self.group.order).tolist()
        moved = torch.stack([self.group(x, g) for x, g in zip(batch.x1, elements, strict=True)])
        return mean_square(batch.reconstruct(_measure(batch.A(moved), self.noise, batch), batch.A) - moved)


@dataclass(frozen=True)
class MultiOperatorImaging(Loss):
    """One model serves all operators: E_s ‖f(A_s x1, A_s) - x1‖²/n with x1 = f(y, A_g).

    One random s other than the sample's own g a sample and step; where the operators' codomains differ, one a
    step. Add it to a loss of the measurements.

    Attributes
    ----------
    noise
        Put on the virtual measurements A_s x1.

    References
    ----------
    J. Tachella, D. Chen, M. Davies, "Unsupervised learning from incomplete measurements for inverse
    problems", NeurIPS 2022, arXiv:2201.12151.
    """

    couples: ClassVar[bool] = True

    noise: Noise | None = None

    def __call__(self, batch: Batch) -> Tensor:
        A = select(batch.operators, _others(batch))
        return mean_square(batch.reconstruct(_measure(A(batch.x1), self.noise, batch), A) - batch.x1)

    def check(self, operators: OperatorFamily) -> None:
        if len(operators) < 2:
            raise ValueError(
                "MultiOperatorImaging learns from several operators, got one; for a single operator take "
                "EquivariantImaging(group), if the signals have a symmetry"
            )


def require_group(group: Group | None, who: str) -> None:
    """Refuse a loss without a group, or with one that moves nothing."""
    if not isinstance(group, Group):
        raise ValueError(f"{who} needs a group, such as {who}(Shifts((28, 28))); got {group!r}")
    if group.order < 2:
        raise ValueError(f"{who}: {group!r} has only the identity, which teaches nothing")


def _others(batch: Batch) -> Tensor:
    """For each sample another operator than its own."""
    G = len(batch.operators)
    one_codomain = len({A.codomain for A in batch.operators}) == 1
    step = batch.integers(1, G, None if one_codomain else 1)
    return (batch.index + step) % G if one_codomain else ((batch.index[:1] + step) % G).expand(len(batch.y))


def _measure(y: Tensor, noise: Noise | None, batch: Batch) -> Tensor:
    """Put noise on virtual measurements; their gradient is that of the clean ones."""
    if noise is None:
        return y
    clean = torch.nan_to_num(y.detach())  # a diverged model must not pass for bad input
    if isinstance(noise, PoissonNoise):
        clean = clean.clamp(min=0)
    return y + (noise(clean, batch.generator) - y.detach())


def unit_probe(y: Tensor, generator: Generator) -> Tensor:
    """Random signs, or quarter turns 1, i, -1, -i for complex data: E b bᴴ = 1; where complex, E b bᵀ = 0."""
    kinds = 4 if y.is_complex() else 2
    drawn = torch.randint(0, kinds, y.shape, generator=generator, device=generator.device).to(y.device)
    values = torch.tensor([1, -1, 1j, -1j] if y.is_complex() else [1, -1], dtype=y.dtype, device=y.device)
    return values[drawn]
