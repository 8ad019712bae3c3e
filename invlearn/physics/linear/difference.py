"""Finite differences: the discrete gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from invlearn.physics.linear.fourier import negative_axes
from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space


class FiniteDifference(LinearOperator):
    """Forward differences x[i+1] - x[i] along each axis: `(*shape)` to `(axes, *shape)`.

    Parameters
    ----------
    shape
        Shape of one image.
    axes
        Axes to differentiate, in the order of the output; all by default.
    mode
        Beyond the border: ``"replicate"`` the nearest pixel, so that the last difference is zero,
        or ``"circular"`` the other side.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        Axes out of range or named twice, an unknown mode.
    """

    def __init__(
        self,
        shape: Sequence[int],
        axes: Sequence[int] | int | None = None,
        mode: Literal["replicate", "circular"] = "replicate",
        complex: bool = False,
    ) -> None:
        if mode not in ("replicate", "circular"):
            raise ValueError(f"FiniteDifference: mode {mode!r} is none of 'replicate', 'circular'")
        domain = Space(tuple(shape), complex)
        negative = negative_axes(axes, domain.ndim, "FiniteDifference")
        super().__init__(domain, Space((len(negative), *domain.shape), complex))
        self.axes = negative
        self.mode = mode

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, axes={self.axes}, mode={self.mode!r}"

    def _next(self, x: Tensor, axis: int) -> Tensor:
        if self.mode == "circular":
            return x.roll(-1, axis)
        n = x.shape[axis]
        return torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)

    def _next_adjoint(self, y: Tensor, axis: int) -> Tensor:
        if self.mode == "circular":
            return y.roll(1, axis)
        n = y.shape[axis]
        if n == 1:
            return y
        last = y.narrow(axis, n - 2, 1) + y.narrow(axis, n - 1, 1)
        first = torch.zeros_like(y.narrow(axis, 0, 1))
        return torch.cat([first, y.narrow(axis, 0, n - 2), last], axis)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.stack([self._next(x, a) - x for a in self.axes], -self.codomain.ndim)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = y.unbind(-self.codomain.ndim)
        terms = [self._next_adjoint(p, a) - p for p, a in zip(parts, self.axes, strict=True)]
        return torch.stack(terms).sum(0)

    def _spectrum(self) -> Spectrum | None:
        if self.mode != "circular":
            return None
        values = torch.zeros(self.domain.shape, dtype=torch.float64)
        for axis in self.axes:
            n = self.domain.shape[axis]
            wave = 4 * torch.sin(torch.pi * torch.arange(n, dtype=torch.float64) / n).square()
            values += wave.reshape(-1, *[1] * (-axis - 1))
        return Spectrum("fourier", values)
