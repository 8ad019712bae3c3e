"""Fewer or more pixels: downsampling, cropping, padding."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.physics.linear.blur import Blur
from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space


def _gaussian(factor: int) -> Tensor:
    """Gaussian of standard deviation (factor - 1)/2 pixels, cut at four of them, sum 1."""
    sd = (factor - 1) / 2
    radius = int(4 * sd + 0.5)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (t / max(sd, 0.5)).square())
    return kernel / kernel.sum()


class Downsample(LinearOperator):
    """Every f-th pixel, from the first on, after a low-pass filter: n pixels give ⌈n/f⌉.

    The filter is a Gaussian of standard deviation (f - 1)/2 pixels an axis (cut at four standard
    deviations, nearest pixel beyond the border), so that detail finer than the new pixels does not
    come back as false structure.

    Parameters
    ----------
    shape
        Shape of one image.
    factor
        Integer, for all axes; or one for each of the last axes (1 leaves an axis alone).
    antialias
        Whether to filter first.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        A factor below 1 or that leaves an axis of less than its size, more factors than axes.
    TypeError
        A factor that is no integer.
    """

    def __init__(
        self,
        shape: Sequence[int],
        factor: int | Sequence[int],
        antialias: bool = True,
        complex: bool = False,
    ) -> None:
        domain = Space(tuple(shape), complex)
        given = [factor] * domain.ndim if isinstance(factor, int) else list(factor)
        try:
            factors = tuple(operator.index(f) for f in given)
        except TypeError:
            raise TypeError(f"Downsample takes integer factors, got {factor!r}") from None
        if len(factors) > domain.ndim:
            raise ValueError(f"Downsample: {len(factors)} factors for an image of {domain.ndim} axes")
        factors = (1,) * (domain.ndim - len(factors)) + factors
        if any(not 1 <= f <= n for f, n in zip(factors, domain.shape, strict=True)):
            raise ValueError(
                f"Downsample: factors {factors} must lie between 1 and the sizes of {domain.shape}"
            )
        codomain = Space(tuple(-(-n // f) for n, f in zip(domain.shape, factors, strict=True)), complex)
        super().__init__(domain, codomain)
        self.factors = factors
        self.filter = _low_pass(domain, factors) if antialias else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factors={self.factors}"

    @property
    def _kept(self) -> tuple[Any, ...]:
        return (..., *(slice(None, None, f) for f in self.factors))

    def _forward(self, x: Tensor) -> Tensor:
        if self.filter is not None:
            x = self.filter._forward(x)
        return x[self._kept]

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*self.codomain.batch_shape(y), *self.domain.shape)
        x[self._kept] = y
        return x if self.filter is None else self.filter._adjoint(x)

    def _spectrum(self) -> Spectrum | None:
        if self.filter is not None:
            return None
        kept = torch.zeros(self.domain.shape, dtype=torch.float64)
        kept[self._kept] = 1
        return Spectrum("pixel", kept)


def _low_pass(space: Space, factors: Sequence[int]) -> LinearOperator | None:
    """The Gaussian filter over the axes from the first with a factor above 1 on; None without one."""
    first = next((axis for axis, f in enumerate(factors) if f > 1), space.ndim)
    if first == space.ndim:
        return None
    if space.ndim - first > 3:
        raise ValueError("Downsample filters the last three axes; use factor 1 before them")
    kernel = torch.ones((), dtype=torch.float64)
    for f in factors[first:]:
        kernel = kernel.unsqueeze(-1) * _gaussian(f)
    return Blur(kernel, space.shape, "replicate", space.complex)


def _window(
    outer: Sequence[int], inner: Sequence[int], start: Sequence[int] | None, who: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First pixel and size of a window, checked; centred (pixel N//2 on pixel N//2) without `start`."""
    outer, inner = tuple(outer), tuple(inner)
    if len(outer) != len(inner):
        raise ValueError(f"{who}: sizes {inner} and {outer} have different numbers of axes")
    begin = (
        tuple(n // 2 - m // 2 for n, m in zip(outer, inner, strict=True)) if start is None else tuple(start)
    )
    if len(begin) != len(outer):
        raise ValueError(f"{who}: start {begin} needs one number for each of the {len(outer)} axes")
    if any(b < 0 or b + m > n for b, m, n in zip(begin, inner, outer, strict=True)):
        raise ValueError(f"{who}: a window {inner} from {begin} does not fit into {outer}")
    return begin, inner


class Crop(LinearOperator):
    """A window of the image.

    Parameters
    ----------
    shape
        Shape of one image.
    size
        Shape of the window.
    start
        Its first pixel; by default the window's pixel M//2 lies on the image's pixel N//2.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        A window that does not fit.
    """

    def __init__(
        self,
        shape: Sequence[int],
        size: Sequence[int],
        start: Sequence[int] | None = None,
        complex: bool = False,
    ) -> None:
        self_start, size = _window(shape, size, start, "Crop")
        super().__init__(Space(tuple(shape), complex), Space(size, complex))
        self.start = self_start

    def _forward(self, x: Tensor) -> Tensor:
        return _cut(x, self.start, self.codomain.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _surround(y, self.start, self.domain.shape)

    def _spectrum(self) -> Spectrum:
        kept = torch.ones(self.codomain.shape, dtype=torch.float64)
        return Spectrum("pixel", _surround(kept, self.start, self.domain.shape))


class Pad(LinearOperator):
    """Zeros around the image.

    Parameters
    ----------
    shape
        Shape of one image.
    size
        Shape with the zeros.
    start
        Where the image's first pixel comes to lie; by default its pixel N//2 on pixel M//2.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        A size that does not hold the image.
    """

    def __init__(
        self,
        shape: Sequence[int],
        size: Sequence[int],
        start: Sequence[int] | None = None,
        complex: bool = False,
    ) -> None:
        self_start, shape = _window(size, shape, start, "Pad")
        super().__init__(Space(shape, complex), Space(tuple(size), complex))
        self.start = self_start

    def _forward(self, x: Tensor) -> Tensor:
        return _surround(x, self.start, self.codomain.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _cut(y, self.start, self.domain.shape)

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", torch.ones(self.domain.shape, dtype=torch.float64))


def _cut(x: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    window: Any = (..., *(slice(b, b + m) for b, m in zip(start, size, strict=True)))
    return x[window]


def _surround(x: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    widths = [(b, n - b - m) for b, n, m in zip(start, size, x.shape[x.ndim - len(size) :], strict=True)]
    # F.pad counts axes from the last
    return torch.nn.functional.pad(x, [w for pair in reversed(widths) for w in pair])
