"""One encoder-decoder for U-Net, SegNet, and their wavelet versions, in 1D, 2D and 3D.

All of them are the same convolutions around a pair (way down, way up): see `PAIRS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invlearn.wavelets.filters import WaveletLike
from invlearn.wavelets.layers import WaveletDownsample, WaveletUpsample

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAXPOOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class _Unpool(nn.Module):
    """Max-unpooling by two: every value back to where it was the maximum, zeros elsewhere."""

    def forward(self, x: Tensor, memory: Tensor, size: Sequence[int]) -> Tensor:
        return _UNPOOL[len(size)](x, memory, [2] * len(size), output_size=list(size))


class _Stuffing(nn.Module):
    """Transposed convolution of kernel 1 and stride 2: zeros between the samples, channels mixed."""

    def __init__(self, channels: int, ndim: int) -> None:
        super().__init__()
        self.conv = _TRANSPOSE[ndim](channels, channels, kernel_size=1, stride=2)

    def forward(self, x: Tensor, memory: object, size: Sequence[int]) -> Tensor:
        return self.conv(x, output_size=list(size))


class _Linear(nn.Module):
    """Linear, bilinear or trilinear interpolation with the corners aligned."""

    def forward(self, x: Tensor, memory: object, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, size=list(size), mode=_LINEAR[len(size)], align_corners=True)


@dataclass(frozen=True)
class _Way:
    """How to build one way (from channels, ndim, wavelet), and what it leaves for or needs from the other."""

    build: Callable[[int, int, WaveletLike], nn.Module]
    memory: Literal["indices", "details"] | None = None


# A way down halves to ceil(n / 2) and returns x or (x, memory); a way up takes (x, memory, size).
_DOWN: dict[str, _Way] = {
    "max": _Way(lambda c, d, w: _MAXPOOL[d](2, ceil_mode=True, return_indices=True), "indices"),
    "conv": _Way(lambda c, d, w: _CONV[d](c, c, kernel_size=1, stride=2)),
    "low": _Way(lambda c, d, w: WaveletDownsample(w, d, keep="low")),
    "bands": _Way(lambda c, d, w: WaveletDownsample(w, d, keep="all"), "details"),
    "shrunk bands": _Way(lambda c, d, w: WaveletDownsample(w, d, keep="low+shrunk details"), "details"),
}
_UP: dict[str, _Way] = {
    "unpool": _Way(lambda c, d, w: _Unpool(), "indices"),
    "stuffing": _Way(lambda c, d, w: _Stuffing(c, d)),
    "linear": _Way(lambda c, d, w: _Linear()),
    "wavelet": _Way(lambda c, d, w: WaveletUpsample(w, d), "details"),
}


@dataclass(frozen=True)
class Pair:
    """A way down and a way up: the only difference between the networks of one `EncoderDecoder`.

    Parameters
    ----------
    down : {"max", "conv", "low", "bands", "shrunk bands"}
        Max-pooling by two; 1 x 1 convolution of stride 2; the low wavelet band alone; all wavelet bands;
        all of them, the details through ``HardShrinkage(0.25)``.
    up : {"unpool", "stuffing", "linear", "wavelet"}
        Max-unpooling with the indices of ``down="max"``; transposed 1 x 1 convolution of stride 2;
        (bi-, tri-) linear interpolation with aligned corners; inverse wavelet transform with the details
        of ``down="bands"`` or ``"shrunk bands"``.
    skip : bool
        Concatenate the encoder's features to the up-sampled ones (U-Net) or not (SegNet).

    Raises
    ------
    ValueError
        For an unknown way, or an `up` that needs what `down` does not keep.
    """

    down: str
    up: str
    skip: bool = True

    def __post_init__(self) -> None:
        if self.down not in _DOWN:
            raise ValueError(f"Pair: unknown way down {self.down!r}: use one of {', '.join(_DOWN)}")
        if self.up not in _UP:
            raise ValueError(f"Pair: unknown way up {self.up!r}: use one of {', '.join(_UP)}")
        need = _UP[self.up].memory
        if need is not None and need != _DOWN[self.down].memory:
            fits = ", ".join(repr(name) for name, way in _DOWN.items() if way.memory == need)
            raise ValueError(
                f"Pair: up={self.up!r} needs the {need} of the way down, "
                f"which down={self.down!r} does not keep: use {fits}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the three settings as a plain dictionary."""
        return asdict(self)


#: The seven networks of the 3D WaveUNet paper by their names there, and the wavelet version of SegNet from
#: WaveSNet (its U-Net is ``"WaveSNet_V3"``). V3 and V4 are what the paper calls 3D WaveUNet.
PAIRS: dict[str, Pair] = {
    "SegNet": Pair("max", "unpool", skip=False),
    "UNet_V1": Pair("max", "stuffing"),
    "UNet_V2": Pair("conv", "linear"),
    "WaveSNet_V1": Pair("low", "linear"),
    "WaveSNet_V2": Pair("low", "stuffing"),
    "WaveSNet_V3": Pair("bands", "wavelet"),
    "WaveSNet_V4": Pair("shrunk bands", "wavelet"),
    "WaveSegNet": Pair("bands", "wavelet", skip=False),
}


