"""The differentiable pair of transforms, and what a backend has to supply.

With r in pixels counted from the pixel N//2 and k in cycles per pixel,

    (F x)(m) = sum_r x(r) exp(-2πi k_m·r),        (Fᴴ y)(r) = sum_m y(m) exp(+2πi k_m·r).

Derivatives in the trajectory are transforms again, of images multiplied by the coordinate:
∂F x/∂k_a = F(-2πi r_a x). No accuracy is lost in them beyond that of the transform.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from invlearn.io.arrays import memory_limit
from invlearn.physics.space import complex_dtype


class Snapshot(NamedTuple):
    """A trajectory as it was at one time; `holds` as long as nobody writes to it."""

    trajectory: Tensor
    version: int

    @classmethod
    def of(cls, trajectory: Tensor) -> Snapshot:
        return cls(trajectory.detach(), trajectory._version)

    def holds(self, trajectory: Tensor) -> bool:
        """Whether `trajectory`, or an alias of it, still has the numbers of then."""
        return self.version == trajectory._version and self.trajectory.is_set_to(trajectory)


class Backend(ABC):
    """Computes both transforms to the relative accuracy `eps` and keeps what can be reused.

    A subclass writes `_prepare`, `_forward` and `_adjoint` for one trajectory and a flat batch.

    Parameters
    ----------
    shape
        Shape of the image.
    eps
        Relative l2 accuracy of both transforms.

    Attributes
    ----------
    name
        What `NonUniformFFT` calls it.
    single
        The smallest `eps` that single precision reaches; below it the arithmetic is double.
    """

    name: ClassVar[str]
    single: ClassVar[float]

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        self.shape = tuple(shape)
        self.eps = eps
        self._prepared: tuple[Snapshot, torch.dtype, list[Any]] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # plans and locks belong to their process: a copy starts with none
        return type(self), (self.shape, self.eps)

    @abstractmethod
    def _prepare(self, trajectory: Tensor, dtype: torch.dtype) -> Any:
        """What the transforms need to know of a trajectory `(M, d)`, for arithmetic in `dtype`."""

    def _footprint(self, samples: int, dtype: torch.dtype) -> int:
        """Bytes of what `_prepare` returns; it is kept for all trajectories while memory allows."""
        return len(self.shape) * samples * dtype.to_real().itemsize

    @abstractmethod
    def _forward(self, x: Tensor, points: Any) -> Tensor:
        """`(B, *shape)` to `(B, M)`."""

    @abstractmethod
    def _adjoint(self, y: Tensor, points: Any) -> Tensor:
        """`(B, M)` to `(B, *shape)`."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype to compute in for data of `dtype`."""
        # single precision holds coordinates to 1e-7 of the field of view: phases err in proportion to N
        reached = self.single * max(1.0, max(self.shape) / 1024)
        return complex_dtype(dtype) if self.eps >= reached else torch.complex128

    def apply(self, v: Tensor, trajectory: Tensor, adjoint: bool) -> Tensor:
        """F of `(*batch, *T, *shape)`, or Fᴴ of `(*batch, *T, M)`, for a trajectory `(*T, M, d)`."""
        if v.device != trajectory.device:
            raise ValueError(
                f"NonUniformFFT: the trajectory is on {trajectory.device} but the data on {v.device}; "
                "move the operator with .to(device)"
            )
        many, samples = trajectory.shape[:-2], trajectory.shape[-2]
        count = math.prod(many)
        source, target = ((samples,), self.shape) if adjoint else (self.shape, (samples,))
        batch = v.shape[: v.ndim - len(source)]
        if v.device.type == "meta" or v.numel() == 0:
            return v.new_zeros((*batch, *target))
        dtype = self.arithmetic(v.dtype)
        flat = v.detach().resolve_conj().to(dtype).reshape(-1, count, *source)
        call = self._adjoint if adjoint else self._forward
        with self._lock:
            points = self._points(trajectory, dtype)
            parts = [call(flat[:, t].contiguous(), p) for t, p in enumerate(points)]
        out = parts[0] if count == 1 else torch.stack(parts, 1)
        return out.to(v.dtype).reshape(*batch, *target)

    def _points(self, trajectory: Tensor, dtype: torch.dtype) -> Iterable[Any]:
        held = self._prepared
        if held is not None and held[1] == dtype and held[0].holds(trajectory):
            return held[2]
        many = trajectory.detach().to(torch.float64).reshape(-1, *trajectory.shape[-2:])
        if len(many) * self._footprint(many.shape[1], dtype) > memory_limit() / 4:
            return (self._prepare(k, dtype) for k in many)
        self._prepared = Snapshot.of(trajectory), dtype, [self._prepare(k, dtype) for k in many]
        return self._prepared[2]


