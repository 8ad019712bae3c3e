"""A batch in which every sample has its own operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from invlearn.physics.family import OperatorFamily
from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space


def select(family: OperatorFamily, index: Int[Tensor, " N"]) -> LinearOperator:
    """The operator A with (A x)_i = A_{index[i]} x_i on batches of N samples.

    Parameters
    ----------
    family
        The operators.
    index
        `(N,)` integers in 0 ... G-1, N >= 1. If all are equal, the answer is that operator of the family
        itself.

    Raises
    ------
    ValueError
        An index out of range, or several operators whose codomains differ.
    """
    numbers = torch.unique(index).tolist()
    if not numbers or numbers[0] < 0 or numbers[-1] >= len(family):
        raise ValueError(f"the operator index must lie in 0 ... {len(family) - 1}, got {numbers}")
    return family[numbers[0]] if len(numbers) == 1 else Selected(family, index)


class Selected(LinearOperator):
    """Operator ``index[i]`` of a family for sample i of a batch; see `select`.

    Domain and codomain are those of one sample. It applies to `(..., N, *domain.shape)`: the last of the
    batch dimensions counts the samples.
    """

    def __init__(self, family: OperatorFamily, index: Tensor) -> None:
        numbers = torch.unique(index).tolist()
        codomains = {family[g].codomain for g in numbers}
        if len(codomains) > 1:
            listed = ", ".join(sorted(map(str, codomains)))
            raise ValueError(
                f"the operators of one batch have codomains that differ ({listed}); train with batch_size=1, "
                "or bring the measurements to one shape"
            )
        super().__init__(family.domain, codomains.pop())
        self.family = family
        self.structured = family.structured
        self.samples = len(index)
        rows = [(index == g).nonzero().squeeze(1) for g in numbers]
        self._rows = list(zip(numbers, rows, strict=True))
        self._back = torch.cat(rows).argsort()

    def members(self) -> list[LinearOperator]:
        """The operators that occur, each once."""
        return [self.family[g] for g, _ in self._rows]

    def _each(self, x: Tensor, space: Space, apply: Callable[[LinearOperator, Tensor], Tensor]) -> Tensor:
        axis = x.ndim - space.ndim - 1
        if axis < 0 or x.shape[axis] != self.samples:
            raise ValueError(
                f"these operators belong to a batch of {self.samples} samples, got {tuple(x.shape)} for "
                f"samples of shape {space.shape}"
            )
        parts = [apply(self.family[g], x.index_select(axis, rows.to(x.device))) for g, rows in self._rows]
        return torch.cat(parts, axis).index_select(axis, self._back.to(x.device))

    def _forward(self, x: Tensor) -> Tensor:
        return self._each(x, self.domain, lambda A, part: A._forward(part))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._each(y, self.codomain, lambda A, part: A._adjoint(part))

    def _normal(self, x: Tensor) -> Tensor:
        return self._each(x, self.domain, lambda A, part: A._normal(part))
