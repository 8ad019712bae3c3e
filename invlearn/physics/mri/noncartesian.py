"""Non-Cartesian MRI: coil images in k-space along any trajectory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from invlearn.physics.nufft import NonUniformFFT
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space, as_numbers, complex_dtype


def as_coil_maps(coil_maps: Tensor | np.ndarray, shape: tuple[int, ...], who: str) -> Tensor:
    """Coil maps `(C, *shape)` as complex numbers of their own memory.

    Raises
    ------
    ValueError
        Another shape, no coils, NaN or infinite entries, or nothing but zeros.
    TypeError
        Half precision.
    """
    maps = as_numbers(coil_maps, f"{who}: coil_maps")
    if tuple(maps.shape[1:]) != shape or maps.shape[0] < 1:
        raise ValueError(
            f"{who}: coil_maps must be (C, {', '.join(map(str, shape))}), as the image is, "
            f"got {tuple(maps.shape)}"
        )
    if not bool(maps.any()):
        raise ValueError(f"{who}: coil_maps are zero everywhere; estimate them again")
    return maps.to(complex_dtype(maps.dtype), copy=True)


class NonCartesianMRI(LinearOperator):
    """Coil images along a trajectory, y_c(k) = Σ_r s_c(r) x(r) e^(-2πi k·r), without normalisation.

    r counts pixels from the pixel N//2; x runs along the last axis of the image. AᴴA goes by
    Toeplitz embedding, one coil at a time, so that it needs the memory of one coil image.

    Parameters
    ----------
    trajectory
        `(*T, M, d)` in cycles per pixel, -0.5 … 0.5, ordered (kx, ky[, kz]). Leading axes T are
        frames with an image of their own (2-D + time); the arms of one image are flattened into M.
    shape
        The image, `(H, W)` or `(D, H, W)`; the domain is `(*T, *shape)`.
    coil_maps
        Sensitivities `(C, *shape)`, complex; measurements are `(*T, C, M)` with them and `(*T, M)`
        without.
    eps
        Relative accuracy of the non-uniform transform.
    backend
        Its implementation, `"finufft"`, `"torch"` or `"cufinufft"`; by default by the device.

    Raises
    ------
    ValueError
        A trajectory outside ±0.5 or of another dimension than the image, coil maps that do not
        fit it, are zero everywhere or hold NaN or infinite entries, an unknown backend.
    TypeError
        Half precision.

    Examples
    --------
    >>> from invlearn.physics.mri import trajectories
    >>> arms = trajectories.radial(20, 32)
    >>> a = NonCartesianMRI(arms.flatten(0, 1), (32, 32), torch.ones(4, 32, 32))
    >>> a.codomain.shape
    (4, 640)
    """

    coil_maps: Tensor | None

    def __init__(
        self,
        trajectory: Tensor | np.ndarray,
        shape: tuple[int, ...],
        coil_maps: Tensor | np.ndarray | None = None,
        *,
        eps: float = 1e-6,
        backend: str | None = None,
    ) -> None:
        shape = tuple(int(s) for s in shape)
        maps = None if coil_maps is None else as_coil_maps(coil_maps, shape, "NonCartesianMRI")
        nufft = NonUniformFFT(trajectory, shape, eps=eps, backend=backend)
        *times, samples = nufft.codomain.shape
        coils = () if maps is None else (len(maps),)
        super().__init__(nufft.domain, Space((*times, *coils, samples), True))
        self.nufft = nufft
        self.register_buffer("coil_maps", maps)
        self.times = len(times)

    def _maps(self, like: Tensor) -> Tensor:
        """`(C, 1 for every axis of T, *shape)`."""
        assert self.coil_maps is not None
        maps = self.coil_maps.to(like.dtype)
        return maps.reshape(len(maps), *[1] * self.times, *maps.shape[1:])

    def _forward(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self.nufft._forward(x)
        coil_images = x.unsqueeze(-self.domain.ndim - 1) * self._maps(x)
        return self.nufft._forward(coil_images).movedim(-2 - self.times, -2)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self.nufft._adjoint(y)
        coil_images = self.nufft._adjoint(y.movedim(-2, -2 - self.times))
        return (coil_images * self._maps(coil_images).conj()).sum(-self.domain.ndim - 1)

    def _normal(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return self.nufft._normal(x)
        total = torch.zeros_like(x)
        for coil in self._maps(x):
            total = total + coil.conj() * self.nufft._normal(coil * x)
        return total


def _points(*shape: int, g: Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=g) - 0.5


def _maps(*shape: int, g: Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=g) / 2


_EPS = 1e-13  # so accurate that the two ways to the normal operator agree in the operator tests
register("mri/noncartesian")(lambda g: NonCartesianMRI(_points(20, 2, g=g), (4, 5), eps=_EPS))
register("mri/noncartesian coils")(
    lambda g: NonCartesianMRI(_points(15, 2, g=g), (5, 4), _maps(3, 5, 4, g=g), eps=_EPS)
)
register("mri/noncartesian frames")(
    lambda g: NonCartesianMRI(_points(2, 7, 2, g=g), (3, 4), _maps(2, 3, 4, g=g), eps=_EPS)
)
register("mri/noncartesian volume")(
    lambda g: NonCartesianMRI(_points(12, 3, g=g), (2, 3, 4), _maps(2, 2, 3, 4, g=g), eps=_EPS)
)
