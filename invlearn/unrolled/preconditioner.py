"""The circulant matrix nearest to the normal operator of a fingerprinting scan, and its inverse.

AᴴA is a convolution weighted by the coil maps: (AᴴA)(r, r') = Σ_c s_c(r)* t(r - r') s_c(r'), with
K × K matrices t(δ). Of all matrices C(r - r' mod N) the one with the mean of the entries on each periodic
diagonal is the nearest in the Frobenius norm; it is positive where AᴴA is, and inverted by one K × K
matrix a frequency.

T. F. Chan, SIAM J. Sci. Stat. Comput. 9 (1988) 766, doi:10.1137/0909051.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Added to the circulant matrix, as a share of its mean: what was hardly sampled is not blown up.
_FLOOR = 0.1


class Circulant:
    """C near AᴴA, as its transfer function.

    Parameters
    ----------
    kernel
        Transfer functions `(K, K, *grid)` of AᴴA without coils, `FingerprintOperator.transfer`.
    coil_maps
        `(C, *image)`; None for one coil with s = 1.
    shape
        The image.
    """

    def __init__(self, kernel: Tensor, coil_maps: Tensor | None, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.axes = tuple(range(-len(self.shape), 0))
        overlap = _overlap(coil_maps, self.shape, kernel.shape[2:])
        spectrum = torch.stack([self._row(row, overlap) for row in kernel]).movedim((0, 1), (-2, -1))
        self.spectrum = (spectrum + spectrum.mH) / 2

    def _row(self, kernel: Tensor, overlap: Tensor) -> Tensor:
        t = torch.fft.ifftn(kernel, dim=self.axes) * overlap
        for axis, n in zip(self.axes, self.shape, strict=True):  # δ and δ - N are one periodic diagonal
            t = t.narrow(axis, 0, n) + t.narrow(axis, t.shape[axis] - n, n)
        return torch.fft.fftn(t, dim=self.axes)

    def inverse(self, smoothing: float = 0.0) -> Preconditioner:
        """Of C + smoothing ∇ᴴ∇."""
        laplacian = torch.zeros((), device=self.spectrum.device)
        for axis, n in enumerate(self.shape):
            frequency = torch.fft.fftfreq(n, device=self.spectrum.device)
            profile = (2 * torch.sin(math.pi * frequency)).square()
            laplacian = laplacian + profile.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        diagonal = torch.diagonal(self.spectrum, dim1=-2, dim2=-1).real
        extra = _FLOOR * diagonal.mean() + smoothing * laplacian
        identity = torch.eye(self.spectrum.shape[-1], device=self.spectrum.device)
        return Preconditioner(torch.linalg.inv(self.spectrum + extra[..., None, None] * identity), self.axes)


class Preconditioner:
    """x `(K, *image)` -> F⁻¹ M F x, M a `(*image, K, K)` matrix at each frequency."""

    def __init__(self, matrices: Tensor, axes: tuple[int, ...]) -> None:
        self.matrices, self.axes = matrices, axes

    def __call__(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fftn(x, dim=self.axes).movedim(0, -1)
        mixed = (self.matrices @ spectrum[..., None])[..., 0].movedim(-1, 0)
        return torch.fft.ifftn(mixed, dim=self.axes)


def _overlap(maps: Tensor | None, shape: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Σ_c Σ_r s_c(r)* s_c(r - δ) over the number of pixels, zero shift first."""
    axes = tuple(range(-len(shape), 0))
    maps = torch.ones(1, *shape) if maps is None else maps
    power = sum(torch.fft.fftn(s, s=grid, dim=axes).abs().square() for s in maps)
    return torch.fft.ifftn(power, dim=axes).conj() / math.prod(shape)
