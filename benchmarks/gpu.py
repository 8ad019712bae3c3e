"""Every job on a GPU beside the processor: do they agree, and how much faster is it?

    python benchmarks/gpu.py                          # on a machine with CUDA; writes results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny      # the script itself, anywhere, in a minute

No network is needed. On a machine without one, carry the packages: on a connected machine of the same kind

    pip download -d wheels -c constraints.txt '.[all,gpu,dev]'

and on the other ``pip install --no-index --find-links wheels '.[all,gpu,dev]'``. First the tests that need
CUDA run (``--no-tests`` leaves them out), then every case on the processor and on the device: the same input,
the same seed. A case fails when its results differ by more than its tolerance; then the script ends with 1.
Seconds are the best of the rounds after a first one, the device synchronised.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gpu.json"
TESTS = HERE.parent / "tests"
recorded = runpy.run_path(str(HERE / "recorded.py"))["about"]
Result = Tensor | np.ndarray


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes
    ----------
    name
        Job and part.
    prepare
        Of a device and whether all is small: what is to be timed, a function without arguments.
    tolerance
        Largest ‖device - processor‖ / ‖processor‖.
    """

    name: str
    prepare: Callable[[torch.device, bool], Callable[[], Result]]
    tolerance: float


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same numbers on every machine and device."""
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def wavelets(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """Forward and inverse transform of volumes."""
    from invlearn.wavelets import dwt, idwt

    n = 16 if tiny else 128
    x = noise(2, 4, n, n, n).to(device)

    def work() -> Tensor:
        bands = dwt(x, "db2", 3)
        return torch.cat([torch.stack(list(bands.values())).flatten(), idwt(bands, "db2", 3).flatten()])

    return work


def non_uniform_fourier(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """Coil images along a spiral, there and back, and by Toeplitz embedding."""
    from invlearn.physics.mri import NonCartesianMRI, trajectories
    from invlearn.physics.mri.fingerprint.simulate import birdcage_maps

    n, arms = (24, 4) if tiny else (256, 48)
    maps = torch.from_numpy(birdcage_maps(4 if tiny else 12, (n, n))).to(torch.complex64)
    spiral = trajectories.spiral(arms, 4 * n, (n, n), interleaves=arms).float().flatten(0, 1)
    operator = NonCartesianMRI(spiral, (n, n), maps).to(device)
    x = noise(1 if tiny else 8, n, n, dtype=torch.complex64).to(device)
    return lambda: torch.cat([operator.adjoint(operator(x)).flatten(), operator.normal(x).flatten()])


def learnability(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """The certificate of inpainting with several masks; what every bound requires and finds."""
    from invlearn.identifiability import check
    from invlearn.physics import Mask, OperatorFamily

    n, G = (8, 3) if tiny else (24, 10)
    masks = noise(G, n, n, seed=1) > 0.4
    family = OperatorFamily([Mask(m) for m in masks])

    def work() -> Tensor:
        report = check(family, dimension=n // 2, device=device)
        numbers = [float(report.verdict == "certified")]
        for bound in report.bounds:
            numbers += [float(bound.required or 0), float(bound.actual or 0)]
        return torch.tensor(numbers)

    return work


def fingerprinting(method: str) -> Callable[[torch.device, bool], Callable[[], Result]]:
    """T1 and T2 of a slice."""

    def prepare(device: torch.device, tiny: bool) -> Callable[[], Result]:
        from invlearn.io.maps import TissueMaps
        from invlearn.physics.mri import FingerprintSequence, trajectories
        from invlearn.physics.mri.fingerprint import Dictionary, Grid
        from invlearn.physics.mri.fingerprint.simulate import simulate_scan
        from invlearn.unrolled import PGDNet, reconstruct_fingerprints
        from invlearn.unrolled.pgdnet_weights import shipped, weights_for

        n, frames = (24, 60) if tiny else (160, 200)
        y, x = (np.mgrid[:n, :n] + 0.5) / n * 2 - 1
        label = (np.hypot(x, y) < 0.8).astype(int) + (np.hypot(x, y) < 0.5)
        t1, t2, pd = (np.array(v)[label] for v in ((0, 1.3, 0.8), (0, 0.1, 0.07), (0, 0.85, 0.7)))
        sequence = FingerprintSequence.default(frames)
        arms = trajectories.spiral(frames, 5 * n, (n, n), interleaves=n // 4, golden_angle=True)
        scan = simulate_scan(TissueMaps(t1, t2, pd), sequence, arms, snr=30.0)
        grid = Grid.logarithmic((0.1, 5.0), (0.01, 2.5), step=0.2 if tiny else 0.05)
        dictionary = Dictionary.build(sequence, grid, rank=6)
        how: Any = method
        if method == "pgdnet":
            if tiny or not shipped():
                how = PGDNet(sequence, dictionary.basis, dictionary.phase)
                how.fit_decoder(atoms=2000)
            else:
                how = weights_for(sequence)

        def work() -> np.ndarray:
            options = {} if method == "pgdnet" else {"dictionary": dictionary}
            found = reconstruct_fingerprints(scan, how, device=device, **options)
            inside = label > 0
            return np.concatenate([np.asarray(found.t1)[inside], np.asarray(found.t2)[inside]])

        return work

    return prepare


def training_step(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """The gradient of an unrolled reconstruction from undersampled k-space."""
    from invlearn.physics.mri import CartesianMRI
    from invlearn.physics.mri.fingerprint.simulate import birdcage_maps
    from invlearn.unrolled import HQS, Learned, UNet, Unrolled

    n = 16 if tiny else 192
    maps = torch.from_numpy(birdcage_maps(4, (n, n))).to(torch.complex64)
    mask = (torch.arange(n) % 3 == 0).expand(n, n)
    physics = CartesianMRI(mask, maps).to(device)
    model = Unrolled(HQS(), Learned(UNet(4 if tiny else 32, 2), complex=True), 2 if tiny else 6, seed=0).to(
        device
    )
    x = noise(1, n, n, dtype=torch.complex64).to(device)
    y = physics(x)

    def work() -> Tensor:
        model.zero_grad()
        (model(y, physics) - x).abs().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return work


def heads(tiny: bool) -> tuple[Tensor, Tensor]:
    """Two smooth volumes, one the other displaced."""
    from invlearn.registration import warp

    shape = (16, 18, 16) if tiny else (160, 192, 160)
    axes = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    z, y, x = axes
    radius = (x**2 + y**2 + z**2).sqrt()
    folds = torch.cos(9 * torch.atan2(y, x)) * torch.cos(7 * z)
    moving = torch.sigmoid(20 * (1 - radius)) - 0.5 * torch.sigmoid(20 * (0.75 + 0.05 * folds - radius))
    u = torch.stack([torch.sin(math.pi * a) * torch.cos(math.pi * b) for a, b in ((x, y), (y, z), (z, x))])
    return warp(moving, 0.02 * shape[0] * u), moving


def pair(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """The deformation between two volumes, found step by step."""
    from invlearn.registration import register

    fixed, moving = heads(tiny)
    return lambda: torch.as_tensor(register(fixed, moving, affine="none", device=device).deformation)


def winet(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """What WiNet says of two volumes."""
    from invlearn.registration import WiNet

    torch.manual_seed(0)
    network = WiNet(width=4 if tiny else 32).to(device).eval()
    fixed, moving = (v.to(device)[None] for v in heads(tiny))

    def work() -> Tensor:
        with torch.no_grad():
            return network(moving, fixed)

    return work


def segmentation(device: torch.device, tiny: bool) -> Callable[[], Result]:
    """Probabilities of a simulated neuron's stack, cube by cube."""
    from invlearn.neuro import segment
    from invlearn.neuro.segmentation import How

    n = 32 if tiny else 256
    stack = noise(n, n, n).abs().mul(20).byte().numpy()
    stack[n // 2 - 1 : n // 2 + 2, n // 2 - 1 : n // 2 + 2] = 200
    how = How(device=str(device))
    return lambda: np.asarray(segment(stack, voxel_size=(1, 1, 1), probability=True, how=how).probability)


CASES = (
    Case("wavelets: there and back", wavelets, 1e-5),
    Case("non-uniform Fourier: there, back and normal", non_uniform_fourier, 1e-4),
    Case("learnability: certificate", learnability, 1e-6),
    Case("fingerprinting: subspace", fingerprinting("subspace"), 5e-3),
    Case("fingerprinting: pgdnet", fingerprinting("pgdnet"), 5e-3),
    Case("unrolled: a training step", training_step, 1e-3),
    Case("registration: pair", pair, 2e-2),
    Case("registration: WiNet", winet, 1e-3),
    Case("neurons: segmentation", segmentation, 1e-3),
)


def timed(work: Callable[[], Result], device: torch.device, rounds: int) -> tuple[np.ndarray, float]:
    """The result, and the seconds of the best round after a first one."""
    best = math.inf
    for number in range(rounds + 1):
        start = time.perf_counter()
        found = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number or not rounds:
            best = min(best, time.perf_counter() - start)
    return np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found), best


