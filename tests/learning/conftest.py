"""Batches for losses, made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning import Batch
from invlearn.physics import LinearOperator, OperatorFamily

Maker = Callable[..., Batch]


@pytest.fixture
def batch_of() -> Maker:
    """``batch_of(model, operators, y, index=zeros, truth=None, seed=0)``."""

    def make(
        model: Callable[[Tensor, LinearOperator], Tensor],
        operators: OperatorFamily | LinearOperator,
        y: Tensor,
        index: Tensor | None = None,
        truth: Tensor | None = None,
        seed: int = 0,
        learned: dict[str, Tensor] | None = None,
    ) -> Batch:
        family = OperatorFamily([operators]) if isinstance(operators, LinearOperator) else operators
        index = torch.zeros(len(y), dtype=torch.int64) if index is None else index
        generator = Generator().manual_seed(seed)
        return Batch(model, family, y, index, generator, truth, learned or {})

    return make
