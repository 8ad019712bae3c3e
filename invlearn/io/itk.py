"""Transforms as ITK and ANTs write them: displacement fields and affine text files, in LPS millimetres.

In memory fields are in voxels, ``(3, D, H, W)``, and world matrices in RAS millimetres; the turn to LPS
(both first axes change sign) happens here alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from invlearn.io.nifti import SUFFIXES, check_affine, open_nifti, place, read_place, read_samples

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_VECTOR = "vector"  # intent 1007; with 1006, "displacement", ITK reads scalars
_AFFINE_KINDS = (
    "AffineTransform_double_3_3",
    "MatrixOffsetTransformBase_double_3_3",
    "AffineTransform_float_3_3",
)


def points_of(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where the voxels of a grid lie: (3, D, H, W), mm, RAS."""
    grid = np.indices(shape, dtype=np.float64).reshape(3, -1)
    return (affine[:3, :3] @ grid + affine[:3, 3:]).reshape(3, *shape)


def voxels_to_millimetres(
    field: np.ndarray, fixed_affine: np.ndarray, moving_affine: np.ndarray | None = None
) -> np.ndarray:
    """Displacements in mm, RAS, of a field in voxels.

    Parameters
    ----------
    field
        (3, D, H, W): from a voxel p of the fixed grid to the voxel ``p + field(p)`` of the moving grid.
    fixed_affine
        (4, 4), mm, RAS.
    moving_affine
        (4, 4) of the other grid; None: the same grid.

    Returns
    -------
    ndarray
        (3, D, H, W), from fixed points to moving points.
    """
    if moving_affine is None:
        return np.einsum("ij,jdhw->idhw", fixed_affine[:3, :3], field)
    found = np.einsum("ij,jdhw->idhw", moving_affine[:3, :3], field.astype(np.float64, copy=False))
    apart = moving_affine - fixed_affine  # grids of all points would take several times the room
    found += apart[:3, 3].reshape(3, 1, 1, 1)
    for axis, n in enumerate(field.shape[1:]):
        at = np.arange(n, dtype=np.float64).reshape([n if k == axis else 1 for k in range(3)])
        for row, slope in zip(found, apart[:3, axis], strict=True):
            row += slope * at
    return found


def millimetres_to_voxels(
    displacement: np.ndarray, fixed_affine: np.ndarray, moving_affine: np.ndarray | None = None
) -> np.ndarray:
    """The inverse of `voxels_to_millimetres`: a field in voxels, (3, D, H, W).

    Parameters
    ----------
    displacement
        (3, D, H, W), mm, RAS, on the fixed grid.
    fixed_affine
        (4, 4), mm, RAS.
    moving_affine
        (4, 4) of the other grid; None: the same grid.
    """
    other = fixed_affine if moving_affine is None else moving_affine
    back = np.linalg.inv(other)
    if moving_affine is None:
        return np.einsum("ij,jdhw->idhw", back[:3, :3], displacement)
    shape = displacement.shape[1:]
    at = points_of(fixed_affine, shape) + displacement
    voxels = np.einsum("ij,jdhw->idhw", back[:3, :3], at) + back[:3, 3].reshape(3, 1, 1, 1)
    return voxels - np.indices(shape)


def write_field(path: str | os.PathLike[str], displacement: np.ndarray, affine: np.ndarray) -> None:
    """Write a displacement field that SimpleITK, ITK and ANTs read: 5-D, intent 1007, LPS.

    Parameters
    ----------
    path
        `.nii` or `.nii.gz`.
    displacement
        (3, D, H, W), mm, RAS: what takes a point of the grid to its partner.
    affine
        (4, 4) of the grid, mm, RAS.

    Raises
    ------
    ValueError
        Another shape or suffix.
    """
    import nibabel

    if not str(path).endswith(SUFFIXES):
        raise ValueError(f"{path} ends with neither of {' and '.join(SUFFIXES)}")
    if displacement.ndim != 4 or displacement.shape[0] != 3:
        raise ValueError(f"a displacement field is (3, D, H, W), got {displacement.shape}")
    turned = np.empty((*displacement.shape[1:], 1, 3), np.float32)
    for axis in range(3):
        turned[..., 0, axis] = _LPS[axis, axis] * displacement[axis]
    image = nibabel.Nifti1Image(turned, affine)
    image.header.set_intent(_VECTOR)
    place(image, affine)
    nibabel.save(image, path)


def read_field(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read an ITK or ANTs displacement field.

    Parameters
    ----------
    path
        A 5-D NIfTI file, (X, Y, Z, 1, 3), LPS mm.

    Returns
    -------
    tuple
        The displacement (3, D, H, W) in mm, RAS, float32, and the affine (4, 4) of its grid.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not such a field, or a damaged file.
    """
    image = open_nifti(path)
    if len(image.shape) != 5 or image.shape[3:] != (1, 3):
        raise ValueError(
            f"{path} has the shape {image.shape}, where a displacement field is (X, Y, Z, 1, 3); a volume "
            "is no transform"
        )
    if int(image.header["intent_code"]) == 1006:
        raise ValueError(
            f"{path} has intent 1006 (relative warp of another program, in RAS or its own axes); write it "
            "as an ITK field, intent 1007"
        )
    affine, _ = read_place(image, Path(path))
    data = read_samples(image, path).astype(np.float32)[..., 0, :]
    if not np.isfinite(data).all():
        raise ValueError(f"{path} has NaN or infinite displacements; write it again")
    return np.ascontiguousarray(
        np.moveaxis(data, -1, 0) * np.diag(_LPS)[:3].reshape(3, 1, 1, 1).astype("f4")
    ), affine


def write_affine(path: str | os.PathLike[str], matrix: np.ndarray) -> None:
    """Write a world map as an ITK text file, which SimpleITK and ANTs apply.

    Parameters
    ----------
    path
        A text file.
    matrix
        (4, 4), RAS mm, from fixed points to moving points.

    Raises
    ------
    ValueError
        Not an invertible affine matrix.
    """
    check_affine(np.asarray(matrix, float), "an affine map")
    lps = _LPS @ matrix @ _LPS
    numbers = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    Path(path).write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        f"Transform: {_AFFINE_KINDS[0]}\nParameters: {numbers}\nFixedParameters: 0 0 0\n",
        encoding="utf-8",
    )


def read_affine(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an affine map from an ITK text file.

    Parameters
    ----------
    path
        A text file with one affine transform.

    Returns
    -------
    ndarray
        (4, 4), RAS mm, from fixed points to moving points.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not such a file, or another kind of transform.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    try:
        lines = [line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line]
        entries = {key.strip(): value.split() for key, value in lines}
        kind = entries["Transform"][0]
        numbers = np.array(entries["Parameters"], float)
        centre = np.array(entries["FixedParameters"], float)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is no ITK transform file; write the affine as ITK text") from error
    if kind not in _AFFINE_KINDS or numbers.size != 12 or centre.size != 3 or len(lines) != 3:
        raise ValueError(f"{path} holds a {kind}, where one three-dimensional affine transform is needed")
    lps = np.eye(4)
    lps[:3, :3] = numbers[:9].reshape(3, 3)
    lps[:3, 3] = numbers[9:] + centre - lps[:3, :3] @ centre
    check_affine(lps, f"the affine in {path}")
    return _LPS @ lps @ _LPS
