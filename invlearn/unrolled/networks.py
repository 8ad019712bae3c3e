"""Networks that stand for a proximal operator, and what puts images through them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invlearn.wavelets import EncoderDecoder, Pair

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Network(ABC):
    """Says how to build a network from `(batch, channels, *spatial)` to the same shape.

    Built networks return zero before training: their last layer starts at zero.
    """

    @abstractmethod
    def build(self, channels: int, ndim: int) -> nn.Module:
        """A new network for `channels` real channels and `ndim` spatial axes."""

    def _positive(self, **counts: int) -> None:
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {count}")


@dataclass(frozen=True)
class ResidualCNN(Network):
    """Residual blocks of two 3 x 3 convolutions at full resolution, without normalisation.

    Parameters
    ----------
    width
        Channels inside.
    blocks
        Number of residual blocks; the network sees 2·blocks + 2 pixels to each side.

    Raises
    ------
    ValueError
        A width or number of blocks below 1.
    """

    width: int = 32
    blocks: int = 2

    def __post_init__(self) -> None:
        self._positive(width=self.width, blocks=self.blocks)

    def build(self, channels: int, ndim: int) -> nn.Module:
        conv = _CONV[ndim]
        last = _zeroed(conv(self.width, channels, 3, padding=1))
        blocks = [_Block(self.width, ndim) for _ in range(self.blocks)]
        return nn.Sequential(conv(channels, self.width, 3, padding=1), *blocks, last)


class _Block(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int, ndim: int) -> None:
        super().__init__()
        first, second = (_CONV[ndim](width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@dataclass(frozen=True)
class UNet(Network):
    """A small U-Net: max-pooling down, linear interpolation up, skips, no batch normalisation.

    Parameters
    ----------
    width
        Channels of the first level; doubled at each further one.
    levels
        Number of times that the image is halved.

    Raises
    ------
    ValueError
        A width or number of levels below 1.
    """

    width: int = 16
    levels: int = 3

    _pair: ClassVar[Pair] = Pair("max", "linear")

    def __post_init__(self) -> None:
        self._positive(width=self.width, levels=self.levels)

    def build(self, channels: int, ndim: int) -> nn.Module:
        network = EncoderDecoder(channels, channels, self._pair, ndim=ndim, **self._shape())
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                # statistics of a batch would tie its images together, and differ when recomputed
                if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                    setattr(parent, name, nn.Identity())
        _zeroed(network.head)
        return network

    def _shape(self) -> dict[str, Any]:
        return {"channels": [self.width * 2**level for level in range(self.levels)]}


@dataclass(frozen=True)
class WaveletUNet(UNet):
    """The same with a wavelet transform down and its inverse up: nothing is lost on the way.

    Parameters
    ----------
    width, levels
        As in `UNet`.
    wavelet
        Name of the wavelet.
    """

    wavelet: str = "haar"

    _pair: ClassVar[Pair] = Pair("bands", "wavelet")

    def _shape(self) -> dict[str, Any]:
        return {**super()._shape(), "wavelet": self.wavelet}


#: The networks by their names in model cards.
NETWORKS: dict[str, type[Network]] = {kind.__name__: kind for kind in (ResidualCNN, UNet, WaveletUNet)}


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Learned(nn.Module):
    """x + s·N(x/s), N a network and s the rms of x: a learned proximal operator, the identity at first.

    Parameters
    ----------
    network
        What N is.
    channels
        1 for images `(*batch, *spatial)`, more for `(*batch, channels, *spatial)`.
    ndim
        Number of spatial axes, 1 to 3.
    complex
        Whether the images are complex; N then sees the real parts and behind them the imaginary parts
        as 2·channels real channels.
    normalise
        Whether each image is divided by its rms s (over all channels) for N, so that the unit of the
        data does not matter; else s = 1.

    Raises
    ------
    ValueError
        Fewer than one channel, `ndim` outside 1 to 3, images of another kind or too few axes.
    """

    def __init__(
        self,
        network: Network = ResidualCNN(),
        *,
        channels: int = 1,
        ndim: int = 2,
        complex: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1 or ndim not in (1, 2, 3):
            raise ValueError(
                f"Learned: needs at least 1 channel and 1 to 3 axes, got {channels} channels and ndim={ndim}"
            )
        self.kind, self.channels, self.ndim = network, channels, ndim
        self.complex, self.normalise = complex, normalise
        self.network = network.build(channels * (2 if complex else 1), ndim)

    def fresh(self) -> Learned:
        """A new one of the same kind, with new random weights."""
        return Learned.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All that rebuilds it but the weights."""
        return {
            "network": {"kind": type(self.kind).__name__, **asdict(self.kind)},  # type: ignore[call-overload]
            "channels": self.channels,
            "ndim": self.ndim,
            "complex": self.complex,
            "normalise": self.normalise,
        }

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Learned:
        """The inverse of `to_dict`, with new weights."""
        network = dict(settings["network"])
        kind = network.pop("kind")
        if kind not in NETWORKS:
            raise ValueError(f"no network {kind!r}; there are {', '.join(NETWORKS)}")
        return cls(NETWORKS[kind](**network), **{k: v for k, v in settings.items() if k != "network"})

    def forward(self, x: Tensor) -> Tensor:
        """The proximal operator of `(*batch, [channels,] *spatial)`, same shape and dtype."""
        needed = self.ndim + (self.channels > 1)
        if x.ndim < needed or (self.channels > 1 and x.shape[-needed] != self.channels):
            axes = (["C"] if self.channels > 1 else []) + ["n"] * self.ndim
            raise ValueError(
                f"Learned acts on (*batch, {', '.join(axes)}) with {self.channels} channels, got "
                f"{tuple(x.shape)}"
            )
        if x.is_complex() != self.complex:
            raise ValueError(
                f"Learned was built with complex={self.complex}, the images are {x.dtype}; "
                f"build it with complex={x.is_complex()}"
            )
        z = x.reshape(-1, self.channels, *x.shape[x.ndim - self.ndim :])
        z = torch.cat([z.real, z.imag], 1) if self.complex else z
        out = (z + self._residual(z)).to(z.dtype)
        if self.complex:
            out = torch.complex(*out.chunk(2, 1))
        return out.reshape(x.shape)

    def _residual(self, z: Tensor) -> Tensor:
        z = z.to(next(self.network.parameters()).dtype)
        if not self.normalise:
            return self.network(z)
        axes = tuple(range(1, z.ndim))
        tiny = torch.finfo(z.dtype).tiny
        rms = z.square().mean(axes, keepdim=True).clamp_min(tiny).sqrt()
        return rms * self.network(z / rms)

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, ndim={self.ndim}, complex={self.complex}, normalise={self.normalise}"
        )