def compare(case: Case, device: torch.device, tiny: bool, rounds: int) -> dict[str, Any]:
    """A case on the processor and on the device."""
    reference, slow = timed(case.prepare(torch.device("cpu"), tiny), torch.device("cpu"), 0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found, fast = timed(case.prepare(device, tiny), device, rounds)
    size = float(np.linalg.norm(reference.ravel()))
    gap = float(np.linalg.norm((found - reference).ravel())) / (size or 1.0)
    row = {
        "difference": gap,
        "tolerance": case.tolerance,
        "agrees": bool(gap <= case.tolerance and np.isfinite(found).all() and size > 0),
        "seconds_processor": round(slow, 4),
        "seconds_device": round(fast, 4),
        "times_faster": round(slow / fast, 2),
    }
    if device.type == "cuda":
        row["gigabytes_device"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return row


def tests_on_the_device() -> dict[str, Any]:
    """The tests that skip without CUDA."""
    files = [p for p in TESTS.rglob("test_*.py") if "cuda.is_available" in p.read_text(encoding="utf-8")]
    call = [sys.executable, "-m", "pytest", "-q", *map(str, sorted(files))]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=TESTS.parent)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-500:]
    counts = {
        kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)
    }
    return {"files": len(files), "passed_all": done.returncode == 0, **counts}


