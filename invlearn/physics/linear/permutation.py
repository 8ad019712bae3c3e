"""Reordering the entries of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.registry import register
from invlearn.physics.space import Space


def permutation_indices(indices: Any, who: str) -> Int[Tensor, " n"]:
    """Return `indices` as int64 `(n,)`, or say why it is no permutation of 0 ... n - 1.

    Raises
    ------
    TypeError
        The entries are not integers.
    ValueError
        Not one-dimensional, empty, an index out of range, or one that occurs twice.
    """
    array = as_tensor(indices if isinstance(indices, Tensor) else np.asarray(indices), who)
    if array.dtype == torch.bool or array.is_floating_point() or array.is_complex():
        raise TypeError(f"{who} must hold integer indices, got {array.dtype}; convert with .astype(int)")
    if array.ndim != 1 or array.numel() == 0:
        raise ValueError(f"{who} must be a flat array of n indices, got shape {tuple(array.shape)}")
    array = array.to(device="cpu", dtype=torch.int64, copy=True)
    n = array.numel()
    if int(array.min()) < 0 or int(array.max()) >= n:
        raise ValueError(
            f"{who} is not a permutation: it has {n} entries, so indices run from 0 to {n - 1}, "
            f"got {int(array.min())} to {int(array.max())}"
        )
    counts = torch.bincount(array, minlength=n)
    if int(counts.max()) > 1:
        raise ValueError(
            f"{who} is not a permutation: index {int(counts.argmax())} occurs {int(counts.max())} times "
            f"and {int(counts.argmin())} never"
        )
    return array


class Permutation(LinearOperator):
    """``(P x).flatten()[i] = x.flatten()[indices[i]]``: orthogonal, its adjoint is its inverse.

    Parameters
    ----------
    indices
        `(n,)` integers, each of 0 ... n - 1 once.
    shape
        Shape of the image, `n` entries; `(n,)` by default.
    complex
        Whether the images are complex.

    Raises
    ------
    TypeError
        Indices that are not integers.
    ValueError
        Indices that are not a permutation, or as many as `shape` does not have.
    """

    indices: Tensor
    inverse: Tensor

    def __init__(
        self, indices: Tensor | np.ndarray, shape: Sequence[int] | None = None, complex: bool = False
    ) -> None:
        order = permutation_indices(indices, "the indices of a Permutation")
        space = Space((order.numel(),) if shape is None else tuple(shape), complex)
        if space.size != order.numel():
            raise ValueError(
                f"a Permutation of {order.numel()} entries does not fit an image of shape {space.shape} "
                f"({space.size} entries)"
            )
        super().__init__(space, space)
        self.register_buffer("indices", order)
        self.register_buffer("inverse", torch.argsort(order))

    def _forward(self, x: Tensor) -> Tensor:
        return self.domain.unflatten(self.domain.flatten(x)[..., self.indices])

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.domain.unflatten(self.domain.flatten(y)[..., self.inverse])

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", torch.ones(self.domain.shape, dtype=torch.float64))


@register("permutation")
def _example(generator: torch.Generator) -> LinearOperator:
    return Permutation(torch.randperm(15, generator=generator), shape=(3, 5))
