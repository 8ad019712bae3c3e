"""`segment` beside MONAI's sliding-window inference: voxels a second, and peak memory from 256³ to 1024³.

``python benchmarks/segmentation.py`` writes ``benchmarks/results/segmentation.json``. Each case runs in a
process of its own, so that its peak memory is its own. MONAI's UNet gets the channels with which it takes as
many multiply-adds a voxel as ours; both see float32 and random weights, all voxels are computed (no
background is left out), and MONAI's windows are 96³ with its default overlap of a quarter and Gaussian
weights. On a slow machine, ``--layer`` times one layer of its windows and multiplies by their number (its
peak memory is then not that of a whole stack). The memory cases (alone with ``--memory``) run the command on
Zarr stacks that hold two neurons in photon noise, with the weights that ship and, unlike the others, with the
allocator as it is; with ``--trace`` once more with the tracing, killed in the middle and gone on with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results" / "segmentation.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
VOXEL = (1.0, 1.0, 1.0)
WIDTH = 8
ROI, OVERLAP = 96, 0.25
CHUNK, DARK = 128, 4  # of the stacks of the memory cases: voxels, and photons a voxel
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


def multiply_adds(network: nn.Module, side: int = 64) -> float:
    """Of all convolutions, a voxel of the input."""
    total = 0.0

    def count(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        points = (
            given[0].numel() / given[0].shape[1]
            if isinstance(module, nn.ConvTranspose3d)
            else out.numel() / out.shape[1]
        )
        total += points * module.weight.numel()

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 1, side, side, side))
    for hook in hooks:
        hook.remove()
    return total / side**3


def ours() -> nn.Module:
    """A WaveUNet3D with random weights."""
    from invlearn.neuro.waveunet import WaveUNet3D

    torch.manual_seed(0)
    return WaveUNet3D(width=WIDTH).eval()


def theirs(target: float) -> tuple[nn.Module, tuple[int, ...]]:
    """MONAI's UNet whose multiply-adds are nearest to a number."""
    from monai.networks.nets import UNet

    def make(channels: tuple[int, ...]) -> nn.Module:
        torch.manual_seed(0)
        return UNet(3, 1, 2, channels, (2, 2, 2, 2), num_res_units=2, norm="batch").eval()

    scales = {}
    for w in range(8, 64, 2):
        channels = (w, 2 * w, 4 * w, 8 * w, 8 * w)
        scales[channels] = abs(multiply_adds(make(channels)) - target)
        if multiply_adds(make(channels)) > 1.5 * target:
            break
    best = min(scales, key=scales.__getitem__)
    return make(best), best


def with_invlearn(side: int) -> Callable[[np.ndarray], Any]:
    """Our assembly, of all voxels."""
    from invlearn.neuro import cubes, prediction
    from invlearn.neuro.segmentation import segment
    from invlearn.training import save_network

    folder = tempfile.mkdtemp()
    save_network(f"{folder}/w.safetensors", ours(), {})
    prediction.is_background = lambda x, normaliser: False
    assert cubes.is_background is not prediction.is_background
    return lambda x: segment(x, weights=f"{folder}/w.safetensors", voxel_size=VOXEL).mask


def with_monai(side: int) -> Callable[[np.ndarray], Any]:
    """MONAI's assembly."""
    from monai.inferers import sliding_window_inference

    network, _ = theirs(multiply_adds(ours()))

    def run(x: np.ndarray) -> Tensor:
        given = torch.from_numpy(x.astype(np.float32) / 255)[None, None]
        with torch.inference_mode():
            found = sliding_window_inference(given, (ROI,) * 3, 1, network, overlap=OVERLAP, mode="gaussian")
        return found.argmax(1)[0].bool()

    return run


def noise(side: int) -> np.ndarray:
    """Something to look at."""
    return np.random.default_rng(0).integers(0, 255, (side,) * 3, dtype=np.uint8)


