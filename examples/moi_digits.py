"""How many measurements and operators does it take to learn digits without seeing one?

    python examples/moi_digits.py --out results.json [--figure moi.png] [--tiny]

Compressed sensing and inpainting of digits, n = 784: each digit is measured by one of G operators of m rows,
and a fully connected network learns from the measurements alone (measurement consistency and the
multi-operator loss), beside the same network with ground truth. Theory: almost every family of operators with
m > k + n/G suffices. k = 12 for handwritten digits; what learns is a network whose images make a set of
`code` dimensions, to be told apart from all other such sets: so the check is asked for both. A seed changes
operators, first weights and order of the digits. A run that was stopped goes on where it was.

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

from invlearn.identifiability import check
from invlearn.learning import (
    Batch,
    Gate,
    MeasurementConsistency,
    MultiOperatorImaging,
    Objective,
    Supervised,
    fit,
)
from invlearn.physics import Dense, LinearOperator, Mask, OperatorFamily

N = SHAPE[0] * SHAPE[1]
ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]
ALONE = MeasurementConsistency() + MultiOperatorImaging()
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
    seeds: int = 2


TINY = Size(60, 20, 1, 20, 16, 4, (200,), (2,), 2)


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


def family(problem: str, m: int, G: int, seed: int = 0) -> OperatorFamily:
    """Return G operators of m orthonormal rows: random directions, or m random pixels."""
    generator = torch.Generator().manual_seed(1_000_000 * seed + 1000 * m + G)
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


def trained(
    place: dict[str, Any], operators: OperatorFamily, train: Tensor, size: Size, start: Network | None = None
) -> tuple[Network, Gate]:
    """A network after training, from random weights or those of `start`, and the check before it."""
    torch.manual_seed(place["seed"])
    model = Network(size.hidden, size.code)
    if start is not None:
        model.load_state_dict(start.state_dict())
    index = torch.arange(len(train)) % len(operators)
    y = operators(train, index)
    losses: Objective = Objective.of(Supervised()) if place["supervised"] else ALONE
    data = TensorDataset(y, index, train) if place["supervised"] else TensorDataset(y, index)
    how = settings(size.batch, 2e-3, place["seed"])
    with warnings.catch_warnings():  # `fit` warns of what it would have refused without force
        warnings.simplefilter("ignore", UserWarning)
        result = fit(
            model, operators, data, losses, epochs=size.epochs, settings=how, dimension=DIMENSION, force=True
        )
    return model, result.gate


@torch.no_grad()
def judged(model: Network, operators: OperatorFamily, test: Tensor) -> dict[str, float]:
    """What a network reaches with digits it was not trained with, and its loss without truth there."""
    index = torch.arange(len(test)) % len(operators)
    y = operators(test, index)
    learned = torch.empty_like(test)
    for g, A in enumerate(operators):
        learned[index == g] = model(y[index == g], A)
    batch = Batch(model, operators, y, index, torch.Generator().manual_seed(0))
    return {"psnr": psnr(learned, test), "loss": float(ALONE(batch)["loss"])}


def run(place: dict[str, Any], train: Tensor, test: Tensor, size: Size) -> dict[str, Any]:
    """Train one network, and measure it."""
    operators = family(place["problem"], place["m"], place["G"], place["seed"])
    start = time.process_time()
    model, gate = trained(place, operators, train, size)
    seconds = time.process_time() - start
    index = torch.arange(len(test)) % len(operators)
    of_the_network = None if place["supervised"] else check(operators, dimension=size.code).verdict
    return {
        **place,
        "date": time.strftime("%Y-%m-%d"),
        "verdict": gate.verdict,
        "verdict_of_the_network": of_the_network,
        "linear": psnr(operators.adjoint(operators(test, index), index), test),
        "psnr": judged(model, operators, test)["psnr"],
        "cpu_seconds": round(seconds, 1),
    }


def close_to_the_threshold(train: Tensor, test: Tensor, size: Size) -> dict[str, Any]:
    """Does training without truth end elsewhere from the weights that truth gives?

    With the fewest rows, where m lies between k + n/G and code + n/G.
    """
    place = {"problem": "compressed sensing", "m": min(size.m), "G": size.G[0], "seed": 0}
    alone, truth = place | {"supervised": False}, place | {"supervised": True}
    operators = family(*place.values())
    taught = trained(truth, operators, train, size)[0]
    found = {
        "with truth": taught,
        "without, from there": trained(alone, operators, train, size, taught)[0],
        "without, from random weights": trained(alone, operators, train, size)[0],
    }
    return place | {name: judged(model, operators, test) for name, model in found.items()}


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

    def keep() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")

    if "close_to_the_threshold" not in results:
        results["close_to_the_threshold"] = close_to_the_threshold(train, test, size)
        keep()
    plan = [
        {"problem": problem, "m": m, "G": G, "supervised": supervised, "seed": seed}
        for seed in range(size.seeds)
        for m in size.m
        for G in size.G
        for problem in ("compressed sensing", "inpainting")
        for supervised in (False, True)
        if not supervised or size.G[0] == G
    ]
    for place in plan:
        if not any(place.items() <= done.items() for done in results["runs"]):
            results["runs"].append(run(place, train, test, size))
            keep()
            print(results["runs"][-1], flush=True)
    return results


def over_seeds(results: dict[str, Any], key: str, **place: Any) -> tuple[float, float]:
    """The mean over the seeds, and half of the range."""
    found = [run[key] for run in results["runs"] if place.items() <= run.items()]
    return sum(found) / len(found), (max(found) - min(found)) / 2


def figure(results: dict[str, Any], path: Path) -> None:
    """Draw what is reached against the number of operators, with the thresholds G = n/(m - k)."""
    from matplotlib.figure import Figure

    size = results["settings"]
    sheet = Figure(figsize=(9, 4), layout="constrained")
    axes = sheet.subplots(1, 2, sharey=True)
    for axis, problem in zip(axes, ("compressed sensing", "inpainting"), strict=True):
        for number, m in enumerate(sorted(size["m"])):
            colour, counts = f"C{number}", sorted(size["G"])
            place = {"problem": problem, "m": m}
            own = [over_seeds(results, "psnr", **place, G=G, supervised=False) for G in counts]
            mean, half = zip(*own, strict=True)
            axis.errorbar(counts, mean, half, fmt="o-", color=colour, capsize=3, label=f"m = {m}")
            for dimension, style in ((DIMENSION, "--"), (size["code"], "-.")):
                axis.axvline(N / (m - dimension), color=colour, linestyle=style, linewidth=1)
            truth = over_seeds(results, "psnr", **place, supervised=True)[0]
            axis.axhline(truth, color=colour, linestyle=":", linewidth=1)
        axis.set(title=problem, xlabel="number of operators G", xscale="log")
        axis.set_xticks(counts, [str(g) for g in counts])
        axis.minorticks_off()
    axes[0].set_ylabel("PSNR in dB")
    lines = [("-", "without truth, range of the seeds"), (":", "with truth")]
    lines += [("--", f"m = {DIMENSION} + n/G (digits)"), ("-.", f"m = {size['code']} + n/G (network)")]
    handles, names = axes[0].get_legend_handles_labels()
    for style, name in lines:
        handles += axes[0].plot([], [], color="0.3", linestyle=style)
        names.append(name)
    sheet.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=150)


def table(results: dict[str, Any]) -> str:
    """Write the results as a Markdown table."""
    size = results["settings"]
    rows = [
        f"| problem | m | G | k + n/G | verdict, k = {DIMENSION} | verdict, k = {size['code']} | A⁺y | "
        "without truth | with truth | gap |",
        "|---|" + 9 * "---|",
    ]

    def told(key: str, **place: Any) -> str:
        mean, half = over_seeds(results, key, **place)
        several = sum(place.items() <= run.items() for run in results["runs"]) > 1
        return f"{mean:.1f} ± {half:.1f} dB" if several else f"{mean:.1f} dB"

    def verdicts(key: str, **place: Any) -> str:
        found = [run[key] for run in results["runs"] if place.items() <= run.items()]
        return " / ".join(dict.fromkeys(found))

    for problem in ("compressed sensing", "inpainting"):
        for m in sorted(size["m"]):
            for G in sorted(size["G"]):
                place = {"problem": problem, "m": m, "G": G, "supervised": False}
                truth = {"problem": problem, "m": m, "supervised": True}
                gap = over_seeds(results, "psnr", **truth)[0] - over_seeds(results, "psnr", **place)[0]
                rows.append(
                    f"| {problem} | {m} | {G} | {DIMENSION + N / G:.0f}, {size['code'] + N / G:.0f} | "
                    f"{verdicts('verdict', **place)} | {verdicts('verdict_of_the_network', **place)} | "
                    f"{over_seeds(results, 'linear', **place)[0]:.1f} dB | {told('psnr', **place)} | "
                    f"{told('psnr', **truth)} | {gap:.1f} dB |"
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
