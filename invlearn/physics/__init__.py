"""Operators, families, groups and solvers: the physics of a measurement."""

from __future__ import annotations

from invlearn.physics.blocks import block_diagonal, stack
from invlearn.physics.checks import CheckResult, check_adjoint, check_linear
from invlearn.physics.family import OperatorFamily
from invlearn.physics.linear import (
    Blur,
    Crop,
    Dense,
    Downsample,
    FiniteDifference,
    Fourier,
    FromFunction,
    Mask,
    Pad,
    Radon2D,
    Wavelet,
    fbp,
    from_deepinv,
    from_scipy,
    from_sigpy,
    to_deepinv,
    to_scipy,
    to_sigpy,
)
from invlearn.physics.noise import GaussianNoise, Noise, PoissonGaussianNoise, PoissonNoise
from invlearn.physics.nufft import NonUniformFFT
from invlearn.physics.operator import LinearOperator, Operator, Spectrum, identity, zero
from invlearn.physics.solvers import Solution, cg, lsqr, minres
from invlearn.physics.space import Space
from invlearn.physics.spectral import Eigenpairs, Singular, lowest_eigenpairs, power_norm, randomized_svd

__all__ = [
    "Blur",
    "CheckResult",
    "Crop",
    "Dense",
    "Downsample",
    "Eigenpairs",
    "FiniteDifference",
    "Fourier",
    "FromFunction",
    "GaussianNoise",
    "LinearOperator",
    "Mask",
    "Noise",
    "NonUniformFFT",
    "Operator",
    "OperatorFamily",
    "Pad",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "Radon2D",
    "Singular",
    "Solution",
    "Space",
    "Spectrum",
    "Wavelet",
    "block_diagonal",
    "cg",
    "check_adjoint",
    "check_linear",
    "fbp",
    "from_deepinv",
    "from_scipy",
    "from_sigpy",
    "identity",
    "lowest_eigenpairs",
    "lsqr",
    "minres",
    "power_norm",
    "randomized_svd",
    "stack",
    "to_deepinv",
    "to_scipy",
    "to_sigpy",
    "zero",
]