def fast_even_size(least: int) -> int:
    """The shortest even length from `least` on without a prime factor above 7: fast to transform."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def coordinates(shape: Sequence[int], like: Tensor) -> list[Tensor]:
    """r of each axis in the trajectory's order (x, y[, z]), broadcastable against an image; pixels."""
    axes = []
    for axis, n in enumerate(shape):
        r = torch.arange(n, device=like.device, dtype=like.real.dtype) - n // 2
        axes.append(r.reshape(-1, *[1] * (len(shape) - 1 - axis)))
    return axes[::-1]


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(v: Tensor, trajectory: Tensor, backend: Backend, adjoint: bool) -> Tensor:
        return backend.apply(v, trajectory, adjoint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        v, trajectory, ctx.backend, ctx.adjoint = inputs
        # the data is kept for the derivative in the trajectory alone
        ctx.save_for_backward(v if trajectory.requires_grad else None, trajectory)
        ctx.save_for_forward(v, trajectory)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if g is None:
            return None, None, None, None
        v, trajectory = ctx.saved_tensors
        backend, adjoint = ctx.backend, ctx.adjoint
        to_v = transform(g, trajectory, backend, not adjoint) if ctx.needs_input_grad[0] else None
        to_k = None
        if ctx.needs_input_grad[1]:
            # both directions pair samples s with an image u: d<s, F u> = Re sum_m conj(s) (-2πi dk·F(r u))
            samples, image = (v, g) if adjoint else (g, v)
            parts = [
                (samples.conj() * transform(r * image, trajectory, backend, False)).imag
                for r in coordinates(backend.shape, image)
            ]
            to_k = 2 * math.pi * torch.stack(parts, -1)
            to_k = to_k.sum_to_size(trajectory.shape).to(trajectory.dtype)
        return to_v, to_k, None, None

    @staticmethod
    def jvp(ctx: Any, dv: Tensor | None, dk: Tensor | None, *_: None) -> Tensor:
        v, trajectory = ctx.saved_tensors
        backend, adjoint = ctx.backend, ctx.adjoint
        terms = [] if dv is None else [transform(dv, trajectory, backend, adjoint)]
        if dk is not None:
            dk = dk.to(v.real.dtype)
            for a, r in enumerate(coordinates(backend.shape, v)):
                if adjoint:
                    terms.append(2j * math.pi * r * transform(dk[..., a] * v, trajectory, backend, True))
                else:
                    terms.append(-2j * math.pi * dk[..., a] * transform(r * v, trajectory, backend, False))
        return torch.stack(terms).sum(0)


def transform(v: Tensor, trajectory: Tensor, backend: Backend, adjoint: bool) -> Tensor:
    """F v, or Fᴴ v; differentiable to any order in `v` and in the trajectory.

    Parameters
    ----------
    v
        Images `(*batch, *T, *shape)`, or samples `(*batch, *T, M)` for the adjoint; complex.
    trajectory
        `(*T, M, d)` in cycles per pixel, ordered (kx, ky[, kz]).
    backend
        What computes it.
    adjoint
        Which of the two.
    """
    return _Transform.apply(v, trajectory, backend, adjoint)
