"""Tomography from few views, learned from the sinograms alone: equivariant imaging with rotations.

One scanner sees every object from the same few directions. No image is used in training: the network must
explain the sinograms, and reconstruct a rotated reconstruction from its virtual sinogram. Rotated objects are
objects too, so what the views hide of one object, they show of another. Filtered back-projection has no
setting; total variation gets the weight that is best *on the test images themselves*; the supervised network
is the same one, trained with the images.

    INVLEARN_DATA=... python examples/sparse_view_ct.py     # digits, about ten minutes on one core
    python examples/sparse_view_ct.py --tiny                # random ellipses, seconds

Writes `benchmarks/results/sparse_view_ct.json` and `docs/figures/sparse-view-ct.png`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from invlearn.identifiability import check
from invlearn.learning import EquivariantImaging, MeasurementConsistency, Settings, Supervised, fit
from invlearn.physics import Radon2D, fbp, power_norm
from invlearn.physics.groups import Rotations, Rotations90
from invlearn.unrolled import Learned, TotalVariation, UNet, UnrolledPGD, Variational

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Study:
    """Sizes and settings. `views` are spread evenly over half a turn, `rotations` over a full turn."""

    size: int = 32
    views: int = 8
    rotations: int = 36
    train: int = 1500
    test: int = 100
    depth: int = 3
    width: int = 8
    levels: int = 2
    epochs: int = 10
    batch: int = 16
    learning_rate: float = 3e-3
    weight: float = 1.0
    dimension: int = 15
    seed: int = 0


TINY = Study(size=12, views=4, rotations=8, train=16, test=3, depth=2, width=4, levels=1, epochs=2, batch=8)


def ellipses(study: Study, count: int, generator: torch.Generator) -> Tensor:
    """Sums of random ellipses inside the inscribed disc, the stand-in where there are no data."""
    axis = torch.linspace(-1, 1, study.size)
    image = torch.zeros(count, study.size, study.size)
    for _ in range(3):
        centre = 0.4 * (2 * torch.rand(2, count, 1, 1, generator=generator) - 1)
        axes = 0.15 + 0.3 * torch.rand(2, count, 1, 1, generator=generator)
        inside = ((axis[:, None] - centre[0]) / axes[0]) ** 2 + ((axis - centre[1]) / axes[1]) ** 2 < 1
        image += 0.4 * inside
    return image


def digits(study: Study, folder: Path, generator: torch.Generator) -> Tensor:
    """Handwritten digits in the middle of a larger image, 0 to 1, in random order."""
    rows = np.loadtxt(folder / "images" / "mnist_5k.csv.gz", delimiter=",", dtype=np.float32)
    images = torch.from_numpy(rows[:, :-1].reshape(-1, 28, 28) / 255)
    images = images[torch.randperm(len(images), generator=generator)[: study.train + study.test]]
    fill = study.size - 28
    return torch.nn.functional.pad(images, (fill // 2, fill - fill // 2, fill // 2, fill - fill // 2))


def psnr(x: Tensor, truth: Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB; the peak is 1."""
    return float((-10 * torch.log10((x - truth).square().mean((1, 2)))).mean())


def network(study: Study) -> UnrolledPGD:
    """The network of the study, untrained."""
    prior = Learned(UNet(study.width, study.levels))
    return UnrolledPGD(prior, study.depth, start="fbp", seed=study.seed)


def run(study: Study, folder: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The figures of the page, and images of every method."""
    generator = torch.Generator().manual_seed(study.seed)
    count = study.train + study.test
    images = ellipses(study, count, generator) if folder is None else digits(study, folder, generator)
    shape = (study.size, study.size)
    angles = math.pi * torch.arange(study.views, dtype=torch.float64) / study.views
    physics = Radon2D(shape, angles, detectors=study.size)
    train, test = images[: study.train], images[study.train :]
    y, y_test = physics(train), physics(test)
    # the unit of the sinogram: errors weigh as much as those of an image that makes them
    consistency = (physics.codomain.size / physics.domain.size / power_norm(physics).value ** 2) * (
        MeasurementConsistency()
    )
    settings = Settings(
        batch_size=study.batch, learning_rate=study.learning_rate, schedule="cosine", gradient_clip=1.0,
        seed=study.seed, accelerator="cpu", progress=False,
    )  # fmt: skip
    found = {"FBP": fbp(y_test, physics)}
    weights = [0.01, 0.03, 0.1, 0.3, 1.0]
    tried = {
        w: Variational(TotalVariation(w, tolerance=1e-2), tolerance=1e-3)(y_test, physics) for w in weights
    }
    chosen, found["TV"] = max(tried.items(), key=lambda item: psnr(item[1], test))
    objectives = {
        "consistency alone": consistency,
        "EI, rotations": consistency + study.weight * EquivariantImaging(Rotations(study.rotations, shape)),
        "supervised": Supervised(),
    }
    trained: dict[str, Any] = {}
    for name, objective in objectives.items():
        model, started = network(study), time.process_time()
        data = TensorDataset(y, train) if name == "supervised" else TensorDataset(y)
        with warnings.catch_warnings():
            # consistency alone cannot work, and interpolated rotations cannot be checked: that is the point
            warnings.filterwarnings("ignore", message=".*cannot be learned|.*not certain")
            result = fit(
                model, physics, data, objective,
                epochs=study.epochs, settings=settings, dimension=study.dimension, force=True,
            )  # fmt: skip
        with torch.no_grad():
            found[name] = model(y_test, physics)
        trained[name] = {
            "verdict": result.gate.verdict,
            "reason": result.gate.reason,
            "training": result.training.to_dict(),
            "cpu_seconds": time.process_time() - started,
        }
    quarter = check(physics, group=Rotations90(shape), dimension=study.dimension)
    figures = {
        "study": asdict(study),
        "data": "digits" if folder else "ellipses",
        "psnr_db": {name: psnr(x, test) for name, x in found.items()},
        "tv_weight_chosen_on_the_test_images": chosen,
        "check_with_quarter_turns": {"verdict": quarter.verdict, "reason": quarter.reason},
        "trained": trained,
        "parameters": sum(p.numel() for p in network(study).parameters()),
    }
    return figures, {"truth": test, **found}


def draw(figures: dict[str, Any], images: dict[str, Tensor], path: Path) -> None:
    """Three test images by every method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels, axes = plt.subplots(3, len(images), figsize=(1.8 * len(images), 5.8))
    for column, (name, x) in enumerate(images.items()):
        for row in range(3):
            axes[row, column].imshow(x[row], cmap="gray", vmin=0, vmax=1)
            axes[row, column].axis("off")
        level = "" if name == "truth" else f"\n{figures['psnr_db'][name]:.1f} dB"
        axes[0, column].set_title(name + level, fontsize=9)
    panels.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    panels.savefig(path, dpi=110)
    plt.close(panels)


def main(arguments: list[str] | None = None) -> None:
    """Run the study, write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="random ellipses at tiny size")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "sparse_view_ct.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "sparse-view-ct.png")
    args = parser.parse_args(arguments)
    data = os.environ.get("INVLEARN_DATA")
    if not args.tiny and not data:
        parser.error("the study needs the digits: set INVLEARN_DATA to their folder, or use --tiny")
    figures, images = run(TINY if args.tiny else Study(), None if args.tiny or not data else Path(data))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(figures, images, args.figure)
    for name, level in figures["psnr_db"].items():
        print(f"{name:<24}{level:6.2f} dB")
    print(f"quarter turns alone: {figures['check_with_quarter_turns']['verdict']}")


if __name__ == "__main__":
    main()
