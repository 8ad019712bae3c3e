"""Several measurement operators on one domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from invlearn.physics.operator import LinearOperator, OperatorList, stack
from invlearn.physics.space import Space


class OperatorFamily(nn.Module):
    """G linear operators with one domain; each signal was measured by one of them.

    Parameters
    ----------
    operators
        The operators A_1 ... A_G. Codomains may differ in size.

    Raises
    ------
    ValueError
        No operator, or domains that differ.
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        super().__init__()
        operators = list(operators)
        if not operators:
            raise ValueError("a family needs at least one operator")
        for g, op in enumerate(operators):
            if not isinstance(op, LinearOperator):
                raise TypeError(f"operator {g} of the family is a {type(op).__name__}, not a LinearOperator")
            if op.domain != operators[0].domain:
                raise ValueError(
                    f"mixed domains: operator {g} ({op.label}) acts on {op.domain}, "
                    f"operator 0 on {operators[0].domain}; a family shares one domain"
                )
        self.operators = OperatorList(operators)

    @classmethod
    def from_masks(cls, masks: Tensor | np.ndarray, complex: bool = False) -> OperatorFamily:
        """Inpainting masks `(G, *image)` of 0 and 1."""
        from invlearn.physics.linear.mask import Mask

        return cls([Mask(m, complex) for m in torch.as_tensor(masks)])

    @classmethod
    def from_matrices(
        cls, matrices: Tensor | np.ndarray | Sequence[Tensor], shape: Sequence[int] | None = None
    ) -> OperatorFamily:
        """Matrices `(G, m, n)`, or a sequence of `(m_g, n)`; `shape` where the signal is an image."""
        from invlearn.physics.linear.dense import Dense

        return cls([Dense(m, shape) for m in matrices])

    @classmethod
    def from_kspace_masks(cls, masks: Tensor | np.ndarray) -> OperatorFamily:
        """Single-coil Cartesian MRI: masks `(G, *kspace)` of 0 and 1, zero frequency in the middle."""
        from invlearn.physics.mri.cartesian import CartesianMRI

        return cls([CartesianMRI(m) for m in torch.as_tensor(masks)])

    @property
    def domain(self) -> Space:
        """The common domain."""
        return self[0].domain

    def __len__(self) -> int:
        return len(self.operators)

    def __getitem__(self, g: int) -> LinearOperator:
        operator: LinearOperator = self.operators[g]  # type: ignore[assignment]
        return operator

    def __iter__(self) -> Iterator[LinearOperator]:
        return iter(self.operators)

    @property
    def structured(self) -> bool:
        """Whether any operator is of a special family (see `LinearOperator.structured`)."""
        return any(op.structured for op in self)

    def stack(self) -> LinearOperator:
        """x to (A_1 x, ..., A_G x) as one operator."""
        return stack(list(self))

    def _grouped(self, x: Tensor, index: Tensor, adjoint: bool) -> Tensor:
        index = torch.as_tensor(index, device=x.device)
        if index.ndim != 1 or index.shape[0] != x.shape[0] or index.is_floating_point():
            raise ValueError(
                f"the operator index must be integers of shape ({x.shape[0]},), one a sample; "
                f"got {index.dtype} {tuple(index.shape)}"
            )
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise ValueError(
                f"operator index {int(index.min())}..{int(index.max())} out of range for {len(self)} operators"
            )
        out: Tensor | None = None
        for g in torch.unique(index).tolist():
            rows = (index == g).nonzero().squeeze(1)
            part = self[g].adjoint(x[rows]) if adjoint else self[g](x[rows])
            if out is None:
                out = part.new_zeros(x.shape[0], *part.shape[1:])
            out = out.index_copy(0, rows, part)
        if out is None:
            raise ValueError("an empty batch has no measurements")
        return out

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Measure sample i with operator `index[i]`.

        Parameters
        ----------
        x
            `(N, *domain.shape)`.
        index
            `(N,)` integers in 0 ... G-1.

        Returns
        -------
        Tensor
            `(N, *codomain.shape)`. All operators must have one codomain; otherwise use
            ``family[g](x)`` operator by operator.
        """
        codomains = {op.codomain for op in self}
        if len(codomains) > 1:
            raise ValueError(
                f"the operators' codomains differ ({', '.join(sorted(map(str, codomains)))}), a batch cannot "
                "hold their outputs; apply family[g](x) operator by operator"
            )
        return self._grouped(x, index, adjoint=False)

    def adjoint(self, y: Tensor, index: Tensor) -> Tensor:
        """A_{index[i]}ᴴ y_i: `(N, *codomain.shape)` to `(N, *domain.shape)`."""
        return self._grouped(y, index, adjoint=True)
