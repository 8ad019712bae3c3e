"""Intensities that a network can compare, whatever the microscope, its bit depth and the share of the neuron.

A stack is described by three numbers from a sample of its voxels: its background, its noise, and how bright
its bright structures are. Between them a logarithm-like curve brings dim neurites within sight of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

_MOST = 1 << 22  # voxels that are looked at
_PLANES = 64  # of the stack, at most
_QUARTILE = 0.6745  # of a normal distribution, in standard deviations
_CLEAR = 5.0  # noise levels above the background: surely no noise
_BRIGHT = 0.9  # quantile of what is clear: the brightness that becomes one
_SOFT = 0.03  # of the brightness: below it the curve is straight, above it bends
_LARGEST = 2.0  # of a normalised intensity
_SATURATED = 0.5  # share of voxels with the largest value, in a stack that can be used


@runtime_checkable
class Sliceable(Protocol):
    """A stack, or an array: (D, H, W), read by slices."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Normaliser:
    """``y = asinh((x - background) / soft) / asinh((foreground - background) / soft)``, at most 2.

    The background becomes 0 and the bright structures 1.

    Attributes
    ----------
    background, noise, foreground
        In the units of the stack: the median; the standard deviation of the noise around it; the brightness
        of bright structures.

    Raises
    ------
    ValueError
        A foreground that is not above the background, or a negative noise.
    """

    background: float
    noise: float
    foreground: float

    def __post_init__(self) -> None:
        if not (self.foreground > self.background and self.noise >= 0):
            raise ValueError(
                "Normaliser: the foreground must be above the background and the noise not negative, got "
                f"background {self.background:g}, noise {self.noise:g}, foreground {self.foreground:g}"
            )

    @property
    def soft(self) -> float:
        """Where the curve begins to bend: twice the noise, or a small part of the contrast."""
        return max(2 * self.noise, _SOFT * (self.foreground - self.background))

    def __call__(self, x: np.ndarray) -> Float[np.ndarray, "*any"]:
        """Normalised intensities, float32."""
        soft = np.float32(self.soft)
        top = math.asinh((self.foreground - self.background) / self.soft)
        y = (x.astype(np.float32) - np.float32(self.background)) / soft
        np.arcsinh(y, out=y)
        y *= np.float32(1 / top)
        return np.minimum(y, np.float32(_LARGEST), out=y)

    def to_dict(self) -> dict[str, float]:
        """The three numbers."""
        return asdict(self)


def sample(stack: Sliceable) -> np.ndarray:
    """Voxels on a regular lattice through a stack, 4 million at most; the same ones every time."""
    depth, height, width = stack.shape
    planes = np.unique(np.linspace(0, depth - 1, min(depth, _PLANES)).round().astype(int))
    step = max(1, math.ceil(math.sqrt(len(planes) * height * width / _MOST)))
    rows = [np.asarray(stack[z : z + 1, :, :])[:, ::step, ::step].reshape(-1) for z in planes.tolist()]
    return np.concatenate(rows)


def estimate(stack: Sliceable, name: str = "the stack") -> Normaliser:
    """The normaliser of a stack.

    Parameters
    ----------
    stack
        (D, H, W): an array, or what is read slice by slice.
    name
        For messages.

    Raises
    ------
    ValueError
        NaN or infinite voxels; one value everywhere (all black); half of all voxels saturated.
    """
    x = sample(stack)
    require_finite(x, name)
    low, background, high = (float(v) for v in np.quantile(x, (0, 0.5, 1), method="nearest"))
    if low == high:
        raise ValueError(
            f"{name} has the value {low:g} everywhere: there is nothing to see in it; check the channel and "
            "the exposure"
        )
    if np.mean(x == x.dtype.type(high)) >= _SATURATED:
        raise ValueError(
            f"{name} is saturated: at least half of its voxels have its largest value, {high:g}; take it "
            "with less exposure, or invert it if the neuron is dark"
        )
    noise = _noise(x, background)
    clear = x[x > background + _CLEAR * noise]
    foreground = float(np.quantile(clear, _BRIGHT)) if clear.size else high
    return Normaliser(background, noise, foreground)


def _noise(x: np.ndarray, background: float) -> float:
    """Standard deviation around the median, from the darker side, where no neuron is.

    Where the darker side is cut off (an offset was subtracted), from the brighter quartile: 0 if the
    background was wiped out.
    """
    below = x[x <= background].astype(np.float64)
    spread = float(np.sqrt(np.mean((background - below) ** 2)))
    if spread > 0:
        return spread
    return (float(np.quantile(x, 0.75)) - background) / _QUARTILE


def require_finite(x: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    ValueError
        There are some.
    """
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{name} has NaN or infinite voxels; replace them first, for example by zeros")
