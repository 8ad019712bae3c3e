"""Digits of 28 × 28 pixels in 0 ... 1, for the studies of learning without ground truth.

MNIST through the environment variable INVLEARN_DATA; drawn seven-segment digits without it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invlearn.training import Settings

SHAPE = (28, 28)


def digits(train: int, test: int) -> tuple[str, Tensor, Tensor]:
    """Return where the digits are from, then `(train, 28, 28)` and `(test, 28, 28)`."""
    generator = np.random.default_rng(0)
    path = Path(os.environ.get("INVLEARN_DATA", "")) / "images" / "mnist_5k.csv.gz"
    if "INVLEARN_DATA" in os.environ and path.exists():
        x = np.loadtxt(path, delimiter=",", dtype=np.float32)[:, :-1].reshape(-1, *SHAPE) / 255
        x, origin = x[generator.permutation(len(x))[: train + test]], "MNIST, 5,000 digits"
    else:
        x, origin = np.stack([drawn(generator) for _ in range(train + test)]), "drawn seven-segment digits"
    if len(x) < train + test:
        raise SystemExit(f"there are {len(x)} digits, fewer than {train + test}")
    return origin, torch.from_numpy(x[:train]), torch.from_numpy(x[train:])


def drawn(generator: np.random.Generator) -> np.ndarray:
    """One seven-segment digit of random place, slant and width."""
    ends = np.array(
        [[0, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 2], [0, 2, 1, 2], [0, 1, 0, 2], [0, 0, 0, 1], [0, 1, 1, 1]]
    )
    lit = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
    x0, y0, slant, width = generator.uniform((8, 4, -0.2, 0.8), (11, 7, 0.2, 1.6))
    rows, columns = np.mgrid[:28, :28]
    distance = np.full(SHAPE, np.inf)
    for segment in lit[generator.integers(10)]:
        xa, ya, xb, yb = ends["abcdefg".index(segment)] * 8.0
        xa, xb, ya, yb = x0 + xa - slant * ya, x0 + xb - slant * yb, y0 + ya, y0 + yb
        along = ((columns - xa) * (xb - xa) + (rows - ya) * (yb - ya)) / ((xb - xa) ** 2 + (yb - ya) ** 2)
        along = along.clip(0, 1)
        distance = np.minimum(
            distance, np.hypot(columns - xa - along * (xb - xa), rows - ya - along * (yb - ya))
        )
    return (1 / (1 + np.exp(2 * (distance - width)))).astype(np.float32)


def psnr(x: Tensor, truth: Tensor) -> float:
    """The mean over images of the peak signal-to-noise ratio in dB, for a peak of 1."""
    error = (x - truth).square().mean((-2, -1)).clamp(min=1e-12)
    return float((-10 * error.log10()).mean())


def settings(batch: int, rate: float, seed: int = 0) -> Settings:
    """Return how all networks of the studies are trained."""
    return Settings(
        batch_size=batch,
        learning_rate=rate,
        schedule="cosine",
        seed=seed,
        accelerator="cpu",
        progress=False,
    )
