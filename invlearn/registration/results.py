"""What a registration leaves behind: its numbers, and the files that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.itk import write_affine, write_field
from invlearn.io.nifti import Volume, write_volume
from invlearn.registration import metrics
from invlearn.registration.pair import Registration
from invlearn.registration.transform import FORWARD, INVERSE, Transform, as_labels, same_grid

FILES = ("warped.nii.gz", FORWARD, INVERSE, "affine.txt", "jacobian.nii.gz")


def by_header(fixed: Volume, moving: Volume, mode: str = "linear") -> Volume:
    """The moving volume on the fixed grid, through the headers alone: how things were before."""
    identity = Transform(np.zeros((3, *fixed.shape), np.float32), fixed.affine)
    return fixed.like(identity.image(moving, mode).data)


def checked_labels(fixed: Volume, moving: Volume, labels: tuple[Volume, Volume]) -> tuple[Volume, Volume]:
    """Label maps of the fixed and the moving volume, as integers.

    Raises
    ------
    ValueError
        Labels on another grid than their image, or that are no whole numbers.
    """
    ours, theirs = (
        as_labels(x, f"the {name} label map") for x, name in zip(labels, ("fixed", "moving"), strict=True)
    )
    same_grid(fixed, ours, "the fixed volume and its labels")
    same_grid(moving, theirs, "the moving volume and its labels")
    return ours, theirs


def _summary(values: Mapping[int, float]) -> dict[str, float | None]:
    """`mean` and each label; None where there is no number."""
    known = [v for v in values.values() if np.isfinite(v)]
    mean = float(np.mean(known)) if known else None
    return {"mean": mean, **{str(k): float(v) if np.isfinite(v) else None for k, v in values.items()}}


def overlap(result: Registration, labels: tuple[Volume, Volume]) -> dict[str, dict[str, float | None]]:
    """Dice before (by the headers alone) and after, and the surface distance after, of every label.

    Parameters
    ----------
    result
        A registration.
    labels
        Label maps of the fixed and of the moving volume, each on the grid of its image.

    Returns
    -------
    dict
        `dice_before`, `dice_after`, `hd95_mm`: each `mean` and one number a label; None where a label is
        absent from one of the maps, and no distance exists.
    """
    fixed, moving = checked_labels(result.fixed, result.moving, labels)
    moving = moving.like(moving.data.astype(np.int64))  # unsigned dtypes of 16 bits and more cannot be warped
    before, after = by_header(fixed, moving, "labels").data, result.warp(moving, "labels").data
    known = sorted({int(k) for x in (fixed, moving) for k in np.unique(x.data)} - {0})
    return {
        "dice_before": _summary(metrics.dice(fixed.data, before, known)),
        "dice_after": _summary(metrics.dice(fixed.data, after, known)),
        "hd95_mm": _summary(metrics.hd95(fixed.data, after, fixed.spacing, known)),
    }


def measure(result: Registration, labels: tuple[Volume, Volume] | None = None) -> dict[str, Any]:
    """The numbers of `metrics.json`; those of labels are None without labels."""
    known = ("dice_before", "dice_after", "hd95_mm")
    name, before, after = result.similarity
    return {
        **(dict.fromkeys(known) if labels is None else overlap(result, labels)),
        "folding_percent": result.folding_percent,
        "sd_log_jacobian": result.sd_log_jacobian,
        "inverse_consistency_mm": result.inverse_consistency_mm,
        "similarity": {"name": name, "before": before, "after": after},
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
    }


def write_results(folder: Path, result: Registration) -> None:
    """The warped volume, the fields of both directions, the affine and |J| into a folder."""
    write_volume(folder / FILES[0], result.warped)
    write_field(folder / FORWARD, result.forward_field(), result.fixed.affine)
    write_field(folder / INVERSE, result.inverse_field(), result.moving.affine)
    write_affine(folder / "affine.txt", result.affine)
    write_volume(folder / "jacobian.nii.gz", result.fixed.like(result.jacobian().astype(np.float32)))
