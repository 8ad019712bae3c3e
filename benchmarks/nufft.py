"""Speed and accuracy of the non-uniform FFT against bare FINUFFT plans and against other libraries.

256 x 256 pixels, 48 spiral arms of 1000 samples, 8 coils x 5 subspace coefficients, complex64, CPU.

Rows: ``pytest -p benchmark benchmarks/nufft.py``. Summary: ``python benchmarks/nufft.py`` lets all
contenders of a row run in turns, round by round, so that they meet the same load. Times are minima over the
rounds of the processor time, which a busy machine disturbs less than the clock; at one thread, the default,
they are the time of an idle machine. Ratios come from one run. It writes ``benchmarks/results/nufft.json``.

mrpro and torchkbnufft are measured where they can be imported and skipped with a word where not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import runpy
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import finufft
import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.physics.nufft import NonUniformFFT, apply_toeplitz, toeplitz_kernel

THREADS = 1
SIZE, ARMS, SAMPLES, COILS, RANK = 256, 48, 1000, 8, 5
SHAPE = (SIZE, SIZE)
ACCURACIES = (1e-3, 1e-4, 1e-6)
RESULTS = Path(__file__).parent / "results" / "nufft.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
PEERS = ("mrpro", "torchkbnufft")

Call = Callable[[], Tensor]
_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")


@lru_cache(maxsize=1)
def trajectory() -> Tensor:
    """48 Archimedean arms, 8 turns each, `(48000, 2)` float64, cycles per pixel."""
    t = torch.linspace(0, 1, SAMPLES, dtype=torch.float64)
    angle = 2 * math.pi * (8 * t + torch.arange(ARMS)[:, None] / ARMS)
    return (0.49 * t[None, :, None] * torch.stack([angle.cos(), angle.sin()], -1)).flatten(0, 1)


def _numbers(*size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(COILS, RANK, *size, dtype=torch.complex64, generator=generator)


@lru_cache(maxsize=1)
def images() -> Tensor:
    return _numbers(*SHAPE, seed=0)


@lru_cache(maxsize=1)
def samples() -> Tensor:
    return _numbers(ARMS * SAMPLES, seed=1)


@lru_cache(maxsize=1)
def exact() -> dict[str, Tensor]:
    """Direct sums in double precision for the first image: all samples, all pixels."""
    k, x = trajectory(), images()[0, 0].to(torch.complex128)
    r = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    along_x = torch.exp(-2j * math.pi * k[:, :1] * r)
    along_y = torch.exp(-2j * math.pi * k[:, 1:] * r)
    y = samples()[0, 0].to(torch.complex128)
    forward = (along_y * (along_x @ x.T)).sum(1)
    return {
        "forward": forward,
        "adjoint": along_y.mH @ (y[:, None] * along_x.conj()),
        "normal": along_y.mH @ (forward[:, None] * along_x.conj()),
    }


def error(operation: str, found: Tensor) -> float:
    """Relative l2 error of the first image, after one real factor (libraries scale differently)."""
    wanted, first = exact()[operation], found.reshape(COILS * RANK, -1)[0].to(torch.complex128)
    wanted = wanted.flatten()
    factor = torch.vdot(first, wanted).real / first.norm() ** 2
    return float((factor * first - wanted).norm() / wanted.norm())


def ours(backend: str, eps: float) -> dict[str, Call]:
    operator = NonUniformFFT(trajectory(), SHAPE, eps=eps, backend=backend)
    return {
        "forward": lambda: operator(images()),
        "adjoint": lambda: operator.adjoint(samples()),
        "normal": lambda: operator.normal(images()),
    }


def bare(eps: float, dtype: str) -> dict[str, Call]:
    """FINUFFT plans with their default options, as a script would use them."""
    points = [np.ascontiguousarray(2 * np.pi * trajectory()[:, a].numpy()) for a in (1, 0)]
    if dtype == "complex64":
        points = [p.astype(np.float32) for p in points]
    plans = []
    for kind, sign in ((2, -1), (1, 1)):
        plan = finufft.Plan(kind, SHAPE, COILS * RANK, eps, sign, dtype, nthreads=torch.get_num_threads())
        plan.setpts(*points)
        plans.append(plan)
    x = images().reshape(-1, *SHAPE).numpy()
    y = samples().flatten(0, 1).numpy()

    def run(plan: Any, data: np.ndarray) -> Tensor:
        out = plan.execute(data.astype(dtype, copy=False))
        return torch.from_numpy(out.astype(np.complex64, copy=False))

    return {"forward": lambda: run(plans[0], x), "adjoint": lambda: run(plans[1], y)}


def mrpro() -> dict[str, Call]:
    # mrpro imports torchvision, whose CUDA build asks for its own operators beside a CPU build of torch
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _TORCHVISION.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    module = importlib.import_module("mrpro")
    k = 2 * math.pi * trajectory().float()
    operator = module.operators.NonUniformFastFourierOp(
        direction=(-2, -1),
        recon_matrix=SHAPE,
        encoding_matrix=SHAPE,
        traj=module.data.KTrajectory(
            kz=torch.zeros(1, 1, 1, 1, 1),
            ky=(k[:, 1] * SIZE / (2 * math.pi)).reshape(1, 1, 1, 1, -1),
            kx=(k[:, 0] * SIZE / (2 * math.pi)).reshape(1, 1, 1, 1, -1),
        ),
    )
    x, y = images().reshape(1, -1, 1, *SHAPE), samples().reshape(1, -1, 1, 1, ARMS * SAMPLES)
    gram = operator.gram
    return {
        "forward": lambda: operator(x)[0],
        "adjoint": lambda: operator.adjoint(y)[0],
        "normal": lambda: gram(x)[0],
    }


def torchkbnufft() -> dict[str, Call]:
    module = importlib.import_module("torchkbnufft")
    omega = 2 * math.pi * trajectory().T.flip(0).float().contiguous()
    there = module.KbNufft(im_size=SHAPE)
    back = module.KbNufftAdjoint(im_size=SHAPE)
    kernel = module.calc_toeplitz_kernel(omega, SHAPE)
    normal = module.ToepNufft()
    x, y = images().reshape(1, -1, *SHAPE), samples().reshape(1, -1, ARMS * SAMPLES)
    return {
        "forward": lambda: there(x, omega),
        "adjoint": lambda: back(y, omega),
        "normal": lambda: normal(x, kernel),
    }


def limits() -> dict[str, Call]:
    """What cannot be avoided: the FFTs of the padded images, and one pass over them."""
    padded = torch.randn(2 * SIZE, 2 * SIZE, dtype=torch.complex64)
    buffer = torch.empty_like(padded)

    def transforms() -> Tensor:
        for _ in range(COILS * RANK):
            # two FFTs of half the rows and all the columns: what zero padding leaves to do, there and back
            for _ in range(2):
                torch.fft.fft(padded[:SIZE])
                torch.fft.fft(padded)
        return padded

    def copies() -> Tensor:
        for _ in range(COILS * RANK):
            buffer.copy_(padded)
        return buffer

    return {"padded FFTs": transforms, "copy of the padded images": copies}


def contenders(eps: float) -> dict[str, dict[str, Call]]:
    """By name; peers that cannot be imported are left out with a word."""
    single = eps >= 1e-4
    dtype = "complex64" if single else "complex128"
    found = {
        "invlearn": ours("finufft", eps),
        "invlearn torch": ours("torch", eps),
        "finufft": bare(eps, dtype),
        # the accuracy that invlearn asks FINUFFT for, so that what comes out keeps eps
        "finufft eps/3": bare(eps / 3, dtype),
    }
    if not single:
        found["finufft complex64"] = bare(eps, "complex64")
    return found


def peers() -> dict[str, dict[str, Call]]:
    found = {}
    for name, make in (("mrpro", mrpro), ("torchkbnufft", torchkbnufft)):
        try:
            found[name] = make()
        except (ImportError, RuntimeError) as problem:  # torch's word for a torchvision of another build
            print(f"{name} is skipped: {problem}")
    return found


def subspace() -> dict[str, Call]:
    """The K x K normal operator, with random weights."""
    weights = torch.randn(RANK, ARMS * SAMPLES, dtype=torch.complex64)
    kernel = toeplitz_kernel(trajectory(), SHAPE, weights.conj()[:, None] * weights, eps=1e-6)
    kernel = kernel.to(torch.complex64)
    return {"subspace normal": lambda: apply_toeplitz(kernel, images(), mixing=True)}


def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Least seconds of processor time of each."""
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("operation", ["forward", "adjoint", "normal"])
@pytest.mark.parametrize("eps", ACCURACIES)
@pytest.mark.parametrize("name", ["invlearn", "invlearn torch", "finufft", "finufft eps/3", *PEERS])
def test_transform(benchmark: Any, name: str, eps: float, operation: str) -> None:
    calls = {**contenders(eps), **(peers() if name in PEERS else {})}.get(name, {})
    if operation not in calls:
        pytest.skip(f"{name} has no {operation}, or is not installed")
    benchmark.group = f"{operation} {eps:g}"
    benchmark.extra_info["error"] = error(operation, calls[operation]())
    benchmark.pedantic(calls[operation], rounds=5, warmup_rounds=1)


