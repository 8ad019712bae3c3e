"""Wavelet transforms, wavelet down- and up-sampling, and shrinkage as network layers.

The transforms have no weights and no buffers: they follow the dtype and the device of their input,
add nothing to a checkpoint, and a network with them has as many parameters as one with pooling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invlearn.wavelets.filters import WaveletLike, check_mode, filter_bank
from invlearn.wavelets.transform import dwt, idwt

_KEEP = ("low", "all", "low+shrunk details")


class _Shrinkage(nn.Module):
    """A threshold, fixed or learned; learned ones are kept positive by a softplus."""

    def __init__(self, threshold: float = 0.25, *, learned: bool = False) -> None:
        super().__init__()
        if not 0 <= threshold < math.inf:
            raise ValueError(
                f"{type(self).__name__}: threshold must be at least 0 and finite, got {threshold}"
            )
        if learned and threshold == 0:
            raise ValueError(
                f"{type(self).__name__}: a learned threshold must start above 0, got 0: try 0.01"
            )
        self.fixed = None if learned else float(threshold)
        if learned:
            self.raw = nn.Parameter(torch.tensor(threshold + math.log(-math.expm1(-threshold))))

    @property
    def threshold(self) -> float | Tensor:
        """The threshold now: a float if fixed, a 0-dimensional tensor if learned."""
        return F.softplus(self.raw) if self.fixed is None else self.fixed

    def extra_repr(self) -> str:
        now = float(torch.as_tensor(self.threshold).detach())
        return f"threshold={now:.4g}, learned={self.fixed is None}"


class SoftShrinkage(_Shrinkage):
    """Soft thresholding, ``x / |x| * max(|x| - t, 0)``; for complex `x` it keeps the phase.

    Parameters
    ----------
    threshold : float
        t, in the unit of the data; at least 0.
    learned : bool
        Make t a parameter (starting at `threshold`, which must then be above 0; it stays positive).

    Raises
    ------
    ValueError
        For a threshold that is negative, infinite or NaN, or a learned one of 0.

    References
    ----------
    Donoho, IEEE Trans. Inform. Theory 41(3), 613-627 (1995), doi:10.1109/18.382009.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shrink every element of `x` (any shape, real or complex); same shape and dtype."""
        return torch.sgn(x) * F.relu(x.abs() - self.threshold)


class HardShrinkage(_Shrinkage):
    """Hard thresholding, ``x`` where ``|x| > t`` and 0 elsewhere.

    Its derivative with respect to t is a Dirac comb, of no use for learning. A learned t therefore gets
    the gradient of a smoothed gate, ``sigmoid((|x| - t) / (t / 10))``, while values and the gradient
    with respect to `x` stay those of the hard threshold.

    Parameters
    ----------
    threshold, learned
        As in `SoftShrinkage`.

    Raises
    ------
    ValueError
        As in `SoftShrinkage`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Threshold every element of `x` (any shape, real or complex); same shape and dtype."""
        t = self.threshold
        kept = torch.where(x.abs() > t, x, torch.zeros_like(x))
        if isinstance(t, float):
            return kept
        still = x.detach()
        gate = torch.sigmoid((still.abs() - t) / (0.1 * t.detach()))
        return kept + still * (gate - gate.detach())


class _WaveletLayer(nn.Module):
    """What the transform layers share: filters, number of axes, border mode; refused here if wrong."""

    def __init__(self, wavelet: WaveletLike, ndim: int, mode: str) -> None:
        super().__init__()
        if ndim not in (1, 2, 3):
            raise ValueError(
                f"{type(self).__name__}: ndim must be 1, 2 or 3, got {ndim}: leading axes are batch"
            )
        self.bank, self.ndim, self.mode = filter_bank(wavelet), ndim, check_mode(mode)

    def extra_repr(self) -> str:
        return f"wavelet={self.bank.name!r}, ndim={self.ndim}, mode={self.mode!r}"


class DWT(_WaveletLayer):
    """One level of the discrete wavelet transform over the last axes, as a layer.

    Parameters
    ----------
    wavelet : str, pywt.Wavelet, FilterBank or four sequences of float
        Whatever `filter_bank` takes.
    ndim : int
        Number of transformed axes, 1 to 3, counted from the last.
    mode : str
        Border mode; ``"periodization"`` gives exactly ``ceil(n / 2)`` samples an axis.

    Raises
    ------
    ValueError
        For an unknown wavelet, border mode, or number of axes.
    """

    def __init__(self, wavelet: WaveletLike = "haar", ndim: int = 3, mode: str = "periodization") -> None:
        super().__init__(wavelet, ndim, mode)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Transform `x` of shape ``(..., *spatial)`` into its 2**ndim bands, keys as in ``pywt.dwtn``."""
        return dwt(x, self.bank, self.ndim, self.mode)


