"""Accelerated multi-coil MRI, learned from undersampled noisy scans alone: splitting and unrolled networks.

Every training image was "scanned" once, with one of many random line masks and with noise; no fully sampled
image is used in training. The test head is another person, scanned with masks that training never saw.
CG-SENSE and the wavelet reconstruction get the weight that is best *on the test images themselves*. The
network is then used, as it is, on a real scan: half of its lines against the reconstruction from all its
data.

    INVLEARN_DATA=... python examples/unrolled_mri.py      # real heads; see the results for the time
    python examples/unrolled_mri.py --tiny                 # random ellipses, seconds

Training: two heads under random deformation, contrast and phase, `brains/fireants_atlas_2mm_1000_3.nii.gz`
and `..._1001_3`; test: `brains/colin27_ch2_t1_1mm.nii.gz`, and `mrf/sigpy_tutorial_cartesian_ksp.npy`. Writes
`benchmarks/results/unrolled_mri.json` and `docs/figures/unrolled-mri.png`.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parent))
from studies import Outcome, best, command, each, heads, psnr

from invlearn.learning import FitResult, Settings, Splitting, fit
from invlearn.physics import LinearOperator, OperatorFamily, cg, identity
from invlearn.physics.mri import CartesianMRI
from invlearn.physics.mri.coils import espirit
from invlearn.unrolled import FISTA, HQS, Learned, UNet, Unrolled, Variational, WaveletShrinkage

REAL = Path("mrf") / "sigpy_tutorial_cartesian_ksp.npy"  # 8 coils, zero frequency in the middle


@dataclass(frozen=True)
class Study:
    """Sizes and settings.

    `shape` is (phase encoding, readout) in pixels of 3 mm; `lines` are measured lines, `centre` of them in
    the middle; `noise` is the standard deviation of the complex noise of a k-space sample, in units of the
    brightest tissue; `adapt` counts steps of further training on the real scan.
    """

    shape: tuple[int, int] = (80, 64)
    coils: int = 8
    lines: int = 20
    centre: int = 6
    noise: float = 0.015
    masks: int = 60
    train: int = 600
    test: int = 8
    depth: int = 4
    width: int = 16
    levels: int = 3
    step: float = 10.0
    keep: float = 0.75
    epochs: int = 5
    learning_rate: float = 2e-3
    precision: str = "bf16-mixed"
    adapt: int = 100
    seed: int = 0

    @property
    def splitting(self) -> Splitting:
        """Lines are hidden, those of the centre never."""
        return Splitting(keep=self.keep, shared_axes=(0, 2), centre=(self.centre, self.shape[1]))


TINY = Study(
    shape=(16, 16), coils=4, lines=8, centre=4, masks=2, train=16, test=2, depth=2, width=4, levels=1,
    epochs=3, precision="full",
)  # fmt: skip


def line_masks(study: Study, count: int, generator: Generator) -> Tensor:
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
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in study.shape), indexing="ij")
    angle = 2 * math.pi * torch.arange(study.coils).reshape(-1, 1, 1) / study.coils
    dx, dy = x - 1.4 * torch.cos(angle), y - 1.4 * torch.sin(angle)
    maps = torch.polar(1 / (dx**2 + dy**2), torch.atan2(dy, dx) + angle)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def with_phase(magnitude: Tensor, generator: Generator) -> Tensor:
    """Complex images: a random smooth phase on each of `(N, H, W)`."""
    coarse = torch.randn(len(magnitude), 1, 4, 4, generator=generator)
    phase = torch.nn.functional.interpolate(coarse, magnitude.shape[-2:], mode="bicubic", align_corners=True)
    return torch.polar(magnitude, phase[:, 0]).to(torch.complex64)


def scan(images: Tensor, family: OperatorFamily, study: Study, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noisy measurements of each image by one operator, and which."""
    index = torch.randint(0, len(family), (len(images),), generator=generator)
    y = family(images, index)
    return y + study.noise * (y != 0) * torch.randn(y.shape, dtype=y.dtype, generator=generator), index


def sense(y: Tensor, operator: LinearOperator, weight: float) -> Tensor:
    """argmin ‖Ax - y‖² + weight ‖x‖² by conjugate gradients."""
    domain = operator.domain
    system = operator.H @ operator + weight * identity(domain.shape, domain.complex)
    return cg(system, operator.adjoint(y), tolerance=1e-3, max_iterations=50).value


def wavelets(weight: float) -> Variational:
    """min ½‖Ax - y‖² + weight ‖Wx‖₁, averaged over shifts."""
    prior = WaveletShrinkage(weight, shifts=4)
    return Variational(prior, FISTA(), tolerance=2e-3, max_iterations=100, norm=1.0)


def network(study: Study) -> Unrolled:
    """Data steps with U-Nets between them; untrained it is CG-SENSE."""
    return Unrolled(
        HQS(data_last=True, tolerance=1e-3), Learned(UNet(study.width, study.levels), complex=True),
        study.depth, step=study.step, norm=1.0, seed=study.seed,
    )  # fmt: skip


