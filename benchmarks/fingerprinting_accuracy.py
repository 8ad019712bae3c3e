"""How accurate are T1 and T2? Every method on two brain slices, 1000 and 200 frames, beside oracles.

    INVLEARN_DATA=... python benchmarks/fingerprinting_accuracy.py

One golden-angle spiral arm a frame, eight coils, 30 dB; coil maps and noise level are estimated from the
data. The oracles say where accuracy is lost: matching the true subspace images; the same without the corners
of k-space, which a spiral does not reach; the same with white noise of the size that an unregularised
estimate would have. Writes `results/fingerprinting_accuracy.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invlearn.io.maps import TissueMaps
from invlearn.io.scans import Scan
from invlearn.physics.mri import FingerprintSequence, trajectories
from invlearn.physics.mri.bloch import simulate
from invlearn.physics.mri.fingerprint import Dictionary
from invlearn.physics.mri.fingerprint.evaluate import evaluate_maps
from invlearn.physics.mri.fingerprint.simulate import simulate_scan
from invlearn.unrolled import reconstruct_fingerprints

RESULTS = Path(__file__).parent / "results" / "fingerprinting_accuracy.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
SNR, COILS, SAMPLES = 30.0, 8, 1000
SEED = 1  # of the noise; 0 was used when the settings of the methods were chosen
TUNED_ON = "mrzero, 1000 and 200 frames, seed 0"
ENERGY = 0.99998  # of the subspace; the reconstruction's own choice


def mrzero(folder: Path) -> tuple[TissueMaps, np.ndarray]:
    """The numerical brain of MRzero (PD, T1 and T2 in s, ...) in the middle of 192², and its brain tissue."""
    from scipy.io import loadmat

    brain = loadmat(folder / "mrf" / "mrzero_numerical_brain_cropped.mat")["cropped_brain"].astype(float)
    spare = [192 - n for n in brain.shape[:2]]
    pd, t1, t2 = np.pad(brain[..., :3], [*((n // 2, n - n // 2) for n in spare), (0, 0)]).transpose(2, 0, 1)
    maps = TissueMaps(t1, t2, pd)
    return maps, maps.inside & (t1 < 1.8) & (t2 < 0.15)


def brainweb(folder: Path) -> tuple[TissueMaps, np.ndarray]:
    """An axial slice of BrainWeb's labels with their T1 and T2 (in ms), which drift by 5 % over the slice."""
    import nibabel

    volume = nibabel.load(folder / "mrf" / "brainweb_normal_crisp_labels_1mm.nii.gz")
    labels = np.asarray(volume.dataobj)[:, :, 90].T
    table = np.genfromtxt(folder / "mrf" / "brainweb_tissue_params.csv", delimiter=",", skip_header=1)
    t1, t2, pd = (table[labels, column] for column in (2, 3, 5))
    y, x = (np.linspace(-1, 1, n) for n in labels.shape)
    drift = 1 + 0.05 * np.sin(3 * x) * np.cos(2 * y[:, None])
    maps = TissueMaps(1e-3 * t1 * drift, 1e-3 * t2 / drift, pd)
    return maps, np.isin(labels, (2, 3, 8))


def subspace_images(maps: TissueMaps, dictionary: Dictionary) -> torch.Tensor:
    """The true coefficients `(K, *image)`."""
    inside = maps.inside
    signal = simulate(
        dictionary.sequence, torch.from_numpy(maps.t1[inside]), torch.from_numpy(maps.t2[inside])
    )
    images = torch.zeros(dictionary.rank, *maps.shape, dtype=torch.complex128)
    images[:, torch.from_numpy(inside)] = (
        dictionary.compress(signal) * torch.from_numpy(maps.pd[inside])[:, None]
    ).T.to(images.dtype)
    return images


def disc(images: torch.Tensor) -> torch.Tensor:
    """Without the corners of k-space."""
    axes = torch.meshgrid(*(torch.fft.fftfreq(n) for n in images.shape[1:]), indexing="ij")
    keep = sum(axis**2 for axis in axes) <= 0.25
    return torch.fft.ifft2(torch.fft.fft2(images) * keep)


