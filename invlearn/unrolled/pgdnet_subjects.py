"""Who is scanned to train PGD-Net: drawn heads, pieces of given maps, planes of given labels."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from invlearn.io.maps import TissueMaps, read_maps
from invlearn.physics.mri.fingerprint.anatomy import Tissue, deformed, head_labels, tissue_maps

#: Maps of somebody: from a generator and a shape.
Anatomy = Callable[[np.random.Generator, tuple[int, int]], TissueMaps]


TEXTURE = 0.03  # of `tissue_maps`


def synthetic(b1: float = 0.0, texture: float = TEXTURE) -> Anatomy:
    """Drawn heads; a share `b1` of them with a B1 map; `texture` as for `tissue_maps`."""

    def anatomy(rng: np.random.Generator, shape: tuple[int, int]) -> TissueMaps:
        finer = int(rng.choice([2, 3]))
        labels = head_labels((finer * shape[0], finer * shape[1]), rng, pixel=1 / finer)
        return tissue_maps(labels, rng, finer=finer, texture=texture, b1=bool(rng.random() < b1))

    return anatomy


def of_labels(
    labels: np.ndarray, tissues: Mapping[int, Tissue], *, b1: float = 0.0, texture: float = TEXTURE
) -> Anatomy:
    """Random planes of a label volume, deformed, with tissues drawn anew for each scan.

    Parameters
    ----------
    labels
        `(planes, H, W)` integers, 0 where there is nothing.
    tissues
        What the labels may be made of.
    b1
        Share of scans with a B1 map.
    texture
        As for `tissue_maps`.

    Raises
    ------
    ValueError
        Another number of axes, nothing but 0.
    """
    if labels.ndim != 3 or not labels.any():
        raise ValueError(f"of_labels takes labels (planes, H, W) that are not all 0, got {labels.shape}")
    filled = np.flatnonzero(labels.any((1, 2)))

    def anatomy(rng: np.random.Generator, shape: tuple[int, int]) -> TissueMaps:
        plane = labels[int(rng.choice(filled))]
        rows, columns = np.nonzero(plane)
        at = int(rng.integers(len(rows)))
        piece = _window(plane, np.array([rows[at], columns[at]]), shape)
        fine = deformed(piece.repeat(2, 0).repeat(2, 1), rng)
        if not fine.any():
            return anatomy(rng, shape)
        return tissue_maps(fine, rng, tissues=tissues, texture=texture, b1=bool(rng.random() < b1))

    return anatomy


def one_of(*anatomies: Anatomy) -> Anatomy:
    """Any of several kinds, with equal chances."""
    return lambda rng, shape: anatomies[int(rng.integers(len(anatomies)))](rng, shape)


def find_maps(folder: str | os.PathLike[str]) -> list[Path]:
    """The `.npz` files and folders of NIfTI maps in a folder, in order.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        Nothing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give one with maps to learn from")
    found = sorted(
        p for p in folder.iterdir() if p.suffix == ".npz" or (p.is_dir() and any(p.glob("*T1map.nii*")))
    )
    if not found:
        raise ValueError(
            f"{folder} holds no maps: nothing to learn from; put .npz files with t1, t2 (s), pd there, or "
            "folders with T1map.nii.gz, T2map.nii.gz, PDmap.nii.gz"
        )
    return found


def of_maps(paths: list[Path]) -> Anatomy:
    """A random piece of random maps, turned, flipped, with all T1 and all T2 a little longer or shorter."""
    maps = [read_maps(path) for path in paths]

    def anatomy(rng: np.random.Generator, shape: tuple[int, int]) -> TissueMaps:
        chosen = maps[int(rng.integers(len(maps)))]
        arrays = {n: v for n in ("t1", "t2", "pd", "b1") if (v := getattr(chosen, n)) is not None}
        if len(chosen.shape) == 3:
            filled = np.flatnonzero(chosen.inside.any((1, 2)))
            plane = int(rng.choice(filled))
            arrays = {n: v[plane] for n, v in arrays.items()}
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        arrays = {n: np.rot90(v[:, ::-1] if flip else v, turn) for n, v in arrays.items()}
        rows, columns = np.nonzero(arrays["pd"])
        at = int(rng.integers(len(rows)))
        middle = np.array([rows[at], columns[at]]) + rng.uniform(-0.25, 0.25, 2) * shape
        arrays = {n: _window(v, middle, shape) for n, v in arrays.items()}
        if not arrays["pd"].any():
            return anatomy(rng, shape)
        t1, t2 = (arrays[n] * math.exp(rng.uniform(-0.15, 0.15)) for n in ("t1", "t2"))
        return TissueMaps(t1, np.minimum(t1, t2), arrays["pd"], b1=arrays.get("b1"))

    return anatomy


def _window(values: np.ndarray, middle: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A piece of this shape around `middle`; all of it, with zeros around, along axes that are shorter."""
    for axis, (n, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        if n <= wanted:
            before = (wanted - n) // 2
            padding = [(0, 0)] * axis + [(before, wanted - n - before)] + [(0, 0)] * (1 - axis)
            values = np.pad(values, padding)
        else:
            first = int(np.clip(middle[axis] - wanted / 2, 0, n - wanted))
            values = values.take(range(first, first + wanted), axis)
    return values
