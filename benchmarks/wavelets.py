"""Speed and memory of the 3D wavelet transform against its peers, on the processor.

Rows: ``pytest -p benchmark benchmarks/wavelets.py``, each with its ratio to a plain copy.
Summary: ``python benchmarks/wavelets.py`` measures all contenders of a cell in turns, round by round, so
that they meet the same load, and writes ``benchmarks/results/wavelets.json``.

The C library maps and unmaps every tensor of 32 MiB anew unless its thresholds are raised, and then a
benchmark measures page faults. The script restarts itself with the thresholds raised for everyone; before
pytest, set ``MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
if __name__ == "__main__" and any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})

import numpy as np  # noqa: E402
import ptwt  # noqa: E402
import pytest  # noqa: E402
import pywt  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from invlearn.wavelets import band_names, dwt, idwt  # noqa: E402

THREADS = 2
TENSORS = {"A": (1, 16, 32, 128, 128), "B": (1, 1, 128, 128, 128)}
WAVELETS = ("haar", "db2", "bior2.2", "bior3.3")
OPERATIONS = ("forward", "inverse", "forward+backward")
NAMES = band_names(3)
RESULTS = Path(__file__).parent / "results" / "wavelets.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]

Bands = list[Tensor]


class InvLearn:
    def forward(self, x: Tensor, wavelet: str) -> Bands:
        return list(dwt(x, wavelet, 3).values())

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        return idwt(dict(zip(NAMES, bands, strict=True)), wavelet, 3)


class Ptwt:
    """`ptwt`, mode "periodic": it has no periodization, so that its bands are larger for long filters."""

    def forward(self, x: Tensor, wavelet: str) -> Bands:
        low, details = ptwt.wavedec3(x, wavelet, mode="periodic", level=1)
        return [low, *(details[name] for name in NAMES[1:])]

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        return ptwt.waverec3((bands[0], dict(zip(NAMES[1:], bands[1:], strict=True))), wavelet)


class Separable:
    """Three circular strided convolutions, one an axis, and their transposes."""

    def _weights(self, wavelet: str, inverse: bool, groups: int, axis: int) -> Tensor:
        wave = pywt.Wavelet(wavelet)
        taps = (wave.rec_lo, wave.rec_hi) if inverse else (wave.dec_lo[::-1], wave.dec_hi[::-1])
        shape = [1, 1, 1]
        shape[axis] = -1
        return torch.tensor(taps, dtype=torch.float32).view(2, 1, *shape).repeat(groups, 1, 1, 1, 1)

    def forward(self, x: Tensor, wavelet: str) -> Bands:
        half = pywt.Wavelet(wavelet).dec_len // 2
        y = x.reshape(-1, 1, *x.shape[-3:])
        for axis in range(3):
            groups, stride, pad = y.shape[1], [1, 1, 1], [0] * 6
            stride[axis] = 2
            pad[4 - 2 * axis] = pad[5 - 2 * axis] = half - 1
            y = F.conv3d(
                F.pad(y, pad, mode="circular"),
                self._weights(wavelet, False, groups, axis),
                stride=stride,
                groups=groups,
            )
        return list(y.view(*x.shape[:-3], 8, *y.shape[-3:]).unbind(-4))

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        half = pywt.Wavelet(wavelet).dec_len // 2
        lead, size = bands[0].shape[:-3], bands[0].shape[-3:]
        y = torch.stack(bands, -4).reshape(-1, 8, *size)
        for axis in (2, 1, 0):
            groups, stride, pad = y.shape[1] // 2, [1, 1, 1], [0] * 6
            stride[axis] = 2
            count = y.shape[2 + axis]
            reach = half // 2 if half > 1 else 0
            pad[4 - 2 * axis] = pad[5 - 2 * axis] = reach
            y = F.conv_transpose3d(
                F.pad(y, pad, mode="circular"),
                self._weights(wavelet, True, groups, axis),
                stride=stride,
                groups=groups,
            )
            y = y.narrow(2 + axis, 2 * reach + half - 1, 2 * count)
        return y.reshape(*lead, *y.shape[-3:])


class Dense:
    """Products with the periodic transform matrix of each axis, made once."""

    def __init__(self) -> None:
        self._matrices: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def _pair(self, wavelet: str, n: int) -> tuple[Tensor, Tensor]:
        if (wavelet, n) not in self._matrices:
            analysis = np.concatenate(pywt.dwt(np.eye(n), wavelet, "periodization", axis=0))
            half = n // 2
            eye = np.eye(n)
            synthesis = pywt.idwt(eye[:half], eye[half:], wavelet, "periodization", axis=0)
            self._matrices[wavelet, n] = torch.tensor(analysis).float(), torch.tensor(synthesis).float()
        return self._matrices[wavelet, n]

    def _apply(self, x: Tensor, wavelet: str, which: int) -> Tensor:
        d, h, w = (self._pair(wavelet, n)[which] for n in x.shape[-3:])
        y = torch.matmul(h, torch.matmul(x, w.T))
        return torch.matmul(d, y.flatten(-2)).view(x.shape)

    def forward(self, x: Tensor, wavelet: str) -> Bands:
        y = self._apply(x, wavelet, 0)
        return [c for a in y.chunk(2, -3) for b in a.chunk(2, -2) for c in b.chunk(2, -1)]

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        rows = [torch.cat(bands[k : k + 2], -1) for k in range(0, 8, 2)]
        planes = [torch.cat(rows[k : k + 2], -2) for k in range(0, 4, 2)]
        return self._apply(torch.cat(planes, -3), wavelet, 1)


class Polyphase:
    """Weighted sums of rolled views of the even and the odd samples."""

    def forward(self, x: Tensor, wavelet: str) -> Bands:
        wave = pywt.Wavelet(wavelet)
        half = wave.dec_len // 2
        bands = [x]
        for axis in (-3, -2, -1):
            split = []
            for band in bands:
                phases = band.unflatten(axis, (-1, 2)).unbind(axis)
                for taps in (wave.dec_lo, wave.dec_hi):
                    total: Any = 0
                    for j, tap in enumerate(taps):
                        if tap:
                            offset = half - j
                            phase = phases[offset % 2]
                            shift = -(offset // 2)
                            total = total + tap * (phase.roll(shift, axis) if shift else phase)
                    split.append(total)
            bands = split
        return bands

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        wave = pywt.Wavelet(wavelet)
        half = wave.dec_len // 2
        for axis in (-1, -2, -3):
            merged = []
            for pair in zip(bands[0::2], bands[1::2], strict=True):
                phases: list[Any] = [0, 0]
                for band, taps in zip(pair, (wave.rec_lo, wave.rec_hi), strict=True):
                    for j, tap in enumerate(taps):
                        if tap:
                            offset = j - half + 1
                            shift = offset // 2
                            rolled = band.roll(shift, axis) if shift else band
                            phases[offset % 2] = phases[offset % 2] + tap * rolled
                at = pair[0].ndim + axis + 1
                merged.append(torch.stack(phases, at).flatten(at - 1, at))
            bands = merged
        return bands[0]


class Butterfly:
    """Sums and differences of strided slices: haar alone."""

    def forward(self, x: Tensor, wavelet: str) -> Bands:
        bands = [x]
        for axis, last in ((-3, False), (-2, False), (-1, True)):
            split = []
            for band in bands:
                even, odd = band.unflatten(axis, (-1, 2)).unbind(axis)
                split += [even + odd, even - odd]
            bands = [band * 8**-0.5 for band in split] if last else split
        return bands

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        first = bands[0]
        out = first.new_empty(*first.shape[:-3], *(2 * n for n in first.shape[-3:]))
        low, high = bands[:4], bands[4:]
        planes = (
            [a + b for a, b in zip(low, high, strict=True)],
            [a - b for a, b in zip(low, high, strict=True)],
        )
        for z, y in itertools.product(range(2), range(2)):
            p = planes[z]
            a, d = (p[0] - p[2], p[1] - p[3]) if y else (p[0] + p[2], p[1] + p[3])
            torch.mul(a + d, 8**-0.5, out=out[..., z::2, y::2, 0::2])
            torch.mul(a - d, 8**-0.5, out=out[..., z::2, y::2, 1::2])
        return out


class PyWavelets:
    def forward(self, x: Tensor, wavelet: str) -> Bands:
        bands = pywt.dwtn(x.numpy(), wavelet, "periodization", axes=(-3, -2, -1))
        return [torch.from_numpy(bands[name]) for name in NAMES]

    def inverse(self, bands: Bands, wavelet: str) -> Tensor:
        arrays = {name: band.numpy() for name, band in zip(NAMES, bands, strict=True)}
        return torch.from_numpy(pywt.idwtn(arrays, wavelet, "periodization", axes=(-3, -2, -1)))


CONTENDERS: dict[str, Any] = {
    "invlearn": InvLearn(),
    "ptwt": Ptwt(),
    "separable convolution": Separable(),
    "cached dense product": Dense(),
    "polyphase views": Polyphase(),
    "haar butterfly": Butterfly(),
    "PyWavelets": PyWavelets(),
}


def runs(contender: str, wavelet: str, operation: str) -> bool:
    if contender == "haar butterfly":
        return wavelet == "haar"
    return not (contender == "PyWavelets" and operation == "forward+backward")


@lru_cache(maxsize=1)
def signal(tensor: str) -> Tensor:
    return torch.rand(TENSORS[tensor], generator=torch.Generator().manual_seed(0))


@lru_cache(maxsize=1)
def reference(tensor: str, wavelet: str) -> dict[str, np.ndarray]:
    return pywt.dwtn(signal(tensor).numpy(), wavelet, "periodization", axes=(-3, -2, -1))


def task(contender: str, tensor: str, wavelet: str, operation: str) -> Callable[[], Any]:
    """One call of a cell, checked: the inverse restores the signal, the forward equals PyWavelets."""
    peer = CONTENDERS[contender]
    x = signal(tensor)
    bands = [band.detach() for band in peer.forward(x, wavelet)]
    if contender != "ptwt":
        for name, band in zip(NAMES, bands, strict=True):
            np.testing.assert_allclose(band, reference(tensor, wavelet)[name], atol=2e-5)
    if operation == "forward":
        return lambda: peer.forward(x, wavelet)
    if operation == "inverse":
        torch.testing.assert_close(peer.inverse(bands, wavelet), x, rtol=0, atol=1e-4)
        return lambda: peer.inverse(bands, wavelet)
    x = x.clone().requires_grad_()
    weights = [torch.ones_like(band) for band in bands]
    return lambda: torch.autograd.grad(peer.forward(x, wavelet), x, weights)


def copier(tensor: str, operation: str) -> Callable[[], None]:
    """A plain copy of what an operation must read and write at least (twice so with the backward)."""
    source, target = torch.rand(TENSORS[tensor]), torch.empty(TENSORS[tensor])
    times = 2 if operation == "forward+backward" else 1

    def copy() -> None:
        for _ in range(times):
            target.copy_(source)

    copy()
    return copy


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("tensor", TENSORS)
def test_transform(benchmark: Any, tensor: str, wavelet: str, operation: str, contender: str) -> None:
    if not runs(contender, wavelet, operation):
        pytest.skip("not defined for this contender")
    call, copy = task(contender, tensor, wavelet, operation), copier(tensor, operation)
    copies: list[float] = []
    benchmark.group = f"{tensor} {wavelet} {operation}"
    benchmark.pedantic(call, setup=lambda: copies.append(seconds(copy)), rounds=5, warmup_rounds=1)
    benchmark.extra_info["ratio_to_copy"] = round(benchmark.stats.stats.median / statistics.median(copies), 2)


def measure_cell(tensor: str, wavelet: str, operation: str, rounds: int) -> dict[str, Any]:
    """Medians over rounds in which every contender and the copy run once, in turns."""
    names = [name for name in CONTENDERS if runs(name, wavelet, operation)]
    calls = {name: task(name, tensor, wavelet, operation) for name in names}
    calls["copy"] = copier(tensor, operation)
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in names if name != "invlearn"), key=medians.__getitem__)
    return {
        "tensor": tensor,
        "wavelet": wavelet,
        "operation": operation,
        "milliseconds": {name: round(1e3 * value, 3) for name, value in medians.items()},
        "ratio_to_copy": {name: round(medians[name] / medians["copy"], 2) for name in names},
        "best_contender": best,
        "speedup": round(medians[best] / medians["invlearn"], 2),
    }


MEMORY = """
import json, sys, torch
from invlearn.wavelets import dwt, idwt

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

