"""The voxels of a mask as a sorted list, so that work and memory grow with the neuron, not with the stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.ndimage import label
from scipy.spatial import cKDTree

from invlearn.io.voxels import VoxelSize, checked_voxel_size
from invlearn.neuro.cavities import without_cavities

_SLAB = 1 << 25  # voxels looked at together
_BLOCK = 32  # voxels along an axis of a block
_SIDES = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])


class Volume:
    """A mask or a probability behind one reading interface.

    Parameters
    ----------
    source
        (D, H, W): bool, integers (not 0: foreground), or probabilities; an array, a tensor, or anything with
        a shape whose slices are arrays, so that it need not fit in memory.
    threshold
        Probability from which on a voxel is foreground.
    """

    def __init__(self, source: Any, threshold: float | int) -> None:
        if hasattr(source, "detach"):
            source = source.detach().cpu().numpy()
        elif not hasattr(source, "shape"):
            source = np.asarray(source)
        if len(source.shape) != 3:
            raise ValueError(
                f"a tracing needs a volume (z, y, x), got the shape {tuple(source.shape)}; choose one "
                "channel and time point"
            )
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold is a probability above 0 and at most 1, got {threshold}")
        self.source, self.threshold = source, threshold
        self.shape: tuple[int, int, int] = tuple(int(n) for n in source.shape)  # type: ignore[assignment]

    def read(self, low: Sequence[int] | np.ndarray, high: Sequence[int] | np.ndarray) -> np.ndarray:
        """Certainty between 0 and 1, float32, of a box: 0 or 1 for masks.

        Raises
        ------
        ValueError
            Numbers that are no probabilities.
        """
        part = np.asarray(self.source[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
        if part.dtype.kind in "bui":
            return (part != 0).astype(np.float32)
        if part.dtype.kind != "f":
            raise ValueError(f"a mask holds numbers, got {part.dtype}")
        part = part.astype(np.float32, copy=False)
        if part.size and not (part.min() >= 0 and part.max() <= 1):
            what = "NaN" if np.isnan(part).any() else f"values from {part.min():g} to {part.max():g}"
            raise ValueError(
                f"probabilities lie between 0 and 1, and the volume has {what}; segment a raw stack first, "
                "or give a mask of whole numbers"
            )
        return part


@dataclass(frozen=True)
class Foreground:
    """Voxels at or above the threshold.

    Attributes
    ----------
    voxels
        (N, 3), int64, in the order of the volume.
    certainty
        (N,), float32: the probability, 1 in a mask.
    shape
        Of the volume.
    voxel_size
        (z, y, x), µm.
    """

    voxels: np.ndarray
    certainty: np.ndarray
    shape: tuple[int, int, int]
    voxel_size: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    def keys(self, voxels: np.ndarray) -> np.ndarray:
        """One number a voxel, increasing in the order of the volume, also one voxel beyond its border."""
        _, height, width = (n + 2 for n in self.shape)
        return ((voxels[:, 0] + 1) * height + voxels[:, 1] + 1) * width + voxels[:, 2] + 1

    @cached_property
    def _sorted(self) -> np.ndarray:
        return self.keys(self.voxels)

    def find(self, voxels: np.ndarray) -> np.ndarray:
        """Where voxels stand in the list, -1 for background."""
        wanted = self.keys(voxels)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self) - 1)
        return np.where(self._sorted[place] == wanted, place, -1)

    def filled(self) -> Foreground:
        """With its closed cavities, such as dark nuclei; they get the lowest certainty that there is."""
        inside = [np.argwhere(without_cavities(box) & ~box) + low for box, low in self.parts()]
        voxels = np.concatenate([self.voxels, *inside])
        certainty = np.full(len(voxels), self.certainty.min())
        certainty[: len(self)] = self.certainty
        order = np.argsort(self.keys(voxels), kind="stable")
        return replace(self, voxels=voxels[order], certainty=certainty[order])

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The smallest box as a mask, and its first voxel, of each part far away from all others.

        Parts have a block of background between them, so that no box is larger than what it holds asks for.
        """
        blocks = tuple((self.voxels // _BLOCK).T)
        occupied = np.zeros([-(-n // _BLOCK) for n in self.shape], dtype=bool)
        occupied[blocks] = True
        part = label(occupied, np.ones((3, 3, 3)))[0][blocks]
        ends = np.cumsum(np.bincount(part)[1:])
        for voxels in np.split(self.voxels[np.argsort(part, kind="stable")], ends[:-1]):
            low, high = voxels.min(axis=0), voxels.max(axis=0)
            box = np.zeros(high - low + 1, dtype=bool)
            box[tuple((voxels - low).T)] = True
            yield box, low

    @cached_property
    def _shell(self) -> cKDTree:
        """The background beside the foreground, µm."""
        around = np.concatenate([self.voxels + side for side in _SIDES])
        around = around[((around >= 0) & (around < self.shape)).all(axis=1)]
        around = around[self.find(around) < 0]
        if not len(around):
            raise ValueError(
                "the whole volume is foreground: this is no mask of a neuron (raise the threshold?)"
            )
        return cKDTree(around * self.voxel_size)

    def radius(self, voxels: np.ndarray) -> np.ndarray:
        """Distance from voxels of the foreground to its surface, µm.

        With d the distance to the nearest voxel of the background, and h the side of a voxel that way, the
        radius is ``sqrt(d² - h² / 2)``, nearly that of the disc with as many pixels. The nearest voxel of
        the background has a neighbour in the foreground, so these are enough to look at. What is beyond the
        border of the volume is not background.
        """
        distance, nearest = self._shell.query(voxels * self.voxel_size)
        away = (self._shell.data[nearest] - voxels * self.voxel_size) / np.maximum(distance, 1e-12)[:, None]
        side = np.linalg.norm(away * self.voxel_size, axis=1)
        return np.sqrt(np.maximum(distance**2 - 0.5 * side**2, 0.25 * side**2))


def gather(volume: Volume, voxel_size: VoxelSize) -> Foreground:
    """The foreground of a volume, read a few slices at a time.

    Raises
    ------
    ValueError
        No foreground, or numbers that are no probabilities.
    """
    size = checked_voxel_size(voxel_size)
    depth, height, width = volume.shape
    step = max(1, _SLAB // max(1, height * width))
    voxels, certainty = [], []
    for start in range(0, depth, step):
        part = volume.read((start, 0, 0), (min(start + step, depth), height, width))
        found = np.argwhere(part >= volume.threshold)
        voxels.append(found + np.array((start, 0, 0)))
        certainty.append(part[tuple(found.T)])
    if not sum(map(len, voxels)):
        raise ValueError(
            "there is no foreground to trace: the mask is empty, or no probability reaches the threshold "
            f"{volume.threshold:g}"
        )
    return Foreground(np.concatenate(voxels), np.concatenate(certainty), volume.shape, size)