class IDWT(_WaveletLayer):
    """The inverse of `DWT`, as a layer.

    Parameters
    ----------
    wavelet, ndim, mode
        As given to the `DWT` that is undone.

    Raises
    ------
    ValueError
        As in `DWT`.
    """

    def __init__(self, wavelet: WaveletLike = "haar", ndim: int = 3, mode: str = "periodization") -> None:
        super().__init__(wavelet, ndim, mode)

    def forward(self, bands: Mapping[str, Tensor], size: Sequence[int] | None = None) -> Tensor:
        """Synthesise from all bands; `size` is the spatial size to crop to if it was odd.

        Raises
        ------
        ValueError
            For missing bands, bands of unequal shape, or a `size` larger than the synthesis.
        """
        return idwt(bands, self.bank, self.ndim, self.mode, size)


class WaveletDownsample(_WaveletLayer):
    """Halve the last axes by a wavelet transform: an alias-poor drop-in for pooling.

    Parameters
    ----------
    wavelet, ndim, mode
        As in `DWT`.
    keep : {"low", "all", "low+shrunk details"}
        ``"low"`` returns the low band alone, as WaveCNets do; ``"all"`` returns the pair (low band, dict of
        the 2**ndim - 1 detail bands), for `WaveletUpsample`; the third also passes the details through
        `shrink`, as WaveSNets do.
    shrink : nn.Module, optional
        For ``keep="low+shrunk details"`` alone: what is applied to each detail band, by default
        ``HardShrinkage(0.25)``, the constant of the 3D WaveUNet.
    unit_gain : bool
        For ``keep="low"`` alone: divide the low band by its gain for constants, 2**(ndim / 2) for wavelets,
        so that it has the scale of an average. The haar wavelet is then average pooling by two.

    Raises
    ------
    ValueError
        As in `DWT`; for an unknown `keep`; for `shrink` or `unit_gain` where it has no effect; for
        `unit_gain` with a low-pass filter that removes constants.

    References
    ----------
    Li, Shen, Guo, Lai, "Wavelet integrated CNNs for noise-robust image classification" (CVPR 2020),
    arXiv:2005.03337.
    """

    def __init__(
        self,
        wavelet: WaveletLike = "haar",
        ndim: int = 3,
        mode: str = "periodization",
        *,
        keep: str = "low",
        shrink: nn.Module | None = None,
        unit_gain: bool = False,
    ) -> None:
        super().__init__(wavelet, ndim, mode)
        if keep not in _KEEP:
            raise ValueError(
                f"WaveletDownsample: keep must be one of {', '.join(map(repr, _KEEP))}, got {keep!r}"
            )
        if shrink is not None and keep != "low+shrunk details":
            raise ValueError(
                f"WaveletDownsample: shrink has no effect with keep={keep!r}: use 'low+shrunk details'"
            )
        if unit_gain and keep != "low":
            raise ValueError(
                f"WaveletDownsample: unit_gain would spoil the reconstruction with keep={keep!r}: "
                f"it is for keep='low'"
            )
        gain = sum(self.bank.dec_lo) ** ndim
        if unit_gain and abs(gain) < 1e-9:
            raise ValueError(
                f"WaveletDownsample: the low-pass filter of {self.bank.name!r} removes constants: "
                f"unit_gain needs one that keeps them"
            )
        self.keep, self.scale = keep, 1 / gain if unit_gain else 1.0
        self.shrink = HardShrinkage() if keep == "low+shrunk details" and shrink is None else shrink

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Down-sample `x` of shape ``(..., *spatial)``; what is returned depends on `keep`."""
        details = dwt(x, self.bank, self.ndim, self.mode)
        low = details.pop("a" * self.ndim)
        if self.keep == "low":
            return low if self.scale == 1 else low * self.scale
        if self.shrink is not None:
            details = {key: self.shrink(band) for key, band in details.items()}
        return low, details

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, keep={self.keep!r}, scale={self.scale:.4g}"


class WaveletUpsample(_WaveletLayer):
    """Double the last axes: inverse transform of a deep path and the encoder's details.

    Parameters
    ----------
    wavelet, ndim, mode
        As given to the `WaveletDownsample` whose details come back here.

    Raises
    ------
    ValueError
        As in `DWT`.

    References
    ----------
    Li, Shen, "WaveSNet: wavelet integrated deep networks for image segmentation", arXiv:2005.14461.
    """

    def __init__(self, wavelet: WaveletLike = "haar", ndim: int = 3, mode: str = "periodization") -> None:
        super().__init__(wavelet, ndim, mode)

    def forward(
        self, low: Tensor, details: Mapping[str, Tensor], size: Sequence[int] | None = None
    ) -> Tensor:
        """Up-sample `low` with `details`; crop to the spatial `size` of the encoder's input if given.

        Raises
        ------
        ValueError
            If a detail band is missing or its shape is not that of `low`, or `size` is too large.
        """
        return idwt({"a" * self.ndim: low, **details}, self.bank, self.ndim, self.mode, size)