def throughput(name: str, side: int, threads: int, layer: bool = False) -> dict[str, Any]:
    """Time and memory of one assembly, in this process; of one layer of windows alone if asked for."""
    torch.set_num_threads(threads)
    run = {"invlearn": with_invlearn, "monai": with_monai}[name](side)
    x = noise(side)
    layers = math.ceil((side - ROI) / (ROI * (1 - OVERLAP))) + 1 if layer else 1
    x = x[:ROI] if layer else x
    run(x[:64, :64, :64])
    wall, cpu = time.perf_counter(), time.process_time()
    run(x)
    wall, cpu = layers * (time.perf_counter() - wall), layers * (time.process_time() - cpu)
    return {
        "name": name,
        "measured": f"one of {layers} layers of windows" if layer else "all",
        "side": side,
        "threads": threads,
        "seconds": wall,
        "cpu_seconds": cpu,
        "voxels_per_second": side**3 / wall,
        "voxels_per_cpu_second": side**3 / cpu,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def sparse(path: Path, side: int) -> None:
    """A Zarr stack with photon noise and a simulated neuron in one corner and in the middle."""
    from invlearn.io.stacks import create_stack
    from invlearn.neuro.synthesis import simulate

    target = create_stack(path, (side,) * 3, np.uint8, voxel_size=VOXEL, chunks=(CHUNK,) * 3)
    sample = simulate((64, 96, 96), seed=1, noise="low").stack.astype(np.uint8)
    rng = np.random.default_rng(0)
    for z, y, x in itertools.product(range(0, side, CHUNK), repeat=3):
        block = rng.poisson(DARK, (CHUNK,) * 3).astype(np.uint8)
        target[z : z + CHUNK, y : y + CHUNK, x : x + CHUNK] = block
    for corner in (0, side // 2):
        part = (slice(corner, corner + 64), slice(corner, corner + 96), slice(corner, corner + 96))
        target[part] = np.maximum(target[part], sample)


def memory(side: int, trace: bool) -> dict[str, Any]:
    """Peak memory and time of `invlearn segment`, from Zarr to Zarr; with tracing, in two goes."""
    with tempfile.TemporaryDirectory() as folder:
        stack, out = Path(folder, "s.zarr"), Path(folder, "out")
        subprocess.run([sys.executable, __file__, "--make", stack, "--side", str(side)], check=True)
        command = Path(sys.executable).with_name("invlearn")
        given = [command, "segment", stack, "-o", out, "--quiet", *(["--trace"] if trace else [])]
        plain = {key: value for key, value in os.environ.items() if key not in ALLOCATOR}
        used = []
        for half in (True, False) if trace else (False,):
            child = os.posix_spawn(command, given, {**plain, "OMP_NUM_THREADS": "1"})
            if half:
                kill_in_the_middle(child, out.with_name(".out.cubes"), side)
            _, status, one = os.wait4(child, 0)
            used.append(one)
            if status and not half:
                code = os.waitstatus_to_exitcode(status)
                raise RuntimeError(f"{' '.join(map(str, given))}: exit code {code}")
        found = json.loads((out / "run.json").read_text())["metrics"]
    return {
        "name": "memory",
        "side": side,
        "trace": trace,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in used),
        "parts": found["seconds"],
        "cubes": found["cubes"],
        "cube": found["plan"]["cube"],
        "foreground": found["foreground_voxels"],
        "peak_gib": max(one.ru_maxrss for one in used) / 2**20,
    }


def kill_in_the_middle(child: int, kept: Path, side: int) -> None:
    """Kill a command when it has finished half of its cubes."""
    from invlearn.neuro.cubes import CubeGrid

    while len(list(kept.glob("*.npy"))) < len(CubeGrid.for_stack((side,) * 3)) / 2:
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)


def in_a_process(kept: Path, *arguments: str) -> dict[str, Any]:
    """One case with the allocator's thresholds fixed, kept in a file: a stopped run goes on after it."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for row in rows:
        if row["arguments"] == list(arguments):
            return row
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **ALLOCATOR},
    )
    row = {"arguments": list(arguments), **json.loads(done.stdout.splitlines()[-1])}
    with kept.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    print(row, flush=True)
    return row


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """The throughput cases, as the file has them."""
    own = multiply_adds(ours())
    network, channels = theirs(own)
    threads = ("--threads", str(options.threads))
    layer = ["--layer"] if options.layer else []
    rows = [
        in_a_process(options.kept, "--case", name, "--side", str(options.side), *threads, *more)
        for name, more in (("invlearn", []), ("monai", layer))
    ]
    return {
        **recorded(options.threads, "monai", "invlearn"),
        "multiply_adds_a_voxel": {"invlearn": own, "monai": multiply_adds(network)},
        "monai": {"channels": channels, "roi": ROI, "overlap": OVERLAP},
        "throughput": rows,
        "ratio_of_cpu_seconds": rows[1]["cpu_seconds"] / rows[0]["cpu_seconds"],
    }


def memories(options: argparse.Namespace) -> dict[str, Any]:
    """The memory cases, likewise."""
    rows = [
        in_a_process(options.kept, "--case", "memory", "--side", str(side), *more)
        for more in ([], ["--trace"])[: 1 + options.trace]
        for side in options.sides
    ]
    return {"memory_about": recorded(1, "zarr", "invlearn"), "memory": rows}


def main(given: list[str] | None = None) -> None:
    """Measure all cases, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="of the throughput cases")
    parser.add_argument("--sides", type=int, nargs="*", default=(256, 512, 1024), help="of the memory cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--kept", type=Path, default=RESULTS.with_suffix(".jsonl"))
    parser.add_argument("--layer", action="store_true", help="time one layer of MONAI's windows, not all")
    parser.add_argument("--memory", action="store_true", help="the memory cases alone; the rest stays")
    parser.add_argument("--trace", action="store_true", help="the memory cases with tracing, too")
    parser.add_argument("--case", choices=("invlearn", "monai", "memory"), help="only this one, printed")
    parser.add_argument("--make", type=Path, help="only write the stack of a memory case")
    options = parser.parse_args(given)
    if options.make:
        sparse(options.make, options.side)
        return
    if options.case:
        row = (
            memory(options.side, options.trace)
            if options.case == "memory"
            else throughput(options.case, options.side, options.threads, options.layer)
        )
        print(json.dumps(row))
        return
    before = json.loads(options.json.read_text(encoding="utf-8")) if options.memory else speed(options)
    record = {**before, **memories(options)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
