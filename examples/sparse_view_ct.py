"""Tomography from few views, learned from the sinograms alone: equivariant imaging with rotations.

One scanner sees every object from the same few directions, with noise. No image is used in training. Rotated
objects are objects too, so what the views hide of one object, they show of another. Equivariant imaging: the
network must explain the sinograms, and reconstruct a rotated reconstruction from its virtual sinogram.
Equivariant splitting: from some of the views of a rotated object it must foretell the others; "averaged" is
the mean of its answers over all rotations. Filtered back-projection has no setting; total variation gets the
weight that is best *on the test images themselves*; the supervised network is the same one, trained with the
images.

    INVLEARN_DATA=... python examples/sparse_view_ct.py     # slices of heads; see the results for the time
    python examples/sparse_view_ct.py --tiny                # random ellipses, seconds

Heads in any orientation stand in for attenuation. Training: `brains/fireants_atlas_2mm_1000_3.nii.gz` and
`..._1001_3` under random deformation; test: `brains/colin27_ch2_t1_1mm.nii.gz`, another person.
Writes `benchmarks/results/sparse_view_ct.json` and `docs/figures/sparse-view-ct.png`.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parent))
from studies import Outcome, best, command, heads, psnr

from invlearn.identifiability import check
from invlearn.learning import (
    Equivariant,
    EquivariantImaging,
    EquivariantSplitting,
    Loss,
    MeasurementConsistency,
    Objective,
    Settings,
    Supervised,
    fit,
)
from invlearn.physics import Radon2D, fbp, power_norm
from invlearn.physics.groups import Rotations, Rotations90
from invlearn.physics.noise import GaussianNoise
from invlearn.unrolled import HQS, Learned, TotalVariation, UNet, Unrolled, Variational


@dataclass(frozen=True)
class Study:
    """Sizes and settings.

    `views` are spread evenly over half a turn, `rotations` over a full turn; `noise` is the standard
    deviation of a sinogram entry, in units of the brightest tissue times pixels; `weight` is that of
    equivariance beside consistency, `keep` the part of the views that splitting shows the network.
    Equivariant imaging learns slowest: it has `epochs_ei` and a rate of its own.
    """

    size: int = 40
    millimetres: float = 6.0
    views: int = 10
    rotations: int = 36
    noise: float = 0.3
    train: int = 800
    test: int = 16
    depth: int = 4
    width: int = 16
    levels: int = 2
    step: float = 10.0
    epochs: int = 12
    epochs_ei: int = 24
    batch: int = 8
    learning_rate: float = 2e-3
    learning_rate_ei: float = 5e-3
    weight: float = 0.1
    keep: float = 0.8
    dimension: int = 15
    seed: int = 0


TINY = Study(
    size=12,
    views=4,
    rotations=8,
    noise=0.05,
    train=16,
    test=3,
    depth=2,
    width=4,
    levels=1,
    epochs=3,
    epochs_ei=3,
)


def turned(images: Tensor, group: Rotations, generator: Generator) -> Tensor:
    """Each image in an orientation of its own, and nothing outside the inscribed disc."""
    turns = torch.randint(0, group.order, (len(images),), generator=generator).tolist()
    axis = torch.linspace(-1, 1, images.shape[-1])
    disc = axis[:, None] ** 2 + axis**2 <= 1
    return torch.stack([group(image * disc, g) for image, g in zip(images, turns, strict=True)]) * disc


def network(study: Study, physics: Radon2D) -> Unrolled:
    """Data steps with U-Nets between them; untrained it is regularised least squares."""
    return Unrolled(
        HQS(data_last=True, tolerance=1e-3), Learned(UNet(study.width, study.levels)),
        study.depth, step=study.step, norm=1.02 * power_norm(physics).value, seed=study.seed,
    )  # fmt: skip


def objectives(study: Study, physics: Radon2D) -> dict[str, Loss | Objective]:
    """What the network is trained for, by name."""
    # the unit of the sinogram: errors weigh as much as those of an image that makes them
    unit = physics.codomain.size / physics.domain.size / power_norm(physics).value ** 2
    consistency = unit * MeasurementConsistency()
    group = Rotations(study.rotations, physics.domain.shape)
    return {
        "EI, rotations": consistency + study.weight * EquivariantImaging(group, GaussianNoise(study.noise)),
        "equivariant splitting": EquivariantSplitting(group, keep=study.keep, shared_axes=(1,)),
        "supervised": Supervised(),
    }


def trained(
    study: Study, physics: Radon2D, data: TensorDataset, objective: Loss | Objective
) -> tuple[Unrolled, dict[str, Any]]:
    """A network after training, and what is to be told of it."""
    model, started = network(study, physics), time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not certain")  # interpolated rotations prove nothing
        result = fit(
            model, physics, data, objective, epochs=study.epochs, dimension=study.dimension,
            settings=Settings(
                batch_size=study.batch, learning_rate=study.learning_rate, schedule="cosine",
                gradient_clip=1.0, seed=study.seed, accelerator="cpu", progress=False,
            ),
        )  # fmt: skip
    history = result.training.to_dict()["history"]
    names = [name for name in history[0] if name.startswith("train/")]
    return model, {
        "verdict": result.gate.verdict,
        "reason": result.gate.reason,
        "losses": {name: [epoch[name] for epoch in history] for name in names},
        "cpu_seconds": time.process_time() - started,
    }


def run(study: Study, folder: Path | None) -> Outcome:
    """The figures of the page, and images of every method."""
    generator = Generator().manual_seed(study.seed)
    shape = (study.size, study.size)
    group = Rotations(study.rotations, shape)
    train, test = (
        turned(x, group, generator)
        for x in heads(folder, shape, study.millimetres, (study.train, study.test), generator)
    )
    angles = math.pi * torch.arange(study.views, dtype=torch.float64) / study.views
    physics = Radon2D(shape, angles, detectors=study.size)
    noise = GaussianNoise(study.noise)
    y, y_test = (noise(physics(x), generator) for x in (train, test))
    weights = [0.3, 0.6, 1.0, 1.5]
    tried = {
        w: Variational(TotalVariation(w, tolerance=1e-2), tolerance=1e-3)(y_test, physics) for w in weights
    }
    found = {"FBP": fbp(y_test, physics)}
    chosen, found["TV"] = best(tried, test)
    with torch.no_grad():
        found["unrolled, untrained"] = network(study, physics)(y_test, physics)
    told = {}
    for name, objective in objectives(study, physics).items():
        data = TensorDataset(y, train) if name == "supervised" else TensorDataset(y)
        its = study
        if name.startswith("EI"):
            its = replace(study, epochs=study.epochs_ei, learning_rate=study.learning_rate_ei)
        model, told[name] = trained(its, physics, data, objective)
        with torch.no_grad():
            found[name] = model(y_test, physics)
            if name == "equivariant splitting":
                found[f"{name}, averaged"] = Equivariant(model, group)(y_test, physics)
    checked = {
        "consistency alone": check(physics, dimension=study.dimension),
        "quarter turns": check(physics, group=Rotations90(shape), dimension=study.dimension),
    }
    figures = {
        "study": asdict(study),
        "data": "heads" if folder else "ellipses",
        "psnr_db": {name: psnr(x, test) for name, x in found.items()},
        "tv_weight_chosen_on_the_test_images": chosen,
        "checked": {name: {"verdict": r.verdict, "reason": r.reason} for name, r in checked.items()},
        "trained": told,
        "parameters": sum(p.numel() for p in network(study, physics).parameters()),
    }
    return Outcome(figures, {"truth": test, **found}, shown=(0, study.test // 2))


def main(arguments: list[str] | None = None) -> None:
    """Run the study, write its results."""
    command("sparse_view_ct", __doc__, lambda folder, tiny: run(TINY if tiny else Study(), folder), arguments)


if __name__ == "__main__":
    main()