def measure_transforms(eps: float, rounds: int) -> list[dict[str, Any]]:
    every = contenders(eps)
    rows = []
    for operation in ("forward", "adjoint"):
        calls = {name: c[operation] for name, c in every.items()}
        errors = {name: error(operation, call()) for name, call in calls.items()}
        seconds = in_turns(calls, rounds)
        # the same accuracy: the fastest bare plan that is as good as eps
        good = [name for name in calls if name.startswith("finufft") and errors[name] <= eps]
        best = min(good, key=seconds.__getitem__)
        rows.append(
            {
                "operation": operation,
                "eps": eps,
                "milliseconds": {name: round(1e3 * s, 1) for name, s in seconds.items()},
                "error": {name: float(f"{e:.2g}") for name, e in errors.items()},
                "bare_plan_that_keeps_eps": best,
                "ratio_to_it": round(seconds["invlearn"] / seconds[best], 3),
                "ratio_to_bare_same_request": round(seconds["invlearn"] / seconds["finufft eps/3"], 3),
            }
        )
        print(rows[-1], flush=True)
    return rows


def measure_normal(rounds: int) -> dict[str, Any]:
    mine = ours("finufft", 1e-3)
    calls = {
        "invlearn": mine["normal"],
        "invlearn forward + adjoint, eps 1e-3": lambda: (mine["forward"](), mine["adjoint"]())[1],
    }
    better = ours("finufft", 1e-4)
    calls["invlearn forward + adjoint, eps 1e-4"] = lambda: (better["forward"](), better["adjoint"]())[1]
    others = peers()
    calls |= {name: c["normal"] for name, c in others.items()}
    errors = {name: error("normal", call()) for name, call in calls.items() if "adjoint" not in name}
    for name, c in others.items():
        for operation in ("forward", "adjoint"):
            calls[f"{name} {operation}"] = c[operation]
            errors[f"{name} {operation}"] = error(operation, c[operation]())
    calls |= {**limits(), **subspace()}
    seconds = in_turns(calls, rounds)
    row = {
        "operation": "normal",
        "milliseconds": {name: round(1e3 * s, 1) for name, s in seconds.items()},
        "error": {name: float(f"{e:.2g}") for name, e in errors.items()},
        "ratio": {
            name: round(seconds["invlearn"] / s, 3) for name, s in seconds.items() if name != "invlearn"
        },
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for eps in ACCURACIES for row in measure_transforms(eps, options.rounds)]
    rows.append(measure_normal(options.rounds))
    summary = {
        **recorded(options.threads, "finufft", *PEERS),
        "problem": f"{SIZE}x{SIZE}, {ARMS} spiral arms x {SAMPLES} samples, batch {COILS}x{RANK}, complex64",
        "rounds": options.rounds,
        "load": f"{os.getloadavg()[0]:.1f} runnable processes on average at the end, the benchmark included",
        "statistic": "minimum processor time over rounds in which all contenders of a row run in turns; "
        "error: relative l2 against the direct sum, after one real factor",
        "cuda": "not yet measured",
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    options.output.write_text(f'{text},\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
