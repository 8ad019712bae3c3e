"""Pairs of volumes that are known to belong together: random smooth warps, contrasts, shading and noise.

All randomness comes from a generator on the CPU, so that a seed gives the same pairs on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from invlearn.registration.fields import exponential, warp
from invlearn.registration.smoothing import smooth

_NODES = 4  # of the grid that smooth noise is drawn on, over the distance in which it varies
_PARTIAL_VOLUME = 0.6  # voxels of blur between the labels of a drawn brain


@dataclass(frozen=True)
class Synthesis:
    """How random pairs are made.

    Attributes
    ----------
    displacement
        The largest displacement of a pair is drawn up to it, in voxels.
    scales
        Distances, in voxels, over which the warp and its shading vary; each gets its own random field, the
        amplitude in proportion to the root of the scale.
    gamma
        Brightness becomes its power ``exp(g)``, g drawn up to ± this.
    bias
        Brightness is multiplied by a smooth ``exp(b)``, b up to ± this.
    noise
        Standard deviation of white noise is drawn up to it; the image's range is one.
    label_contrast
        Of the samples with a label map, the share that are drawn from it, every label with a random
        brightness of its own in each volume, and not made from the image.

    Raises
    ------
    ValueError
        A number out of its range.
    """

    displacement: float = 4.0
    scales: tuple[float, ...] = (32.0, 16.0, 8.0)
    gamma: float = 0.4
    bias: float = 0.3
    noise: float = 0.05
    label_contrast: float = 0.5

    def __post_init__(self) -> None:
        for name in ("displacement", "gamma", "bias", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"Synthesis: {name} is at least 0 and finite, got {getattr(self, name)}")
        if not self.scales or min(self.scales) < 2:
            raise ValueError(f"Synthesis: scales are distances of at least 2 voxels, got {self.scales}")
        if not 0 <= self.label_contrast <= 1:
            raise ValueError(f"Synthesis: label_contrast is a share from 0 to 1, got {self.label_contrast}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "scales": list(self.scales)}

    @torch.no_grad()
    def pair(
        self, image: Float[Tensor, "D H W"], labels: Int[Tensor, "D H W"] | None, generator: Generator
    ) -> dict[str, Tensor]:
        """Two volumes of one anatomy, and the velocity between them.

        With a random velocity v, the anatomy x becomes ``x∘exp(-v/2)``, the moving volume, and
        ``x∘exp(v/2)``, the fixed one: both are interpolated alike, and ``exp(v)`` brings the first onto
        the second.

        Parameters
        ----------
        image
            Between 0 and 1.
        labels
            On the same grid.
        generator
            On the CPU.

        Returns
        -------
        dict
            `moving`, `fixed` as a scanner could give them; `moving_target`, `fixed_target`, the same
            without shading and noise and of one contrast; all ``(D, H, W)``. `velocity` ``(3, D, H, W)`` in
            voxels.
        """
        if labels is not None and _uniform(generator) < self.label_contrast:
            moving, fixed, target = (drawn_from_labels(labels, generator).to(image) for _ in range(3))
        else:
            moving = fixed = target = image
        v = random_velocity(image.shape, generator, self.displacement * _uniform(generator), self.scales)
        v = v.to(image)
        there, back = exponential(-0.5 * v), exponential(0.5 * v)
        return {
            "moving": self.degraded(warp(moving, there), generator),
            "fixed": self.degraded(warp(fixed, back), generator),
            "moving_target": warp(target, there),
            "fixed_target": warp(target, back),
            "velocity": v,
        }

    @torch.no_grad()
    def degraded(self, image: Float[Tensor, "D H W"], generator: Generator) -> Float[Tensor, "D H W"]:
        """Another contrast, shading and noise for an image between 0 and 1."""
        gamma = math.exp(self.gamma * (2 * _uniform(generator) - 1))
        shading = self.bias * _uniform(generator)
        field = smooth_noise((1, *image.shape), generator, max(self.scales))[0]
        sigma = self.noise * _uniform(generator)
        noise = torch.randn(image.shape, generator=generator)
        field, noise = (shading * field / field.abs().max().clamp(min=1e-12)).to(image), noise.to(image)
        return image.clamp(min=0) ** gamma * field.exp() + sigma * noise


def _uniform(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))


def smooth_noise(shape: Sequence[int], generator: Generator, scale: float) -> Float[Tensor, "C D H W"]:
    """Gaussian noise that varies over `scale` voxels, float32, without a unit.

    White noise on a grid of a quarter of that spacing, smoothed there, and interpolated.
    """
    coarse = [max(2, math.ceil(_NODES * n / scale) + 1) for n in shape[1:]]
    nodes = torch.randn((shape[0], *coarse), generator=generator)
    nodes = smooth(nodes, (_NODES / 2,) * 3)
    return functional.interpolate(nodes[None], tuple(shape[1:]), mode="trilinear", align_corners=True)[0]


def random_velocity(
    shape: Sequence[int], generator: Generator, largest: float, scales: Sequence[float] = (32.0, 16.0, 8.0)
) -> Float[Tensor, "3 D H W"]:
    """A smooth stationary velocity whose longest vector is `largest` voxels; its exponential has no folds.

    Parameters
    ----------
    shape
        (D, H, W).
    generator
        On the CPU.
    largest
        In voxels.
    scales
        In voxels; see `Synthesis`.
    """
    total = torch.zeros(3, *shape)
    for scale in scales:
        noise = smooth_noise((3, *shape), generator, scale)
        total += math.sqrt(scale) * noise / noise.square().mean().sqrt().clamp(min=1e-12)
    return largest * total / total.square().sum(0).max().sqrt().clamp(min=1e-12)


def drawn_from_labels(labels: Int[Tensor, "D H W"], generator: Generator) -> Float[Tensor, "D H W"]:
    """A brain of random contrast: every label a brightness from 0 to 1, label 0 dark half of the time.

    References
    ----------
    Hoffmann et al., SynthMorph: learning contrast-invariant registration without acquired images, IEEE
    Trans. Med. Imaging 41, 2022, doi:10.1109/TMI.2021.3116879.
    """
    values, place = labels.cpu().unique(return_inverse=True)
    brightness = torch.rand(len(values), generator=generator)
    if _uniform(generator) < 0.5:
        brightness = torch.where(values == 0, 0.0, brightness)
    return smooth(brightness[place][None], (_PARTIAL_VOLUME,) * 3)[0]
