"""Landmarks in CSV files (x, y, z in mm, RAS), and fields as the Learn2Reg challenge reads them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invlearn.io.tables import read_table

_AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points and whatever else their rows say.

    Attributes
    ----------
    points
        (N, 3), mm, RAS.
    columns
        Names of all columns, x, y and z among them.
    rows
        The cells, one sequence a point.
    """

    points: np.ndarray
    columns: Sequence[str] = _AXES
    rows: Sequence[Sequence[str]] = ()


def read_landmarks(path: str | os.PathLike[str]) -> Landmarks:
    """Read a CSV file whose header names x, y and z (mm, RAS), among other columns if you like.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No such header, a row of another length, or a coordinate that is no finite number.
    """
    table = read_table(path)
    if not set(_AXES) <= set(table.columns):
        raise ValueError(
            f"{path} begins with {','.join(table.columns)!r}; its first line must name x,y,z (mm, RAS)"
        )
    points = np.empty((len(table.rows), 3))
    for k, row in enumerate(table.rows):
        try:
            points[k] = [float(row.cells[axis]) for axis in _AXES]
        except ValueError as error:
            raise ValueError(f"{row.where}: {','.join(row.values)!r} has no x, y, z ({error})") from error
    if not np.isfinite(points).all():
        raise ValueError(f"{path} has coordinates that are NaN or infinite; leave these points out")
    return Landmarks(points, table.columns, tuple(row.values for row in table.rows))


def write_landmarks(path: str | os.PathLike[str], landmarks: Landmarks) -> None:
    """Write points (mm, RAS) to a CSV file, their other columns as they were."""
    rows: Sequence[Sequence[str]] = landmarks.rows or [("",) * len(landmarks.columns)] * len(landmarks.points)
    at = [list(landmarks.columns).index(axis) for axis in _AXES]
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(landmarks.columns)
        for point, row in zip(landmarks.points, rows, strict=True):
            cells = list(row)
            for i, value in zip(at, point, strict=True):
                cells[i] = f"{value:.6f}"
            writer.writerow(cells)


def write_learn2reg(path: str | os.PathLike[str], field: np.ndarray) -> None:
    """Write a field as the Learn2Reg challenge reads it: `.npz`, float16, at half resolution.

    Its evaluation enlarges the field by two and gives ``p + u(p)`` in voxels to
    `scipy.ndimage.map_coordinates`. What is stored is the average of every 2 × 2 × 2 voxels.

    Parameters
    ----------
    path
        Ends in `.npz`; the challenge names it `disp_FFFF_MMMM.npz`.
    field
        (3, X, Y, Z) in voxels, as `Registration.voxel_field()` gives it, along the axes of the files.

    Raises
    ------
    ValueError
        Another ending or shape, or displacements beyond float16.
    """
    if not str(path).endswith(".npz"):
        raise ValueError(f"{path} does not end with .npz")
    field = np.asarray(field)
    if field.ndim != 4 or field.shape[0] != 3 or min(field.shape[1:]) < 2:
        raise ValueError(f"a Learn2Reg field is (3, X, Y, Z), at least two voxels wide, got {field.shape}")
    x, y, z = ((n + 1) // 2 for n in field.shape[1:])
    even = np.pad(field, [(0, 0), *((0, n % 2) for n in field.shape[1:])], mode="edge")
    half = even.reshape(3, x, 2, y, 2, z, 2).mean((2, 4, 6))
    if not np.abs(half).max() < np.finfo(np.float16).max:
        raise ValueError("displacements do not fit float16; look for NaN or very large ones")
    np.savez_compressed(path, half.astype(np.float16))
