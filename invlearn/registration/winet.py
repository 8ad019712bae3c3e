"""WiNet: a network that predicts the wavelet coefficients of a deformation, coarse to fine.

One level of the wavelet transform halves both volumes; an encoder-decoder reads all their sub-bands; heads
give the coefficients of the field at an eighth, a quarter and a half of the grid; inverse transforms put the
field together. Nothing is warped inside. The parts and their sizes are those of the published network; it
is written from its description.

References
----------
Cheng et al., WiNet: wavelet-based incremental learning for efficient medical image registration,
MICCAI 2024, arXiv:2407.13426.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from invlearn.registration.fields import exponential, inverse
from invlearn.training.precision import steady
from invlearn.training.weights import load_network
from invlearn.wavelets import band_names, dwt, filter_bank, idwt

KIND = "WiNet"
_FOLDER, _PREFIX = Path(__file__).parent / "weights", "winet_"
MULTIPLE = 16  # of every axis inside: one transform and three strides of two
_NAMES = band_names(3)
_DETAILS = len(_NAMES) - 1
_SLOPE = 0.01
_VOXELS = 16.0  # for an output of one: what three transforms divide the coarsest band by, about
_FIRST = 0.02  # heads and refinement start that much smaller than other layers: near the identity


def _convolutions(inputs: int, outputs: int, stride: int = 1, *, norm: bool = False) -> nn.Sequential:
    """Two convolutions of 3 x 3 x 3 voxels, each with a leaky rectifier; the first one strides."""
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers.append(nn.Conv3d(channels, outputs, 3, stride=step, padding=1))
        if norm:
            layers.append(nn.InstanceNorm3d(outputs))
        layers.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers)


class _Up(nn.Module):
    """Doubles the grid, and joins what the encoder saw there."""

    def __init__(self, inputs: int, skipped: int, outputs: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose3d(inputs, inputs, 2, stride=2)
        self.join = _convolutions(inputs + skipped, outputs)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        finer = functional.leaky_relu(self.enlarge(x), _SLOPE)
        return self.join(torch.cat([finer, skipped], 1))


class _Refine(nn.Module):
    """Details of one level from the coarser level's and the head's, each sub-band for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Sequential(
            nn.Conv3d(6 * _DETAILS, 6 * _DETAILS, 3, padding=1, groups=_DETAILS),
            nn.LeakyReLU(_SLOPE),
            nn.Conv3d(6 * _DETAILS, 3 * _DETAILS, 3, padding=1, groups=_DETAILS),
        )

    def forward(self, coarse: Tensor, head: Tensor) -> Tensor:
        """Both ``(B, 7, 3, d, h, w)``, the first on half the grid of the second."""
        finer = functional.interpolate(coarse.flatten(1, 2), size=head.shape[3:], mode="trilinear")
        both = torch.cat([finer.unflatten(1, (_DETAILS, 3)), head], 2)
        return self.bands(both.flatten(1, 2)).unflatten(1, (_DETAILS, 3))


def _start(layer: nn.Module) -> None:
    """Random weights that keep the variance from layer to layer, and biases of zero.

    Torch's own start halves what the volumes contribute in every layer, until biases are all that is left.
    """
    if not isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) or layer.groups == layer.in_channels:
        return  # the smoothers have a start of their own
    taps = 1 if isinstance(layer, nn.ConvTranspose3d) else math.prod(layer.kernel_size)
    gain = nn.init.calculate_gain("leaky_relu", _SLOPE)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(taps * layer.in_channels / layer.groups))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _smoother() -> nn.Conv3d:
    """A filter of 3 x 3 x 3 voxels for each component of the field; the identity at first."""
    layer = nn.Conv3d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.dirac_(layer.weight, groups=3)
    return layer


