"""The probabilities of a stack: of one cube, and blended of all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from invlearn.io.stacks import Stack, open_stack
from invlearn.io.voxels import VoxelSize
from invlearn.neuro.cubes import CubeGrid, Slices, is_background, mirrored
from invlearn.neuro.normalise import Normaliser
from invlearn.neuro.pieces import Pieces
from invlearn.neuro.waveunet import WaveUNet3D, load_waveunet
from invlearn.neuro.zoom import Zoom

PRECISIONS = ("float32", "bfloat16")
_BLOCK = 128  # voxels along an axis of what is blended at a time


@dataclass(frozen=True)
class StackFile:
    """A stack on the disk, and what of it.

    Attributes
    ----------
    path
        See `invlearn.io.stacks.open_stack`.
    channel, time
        Counted from 0, where there are several.
    """

    path: Path
    channel: int | None = None
    time: int | None = None

    @property
    def is_zarr(self) -> bool:
        """Whether it is a Zarr store, or an array inside one."""
        return any(part.lower().endswith(".zarr") for part in self.path.parts)

    def open(self, voxel_size: VoxelSize | None = None) -> Stack:
        """The stack; its samples are read when they are needed."""
        return open_stack(self.path, channel=self.channel, time=self.time, voxel_size=voxel_size)


def ready(weights: str | os.PathLike[str] | None, device: str) -> WaveUNet3D:
    """The network of a file, or the one that comes with invlearn, for prediction on a device."""
    return load_waveunet(weights).folded().to(device)


@dataclass(frozen=True)
class Plan:
    """All that decides the probabilities of a stack, given a network.

    Attributes
    ----------
    grid
        The cubes, on the network's grid.
    zoom
        The network's grid over the stack's.
    normaliser
        Of the intensities.
    precision
        Of the network: `"float32"` or `"bfloat16"`.

    Raises
    ------
    ValueError
        Another precision.
    """

    grid: CubeGrid
    zoom: Zoom
    normaliser: Normaliser
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {' or '.join(PRECISIONS)}, got {self.precision!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "shape": list(self.zoom.shape),
            "factors": list(self.zoom.factors),
            "cube": list(self.grid.cube),
            "margin": self.grid.margin,
            "taper": self.grid.taper,
            "normaliser": self.normaliser.to_dict(),
            "precision": self.precision,
        }

    def probability(
        self, stack: Stack, network: WaveUNet3D, number: int
    ) -> Float[np.ndarray, "D H W"] | None:
        """What a cube contributes, from its `low` to its `high` along each axis; None for background.

        Parameters
        ----------
        stack
            Of which the cube is read.
        network
            Of `ready`.
        number
            Of the cube.
        """
        spans = self.grid[number]
        z, y, x = (
            slice(span.start, min(span.stop, n)) for span, n in zip(spans, self.grid.shape, strict=True)
        )
        raw = self.zoom.read(stack, (z, y, x))
        if is_background(raw, self.normaliser):
            return None
        whole = mirrored(self.normaliser(raw), [span.stop - span.start for span in spans])
        given = torch.from_numpy(whole)[None].to(next(network.parameters()).device)
        with (
            torch.inference_mode(),
            torch.autocast(given.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            found = network.probability(given)[0]
        used = tuple(slice(span.low - span.start, span.high - span.start) for span in spans)
        return found[used].cpu().numpy()


@dataclass(frozen=True)
class Job:
    """The cubes of a stack as another process computes them, from files that both see.

    Attributes
    ----------
    file
        The stack.
    weights
        None takes those that come with invlearn.
    plan
        What to do.
    folder
        Of the pieces.
    device
        Of the network.
    """

    file: StackFile
    weights: Path | None
    plan: Plan
    folder: Path
    device: str

    def compute(self, number: int) -> int:
        """Finish a cube, and return its number."""
        stack, network = _opened(self)
        piece = self.plan.probability(stack, network, number)
        Pieces(self.folder, self.plan.grid).write(number, piece)
        return number


@lru_cache(maxsize=1)
def _opened(job: Job) -> tuple[Stack, WaveUNet3D]:
    return job.file.open(), ready(job.weights, job.device)


@dataclass(frozen=True, eq=False)
class Blend:
    """The probability of a whole stack, put together of its pieces where it is asked for.

    Attributes
    ----------
    pieces
        All of them finished.
    zoom
        From their grid to that of the stack.
    threshold
        Probability from which on a voxel is neuron: values are then bool. None leaves probabilities, float32.
    """

    pieces: Pieces
    zoom: Zoom
    threshold: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.zoom.shape

    @property
    def dtype(self) -> np.dtype:
        """float32 or bool."""
        return np.dtype(np.float32 if self.threshold is None else np.bool_)

    def __getitem__(self, box: Slices) -> np.ndarray:
        """A box, by three slices."""
        ranges = [range(n)[part] for n, part in zip(self.shape, box, strict=True)]
        z, y, x = (slice(r.start, r.stop) for r in ranges)
        values = self.zoom.back(self.pieces.read(self.zoom.source((z, y, x))), (z, y, x))
        return values if self.threshold is None else values >= np.float32(self.threshold)

    def blocks(self) -> Iterator[tuple[Slices, np.ndarray]]:
        """All of it, block by block."""
        d, h, w = ([slice(a, min(a + _BLOCK, n)) for a in range(0, n, _BLOCK)] for n in self.shape)
        for z in d:
            for y in h:
                for x in w:
                    yield (z, y, x), self[z, y, x]

    def array(self) -> np.ndarray:
        """All of it, in memory."""
        out = np.empty(self.shape, self.dtype)
        for box, values in self.blocks():
            out[box] = values
        return out
