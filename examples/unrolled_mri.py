"""Accelerated multi-coil MRI, learned from undersampled noisy scans alone: splitting and unrolled networks.

Every training slice was "scanned" once, with one of a few random line masks and with noise; no fully sampled
image is used in training. The test head is another person, scanned with masks that training never saw.
CG-SENSE and the wavelet reconstruction get the weight that is best *on the test images themselves*.

    INVLEARN_DATA=... python examples/unrolled_mri.py      # real heads, about 15 minutes on one core
    python examples/unrolled_mri.py --tiny                 # random ellipses, seconds

Training: `brains/fireants_atlas_2mm_1000_3.nii.gz` and `..._1001_3`; test: `colin27_ch2_t1_1mm.nii.gz`.
Writes `benchmarks/results/unrolled_mri.json` and `docs/figures/unrolled-mri.png`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from invlearn.learning import Settings, Splitting, fit
from invlearn.physics import LinearOperator, OperatorFamily, cg, identity
from invlearn.physics.mri import CartesianMRI
from invlearn.unrolled import (
    FISTA,
    Learned,
    Regulariser,
    UNet,
    UnrolledPGD,
    Variational,
    WaveletShrinkage,
    Zero,
)

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Study:
    """Sizes and settings.

    `shape` is (phase encoding, readout); `lines` are measured lines, `centre` of them in the middle; `noise`
    is the standard deviation of the complex noise of a k-space sample, in units of the brightest tissue.
    """

    shape: tuple[int, int] = (112, 96)
    coils: int = 8
    lines: int = 28
    centre: int = 8
    noise: float = 0.01
    masks: int = 20
    train: int = 160
    test: int = 8
    depth: int = 8
    width: int = 8
    levels: int = 3
    keep: float = 0.7
    epochs: int = 8
    batch: int = 2
    learning_rate: float = 3e-3
    seed: int = 0


TINY = Study(
    shape=(16, 16), coils=4, lines=8, centre=4, masks=2, train=8, test=2, depth=2, width=4, levels=1, epochs=3
)


def line_masks(study: Study, count: int, generator: torch.Generator) -> Tensor:
    """Random phase-encoding lines around a fully sampled centre, `(count, *shape)`."""
    rows, columns = study.shape
    middle = torch.zeros(rows, dtype=torch.bool)
    middle[rows // 2 - study.centre // 2 : rows // 2 - study.centre // 2 + study.centre] = True
    chance = torch.rand(count, rows, generator=generator)
    # as many lines as asked for, the centre among them, denser towards the middle
    distance = (torch.arange(rows) - rows // 2).abs() / (rows / 2)
    chance = chance ** (1 / (1.5 - distance)) + 10 * middle
    chosen = chance.argsort(1, descending=True)[:, : study.lines]
    masks = torch.zeros(count, rows, dtype=torch.bool).scatter(1, chosen, True)
    return masks[:, :, None].expand(count, rows, columns)


def coil_maps(study: Study) -> Tensor:
    """Smooth sensitivities of coils on a ring around the head, sum of squares 1."""
    rows, columns = study.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    angle = 2 * math.pi * torch.arange(study.coils).reshape(-1, 1, 1) / study.coils
    dx, dy = x - 1.4 * torch.cos(angle), y - 1.4 * torch.sin(angle)
    maps = torch.polar(1 / (dx**2 + dy**2), torch.atan2(dy, dx) + angle)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def with_phase(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """Complex images: a random smooth phase on each of `(N, H, W)`."""
    rows, columns = magnitude.shape[-2:]
    coarse = torch.randn(len(magnitude), 1, 4, 4, generator=generator)
    phase = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=True)
    return torch.polar(magnitude, phase[:, 0]).to(torch.complex64)


def ellipses(study: Study, count: int, generator: torch.Generator) -> Tensor:
    """Random overlapping ellipses, the stand-in for heads where there are no data; `(count, H, W)`."""
    rows, columns = study.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    image = torch.zeros(count, rows, columns)
    for _ in range(8):
        centre = 0.5 * (2 * torch.rand(2, count, 1, 1, generator=generator) - 1)
        axes = 0.1 + 0.4 * torch.rand(2, count, 1, 1, generator=generator)
        value = 2 * torch.rand(count, 1, 1, generator=generator) - 0.7
        image += value * (((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1)
    return image.clamp_min(0) / image.amax((1, 2), keepdim=True).clamp_min(0.1)


def read_head(path: Path, shape: tuple[int, int]) -> Tensor:
    """Axial slices of a head at 2 mm with the nose up, in the middle of `shape`, white matter about 0.6."""
    import nibabel

    volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    if max(volume.shape) > 150:  # 1 mm
        a, b, c = (n // 2 for n in volume.shape)
        volume = volume[: 2 * a, : 2 * b, : 2 * c].reshape(a, 2, b, 2, c, 2).mean((1, 3, 5))
    slices = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 1, 0)[:, ::-1]))
    slices = (slices / np.quantile(volume[volume > 0], 0.99)).clamp(0, 1.2)
    rows, columns = slices.shape[1:]
    top, left = shape[0] - rows, shape[1] - columns
    fill = (left // 2, left - left // 2, top // 2, top - top // 2)  # negative crops
    return torch.nn.functional.pad(slices, fill)


def heads(study: Study, folder: Path | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images to train and to test on, of different people."""
    if folder is None:
        return tuple(  # type: ignore[return-value]
            with_phase(ellipses(study, count, generator), generator) for count in (study.train, study.test)
        )
    brains = folder / "brains"
    pair = [read_head(brains / f"fireants_atlas_2mm_{n}_3.nii.gz", study.shape)[25:105] for n in (1000, 1001)]
    train = torch.cat(pair)
    train = train[torch.linspace(0, len(train) - 1, study.train).long()]
    colin = read_head(brains / "colin27_ch2_t1_1mm.nii.gz", study.shape)[15:70]
    test = colin[torch.linspace(0, len(colin) - 1, study.test).long()]
    return with_phase(train, generator), with_phase(test, generator)


