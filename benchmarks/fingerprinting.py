"""Matching of fingerprints, and the subspace normal operator: what they reach of the machine's rate.

``python benchmarks/fingerprinting.py`` measures all rows of a table in turns, round by round, so that they
meet the same load, and writes ``benchmarks/results/fingerprinting.json``. Times are the least of the rounds,
of processor time on one thread: other work on the machine then hardly shows.

Matching counts as many products as brute force needs: 4 K atoms voxels real operations. Its rate is compared
with that of a large square matrix product, and with the product of the same thin matrices (whose output is
the limit there: 8 bytes are written for 4 K operations).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import Tensor

from invlearn.physics.mri import Dictionary, FingerprintOperator, FingerprintSequence, Grid
from invlearn.physics.mri.fingerprint.search import AtomSearch, scores

RESULTS = Path(__file__).parent / "results" / "fingerprinting.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
SIZE, ATOM_STEP = 256, 0.029
ROUNDS = 3
NOISE = 0.02  # of the coefficients, relative to their length


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    found = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            found[name] = min(found[name], seconds(call))
    return found


def many_atoms(dictionary: Dictionary) -> Tensor:
    """Some 20,000 unit atoms `(P, K)`, interpolated on a finer grid."""
    fine = Grid.logarithmic(step=ATOM_STEP)
    i, j = fine.physical.nonzero().T
    low, high = dictionary.grid.t1[0], dictionary.grid.t1[-1]
    t1 = fine.t1[i].clamp(low, high)
    atoms, _ = dictionary.interpolate(t1, torch.minimum(fine.t2[j], t1))
    return (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).float()


def voxels(atoms: Tensor, count: int, noise: float) -> Tensor:
    """Noisy unit coefficients `(n, K)`."""
    g = torch.Generator().manual_seed(0)
    x = atoms[torch.randint(len(atoms), (count,), generator=g)].to(torch.complex64)
    x = x * torch.randn(count, 1, dtype=torch.complex64, generator=g).sgn()
    return x + noise * torch.randn(x.shape, dtype=torch.complex64, generator=g) / x.shape[1] ** 0.5


def brute_force(atoms: Tensor, x: Tensor) -> Tensor:
    return torch.cat([scores(atoms, part).argmax(1) for part in x.split(256)])


def thin_product(atoms: Tensor, x: Tensor) -> None:
    right = atoms.T.contiguous()
    for part in x.split(256):
        part.real @ right
        part.imag @ right


def matching(dictionary: Dictionary, rank: int, rounds: int) -> dict[str, Any]:
    """One row: 256² voxels against 20,000 atoms of `rank` coefficients."""
    atoms = many_atoms(dictionary)[:, :rank].contiguous()
    atoms = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    x = voxels(atoms, SIZE**2, NOISE)
    square = torch.randn(1500, 1500)
    search = AtomSearch(atoms)
    found = in_turns(
        {
            "square product": lambda: square @ square,
            "thin product": lambda: thin_product(atoms, x),
            "brute force": lambda: brute_force(atoms, x),
            "search": lambda: search(x),
        },
        rounds,
    )
    operations = 4 * rank * len(atoms) * len(x)
    rates = {name: operations / t / 1e9 for name, t in found.items() if name != "square product"}
    peak = 2 * 1500**3 / found["square product"] / 1e9
    unit = torch.randint(len(x), (2000,), generator=torch.Generator().manual_seed(1))
    mine, best = search(x[unit]), brute_force(atoms, x[unit])
    reached = (atoms[mine] * x[unit]).sum(1).abs() / (atoms[best] * x[unit]).sum(1).abs()
    search.evaluated = 0
    search(x)
    return {
        "rank": rank,
        "atoms": len(atoms),
        "voxels": len(x),
        "seconds": found,
        "gflops": {"square product": peak, **rates},
        "search over square product": rates["search"] / peak,
        "search over thin product": rates["search"] / rates["thin product"],
        "share of scores evaluated": search.evaluated / (len(atoms) * len(x)),
        "worst score against brute force": float(reached.min()),
    }


def refinement(dictionary: Dictionary, count: int = SIZE**2) -> dict[str, Any]:
    """Off-grid fit with standard errors of 256² voxels, beside the best atom alone."""
    g = torch.Generator().manual_seed(0)
    i, j = dictionary.grid.physical.nonzero().T
    pick = torch.randint(len(i), (count,), generator=g)
    t1 = (dictionary.grid.t1[i[pick]] * 1.03).clamp(max=float(dictionary.grid.t1[-1]))
    t2 = torch.minimum(dictionary.grid.t2[j[pick]] * 1.02, t1).clamp(max=float(dictionary.grid.t2[-1]))
    atoms = dictionary.interpolate(t1, t2)[0].to(torch.complex64)
    size = torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    noise = NOISE * size / atoms.shape[1] ** 0.5 * torch.randn(atoms.shape, dtype=atoms.dtype, generator=g)
    x = ((atoms + noise) * dictionary.phase).T.contiguous().reshape(-1, count)
    found = in_turns(
        {"best atom": lambda: dictionary.match(x, refine=False), "refined": lambda: dictionary.match(x)}, 1
    )
    return {"voxels": count, "atoms": dictionary.grid.size, "rank": dictionary.rank, "seconds": found}


def spirals(frames: int, samples: int) -> tuple[Tensor, Tensor]:
    """One golden-angle spiral arm a frame: trajectory and frame of each sample."""
    t = torch.linspace(0, 1, samples, dtype=torch.float64)
    turn = 24 * math.pi * t + math.pi * (3 - 5**0.5) * torch.arange(frames)[:, None]
    trajectory = 0.5 * t[:, None] * torch.stack([turn.cos(), turn.sin()], -1)
    return trajectory.reshape(-1, 2), torch.arange(frames).repeat_interleave(samples)


def operator(frames: int = 1000, samples: int = 1000, coils: int = 8, rank: int = 5) -> dict[str, Any]:
    """Forward, adjoint, transfer functions and normal operator at 256²."""
    g = torch.Generator().manual_seed(0)
    trajectory, frame = spirals(frames, samples)
    basis = torch.linalg.qr(torch.randn(frames, rank, dtype=torch.float64, generator=g))[0]
    maps = torch.randn(coils, SIZE, SIZE, dtype=torch.complex64, generator=g)
    a = FingerprintOperator(trajectory, frame, basis, (SIZE, SIZE), maps)
    x = a.domain.random(dtype=torch.float32, generator=g)
    y = a(x)
    first = seconds(lambda: a.normal(x))
    found = in_turns({"forward": lambda: a(x), "adjoint": lambda: a.adjoint(y)}, 1)
    found |= in_turns({"normal": lambda: a.normal(x)}, ROUNDS)
    exact = a.adjoint(y)
    error = torch.linalg.vector_norm(a.normal(x) - exact) / torch.linalg.vector_norm(exact)
    return {
        "frames": frames,
        "samples": len(frame),
        "coils": coils,
        "rank": rank,
        "seconds": {"transfer functions": first - found["normal"], **found},
        "30 iterations": 30 * found["normal"],
        "normal over forward + adjoint": found["normal"] / (found["forward"] + found["adjoint"]),
        "error of normal": float(error),
    }


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    return Dictionary.build(FingerprintSequence.default(1000), Grid.logarithmic(step=0.12), rank=10)


@pytest.mark.parametrize("rank", [5, 10])
def test_search(benchmark: Any, dictionary: Dictionary, rank: int) -> None:
    atoms = many_atoms(dictionary)[:, :rank].contiguous()
    x = voxels(atoms, SIZE**2, NOISE)
    benchmark(AtomSearch(atoms), x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dictionary", type=Path, help="one of rank 10 or more, not to build it")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.dictionary:
        held = Dictionary.load(arguments.dictionary)
    else:
        held = Dictionary.build(FingerprintSequence.default(1000), Grid.logarithmic(step=0.12), rank=10)
    report = {
        **recorded(1, "finufft"),
        "matching": [matching(held, rank, ROUNDS) for rank in (5, 10)],
        "refinement": refinement(held),
        "operator": operator(),
    }
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
