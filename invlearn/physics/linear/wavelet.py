"""The wavelet transform as an operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.registry import register
from invlearn.physics.space import Space
from invlearn.wavelets import band_names, dwt, dwt_adjoint, filter_bank, idwt
from invlearn.wavelets.filters import check_mode
from invlearn.wavelets.polyphase import forward_analysis
from invlearn.wavelets.transform import check_level, check_sizes


class Wavelet(LinearOperator):
    """Discrete wavelet transform over the last axes: images to vectors of coefficients.

    Parameters
    ----------
    shape
        Shape of the image.
    wavelet
        Name, `pywt.Wavelet`, `FilterBank` or four sequences of taps.
    level
        Number of levels; by default the deepest that the sizes allow.
    ndim
        Number of trailing axes to transform, 1 to 3; by default all of them.
    mode
        Border mode of `invlearn.wavelets.dwt`.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        Unknown wavelet or mode, a level out of range, more than three axes.

    Notes
    -----
    The coefficients of an image stand in one vector, in the order of `wavedec`: approximation, details of
    the coarsest level, ..., of the finest; `split` takes the vector apart. With an orthogonal wavelet, the
    mode "periodization" and sizes divisible by ``2**level`` the operator is unitary; in all other cases its
    adjoint is not its inverse (for a bank that reconstructs perfectly), which `inverse` applies.
    """

    def __init__(
        self,
        shape: Sequence[int],
        wavelet: Any = "haar",
        level: int | None = None,
        ndim: int | None = None,
        mode: str = "periodization",
        complex: bool = False,
    ) -> None:
        shape = tuple(shape)
        bank, mode = filter_bank(wavelet), check_mode(mode)
        ndim = len(shape) if ndim is None else ndim
        if not 1 <= ndim <= min(3, len(shape)):
            raise ValueError(
                f"Wavelet: ndim={ndim} does not fit images of shape {shape}; transform the last 1 to 3 axes"
            )
        check_sizes(shape[-ndim:], mode, "Wavelet")
        level = check_level(level, shape[-ndim:], bank, "Wavelet")
        sizes = [shape[-ndim:]]
        for _ in range(level):
            sizes.append(forward_analysis(bank, sizes[-1], mode).counts)
        names = band_names(ndim)
        lengths = [math.prod(sizes[-1])]
        for counts in reversed(sizes[1:]):
            lengths += [math.prod(counts)] * (len(names) - 1)
        super().__init__(Space(shape, complex), Space((*shape[:-ndim], sum(lengths)), complex))
        self.bank, self.mode, self.ndim, self.level = bank, mode, ndim, level
        self._sizes, self._lengths, self._names = sizes, lengths, names

    @property
    def unitary(self) -> bool:
        """Whether the adjoint is the inverse."""
        even = all(n % 2 == 0 for sizes in self._sizes[:-1] for n in sizes)
        return self.level == 0 or (self.bank.orthogonal and self.mode == "periodization" and even)

    def _forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for _ in range(self.level):
            low, *details = dwt(x, self.bank, self.ndim, self.mode).values()
            parts = [*details, *parts]
            x = low
        return torch.cat([part.flatten(-self.ndim) for part in (x, *parts)], -1)

    def split(self, y: Tensor) -> list[Any]:
        """The vector of coefficients (*batch, *codomain.shape) as the list that `wavedec` returns."""
        y = self.codomain.check(y, f"the coefficients of {self.label}")
        parts = iter(y.split(self._lengths, -1))
        counts = self._sizes[:0:-1]  # coarsest first
        coefficients: list[Any] = [next(parts).unflatten(-1, self._sizes[-1])]
        for size in counts:
            coefficients.append({name: next(parts).unflatten(-1, size) for name in self._names[1:]})
        return coefficients

    def _adjoint(self, y: Tensor) -> Tensor:
        low, *details = self.split(y)
        for bands, sizes in zip(details, self._sizes[-2::-1], strict=True):
            low = dwt_adjoint({self._names[0]: low, **bands}, self.bank, sizes, self.mode)
        return low

    def inverse(self, y: Tensor) -> Tensor:
        """The image of a vector of coefficients; exact for every bank that reconstructs perfectly."""
        low, *details = self.split(y)
        for bands, sizes in zip(details, self._sizes[-2::-1], strict=True):
            low = idwt({self._names[0]: low, **bands}, self.bank, self.ndim, self.mode, size=sizes)
        return low

    def _normal(self, x: Tensor) -> Tensor:
        return x if self.unitary else super()._normal(x)

    def _spectrum(self) -> Spectrum | None:
        return Spectrum("pixel", torch.ones(self.domain.shape, dtype=torch.float64)) if self.unitary else None


register("wavelet/1d")(lambda g: Wavelet((27,), "db2", level=2, mode="symmetric"))
register("wavelet/2d unitary")(lambda g: Wavelet((8, 12), "db2", level=1))
register("wavelet/2d complex")(lambda g: Wavelet((7, 9), "bior2.2", level=1, mode="reflect", complex=True))
register("wavelet/3d")(lambda g: Wavelet((5, 6, 7), "bior3.3", level=1))
register("wavelet/planes")(lambda g: Wavelet((3, 6, 9), "haar", level=2, ndim=2, mode="zero"))
