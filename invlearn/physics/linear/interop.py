"""Operators from functions and from SciPy, and operators for SciPy."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import Space, as_numbers, full_precision

if TYPE_CHECKING:
    import scipy.sparse.linalg


class FromFunction(LinearOperator):
    """A linear function as an operator; its adjoint comes from automatic differentiation.

    Parameters
    ----------
    fn
        Linear, differentiable by torch, from `(*batch, *domain.shape)` to
        `(*batch, *codomain.shape)`. A `torch.nn.Module` keeps its parameters: they move and are
        saved with the operator.
    domain, codomain
        The spaces. From complex to complex, `fn` is linear over the complex numbers.

    Raises
    ------
    TypeError
        `fn` cannot be called.
    ValueError
        `fn` fails on a batch of one, gives another shape or field than `codomain`, or does not
        take zero to zero. (That it is linear everywhere is what `check_linear` tests.)
    """

    def __init__(self, fn: Callable[[Tensor], Tensor], domain: Space, codomain: Space) -> None:
        if not callable(fn):
            raise TypeError(f"FromFunction takes a function of a tensor, got {type(fn).__name__}")
        super().__init__(domain, codomain)
        self.fn = fn
        image = _value_at_zero(fn, domain)
        if not isinstance(image, Tensor) or tuple(image.shape) != (1, *codomain.shape):
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"FromFunction: for one input (1, {', '.join(map(str, domain.shape))}) the function gives "
                f"{got}, the codomain asks for {(1, *codomain.shape)}"
            )
        if image.is_complex() != codomain.complex:
            raise ValueError(f"FromFunction: the function gives {image.dtype}, the codomain is {codomain}")
        if bool((image != 0).any()):
            raise ValueError("FromFunction: the function takes 0 to something else, so it is not linear")

    def _forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            return self.fn(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        at = self.domain.zeros(*self.codomain.batch_shape(y), dtype=y.dtype, device=y.device)
        with full_precision(y.device):
            return torch.func.vjp(self.fn, at)[1](y)[0]


def _value_at_zero(fn: Callable[[Tensor], Tensor], domain: Space) -> Any:
    """fn(0) for a batch of one, in a precision that the function's own numbers allow."""
    tensors = [*fn.parameters(), *fn.buffers()] if isinstance(fn, nn.Module) else []
    device = tensors[0].device if tensors else None
    failure = None
    for dtype in (torch.float32, torch.float64):
        try:
            with torch.no_grad():
                return fn(domain.zeros(1, dtype=dtype, device=device))
        except RuntimeError as error:
            failure = error
    reason = str(failure).splitlines()[0]
    raise ValueError(
        f"FromFunction: the function must take a batch of one, {(1, *domain.shape)}, but fails: {reason}"
    ) from failure


