"""Subspace images from k-space and a Gaussian prior around a guess: some conjugate-gradient steps.

The prior's covariance is S(k) Q at every frequency k: Q `(K, K)` is what tissues' coefficients have in
common, and S(k) falls as the spectrum of images does. With noise of variance σ² of the samples,

    s = x + (AᴴA + σ² F⁻¹ (S Q)⁻¹ F)⁻¹ Aᴴ(y - A x)

is the Wiener estimate for a guess x. Least squares leave in a subspace of a short train mostly noise: of the
coefficients, the last few hold a ten-thousandth of the signal's energy and as much noise as the first.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from invlearn.unrolled.preconditioner import Circulant, Preconditioner

_CORNER = 0.02  # cycles a pixel: below it the spectrum of images is flat
_LEAST = 1e-4  # of the mean variance of a coefficient: no direction is thought to be empty
_FLOOR = 0.02  # of the mean of the circulant matrix, in the preconditioner
_TINY = 1e-30


@runtime_checkable
class Scan(Protocol):
    """What is known of the data (`Measured`)."""

    @property
    def kernel(self) -> Tensor: ...
    @property
    def coil_maps(self) -> Tensor: ...
    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        ...


class Correction(NamedTuple):
    """What to add to a guess.

    Attributes
    ----------
    images
        `(K, *image)`.
    normal
        AᴴA of them, which the steps have come by.
    """

    images: Tensor
    normal: Tensor


class Wiener:
    """The estimate for one scan.

    Parameters
    ----------
    scan
        The data's model.
    covariance
        Q `(K, K)`, for a density of 1.
    """

    def __init__(self, scan: Scan, covariance: Tensor) -> None:
        self.scan = scan
        shape = scan.coil_maps.shape[1:]
        self.axes = tuple(range(-len(shape), 0))
        self.spectrum = Circulant(scan.kernel, scan.coil_maps, shape).spectrum
        mean = torch.diagonal(covariance).real.mean()
        identity = torch.eye(len(covariance), device=covariance.device)
        precision = torch.linalg.inv(covariance + _LEAST * mean * identity)
        frequencies = (torch.fft.fftfreq(n, device=covariance.device) for n in shape)
        squares = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).square().sum(0)
        power = 1 / (_CORNER**2 + squares)
        self.precision = (power.mean() / power)[..., None, None] * precision.to(self.spectrum.dtype)
        diagonal = torch.diagonal(self.spectrum, dim1=-2, dim2=-1).real
        self.floor = _FLOOR * diagonal.mean() * identity

    def correction(self, residual: Tensor, variance: float, steps: int) -> Correction:
        """What to add to a guess x.

        Parameters
        ----------
        residual
            Aᴴ(y - A x), `(K, *image)`.
        variance
            σ² over the square of the density that is to be expected; 0 for least squares.
        steps
            Of conjugate gradients from zero, preconditioned.
        """
        shrink = Preconditioner(variance * self.precision, self.axes)
        inverse = Preconditioner(
            torch.linalg.inv(self.spectrum + variance * self.precision + self.floor), self.axes
        )
        x = normal = torch.zeros_like(residual)
        direction = inverse(residual)
        slope = real_dot(residual, direction)
        for step in range(steps):
            if step:
                z = inverse(residual)
                slope, last = real_dot(residual, z), slope
                direction = z + slope / last.clamp_min(_TINY) * direction
            seen = self.scan.normal(direction)
            image = seen + shrink(direction)
            size = slope / real_dot(direction, image).clamp_min(_TINY)
            x, normal, residual = x + size * direction, normal + size * seen, residual - size * image
        return Correction(x, normal)


def real_dot(x: Tensor, y: Tensor) -> Tensor:
    """Re <x, y>, summed in double precision."""
    return torch.sum(x.real.double() * y.real.double() + x.imag.double() * y.imag.double()).float()
