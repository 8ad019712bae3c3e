"""The tour's registration job: an average brain, bent in a known way, dimmed, and brought back."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from invlearn.cli.options import Settings
from invlearn.io.nifti import Volume
from invlearn.io.runs import Run
from invlearn.reports.page import Block, Code, Section, Table, Text

INPUTS = "inputs"
FIXED, MOVING, OUT = "brain.nii.gz", "bent_brain.nii.gz", "brought_back"
VOXEL = 2  # mm
LARGEST = 7.0  # mm: of the smooth deformation
REACH = 16.0  # mm: standard deviation of what it was smoothed with
TURN, SHIFT, GROWTH = 6.0, (6.0, -4.0, 5.0), (1.04, 0.97, 1.02)  # degrees, mm, factors
GAMMA, SHADE, NOISE = 0.6, 0.3, 0.02  # contrast curve, gain from side to side, noise over the range


def brain() -> tuple[Volume, str]:
    """A head and where it comes from."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of third parties, at import
            from nilearn.datasets import load_mni152_template

            image = load_mni152_template(resolution=VOXEL)
    except ImportError:
        return drawn(), "a drawn phantom (with nilearn installed: the average of 152 brains)"
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(data / data.max(), np.asarray(image.affine)), "the average of 152 brains (MNI152)"


def drawn(shape: tuple[int, int, int] = (72, 88, 72)) -> Volume:
    """Nested, folded ellipsoids with two cavities."""
    axes = [np.linspace(-1.15, 1.15, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    folds = 0.05 * np.cos(9 * np.arctan2(y, x) + 3 * z) * np.cos(7 * z)
    cavity = np.sqrt((3.5 * (np.abs(x) - 0.2)) ** 2 + (1.8 * y) ** 2 + (3 * z) ** 2) < 0.8
    levels = 0.6 * (radius < 0.95) + 0.4 * (radius < 0.75 + folds)
    data = ndimage.gaussian_filter(np.where(cavity, 0.15, levels), 0.7)
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(shape) - 1) / 2
    return Volume(data.astype(np.float32), affine)


def smooth_field(shape: tuple[int, ...], voxel: float, seed: int) -> np.ndarray:
    """A random smooth displacement (3, D, H, W) in mm, at most `LARGEST` long, none at the border."""
    rng = np.random.default_rng(seed)
    u = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), REACH / voxel) for _ in range(3)])
    for axis, n in enumerate(shape):
        edge = np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) * voxel / (2 * REACH), 0, 1)
        u *= (edge**2 * (3 - 2 * edge)).reshape([-1 if k == axis else 1 for k in range(3)])
    return u * (LARGEST / np.sqrt((u**2).sum(0)).max())


def turned(middle: np.ndarray) -> np.ndarray:
    """(4, 4), mm: grown, turned about two axes and shifted, about a point."""
    c, s = np.cos(np.radians(TURN)), np.sin(np.radians(TURN))
    about_z, about_x = np.eye(3), np.eye(3)
    about_z[:2, :2], about_x[1:, 1:] = [[c, -s], [s, c]], [[c, -s], [s, c]]
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x @ np.diag(GROWTH)
    matrix[:3, 3] = middle + SHIFT - matrix[:3, :3] @ middle
    return matrix


def bent(fixed: Volume, seed: int) -> tuple[Volume, np.ndarray]:
    """A moving volume, and the truth: the displacement in mm from moving to fixed points, on its grid."""
    from invlearn.io.itk import points_of
    from invlearn.registration.transform import Transform

    shape = fixed.shape
    x = points_of(fixed.affine, shape)
    matrix = turned(x.reshape(3, -1).mean(1))
    u = smooth_field(shape, fixed.spacing[0], seed)
    y = np.einsum("ij,jdhw->idhw", matrix[:3, :3], x + u) + matrix[:3, 3].reshape(3, 1, 1, 1)
    data = Transform(y - x, fixed.affine).image(fixed).data.astype(np.float64)
    rng = np.random.default_rng(seed + 1)
    shade = 1 + SHADE * np.linspace(-1, 1, shape[0]).reshape(-1, 1, 1)
    data = np.clip(data, 0, None) ** GAMMA * shade + NOISE * rng.normal(size=shape)
    return Volume((1000 * np.clip(data, 0, None)).astype(np.int16), fixed.affine), y - x


