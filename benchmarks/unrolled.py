"""A training step of an unrolled network: memory with and without checkpoints, physics and network.

    python benchmarks/unrolled.py            # two minutes on one core
    python benchmarks/unrolled.py --tiny

Heads of 112 × 96 with 8 coils and a small U-Net a step. Every mode runs in a process of its
own for its peak of resident memory; "saved" is what autograd keeps between forward and backward pass. Times
are CPU seconds, the least of several steps. Writes `benchmarks/results/unrolled.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from invlearn.physics.mri import CartesianMRI
from invlearn.unrolled import Learned, UNet, UnrolledHQS, UnrolledPGD, Zero

ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
SIZES = {"shape": (112, 96), "coils": 8, "batch": 2, "depth": 8, "width": 8, "levels": 3}
TINY = {"shape": (32, 24), "coils": 2, "batch": 2, "depth": 4, "width": 4, "levels": 2}
KINDS = {"PGD": UnrolledPGD, "HQS": UnrolledHQS}


def problem(sizes: dict[str, Any]) -> tuple[CartesianMRI, Tensor]:
    """A quarter of the lines of a multi-coil scan, and measurements."""
    generator = torch.Generator().manual_seed(0)
    shape = sizes["shape"]
    mask = (torch.rand(shape[0], 1, generator=generator) < 0.25).expand(shape)
    maps = torch.randn(sizes["coils"], *shape, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(0).sqrt()
    operator = CartesianMRI(mask, maps)
    x = torch.randn(sizes["batch"], *shape, dtype=torch.complex64, generator=generator)
    return operator, operator(x)


def model(
    kind: str, sizes: dict[str, Any], network: bool = True, checkpoint: bool = False
) -> torch.nn.Module:
    """The unrolled network, or the same iterations without one."""
    prior = Learned(UNet(sizes["width"], sizes["levels"]), complex=True) if network else Zero()
    return KINDS[kind](prior, sizes["depth"], norm=1.0, checkpoint=checkpoint)


def step(net: torch.nn.Module, y: Tensor, operator: CartesianMRI) -> None:
    """Forward and backward pass of one training step."""
    net.zero_grad()
    (operator(net(y, operator)) - y).abs().square().mean().backward()


def saved_bytes(net: torch.nn.Module, y: Tensor, operator: CartesianMRI) -> int:
    """What autograd keeps of a forward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    held = []  # outputs stay alive, so that no storage is counted twice
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        held.append(net(y, operator))
    return sum(kept.values())


def least(call: Callable[[], Any], rounds: int) -> float:
    """CPU seconds of the quickest of several calls."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure(kind: str, mode: str, tiny: bool) -> dict[str, Any]:
    """One mode in this process: `plain`, `checkpoint` or `physics` (no network)."""
    sizes = TINY if tiny else SIZES
    operator, y = problem(sizes)
    net = model(kind, sizes, network=mode != "physics", checkpoint=mode == "checkpoint")
    for parameter in net.parameters():  # a network away from its start, the same in every mode
        torch.manual_seed(parameter.numel())
        parameter.data += 0.01 * torch.randn_like(parameter)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(net, y, operator)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    digest = hashlib.sha256()
    for parameter in net.parameters():
        if parameter.grad is not None:  # the weight of no prior has none
            digest.update(parameter.grad.numpy().tobytes())
    return {
        "peak_rss_mb": peak / 1024,
        "saved_mb": saved_bytes(net, y, operator) / 2**20,
        "gradient_sha256": digest.hexdigest(),
        "cpu_seconds": least(lambda: step(net, y, operator), 3 if tiny else 5),
    }


def run(tiny: bool) -> dict[str, Any]:
    """All modes, each in a fresh process."""
    results: dict[str, Any] = {"sizes": TINY if tiny else SIZES, "torch": torch.__version__}
    for kind in KINDS:
        rows = {}
        for mode in ("plain", "checkpoint", "physics"):
            command = [sys.executable, __file__, "--measure", kind, mode, *(["--tiny"] if tiny else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[mode] = json.loads(done.stdout)
        physics = rows["physics"]["cpu_seconds"] / rows["plain"]["cpu_seconds"]
        results[kind] = {
            **rows,
            "equal_gradients": rows["plain"]["gradient_sha256"] == rows["checkpoint"]["gradient_sha256"],
            "saved_ratio": rows["checkpoint"]["saved_mb"] / rows["plain"]["saved_mb"],
            "peak_ratio": rows["checkpoint"]["peak_rss_mb"] / max(rows["plain"]["peak_rss_mb"], 1e-9),
            "time_ratio": rows["checkpoint"]["cpu_seconds"] / rows["plain"]["cpu_seconds"],
            "physics_share": physics,
            "network_share": 1 - physics,
        }
    return results


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "unrolled.json")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.measure:
        print(json.dumps(measure(*args.measure, args.tiny)))
        return
    results = recorded(1) | run(args.tiny)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{'':6}{'saved':>18}{'peak':>18}{'time':>8}{'physics':>9}{'network':>9}  equal gradients")
    for kind in KINDS:
        row = results[kind]
        plain, again = row["plain"], row["checkpoint"]
        print(
            f"{kind:6}{plain['saved_mb']:7.0f} → {again['saved_mb']:3.0f} MB"
            f"{plain['peak_rss_mb']:9.0f} → {again['peak_rss_mb']:3.0f} MB"
            f"{row['time_ratio']:8.2f}{row['physics_share']:9.0%}{row['network_share']:9.0%}"
            f"  {row['equal_gradients']}"
        )


if __name__ == "__main__":
    main()
