"""Convolution with a known kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space, as_numbers, complex_dtype

Mode = Literal["circular", "valid", "replicate"]


def _fast_length(n: int) -> int:
    """The smallest 2^a 3^b 5^c that is at least n: other lengths transform slower."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


class Blur(LinearOperator):
    """Convolution y[i] = Σ_j h[j] x[i + c - j] with the kernel's centre at c = size//2 an axis.

    Computed by FFT with an adjoint that is exact to rounding in every mode.

    Parameters
    ----------
    kernel
        1-D to 3-D; acts on the last axes of the image, the same for every index of the others.
    shape
        Shape of one image.
    mode
        What lies beyond the border: ``"circular"`` the other side; ``"replicate"`` the nearest
        pixel; ``"valid"`` nothing: only outputs that need no such pixel are kept, n - size + 1 an
        axis.
    complex
        Whether the images are complex; by default as the kernel is.

    Raises
    ------
    ValueError
        NaN or infinite entries, a kernel of more axes than the image or than three, larger than
        the image in mode ``"valid"``, complex for real images, an unknown mode.
    TypeError
        Half precision.
    """

    transfer: Tensor

    def __init__(
        self,
        kernel: Tensor | np.ndarray,
        shape: Sequence[int],
        mode: Mode = "circular",
        complex: bool | None = None,
    ) -> None:
        kernel = as_numbers(kernel, "Blur: the kernel")
        if complex is None:
            complex = kernel.is_complex()
        elif kernel.is_complex() and not complex:
            raise ValueError("Blur: a complex kernel needs complex=True (or pass kernel.real)")
        domain = Space(tuple(shape), complex)
        d = kernel.ndim
        if not 1 <= d <= min(3, domain.ndim) or kernel.numel() == 0:
            raise ValueError(
                f"Blur takes a kernel of 1 to 3 axes that the image has too, got {tuple(kernel.shape)} "
                f"for an image {domain.shape}"
            )
        image = domain.shape[-d:]
        # Pixels needed before and after the first and last output pixel.
        self.after = tuple(k // 2 for k in kernel.shape)
        self.before = tuple(k - 1 - a for k, a in zip(kernel.shape, self.after, strict=True))
        self.dims = tuple(range(-d, 0))
        self.mode = mode
        output = image
        if mode == "circular":
            grid = image
        elif mode == "replicate":
            grid = tuple(_fast_length(n + k - 1) for n, k in zip(image, kernel.shape, strict=True))
        elif mode == "valid":
            output = tuple(n - k + 1 for n, k in zip(image, kernel.shape, strict=True))
            if min(output) < 1:
                raise ValueError(
                    f"Blur: the kernel {tuple(kernel.shape)} is larger than the image {image}, "
                    "mode='valid' leaves nothing"
                )
            grid = tuple(_fast_length(n) for n in image)
        else:
            raise ValueError(f"Blur: mode {mode!r} is none of 'circular', 'valid', 'replicate'")
        super().__init__(domain, Space((*domain.shape[:-d], *output), complex))
        self.grid = grid
        self.register_buffer("transfer", self._transfer(kernel))

    def _transfer(self, kernel: Tensor) -> Tensor:
        """Transform of the kernel on the grid, its centre at 0; halved for real images."""
        wide = kernel.to(torch.complex128 if kernel.is_complex() else torch.float64)
        for dim, n in zip(self.dims, self.grid, strict=True):
            # a kernel longer than a circular axis wraps around it
            turns = -(-wide.shape[dim] // n)
            room = wide.new_zeros(*wide.shape[:dim], turns * n, *wide.shape[wide.ndim + dim + 1 :])
            room.narrow(dim, 0, wide.shape[dim]).copy_(wide)
            wide = room.unflatten(dim, (turns, n)).sum(dim - 1)
        if self.mode == "circular":
            wide = wide.roll([-a for a in self.after], self.dims)
        if self.domain.complex:
            return torch.fft.fftn(wide, dim=self.dims)
        return torch.fft.rfftn(wide, dim=self.dims)

    def extra_repr(self) -> str:
        size = tuple(b + a + 1 for b, a in zip(self.before, self.after, strict=True))
        return f"{super().extra_repr()}, kernel={size}, mode={self.mode!r}"

    def _filter(self, x: Tensor, transfer: Tensor) -> Tensor:
        """Circular convolution on the grid."""
        transfer = transfer.to(complex_dtype(x.dtype))
        if self.domain.complex:
            return torch.fft.ifftn(torch.fft.fftn(x, dim=self.dims) * transfer, dim=self.dims)
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=self.dims) * transfer, s=self.grid, dim=self.dims)

    def _extend(self, x: Tensor) -> Tensor:
        """The image on the grid; what exceeds the border pixels that matter is never read."""
        for dim, n, before, after in zip(self.dims, self.grid, self.before, self.after, strict=True):
            size = x.shape[dim]
            if self.mode == "replicate":
                left, right = x.narrow(dim, 0, 1), x.narrow(dim, size - 1, 1)
                wide = list(x.shape)
                wide[dim] = before
                parts = [left.expand(wide), x]
                wide[dim] = after
                x = torch.cat([*parts, right.expand(wide)], dim)
            x = _zeros_after(x, dim, n)
        return x

    def _extend_adjoint(self, x: Tensor) -> Tensor:
        sizes = self.domain.shape[-len(self.dims) :]
        for dim, size, before, after in zip(self.dims, sizes, self.before, self.after, strict=True):
            if self.mode != "replicate":
                x = x.narrow(dim, 0, size)
                continue
            inner = x.narrow(dim, before, size).clone()
            inner.narrow(dim, 0, 1).add_(x.narrow(dim, 0, before).sum(dim, keepdim=True))
            inner.narrow(dim, size - 1, 1).add_(x.narrow(dim, before + size, after).sum(dim, keepdim=True))
            x = inner
        return x

    def _forward(self, x: Tensor) -> Tensor:
        if self.mode == "circular":
            return self._filter(x, self.transfer)
        y = self._filter(self._extend(x), self.transfer)
        outputs = self.codomain.shape[-len(self.dims) :]
        for dim, before, after, size in zip(self.dims, self.before, self.after, outputs, strict=True):
            y = y.narrow(dim, before + after, size)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.mode == "circular":
            return self._filter(y, self.transfer.conj())
        for dim, n, before, after in zip(self.dims, self.grid, self.before, self.after, strict=True):
            y = _zeros_after(_zeros_before(y, dim, before + after), dim, n)
        return self._extend_adjoint(self._filter(y, self.transfer.conj()))

    def _normal(self, x: Tensor) -> Tensor:
        if self.mode == "circular":
            return self._filter(x, self.transfer.abs().square())
        return super()._normal(x)

    def _spectrum(self) -> Spectrum | None:
        if self.mode != "circular":
            return None
        transfer = self.transfer.to(torch.complex128)
        if not self.domain.complex:
            transfer = torch.fft.fftn(torch.fft.irfftn(transfer, s=self.grid, dim=self.dims), dim=self.dims)
        return Spectrum("fourier", transfer.abs().square().expand(self.domain.shape).clone())


def _zeros_before(x: Tensor, dim: int, count: int) -> Tensor:
    return torch.nn.functional.pad(x, [0, 0] * (-dim - 1) + [count, 0])


def _zeros_after(x: Tensor, dim: int, size: int) -> Tensor:
    return torch.nn.functional.pad(x, [0, 0] * (-dim - 1) + [0, size - x.shape[dim]])
