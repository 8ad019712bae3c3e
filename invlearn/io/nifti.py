"""Volumes in NIfTI files, with the affine that says where their voxels lie.

The axes of `data` are those of the file, (i, j, k), and `affine` takes (i, j, k, 1) to millimetres in
RAS (x to the right, y to the front, z upwards): the convention of the format and of nibabel.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.arrays import format_bytes, require_memory
from invlearn.io.damage import DEFLATE, damage_named

SUFFIXES = (".nii", ".nii.gz")
_MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
_SCANNER = 1  # the form's code for a scanner's coordinates
_STORED_AS = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume and where it lies.

    Attributes
    ----------
    data
        The samples, (i, j, k); labels keep their integer dtype.
    affine
        (4, 4), from voxel indices to millimetres, RAS.
    header
        The header of the file it came from (nibabel), whose fields are written back; none is needed.
    note
        What was assumed about its place, where the file left a choice; else empty.

    Raises
    ------
    ValueError
        `affine` is not an invertible (4, 4) matrix of finite numbers.
    """

    data: np.ndarray
    affine: np.ndarray
    header: Any = None
    note: str = ""

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        check_affine(affine, "the affine of a volume")
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.data.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along the three axes, in mm."""
        a, b, c = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return a, b, c

    def like(self, data: np.ndarray) -> Volume:
        """Other samples at the same place, with the same header."""
        return Volume(data, self.affine, self.header, self.note)


def check_affine(affine: np.ndarray, who: str) -> None:
    """Refuse what does not place voxels in space.

    Raises
    ------
    ValueError
        Not (4, 4), not finite, not affine, or singular.
    """
    if affine.shape != (4, 4):
        raise ValueError(f"{who} is a (4, 4) matrix from voxels to mm, got the shape {affine.shape}")
    if not np.isfinite(affine).all():
        raise ValueError(f"{who} has NaN or infinite entries; repair the header of the file")
    if not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise ValueError(f"{who} ends with the row (0, 0, 0, 1), got {tuple(affine[3])}")
    singular = np.linalg.svd(affine[:3, :3], compute_uv=False)
    if singular[-1] <= 1e-6 * singular[0]:
        raise ValueError(
            f"{who} is singular (singular values {singular.round(9).tolist()} mm), so that voxels have "
            "no place in space; repair the header of the file"
        )


def open_nifti(path: str | os.PathLike[str]) -> Any:
    """The file as nibabel sees it, its header read and its samples not yet.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a NIfTI file, or a damaged one.
    """
    import nibabel

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    with damage_named(path, "is no NIfTI file, or a damaged one", "save it again"):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):  # NIfTI-2 derives from it
            raise ValueError(f"{path} is a {type(image).__name__}, not NIfTI; convert it to .nii.gz")
        if not image.shape or min(image.shape) < 1:
            raise ValueError(f"{path} is damaged: its header claims the shape {image.shape}")
        image.header.get_xyzt_units()  # a code that is none raises
    return image


def require_whole(image: Any, path: Path) -> None:
    """Refuse a file that cannot hold the samples its header claims, before there is room for them.

    Raises
    ------
    ValueError
        It ends before they do.
    """
    claimed = math.prod(image.shape) * image.get_data_dtype().itemsize
    file = Path(image.file_map["image"].filename)
    size = file.stat().st_size
    packed = file.suffix in (".gz", ".bz2", ".zst")
    most = size - image.dataobj.offset if not packed else DEFLATE * size if file.suffix == ".gz" else claimed
    if claimed > most:
        raise ValueError(
            f"{path} is truncated or damaged: its header claims {image.shape} samples of "
            f"{image.get_data_dtype()} ({format_bytes(claimed)}), the file has {format_bytes(size)}; copy or "
            "save it again"
        )


def read_samples(image: Any, path: str | os.PathLike[str]) -> np.ndarray:
    """The samples of an opened file: integers as stored unless the header scales them.

    Raises
    ------
    ValueError
        The file ends early, holds colours, or more than there is memory for.
    """
    if image.get_data_dtype().names:
        raise ValueError(f"{path} holds colours ({image.get_data_dtype()}); convert it to one grey channel")
    require_whole(image, Path(path))
    proxy = image.dataobj
    scaled = 8 if (proxy.slope, proxy.inter) != (1, 0) else 0  # nibabel's scaling makes float64
    needed = math.prod(image.shape) * max(scaled, image.get_data_dtype().itemsize)
    require_memory(needed, f"its samples {image.shape}", path)
    with damage_named(path):
        data = np.asanyarray(proxy)
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def read_place(image: Any, path: Path) -> tuple[np.ndarray, str]:
    """The affine in mm, and what had to be assumed for it."""
    header = image.header
    with damage_named(path, "has a damaged header", "repair it, or save the file again"):
        (sform, scode), (qform, qcode) = header.get_sform(coded=True), header.get_qform(coded=True)
    note = ""
    if not scode and not qcode:
        note = "neither sform nor qform is set: only voxel sizes are known, the middle is put at the origin"
    elif scode and qcode:
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape[:3]], [1])).reshape(4, -1)
        apart = np.abs((sform - qform) @ corners).max()
        if not apart < 0.1 * np.min(np.linalg.norm(sform[:3, :3], axis=0)):
            note = f"sform and qform disagree by up to {apart:.3g} (header units): the sform was used"
    affine = np.array(image.affine, dtype=np.float64)
    check_affine(affine, f"the affine of {path}")
    unit = header.get_xyzt_units()[0]
    affine[:3] *= _MILLIMETRES[unit]
    return affine, note


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a three-dimensional volume from `.nii` or `.nii.gz`.

    The sform places it if it is set, else the qform. Lengths that the header declares in metres or
    micrometres become millimetres; an undeclared unit counts as millimetres.

    Parameters
    ----------
    path
        The file. Trailing axes of size one are dropped.

    Returns
    -------
    Volume
        With `note` saying what was assumed when sform and qform disagree or both are missing.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not NIfTI, truncated, not three-dimensional, colours, or an affine that is singular or not finite.
    """
    image = open_nifti(path)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        hint = "pick one volume of the series" if len(shape) > 3 else "a single slice is (X, Y, 1)"
        raise ValueError(f"{path} has {len(shape)} dimensions, {shape}, where a volume has 3; {hint}")
    affine, note = read_place(image, Path(path))
    data = read_samples(image, path).reshape(shape)
    return Volume(data, affine, image.header, note)


