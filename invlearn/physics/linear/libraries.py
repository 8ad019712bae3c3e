"""Operators from SigPy and DeepInverse, and operators for them.

Neither library is imported before one of these functions is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from invlearn.physics.linear.interop import Opaque
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space, complex_dtype, full_precision

if TYPE_CHECKING:
    import sigpy.linop


class FromSigpy(Opaque):
    """A SigPy `Linop`; made by `from_sigpy`. Runs in NumPy on the CPU, an element at a time."""

    def __init__(self, linop: Any, domain: Space, codomain: Space) -> None:
        super().__init__(domain, codomain)
        self.linop = linop

    def _forward_map(self, x: Tensor) -> Tensor:
        return _run(self.linop, x, self.domain, self.codomain)

    def _backward_map(self, y: Tensor) -> Tensor:
        return _run(self.linop.H, y, self.codomain, self.domain)


def _run(linop: Any, x: Tensor, before: Space, after: Space) -> Tensor:
    """Apply to each element of a batch; a real space keeps the real part, as Re<., .> has it."""
    batch = before.batch_shape(x)
    if after.complex:
        x = x.to(complex_dtype(x.dtype))  # SigPy makes complex64 of real numbers, double ones too
    elements = x.detach().resolve_conj().cpu().reshape(math.prod(batch), *before.shape).numpy()
    out = torch.zeros(len(elements), *after.shape, dtype=after.dtype(x.dtype))
    for one, element in zip(out, elements, strict=True):
        y = np.asarray(linop(element))
        one.copy_(torch.from_numpy(np.array(y if after.complex else y.real)))
    return out.reshape(*batch, *after.shape).to(x.device)


def from_sigpy(linop: sigpy.linop.Linop, complex: bool = True) -> LinearOperator:
    """A SigPy `Linop` as an operator.

    Parameters
    ----------
    linop
        From `ishape` to `oshape`. It is called in NumPy, and its adjoint is the derivative.
    complex
        Whether its inputs are complex. The outputs are what it makes of such inputs: a Fourier
        transform of real images has the adjoint of the real inner product Re<., .>.

    Raises
    ------
    TypeError
        No `Linop`.
    ValueError
        It fails on zeros of its own `ishape`.
    """
    import sigpy.linop

    if not isinstance(linop, sigpy.linop.Linop):
        raise TypeError(f"from_sigpy takes a sigpy.linop.Linop, got {type(linop).__name__}")
    domain = Space(tuple(linop.ishape), complex)
    try:
        image = linop(domain.zeros().numpy())
    except Exception as error:  # SigPy raises RuntimeError around whatever happened
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"from_sigpy: {linop} fails on zeros of shape {domain.shape}: {reason}") from error
    return FromSigpy(linop, domain, Space(tuple(linop.oshape), bool(np.iscomplexobj(image))))


def to_sigpy(operator: LinearOperator) -> sigpy.linop.Linop:
    """The operator as a SigPy `Linop` on NumPy arrays, its adjoint and its normal operator included.

    Parameters
    ----------
    operator
        From `domain.shape` to `codomain.shape`, without batch; applied on the device where it lives.
    """
    import sigpy.linop

    class FromInvlearn(sigpy.linop.Linop):
        def __init__(self, wrapped: LinearOperator) -> None:
            self.wrapped = wrapped
            super().__init__(list(wrapped.codomain.shape), list(wrapped.domain.shape), type(wrapped).__name__)

        def _apply(self, input: np.ndarray) -> np.ndarray:
            return self.wrapped(input)

        def _adjoint_linop(self) -> sigpy.linop.Linop:
            return FromInvlearn(self.wrapped.H)

        def _normal_linop(self) -> sigpy.linop.Linop:
            return FromInvlearn(self.wrapped.H @ self.wrapped)

    return FromInvlearn(operator)


class FromDeepinv(LinearOperator):
    """A linear physics of DeepInverse; made by `from_deepinv`. A submodule: it moves and is saved along."""

    physics: Any

    def __init__(self, physics: nn.Module, domain: Space, codomain: Space) -> None:
        super().__init__(domain, codomain)
        self.physics = physics

    def _map(self, name: str, x: Tensor, before: Space, after: Space) -> Tensor:
        batch = before.batch_shape(x)
        with full_precision(x.device):
            y = getattr(self.physics, name)(x.reshape(math.prod(batch), *before.shape))
        return y.reshape(*batch, *after.shape).to(after.dtype(x.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return self._map("A", x, self.domain, self.codomain)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._map("A_adjoint", y, self.codomain, self.domain)


def from_deepinv(physics: Any, shape: Sequence[int], complex: bool = False) -> LinearOperator:
    """A `deepinv.physics.LinearPhysics` as an operator; its noise and sensor stay outside.

    Parameters
    ----------
    physics
        A module with `A` and `A_adjoint` on batches `(B, C, H, W)`. Double precision goes through it
        if its own numbers are double: ``from_deepinv(physics.double(), shape)``.
    shape
        Of one image, `(C, H, W)`. What is complex has two real channels there, and keeps them.
    complex
        Whether images have a complex dtype.

    Raises
    ------
    TypeError
        No module with these two methods.
    ValueError
        `A` fails on a batch of one, or gives something else than one tensor.
    """
    if not isinstance(physics, nn.Module) or not hasattr(physics, "A_adjoint"):
        kind = type(physics).__name__
        raise TypeError(f"from_deepinv takes a linear physics, a module with A and A_adjoint, got {kind}")
    domain = Space(tuple(shape), complex)
    numbers = [*physics.parameters(), *physics.buffers()]
    apply: Any = physics.A
    kinds = [t.dtype for t in numbers if t.is_floating_point() or t.is_complex()]
    zeros = domain.zeros(
        1, dtype=kinds[0] if kinds else torch.float32, device=numbers[0].device if numbers else None
    )
    try:
        with torch.no_grad():
            image = apply(zeros)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"from_deepinv: the physics fails on one image {domain}: {reason}") from error
    if not isinstance(image, Tensor) or image.shape[:1] != (1,):
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"from_deepinv: measurements are {got}, where a batch of one (1, ...) is needed; of a "
            "stacked physics take each part, and stack the operators"
        )
    return FromDeepinv(physics, domain, Space(tuple(image.shape[1:]), image.is_complex()))


def to_deepinv(operator: LinearOperator) -> nn.Module:
    """The operator as a `deepinv.physics.LinearPhysics`, for its losses, solvers and networks.

    Parameters
    ----------
    operator
        From images `(C, H, W)`, or `(H, W)`, whose channels then count as batch. Needs the package
        deepinv.

    Raises
    ------
    ImportError
        deepinv is not installed, or does not import beside this torch.
    """
    from deepinv.physics import LinearPhysics  # type: ignore[import-not-found]

    class FromInvlearn(LinearPhysics):
        def __init__(self) -> None:
            super().__init__()
            self.operator = operator

        def A(self, x: Tensor, **kwargs: Any) -> Tensor:
            return self.operator(x)

        def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
            return self.operator.adjoint(y)

        def A_adjoint_A(self, x: Tensor, **kwargs: Any) -> Tensor:
            return self.operator.normal(x)

    return FromInvlearn()


class _Halves(nn.Module):
    """What a linear physics looks like: A and A_adjoint on batches of images."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def A(self, x: Tensor) -> Tensor:
        return (self.weights.to(x.dtype) * x)[..., ::2]

    def A_adjoint(self, y: Tensor) -> Tensor:
        weights = self.weights.to(y.dtype)
        spread = torch.zeros(*y.shape[:-1], weights.shape[-1], dtype=y.dtype, device=y.device)
        spread[..., ::2] = y
        return weights * spread


register("deepinv/module")(lambda g: from_deepinv(_Halves(torch.randn(1, 3, 5, generator=g)), (2, 3, 5)))


def _sigpy_example(name: str, complex: bool) -> LinearOperator:
    import sigpy.linop

    made = {
        "fft": lambda: sigpy.linop.FFT((3, 4)),
        "circshift": lambda: sigpy.linop.Resize((5,), (3,)) * sigpy.linop.Circshift((3,), (1,)),
    }
    return from_sigpy(made[name](), complex)


register("sigpy/fft")(lambda g: _sigpy_example("fft", True))
register("sigpy/fft of real images")(lambda g: _sigpy_example("fft", False))
register("sigpy/real")(lambda g: _sigpy_example("circshift", False))
