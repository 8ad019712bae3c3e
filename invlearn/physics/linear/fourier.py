"""The unitary discrete Fourier transform."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space


def unitary_fft(x: Tensor, dims: Sequence[int], centered: bool) -> Tensor:
    """Unitary FFT over `dims`; `centered`: origin and zero frequency at index N//2, else at 0."""
    if not centered:
        return torch.fft.fftn(x, dim=dims, norm="ortho")
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dims), dim=dims, norm="ortho"), dims)


def unitary_ifft(x: Tensor, dims: Sequence[int], centered: bool) -> Tensor:
    """Inverse, and adjoint, of `unitary_fft`."""
    if not centered:
        return torch.fft.ifftn(x, dim=dims, norm="ortho")
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(x, dims), dim=dims, norm="ortho"), dims)


def negative_axes(axes: Sequence[int] | int | None, ndim: int, who: str) -> tuple[int, ...]:
    """Axes of one element as negative numbers, so that batch dimensions may come before; all for None.

    Raises
    ------
    ValueError
        No axis, one out of range, or one named twice.
    """
    if axes is None:
        axes = range(ndim)
    listed = [operator.index(a) for a in ([axes] if isinstance(axes, int) else axes)]
    if not listed or any(not -ndim <= a < ndim for a in listed):
        raise ValueError(f"{who}: axes {tuple(listed)} do not name axes of an image with {ndim} axes")
    negative = tuple(a - ndim if a >= 0 else a for a in listed)
    if len(set(negative)) < len(negative):
        raise ValueError(f"{who}: axes {tuple(listed)} name an axis twice")
    return negative


class Fourier(LinearOperator):
    """Unitary discrete Fourier transform, F x[k] = N^(-1/2) Σ_r x[r] exp(-2πi k r / N) an axis.

    Parameters
    ----------
    shape
        Shape of one image.
    axes
        Axes to transform; all by default.
    centered
        Whether r and k count from the pixel N//2; otherwise from the first.
    complex
        Whether the images are complex. The transform of a real image is complex in full (no half
        spectrum), and its adjoint then gives the real part.

    Raises
    ------
    ValueError
        Axes that are out of range or named twice.
    """

    def __init__(
        self,
        shape: Sequence[int],
        axes: Sequence[int] | int | None = None,
        centered: bool = False,
        complex: bool = True,
    ) -> None:
        domain = Space(tuple(shape), complex)
        super().__init__(domain, Space(domain.shape, True))
        self.axes = negative_axes(axes, domain.ndim, "Fourier")
        self.centered = centered

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, axes={self.axes}, centered={self.centered}"

    def _forward(self, x: Tensor) -> Tensor:
        return unitary_fft(x, self.axes, self.centered)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = unitary_ifft(y, self.axes, self.centered)
        return x if self.domain.complex else x.real

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", torch.ones(self.domain.shape, dtype=torch.float64))
