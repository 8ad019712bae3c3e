"""Flip angles with a better T2 bound than the default train, at equal length.

    python examples/flip_angle_design.py                # about a minute
    python examples/flip_angle_design.py --frames 100 --iterations 5 --json design.json --train train.csv

Prints the Cramér–Rao bounds, std(T) / T per unit of σ / M0, of the default train and of the designed one,
and writes them with the train.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.bloch import crb
from invlearn.physics.mri.bloch.design import design_flip_angles

ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]
NAMES = ("white matter", "grey matter", "cerebrospinal fluid")
T1, T2 = np.array([0.8, 1.3, 4.0]), np.array([0.07, 0.1, 1.8])


def bounds(sequence: FingerprintSequence) -> dict[str, dict[str, float]]:
    """std(T) / T per unit of σ / M0 of each tissue."""
    found = crb(sequence, T1, T2)
    return {
        name: {"t1": round(row[1] / t1, 3), "t2": round(row[2] / t2, 3)}
        for name, row, t1, t2 in zip(NAMES, found, T1, T2, strict=True)
    }


def study(frames: int, iterations: int, knots: int) -> tuple[dict[str, Any], FingerprintSequence]:
    """The two trains' bounds and the designed train."""
    start = FingerprintSequence.default(frames)
    design = design_flip_angles(start, T1, T2, weights=(1.0, 2.0), knots=knots, iterations=iterations)
    before, after = bounds(start), bounds(design.sequence)
    summary = {
        "frames": frames,
        "seconds": round(start.duration, 3),
        "largest_flip_angle_deg": round(math.degrees(design.sequence.flip_angle.max()), 2),
        "knots": knots,
        "iterations": len(design.objective) - 1,
        "default": before,
        "designed": after,
        "gain_t2": {name: round(before[name]["t2"] / after[name]["t2"], 3) for name in NAMES},
        "gain_t1": {name: round(before[name]["t1"] / after[name]["t1"], 3) for name in NAMES},
    }
    return summary, design.sequence


def main(arguments: list[str] | None = None) -> None:
    """Design, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--knots", type=int, default=40)
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "flip_angle_design.json"
    )
    parser.add_argument("--train", type=Path, help="write the designed train as CSV")
    options = parser.parse_args(arguments)
    found, sequence = study(options.frames, options.iterations, options.knots)
    summary = recorded(os.cpu_count() or 1, "jax", "invlearn") | found
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(summary, indent=1) + "\n")
    if options.train:
        sequence.to_csv(options.train)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
