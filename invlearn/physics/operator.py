"""Operators and their algebra.

An operator from a real to a complex space is linear over the reals, and its adjoint is the one of
the real inner product Re<., .>.

A `LinearOperator` knows its `domain` and `codomain`, applies with ``A(x)``, has ``A.adjoint(y)``,
a lazy involutive ``A.H`` and ``A.normal(x)`` = AᴴA x. A subclass writes `_forward` and `_adjoint`
(and `_normal`, `_spectrum`, where a faster form exists) for inputs that were already checked, with
any leading batch dimensions. Noise is never inside an operator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn

from invlearn.io.tensors import as_tensor
from invlearn.physics.space import Space

Scalar = int | float | complex


class Spectrum(NamedTuple):
    """AᴴA is diagonal in a known basis: its eigenvalues there.

    Attributes
    ----------
    basis
        `"pixel"`, or `"fourier"` (unitary discrete Fourier transform over all domain axes,
        zero frequency first).
    values
        Eigenvalues of AᴴA, shape of the domain, float64.
    """

    basis: Literal["pixel", "fourier"]
    values: Tensor


def is_flat(spectrum: Spectrum) -> bool:
    """Whether all eigenvalues are equal: then the operator is diagonal in every basis."""
    first = spectrum.values.flatten()[0]
    return bool(((spectrum.values - first).abs() <= 1e-12 * first.abs()).all())


def _edge(call: Callable[[Tensor], Tensor], x: Any, device: torch.device) -> Any:
    """Apply to a tensor; numpy in gives numpy out, computed on `device`."""
    if isinstance(x, np.ndarray):
        return call(as_tensor(x, "an operator").to(device)).detach().resolve_conj().cpu().numpy()
    return call(x)


class Operator(nn.Module, ABC):
    """A map between two spaces, linear or not.

    Parameters
    ----------
    domain, codomain
        Spaces of one input and one output, without batch dimensions.
    """

    # numpy scalars and arrays on the left of * and @ ask this class instead of looping over it
    __array_ufunc__ = None

    def __init__(self, domain: Space, codomain: Space) -> None:
        super().__init__()
        self.domain = domain
        self.codomain = codomain

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Operator:
        # nn.Module.to(torch.float32) would drop the imaginary part of coil maps and matrices
        def keep_complex(t: Tensor) -> Tensor:
            if not t.is_complex():
                return fn(t)
            parts = fn(torch.view_as_real(t.resolve_conj()))
            return fn(t) if parts.is_complex() else torch.view_as_complex(parts)

        super()._apply(keep_complex, recurse)
        return self

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """Apply to a checked `(*batch, *domain.shape)`."""

    @overload
    def __call__(self, x: Tensor) -> Tensor: ...
    @overload
    def __call__(self, x: np.ndarray) -> np.ndarray: ...
    def __call__(self, x: Any) -> Any:
        """Apply the operator to `(*batch, *domain.shape)`."""
        return super().__call__(x)

    def forward(self, x: Any) -> Any:
        return _edge(lambda t: self._forward(self.domain.check(t, self.label)), x, self.device)

    def linearize(self, x: Tensor) -> LinearOperator:
        """The Jacobian at `x` (one element, no batch) as a linear operator."""
        return Jacobian(self, self.domain.check(x, self.label))

    @property
    def label(self) -> str:
        """One line that names the operator in messages: class, domain and codomain."""
        return f"{type(self).__name__}[{self.domain} -> {self.codomain}]"

    def extra_repr(self) -> str:
        return f"{self.domain} -> {self.codomain}"

    @property
    def device(self) -> torch.device:
        """Where the operator's own tensors live; CPU for one that has none."""
        for t in (*self.parameters(), *self.buffers()):
            return t.device
        return torch.device("cpu")

    def __matmul__(self, other: Any) -> Operator:
        return NonlinearComposition(self, _operand(other))


def _operand(other: object) -> Operator:
    if not isinstance(other, Operator):
        hint = "; apply it with A(x)" if isinstance(other, Tensor | np.ndarray) else ""
        raise TypeError(f"@ composes operators, got {type(other).__name__}{hint}")
    return other


def same_space(what: str, left: str, a: Space, right: str, b: Space) -> None:
    if a != b:
        raise ValueError(f"{what}: {left} has {a} but {right} has {b}; they must be the same space")


class NonlinearComposition(Operator):
    """`outer` after `inner`, at least one of them nonlinear."""

    def __init__(self, outer: Operator, inner: Operator) -> None:
        same_space(
            "cannot compose",
            f"the domain of {outer.label}",
            outer.domain,
            f"the codomain of {inner.label}",
            inner.codomain,
        )
        super().__init__(inner.domain, outer.codomain)
        self.outer = outer
        self.inner = inner

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))


