"""What does the learned part buy? PGD-Net beside locally low rank, on anatomy that it never saw.

    INVLEARN_DATA=... python benchmarks/pgdnet.py --weights pgdnet_200.safetensors pgdnet_1000.safetensors

One golden-angle spiral arm a frame (48 interleaves), eight coils, 30 dB; coil maps are estimated from the
data by every method. The slices are those of `fingerprinting_accuracy.py`: neither was used in training.
Beside each other stand llr and subspace with matching, PGD-Net, and what remains of it without its parts: no
network at all (steps towards the data, and matching), the warm start alone, no means over neighbours, means
alone (of what has alike T1 and T2), one iteration; and llr on the virtual coils that PGD-Net sees. With
``--pool`` (scans that `examples/train_pgdnet.py` wrote) a residual network that sees one voxel at a time is
trained in the place of the CNN: what neighbours are worth. Processor seconds are of whole reconstructions of
one thread, without building the dictionary, which PGD-Net does not need (`dictionary_cpu_seconds` beside
them). Writes `results/pgdnet.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from invlearn.io.maps import TissueMaps
from invlearn.io.scans import Scan
from invlearn.physics.mri import coils, trajectories
from invlearn.physics.mri.fingerprint import Dictionary
from invlearn.physics.mri.fingerprint.simulate import simulate_scan
from invlearn.training import Settings
from invlearn.unrolled import FingerprintMaps, PGDNet, load_pgdnet, reconstruct_fingerprints
from invlearn.unrolled.pgdnet_pool import Pool
from invlearn.unrolled.pgdnet_rounds import train_in_rounds
from invlearn.unrolled.pgdnet_training import MapLoss

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "pgdnet.json"
recorded = runpy.run_path(str(HERE / "recorded.py"))["about"]
ACCURACY = runpy.run_path(str(HERE / "fingerprinting_accuracy.py"))
SNR, COILS, SAMPLES, INTERLEAVES = 30.0, 8, 1000, 48
VIRTUAL = 5  # of these, as many as PGD-Net takes here
SEEDS = (1, 2, 3)  # of the noise
ROBUST = 0.03  # as the weights that ship were trained
Way = Callable[[Scan], FingerprintMaps]


def variants(network: PGDNet, path: Path) -> dict[str, PGDNet]:
    """The network, and what is left of it."""

    def other(**change: Any) -> PGDNet:
        made = load_pgdnet(path)
        for name, value in change.items():
            setattr(made, name, value)
        return made

    def silent(**change: Any) -> PGDNet:
        made = other(**change)
        for parameter in made.encoder.head.parameters():
            torch.nn.init.zeros_(parameter)
        return made

    return {
        "pgdnet": network,
        "pgdnet, no network": silent(neighbours=Alone()),
        "pgdnet, warm start alone": silent(neighbours=Alone(), iterations=1),
        "pgdnet, no means over neighbours": other(neighbours=Alone()),
        "pgdnet, means alone": silent(),
        "pgdnet, one iteration": other(iterations=1),
        "pgdnet, two iterations": other(iterations=2),
    }


class Alone(nn.Module):
    """Leaves every voxel as it is, in the place of means over neighbours."""

    def forward(self, values: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return values


class Pointwise(nn.Module):
    """A residual network of 1 x 1 convolutions."""

    def __init__(self, channels: int, outputs: int, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
            for _ in range(blocks)
        )
        self.head = nn.Conv2d(width, outputs, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def pixelwise(path: Path, pool: Path, epochs: int) -> PGDNet:
    """PGD-Net with a network that sees no neighbours, trained on the same scans."""
    torch.manual_seed(0)
    network = load_pgdnet(path)
    network.encoder = Pointwise(network.encoder.in_channels, network.encoder.head.out_channels)
    network.neighbours = Alone()
    settings = Settings(batch_size=1, schedule="cosine", gradient_clip=1.0, progress=False)
    loss = MapLoss(robust=ROBUST)
    train_in_rounds(network, Pool(pool, turned=True), rounds=1, epochs=epochs, loss=loss, settings=settings)
    return network


def row(found: FingerprintMaps, maps: TissueMaps, mask: np.ndarray) -> dict[str, float]:
    """Median errors in percent, and over the Cramér-Rao bound of an estimate without folding."""
    errors = ACCURACY["errors"](found.t1, found.t2, found.pd, maps, mask)
    for name in ("t1", "t2"):
        gap = np.abs(getattr(found, name) - getattr(maps, name))[mask]
        bound = getattr(found, f"{name}_sd")[mask]
        errors[f"{name}_error_over_bound"] = float(np.median(gap / bound)) / 0.6745
    return errors


def mean(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Over the seeds, with the smallest and the largest T1 and T2 errors."""
    found: dict[str, Any] = {name: round(float(np.mean([r[name] for r in rows])), 3) for name in rows[0]}
    for name in ("t1_percent", "t2_percent"):
        found[f"{name}_range"] = [round(min(r[name] for r in rows), 3), round(max(r[name] for r in rows), 3)]
    found["cpu_seconds"] = round(min(r["cpu_seconds"] for r in rows), 2)
    return found


