"""The subspace certificate against general SVDs; the scale case: 256x256, 40 random masks of 30 %, k = 32.

Rows: ``pytest -p benchmark benchmarks/learnability.py`` (32x32, where every contender can run).
Summary: ``python benchmarks/learnability.py`` writes ``benchmarks/results/learnability.json``: all
contenders at small sizes in one run, then the scale case, each in its own process for its peak memory.

The question is always the same: the null space of stack_g (I - Π_g) A_g, which must have dimension k.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import runpy
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.identifiability import check
from invlearn.identifiability.certificates import random_subspace
from invlearn.identifiability.nullspace import _diagonal, _lanczos, orth
from invlearn.identifiability.setting import Setting
from invlearn.physics import OperatorFamily

OPERATORS, KEPT, RESULTS = 40, 0.3, Path(__file__).parent / "results" / "learnability.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
THREADS = 2


class Problem:
    """Random masks and a random subspace."""

    def __init__(self, size: int, dimension: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        masks = torch.rand(OPERATORS, size, size, generator=generator) < KEPT
        self.family = OperatorFamily.from_masks(masks)
        self.setting = Setting(self.family)
        self.dimension = dimension
        self.basis = random_subspace(self.setting, dimension, generator)
        self.elements = self.setting.elements()

    def rows(self) -> list[np.ndarray]:
        """The blocks (I - Π_g) A_g restricted to the kept pixels, as matrices."""
        blocks = []
        for e in self.elements:
            seen = self.setting.diagonal(e).nonzero().squeeze(1)
            q = orth(self.basis[:, seen].T).numpy()
            block = np.zeros((len(seen), self.setting.n))
            block[np.arange(len(seen)), seen.numpy()] = 1
            block[:, seen.numpy()] -= q @ q.T
            blocks.append(block)
        return blocks


def closed_form(problem: Problem) -> dict[str, Any]:
    """invlearn, the route it takes for masks."""
    found = _diagonal(problem.setting, problem.elements, [problem.basis], [0] * OPERATORS)
    return {"nullity": found.nullity, "gap": found.gap}


def matrix_free(problem: Problem) -> dict[str, Any]:
    """invlearn, the route for operators without a structure."""
    found = _lanczos(problem.setting, problem.elements, [problem.basis], [0] * OPERATORS)
    return {"nullity": found.nullity, "gap": found.gap, "applications": found.applications}


def dense_svd(problem: Problem) -> dict[str, Any]:
    """numpy.linalg.svd of the stacked matrix."""
    s = np.linalg.svd(np.concatenate(problem.rows()), compute_uv=False)
    return {"nullity": int((s <= 1e-12 * s[0]).sum()) + max(0, problem.setting.n - len(s))}


def scipy_svds(problem: Problem) -> dict[str, Any]:
    """scipy.sparse.linalg.svds, smallest k + 1 (LOBPCG: ARPACK misses copies of a multiple value)."""
    from scipy.sparse.linalg import LinearOperator, svds

    parts = []
    for e in problem.elements:
        seen = problem.setting.diagonal(e).nonzero().squeeze(1)
        parts.append((seen.numpy(), orth(problem.basis[:, seen].T).numpy()))
    edges = np.cumsum([0, *(len(seen) for seen, _ in parts)])
    n, applications = problem.setting.n, 0

    def forward(x: np.ndarray) -> np.ndarray:
        nonlocal applications
        x = x.reshape(n, -1)
        applications += x.shape[1]
        return np.concatenate([x[seen] - q @ (q.T @ x[seen]) for seen, q in parts])

    def adjoint(y: np.ndarray) -> np.ndarray:
        y = y.reshape(edges[-1], -1)
        out = np.zeros((n, y.shape[1]))
        for (seen, q), lo, hi in zip(parts, edges[:-1], edges[1:], strict=True):
            out[seen] += y[lo:hi] - q @ (q.T @ y[lo:hi])
        return out

    stack = LinearOperator((edges[-1], n), matvec=forward, rmatvec=adjoint, matmat=forward, rmatmat=adjoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it goes on past the accuracy that it can reach
        s = svds(stack, problem.dimension + 1, which="SM", solver="lobpcg", return_singular_vectors=False,
                 maxiter=200, tol=1e-6, random_state=np.random.default_rng(0))  # fmt: skip
    return {"nullity": int((np.sort(s) <= 1e-6).sum()), "applications": applications}


CONTENDERS: dict[str, Callable[[Problem], dict[str, Any]]] = {
    "invlearn closed form": closed_form,
    "invlearn matrix-free": matrix_free,
    "numpy.linalg.svd": dense_svd,
    "scipy.sparse.linalg.svds": scipy_svds,
}


@pytest.fixture(scope="module")
def small() -> Problem:
    """32x32, k = 8."""
    return Problem(32, 8)


@pytest.mark.parametrize("name", CONTENDERS)
def test_certificate(benchmark: Any, small: Problem, name: str) -> None:
    """One row a contender; the answer must be right to count."""
    result = benchmark.pedantic(CONTENDERS[name], args=(small,), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(result)
    assert result["nullity"] == small.dimension


def _scale(route: str, size: int, dimension: int, pipe: Any) -> None:
    torch.set_num_threads(THREADS)
    problem = Problem(size, dimension)
    start, cpu = time.perf_counter(), time.process_time()
    if route == "check":
        report = check(problem.family, dimension=dimension)
        assert report.certificate is not None
        result = {
            "verdict": report.verdict,
            "nullity": report.certificate.nullity,
            "gap": report.certificate.gap,
        }
    else:
        result = CONTENDERS[route](problem)
    result["seconds"] = round(time.perf_counter() - start, 2)
    result["cpu_seconds"] = round(time.process_time() - cpu, 2)
    result["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    pipe.send(result)


def apart(route: str, size: int, dimension: int, limit: float) -> dict[str, Any]:
    """One measurement in a fresh process, ended after `limit` seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_scale, args=(route, size, dimension, there))
    process.start()
    result: dict[str, Any] = here.recv() if here.poll(limit) else {"stopped_after_seconds": limit}
    process.terminate()
    process.join()
    return result


