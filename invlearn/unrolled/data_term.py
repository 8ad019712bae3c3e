"""The data term ½‖Ax - y‖² of a linear inverse problem: its gradient, its proximal operator, its scale."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invlearn.learning.selection import Selected
from invlearn.physics.linear import Mask, Permutation
from invlearn.physics.linear.fourier import negative_axes
from invlearn.physics.operator import Composition, LinearOperator, Scaled, Spectrum, identity
from invlearn.physics.solvers import cg
from invlearn.physics.space import real_dtype
from invlearn.physics.spectral import power_norm
from invlearn.unrolled.proximal import Step, number

_State = tuple[tuple[int, int], ...]
_NORMS: weakref.WeakKeyDictionary[LinearOperator, tuple[_State, float]] = weakref.WeakKeyDictionary()


def lipschitz(operator: LinearOperator) -> float:
    """‖A‖², the Lipschitz constant of the gradient of ½‖Ax - y‖², or a close upper bound.

    Exact where the spectrum is known; else by the power method, made 2 % larger, since that approaches
    from below, and kept until the operator's numbers change. An operator behind a mask counts as the
    operator without it, so that splitting a measurement leaves the unit of the step sizes alone; one
    made of an operator for each sample of a batch counts as the largest of them.
    """
    spectrum = operator.spectrum()
    if spectrum is not None:
        return float(spectrum.values.max().clamp_min(0))
    if isinstance(operator, Selected):
        return max(lipschitz(part) for part in operator.members())
    if isinstance(operator, Composition) and isinstance(operator.outer, Mask):
        return lipschitz(operator.inner)
    if isinstance(operator, Composition) and isinstance(operator.inner, Permutation):
        return lipschitz(operator.outer)
    state = tuple((id(t), t._version) for t in (*operator.parameters(), *operator.buffers()))
    known = _NORMS.get(operator)
    if known is None or known[0] != state:
        known = (state, 1.02 * power_norm(operator, dtype=torch.float32).value ** 2)
        _NORMS[operator] = known
    return known[1]


@dataclass(frozen=True)
class DataTerm:
    """f(x) = ½‖Ax - y‖².

    Parameters
    ----------
    operator
        A, any linear operator.
    measurement
        y, `(*batch, *codomain)`.
    norm
        An upper bound of ‖A‖; computed where it is needed by default. Give it where the operator
        changes at every call, and for ‖A‖ of a larger one that A is a part of.
    tolerance, max_iterations
        Of the conjugate gradients in `prox`, as in `invlearn.physics.cg`; used where AᴴA is not
        diagonal in the pixel or the Fourier basis.

    Raises
    ------
    ValueError
        A wrong shape of y, or a norm that is not positive.
    """

    operator: LinearOperator
    measurement: Tensor
    norm: float | None = None
    tolerance: float | None = None
    max_iterations: int | None = None

    def __post_init__(self) -> None:
        y = self.operator.codomain.check(self.measurement, f"a measurement of {self.operator.label}")
        object.__setattr__(self, "measurement", y)
        if self.norm is not None and not self.norm > 0:
            raise ValueError(f"the norm of {self.operator.label} must be positive, got {self.norm}")

    @property
    def scale(self) -> float:
        """‖A‖², or 1 for A = 0: the unit of inverse step sizes."""
        return (lipschitz(self.operator) if self.norm is None else self.norm**2) or 1.0

    @property
    def back_projection(self) -> Tensor:
        """Aᴴy."""
        return self.operator.adjoint(self.measurement)

    def zero(self) -> Tensor:
        """x = 0, with the batch of y."""
        space, y = self.operator.domain, self.measurement
        batch = self.operator.codomain.batch_shape(y)
        return space.zeros(*batch, dtype=real_dtype(y.dtype), device=y.device)

    def value(self, x: Tensor) -> Tensor:
        """f(x), summed over the batch; real, 0-dimensional."""
        return 0.5 * (self.operator(x) - self.measurement).abs().square().sum()

    def gradient(self, x: Tensor) -> Tensor:
        """Aᴴ(Ax - y)."""
        return self.operator.adjoint(self.operator(x) - self.measurement)

    def prox(self, z: Tensor, step: Step) -> Tensor:
        """argmin_x ½‖x - z‖² + step f(x): the solution of (I + step AᴴA) x = z + step Aᴴy.

        In closed form where the spectrum of AᴴA is known, else by conjugate gradients from z. The
        gradient is that of the solution (by implicit differentiation), whatever the iterations.
        """
        right = z + step * self.back_projection
        spectrum = self.operator.spectrum()
        if spectrum is not None:
            return _divide(right, spectrum, step)
        return _implicit_cg(
            lambda x: x + step * self.operator.normal(x),
            _shifted_normal(self.operator, number(step)),
            right,
            lambda system, b, start: (
                cg(system, b, start, tolerance=self.tolerance, max_iterations=self.max_iterations).value
            ),
            z,
        )


def _divide(right: Tensor, spectrum: Spectrum, step: Step) -> Tensor:
    factors = 1 + step * spectrum.values.to(real_dtype(right.dtype))
    if spectrum.basis == "pixel":
        return right / factors
    axes = negative_axes(None, spectrum.values.ndim, "the data term")
    x = torch.fft.ifftn(torch.fft.fftn(right, dim=axes) / factors, dim=axes)
    return x if right.is_complex() else x.real


def _shifted_normal(operator: LinearOperator, step: float) -> LinearOperator:
    domain = operator.domain
    return identity(domain.shape, domain.complex) + Scaled(operator.H @ operator, step)


def _implicit_cg(
    apply: Callable[[Tensor], Tensor],
    system: LinearOperator,
    right: Tensor,
    solve: Callable[[LinearOperator, Tensor, Tensor | None], Tensor],
    start: Tensor,
) -> Tensor:
    with torch.no_grad():
        x = solve(system, right, start)
    if not torch.is_grad_enabled():
        return x
    # M x = b, so dx = M⁻¹(db - dM x): the residual carries the derivatives of b, of the step and of
    # the operator's own parameters; the hook applies M⁻¹ to what flows back. Its value is left out.
    residual = right - apply(x)
    if not residual.requires_grad:
        return x
    residual.register_hook(lambda g: g if g is None else solve(system, g, None))  # None: nothing flows back
    return x + residual - residual.detach()