class LinearOperator(Operator):
    """A linear operator with its exact adjoint. Subclasses write `_forward` and `_adjoint`.

    Attributes
    ----------
    structured
        Whether the operator belongs to a special family (masks, Fourier, blur, ...), so that
        theorems about *almost every* operator say nothing about it. Only unstructured dense
        matrices are generic.
    """

    structured: bool = True

    @property
    def real_linear(self) -> bool:
        """Whether only real factors pass through: a step between real and complex spaces is inside.

        The adjoint is then the one of Re<., .>.
        """
        return self.domain.complex != self.codomain.complex

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Apply Aᴴ to a checked `(*batch, *codomain.shape)`."""

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _spectrum(self) -> Spectrum | None:
        return None

    @overload
    def adjoint(self, y: Tensor) -> Tensor: ...
    @overload
    def adjoint(self, y: np.ndarray) -> np.ndarray: ...
    def adjoint(self, y: Any) -> Any:
        """Apply Aᴴ to `(*batch, *codomain.shape)`."""
        who = f"the adjoint of {self.label}"
        return _edge(lambda t: self._adjoint(self.codomain.check(t, who)), y, self.device)

    @overload
    def normal(self, x: Tensor) -> Tensor: ...
    @overload
    def normal(self, x: np.ndarray) -> np.ndarray: ...
    def normal(self, x: Any) -> Any:
        """Apply AᴴA to `(*batch, *domain.shape)`, by the operator's fastest form."""
        return _edge(lambda t: self._normal(self.domain.check(t, self.label)), x, self.device)

    def spectrum(self) -> Spectrum | None:
        """Eigenvalues of AᴴA where it is diagonal in the pixel or Fourier basis, else None."""
        found = self._spectrum()
        return None if found is None else Spectrum(found.basis, found.values.to(self.device))

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator; ``A.H.H is A``."""
        return Adjoint(self)

    def linearize(self, x: Tensor) -> LinearOperator:
        """The operator itself: a linear map is its own derivative."""
        self.domain.check(x, self.label)
        return self

    def to_dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The matrix, `(codomain.size, domain.size)`, by applying the operator to the unit vectors.

        Raises
        ------
        ValueError
            A complex domain on which the operator is linear over the reals only: no matrix does it.
        """
        if self.domain.complex and self.real_linear:
            raise ValueError(f"{self.label} is linear over the reals only, it has no complex matrix")
        eye = torch.eye(self.domain.size, dtype=self.domain.dtype(dtype), device=self.device)
        step = max(1, 2**24 // max(self.domain.size, self.codomain.size))  # about 128 MB at a time
        rows = [
            self.codomain.flatten(self._forward(self.domain.unflatten(eye[i : i + step])))
            for i in range(0, self.domain.size, step)
        ]
        return torch.cat(rows).T

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Operator) -> Operator: ...
    def __matmul__(self, other: Any) -> Operator:
        if isinstance(other, LinearOperator):
            if (isinstance(self, Adjoint) and self.operator is other) or (
                isinstance(other, Adjoint) and other.operator is self
            ):
                return Normal(other)
            return Composition(self, other)
        return NonlinearComposition(self, _operand(other))

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return Sum([self, other])

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return Sum([self, -other])

    def __mul__(self, scalar: Scalar) -> LinearOperator:
        if not isinstance(scalar, int | float | complex):
            return NotImplemented
        return Scaled(self, scalar)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Scalar) -> LinearOperator:
        if not isinstance(scalar, int | float | complex):
            return NotImplemented
        return Scaled(self, 1 / scalar)

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1)


class OperatorList(nn.ModuleList):
    """A `ModuleList` whose items are known to be linear operators."""

    def __iter__(self) -> Iterator[LinearOperator]:
        return super().__iter__()  # type: ignore[return-value]