def compare(rounds: int) -> dict[str, Any]:
    """All contenders at small sizes, in turns, as medians and as ratios to the closed form."""
    out: dict[str, Any] = {}
    for size, dimension in ((16, 4), (32, 8)):
        problem = Problem(size, dimension)
        times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        answers: dict[str, dict[str, Any]] = {}
        for _ in range(rounds):
            for name, run in CONTENDERS.items():
                start = time.perf_counter()
                answers[name] = run(problem)
                times[name].append(time.perf_counter() - start)
        base = statistics.median(times["invlearn closed form"])
        out[f"{size}x{size}, k = {dimension}"] = {
            name: {
                "median_seconds": round(statistics.median(t), 4),
                "ratio_to_closed_form": round(statistics.median(t) / base, 2),
                **answers[name],
            }
            for name, t in times.items()
        }
    return out


def main() -> None:
    """Measure and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=240, help="seconds for one contender at full scale")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    summary = {
        **recorded(THREADS, "scipy"),
        "small": compare(args.rounds),
        "scale": {
            "case": f"256x256, {OPERATORS} random masks of {KEPT:.0%}, k = 32",
            "limits": "60 s, 2 GB, 300 applications of the family (matrix-free)",
            "check (verdict, with 3 ghost tests)": apart("check", 256, 32, args.limit),
            **{name: apart(name, 256, 32, args.limit) for name in CONTENDERS if name != "numpy.linalg.svd"},
            "numpy.linalg.svd": {
                "not_run": f"the stacked matrix alone needs {OPERATORS * KEPT * 65536**2 * 8 / 1e9:.0f} GB"
            },
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
