"""Does the verdict before training foretell what training reaches? Four ways to learn digits without seeing
one.

    python examples/four_cases.py --out results.json [--tiny]

Inpainting with one mask and measurement consistency alone; with equivariance to shifts; with ten masks and
the multi-operator loss; a circular low-pass with equivariance to shifts. Each beside the linear
reconstruction A⁺y, the same network trained with ground truth, and the verdict. A run that was stopped goes
on where it was.
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

from invlearn.learning import (
    EquivariantImaging,
    Loss,
    MeasurementConsistency,
    MultiOperatorImaging,
    Supervised,
    fit,
)
from invlearn.physics import LinearOperator, Mask, OperatorFamily
from invlearn.physics.groups import Shifts
from invlearn.physics.linear import Blur
from invlearn.wavelets import EncoderDecoder

ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]
DIMENSION = 12  # of handwritten digits: Hein and Audibert, ICML 2005


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    train: int = 2500
    test: int = 500
    epochs: int = 8
    batch: int = 32
    channels: tuple[int, ...] = (8, 16, 32)


TINY = Size(40, 10, 1, 10, (2, 4))


class Network(nn.Module):
    """A⁺y plus a U-Net's view of it and of where the operator looks: f(y, A) = A⁺y + net(A⁺y, AᴴA 1).

    A⁺ = Aᴴ for the operators here, whose singular values are 0 and 1.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.net = EncoderDecoder(2, 1, "UNet_V2", ndim=2, channels=channels)

    def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
        z = A.adjoint(y)
        return z + self.net(torch.stack([z, A.normal(torch.ones_like(z))], 1))[:, 0]


def low_pass() -> LinearOperator:
    """Return an ideal circular low-pass: the frequencies up to 5 cycles an image along each axis."""
    kept = (torch.fft.fftfreq(28).abs() * 28 < 5.5).double()
    return Blur(torch.fft.fftshift(torch.fft.ifft2(torch.outer(kept, kept)).real), SHAPE)


def cases() -> dict[str, tuple[OperatorFamily, list[Loss]]]:
    """Return operators and losses of the four cases."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand((10, *SHAPE), generator=generator) < 0.5
    masks[0] |= ~masks.any(0)  # together they see every pixel
    shifts, consistent = EquivariantImaging(Shifts(SHAPE)), MeasurementConsistency()
    one, ten = OperatorFamily([Mask(masks[0])]), OperatorFamily.from_masks(masks)
    return {
        "inpainting, one mask": (one, [consistent]),
        "inpainting, one mask, shifts": (one, [consistent, shifts]),
        "inpainting, ten masks, multi-operator": (ten, [consistent, MultiOperatorImaging()]),
        "low-pass, shifts": (OperatorFamily([low_pass()]), [consistent, shifts]),
    }


def run(
    operators: OperatorFamily, losses: list[Loss], train: Tensor, test: Tensor, size: Size
) -> dict[str, Any]:
    """Train one network, and measure it on digits it was not trained with."""
    torch.manual_seed(0)
    model = Network(size.channels)
    index, test_index = (torch.arange(len(x)) % len(operators) for x in (train, test))
    truth = [train] if any(loss.needs_truth for loss in losses) else []
    data = TensorDataset(operators(train, index), index, *truth)
    start = time.process_time()
    with warnings.catch_warnings():  # `fit` warns of what it would have refused without force
        warnings.simplefilter("ignore", UserWarning)
        how = settings(size.batch, 2e-3)
        result = fit(
            model, operators, data, losses, epochs=size.epochs, settings=how, dimension=DIMENSION, force=True
        )
    seconds = time.process_time() - start
    y = operators(test, test_index)
    with torch.no_grad():
        learned = torch.empty_like(test)
        for g, A in enumerate(operators):
            learned[test_index == g] = model(y[test_index == g], A)
    return {
        "verdict": result.gate.verdict,
        "reason": result.gate.reason,
        "linear": psnr(operators.adjoint(y, test_index), test),
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
        "runs": {},
    }
    if out.exists():
        results = json.loads(out.read_text())
        if results["settings"] != about:
            raise SystemExit(f"{out} holds results of other settings: give another --out, or remove it")

    def keep(place: str, operators: OperatorFamily, losses: list[Loss]) -> None:
        if place not in results["runs"]:
            results["runs"][place] = run(operators, losses, train, test, size)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
            print(place, results["runs"][place], flush=True)

    for name, (operators, losses) in cases().items():
        keep(name, operators, losses)
    for name, (operators, _) in cases().items():
        keep(with_truth(name), operators, [Supervised()])
    return results


def with_truth(case: str) -> str:
    """Return the name of a case's supervised run: it has nothing to do with a group."""
    return case.removesuffix(", shifts").removesuffix(", multi-operator") + ", supervised"


def table(results: dict[str, Any]) -> str:
    """Write the results as a Markdown table."""
    rows = [
        "| case | verdict before training | A⁺y | learned without truth | with truth |",
        "|---|---|---|---|---|",
    ]
    for name in cases():
        own, best = results["runs"][name], results["runs"][with_truth(name)]
        rows.append(
            f"| {name} | {own['verdict']} | {own['linear']:.1f} dB | {own['psnr']:.1f} dB | "
            f"{best['psnr']:.1f} dB |"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="one epoch of few digits")
    given = parser.parse_args(arguments)
    print(table(study(TINY if given.tiny else Size(), given.out)))


if __name__ == "__main__":
    main()
