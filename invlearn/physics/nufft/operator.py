"""The non-uniform Fourier transform as an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invlearn.io.arrays import memory_limit
from invlearn.physics.nufft.toeplitz import apply_toeplitz, kernel_bytes, toeplitz_kernel
from invlearn.physics.nufft.transform import Backend, Snapshot, transform
from invlearn.physics.nufft.validate import check_eps, check_shape, check_trajectory, choose_backend
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space, real_dtype


class NonUniformFFT(LinearOperator):
    """Fourier transform of images at arbitrary points of k-space, y(m) = sum_r x(r) exp(-2πi k_m·r).

    r counts pixels from the pixel N//2, nothing is normalised, and the adjoint is the exact one.

    Parameters
    ----------
    trajectory
        k, `(*T, M, d)` in cycles per pixel, -0.5 to 0.5, last axis (kx, ky[, kz]); x runs along the last
        image axis. Each of the *T trajectories has an image of its own: domain `(*T, *shape)`, codomain
        `(*T, M)`. For one image seen by all, flatten to `(M, d)`. Gradients flow into a trajectory that asks
        for them, an `nn.Parameter` becomes one of this module. `.to(torch.float32)` rounds it.
    shape
        Shape of one image, `([D,] H, W)`; one axis too.
    eps
        Relative l2 accuracy of forward and adjoint, for data of either precision: single-precision data is
        computed in double where single cannot reach it.
    backend
        `"finufft"` (CPU), `"cufinufft"` (CUDA), `"torch"` (any device); by default the first that is
        installed for the device where the operator is.

    Raises
    ------
    ValueError
        A trajectory that is empty, has NaN, leaves -0.5 … 0.5 or does not fit the shape; an accuracy out of
        1e-13 … 0.1; an unknown or missing backend; a grid larger than memory.
    TypeError
        A trajectory that is not real floating-point.

    Notes
    -----
    `normal` is a convolution by FFTs (see `apply_toeplitz`) with a transfer function that is computed once,
    in double precision, accurate to 1e-9 or `eps`, whichever is less. Where the trajectory asks for
    gradients, or that transfer function would take more than a quarter of the memory to compute, it is the
    adjoint after the forward.
    """

    trajectory: Tensor

    def __init__(
        self, trajectory: Any, shape: Sequence[int], *, eps: float = 1e-6, backend: str | None = None
    ) -> None:
        who = "NonUniformFFT"
        given = trajectory
        trajectory = check_trajectory(trajectory, who)
        shape = check_shape(shape, trajectory, who)
        many = tuple(trajectory.shape[:-2])
        super().__init__(Space((*many, *shape), True), Space((*many, trajectory.shape[-2]), True))
        self.shape, self.eps, self.backend = shape, check_eps(eps, who), backend
        if isinstance(given, nn.Parameter):
            self.trajectory = given
        else:
            self.register_buffer("trajectory", trajectory if trajectory.requires_grad else trajectory.clone())
        self._engine = self._choose()
        self._kernel: tuple[Snapshot, Tensor] | None = None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}, backend={self._engine.name!r}"

    def _choose(self) -> Backend:
        return choose_backend(self.backend, self.trajectory.device, "NonUniformFFT")(self.shape, self.eps)

    def _apply(self, fn: Any, recurse: bool = True) -> NonUniformFFT:
        super()._apply(fn, recurse)
        self._engine, self._kernel = self._choose(), None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernel": None}

    def _forward(self, x: Tensor) -> Tensor:
        return transform(x, self.trajectory, self._engine, False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return transform(y, self.trajectory, self._engine, True)

    def _normal(self, x: Tensor) -> Tensor:
        traced = self.trajectory.requires_grad and torch.is_grad_enabled()
        if (
            traced
            or x.device.type == "meta"
            or 4 * kernel_bytes(self.domain.shape, self.shape) > memory_limit()
        ):
            return super()._normal(x)
        return apply_toeplitz(self._transfer(real_dtype(x.dtype)), x)

    def _transfer(self, dtype: torch.dtype) -> Tensor:
        """The transfer function of AᴴA, `(*T, *grid)`; kept for the precision that was last asked for."""
        k = self.trajectory
        if self._kernel is None or self._kernel[1].dtype != dtype or not self._kernel[0].holds(k):
            kernel = toeplitz_kernel(k, self.shape, eps=min(self.eps, 1e-9), backend=self.backend)
            self._kernel = Snapshot.of(k), kernel.to(dtype)
        return self._kernel[1]


def _points(g: torch.Generator, *size: int) -> Tensor:
    return torch.rand(*size, dtype=torch.float64, generator=g) - 0.5


# so accurate that the two ways to the normal operator agree in the operator tests
_EXAMPLE: dict[str, Any] = {"eps": 1e-12}
register("nufft/1d")(lambda g: NonUniformFFT(_points(g, 30, 1), (17,), **_EXAMPLE))
register("nufft/2d odd")(lambda g: NonUniformFFT(_points(g, 60, 2), (7, 9), **_EXAMPLE))
register("nufft/3d")(lambda g: NonUniformFFT(_points(g, 50, 3), (4, 5, 6), **_EXAMPLE))
register("nufft/2d several trajectories")(
    lambda g: NonUniformFFT(_points(g, 2, 3, 20, 2), (5, 4), **_EXAMPLE)
)
register("nufft/2d torch")(lambda g: NonUniformFFT(_points(g, 40, 2), (6, 7), backend="torch", **_EXAMPLE))
register("nufft/3d torch")(
    lambda g: NonUniformFFT(_points(g, 2, 15, 3), (3, 4, 5), backend="torch", **_EXAMPLE)
)
