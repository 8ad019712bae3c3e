"""Volumes of a folder or a table, brought onto one grid through world coordinates."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from invlearn.io.nifti import SUFFIXES, Volume, open_nifti, read_place, read_volume
from invlearn.io.tables import read_table
from invlearn.registration.affine import Grid
from invlearn.registration.fields import linear_field, warp
from invlearn.registration.interpolation import inside

LABELS = "labels"  # the folder beside the volumes, and the column of a table
_LEAST_OVERLAP = 0.1  # share of the common grid that a volume must cover
_MEMORY = 2 << 30  # bytes of resampled volumes that are kept


@dataclass(frozen=True)
class Source:
    """The files of one subject."""

    image: Path
    labels: Path | None = None


@dataclass(frozen=True, eq=False)
class CommonGrid:
    """Where all volumes are looked at.

    Attributes
    ----------
    shape
        (D, H, W).
    affine
        (4, 4), from voxels to mm, RAS; its axes are those of the world.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> float:
        """Voxel size in mm, alike along all axes."""
        return float(self.affine[0, 0])

    def agrees(self, volume: Volume) -> bool:
        """Whether a volume lies on it already."""
        return volume.shape == self.shape and np.allclose(volume.affine, self.affine, atol=1e-3)


def find_sources(path: str | os.PathLike[str]) -> list[Source]:
    """Volumes in a folder, with labels of the same name in its folder `labels`; or the rows of a CSV file.

    Parameters
    ----------
    path
        A folder with `.nii` or `.nii.gz` files; or a CSV file with the column `image` and perhaps `labels`,
        of files relative to it.

    Raises
    ------
    FileNotFoundError
        No such folder or table, or a file that it names is not there.
    ValueError
        No volumes; a table without the column `image`; a file that is listed twice; labels for some alone.
    """
    path = Path(path)
    if path.is_dir():
        found = _in_folder(path)
    elif path.is_file():
        found = _in_table(path)
    else:
        raise FileNotFoundError(f"{path} does not exist; give a folder of volumes, or a CSV file of them")
    if not found:
        raise ValueError(f"{path} has no volumes ({' or '.join(SUFFIXES)}): there is nothing to learn from")
    images = [source.image for source in found]
    twice = next((image for k, image in enumerate(images) if image in images[:k]), None)
    if twice is not None:
        raise ValueError(f"{path} names {twice} twice; keep one of them")
    missing = [source.image for source in found if source.labels is None]
    if missing and len(missing) < len(found):
        raise ValueError(
            f"{missing[0]} has no labels, other volumes of {path} have; add them, or leave all out"
        )
    return found


def _in_folder(folder: Path) -> list[Source]:
    images = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and p.is_file())
    beside = folder / LABELS
    return [Source(p, beside / p.name if (beside / p.name).is_file() else None) for p in images]


def _in_table(path: Path) -> list[Source]:
    found = []
    for row in read_table(path).rows:
        image = row.file("image")
        if image is None:
            raise ValueError(f"{row.where}: there is no 'image'; the header is image[,{LABELS}]")
        found.append(Source(image, row.file(LABELS)))
    return found


def common_grid(
    path: str | os.PathLike[str], spacing: float | None = None, shape: Sequence[int] | None = None
) -> CommonGrid:
    """A grid along the world's axes around the middle of a volume.

    Parameters
    ----------
    path
        The volume.
    spacing
        Voxel size in mm; None takes the volume's smallest.
    shape
        (D, H, W); None covers the volume.

    Raises
    ------
    FileNotFoundError, ValueError
        As `invlearn.io.read_volume`; a spacing that is not positive.
    """
    image, sizes = open_nifti(path), checked_sizes(path)
    affine = read_place(image, Path(path))[0]
    edges = affine[:3, :3]
    if spacing is None:
        spacing = float(np.linalg.norm(edges, axis=0).min())
    if not 0 < spacing < math.inf:
        raise ValueError(f"the spacing of the common grid is in mm and positive, got {spacing}")
    extent = np.abs(edges) @ np.array(sizes)
    d, h, w = shape or [max(1, round(float(e) / spacing)) for e in extent]
    middle = edges @ ((np.array(sizes) - 1) / 2) + affine[:3, 3]
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = middle - spacing * (np.array([d, h, w]) - 1) / 2
    return CommonGrid((d, h, w), matrix)