def _storable(data: np.ndarray) -> np.ndarray:
    """The same values in a dtype that other programs read."""
    if data.dtype in _STORED_AS:
        return data.astype(_STORED_AS[data.dtype])
    if data.dtype in (np.int64, np.uint64):
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        for dtype in (np.int32, np.uint32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return data.astype(dtype)
        raise ValueError(f"integers from {low} to {high} fit no dtype that NIfTI readers share (32 bits)")
    if data.dtype.kind not in "iufc":
        raise TypeError(f"NIfTI holds numbers, got an array of {data.dtype}")
    return data


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a volume to `.nii` or `.nii.gz`; the same volume gives the same bytes.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    volume
        Booleans are stored as uint8, 64-bit integers as 32-bit ones. Without a header, both sform and
        qform are set (the qform if the affine has no shear) and lengths are declared as mm.

    Raises
    ------
    ValueError
        Another suffix, or integers beyond 32 bits.
    TypeError
        Not numbers.
    """
    import nibabel

    if not str(path).endswith(SUFFIXES):
        raise ValueError(f"{path} ends with neither of {' and '.join(SUFFIXES)}")
    data = _storable(volume.data)
    image = nibabel.Nifti1Image(data, volume.affine, header=volume.header)
    header = image.header
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # a display window of other samples
    known = volume.header is not None and int(volume.header["sform_code"])
    place(image, volume.affine, known or _SCANNER)
    nibabel.save(image, path)


def place(image: Any, affine: np.ndarray, code: int = _SCANNER) -> None:
    """Set both forms of an image's header, and its unit, so that all readers agree on where it lies."""
    image.set_sform(affine, code)
    rotation = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-4):
        image.set_qform(affine, code)
    else:
        image.set_qform(None, 0)  # a quaternion has no shear
    image.header.set_xyzt_units("mm")
