"""Dictionary simulation: 3,126 tissues × 1000 frames of a FISP train, beside mrpro and torchsim.

``python benchmarks/bloch.py`` writes ``benchmarks/results/bloch.json``. One thread for everyone; rates are
tissues per second of processor time, the best of a few rounds. Peers that do not import are left out with
a word.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.bloch import simulate
from invlearn.physics.mri.bloch.engine import Engine
from invlearn.physics.mri.bloch.states import measured_states

RESULTS = Path(__file__).parent / "results" / "bloch.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
COUNT, FLOPS = 3126, 20  # multiplications and additions of one order in one frame
Run = Callable[[torch.Tensor, torch.Tensor], Any]


def tissues(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """T1 0.1 … 4 s and T2 0.02 … 0.6 s, log-spaced, T2 <= T1, in random order."""
    t1, t2 = np.meshgrid(np.geomspace(0.1, 4, 74), np.geomspace(0.02, 0.6, 56))
    kept = np.random.default_rng(0).permutation(np.flatnonzero(t2 <= t1))[:count]
    return tuple(torch.tensor(t.ravel()[kept], dtype=torch.float32) for t in (t1, t2))


def ours(sequence: FingerprintSequence, **options: Any) -> Run:
    """`simulate`."""
    return lambda t1, t2: simulate(sequence, t1, t2, **options)


def mrpro(sequence: FingerprintSequence, states: int) -> Run:
    """mrpro's blocks. It imports torchvision for phantoms that are not needed here."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from mrpro.operators.models.EPG import EPGSequence, FispBlock, InversionBlock, Parameters

    trains = (sequence.flip_angle, sequence.phase, sequence.te, sequence.tr)
    block = FispBlock(*(torch.tensor(train, dtype=torch.float32) for train in trains))
    play = EPGSequence([InversionBlock(sequence.inversion_time), block])

    def run(t1: torch.Tensor, t2: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, signal = play(Parameters(torch.ones_like(t1, dtype=torch.complex64), t1, t2), states)
            return torch.stack(signal, -1)

    return run


def torchsim(sequence: FingerprintSequence, states: int) -> Run:
    """torchsim; it knows no echo time."""
    from torchsim._functional._mrf import mrf_sim

    flip, tr = np.degrees(sequence.flip_angle), 1e3 * sequence.tr
    ti = 1e3 * (sequence.inversion_time or 0)
    return lambda t1, t2: mrf_sim(
        flip=flip, TR=tr, T1=(1e3 * t1).numpy(), T2=(1e3 * t2).numpy(), TI=ti, states=states
    )


def best(run: Run, atoms: tuple[torch.Tensor, torch.Tensor], rounds: int) -> dict[str, float]:
    """Seconds of the first call, and tissues per processor second of the best later one."""
    begin = time.perf_counter()
    run(*atoms)
    first, times = time.perf_counter() - begin, []
    for _ in range(rounds):
        begin = time.process_time()
        run(*atoms)
        times.append(time.process_time() - begin)
    return {
        "first_call_seconds": round(first, 2),
        "tissues_per_cpu_second": round(len(atoms[0]) / min(times)),
    }


def accuracy(signal: Any, truth: torch.Tensor) -> float:
    """Largest relative error in norm, of magnitudes, so that conventions of phase do not count."""
    found = torch.as_tensor(np.asarray(signal)).reshape(truth.shape).abs().double()
    return float(((found - truth.abs()).norm(dim=1) / truth.norm(dim=1)).max())


def arithmetic(rounds: int) -> float:
    """Single-precision rate of a matrix product on one core, in Gflop/s: what the core could do."""
    a = torch.rand(1024, 1024)
    times = []
    for _ in range(rounds + 2):
        begin = time.process_time()
        a @ a
        times.append(time.process_time() - begin)
    return 2 * 1024**3 / min(times) / 1e9


def contenders(sequence: FingerprintSequence, deep: int) -> dict[str, tuple[Callable[[], Run], int]]:
    """Who runs, and on how many tissues."""
    return {
        "invlearn, tolerance 1e-6": (lambda: ours(sequence), COUNT),
        "invlearn, tolerance 1e-6, T1 and T2 derivatives": (
            lambda: ours(sequence, derivatives=("t1", "t2")),
            COUNT,
        ),
        "invlearn, 30 states": (lambda: ours(sequence, states=30, tolerance=1.0), COUNT),
        "mrpro, 30 states": (lambda: mrpro(sequence, 30), 500),
        "torchsim, 30 states": (lambda: torchsim(sequence, 30), 500),
        f"mrpro, {deep} states": (lambda: mrpro(sequence, deep), 100),
        f"torchsim, {deep} states": (lambda: torchsim(sequence, deep), 100),
    }


def measure(rounds: int) -> dict[str, Any]:
    """All contenders on the default train."""
    sequence = FingerprintSequence.default()
    atoms = tissues(COUNT)
    parameters = np.stack([*(t.numpy().astype(float) for t in atoms), np.ones(COUNT), np.zeros(COUNT)])
    states = measured_states(sequence.programme(), parameters, 1e-6, ())
    truth = simulate(sequence, atoms[0][:100].double(), atoms[1][:100].double(), states=500)
    rows: dict[str, Any] = {}
    for name, (make, count) in contenders(sequence, int(states.max())).items():
        part = (atoms[0][:count], atoms[1][:count])
        try:
            run = make()
        except ImportError as error:
            rows[name] = {"skipped": f"does not import: {error}"}
            continue
        result = run(part[0][:100], part[1][:100])
        row: dict[str, Any] = {"tissues": count, **best(run, part, rounds if count == COUNT else 1)}
        if not name.startswith("torchsim"):  # no echo time there
            row["largest_relative_error"] = float(
                f"{accuracy(result[0] if isinstance(result, tuple) else result, truth):.2g}"
            )
        rows[name] = row
        print(name, row, flush=True)
    return {"rows": rows, **_ratios(rows, int(states.max())), **_limits(sequence, states, rows, rounds)}


def _ratios(rows: dict[str, Any], deep: int) -> dict[str, Any]:
    pairs = {
        "equal states (30)": ("invlearn, 30 states", 30),
        "error 1e-6": ("invlearn, tolerance 1e-6", deep),
    }
    return {
        "times_faster": {
            f"{what}, {peer}": round(
                rows[own]["tissues_per_cpu_second"] / rows[name]["tissues_per_cpu_second"], 1
            )
            for what, (own, states) in pairs.items()
            for peer in ("mrpro", "torchsim")
            if "skipped" not in rows[name := f"{peer}, {states} states"]
        }
    }


def _limits(
    sequence: FingerprintSequence, states: np.ndarray, rows: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """The scan alone on one block, in Gflop/s, beside what the core can do; the precision."""
    t1, t2 = tissues(512)
    block = torch.stack([t1, t2, torch.ones(512), torch.zeros(512)])
    engine = Engine(sequence.programme())
    rate = best(lambda a, b: engine.play(block, 32), (t1, t2), rounds)["tissues_per_cpu_second"]
    double = simulate(sequence, t1.double(), t2.double())
    single = simulate(sequence, t1, t2)
    mean = float(states.mean())
    whole = rows["invlearn, tolerance 1e-6"]["tissues_per_cpu_second"]
    return {
        "mean_states_at_1e-6": round(mean, 1),
        "gflops_of_one_scan_32_states": round(rate * 1000 * 32 * FLOPS / 1e9, 1),
        "gflops_of_the_dictionary": round(whole * 1000 * mean * FLOPS / 1e9, 1),
        "gflops_of_a_matrix_product": round(arithmetic(rounds), 1),
        "float32_against_float64": {
            "largest_error_of_an_echo": float(f"{float((single - double).abs().max()):.2g}"),
            "largest_relative_error_in_norm": float(f"{accuracy(single, double):.2g}"),
        },
    }


def main() -> None:
    """Measure and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    summary = {
        **recorded(1, "mrpro", "torchsim"),
        "case": f"{COUNT} tissues x 1000 frames, T1 0.1-4 s, T2 0.02-0.6 s, float32",
        **measure(rounds),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
