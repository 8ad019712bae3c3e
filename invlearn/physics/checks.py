"""Tests that an operator is what it says: linear, with the adjoint it claims.

Relative errors, tolerances by precision, so that the answer does not depend on the scale of the
operator or of the data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check: the largest relative error over the probes beside its tolerance."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (a NaN never is)."""
        return self.error <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "passed": self.passed}

    def __bool__(self) -> bool:
        return self.passed


_PROBES = 8


def _tolerance(dtype: torch.dtype, tolerance: float | None) -> float:
    if dtype not in _TOLERANCE:
        raise TypeError(f"checks run in float32 or float64, got {dtype}")
    return _TOLERANCE[dtype] if tolerance is None else tolerance


def _probe(
    space: Space, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> torch.Tensor:
    # Drawn on the CPU: the same probes on every device.
    return space.random(_PROBES, dtype=dtype, generator=generator).to(device)


@torch.no_grad()
def check_adjoint(
    operator: LinearOperator,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    tolerance: float | None = None,
) -> CheckResult:
    """Dot test: <A x, y> = <x, Aᴴ y> on random probes.

    For standard normal x and y, E|<Ax, y> - <x, By>|² = ‖A - Bᴴ‖_F² and E‖Ax‖² = ‖A‖_F². The error
    is the ratio of the two means (root, the larger of A and B below), so an adjoint that is wrong
    by a tenth gives about 0.1 whatever the size of the image; a ratio to ‖Ax‖‖y‖ would sink with
    it. Real parts only where the operator is linear over the reals alone.

    Parameters
    ----------
    operator
        The operator.
    dtype
        Precision of the probes, float32 or float64.
    seed
        Of the probes.
    tolerance
        Largest accepted error; by default 1e-4 in float32, 1e-10 in float64.
    """
    tolerance = _tolerance(dtype, tolerance)
    generator = torch.Generator().manual_seed(seed)
    x = _probe(operator.domain, dtype, operator.device, generator)
    y = _probe(operator.codomain, dtype, operator.device, generator)
    ax, ahy = operator(x), operator.adjoint(y)
    left = operator.codomain.inner(y, ax)
    right = operator.domain.inner(ahy, x)
    if operator.real_linear:
        left, right = torch.real(left), torch.real(right)
    scale = torch.maximum(
        operator.codomain.norm(ax).square().mean(), operator.domain.norm(ahy).square().mean()
    ).sqrt()
    difference = (left - right).abs().square().mean().sqrt()
    return CheckResult("adjoint", float(difference / scale.clamp_min(torch.finfo(dtype).tiny)), tolerance)


@torch.no_grad()
def check_linear(
    operator: LinearOperator,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    tolerance: float | None = None,
) -> CheckResult:
    """A(a x + b y) = a A x + b A y on random probes, relative to the sizes of the terms.

    Factors are complex where the operator is linear over the complex numbers. Parameters as in
    `check_adjoint`.
    """
    tolerance = _tolerance(dtype, tolerance)
    generator = torch.Generator().manual_seed(seed)
    x = _probe(operator.domain, dtype, operator.device, generator)
    y = _probe(operator.domain, dtype, operator.device, generator)
    field = Space((), operator.domain.complex and not operator.real_linear)
    a, b = (field.random(dtype=dtype, generator=generator).to(operator.device) for _ in range(2))
    ax, ay = a * operator(x), b * operator(y)
    norm = operator.codomain.norm
    scale = (norm(ax) + norm(ay)).clamp_min(torch.finfo(dtype).tiny)
    error = float((norm(operator(a * x + b * y) - ax - ay) / scale).max())
    return CheckResult("linear", error, tolerance)
