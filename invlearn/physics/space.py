"""What an operator maps from and to: a shape and a field of scalars."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.tensors import as_tensor

_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}
_COMPLEX_OF = {real: cplx for cplx, real in _REAL_OF.items()}
_ACCEPTED = (*_COMPLEX_OF, *_REAL_OF)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The real dtype of the same precision: complex64 and float32 give float32."""
    return _REAL_OF.get(dtype, dtype)


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """The complex dtype of the same precision: complex64 and float32 give complex64."""
    return _COMPLEX_OF.get(dtype, dtype)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """No autocast inside: measurements keep their precision."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _require_memory(x: object, who: str) -> None:
    """Refuse an array, perhaps an expanded view, that memory could not hold if it were written out."""
    if isinstance(x, Tensor | np.ndarray):
        needed = math.prod(x.shape) * x.dtype.itemsize
        if needed > memory_limit():
            raise ValueError(
                f"{who}, {tuple(x.shape)}, would need {format_bytes(needed)} of memory, more than the "
                f"{format_bytes(memory_limit())} there is; use fewer rows, or an operator without a matrix"
            )


def as_numbers(x: object, who: str) -> Tensor:
    """Like `as_tensor`, for the finite numbers an operator is made of; integers become float64.

    Raises
    ------
    TypeError
        Half precision, or not an array.
    ValueError
        NaN or infinite entries, or more of them than memory holds.
    """
    _require_memory(x, who)
    x = as_tensor(x, who)
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.float64)
    if x.dtype not in _ACCEPTED:
        raise TypeError(f"{who} takes float32 or float64 entries (or complex), got {x.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{who} has NaN or infinite entries")
    return x


def as_zero_one(x: object, who: str) -> Tensor:
    """Like `as_tensor`, for a mask: booleans of its own memory.

    Raises
    ------
    ValueError
        Entries other than 0 and 1.
    """
    _require_memory(x, who)
    x = as_tensor(x, who)
    if x.dtype == torch.bool:
        return x.clone()
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(f"{who} holds only 0 and 1 (or booleans); threshold it first")
    return x != 0


@dataclass(frozen=True)
class Space:
    """A finite-dimensional space of real or complex arrays, with the Euclidean inner product.

    Attributes
    ----------
    shape
        Shape of one element, without batch dimensions; `(D, H, W)` for a volume.
    complex
        Whether the scalars are complex numbers. Dimensions count scalars of the field.
    """

    shape: tuple[int, ...]
    complex: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(s) for s in self.shape))
        if any(s < 1 for s in self.shape):
            raise ValueError(f"a space needs positive sizes, got shape {self.shape}")

    def __str__(self) -> str:
        return f"{'C' if self.complex else 'R'}{list(self.shape)}"

    @property
    def ndim(self) -> int:
        """Number of axes of one element."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of scalars (complex numbers for a complex space)."""
        return math.prod(self.shape)

    def dtype(self, like: torch.dtype) -> torch.dtype:
        """This space's dtype at the precision of `like`."""
        return complex_dtype(like) if self.complex else real_dtype(like)

    def batch_shape(self, x: Tensor) -> tuple[int, ...]:
        """The leading dimensions of `x`, an element or a batch of elements."""
        return tuple(x.shape[: x.ndim - self.ndim])

    def flatten(self, x: Tensor) -> Tensor:
        """`(*batch, *shape)` to `(*batch, size)`."""
        return x.reshape((*self.batch_shape(x), self.size))

    def unflatten(self, x: Tensor) -> Tensor:
        """`(*batch, size)` to `(*batch, *shape)`."""
        return x.reshape((*x.shape[:-1], *self.shape))

    def to_real(self, x: Tensor) -> Tensor:
        """`(*batch, *shape)` to flat real vectors: real and imaginary parts in turn where complex."""
        x = self.flatten(x)
        return torch.view_as_real(x.resolve_conj()).flatten(-2) if self.complex else x

    def from_real(self, v: Tensor) -> Tensor:
        """Inverse of `to_real`."""
        if self.complex:
            v = torch.view_as_complex(v.unflatten(-1, (-1, 2)).contiguous())
        return self.unflatten(v)

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Inner product <x, y> = sum conj(x) y over one element, per batch entry."""
        return torch.linalg.vecdot(self.flatten(x), self.flatten(y))

    def norm(self, x: Tensor) -> Tensor:
        """Euclidean norm per batch entry."""
        return torch.linalg.vector_norm(self.flatten(x), dim=-1)

    def random(
        self,
        *batch: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standard normal elements of shape `(*batch, *shape)` (circular when complex)."""
        return torch.randn((*batch, *self.shape), dtype=self.dtype(dtype), device=device, generator=generator)

    def zeros(
        self, *batch: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        """Zero elements of shape `(*batch, *shape)`."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype(dtype), device=device)

    def check(self, x: object, who: str) -> Tensor:
        """Return `x` as an element (or batch) of this space, or say what is wrong with it.

        Real data is taken as complex where the space is complex; the reverse would lose the
        imaginary part and is refused.

        Raises
        ------
        TypeError
            Not a tensor, or a dtype other than float32, float64, complex64, complex128.
        ValueError
            The trailing dimensions differ from `shape`, or complex data for a real space.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"{who} expects a tensor or numpy array, got {type(x).__name__}")
        if x.dtype not in _ACCEPTED:
            raise TypeError(
                f"{who} works in float32, float64, complex64 or complex128, got {x.dtype}; "
                "convert first, for example with x.to(torch.float32)"
            )
        if tuple(x.shape[max(x.ndim - self.ndim, 0) :]) != self.shape:
            hint = ""
            if x.ndim >= 1 and x.shape[-1] == self.size and self.ndim != 1:
                hint = f"; a flattened signal is brought back with x.reshape(*x.shape[:-1], *{self.shape})"
            raise ValueError(
                f"{who} expects (*batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}{hint}"
            )
        if self.complex:
            return x.to(complex_dtype(x.dtype))
        if x.is_complex():
            raise ValueError(
                f"{who} expects real data, got {x.dtype}; pass x.real, or build it with complex=True"
            )
        return x