def ratio(function, *arguments):
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = resident("VmRSS")
    result = function(*arguments)
    return result, round((x.nbytes + resident("VmHWM") - before) / (2 * x.nbytes), 3)

torch.set_num_threads(2)
ratios = {}
for wavelet in ("haar", "bior3.3"):
    x = torch.ones(8, 8, 8)
    idwt(dwt(x, wavelet, 3), wavelet, 3)
    x = torch.ones(1, 16, 64, 128, 128)
    bands, forward = ratio(dwt, x, wavelet, 3)
    y, inverse = ratio(idwt, bands, wavelet, 3)
    ratios[wavelet] = {"forward": forward, "inverse": inverse}
    del bands, y
print(json.dumps(ratios))
"""


def peak_memory() -> dict[str, dict[str, float]]:
    """Peak of (input + output + temporaries) over (input + output), in a process of its own."""
    plain = {key: value for key, value in os.environ.items() if key not in ALLOCATOR}
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], env=plain, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def float64_error() -> float:
    """Largest relative deviation from PyWavelets over the benchmark's wavelets, in float64."""
    worst = 0.0
    x = torch.rand(TENSORS["B"], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for wavelet in WAVELETS:
        expected = pywt.dwtn(x.numpy(), wavelet, "periodization", axes=(-3, -2, -1))
        bands = dwt(x, wavelet, 3)
        for name, band in bands.items():
            worst = max(
                worst, float(np.abs(band.numpy() - expected[name]).max() / np.abs(expected[name]).max())
            )
        back = pywt.idwtn(expected, wavelet, "periodization", axes=(-3, -2, -1))
        worst = max(worst, float(np.abs(idwt(bands, wavelet, 3).numpy() - back).max() / np.abs(back).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cells whose 'tensor wavelet operation' contains this")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    cells = []
    for tensor, wavelet, operation in itertools.product(TENSORS, WAVELETS, OPERATIONS):
        if options.only in f"{tensor} {wavelet} {operation}":
            cell = measure_cell(tensor, wavelet, operation, options.rounds)
            cells.append(cell)
            print(
                tensor,
                wavelet,
                operation,
                cell["speedup"],
                cell["best_contender"],
                cell["milliseconds"],
                flush=True,
            )
    speedups = [cell["speedup"] for cell in cells]
    summary = {
        **recorded(THREADS, "numba", "PyWavelets", "ptwt"),
        "tensors": TENSORS,
        "dtype": "float32",
        "rounds": options.rounds,
        "load": f"{os.getloadavg()[0]:.1f} runnable processes on average at the end, the benchmark included",
        "statistic": "median over rounds in which all contenders and the copy run in turns",
        "geometric_mean_speedup": round(math.exp(statistics.fmean(map(math.log, speedups))), 2),
        "smallest_speedup": min(speedups),
        "float64_relative_error": float64_error(),
        "peak_memory_over_input_and_output": peak_memory(),
        "cuda": "not yet measured",
        "cells": cells,
    }
    text = json.dumps({k: v for k, v in summary.items() if k != "cells"}, indent=1)[:-2]
    rows = ",\n".join("  " + json.dumps(cell) for cell in cells)
    options.output.write_text(f'{text},\n "cells": [\n{rows}\n ]\n}}\n')
    print({k: summary[k] for k in ("geometric_mean_speedup", "smallest_speedup")})


if __name__ == "__main__":
    main()