class Adjoint(LinearOperator):
    """Aᴴ as an operator of its own; made by ``A.H``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.codomain, operator.domain)
        self.operator = operator
        self.structured = operator.structured

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def real_linear(self) -> bool:
        return self.operator.real_linear

    @property
    def H(self) -> LinearOperator:
        return self.operator


class Normal(LinearOperator):
    """AᴴA by its fastest form; made by ``A.H @ A``. It is its own adjoint."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.domain, operator.domain)
        self.operator = operator
        self.structured = operator.structured

    @property
    def real_linear(self) -> bool:
        return self.operator.real_linear

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._normal(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._normal(y)

    def _spectrum(self) -> Spectrum | None:
        inner = self.operator.spectrum()
        return None if inner is None else Spectrum(inner.basis, inner.values**2)

    @property
    def H(self) -> LinearOperator:
        return self


class Composition(LinearOperator):
    """`outer @ inner`."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        same_space(
            "cannot compose",
            f"the domain of {outer.label}",
            outer.domain,
            f"the codomain of {inner.label}",
            inner.codomain,
        )
        super().__init__(inner.domain, outer.codomain)
        self.outer = outer
        self.inner = inner
        self.structured = outer.structured or inner.structured

    @property
    def real_linear(self) -> bool:
        return self.outer.real_linear or self.inner.real_linear

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._normal(self.inner._forward(x)))

    def _spectrum(self) -> Spectrum | None:
        # known where the outer factor is a multiple of an isometry
        outer = self.outer.spectrum()
        inner = self.inner.spectrum()
        if outer is None or inner is None or not is_flat(outer):
            return None
        return Spectrum(inner.basis, inner.values * float(outer.values.flatten()[0]))


class OfSeveral(LinearOperator):
    """Base of the operators that are made of a list of others."""

    def __init__(self, domain: Space, codomain: Space, operators: Sequence[LinearOperator]) -> None:
        super().__init__(domain, codomain)
        self.operators = OperatorList(operators)
        self.structured = any(op.structured for op in operators)

    @property
    def real_linear(self) -> bool:
        return any(op.real_linear for op in self.operators)


class Sum(OfSeveral):
    """The sum of operators with one domain and one codomain."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        first = operators[0]
        for op in operators[1:]:
            for space in ("domain", "codomain"):
                same_space(
                    "cannot add",
                    f"the {space} of {first.label}",
                    getattr(first, space),
                    f"that of {op.label}",
                    getattr(op, space),
                )
        super().__init__(first.domain, first.codomain, operators)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.stack([op._forward(x) for op in self.operators]).sum(0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([op._adjoint(y) for op in self.operators]).sum(0)


class Scaled(LinearOperator):
    """A scalar times an operator. A complex scalar needs a complex codomain."""

    def __init__(self, operator: LinearOperator, scalar: Scalar) -> None:
        if isinstance(scalar, complex):
            if scalar.imag == 0:
                scalar = scalar.real
            elif not (operator.domain.complex and operator.codomain.complex):
                raise ValueError(f"a complex factor {scalar} needs complex spaces, {operator.label} is real")
        if not math.isfinite(abs(scalar)):
            raise ValueError(f"cannot scale {operator.label} by {scalar}: not finite")
        super().__init__(operator.domain, operator.codomain)
        self.operator = operator
        self.scalar = scalar
        self.structured = operator.structured

    @property
    def real_linear(self) -> bool:
        return self.operator.real_linear

    def _forward(self, x: Tensor) -> Tensor:
        return self.scalar * self.operator._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.scalar.conjugate() * self.operator._adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        return abs(self.scalar) ** 2 * self.operator._normal(x)

    def _spectrum(self) -> Spectrum | None:
        inner = self.operator.spectrum()
        return None if inner is None else Spectrum(inner.basis, abs(self.scalar) ** 2 * inner.values)


class Identity(LinearOperator):
    """x to x."""

    def __init__(self, domain: Space) -> None:
        super().__init__(domain, domain)

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    @property
    def H(self) -> LinearOperator:
        return self

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", torch.ones(self.domain.shape, dtype=torch.float64))


class Zero(LinearOperator):
    """x to 0."""

    def _forward(self, x: Tensor) -> Tensor:
        return self.codomain.zeros(*self.domain.batch_shape(x), dtype=x.dtype, device=x.device)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.domain.zeros(*self.codomain.batch_shape(y), dtype=y.dtype, device=y.device)

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", torch.zeros(self.domain.shape, dtype=torch.float64))


class Jacobian(LinearOperator):
    """The derivative of `operator` at `point`, by forward and reverse differentiation."""

    def __init__(self, operator: Operator, point: Tensor) -> None:
        if point.ndim != operator.domain.ndim:
            raise ValueError(
                f"{operator.label} is linearised at one element, got a batch {tuple(point.shape)}"
            )
        super().__init__(operator.domain, operator.codomain)
        self.operator = operator
        self.register_buffer("point", point.detach().clone())

    point: Tensor

    @property
    def real_linear(self) -> bool:
        # torch.func differentiates over the reals; a function that is not holomorphic stays so
        return self.domain.complex or self.codomain.complex

    def _batched(self, one: Callable[[Tensor], Tensor], space: Space, x: Tensor) -> Tensor:
        batch = space.batch_shape(x)
        outs = [one(v) for v in x.reshape(-1, *space.shape)]
        return torch.stack(outs).reshape(*batch, *outs[0].shape)

    def _forward(self, x: Tensor) -> Tensor:
        point = self.point.to(x.dtype)
        return self._batched(
            lambda v: torch.func.jvp(self.operator._forward, (point,), (v,))[1], self.domain, x
        )

    def _adjoint(self, y: Tensor) -> Tensor:
        pull = torch.func.vjp(self.operator._forward, self.point.to(self.domain.dtype(y.dtype)))[1]
        return self._batched(lambda v: pull(v)[0], self.codomain, y)


def identity(shape: Sequence[int], complex: bool = False) -> LinearOperator:
    """The identity on arrays of `shape`."""
    return Identity(Space(tuple(shape), complex))


def zero(domain: Space, codomain: Space) -> LinearOperator:
    """The operator that maps everything to zero."""
    return Zero(domain, codomain)