def oracles(maps: TissueMaps, mask: np.ndarray, dictionary: Dictionary, spread: np.ndarray) -> dict[str, Any]:
    """Errors of matching the true images, with the disc, and with noise of standard deviation `spread`."""
    true = subspace_images(maps, dictionary)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(true.shape, dtype=true.dtype, generator=generator) * torch.from_numpy(spread)
    cases = {"true images": true, "k-space disc": disc(true), "white noise": true + noise}
    found = {}
    for name, images in cases.items():
        match = dictionary.match(images.to(torch.complex64), mask=torch.from_numpy(mask))
        found[name] = errors(match.t1.numpy(), match.t2.numpy(), match.pd.numpy(), maps, mask)
    return found


def errors(
    t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, maps: TissueMaps, mask: np.ndarray
) -> dict[str, float]:
    """Median absolute relative errors and median biases, in percent."""
    found = evaluate_maps(t1, t2, pd, maps, mask)
    row = {f"{name}_percent": 100 * getattr(found, name).median_relative_error for name in ("t1", "t2", "pd")}
    for name, value in (("t1", t1), ("t2", t2)):
        row[f"{name}_bias_percent"] = 100 * float(
            np.median((value / np.where(mask, getattr(maps, name), 1))[mask]) - 1
        )
    return {name: round(value, 3) for name, value in row.items()}


def study(maps: TissueMaps, mask: np.ndarray, frames: int, methods: list[str]) -> dict[str, Any]:
    """One slice, one length of the sequence, every method."""
    sequence = FingerprintSequence.default(frames)
    arms = trajectories.spiral(frames, SAMPLES, maps.shape, interleaves=48, golden_angle=True)
    scan: Scan = simulate_scan(maps, sequence, arms, coils=COILS, snr=SNR, seed=SEED)
    dictionary = Dictionary.build(sequence, energy=ENERGY)
    rows: dict[str, Any] = {"rank": dictionary.rank, "voxels": int(mask.sum())}
    for method in methods:
        start = time.process_time()
        result = reconstruct_fingerprints(scan, method, dictionary=dictionary)
        rows[method] = errors(result.t1, result.t2, result.pd, maps, mask) | {
            "cpu_seconds": round(time.process_time() - start, 1),
            "iterations": result.iterations,
            "converged": result.converged,
        }
        for name in ("t1", "t2"):
            bound = getattr(result, f"{name}_sd")[mask]
            ratio = np.abs(getattr(result, name) - getattr(maps, name))[mask] / bound
            rows[method][f"{name}_error_over_bound"] = round(float(np.median(ratio)) / 0.6745, 2)
        print(frames, method, rows[method], flush=True)
    gain = (np.abs(result.coil_maps) ** 2).sum(0) * arms.shape[1] * frames / dictionary.rank
    gain *= float((dictionary.basis.abs() ** 2).sum()) / frames
    rows["oracles"] = oracles(maps, mask, dictionary, result.noise / np.sqrt(np.maximum(gain, 1e-12)))
    print(frames, rows["oracles"], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[1000, 200])
    parser.add_argument("--slices", nargs="+", default=["mrzero", "brainweb"])
    parser.add_argument("--methods", nargs="+", default=["adjoint", "llr", "subspace"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    folder = Path(os.environ["INVLEARN_DATA"])
    found: dict[str, Any] = {
        **recorded(torch.get_num_threads(), "finufft"),
        "snr_db": SNR,
        "coils": COILS,
        "samples_an_arm": SAMPLES,
        "seed": SEED,
        "settings_chosen_on": TUNED_ON,
    }
    for name in args.slices:
        maps, mask = {"mrzero": mrzero, "brainweb": brainweb}[name](folder)
        for frames in args.frames:
            found[f"{name}, {frames} frames"] = study(maps, mask, frames, args.methods)
            found[f"{name}, {frames} frames"]["matrix"] = list(maps.shape)
            args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