class _Apply(torch.autograd.Function):
    """A linear map that autograd cannot see into, with its adjoint as derivative."""

    @staticmethod
    def forward(x: Tensor, operator: Opaque, adjoint: bool) -> Tensor:
        return operator._backward_map(x) if adjoint else operator._forward_map(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Opaque, bool], output: Tensor) -> None:
        ctx.operator, ctx.adjoint = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(grad[0], ctx.operator, not ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Apply.apply(tangents[0], ctx.operator, ctx.adjoint)


class Opaque(LinearOperator):
    """An operator that leaves torch: autograd is told that its derivative is its adjoint."""

    @abstractmethod
    def _forward_map(self, x: Tensor) -> Tensor:
        """A x, without gradients."""

    @abstractmethod
    def _backward_map(self, y: Tensor) -> Tensor:
        """Aᴴ y, without gradients."""

    def _forward(self, x: Tensor) -> Tensor:
        return _Apply.apply(x, self, False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _Apply.apply(y, self, True)


class _Columns(Opaque):
    """Matrix-like: two maps of vectors in columns, `(n, B)` to `(m, B)` and back."""

    @abstractmethod
    def _forward_columns(self, x: Tensor) -> Tensor:
        """A times `(n, B)`."""

    @abstractmethod
    def _adjoint_columns(self, y: Tensor) -> Tensor:
        """Aᴴ times `(m, B)`."""

    def _forward_map(self, x: Tensor) -> Tensor:
        batch = self.domain.batch_shape(x)
        y = self._forward_columns(x.reshape(-1, self.domain.size).T)
        return y.T.reshape(*batch, *self.codomain.shape)

    def _backward_map(self, y: Tensor) -> Tensor:
        batch = self.codomain.batch_shape(y)
        x = self._adjoint_columns(y.reshape(-1, self.codomain.size).T)
        return x.T.reshape(*batch, *self.domain.shape)


class Sparse(_Columns):
    """A sparse matrix; made by `from_scipy`. Kept by rows, with its adjoint beside it."""

    def __init__(self, matrix: Any, domain: Space, codomain: Space) -> None:
        super().__init__(domain, codomain)
        for name, part in (("rows", matrix.tocsr()), ("columns", matrix.conj().T.tocsr())):
            part.sum_duplicates()
            self.register_buffer(f"{name}_start", torch.from_numpy(part.indptr.astype(np.int64)))
            self.register_buffer(f"{name}_index", torch.from_numpy(part.indices.astype(np.int64)))
            values = as_numbers(np.array(part.data), "from_scipy: the matrix")
            self.register_buffer(f"{name}_value", values)

    def _product(self, name: str, shape: tuple[int, int], x: Tensor) -> Tensor:
        start, index, value = (getattr(self, f"{name}_{part}") for part in ("start", "index", "value"))
        value = value.to(x.dtype)
        if x.is_meta:  # torch has no sparse product without numbers
            return x.new_empty(shape[0], x.shape[1])
        if x.device.type == "cpu":
            # measured at half the time of torch's sparse product on one core
            import scipy.sparse

            parts = tuple(t.resolve_conj().numpy() for t in (value, index, start))
            return torch.from_numpy(scipy.sparse.csr_array(parts, shape=shape) @ x.resolve_conj().numpy())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(start, index, value, shape, check_invariants=False) @ x

    def _forward_columns(self, x: Tensor) -> Tensor:
        return self._product("rows", (self.codomain.size, self.domain.size), x)

    def _adjoint_columns(self, y: Tensor) -> Tensor:
        return self._product("columns", (self.domain.size, self.codomain.size), y)


class FromScipy(_Columns):
    """A `scipy.sparse.linalg.LinearOperator`; made by `from_scipy`. Runs in NumPy on the CPU."""

    def __init__(self, operator: Any, domain: Space, codomain: Space) -> None:
        super().__init__(domain, codomain)
        self.operator = operator

    def _run(self, call: Callable[[np.ndarray], np.ndarray], x: Tensor, out: Space) -> Tensor:
        y = call(x.detach().resolve_conj().cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(y)).to(x.device, out.dtype(x.dtype))

    def _forward_columns(self, x: Tensor) -> Tensor:
        return self._run(self.operator.matmat, x, self.codomain)

    def _adjoint_columns(self, y: Tensor) -> Tensor:
        return self._run(self.operator.rmatmat, y, self.domain)


def from_scipy(
    matrix: Any, shape: Sequence[int] | None = None, codomain_shape: Sequence[int] | None = None
) -> LinearOperator:
    """A SciPy sparse matrix (or array) or `scipy.sparse.linalg.LinearOperator` as an operator.

    Parameters
    ----------
    matrix
        Of size m × n. A sparse matrix becomes tensors and moves to any device; a LinearOperator
        is called in NumPy, and needs `rmatvec`. Complex dtype: complex spaces.
    shape, codomain_shape
        Shapes of one input and output where they are images; `(n,)` and `(m,)` by default.

    Raises
    ------
    TypeError
        Neither of the two kinds.
    ValueError
        Shapes that do not hold n and m numbers, NaN or infinite entries, no `rmatvec`.
    """
    import scipy.sparse
    import scipy.sparse.linalg

    is_sparse = scipy.sparse.issparse(matrix)
    if not is_sparse and not isinstance(matrix, scipy.sparse.linalg.LinearOperator):
        raise TypeError(
            f"from_scipy takes a sparse matrix or a scipy.sparse.linalg.LinearOperator, got "
            f"{type(matrix).__name__}; a full matrix goes into Dense"
        )
    m, n = matrix.shape
    is_complex = np.issubdtype(matrix.dtype, np.complexfloating)
    domain = Space((n,) if shape is None else tuple(shape), is_complex)
    codomain = Space((m,) if codomain_shape is None else tuple(codomain_shape), is_complex)
    if domain.size != n or codomain.size != m:
        raise ValueError(
            f"from_scipy: shapes {domain} and {codomain} do not hold the {n} columns and {m} rows"
        )
    if is_sparse:
        return Sparse(matrix, domain, codomain)
    try:
        matrix.rmatvec(np.zeros(m, dtype=matrix.dtype))
    except (NotImplementedError, TypeError):
        raise ValueError("from_scipy: the LinearOperator has no rmatvec, its adjoint; give it one") from None
    return FromScipy(matrix, domain, codomain)


def to_scipy(
    operator: LinearOperator, dtype: torch.dtype = torch.float64
) -> scipy.sparse.linalg.LinearOperator:
    """The operator on flattened NumPy vectors, for SciPy's solvers.

    An operator that is linear over the reals only (between a real and a complex space) acts on
    real vectors: those of a complex space list real and imaginary parts in turn, twice its size.

    Parameters
    ----------
    operator
        The operator; applied on the device where it lives.
    dtype
        Precision, float32 or float64.
    """
    import scipy.sparse.linalg

    real = operator.real_linear
    device = operator.device

    def apply(call: Callable[[Tensor], Tensor], a: Space, b: Space) -> Callable[[np.ndarray], np.ndarray]:
        def run(columns: np.ndarray) -> np.ndarray:
            v = torch.from_numpy(np.array(columns.T, order="C")).to(device)
            v = v.to(dtype) if real else v.to(a.dtype(dtype))
            y = call(a.from_real(v) if real else a.unflatten(v))
            out = b.to_real(y) if real else b.flatten(y)
            return out.detach().resolve_conj().cpu().numpy().T

        return run

    def length(space: Space) -> int:
        return space.size * (2 if real and space.complex else 1)

    forward = apply(operator, operator.domain, operator.codomain)
    adjoint = apply(operator.adjoint, operator.codomain, operator.domain)
    kind = dtype if real else operator.domain.dtype(dtype)
    return scipy.sparse.linalg.LinearOperator(
        shape=(length(operator.codomain), length(operator.domain)),
        dtype=torch.empty(0, dtype=kind).numpy().dtype,
        matvec=lambda v: forward(v.reshape(-1, 1)).ravel(),
        rmatvec=lambda v: adjoint(v.reshape(-1, 1)).ravel(),
        matmat=forward,
        rmatmat=adjoint,
    )
