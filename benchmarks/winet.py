"""WiNet beside MONAI's VoxelMorph network: time and memory of one forward pass.

``python benchmarks/winet.py`` writes ``benchmarks/results/winet.json``. Every network runs in a process of
its own, one thread, so that its peak memory is its own; processor seconds are the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results" / "winet.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
SHAPE = (160, 192, 224)
SQUARINGS = 7  # of the published network; `WiNet` itself takes as many as the velocity needs
Forward = Callable[[Tensor, Tensor], Tensor]


def winet(precision: torch.dtype, *, integrated: bool) -> tuple[nn.Module, Forward]:
    """Ours, with or without the exponential of its velocity."""
    from invlearn.registration.fields import exponential
    from invlearn.registration.winet import WiNet

    network = WiNet()

    def forward(moving: Tensor, fixed: Tensor) -> Tensor:
        with torch.autocast(moving.device.type, precision, enabled=precision != torch.float32):
            output = network.output(moving, fixed)
            return exponential(output, SQUARINGS) if integrated else output

    return network, forward


def voxelmorph(precision: torch.dtype) -> tuple[nn.Module, Forward]:
    """MONAI's network with its default channels, without integration and warp."""
    from monai.networks.nets import VoxelMorphUNet

    network = VoxelMorphUNet(
        spatial_dims=3,
        in_channels=2,
        unet_out_channels=32,
        channels=(16, 32, 32, 32, 32, 32),
        final_conv_channels=(16, 16),
    )

    def forward(moving: Tensor, fixed: Tensor) -> Tensor:
        pair = torch.stack([moving, fixed], -4)
        with torch.autocast(moving.device.type, precision, enabled=precision != torch.float32):
            return network(pair)

    return network, forward


CASES: dict[str, Callable[[], tuple[nn.Module, Forward]]] = {
    "WiNet": lambda: winet(torch.float32, integrated=False),
    "WiNet, bfloat16": lambda: winet(torch.bfloat16, integrated=False),
    "WiNet and 7 squarings": lambda: winet(torch.float32, integrated=True),
    "MONAI VoxelMorphUNet": lambda: voxelmorph(torch.float32),
    "MONAI VoxelMorphUNet, bfloat16": lambda: voxelmorph(torch.bfloat16),
}


def measure(name: str, shape: tuple[int, ...], rounds: int, device: str) -> dict[str, Any]:
    """One case, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, forward = CASES[name]()
    network.to(device).eval()
    moving, fixed = torch.rand(2, 1, *shape, device=device)
    empty, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    with torch.inference_mode():
        forward(moving[..., :32, :32, :32], fixed[..., :32, :32, :32])
        for _ in range(rounds):
            begin = time.process_time()
            found = forward(moving, fixed)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = (peak - empty) / 2**20 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30
    return {
        "name": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "cpu_seconds": min(seconds),
        "peak_gib_beyond_inputs": memory,
        "output": list(found.shape),
    }


def main(given: list[str] | None = None) -> None:
    """Measure all cases, each in its process, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--case", choices=list(CASES), help="only this one, printed")
    options = parser.parse_args(given)
    if options.case:
        print(json.dumps(measure(options.case, tuple(options.shape), options.rounds, options.device)))
        return
    rows = []
    for name in CASES:
        call = [sys.executable, __file__, "--case", name, "--rounds", str(options.rounds)]
        call += ["--device", options.device, "--shape", *map(str, options.shape)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    record = {
        **recorded(1, "monai"),
        "device": options.device,
        "shape": list(options.shape),
        "networks": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
