"""Operators, families, groups and solvers: the physics of a measurement."""

from __future__ import annotations

from invlearn.physics.checks import CheckResult, check_adjoint, check_linear
from invlearn.physics.family import OperatorFamily
from invlearn.physics.linear import Dense, Mask
from invlearn.physics.operator import (
    LinearOperator,
    Operator,
    Spectrum,
    block_diagonal,
    identity,
    stack,
    zero,
)
from invlearn.physics.space import Space

__all__ = [
    "CheckResult",
    "Dense",
    "LinearOperator",
    "Mask",
    "Operator",
    "OperatorFamily",
    "Space",
    "Spectrum",
    "block_diagonal",
    "check_adjoint",
    "check_linear",
    "identity",
    "stack",
    "zero",
]