class WiNet(nn.Module):
    """Predicts the field that brings one volume onto another, by its wavelet coefficients.

    Parameters
    ----------
    wavelet
        Any discrete wavelet that `invlearn.wavelets.filter_bank` takes by name; of images and field.
    width
        Channels on the finest grid; twice as many on the coarser ones. 32 are published (1,418,573
        parameters).
    diffeomorphic
        The output is a stationary velocity, and the field its exponential; otherwise the field itself.
    spacing
        Voxel size in mm that the weights are for, RAS; None where they do not know.

    Raises
    ------
    ValueError
        An unknown wavelet; no channels; a spacing that is not positive.

    Notes
    -----
    Both volumes are brought to zero mean and unit variance, padded with their border to multiples of 16,
    and the field is cropped, so that any intensities and any size serve. Under `torch.autocast` the
    features are in 16 bits; the coefficients and all that follows stay in 32.
    """

    def __init__(
        self,
        wavelet: str = "haar",
        width: int = 32,
        *,
        diffeomorphic: bool = True,
        spacing: float | None = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"WiNet takes a width of at least 1 channel, got {width}")
        if spacing is not None and not 0 < spacing < float("inf"):
            raise ValueError(f"WiNet: the spacing is in mm and positive, got {spacing}")
        self.bank = filter_bank(wavelet)
        self.wavelet, self.width, self.diffeomorphic, self.spacing = wavelet, width, diffeomorphic, spacing
        fine, coarse = width, 2 * width
        self.encoder = nn.ModuleList(
            [
                _convolutions(2 * len(_NAMES), fine, norm=True),
                _convolutions(fine, fine, 2),
                _convolutions(fine, coarse, 2),
                _convolutions(coarse, coarse, 2),
            ]
        )
        self.decoder = nn.ModuleList(
            [_Up(coarse, coarse, coarse), _Up(coarse, fine, coarse), _Up(coarse, fine, fine)]
        )
        bands = ((coarse, len(_NAMES)), (coarse, _DETAILS), (fine, _DETAILS))
        self.heads = nn.ModuleList([nn.Conv3d(n, 3 * b, 3, padding=1, bias=False) for n, b in bands])
        self.refinement = nn.ModuleList([_Refine(), _Refine()])
        self.smoothing = nn.ModuleList([_smoother() for _ in range(3)])
        self.apply(_start)
        last = [*self.heads, *(block.get_submodule("bands.2") for block in self.refinement)]
        with torch.no_grad():
            for layer in last:
                layer.get_parameter("weight").mul_(_FIRST)

    def to_dict(self) -> dict[str, Any]:
        """What `WiNet` was made with, for a model card."""
        return {
            "kind": KIND,
            "wavelet": self.wavelet,
            "width": self.width,
            "diffeomorphic": self.diffeomorphic,
            "spacing_mm": self.spacing,
        }

    def forward(
        self, moving: Float[Tensor, "*batch D H W"], fixed: Float[Tensor, ...]
    ) -> Float[Tensor, "*batch 3 D H W"]:
        """The field that makes ``warp(moving, field)`` resemble `fixed`.

        Parameters
        ----------
        moving, fixed
            On one grid, of any size and in any unit.

        Returns
        -------
        Tensor
            In voxels, pull-back, float32 (float64 of float64 volumes).

        Raises
        ------
        ValueError
            Shapes that differ, or that are no volumes.
        """
        output = self.output(moving, fixed)
        return exponential(output) if self.diffeomorphic else output

    def both(
        self, moving: Float[Tensor, "*batch D H W"], fixed: Float[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch 3 D H W"], Float[Tensor, "*batch 3 D H W"]]:
        """The field of `forward`, and the one that undoes it.

        ``exp(v)`` and ``exp(-v)`` of a velocity; a displacement is inverted by iteration,
        without gradient.
        """
        output = self.output(moving, fixed)
        if self.diffeomorphic:
            return exponential(output), exponential(-output)
        return output, inverse(output.detach())

    def output(
        self, moving: Float[Tensor, "*batch D H W"], fixed: Float[Tensor, ...]
    ) -> Float[Tensor, "*batch 3 D H W"]:
        """What the network itself gives, in voxels: the velocity, or the displacement."""
        if moving.shape != fixed.shape or moving.ndim < 3 or 0 in moving.shape:
            raise ValueError(
                f"WiNet takes two volumes (..., D, H, W) on one grid, got {tuple(moving.shape)} and "
                f"{tuple(fixed.shape)}; resample one onto the grid of the other"
            )
        batch, sizes = moving.shape[:-3], moving.shape[-3:]
        volumes = torch.stack([x.reshape(-1, *sizes) for x in (moving, fixed)], 1)
        features = self._features(_padded(_standardised(volumes)))
        heads = [head(x).unflatten(1, (-1, 3)) for head, x in zip(self.heads, features, strict=True)]
        with torch.autocast(volumes.device.type, enabled=False):
            field = self.synthesise([head.to(volumes.dtype) for head in heads])
        depth, height, width = sizes
        return field[..., :depth, :height, :width].reshape(*batch, 3, *sizes)

    def _features(self, volumes: Float[Tensor, "B 2 D H W"]) -> list[Tensor]:
        """At an eighth, a quarter and a half of the grid."""
        x = torch.cat(list(dwt(volumes, self.bank, 3).values()), 1)
        seen = []
        for block in self.encoder:
            x = steady(block, x)
            seen.append(x)
        features, x = [], seen.pop()
        for up in self.decoder:
            x = steady(up, x, seen.pop())
            features.append(x)
        return features

    def synthesise(self, heads: list[Tensor]) -> Float[Tensor, "B 3 D H W"]:
        """The field, in voxels, of the heads' coefficients.

        Parameters
        ----------
        heads
            ``(B, 8, 3, …)`` at an eighth of the grid, ``(B, 7, 3, …)`` at a quarter and a half: sub-bands
            in the order of `invlearn.wavelets.band_names`, the finer two without the low-pass one.
        """
        coarsest, quarter, half = heads
        low, eighth = coarsest[:, 0], coarsest[:, 1:]
        details = [eighth, self.refinement[0](eighth, quarter), self.refinement[1](quarter, half)]
        for level, smoother in zip(details, self.smoothing, strict=True):
            bands = dict(zip(_NAMES, (low, *level.unbind(1)), strict=True))
            low = smoother(idwt(bands, self.bank, 3))
        return _VOXELS * low


def _standardised(x: Tensor) -> Tensor:
    """Zero mean and unit variance over each volume; a constant one becomes zero."""
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    x = x - x.mean((-3, -2, -1), keepdim=True)
    rms = x.square().mean((-3, -2, -1), keepdim=True).sqrt()
    return x / rms.clamp(min=torch.finfo(x.dtype).tiny)


def _padded(x: Tensor) -> Tensor:
    """The border's samples go on until every axis is a multiple of 16."""
    padding = [side for n in reversed(x.shape[-3:]) for side in (0, -n % MULTIPLE)]
    return functional.pad(x, padding, mode="replicate") if any(padding) else x


def weights_file(given: str | os.PathLike[str]) -> Path:
    """The file of weights: as given, or of the weights that come with invlearn by their name, `brain_t1`.

    Raises
    ------
    FileNotFoundError
        Neither a file nor such a name.
    """
    path = Path(given)
    if path.is_file():
        return path
    shipped = {found.stem.removeprefix(_PREFIX): found for found in _FOLDER.glob(f"{_PREFIX}*.safetensors")}
    if str(path) not in shipped:
        raise FileNotFoundError(
            f"{path} does not exist, or is no file; give a file of weights, or the name of those that come "
            f"with invlearn ({', '.join(sorted(shipped))}), or leave weights out to go without"
        )
    return shipped[str(path)]


def load_winet(path: str | os.PathLike[str]) -> WiNet:
    """The network in a file that `invlearn.training.save_network` wrote, ready to predict.

    Parameters
    ----------
    path
        The file; or `brain_t1`, the weights that come with invlearn.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or for something else than a WiNet: the message names what differs.
    """
    return load_network(
        weights_file(path),
        KIND,
        lambda made, _: WiNet(
            made["wavelet"],
            made["width"],
            diffeomorphic=made["diffeomorphic"],
            spacing=made["spacing_mm"],
        ),
    )
