"""Maps of T1, T2 and proton density: an `.npz`, or a folder of NIfTI files with BIDS names.

Arrays are `(H, W)` or `(D, H, W)`; in NIfTI they become `(W, H, 1)` or `(W, H, D)`, nothing flipped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.arrays import inspect, require_memory
from invlearn.io.damage import damage_named
from invlearn.io.nifti import Volume, read_volume, write_volume
from invlearn.io.runs import write_json

#: Names in a folder (BIDS where it has one) of the maps, by their key in an `.npz`.
NAMES = {"t1": "T1map", "t2": "T2map", "pd": "PDmap", "b1": "TB1map", "b0": "fieldmap", "mask": "mask"}
REQUIRED = ("t1", "t2", "pd")
SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class TissueMaps:
    """What a voxel is made of.

    Attributes
    ----------
    t1, t2
        Relaxation times in s, `(H, W)` or `(D, H, W)`, float64; 0 outside `mask`.
    pd
        Proton density, not negative, in any unit; 0 outside `mask`.
    mask
        Where there is signal; by default where `pd` > 0. Values outside are ignored on input,
        NaN too, and so are voxels of density 0.
    b1
        Actual over nominal flip angle; None for 1.
    b0
        Off-resonance in Hz; None for 0.
    voxel_size
        In mm, in the order of the array's axes; by default 1 mm.

    Raises
    ------
    ValueError
        Shapes that differ, NaN or infinite values in the mask, relaxation times or B1 that are
        not positive, negative densities, T2 above T1, no voxel with signal.
    """

    t1: np.ndarray
    t2: np.ndarray
    pd: np.ndarray
    mask: np.ndarray | None = None
    b1: np.ndarray | None = None
    b0: np.ndarray | None = None
    voxel_size: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.t1)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ValueError(f"maps are (H, W) or (D, H, W), but t1 has the shape {shape}")
        arrays = {name: value for name in NAMES if (value := getattr(self, name)) is not None}
        for name, value in arrays.items():
            if np.shape(value) != shape:
                raise ValueError(f"maps must have one shape: t1 is {shape}, {name} is {np.shape(value)}")
        pd = np.asarray(self.pd, np.float64)
        _finite_in(pd, np.ones(shape, bool) if self.mask is None else _as_mask(self.mask), "pd")
        inside = (pd != 0) if self.mask is None else _as_mask(self.mask) & (pd != 0)
        if not inside.any():
            raise ValueError("the maps hold no voxel with signal: pd is 0 everywhere in the mask")
        object.__setattr__(self, "mask", inside)
        for name in arrays.keys() - {"mask"}:
            values = np.asarray(arrays[name], np.float64)
            _finite_in(values, inside, name)
            outside = 1.0 if name == "b1" else 0.0
            object.__setattr__(self, name, np.where(inside, values, outside))
            if name != "b0":
                _positive_in(values, inside, name)
        _check_order(self.t1, self.t2, inside)
        size = (1.0,) * len(shape) if self.voxel_size is None else tuple(map(float, self.voxel_size))
        if len(size) != len(shape) or not all(0 < s < np.inf for s in size):
            raise ValueError(f"voxel_size is {len(shape)} positive numbers in mm, got {self.voxel_size}")
        object.__setattr__(self, "voxel_size", size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every map."""
        return self.t1.shape

    @property
    def inside(self) -> np.ndarray:
        """The mask, which is always there once the maps are made."""
        assert self.mask is not None
        return self.mask


def _as_mask(mask: Any) -> np.ndarray:
    return np.nan_to_num(np.asarray(mask, np.float64)) != 0


def _where(bad: np.ndarray) -> str:
    """Index of the first voxel, in words."""
    return f"({', '.join(map(str, np.unravel_index(int(bad.argmax()), bad.shape)))})"


def _finite_in(values: np.ndarray, inside: np.ndarray, name: str) -> None:
    bad = inside & ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"{name} is NaN or infinite in {int(bad.sum())} voxels inside the mask, the first at "
            f"{_where(bad)}; exclude them with a mask"
        )


def _positive_in(values: np.ndarray, inside: np.ndarray, name: str) -> None:
    bad = inside & ~(values > 0)
    if bad.any():
        first = values.flat[int(bad.argmax())]
        unit = {"t1": " s", "t2": " s"}.get(name, "")
        raise ValueError(
            f"{name} must be positive where there is signal, it is {first:g}{unit} at {_where(bad)} "
            f"({int(bad.sum())} such voxels); set pd to 0 there or exclude them with a mask"
        )


