"""Operators given by their matrix: compressed sensing, and anything small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space, as_numbers, complex_dtype, full_precision


class Dense(LinearOperator):
    """Matrix-vector product with the flattened input, at the input's precision (under autocast too).

    Parameters
    ----------
    matrix
        `(m, n)`, real or complex; or `(B, m, n)`: B matrices side by side, from `(B, n)` to
        `(B, m)`.
    shape
        Shape of one input where it is an image; its product must be n. Only for one matrix.
    complex
        Whether inputs and outputs are complex; by default as the matrix is.

    Raises
    ------
    ValueError
        NaN or infinite entries, a `shape` that does not hold n numbers, a complex matrix with
        `complex=False`.
    TypeError
        A dtype other than float32, float64, complex64, complex128 (integers are converted).
    """

    matrix: Tensor

    def __init__(
        self,
        matrix: Tensor | np.ndarray,
        shape: Sequence[int] | None = None,
        complex: bool | None = None,
    ) -> None:
        matrix = as_numbers(matrix, "Dense: the matrix")
        if matrix.ndim not in (2, 3):
            raise ValueError(f"Dense takes a matrix (m, n) or matrices (B, m, n), got {tuple(matrix.shape)}")
        *batch, m, n = matrix.shape
        if complex is None:
            complex = matrix.is_complex()
        elif matrix.is_complex() and not complex:
            raise ValueError("Dense: a complex matrix needs complex=True (or pass matrix.real)")
        if shape is None:
            shape = (n,)
        elif batch:
            raise ValueError("Dense: shape= goes with one matrix (m, n), not with a batch of them")
        elif int(np.prod(shape)) != n:
            raise ValueError(f"Dense: shape {tuple(shape)} does not hold the matrix's {n} columns")
        super().__init__(Space((*batch, *shape), complex), Space((*batch, m), complex))
        self.register_buffer("matrix", matrix)
        self.structured = looks_structured(matrix)

    def _cast(self, dtype: torch.dtype) -> Tensor:
        return self.matrix.to(complex_dtype(dtype) if self.matrix.is_complex() else dtype)

    def _columns(self, x: Tensor) -> Tensor:
        """`(*batch, ...)` to `(*batch, [B,] n)`."""
        return x.reshape(*self.domain.batch_shape(x), *self.matrix.shape[:-2], self.matrix.shape[-1])

    def _forward(self, x: Tensor) -> Tensor:
        return _times(self._cast(x.dtype), self._columns(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        x = _times(self._cast(y.dtype).mH, y)
        return x.reshape(*self.codomain.batch_shape(y), *self.domain.shape)

    def to_dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        if self.matrix.ndim == 3:
            return torch.block_diag(*self.matrix).to(self.domain.dtype(dtype))
        return self.matrix.to(self.domain.dtype(dtype))


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """`(m, n)` times `(..., n)`, or `(B, m, n)` times `(..., B, n)`."""
    with full_precision(x.device):
        if matrix.ndim == 2:
            return x @ matrix.mT  # the whole batch at once; as batched vectors it is many times slower
        return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def looks_structured(matrix: Tensor) -> bool:
    """Whether a matrix is visibly special, so that theorems on almost every matrix say nothing.

    A matrix drawn from a density has no zeros, no repeated magnitudes (masks, ±1 designs, Fourier
    and circulant matrices have many). A False is no proof of genericity.
    """
    magnitude = matrix.abs().flatten()
    if magnitude.numel() == 0 or bool((magnitude == 0).any()):
        return True
    sample = magnitude[:: max(1, magnitude.numel() // 200_000)].double()
    # Rounding to 10 digits puts equal magnitudes together in spite of their last bits.
    digits = 6 if matrix.dtype in (torch.float32, torch.complex64) else 10
    scaled = (sample / sample.max()).mul(10.0**digits).round()
    return torch.unique(scaled).numel() < 0.9 * sample.numel()
