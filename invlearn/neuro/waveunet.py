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

from invlearn.neuro import slabs
from invlearn.training.precision import steady
from invlearn.training.weights import load_network
from invlearn.wavelets.unet import EncoderDecoder

KIND = "WaveUNet3D"
MULTIPLE = 16  # four ways down: the network commutes with shifts by so many voxels, and no others
REACH = 112  # voxels: nothing further away along an axis changes an output (haar and pooling; see the tests)
SHIPPED = Path(__file__).parent / "weights" / "waveunet_v3.safetensors"


class _Steady(nn.Sequential):
    """Layers that stay in full precision on grids of a few voxels."""

    def forward(self, x: Tensor) -> Tensor:
        return steady(super().forward, x)


class _Convolution(nn.Conv3d):
    """For prediction: oneDNN's convolution whatever the size.

    With one thread, torch takes another one for few or thin slices, ten times slower, which holds every
    voxel's neighbourhood in memory.
    """

    @classmethod
    def like(cls, layer: nn.Conv3d) -> _Convolution:
        """The same layer."""
        made = cls(layer.in_channels, layer.out_channels, 3, padding=1, bias=layer.bias is not None)
        made.load_state_dict(layer.state_dict())
        return made.to(layer.weight).eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        swift = x.device.type == "cpu" and x.dtype == torch.float32 == self.weight.dtype
        if not swift or torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
            return super().forward(x)
        one = [1, 1, 1]
        return torch.ops.aten.mkldnn_convolution(x, self.weight, self.bias, one, one, one, 1)


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
                block[k] = _Convolution.like(fuse_conv_bn_eval(convolution, norm))
                block[k + 1] = nn.Identity()
                block[k + 2] = nn.ReLU(inplace=True)
        return made

    def probability(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        """Probability of the last class, float32, in little memory: for a network in evaluation mode.

        Parameters
        ----------
        x
            Normalised intensities (see `invlearn.neuro.normalise`).
        """
        return slabs.probability(self, x)


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
