"""Several measurement operators on one domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from invlearn.io.tensors import as_tensor
from invlearn.physics.blocks import stack
from invlearn.physics.operator import LinearOperator, OperatorList
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

        return cls([Mask(m, complex) for m in as_tensor(masks, "masks")])

    @classmethod
    def from_matrices(
        cls, matrices: Tensor | np.ndarray | Sequence[Tensor | np.ndarray], shape: Sequence[int] | None = None
    ) -> OperatorFamily:
        """Matrices `(G, m, n)`, or a sequence of `(m_g, n)`; `shape` where the signal is an image."""
        from invlearn.physics.linear.dense import Dense

        return cls([Dense(m, shape) for m in matrices])

    @classmethod
    def from_kspace_masks(cls, masks: Tensor | np.ndarray) -> OperatorFamily:
        """Single-coil Cartesian MRI: masks `(G, *kspace)` of 0 and 1, zero frequency in the middle."""
        from invlearn.physics.mri.cartesian import CartesianMRI

        return cls([CartesianMRI(m) for m in as_tensor(masks, "k-space masks")])

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

    def _grouped(self, x: Any, index: Any, adjoint: bool) -> Any:
        spaces = {op.codomain if adjoint else op.domain for op in self}
        targets = {op.domain if adjoint else op.codomain for op in self}
        if len(spaces) > 1 or len(targets) > 1:
            codomains = ", ".join(sorted(str(op.codomain) for op in self))
            raise ValueError(
                f"the operators' codomains differ ({codomains}), one batch cannot hold their "
                "measurements; apply family[g] operator by operator"
            )
        numpy_in = isinstance(x, np.ndarray)
        (space,), (target,) = spaces, targets
        x = space.check(as_tensor(x, "the family").to(self[0].device) if numpy_in else x, "the family")
        if x.ndim != space.ndim + 1 or x.shape[0] == 0:
            raise ValueError(
                f"a family acts on a batch (N, {', '.join(map(str, space.shape))}) of at least one sample, "
                f"got {tuple(x.shape)}"
            )
        index = as_tensor(index, "the operator index").to(x.device)
        if index.shape != x.shape[:1] or index.dtype == torch.bool or index.is_floating_point():
            raise ValueError(
                f"the operator index must be integers of shape ({x.shape[0]},), one a sample; "
                f"got {index.dtype} {tuple(index.shape)}"
            )
        if int(index.min()) < 0 or int(index.max()) >= len(self):
            raise ValueError(
                f"operator index {int(index.min())}..{int(index.max())} is out of range "
                f"for {len(self)} operators"
            )
        out = target.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        for g in torch.unique(index).tolist():
            rows = (index == g).nonzero().squeeze(1)
            out = out.index_copy(0, rows, self[g].adjoint(x[rows]) if adjoint else self[g](x[rows]))
        return out.detach().cpu().numpy() if numpy_in else out

    @overload
    def __call__(self, x: Tensor, index: Tensor) -> Tensor: ...
    @overload
    def __call__(self, x: np.ndarray, index: np.ndarray) -> np.ndarray: ...
    def __call__(self, x: Any, index: Any) -> Any:
        """Measure sample i with operator ``index[i]``; see `forward`."""
        return super().__call__(x, index)

    def forward(self, x: Any, index: Any) -> Any:
        """Measure sample i with operator ``index[i]``.

        Parameters
        ----------
        x
            `(N, *domain.shape)`.
        index
            `(N,)` integers in 0 ... G-1.

        Returns
        -------
        Tensor
            `(N, *codomain.shape)`.

        Raises
        ------
        ValueError
            No batch, an index out of range, or operators whose codomains differ: apply those with
            ``family[g](x)``.
        """
        return self._grouped(x, index, adjoint=False)

    def adjoint(self, y: Any, index: Any) -> Any:
        """A_{index[i]}ᴴ y_i: `(N, *codomain.shape)` to `(N, *domain.shape)`."""
        return self._grouped(y, index, adjoint=True)
