"""Means over neighbours that look alike, by features that a network gives every pixel.

    v̄_i = Σ_j w_ij v_j / Σ_j w_ij,   w_ij = exp(b_{j-i} - |g (v_i - v_j)|²/σ_i² - |f_i - f_j|²)

over a square window around i: b, learned, says how much a neighbour at this distance counts, and the rest how
much it is like i: by the values, in units of the noise σ that they are thought to have and times learned
gains g, and by the features f. Each of several values has its own weights, but all values decide: T1 shows
the tissues that T2 is averaged over.

A. Buades, B. Coll, J.-M. Morel, CVPR 2005, doi:10.1109/CVPR.2005.38 (means over what looks alike).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_GAIN = 0.25  # a difference of four standard deviations of the noise counts as large, before training
_REACH = 2.0  # pixels at which a neighbour counts less, before training


class NonLocalMeans(nn.Module):
    """Weighted means over square windows of the last two axes.

    Parameters
    ----------
    values
        V: how many are averaged.
    features
        F: how many decide for each of them.
    radius
        The window reaches this many pixels to each side.

    Raises
    ------
    ValueError
        Counts below 1.
    """

    def __init__(self, values: int, features: int, radius: int) -> None:
        super().__init__()
        if min(values, features, radius) < 1:
            raise ValueError(
                "NonLocalMeans: values, features and radius must be at least 1, got "
                f"{values}, {features} and {radius}"
            )
        self.values, self.features, self.radius = values, features, radius
        steps = range(-radius, radius + 1)
        self.offsets = list(itertools.product(steps, steps))
        nearness = torch.tensor([-(y * y + x * x) / (2 * _REACH**2) for y, x in self.offsets])
        self.log_gain = nn.Parameter(torch.full((values, values), math.log(_GAIN)))
        self.bias = nn.Parameter(nearness.expand(values, -1).clone())

    def forward(self, values: Tensor, noise: Tensor, features: Tensor, seen: Tensor) -> Tensor:
        """The means.

        Parameters
        ----------
        values
            `(V, *image)`.
        noise
            Its standard deviation, for the weights of each value, `(V, *image)`.
        features
            `(V * F, *image)`.
        seen
            Pixels that count, `(*image)` of bool; the others stay as they are.

        Returns
        -------
        Tensor
            `(V, *image)`.
        """
        r, shape = self.radius, values.shape[1:]
        height, width = shape[-2:]
        column = [1] * len(shape)
        gains = self.log_gain.exp().reshape(self.values, self.values, *column)
        looks = features.reshape(self.values, self.features, *shape)
        padded_values, padded_looks, padded_seen = (
            functional.pad(x, [r] * 4) for x in (values, looks, seen[None].to(values.dtype))
        )
        sums, weights = torch.zeros_like(values), torch.zeros_like(values)
        for bias, (y, x) in zip(self.bias.T, self.offsets, strict=True):
            there = (..., slice(r + y, r + y + height), slice(r + x, r + x + width))
            others = padded_values[there]
            unlike = (gains * (others - values)).square().sum(1) / noise.square()
            unlike = unlike + (padded_looks[there] - looks).square().sum(1)
            weight = torch.exp(bias.reshape(-1, *column) - unlike) * padded_seen[there]
            sums, weights = sums + weight * others, weights + weight
        return torch.where(seen, sums / weights.where(seen, torch.ones_like(weights)), values)