def _check_order(t1: np.ndarray, t2: np.ndarray, inside: np.ndarray) -> None:
    bad = inside & (t2 > t1)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"T2 is above T1 in {int(bad.sum())} voxels, the first at {_where(bad)} "
            f"(T1 {t1.flat[at]:g} s, T2 {t2.flat[at]:g} s); are the maps swapped, or in different units?"
        )
    if float(np.median(t1[inside])) > 30:
        raise ValueError(
            f"the median T1 is {np.median(t1[inside]):.0f} s; maps are in seconds, these seem to be in ms"
        )


def read_maps(path: str | os.PathLike[str]) -> TissueMaps:
    """Read maps from an `.npz` or a folder of NIfTI files.

    Parameters
    ----------
    path
        An `.npz` with `t1`, `t2` (s), `pd` and optionally `b1`, `b0` (Hz), `mask`; or a folder with
        `T1map.nii.gz`, `T2map.nii.gz`, `PDmap.nii.gz` and optionally `TB1map`, `fieldmap`, `mask`.

    Raises
    ------
    FileNotFoundError
        No such file or folder, or a map is missing from the folder.
    ValueError
        As `TissueMaps`, and damaged files or missing keys.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give an .npz or a folder with T1map.nii.gz")
    found = _read_folder(path) if path.is_dir() else _read_npz(path)
    try:
        return TissueMaps(**found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_npz(path: Path) -> dict[str, Any]:
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: maps are an .npz with t1, t2 (s) and pd, or a folder with T1map.nii.gz")
    infos = inspect(path)
    missing = [name for name in REQUIRED if name not in infos]
    if missing:
        raise ValueError(
            f"{path}: {' and '.join(missing)} missing; found the keys {', '.join(infos)}, "
            "expected t1, t2 (s), pd"
        )
    known = {name: infos[name] for name in NAMES if name in infos}
    require_memory(sum(8 * math.prod(info.shape) for info in known.values()), "the maps", path)
    odd = [name for name, info in known.items() if info.dtype.kind not in "?biuf"]
    if odd:
        raise ValueError(f"{path}: {odd[0]} holds {known[odd[0]].dtype} entries; maps are real numbers")
    with damage_named(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in known}


def find_map(folder: Path, name: str) -> Path | None:
    """The NIfTI file of this name in a folder: itself, or one that ends in `_NAME` as BIDS has it."""
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
        tagged = sorted(folder.glob(f"*_{name}{suffix}"))
        if len(tagged) > 1:
            raise ValueError(f"{folder} holds {len(tagged)} files *_{name}{suffix}; which one is meant?")
        if tagged:
            return tagged[0]
    return None


def _read_folder(folder: Path) -> dict[str, Any]:
    files = {key: path for key, name in NAMES.items() if (path := find_map(folder, name)) is not None}
    missing = [f"{NAMES[key]}.nii.gz" for key in REQUIRED if key not in files]
    if missing:
        raise FileNotFoundError(f"{folder}: {' and '.join(missing)} missing")
    found: dict[str, Any] = {}
    for key, file in files.items():
        found[key], found["voxel_size"] = read_map(file)
    return found


def read_map(path: str | os.PathLike[str]) -> tuple[np.ndarray, tuple[float, ...]]:
    """One map from NIfTI: the array `(H, W)` or `(D, H, W)`, and its voxel size in mm in that order.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_volume`.
    """
    volume = read_volume(path)
    data, size = volume.data.T, volume.spacing[::-1]
    return (data[0], size[1:]) if data.shape[0] == 1 else (data, size)


def read_estimate(folder: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The maps T1, T2 (s) and PD of a folder as they are, whatever their values.

    Raises
    ------
    FileNotFoundError
        No such folder, or a map is missing from it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the one that reconstruct wrote")
    found = _read_folder(folder)
    return found["t1"], found["t2"], found["pd"]


def write_map(path: Path, array: np.ndarray, voxel_size: Sequence[float], unit: str) -> None:
    """Write a map as NIfTI (float32), with its unit in a JSON file beside it.

    Parameters
    ----------
    path
        `NAME.nii.gz`; the JSON file is `NAME.json` with the key `Units`, as BIDS has it.
    array
        `(H, W)` or `(D, H, W)`, real.
    voxel_size
        In mm, in the order of the axes.
    unit
        Such as `s`.

    Raises
    ------
    ValueError
        Another number of axes.
    """
    if array.ndim not in (2, 3):
        raise ValueError(f"a map is (H, W) or (D, H, W), {path.name} has the shape {array.shape}")
    size = tuple(voxel_size) if array.ndim == 3 else (1.0, *voxel_size)
    volume = np.asarray(array, np.float32).reshape((1,) * (3 - array.ndim) + array.shape)
    write_volume(path, Volume(volume.T, np.diag([*size[::-1], 1.0])))
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), {"Units": unit})
