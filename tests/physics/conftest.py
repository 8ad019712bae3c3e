"""What several operator tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space


def _real_matrix(operator: LinearOperator, call: Callable[[Tensor], Tensor], a: Space, b: Space) -> Tensor:
    size = a.size * (2 if a.complex else 1)
    basis = torch.eye(size, dtype=torch.float64, device=operator.device)
    with torch.no_grad():
        return b.to_real(call(a.from_real(basis))).T


@pytest.fixture(scope="session")
def real_matrix() -> Callable[[LinearOperator], Tensor]:
    """The matrix of an operator on real and imaginary parts: exists for every one of them."""
    return lambda op: _real_matrix(op, op, op.domain, op.codomain)


@pytest.fixture(scope="session")
def real_adjoint() -> Callable[[LinearOperator], Tensor]:
    """The same of its adjoint."""
    return lambda op: _real_matrix(op, op.adjoint, op.codomain, op.domain)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
