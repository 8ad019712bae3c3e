"""The 3D WaveUNet and its relatives: one network, of which a (down, up) pair makes all seven published ones.

References
----------
Li, Shen, Neuron segmentation using 3D wavelet integrated encoder-decoder network, Bioinformatics 38(3), 809
(2022), arXiv:2106.00259.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from invlearn.training.precision import steady
from invlearn.training.weights import load_network
from invlearn.wavelets.unet import EncoderDecoder

KIND = "WaveUNet3D"
MULTIPLE = 16  # four ways down: the network commutes with shifts by so many voxels, and no others
REACH = 112  # voxels: nothing further away along an axis changes an output (haar and pooling; see the tests)
SHIPPED = Path(__file__).parent / "weights" / "waveunet_v3.safetensors"

_SLAB = 32  # slices that a level is computed at a time in prediction


class _Steady(nn.Sequential):
    """Layers that stay in full precision on grids of a few voxels, or are computed in slabs."""

    def forward(self, x: Tensor) -> Tensor:
        return steady(super().forward, x)

    def in_slabs(self, *parts: Tensor) -> Tensor:
        """The same of parts that are joined along the channels, a slab of slices at a time."""
        depth, halo = parts[0].shape[2], sum(isinstance(layer, nn.Conv3d) for layer in self)
        out: Tensor | None = None
        for z in range(0, depth, _SLAB):
            low, high = max(0, z - halo), min(depth, z + _SLAB + halo)
            slab = torch.cat([part[:, :, low:high] for part in parts], 1)
            found = self(slab.contiguous(memory_format=torch.channels_last_3d))
            if out is None:
                size = (*found.shape[:2], depth, *found.shape[3:])
                out = torch.empty(
                    size, dtype=found.dtype, device=found.device, memory_format=torch.channels_last_3d
                )
            out[:, :, z : z + _SLAB] = found[:, :, z - low : z - low + _SLAB]
        assert out is not None
        return out


class WaveUNet3D(EncoderDecoder):
    """Encoder-decoder for stacks of neurons: logits of background and neuron for every voxel.

    Parameters
    ----------
    pair
        `"WaveSNet_V3"` or `"WaveSNet_V4"` (what the paper calls 3D WaveUNet), `"WaveSNet_V1"`,
        `"WaveSNet_V2"`, `"UNet_V1"`, `"UNet_V2"`, `"SegNet"`: see `invlearn.wavelets.unet.PAIRS`.
    width
        Channels of the finest level; the levels have 1, 2, 4 and 8 times as many. Parameters grow with its
        square: 203,122 for 4, 810,594 for 8, 3,238,594 for 16.
    wavelet
        Name of the wavelet of the wavelet pairs.
    classes
        Outputs a voxel.

    Raises
    ------
    ValueError
        An unknown pair or wavelet, a width or number of classes below 1.
    """

    def __init__(
        self, pair: str = "WaveSNet_V3", *, width: int = 8, wavelet: str = "haar", classes: int = 2
    ) -> None:
        super().__init__(
            1, classes, pair, ndim=3, channels=(width, 2 * width, 4 * width, 8 * width), wavelet=wavelet
        )
        self.encoder = nn.ModuleList(_Steady(*block.children()) for block in self.encoder)
        self.decoder = nn.ModuleList(_Steady(*block.children()) for block in self.decoder)
        self.bottom = _Steady(*self.bottom)
        self.architecture: dict[str, Any] = {
            "kind": KIND,
            "pair": pair,
            "width": width,
            "wavelet": wavelet,
            "classes": classes,
        }

    def joined(self, convolve: nn.Module, x: Tensor, skip: Tensor | None) -> Tensor:
        """As `EncoderDecoder.joined`; in prediction a slab at a time, so that large cubes fit in memory."""
        if self.training or torch.is_grad_enabled():
            return super().joined(convolve, x, skip)
        assert isinstance(convolve, _Steady)
        return convolve.in_slabs(*(x,) if skip is None else (x, skip))

    def to_dict(self) -> dict[str, Any]:
        """What makes the same network again, as its model card keeps it."""
        return dict(self.architecture)

    def folded(self) -> WaveUNet3D:
        """A copy for prediction alone: every batch normalisation is part of the convolution before it.

        The same function to rounding, a little faster and with less memory.
        """
        made = copy.deepcopy(self).eval().requires_grad_(False)
        for block in (*made.encoder, made.bottom, *made.decoder):
            assert isinstance(block, nn.Sequential)
            for k in range(0, len(block), 3):
                convolution, norm = block[k], block[k + 1]
                assert isinstance(convolution, nn.Conv3d)
                assert isinstance(norm, nn.BatchNorm3d)
                block[k] = fuse_conv_bn_eval(convolution, norm)
                block[k + 1] = nn.Identity()
                block[k + 2] = nn.ReLU(inplace=True)
        return made

    def probability(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        """Probability of the last class, float32.

        Parameters
        ----------
        x
            Normalised intensities (see `invlearn.neuro.normalise`).
        """
        logits = self(x.unsqueeze(1).contiguous(memory_format=torch.channels_last_3d)).float()
        if logits.shape[1] == 2:
            return torch.sigmoid(logits[:, 1] - logits[:, 0])
        return logits.softmax(1)[:, -1]


def load_waveunet(path: str | os.PathLike[str] | None = None) -> WaveUNet3D:
    """The network in a file that `invlearn.training.save_network` wrote, ready to predict.

    Parameters
    ----------
    path
        None takes the weights that come with invlearn, trained on simulated neurons.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or for something else than a WaveUNet3D: the message names what differs.
    """
    return load_network(
        SHIPPED if path is None else path,
        KIND,
        lambda made, _: WaveUNet3D(
            made["pair"], width=made["width"], wavelet=made["wavelet"], classes=made["classes"]
        ),
        otherwise="; leave them out to use those that come with invlearn",
    )
