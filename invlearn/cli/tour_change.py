"""The tour's story that joins two jobs: T1 maps of two visits, registered, and what changed in between."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from invlearn.cli.options import Settings
from invlearn.cli.tour_fingerprinting import mixture
from invlearn.io.nifti import Volume
from invlearn.io.runs import Run
from invlearn.registration.transform import Transform
from invlearn.reports import figures
from invlearn.reports.figures import Scale
from invlearn.reports.page import Block, Code, Gallery, Heading, Picture, Section, Table, Text

VISITS, OUT = ("visit_1", "visit_2"), "change"
VOXEL = 4  # mm
SIDE = 48  # pixels of a slice
FRAMES, COILS, SNR = 200, 6, 30.0
TURN, SHIFT = 5.0, (3.0, -2.0, 4.0)  # degrees, mm: how differently the head lies
GROWTH, REACH = 3.0, 10.0  # mm: how far the ventricles push outwards, and how softly
DEEP = 20.0  # mm from the surface: fluid in there is that of the ventricles


def brain() -> tuple[np.ndarray, np.ndarray, str]:
    """Fractions `(3, X, Y, Z)` of grey, white matter and fluid, the affine (mm, RAS), and their origin."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of third parties, at import
            from nilearn.datasets import (
                load_mni152_brain_mask,
                load_mni152_gm_template,
                load_mni152_wm_template,
            )

            loaders = load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask
            images = [load(resolution=VOXEL) for load in loaders]
    except ImportError:
        return *drawn(), "a drawn phantom (with nilearn installed: the average of 152 brains)"
    grey, white, mask = (np.asarray(image.dataobj, dtype=np.float64) for image in images)
    fractions = np.stack([grey, white, np.clip((mask > 0) - grey - white, 0, None)])
    return *boxed(fractions, np.asarray(images[0].affine)), "the average of 152 brains (MNI152)"


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Shells of fluid, grey and white matter around a cavity."""
    shape, affine = (SIDE, SIDE, 32), np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(shape) - 1) / 2
    x, y, z = (ax * VOXEL + affine[0, 3] for ax in np.indices(shape) * 1.0)
    z = z - affine[0, 3] + affine[2, 3]
    radius = np.sqrt((x / 70) ** 2 + (y / 80) ** 2 + (z / 52) ** 2)
    cavity = np.sqrt((x / 14) ** 2 + (y / 26) ** 2 + (z / 14) ** 2)
    head, brain, white, hollow = (np.clip((1 - r) * 8 + 0.5, 0, 1) for r in (
        radius, radius / 0.93, radius / 0.75, cavity))  # fmt: skip
    fractions = np.stack([brain - white, white - hollow, head - brain + hollow])
    return boxed(fractions, affine)


def boxed(fractions: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut to the brain and put in the middle of slices of `SIDE` pixels, with empty slices around."""
    places = [(found.min(), found.max() + 1) for found in (fractions.sum(0) > 0.3).nonzero()]
    cut = fractions[(slice(None), *(slice(*place) for place in places))]
    spare = [SIDE - cut.shape[1], SIDE - cut.shape[2], 6]
    before = [n // 2 for n in spare]
    padded = np.pad(cut, [(0, 0), *((b, n - b) for b, n in zip(before, spare, strict=True))])
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ (np.array([first for first, _ in places]) - before)
    return padded, moved


def ventricles(fractions: np.ndarray) -> np.ndarray:
    """The fraction of fluid deep inside, `(X, Y, Z)`."""
    depth = ndimage.distance_transform_edt(fractions.sum(0) > 0.5) * VOXEL
    return fractions[2] * (depth > DEEP)


def change(fractions: np.ndarray, affine: np.ndarray) -> Transform:
    """From points at the second visit to the first: ventricles pushed outwards, the head turned."""
    from invlearn.io.itk import points_of

    x = points_of(affine, fractions.shape[1:])
    middle = x.reshape(3, -1).mean(1)
    angle = np.radians(TURN)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    lies = np.einsum("ij,jdhw->idhw", turn, x - middle.reshape(3, 1, 1, 1))
    lies += (middle + SHIFT).reshape(3, 1, 1, 1)
    # points around the ventricles come from nearer to them
    soft = ndimage.gaussian_filter(ventricles(fractions), REACH / VOXEL)
    pull = np.stack(np.gradient(soft)) * np.sign(np.diag(affine)[:3]).reshape(3, 1, 1, 1)
    pull *= GROWTH / np.sqrt((pull**2).sum(0)).max()
    return Transform(lies + moved(pull, affine, Transform(lies - x, affine)) - x, affine)


def moved(volumes: np.ndarray, affine: np.ndarray, by: Transform) -> np.ndarray:
    """Each of `(n, X, Y, Z)`."""
    return np.stack([by.image(Volume(v.astype(np.float32), affine)).data for v in volumes])


def scanned(fractions: np.ndarray, settings: Settings, seed: int) -> np.ndarray:
    """T1 (s) of every slice, `(X, Y, Z)`, each from a scan of its own; 0 outside the brain."""
    from invlearn.cli.fingerprinting import make_trajectory
    from invlearn.io.maps import TissueMaps
    from invlearn.physics.mri import FingerprintSequence
    from invlearn.physics.mri.fingerprint.simulate import simulate_scan
    from invlearn.unrolled import reconstruct_fingerprints
    from invlearn.unrolled.pgdnet_weights import weights_for

    sequence = FingerprintSequence.default(FRAMES)
    network = weights_for(sequence)
    t1 = np.zeros(fractions.shape[1:], dtype=np.float32)
    for z in range(fractions.shape[3]):
        tissue = mixture(fractions[..., z].transpose(0, 2, 1).astype(np.float64))
        if tissue["mask"].sum() < SIDE:
            continue
        maps = TissueMaps(**tissue)
        arms = make_trajectory("spiral", FRAMES, maps.shape)
        scan = simulate_scan(maps, sequence, arms, coils=COILS, snr=SNR, seed=1000 * seed + z)
        found: Any = reconstruct_fingerprints(scan, network, device=settings.torch_device())
        density = np.abs(found.pd)
        t1[..., z] = np.where(density > 0.2 * np.percentile(density, 98), found.t1, 0).T
    return t1


def grown(determinant: np.ndarray, where: np.ndarray) -> float:
    """By how many percent a region grew, from |J| on its grid."""
    return 100 * float((where * determinant).sum() / where.sum() - 1)


def pictures(visits: list[Volume], brought: np.ndarray, determinant: np.ndarray) -> list[Block]:
    """T1 at both visits and after the registration, and |J|, in an axial slice."""
    at = visits[0].shape[2] // 2
    axial = [np.flipud(v[..., at].T) for v in (visits[0].data, visits[1].data, brought, determinant)]
    t1, change = Scale(0, 2.5, unit="s (T1)"), Scale(-60, 60, figures.DIVERGING, "% larger or smaller")
    words = ("first visit", "second visit", "second visit, registered")
    maps = [Picture(figures.picture(a, t1), w) for a, w in zip(axial[:3], words, strict=True)]
    percent = np.where(axial[0] > 0, 100 * (axial[3] - 1), 0)
    return [
        Heading("T1"),
        Gallery(maps, scale=t1),
        Heading("What grew, what shrank"),
        Gallery(
            [
                Picture(
                    figures.picture(percent, change), "change of volume from the first visit to the second"
                )
            ],
            scale=change,
        ),
    ]


def exhibits(folder: Path, settings: Settings, run: Run) -> Iterator[Section]:
    """One section; maps and registration are left in `folder`/visit_1, visit_2 and change."""
    from invlearn.cli.registration import How, prepare
    from invlearn.io import write_volume
    from invlearn.io.runs import write_json
    from invlearn.registration import register
    from invlearn.registration.results import measure, write_results

    fractions, affine, origin = brain()
    field = change(fractions, affine)
    then, volumes = moved(fractions, affine, field), []
    with settings.progress("What changed between two visits?"), run.timed("two visits"):
        for name, brains, seed in zip(VISITS, (fractions, then), (1, 2), strict=True):
            (folder / name).mkdir()
            volumes.append(Volume(scanned(brains, settings, settings.seed + seed), affine))
            write_volume(folder / name / "T1map.nii.gz", volumes[-1])
        prepare(How("rigid", "mse", "composed", None, None))
        result = register(*volumes, affine="rigid", similarity="mse", device=settings.torch_device())
    (folder / OUT).mkdir()
    write_results(folder / OUT, result)
    found = measure(result)
    write_json(folder / OUT / "metrics.json", found)
    inside = ventricles(fractions)
    determinant = figures.to_numpy(result.jacobian())
    growth = {
        "true": 100 * float(moved(inside[None], affine, field).sum() / inside.sum() - 1),
        "found": grown(determinant, inside),
        "rest": grown(determinant, fractions.sum(0) - inside),
    }
    run.metrics["two visits"] = {"ventricle_growth_percent": growth, **found}
    slices = int((fractions.sum((0, 1, 2)) > 0).sum())
    story = (
        f"{origin[0].upper()}{origin[1:]} comes twice. Each time {slices} slices are scanned as above "
        f"({FRAMES} frames, {COILS} coils, {SNR:g} dB, {VOXEL} mm voxels), and PGD-Net finds T1 in every "
        f"voxel. In between, the ventricles pushed outwards by up to {GROWTH:g} mm, and the head lies turned "
        f"by {TURN:g}° and shifted. T1 is a number and not a shade: what differs between the maps has moved, "
        "or is noise, so that their difference itself is what the registration lowers (mse)."
    )
    line = ["invlearn", "register", *(f"{v}/T1map.nii.gz" for v in VISITS), "-o", f"{OUT}_again"]
    rows = [
        ("ventricles", f"{growth['true']:+.0f} %", f"{growth['found']:+.0f} %"),
        ("the rest of the brain", "–", f"{growth['rest']:+.1f} %"),
    ]
    caption = "Change of volume; found is the mean of |J| over the region as it was at the first visit."
    blocks: list[Block] = [
        Text(story),
        Code(shlex.join([*line, "--affine", "rigid", "--similarity", "mse"])),
        Table(("region", "true", "found"), rows, caption),
        *pictures(volumes, result.warped.data, determinant),
    ]
    answer = (
        f"The ventricles grew: {growth['found']:+.0f} % by the map of |J|, in truth {growth['true']:+.0f} %."
    )
    yield Section("What changed in this brain between two visits?", blocks, answer, "good")