def where(device: torch.device) -> dict[str, Any]:
    """Where and when the figures were made, and on which device."""
    found = recorded(torch.get_num_threads())
    cuda = device.type == "cuda"
    found["machine"]["device"] = torch.cuda.get_device_name(device) if cuda else "cpu"
    found["versions"]["cuda"] = torch.version.cuda if cuda else None
    return found


def main(given: list[str] | None = None) -> int:
    """Run what is asked for, write the figures; 1 when something does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small inputs, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(given)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu --tiny tries the script itself")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found: dict[str, Any] = {**where(device), "cases": {}}
    if device.type == "cuda" and not options.no_tests:
        found["tests"] = tests_on_the_device()
    rounds = 1 if options.tiny else options.rounds
    for case in CASES:
        if options.only and options.only not in case.name:
            continue
        row = compare(case, device, options.tiny, rounds)
        found["cases"][case.name] = row
        print(f"{case.name}: {row}", flush=True)
    # figures of a trial are not those of a GPU
    target = options.output or (RESULTS if device.type == "cuda" and not options.tiny else None)
    if target:
        target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    agree = all(row["agrees"] for row in found["cases"].values())
    return 0 if agree and found.get("tests", {}).get("passed_all", True) else 1


if __name__ == "__main__":
    sys.exit(main())