def scan(
    images: Tensor, family: OperatorFamily, study: Study, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noisy measurements of each image by one operator, and which."""
    index = torch.arange(len(images)) % len(family)
    y = family(images, index)
    return y + study.noise * (y != 0) * torch.randn(y.shape, dtype=y.dtype, generator=generator), index


def psnr(x: Tensor, truth: Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio of |x|, in dB; the peak is that of the image."""
    error = (x.abs() - truth.abs()).square().mean((1, 2))
    return float((10 * torch.log10(truth.abs().amax((1, 2)).square() / error)).mean())


def sense(y: Tensor, operator: LinearOperator, weight: float) -> Tensor:
    """argmin ‖Ax - y‖² + weight ‖x‖² by conjugate gradients."""
    domain = operator.domain
    system = operator.H @ operator + weight * identity(domain.shape, domain.complex)
    return cg(system, operator.adjoint(y), tolerance=1e-3, max_iterations=50).value


def best(candidates: dict[float, Tensor], truth: Tensor) -> tuple[float, Tensor]:
    """The weight whose images come closest to the truth, and they."""
    return max(candidates.items(), key=lambda item: psnr(item[1], truth))


def each(call: Any, y: Tensor, family: OperatorFamily, index: Tensor) -> Tensor:
    """`call(y, A)` for every scan with its own operator."""
    with torch.no_grad():
        return torch.cat([call(y[i : i + 1], family[int(index[i])]) for i in range(len(y))])


def run(study: Study, folder: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The figures of the page, and images of every method."""
    generator = torch.Generator().manual_seed(study.seed)
    train, test = heads(study, folder, generator)
    maps = coil_maps(study)
    training, testing = (
        OperatorFamily([CartesianMRI(mask, maps) for mask in line_masks(study, count, generator)])
        for count in (study.masks, study.test)
    )
    y, index = scan(train, training, study, generator)
    y_test, index_test = scan(test, testing, study, generator)

    found = {"zero-filled": each(lambda y, A: A.adjoint(y), y_test, testing, index_test)}
    chosen = {}
    weights = [3e-4, 1e-3, 2e-3, 4e-3, 1e-2]
    tried = {w: each(lambda y, A, w=w: sense(y, A, w), y_test, testing, index_test) for w in weights}
    chosen["CG-SENSE"], found["CG-SENSE"] = best(tried, test)
    weights = [5e-4, 8e-4, 1.2e-3, 1.8e-3, 3e-3]
    tried = {
        w: each(
            Variational(WaveletShrinkage(w, shifts=4), FISTA(), tolerance=1e-3, max_iterations=100, norm=1.0),
            y_test, testing, index_test,
        )
        for w in weights
    }  # fmt: skip
    chosen["wavelets"], found["wavelets"] = best(tried, test)

    def network(prior: Learned | Regulariser) -> UnrolledPGD:
        return UnrolledPGD(prior, study.depth, start="adjoint", norm=1.0, seed=study.seed)

    model = network(Learned(UNet(study.width, study.levels), complex=True))
    found["unrolled, untrained"] = each(network(Zero()), y_test, testing, index_test)
    started = time.process_time()
    result = fit(
        model, training, TensorDataset(y, index), Splitting(keep=study.keep, shared_axes=(0,)),
        epochs=study.epochs,
        settings=Settings(
            batch_size=study.batch, learning_rate=study.learning_rate, schedule="cosine", gradient_clip=1.0,
            seed=study.seed, accelerator="cpu", progress=False,
        ),
    )  # fmt: skip
    cpu = time.process_time() - started
    history = result.training.to_dict()["history"]
    found["unrolled, splitting"] = each(model, y_test, testing, index_test)
    figures = {
        "study": asdict(study),
        "data": "heads" if folder else "ellipses",
        "psnr_db": {name: psnr(x, test) for name, x in found.items()},
        "weights_chosen_on_the_test_images": chosen,
        "verdict": result.gate.to_dict(),
        "loss": [epoch["train/loss"] for epoch in history],
        "training_cpu_seconds": cpu,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return figures, {"truth": test, **found}


def draw(figures: dict[str, Any], images: dict[str, Tensor], path: Path) -> None:
    """One test slice by every method, and what is wrong with it five-fold."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = len(images["truth"]) // 2
    truth = images["truth"][shown].abs()
    panels, axes = plt.subplots(2, len(images), figsize=(2.2 * len(images), 5.2))
    for column, (name, x) in enumerate(images.items()):
        picture = x[shown].abs()
        axes[0, column].imshow(picture, cmap="gray", vmin=0, vmax=float(truth.max()))
        axes[1, column].imshow(5 * (picture - truth).abs(), cmap="magma", vmin=0, vmax=float(truth.max()))
        level = "" if name == "truth" else f"\n{figures['psnr_db'][name]:.1f} dB"
        axes[0, column].set_title(name + level, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    axes[1, 0].set_title("5 × error", fontsize=9)
    panels.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    panels.savefig(path, dpi=110)
    plt.close(panels)


def main(arguments: list[str] | None = None) -> None:
    """Run the study, write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="random ellipses at tiny size")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "unrolled_mri.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "unrolled-mri.png")
    args = parser.parse_args(arguments)
    data = os.environ.get("INVLEARN_DATA")
    if not args.tiny and not data:
        parser.error("the study needs the heads: set INVLEARN_DATA to their folder, or use --tiny")
    figures, images = run(TINY if args.tiny else Study(), None if args.tiny or not data else Path(data))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(figures, images, args.figure)
    for name, level in figures["psnr_db"].items():
        print(f"{name:<24}{level:6.2f} dB")


if __name__ == "__main__":
    main()