class EncoderDecoder(nn.Module):
    """U-Net, SegNet and their wavelet versions: one network around a (down, up) pair.

    Level l of the encoder has ``convs[l]`` times (3 x 3 convolution, batch normalisation, ReLU) with
    ``channels[l]`` channels, then the way down; `bottleneck` more of them follow at the bottom. The decoder
    mirrors this; the last convolution of each level already has the channels of the level above, so that
    the deep path meets the encoder with equal channels, as an inverse wavelet transform with the encoder's
    details requires. A 1 x 1 convolution to `classes` ends it. Wavelet layers have no parameters.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    classes : int
        Channels of the output (logits; no softmax).
    pair : str or Pair
        A name from `PAIRS`, or a `Pair` of one's own.
    ndim : int
        Spatial axes, 1 to 3.
    channels : sequence of int
        Channels per level, shallow to deep; its length is the number of levels.
    convs : int or sequence of int
        Convolutions per level (one number for all levels), at least 1.
    bottleneck : int
        Convolutions after the last way down; 0 for none, as in SegNet with VGG-16.
    wavelet : str, pywt.Wavelet, FilterBank or four sequences of float
        Wavelet of the wavelet pairs (periodization at the borders).
    bias : bool
        Whether the convolutions before a batch normalisation have a bias.

    Raises
    ------
    ValueError
        For an unknown pair or wavelet, `ndim` outside 1 to 3, no levels, or counts below one.

    Notes
    -----
    Spatial sizes need not be multiples of ``2 ** levels``: each way down gives ``ceil(n / 2)``, each way
    up crops to the size of its level.

    The default widths are those of the 3D WaveUNet; ``channels=(64, 128, 256, 512, 512)``,
    ``convs=(2, 2, 3, 3, 3)``, ``bottleneck=0``, ``ndim=2`` is the SegNet of WaveSNet.

    References
    ----------
    Li, Shen, "Neuron segmentation using 3D wavelet integrated encoder-decoder network", Bioinformatics
    38(3), 809 (2022), arXiv:2106.00259. Li, Shen, "WaveSNet: wavelet integrated deep networks for image
    segmentation", arXiv:2005.14461.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        pair: str | Pair = "WaveSNet_V4",
        *,
        ndim: int = 3,
        channels: Sequence[int] = (4, 8, 16, 32),
        convs: int | Sequence[int] = 2,
        bottleneck: int = 2,
        wavelet: WaveletLike = "haar",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if ndim not in _CONV:
            raise ValueError(f"EncoderDecoder: ndim must be 1, 2 or 3, got {ndim}")
        counts = [convs] * len(channels) if isinstance(convs, int) else list(convs)
        if not channels or len(counts) != len(channels):
            raise ValueError(
                f"EncoderDecoder: {len(counts)} entries in convs for {len(channels)} levels in channels: "
                f"give at least one level, and one number of convolutions a level"
            )
        if min(in_channels, classes, *channels, *counts) < 1 or bottleneck < 0:
            raise ValueError(
                f"EncoderDecoder: channels, classes and convolutions must be at least 1, bottleneck at least "
                f"0, got in_channels={in_channels}, classes={classes}, channels={tuple(channels)}, "
                f"convs={tuple(counts)}, bottleneck={bottleneck}"
            )
        self.ndim, self.in_channels, self.pair = ndim, in_channels, _pair(pair)

        def block(*widths: int) -> nn.Sequential:
            parts: list[nn.Module] = []
            for before, after in pairwise(widths):
                parts += [_CONV[ndim](before, after, 3, padding=1, bias=bias), _NORM[ndim](after), nn.ReLU()]
            return nn.Sequential(*parts)

        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for width, count in zip(channels, counts, strict=True):
            self.encoder.append(block(before, *[width] * count))
            self.downs.append(_DOWN[self.pair.down].build(width, ndim, wavelet))
            before = width
        self.bottom = block(before, *[before] * bottleneck)
        for level in reversed(range(len(channels))):
            width, above = channels[level], channels[max(level - 1, 0)]
            joined = 2 * width if self.pair.skip else width
            self.ups.append(_UP[self.pair.up].build(width, ndim, wavelet))
            self.decoder.append(block(joined, *[width] * (counts[level] - 1), above))
        self.head = _CONV[ndim](channels[0], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` of shape ``(batch, in_channels, *spatial)`` to logits ``(batch, classes, *spatial)``.

        Raises
        ------
        ValueError
            If `x` has another number of axes or channels.
        """
        if x.ndim != self.ndim + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"EncoderDecoder: expected (batch, {self.in_channels}, {self.ndim} spatial axes), "
                f"got shape {tuple(x.shape)}: add the missing axes or make the network with other ones"
            )
        kept: list[tuple[Any, Tensor | None, torch.Size]] = []
        for convolve, down in zip(self.encoder, self.downs, strict=True):
            x = convolve(x)
            lower = down(x)
            deep, memory = lower if isinstance(lower, tuple) else (lower, None)
            kept.append((memory, x if self.pair.skip else None, x.shape[2:]))
            x = deep
        x = self.bottom(x)
        for up, convolve in zip(self.ups, self.decoder, strict=True):
            memory, skip, size = kept.pop()
            x = up(x, memory, size)
            del memory
            x = convolve(x if skip is None else torch.cat([x, skip], dim=1))
        return self.head(x)


def _pair(pair: str | Pair) -> Pair:
    if isinstance(pair, Pair):
        return pair
    if pair not in PAIRS:
        near = difflib.get_close_matches(pair, PAIRS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown network {pair!r}: {hint}known are {', '.join(PAIRS)}, or give a Pair")
    return PAIRS[pair]
