"""Saved transforms applied again: to other channels, label maps and points, in either direction.

A field on a grid says, for every point x (mm, RAS) of it, where its partner lies: x + u(x). Images are pulled
back along it, from the partners onto the grid; points are carried along it, from the grid to the partners.
Points therefore go the other way than images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from invlearn.io.itk import millimetres_to_voxels, points_of, read_field
from invlearn.io.nifti import Volume
from invlearn.registration.fields import warp

FORWARD, INVERSE = "forward_field.nii.gz", "inverse_field.nii.gz"
_STEPS = 100  # of the fixed-point iteration for the inverse, at most
_CLOSE = 1e-4  # mm
_FIT = 20_000  # points that the affine part is fitted to


@dataclass(frozen=True, eq=False)
class Transform:
    """A displacement field and the grid that it lies on.

    Attributes
    ----------
    displacement
        ``(3, D, H, W)``, mm, RAS.
    affine
        (4, 4) of its grid, mm, RAS.
    """

    displacement: Float[np.ndarray, "3 D H W"]
    affine: np.ndarray

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, inverse: bool = False) -> Transform:
        """The transform in a folder that `invlearn register` wrote, or in a field file of ITK or ANTs.

        Parameters
        ----------
        path
            The folder, or the file.
        inverse
            Of a folder the inverse field; of a single file its numerical inverse, on the same grid.

        Raises
        ------
        FileNotFoundError
            Neither a file nor a folder with the fields.
        ValueError
            Not a displacement field.
        """
        path = Path(path)
        if path.is_dir():
            file = path / (INVERSE if inverse else FORWARD)
            if not file.is_file():
                raise FileNotFoundError(f"{path} holds no {file.name}; give the folder of a registration")
            return cls(*read_field(file))
        transform = cls(*read_field(path))
        return transform.inverted() if inverse else transform

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.displacement.shape[1:]

    @cached_property
    def _linear(self) -> np.ndarray:
        """(4, 3): the affine displacement ``[x, 1] @ _linear`` that is nearest to the field."""
        step = max(1, int(np.cbrt(np.prod(self.shape) / _FIT)))
        at = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in self.shape), indexing="ij")).reshape(3, -1)
        x = self._world(at.T)
        values = self.displacement[:, at[0], at[1], at[2]].T.astype(np.float64)
        middle = x.mean(0)  # a volume of one slice has no slope across it: the smallest one is taken
        fit = np.linalg.lstsq(np.c_[x - middle, np.ones(len(x))], values, rcond=1e-9)[0]
        fit[3] -= middle @ fit[:3]
        return fit

    def _world(self, voxels: np.ndarray) -> np.ndarray:
        return voxels @ self.affine[:3, :3].T + self.affine[:3, 3]

    def _voxels(self, points: np.ndarray) -> np.ndarray:
        back = np.linalg.inv(self.affine)
        return points @ back[:3, :3].T + back[:3, 3]

    def covers(self, points: Float[np.ndarray, "N 3"]) -> np.ndarray:
        """Which points (mm, RAS) lie within half a voxel of the grid."""
        at = self._voxels(points)
        return np.all((at >= -0.5) & (at <= np.array(self.shape) - 0.5), axis=1)

    def points(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Carry points along the field: ``x + u(x)``.

        Parameters
        ----------
        points
            (N, 3), mm, RAS. Beyond the grid the field goes on as its affine part plus the nearest rest.

        Returns
        -------
        ndarray
            (N, 3), mm, RAS.
        """
        points = np.asarray(points, np.float64)
        at = self._voxels(points)
        within = np.clip(at, 0, np.array(self.shape) - 1.0)
        moved = np.stack(
            [ndimage.map_coordinates(u, within.T, order=1, mode="nearest") for u in self.displacement]
        )
        return points + moved.T + (points - self._world(within)) @ self._linear[:3]

    def source(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """The points that `points` carries to these: solves ``x + u(x) = y``.

        The fixed-point iteration ``x <- x - d A⁻¹ (x + u(x) - y)`` with the affine part A of the transform;
        d is halved for a point whose residual did not fall.

        Parameters
        ----------
        points
            (N, 3), mm, RAS.

        Returns
        -------
        ndarray
            (N, 3), mm, RAS.

        Raises
        ------
        ValueError
            The affine part cannot be inverted.
        """
        y = np.asarray(points, np.float64)
        linear = np.eye(3) + self._linear[:3]
        if abs(np.linalg.det(linear)) < 1e-6:
            raise ValueError("the field flattens space, and has no inverse; look at how it was made")
        back = np.linalg.inv(linear)
        x = (y - self._linear[3]) @ back
        rest, damping = self.points(x) - y, np.ones((len(y), 1))
        for _ in range(_STEPS):
            if not len(y) or np.abs(rest).max() <= _CLOSE:
                break
            trial = x - damping * (rest @ back)
            new = self.points(trial) - y
            better = (np.square(new).sum(1) < np.square(rest).sum(1))[:, None]
            x, rest = np.where(better, trial, x), np.where(better, new, rest)
            damping = np.where(better, np.minimum(1, 1.5 * damping), damping / 2)
        return x

    def inverted(self) -> Transform:
        """The inverse, on the same grid."""
        grid = points_of(self.affine, self.shape).reshape(3, -1).T
        back = (self.source(grid) - grid).T.reshape(3, *self.shape)
        return Transform(back.astype(np.float32), self.affine)

    def reaches(self, volume: Volume) -> bool:
        """Whether any point of the grid has its partner in a volume."""
        at = np.indices(self.shape) + millimetres_to_voxels(self.displacement, self.affine, volume.affine)
        within = [(x >= -0.5) & (x <= n - 0.5) for x, n in zip(at, volume.shape, strict=True)]
        return bool(np.logical_and.reduce(within).any())

    def image(self, volume: Volume, mode: str = "linear") -> Volume:
        """A volume where the partners lie, on any grid, pulled back onto the grid of the field.

        Parameters
        ----------
        volume
            An image, or a label map of integers.
        mode
            `linear`, `nearest`, `cubic` or `labels`; see `invlearn.registration.warp`.

        Returns
        -------
        Volume
            On the grid of the field, zero where the volume does not reach. `nearest` and `labels` keep the
            dtype; else float32, or float64 where that overflows.

        Raises
        ------
        TypeError
            Complex samples.
        """
        if volume.data.dtype.kind not in "iufb":
            raise TypeError(
                f"real numbers are warped, got a volume of {volume.data.dtype}; warp its real and its "
                "imaginary part"
            )
        field = millimetres_to_voxels(self.displacement, self.affine, volume.affine)
        keeps = mode in ("nearest", "labels")
        data = volume.data.astype(
            np.int64 if keeps and volume.data.dtype.kind in "iub" else _floating(volume)
        )
        result = warp(data, field.astype(np.float32), mode, outside=0)
        return Volume(result.astype(volume.data.dtype) if keeps else result, self.affine)


def _floating(volume: Volume) -> type[np.floating]:
    """The floating-point type that holds the finite samples of a volume."""
    data = volume.data
    if data.dtype.kind != "f" or data.dtype.itemsize <= 4:
        return np.float32
    largest = np.abs(data, where=np.isfinite(data), out=np.zeros(data.shape, data.dtype)).max(initial=0)
    return np.float32 if largest <= np.finfo(np.float32).max else np.float64


def as_labels(volume: Volume, name: str) -> Volume:
    """A label map with an integer dtype: whole numbers stored as floating point become int32.

    Raises
    ------
    ValueError
        Not three-dimensional, or values that are no whole numbers.
    """
    data = volume.data
    if data.ndim != 3:
        raise ValueError(f"{name} has {data.ndim} dimensions, {data.shape}, where a label map has 3")
    if data.dtype.kind in "iu":
        return volume
    if data.dtype.kind == "b":
        return volume.like(data.astype(np.uint8))
    if data.dtype.kind != "f" or not (np.isfinite(data).all() and (data == np.round(data)).all()):
        raise ValueError(f"{name} holds {data.dtype} values that are no whole numbers, so they are no labels")
    if np.abs(data).max(initial=0) > np.iinfo(np.int32).max:
        raise ValueError(f"{name} holds labels beyond 32 bits; number them anew")
    return volume.like(data.astype(np.int32))


def same_grid(volume: Volume, other: Volume, what: str) -> None:
    """Refuse two volumes that do not lie on one grid.

    Raises
    ------
    ValueError
        `what` says which.
    """
    if volume.shape != other.shape or not np.allclose(volume.affine, other.affine, atol=1e-3):
        raise ValueError(
            f"{what} lie on different grids ({volume.shape} and {other.shape}"
            f"{', at different places' if volume.shape == other.shape else ''}); resample the labels to it"
        )
