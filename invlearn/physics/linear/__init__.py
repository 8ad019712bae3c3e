"""The catalogue of linear operators."""

from __future__ import annotations

from invlearn.physics.linear.blur import Blur
from invlearn.physics.linear.dense import Dense
from invlearn.physics.linear.difference import FiniteDifference
from invlearn.physics.linear.fourier import Fourier
from invlearn.physics.linear.interop import FromFunction, from_scipy, to_scipy
from invlearn.physics.linear.libraries import from_deepinv, from_sigpy, to_deepinv, to_sigpy
from invlearn.physics.linear.mask import Mask
from invlearn.physics.linear.permutation import Permutation
from invlearn.physics.linear.radon import Radon2D, fbp
from invlearn.physics.linear.sampling import Crop, Downsample, Pad
from invlearn.physics.linear.wavelet import Wavelet

__all__ = [
    "Blur",
    "Crop",
    "Dense",
    "Downsample",
    "FiniteDifference",
    "Fourier",
    "FromFunction",
    "Mask",
    "Pad",
    "Permutation",
    "Radon2D",
    "Wavelet",
    "fbp",
    "from_deepinv",
    "from_scipy",
    "from_sigpy",
    "to_deepinv",
    "to_scipy",
    "to_sigpy",
]