def checked_sizes(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The (D, H, W) of a file, by its header alone.

    Raises
    ------
    FileNotFoundError, ValueError
        Missing, damaged, or not three-dimensional.
    """
    shape = open_nifti(path).shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ValueError(f"{path} has {len(shape)} dimensions, {shape}, where a volume has 3; leave it out")
    return shape


def resampled_image(volume: Volume, grid: CommonGrid, name: str) -> Float[Tensor, "D H W"]:
    """A volume on the grid, float32 between 0 and 1; finer volumes are averaged first.

    Raises
    ------
    ValueError
        NaN or infinite voxels, a constant volume, one that lies elsewhere.
    """
    x = torch.from_numpy(volume.data.astype(np.float32))
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} has NaN or infinite voxels; replace them first")
    if not grid.agrees(volume):
        coarse = Grid(x, volume.affine).coarsened(grid.spacing)
        x = warp(coarse.data, _onto(grid, coarse.affine, coarse.data.shape, name), outside=float(x.min()))
    ordered = x.flatten().sort().values
    low, high = ordered[int(0.002 * (len(ordered) - 1))], ordered[int(0.998 * (len(ordered) - 1))]
    if not high > low:
        low, high = ordered[0], ordered[-1]
    if not high > low:
        raise ValueError(f"{name} is constant on the common grid ({float(low):g}): there is nothing to match")
    return ((x - low) / (high - low)).clamp(0, 1)


def resampled_labels(volume: Volume, grid: CommonGrid, name: str) -> Int[Tensor, "D H W"]:
    """A label map on the grid, the nearest label; int64, 0 outside.

    Raises
    ------
    ValueError
        Labels that are no whole numbers, or lie elsewhere.
    """
    x = torch.from_numpy(np.rint(volume.data).astype(np.int64))
    if not np.array_equal(x.numpy(), volume.data):
        raise ValueError(f"the labels {name} are no whole numbers; save a label map with one label a voxel")
    if grid.agrees(volume):
        return x
    return warp(x, _onto(grid, volume.affine, x.shape, name), "nearest", outside=0).long()


def _onto(grid: CommonGrid, affine: np.ndarray, shape: torch.Size, name: str) -> Float[Tensor, "3 D H W"]:
    """The field that takes the grid's voxels to those of a volume."""
    matrix = np.linalg.inv(affine) @ grid.affine
    field = linear_field(matrix, grid.shape, torch.empty(0))
    if float(inside(field, shape).float().mean()) < _LEAST_OVERLAP:
        raise ValueError(
            f"{name} covers less than a tenth of the common grid; align the volumes' headers, "
            "for example with 'invlearn register --affine rigid --iterations 0'"
        )
    return field


class Collection(Sequence[dict[str, Tensor]]):
    """Volumes on one grid, read when they are first asked for.

    Parameters
    ----------
    sources
        Of `find_sources`.
    grid
        Of `common_grid`.

    Attributes
    ----------
    resampled
        Names of the files that lay on another grid, of those read so far.

    Raises
    ------
    FileNotFoundError, ValueError
        A file that is missing, damaged or not three-dimensional.
    """

    def __init__(self, sources: Sequence[Source], grid: CommonGrid) -> None:
        self.sources, self.grid = list(sources), grid
        for path in itertools.chain(*((source.image, source.labels) for source in self.sources)):
            if path is not None:
                checked_sizes(path)
        self.resampled: list[str] = []
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._most = max(1, _MEMORY // (12 * math.prod(grid.shape)))  # bytes of an image and its labels

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> dict[str, Tensor]:  # type: ignore[override]
        if i in self._kept:
            return self._kept[i]
        source = self.sources[i]
        volume = read_volume(source.image)
        if not self.grid.agrees(volume) and str(source.image) not in self.resampled:
            self.resampled.append(str(source.image))
        found = {"image": resampled_image(volume, self.grid, str(source.image))}
        if source.labels is not None:
            found["labels"] = resampled_labels(read_volume(source.labels), self.grid, str(source.labels))
        if len(self._kept) < self._most:
            self._kept[i] = found
        return found