def errors(result: Any, truth: np.ndarray, fixed: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from the true places, of points inside the head: by the headers, and after."""
    from invlearn.io.itk import points_of
    from invlearn.registration.transform import Transform

    grid = points_of(fixed.affine, fixed.shape)
    inside = Transform(truth, fixed.affine).image(fixed).data > 0.2
    points, goals = grid[:, inside].T, (grid + truth)[:, inside].T
    found = Transform(result.inverse_field(), result.moving.affine).points(points)
    return np.linalg.norm(points - goals, axis=1), np.linalg.norm(found - goals, axis=1)


def exhibits(folder: Path, settings: Settings, run: Run) -> Iterator[Section]:
    """One section; both volumes and the result are left in `folder`/inputs and `folder`/brought_back."""
    from invlearn.cli.registration import How, prepare, write_report
    from invlearn.io import write_volume
    from invlearn.io.runs import write_json
    from invlearn.registration import register
    from invlearn.registration.results import by_header, measure, write_results
    from invlearn.reports.registration import summary

    (folder / INPUTS).mkdir(exist_ok=True)
    fixed, origin = brain()
    moving, truth = bent(fixed, settings.seed)
    write_volume(folder / INPUTS / FIXED, fixed)
    write_volume(folder / INPUTS / MOVING, moving)
    with settings.progress("Where did every point of this brain go?"), run.timed("registration"):
        prepare(How("affine", "lncc", "composed", None, None))
        result = register(fixed, moving, device=settings.torch_device())
    found = measure(result)
    out = folder / OUT
    out.mkdir()
    write_results(out, result)
    write_json(out / "metrics.json", found)
    write_report(out / "report.html", result, found, run)
    before, after = errors(result, truth, fixed)
    run.metrics["registration"] = {
        **found,
        "error_mm": {"before": float(before.mean()), "mean": float(after.mean())},
    }
    where = f"{INPUTS}/{FIXED}", f"{INPUTS}/{MOVING}"
    lines = (
        ["invlearn", "register", *where, "-o", f"{OUT}_again"],
        ["invlearn", "warp", where[0], "--transform", OUT, "--inverse", "-o", "brain_where_it_went.nii.gz"],
    )
    story = (
        f"{origin[0].upper()}{origin[1:]} with {VOXEL} mm voxels, turned by {TURN:g}° about two axes, "
        f"shifted by {np.linalg.norm(SHIFT):.0f} mm, scaled, bent by up to {LARGEST:g} mm, then given "
        "another contrast curve, a shade from side to side, and noise. The program is told nothing of "
        "this, and no network was trained."
    )
    rows = [
        (name, f"{e.mean():.2f}", f"{np.percentile(e, 95):.2f}", f"{e.max():.2f}")
        for name, e in (("before", before), ("after", after))
    ]
    caption = f"Distance of {len(after):,} points inside the head from where they truly belong."
    introduction: list[Block] = [
        Text(story),
        *(Code(shlex.join(line)) for line in lines),
        Table(("error", "mean (mm)", "95 % below (mm)", "largest (mm)"), rows, caption),
    ]
    answer = (
        f"Found to {after.mean():.2f} mm on average, from {before.mean():.1f} mm, in "
        f"{found['cpu_seconds']:.0f} s of processor time; {found['folding_percent']:.2g} % of voxels fold."
    )
    yield summary(
        result,
        by_header(result.fixed, result.moving).data,
        found,
        "Where did every point of this brain go?",
        introduction,
        answer,
    )
