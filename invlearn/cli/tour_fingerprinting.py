"""The tour's fingerprinting job: a slice of an average brain, scanned and reconstructed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.cli.options import Settings
from invlearn.io.runs import Run
from invlearn.reports.page import Block, Code, Section, Text

INPUTS = "inputs"
MAPS, SCAN = "brain_slice.npz", "brain_scan.h5"
FRAMES, SNR = 240, 30.0
HEIGHT = 18  # mm above the anterior commissure, through the ventricles
SIZE = 96  # voxels of 2 mm a side

# T1 and T2 (s) and proton density at 3 T: grey matter, white matter, cerebrospinal fluid.
TISSUES = np.array([[1.35, 0.095, 0.82], [0.85, 0.07, 0.70], [4.0, 1.2, 1.0]])


def brain() -> tuple[np.ndarray, str]:
    """Fractions `(3, 96, 96)` of grey, white matter and fluid in a slice, and where they come from."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of third parties, at import
            from nilearn.datasets import (
                load_mni152_brain_mask,
                load_mni152_gm_template,
                load_mni152_wm_template,
            )

            volumes = [
                load(resolution=2)
                for load in (load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask)
            ]
    except ImportError:
        return drawn(), "a drawn phantom (with nilearn installed: the average of 152 brains)"
    level = round((HEIGHT - volumes[0].affine[2, 3]) / volumes[0].affine[2, 2])
    # rows from front to back, as a slice is looked at
    grey, white, mask = (np.asarray(v.dataobj)[:, ::-1, level].T.astype(np.float64) for v in volumes)
    fluid = np.clip(mask - grey - white, 0, None)
    return centred(np.stack([grey, white, fluid]), mask > 0), "the average of 152 brains (MNI152)"


def centred(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`(n, H, W)` cut to the mask and put in the middle of a square of `SIZE`."""
    (top, bottom), (left, right) = ((found.min(), found.max() + 1) for found in mask.nonzero())
    cut = images[:, top:bottom, left:right]
    spare = [SIZE - length for length in cut.shape[1:]]
    return np.pad(cut, [(0, 0), *((n // 2, n - n // 2) for n in spare)])


def drawn() -> np.ndarray:
    """Fractions of grey matter, white matter and fluid of a folded ring around two cavities."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1
    radius, angle = np.hypot(1.15 * x, y), np.arctan2(y, x)

    def inside(edge: Any) -> np.ndarray:
        return np.clip((edge - radius) * SIZE / 4 + 0.5, 0, 1)

    head, white = inside(0.82), inside(0.66 + 0.05 * np.cos(14 * angle))
    cavity = np.clip((0.16 - np.hypot(2 * (abs(x) - 0.14), 0.7 * y)) * SIZE / 4 + 0.5, 0, 1)
    fluid = np.maximum(head - inside(0.78), cavity)
    return np.stack([np.clip(head - white - fluid, 0, 1), np.clip(white - fluid, 0, 1), fluid])


def mixture(fractions: np.ndarray) -> dict[str, Any]:
    """Maps of a mixture: relaxation rates and densities add up, weighted by the density of each part."""
    t1, t2, density = TISSUES.T[..., None, None]
    parts = density * fractions
    pd = parts.sum(0)
    total = np.where(pd > 0, pd, 1)
    rates = [np.where(pd > 0, (parts / t).sum(0) / total, 1) for t in (t1, t2)]
    mask = fractions.sum(0) > 0.5
    return {"t1": mask / rates[0], "t2": mask / rates[1], "pd": mask * pd, "mask": mask}


def exhibits(folder: Path, settings: Settings, run: Run) -> Iterator[Section]:
    """One section; the maps, the scan and the results are left in `folder`/inputs and `folder`/brain."""
    from invlearn import io
    from invlearn.cli.fingerprinting import make_trajectory, voxel_size, write_results
    from invlearn.io.maps import TissueMaps
    from invlearn.physics.mri import FingerprintSequence
    from invlearn.physics.mri.fingerprint.evaluate import evaluate_maps
    from invlearn.physics.mri.fingerprint.simulate import simulate_scan
    from invlearn.reports.fingerprinting import summary
    from invlearn.unrolled import reconstruct_fingerprints

    (folder / INPUTS).mkdir(exist_ok=True)
    fractions, origin = brain()
    tissue = mixture(fractions)
    np.savez_compressed(folder / INPUTS / MAPS, **tissue)
    maps = TissueMaps(**tissue)
    with settings.progress("What are the T1 and T2 of this brain?"), run.timed("fingerprinting"):
        sequence = FingerprintSequence.default(FRAMES)
        arms = make_trajectory("spiral", FRAMES, maps.shape)
        scan = simulate_scan(maps, sequence, arms, snr=SNR, seed=settings.seed)
        io.write_scan(folder / INPUTS / SCAN, scan)
        result: Any = reconstruct_fingerprints(scan, device=settings.torch_device())
    (folder / "brain").mkdir()
    write_results(folder / "brain", result, voxel_size(scan))
    found = evaluate_maps(result.t1, result.t2, result.pd, maps)
    run.metrics["fingerprinting"] = found.to_dict()
    lines = (
        f"invlearn mrf simulate {INPUTS}/{MAPS} -o {INPUTS}/{SCAN} --frames {FRAMES} --snr {SNR:g}",
        f"invlearn mrf reconstruct {INPUTS}/{SCAN} -o brain",
        f"invlearn mrf evaluate brain --truth {INPUTS}/{MAPS}",
    )
    story = (
        f"A slice of {origin}, as mixtures of grey matter, white matter and fluid in every voxel, scanned in "
        f"{sequence.duration:.1f} s: {FRAMES} frames, one spiral arm each, so that every frame alone has a "
        f"{SIZE // 4}th of its k-space; eight coils and noise at {SNR:g} dB."
    )
    introduction: list[Block] = [Text(story), *map(Code, lines)]
    answer = (
        f"Yes: half of the voxels are within {100 * found.t1.median_relative_error:.1f} % in T1 and "
        f"{100 * found.t2.median_relative_error:.1f} % in T2."
    )
    question = "Can one quick scan give T1 and T2 in numbers, not shades of grey?"
    yield summary(result, maps, question, introduction, answer)
