"""From subspace images to multi-coil k-space in which every sample belongs to a frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.tensors import as_tensor
from invlearn.physics.mri.noncartesian import as_coil_maps
from invlearn.physics.nufft import NonUniformFFT, apply_toeplitz, toeplitz_kernel
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space, as_numbers, complex_dtype, real_dtype

_WHO = "FingerprintOperator"
_KERNEL_EPS = {torch.float32: 1e-7, torch.float64: 1e-9}
_PAIR_BYTES = 1 << 28  # of weights and grids, double precision, while the transfer functions are computed


def _check_frame(frame: Any, samples: int, frames: int) -> Tensor:
    frame = as_tensor(frame, f"{_WHO}: frame")
    if frame.is_floating_point() or frame.is_complex() or frame.dtype == torch.bool:
        raise TypeError(f"{_WHO}: frame holds the integer frame of each sample, got {frame.dtype}")
    if tuple(frame.shape) != (samples,):
        raise ValueError(
            f"{_WHO}: frame must be ({samples},), one entry for each sample of the trajectory, "
            f"got {tuple(frame.shape)}"
        )
    low, high = int(frame.min()), int(frame.max())
    if low < 0 or high >= frames:
        raise ValueError(
            f"{_WHO}: frame runs from {low} to {high}, the basis has rows for frames 0 to {frames - 1}; "
            "truncate the data, or take the basis of the whole sequence"
        )
    return frame.to(torch.int64, copy=True)


def _check_basis(basis: Any) -> Tensor:
    basis = as_numbers(basis, f"{_WHO}: basis")
    if basis.ndim != 2 or not 1 <= basis.shape[1] <= basis.shape[0]:
        raise ValueError(
            f"{_WHO}: basis must be (frames, K), K from 1 to the number of frames, got {tuple(basis.shape)}"
        )
    return basis.clone()


def _check_weights(weights: Any, samples: int) -> Tensor:
    weights = as_numbers(weights, f"{_WHO}: weights")
    if weights.is_complex() or tuple(weights.shape) != (samples,) or bool((weights < 0).any()):
        raise ValueError(
            f"{_WHO}: weights must be ({samples},) real numbers, not negative, one for each sample, "
            f"got {weights.dtype} {tuple(weights.shape)}"
        )
    return weights.clone()


class FingerprintOperator(LinearOperator):
    """Coil k-space of a train of frames whose images share a subspace.

    y_c(n) = √w_n Σ_k φ_k(frame n) Σ_r s_c(r) x_k(r) exp(-2πi k_n·r),

    K transforms a coil, not one a frame. AᴴA mixes the K coil images at every frequency of a padded
    grid, with the transfer functions of the weights w_n φ_j(n)* φ_k(n): K padded FFTs there and back a coil.

    Parameters
    ----------
    trajectory
        k_n, `(N, d)` in cycles per pixel, -0.5 … 0.5, ordered (kx, ky[, kz]).
    frame
        The frame of each sample, `(N,)` integers from 0.
    basis
        φ, `(frames, K)`, real or complex; `Dictionary.basis`.
    shape
        The image, `(H, W)` or `(D, H, W)`; the domain is `(K, *shape)`.
    coil_maps
        s, `(C, *shape)`, complex; without them one coil with s = 1. The codomain is `(C, N)`.
    weights
        w, `(N,)`, not negative: density compensation. Multiply measured data by √w too; AᴴA is then the
        weighted normal operator. 1 by default.
    eps
        Relative accuracy of the non-uniform transform.
    backend
        Its implementation, `"finufft"`, `"torch"` or `"cufinufft"`; by default by the device.

    Raises
    ------
    ValueError
        Shapes that do not fit, frames that the basis does not have, a trajectory outside ±0.5, no
        coils, NaN or infinite entries, transfer functions that memory could not hold.
    TypeError
        Half precision, frames that are no integers.

    References
    ----------
    Tamir et al., Magn. Reson. Med. 77 (2017) 180, doi:10.1002/mrm.26102 (subspace and its normal operator).
    """

    frame: Tensor
    basis: Tensor
    coil_maps: Tensor | None
    weights: Tensor | None

    def __init__(
        self,
        trajectory: Tensor | np.ndarray,
        frame: Tensor | np.ndarray,
        basis: Tensor | np.ndarray,
        shape: tuple[int, ...],
        coil_maps: Tensor | np.ndarray | None = None,
        *,
        weights: Tensor | np.ndarray | None = None,
        eps: float = 1e-6,
        backend: str | None = None,
    ) -> None:
        shape = tuple(int(s) for s in shape)
        trajectory = as_tensor(trajectory, f"{_WHO}: the trajectory")
        if trajectory.ndim != 2:
            raise ValueError(
                f"{_WHO} takes one trajectory (N, d) of all frames' samples, got {tuple(trajectory.shape)}"
            )
        basis = _check_basis(basis)
        self._refuse_large(shape, basis)
        nufft = NonUniformFFT(trajectory.detach(), shape, eps=eps, backend=backend)
        samples = len(trajectory)
        maps = None if coil_maps is None else as_coil_maps(coil_maps, shape, _WHO)
        super().__init__(
            Space((basis.shape[1], *shape), True), Space((1 if maps is None else len(maps), samples), True)
        )
        self.nufft = nufft
        self.register_buffer("frame", _check_frame(frame, samples, len(basis)))
        self.register_buffer("basis", basis)
        self.register_buffer("coil_maps", maps)
        self.register_buffer("weights", None if weights is None else _check_weights(weights, samples))
        self._kernel: tuple[Any, Tensor] | None = None

    @staticmethod
    def _refuse_large(shape: tuple[int, ...], basis: Tensor) -> None:
        rank = basis.shape[1]
        needed = rank**2 * math.prod(2 * n for n in shape) * (8 if basis.is_complex() else 4)
        if needed > memory_limit():
            raise ValueError(
                f"{_WHO}: the {rank} x {rank} transfer functions for images of {shape} need "
                f"{format_bytes(needed)}, more than the {format_bytes(memory_limit())} of memory there is; "
                "reduce the rank or the matrix"
            )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.basis)} frames"

    def _apply(self, fn: Any, recurse: bool = True) -> FingerprintOperator:
        super()._apply(fn, recurse)
        self._kernel = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernel": None}

    def _rows(self, like: Tensor) -> Tensor:
        """√w_n φ_k(frame n), `(K, N)`, at the precision of `like`."""
        dtype = like.dtype if self.basis.is_complex() else real_dtype(like.dtype)
        rows = self.basis.to(dtype).T[:, self.frame]
        return rows if self.weights is None else rows * self.weights.to(real_dtype(dtype)).sqrt()

    def _coils(self, like: Tensor) -> Iterator[Tensor | None]:
        """The map of each coil; None for the one coil with s = 1."""
        return iter([None] if self.coil_maps is None else self.coil_maps.to(like.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        rows = self._rows(x)
        coils = [(rows * self.nufft._forward(x if s is None else s * x)).sum(-2) for s in self._coils(x)]
        return torch.stack(coils, -2)

    def _adjoint(self, y: Tensor) -> Tensor:
        rows = self._rows(y).conj()
        images = [
            self._from_coil(s, self.nufft._adjoint(rows * y[..., c : c + 1, :]))
            for c, s in enumerate(self._coils(y))
        ]
        return _total(images)

    def _normal(self, x: Tensor) -> Tensor:
        kernel = self.transfer(real_dtype(x.dtype))
        return _total(
            self._from_coil(s, apply_toeplitz(kernel, x if s is None else s * x, mixing=True))
            for s in self._coils(x)
        )

    @staticmethod
    def _from_coil(s: Tensor | None, x: Tensor) -> Tensor:
        return x if s is None else s.conj() * x

    def transfer(self, dtype: torch.dtype) -> Tensor:
        """Transfer functions `(K, K, *grid)`, real for a real basis; the last asked for is kept."""
        key = dtype, *((t.data_ptr(), t._version) for t in self.buffers())
        if self._kernel is None or self._kernel[0] != key:
            self._kernel = None  # the old one makes room first
            self._kernel = key, self._compute_transfer(dtype)
        return self._kernel[1]

    @torch.no_grad()
    def _compute_transfer(self, dtype: torch.dtype) -> Tensor:
        real = not self.basis.is_complex()
        basis = self.basis.to(torch.float64 if real else torch.complex128)
        rank = basis.shape[1]
        density = None if self.weights is None else self.weights.to(torch.float64)
        pairs = list(itertools.combinations_with_replacement(range(rank), 2))
        # real weights have real transfer functions: two of them are the parts of one complex transform
        together = 2 if real else 1
        shape = self.domain.shape[1:]
        size = 16 * (2 * len(self.frame) + 3 * math.prod(2 * n for n in shape))
        step = together * max(1, _PAIR_BYTES // size)
        kernel: Tensor | None = None
        for first in range(0, len(pairs), step):
            part = pairs[first : first + step]
            weights = torch.stack([basis[:, j].conj() * basis[:, k] for j, k in part])[:, self.frame]
            weights = weights if density is None else weights * density
            found = self._kernels(weights, _KERNEL_EPS[real_dtype(dtype)])
            if kernel is None:
                kernel = _empty_kernel(
                    rank, found.shape[1:], dtype if real else complex_dtype(dtype), found.device
                )
            for (j, k), transfer in zip(part, found, strict=True):
                kernel[j, k] = transfer
                kernel[k, j] = transfer if real else transfer.conj()
        assert kernel is not None
        return kernel

    def _kernels(self, weights: Tensor, eps: float) -> Tensor:
        """Transfer functions `(P, *grid)` of `(P, N)` weights, at least as accurate as `eps`."""
        eps, backend = min(self.nufft.eps, eps), self.nufft.backend
        trajectory, shape = self.nufft.trajectory, self.domain.shape[1:]
        if weights.is_complex():
            return toeplitz_kernel(trajectory, shape, weights, eps=eps, backend=backend)
        odd = len(weights) % 2
        padded = torch.cat([weights, weights.new_zeros(odd, weights.shape[1])])
        paired = torch.complex(padded[::2], padded[1::2])
        both = toeplitz_kernel(trajectory, shape, paired, eps=eps, backend=backend)
        return torch.stack([both.real, both.imag], 1).flatten(0, 1)[: len(weights)]


def _empty_kernel(rank: int, grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for `(K, K, *grid)`, in memory as `apply_toeplitz` reads it."""
    return torch.empty(rank, rank, *grid[1:], grid[0], dtype=dtype, device=device).movedim(-1, 2)


