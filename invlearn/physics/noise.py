"""Noise of a measurement, added to what an operator gives and never inside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np
import torch
from torch import Generator, Tensor

from invlearn.physics.space import as_numbers


@dataclass(frozen=True)
class Noise(ABC):
    """A law of noisy measurements given clean ones; ``noisy = noise(y, generator)``."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{type(self).__name__}: {field.name} must be finite and not negative, got {value}"
                )

    @overload
    def __call__(self, y: Tensor, generator: Generator) -> Tensor: ...
    @overload
    def __call__(self, y: np.ndarray, generator: Generator) -> np.ndarray: ...
    def __call__(self, y: Any, generator: Generator) -> Any:
        """Draw noisy measurements.

        Parameters
        ----------
        y
            Clean measurements of any shape; float32, float64 or complex.
        generator
            Source of randomness. Drawn on its device, so that a CPU generator gives the same
            noise wherever `y` is.

        Raises
        ------
        TypeError
            Half precision.
        ValueError
            NaN or infinite values; complex or negative ones for counts.
        """
        clean = as_numbers(y, f"{type(self).__name__}: the measurement")
        noisy = self._draw(clean, generator)
        return noisy.cpu().numpy() if isinstance(y, np.ndarray) else noisy

    @abstractmethod
    def _draw(self, y: Tensor, generator: Generator) -> Tensor:
        """One draw for checked `y`."""

    @abstractmethod
    def variance(self, y: Tensor) -> Tensor:
        """E|noisy - y|² of each entry, shape of `y`, real."""


def _normal(y: Tensor, generator: Generator) -> Tensor:
    return torch.randn(y.shape, dtype=y.dtype, device=generator.device, generator=generator).to(y.device)


def _counts(y: Tensor, gain: float, generator: Generator, who: str) -> Tensor:
    if y.is_complex():
        raise ValueError(f"{who}: counts are real, got {y.dtype}")
    if bool((y < 0).any()):
        raise ValueError(f"{who}: a mean count cannot be negative, the smallest is {float(y.min()):.3g}")
    mean = (y / gain).to(generator.device)
    return gain * torch.poisson(mean, generator=generator).to(y)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """y + n with independent normal n.

    Attributes
    ----------
    sd
        Standard deviation, unit of the measurement. For complex measurements the root of E|n|²:
        real and imaginary part have sd/√2 each.
    """

    sd: float

    def _draw(self, y: Tensor, generator: Generator) -> Tensor:
        return y + self.sd * _normal(y, generator)

    def variance(self, y: Tensor) -> Tensor:
        return torch.full_like(y.real, self.sd**2)


@dataclass(frozen=True)
class PoissonNoise(Noise):
    """gain · Poisson(y / gain): mean y, variance gain · y.

    Attributes
    ----------
    gain
        Measured units per count, above 0; the smaller, the less noise.
    """

    gain: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain == 0:
            raise ValueError(f"{type(self).__name__}: gain must be above 0")

    def _draw(self, y: Tensor, generator: Generator) -> Tensor:
        return _counts(y, self.gain, generator, type(self).__name__)

    def variance(self, y: Tensor) -> Tensor:
        return self.gain * y


@dataclass(frozen=True)
class PoissonGaussianNoise(PoissonNoise):
    """gain · Poisson(y / gain) + n: photon counts read out with normal noise n.

    Attributes
    ----------
    gain
        Measured units per count, above 0.
    sd
        Standard deviation of n, unit of the measurement.
    """

    sd: float

    def _draw(self, y: Tensor, generator: Generator) -> Tensor:
        return super()._draw(y, generator) + self.sd * _normal(y, generator)

    def variance(self, y: Tensor) -> Tensor:
        return super().variance(y) + self.sd**2
