"""Non-uniform Fourier transforms: operator, backends, Toeplitz form of the normal operator."""

from __future__ import annotations

from invlearn.physics.nufft.operator import NonUniformFFT
from invlearn.physics.nufft.toeplitz import apply_toeplitz, toeplitz_kernel

__all__ = ["NonUniformFFT", "apply_toeplitz", "toeplitz_kernel"]
