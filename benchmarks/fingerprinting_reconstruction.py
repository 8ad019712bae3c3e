"""How long does a whole reconstruction take? 256², 8 coils, 1000 frames of one arm, rank 5, 20,000 atoms.

    python benchmarks/fingerprinting_reconstruction.py --threads 2

The data are made by the model itself, with noise at 30 dB: this is about time, and accuracy is measured in
`fingerprinting_accuracy.py`. Seconds of each stage (wall clock and processor) and the peak memory, with the
dictionary simulated, coil maps estimated and every voxel matched and refined. Writes
`results/fingerprinting_reconstruction.json`.
"""

from __future__ import annotations

import argparse
import json
import resource
import runpy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invlearn.io import Scan, read_scan, write_scan
from invlearn.physics.mri import FingerprintSequence, trajectories
from invlearn.physics.mri.fingerprint import Dictionary, FingerprintOperator, Grid
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps
from invlearn.unrolled import reconstruct_fingerprints

RESULTS = Path(__file__).parent / "results" / "fingerprinting_reconstruction.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
STEP = 0.029  # between neighbouring atoms: some 20,000


def phantom(size: int) -> tuple[np.ndarray, ...]:
    """T1, T2 and proton density of three ellipses of tissue, in 25 shades each."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    radius = np.hypot(1.2 * x, y)
    label = sum((radius < edge).astype(int) for edge in (0.9, 0.75, 0.3))
    t1, t2, pd = (np.array(v)[label] for v in ([1, 1.3, 0.8, 3.0], [0.1, 0.1, 0.07, 0.5], [0, 0.8, 0.7, 1.0]))
    return t1 * (1 + 0.01 * np.round(5 * x)), t2 * (1 + 0.01 * np.round(5 * y)), pd


def make_scan(sequence: FingerprintSequence, size: int, rank: int) -> Scan:
    """Eight coils, a spiral arm of 1000 samples a frame."""
    coarse = Dictionary.build(sequence, Grid.logarithmic(step=0.15), rank=rank)
    t1, t2, pd = (torch.from_numpy(values) for values in phantom(size))
    images = (pd[..., None] * coarse.interpolate(t1, t2)[0]).movedim(-1, 0).to(torch.complex64)
    frames, samples = sequence.frames, 1000
    arms = trajectories.spiral(frames, samples, (size, size), interleaves=48, golden_angle=True)
    frame = torch.arange(frames).repeat_interleave(samples)
    maps = torch.from_numpy(birdcage_maps(8, (size, size)))
    model = FingerprintOperator(arms.reshape(-1, 2), frame, coarse.basis.float(), (size, size), maps)
    kspace = model(images)
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(0))
    kspace += 10**-1.5 * kspace.abs().square().mean().sqrt() * noise
    return Scan(
        kspace=kspace.numpy(),
        trajectory=arms.reshape(-1, 2).numpy(),
        frame=frame.numpy(),
        frames=frames,
        shape=(size, size),
        field_of_view=(0.25, 0.25),
        flip_angle=sequence.flip_angle,
        tr=sequence.tr,
        te=sequence.te,
        inversion_time=sequence.inversion_time,
    )


class Clock:
    """Wall and processor seconds of the stages that a reconstruction names."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[float, float]] = {}
        self.tell("start")

    def tell(self, stage: str) -> None:
        """A stage begins."""
        now = time.perf_counter(), time.process_time()
        if hasattr(self, "stage"):
            wall, cpu = self.stages.get(self.stage, (0.0, 0.0))
            self.stages[self.stage] = (wall + now[0] - self.began[0], cpu + now[1] - self.began[1])
        self.stage, self.began = stage.split(" pass ")[0], now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=5)
    parser.add_argument("--method", default="subspace")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sequence = FingerprintSequence.default(args.frames)
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder) / "scan.h5", make_scan(sequence, args.size, args.rank))
        clock = Clock()
        clock.tell("reading")
        scan = read_scan(Path(folder) / "scan.h5")
    clock.tell("simulating the dictionary")
    dictionary = Dictionary.build(sequence, Grid.logarithmic(step=STEP), rank=args.rank)
    found = reconstruct_fingerprints(
        scan, args.method, dictionary=dictionary, device=args.device, progress=clock.tell
    )
    clock.tell("end")
    seconds = {name: [round(t, 1) for t in times] for name, times in clock.stages.items() if name != "start"}
    result: dict[str, Any] = {
        "matrix": args.size,
        "coils": scan.coils,
        "frames": args.frames,
        "rank": args.rank,
        "atoms": len(dictionary.atoms),
        **recorded(args.threads, "finufft"),
        "device": args.device,
        "method": found.settings,
        "iterations": found.iterations,
        "seconds_wall_and_cpu": seconds,
        "total_wall": round(sum(wall for wall, _ in seconds.values()), 1),
        "total_cpu": round(sum(cpu for _, cpu in seconds.values()), 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "load_average": round(float(Path("/proc/loadavg").read_text().split()[0]), 1),
    }
    print(json.dumps(result, indent=2), flush=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