def study(
    maps: TissueMaps,
    mask: np.ndarray,
    path: Path,
    methods: list[str],
    seeds: tuple[int, ...],
    further: dict[str, PGDNet],
) -> dict[str, Any]:
    """One slice, the sequence of one file of weights, every way, every seed."""
    network = load_pgdnet(path)
    sequence = network.sequence
    arms = trajectories.spiral(
        sequence.frames, SAMPLES, maps.shape, interleaves=INTERLEAVES, golden_angle=True
    )
    start = time.process_time()
    dictionary = Dictionary.build(sequence, energy=ACCURACY["ENERGY"])
    building = time.process_time() - start
    ways: dict[str, Way] = {
        method: lambda scan, method=method: reconstruct_fingerprints(scan, method, dictionary=dictionary)
        for method in methods
    }
    if "llr" in methods:
        ways["llr, virtual coils"] = lambda scan: reconstruct_fingerprints(
            replace(scan, kspace=coils.compress(scan.kspace, VIRTUAL)[0]), "llr", dictionary=dictionary
        )
    for name, one in (variants(network, path) | further).items():
        ways[name] = lambda scan, one=one: reconstruct_fingerprints(scan, one)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for seed in seeds:
        scan = simulate_scan(maps, sequence, arms, coils=COILS, snr=SNR, seed=seed)
        for name, way in ways.items():
            start = time.process_time()
            found = way(scan)
            seconds = time.process_time() - start
            rows[name].append(row(found, maps, mask) | {"cpu_seconds": seconds})
            print(sequence.frames, seed, name, rows[name][-1], flush=True)
    result: dict[str, Any] = {name: mean(r) for name, r in rows.items()}
    if "llr" in result:
        ratio = {k: result["pgdnet"][k] / result["llr"][k] for k in ("t1_percent", "t2_percent")}
        result["dictionary_cpu_seconds"] = round(building, 2)
        result["pgdnet over llr"] = {k: round(v, 3) for k, v in ratio.items()} | {
            "times_faster": round(result["llr"]["cpu_seconds"] / result["pgdnet"]["cpu_seconds"], 1)
        }
    return result


def further_networks(path: Path, options: argparse.Namespace) -> dict[str, PGDNet]:
    """Those for the same sequence and basis that were asked for."""
    known, found = load_pgdnet(path).digest(), {}
    for pool in options.pool:
        if Pool(pool).about["basis"] == known:
            found["pgdnet, pixelwise network"] = pixelwise(path, pool, options.epochs)
    for other in options.also:
        if load_pgdnet(other).digest() == known:
            found[f"pgdnet, {other.parent.name}"] = load_pgdnet(other)
    return found


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="weights learned in other ways")
    parser.add_argument("--pool", type=Path, nargs="+", default=[], help="train a pixelwise network on it")
    parser.add_argument("--epochs", type=int, default=5, help="of that")
    parser.add_argument("--slices", nargs="+", default=["mrzero", "brainweb"])
    parser.add_argument("--methods", nargs="+", default=["llr", "subspace"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    folder = Path(os.environ["INVLEARN_DATA"])
    known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    found: dict[str, Any] = {
        **known,  # cases that are not measured now stay
        **recorded(1, "finufft"),
        "snr_db": SNR,
        "coils": COILS,
        "samples_an_arm": SAMPLES,
        "interleaves": INTERLEAVES,
    }
    for path in options.weights:
        further = further_networks(path, options)
        for name in options.slices:
            maps, mask = ACCURACY[name](folder)
            frames = load_pgdnet(path).sequence.frames
            seeds = tuple(options.seeds)
            rows = study(maps, mask, path, options.methods, seeds, further)
            found[f"{name}, {frames} frames"] = {"seeds": options.seeds, **rows}
            options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