def classical(
    y: Tensor, family: OperatorFamily, index: Tensor, truth: Tensor
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Images of the classical methods, and their weights, each the best for these images."""
    methods: dict[str, tuple[Any, list[float]]] = {
        "CG-SENSE": (lambda w, y, A: sense(y, A, w), [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]),
        "wavelets": (lambda w, y, A: wavelets(w)(y, A), [5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3]),
    }
    found = {"zero-filled": each(lambda y, A: A.adjoint(y), y, family, index)}
    chosen = {}
    for name, (method, weights) in methods.items():
        tried = {w: each(partial(method, w), y, family, index) for w in weights}
        chosen[name], found[name] = best(tried, truth)
    return found, chosen


def train(
    model: Unrolled, family: OperatorFamily, data: TensorDataset, study: Study, **changed: Any
) -> FitResult:
    """Train by splitting, with the settings of the study but for those `changed`."""
    settings = Settings(
        batch_size=1, learning_rate=study.learning_rate, schedule="cosine", gradient_clip=1.0,
        precision=study.precision, seed=study.seed, accelerator="cpu", progress=False,
    )  # fmt: skip
    epochs = changed.pop("epochs", study.epochs)
    loss = changed.pop("loss", study.splitting)
    return fit(model, family, data, loss, epochs=epochs, settings=replace(settings, **changed))


def real_check(model: Unrolled, folder: Path, study: Study) -> dict[str, Any]:
    """A real scan: half of its lines by every method, against CG-SENSE of all its data; PSNR in dB.

    The middle of its k-space (an image of the study's size), which is itself sampled incompletely, in 2D. The
    network is used as it is, and after further training by splitting on the very data it is to reconstruct.
    """
    kspace = np.load(folder / REAL)
    rows, columns = ((n - m) // 2 for n, m in zip(kspace.shape[1:], study.shape, strict=True))
    y = torch.from_numpy(kspace[:, rows : rows + study.shape[0], columns : columns + study.shape[1]].copy())
    maps = espirit(y, calibration=24, crop=0.0)
    sampled = (y != 0).any(0)
    every_second = replace(study, lines=study.shape[0] // 2)
    half = line_masks(every_second, 1, Generator().manual_seed(study.seed))[0] & sampled
    whole = CartesianMRI(sampled, maps)
    y = (y * 0.6 / whole.adjoint(y).abs().quantile(0.99))[None]
    reference = sense(y, whole, 1e-3)
    family, index = OperatorFamily([CartesianMRI(half, maps)]), torch.zeros(1, dtype=torch.int64)
    y = y * half
    found, chosen = classical(y, family, index, reference)
    found["unrolled, splitting"] = each(model, y, family, index)
    adapted = copy.deepcopy(model)
    again = TensorDataset(y.expand(study.adapt, *y.shape[1:]), index.expand(study.adapt))
    points = Splitting(keep=study.keep, shared_axes=(0,), centre=(study.centre, study.centre))
    train(adapted, family, again, study, epochs=1, loss=points, learning_rate=study.learning_rate / 4)
    found["unrolled, adapted"] = each(adapted, y, family, index)
    return {
        "measured": float(sampled.float().mean()),
        "used": float(half.float().mean()),
        "psnr_db": {name: psnr(x, reference) for name, x in found.items()},
        "weights_chosen_on_the_reference": chosen,
    }


def run(study: Study, folder: Path | None) -> Outcome:
    """The figures of the page, and images of every method."""
    generator = Generator().manual_seed(study.seed)
    counts = (study.train, study.test)
    known, test = (with_phase(x, generator) for x in heads(folder, study.shape, 3.0, counts, generator))
    maps = coil_maps(study)
    training, testing = (
        OperatorFamily([CartesianMRI(mask, maps) for mask in line_masks(study, count, generator)])
        for count in (study.masks, study.test)
    )
    y, index = scan(known, training, study, generator)
    y_test, index_test = scan(test, testing, study, generator)
    model = network(study)
    untrained = each(model, y_test, testing, index_test)
    started = time.process_time()
    result = train(model, training, TensorDataset(y, index), study)
    cpu = time.process_time() - started
    found, chosen = classical(y_test, testing, index_test, test)
    found["unrolled, untrained"] = untrained
    found["unrolled, splitting"] = each(model, y_test, testing, index_test)
    history = result.training.to_dict()["history"]
    figures = {
        "study": asdict(study),
        "data": "heads" if folder else "ellipses",
        "psnr_db": {name: psnr(x, test) for name, x in found.items()},
        "weights_chosen_on_the_test_images": chosen,
        "real_scan": real_check(model, folder, study) if folder else None,
        "verdict": result.gate.to_dict(),
        "loss": [epoch["train/loss"] for epoch in history],
        "training_cpu_seconds": cpu,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Outcome(figures, {"truth": test, **found}, shown=(study.test // 2,))


def main(arguments: list[str] | None = None) -> None:
    """Run the study, write its results."""
    command("unrolled_mri", __doc__, lambda folder, tiny: run(TINY if tiny else Study(), folder), arguments)


if __name__ == "__main__":
    main()
