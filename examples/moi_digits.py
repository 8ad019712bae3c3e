"""How many measurements and operators does it take to learn digits without seeing one?

    python examples/moi_digits.py --out results.json [--figure moi.png] [--tiny]

Compressed sensing and inpainting of digits, n = 784: each digit is measured by one of G operators of m rows,
and a fully connected network learns from the measurements alone (measurement consistency and the
multi-operator loss), beside the same network with ground truth. Theory: almost every family of operators with
m > k + n/G suffices, k = 12 for handwritten digits. A run that was stopped goes on where it was.

After the experiment on MNIST in Tachella, Chen and Davies, NeurIPS 2022, arXiv:2201.12151.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parent))
from digits import SHAPE, digits, psnr, settings

from invlearn.learning import MeasurementConsistency, MultiOperatorImaging, Objective, Supervised, fit
from invlearn.physics import Dense, LinearOperator, Mask, OperatorFamily

N = SHAPE[0] * SHAPE[1]
ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]
DIMENSION = 12  # of handwritten digits: Hein and Audibert, ICML 2005


@dataclass(frozen=True)
class Size:
    """How much is trained, and where: pairs (m, G)."""

    train: int = 4000
    test: int = 500
    epochs: int = 25
    batch: int = 100
    hidden: int = 384
    code: int = 32
    m: tuple[int, ...] = (200, 400, 100)
    G: tuple[int, ...] = (10, 2, 40, 4)


TINY = Size(60, 20, 1, 20, 16, 4, (200,), (2,))


class Network(nn.Module):
    """A fully connected autoencoder of A⁺y: what it gives lies in a set of few dimensions.

    A⁺ = Aᴴ for the operators here, whose rows are orthonormal.
    """

    def __init__(self, hidden: int, code: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(N, hidden),
            nn.ReLU(),
            nn.Linear(hidden, code),
            nn.ReLU(),
            nn.Linear(code, hidden),
            nn.ReLU(),
            nn.Linear(hidden, N),
            nn.Unflatten(1, SHAPE),
        )

    def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
        return self.net(A.adjoint(y))


def family(problem: str, m: int, G: int) -> OperatorFamily:
    """Return G operators of m orthonormal rows: random directions, or m random pixels."""
    generator = torch.Generator().manual_seed(1000 * m + G)
    operators: list[LinearOperator] = []
    for _ in range(G):
        if problem == "inpainting":
            chosen = torch.zeros(N)
            chosen[torch.randperm(N, generator=generator)[:m]] = 1
            operators.append(Mask(chosen.reshape(SHAPE)))
        else:
            rows = torch.linalg.qr(torch.randn(N, m, generator=generator)).Q.T
            operators.append(Dense(rows.contiguous(), SHAPE))
    return OperatorFamily(operators)


def run(
    problem: str, m: int, G: int, supervised: bool, train: Tensor, test: Tensor, size: Size
) -> dict[str, Any]:
    """Train one network, and measure it on digits it was not trained with."""
    operators = family(problem, m, G)
    torch.manual_seed(0)
    model = Network(size.hidden, size.code)
    index, test_index = (torch.arange(len(x)) % G for x in (train, test))
    y, test_y = operators(train, index), operators(test, test_index)
    if supervised:
        data, losses = TensorDataset(y, index, train), Objective.of(Supervised())
    else:
        data, losses = TensorDataset(y, index), MeasurementConsistency() + MultiOperatorImaging()
    start = time.process_time()
    how = settings(size.batch, 2e-3)
    with warnings.catch_warnings():  # `fit` warns of what it would have refused without force
        warnings.simplefilter("ignore", UserWarning)
        result = fit(
            model, operators, data, losses, epochs=size.epochs, settings=how, dimension=DIMENSION, force=True
        )
    seconds = time.process_time() - start
    linear = operators.adjoint(test_y, test_index)
    with torch.no_grad():
        learned = torch.empty_like(test)
        for g, A in enumerate(operators):
            learned[test_index == g] = model(test_y[test_index == g], A)
    return {
        "problem": problem,
        "m": m,
        "G": G,
        "supervised": supervised,
        "verdict": result.gate.verdict,
        "linear": psnr(linear, test),
        "psnr": psnr(learned, test),
        "cpu_seconds": round(seconds, 1),
    }


def study(size: Size, out: Path) -> dict[str, Any]:
    """Run what `out` does not hold yet, writing it after every network."""
    origin, train, test = digits(size.train, size.test)
    about = json.loads(json.dumps({**asdict(size), "digits": origin, "dimension": DIMENSION}))
    results: dict[str, Any] = {
        **recorded(torch.get_num_threads(), "invlearn"),
        "settings": about,
        "runs": [],
    }
    if out.exists():
        results = json.loads(out.read_text())
        if results["settings"] != about:
            raise SystemExit(f"{out} holds results of other settings: give another --out, or remove it")
    plan = [
        (problem, m, G, supervised)
        for m in size.m
        for G in size.G
        for problem in ("compressed sensing", "inpainting")
        for supervised in (False, True)
        if not supervised or size.G[0] == G
    ]
    keys = ("problem", "m", "G", "supervised")
    for place in plan:
        if all(tuple(done[key] for key in keys) != place for done in results["runs"]):
            results["runs"].append(run(*place, train, test, size))
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
            print(results["runs"][-1], flush=True)
    return results


def figure(results: dict[str, Any], path: Path) -> None:
    """Draw what is reached against the number of operators, with the threshold G = n/(m - k)."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(8, 3.6), layout="constrained")
    axes = sheet.subplots(1, 2, sharey=True)
    for axis, problem in zip(axes, ("compressed sensing", "inpainting"), strict=True):
        runs = [r for r in results["runs"] if r["problem"] == problem]
        for number, m in enumerate(sorted({r["m"] for r in runs})):
            colour = f"C{number}"
            own = sorted((r["G"], r["psnr"]) for r in runs if r["m"] == m and not r["supervised"])
            axis.plot(*zip(*own, strict=True), "o-", color=colour, label=f"m = {m}")
            axis.axvline(N / (m - DIMENSION), color=colour, linestyle="--", linewidth=1)
            for r in runs:
                if r["m"] == m and r["supervised"]:
                    axis.axhline(r["psnr"], color=colour, linestyle=":", linewidth=1)
        axis.set(title=problem, xlabel="operators G (dashed: m = k + n/G)", xscale="log")
        axis.set_xticks(sorted({r["G"] for r in runs}), [str(g) for g in sorted({r["G"] for r in runs})])
        axis.minorticks_off()
        axis.legend(fontsize="small")
    axes[0].set_ylabel("PSNR in dB (dotted: with ground truth)")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=150)


def table(results: dict[str, Any]) -> str:
    """Write the results as a Markdown table."""
    rows = [
        "| problem | m | G | k + n/G | verdict | A⁺y | learned without truth | with truth |",
        "|---|" + 7 * "---|",
    ]
    truth = {(r["problem"], r["m"]): r["psnr"] for r in results["runs"] if r["supervised"]}
    order = sorted(
        (r for r in results["runs"] if not r["supervised"]), key=lambda r: (r["problem"], r["m"], r["G"])
    )
    for r in order:
        best = truth.get((r["problem"], r["m"]))
        rows.append(
            f"| {r['problem']} | {r['m']} | {r['G']} | {DIMENSION + N / r['G']:.0f} | {r['verdict']} | "
            f"{r['linear']:.1f} dB | {r['psnr']:.1f} dB | {'' if best is None else f'{best:.1f} dB'} |"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--tiny", action="store_true", help="one epoch of few digits")
    given = parser.parse_args(arguments)
    results = study(TINY if given.tiny else Size(), given.out)
    if given.figure:
        figure(results, given.figure)
    print(table(results))


if __name__ == "__main__":
    main()