def _total(images: Any) -> Tensor:
    """The sum, image by image, so that one of them is in memory at a time."""
    images = iter(images)
    total = next(images)
    for image in images:
        total = total + image
    return total


def _example(
    g: Generator, shape: tuple[int, ...], coils: int, complex: bool, weighted: bool
) -> LinearOperator:
    double = torch.complex128 if complex else torch.float64
    samples, frames, rank = 36, 5, 2
    points = torch.rand(samples, len(shape), dtype=torch.float64, generator=g) - 0.5
    return FingerprintOperator(
        points,
        torch.randint(frames, (samples,), generator=g),
        torch.linalg.qr(torch.randn(frames, rank, dtype=double, generator=g))[0],
        shape,
        torch.randn(coils, *shape, dtype=torch.complex128, generator=g) if coils else None,
        weights=torch.rand(samples, dtype=torch.float64, generator=g) if weighted else None,
        eps=1e-13,  # so accurate that the two ways to the normal operator agree in the operator tests
    )


register("fingerprint/2d odd")(lambda g: _example(g, (5, 7), 0, False, False))
register("fingerprint/2d coils, weights")(lambda g: _example(g, (6, 5), 2, False, True))
register("fingerprint/2d complex basis")(lambda g: _example(g, (5, 4), 2, True, False))
register("fingerprint/3d")(lambda g: _example(g, (3, 4, 5), 2, False, False))
