"""Train WiNet on T1 brains, without any true deformation.

``INVLEARN_DATA=… python examples/train_winet.py OUT`` reads the four brains that the environment variable
leads to; without it, drawn heads show how it goes. Labels outline the brain of Colin27; in the two unlabelled
heads `register` finds it. A training pair is two brains, or twice the same, each under a random smooth warp,
with another gamma, shading and noise; or their label maps, or random shapes, in random contrasts (as in
SynthMorph, doi:10.1109/TMI.2021.3116879). `register` also says once where the points of every brain are in
Colin27, so that the velocity between any two warped ones is known: it is what the network learns, beside
local correlation after the warp. The MNI152 average is held back, and its grey and white matter say what the
network is worth. ``--resume`` goes on after an interruption.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).parent))
from weights import new_parser, settings_of

from invlearn.io import Volume, read_volume, write_volume
from invlearn.registration import register
from invlearn.registration.collection import Collection, Source, common_grid
from invlearn.registration.fields import compose, exponential, resize, warp
from invlearn.registration.learning import Objective, train_winet
from invlearn.registration.metrics import dice
from invlearn.registration.start import predict
from invlearn.registration.synthesis import Synthesis, drawn_from_labels, random_velocity, smooth_noise
from invlearn.registration.winet import WiNet
from invlearn.training import save_network

Head = dict[str, Tensor]
BRAIN = (1, 2, 3, 8)  # BrainWeb: fluid, grey, white matter, glia
OBJECTIVE = Objective(similarity=1.0, smoothness=0.05, radius=2, supervision=1.0)
SYNTHESIS = Synthesis(displacement=3.0, scales=(16.0, 8.0, 4.0), gamma=0.4, bias=0.3, noise=0.03)
SAME = 0.5  # share of the pairs that are one brain twice
SHAPES, LABELS = 0.15, 0.2  # shares of the pairs that are drawn from random shapes, and from labels
KINDS = 8  # of random shapes in a volume
FINER = 2  # the grid on which brains are registered and overlap is measured, beside that of the training
ITEM_SEEDS = 10**6  # a generator for every pair, the seed apart


def brains(
    folder: Path, out: Path, spacing: float, shape: Sequence[int]
) -> tuple[list[Head], list[Head], str]:
    """Brains to learn from; the held-back one and one with labels; and what they are, for a model card."""
    files, prepared = folder / "brains", out / "brains"
    prepared.mkdir(parents=True, exist_ok=True)
    colin = read_volume(files / "colin27_ch2_t1_1mm.nii.gz")
    tissue = read_volume(folder / "mrf" / "brainweb_normal_crisp_labels_1mm.nii.gz").data
    inside = np.isin(tissue, BRAIN)
    template = {
        k: read_volume(files / f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz")
        for k in ("t1", "gm", "wm")
    }
    made = {
        "colin": colin.like(colin.data * inside),
        "colin_labels": colin.like(np.select([tissue == 2, tissue == 3], [1, 2], 0).astype(np.uint8)),
        "tissue": colin.like((tissue * inside).astype(np.uint8)),
        "average": template["t1"],
        "average_labels": template["t1"].like(
            np.select([template[k].data > 127.5 for k in ("gm", "wm")], [1, 2], 0).astype(np.uint8)
        ),
        **{
            f"head_{k}": _outlined(files / f"fireants_atlas_2mm_{k}_3.nii.gz", colin, inside)
            for k in (1000, 1001)
        },
    }
    path = {name: prepared / f"{name}.nii.gz" for name in made}
    for name, volume in made.items():
        write_volume(path[name], volume)
    sources = [Source(path[name]) for name in ("colin", "head_1000", "head_1001")]
    labelled = [Source(path[name], path[f"{name}_labels"]) for name in ("average", "colin")]
    tissue = Source(path["colin"], path["tissue"])
    grid = common_grid(path["average"], spacing, shape)
    fine = common_grid(path["average"], spacing / FINER, [FINER * n for n in shape])
    told = (
        "Colin27 (skull-stripped, with its BrainWeb labels) and two heads of unknown origin (skull-stripped "
        "and labelled by registering Colin27); the MNI152 2009a average is held back"
    )
    heads = _linked(Collection(sources, fine), Collection([tissue], grid)[0]["labels"])
    return heads, list(Collection(labelled, fine)), told


def _linked(brains: Sequence[Head], labels: Tensor) -> list[Head]:
    """Brains on the training grid, where the points of each are in the first, and its labels there."""
    shape = labels.shape
    found = []
    for brain in brains:
        image = functional.interpolate(brain["image"][None, None], shape, mode="area")[0, 0]
        both = register(brain["image"], brains[0]["image"], affine="none")
        there, back = (resize(u, shape) for u in (both.deformation, both.inverse_deformation))
        found.append({"image": image, "labels": warp(labels, there, "labels"), "there": there, "back": back})
    return found


def _outlined(path: Path, colin: Volume, inside: np.ndarray) -> Volume:
    """The brain of a head, at the place where it is aligned with Colin27."""
    head = read_volume(path)
    found = register(head, colin)
    mask = found.warp(colin.like(inside.astype(np.uint8)), "labels").data
    return replace(head.like((head.data * mask).astype(np.float32)), affine=found.affine @ head.affine)


def drawn(shape: Sequence[int], seed: int) -> tuple[list[Head], list[Head], str]:
    """Nested ellipsoids, warped: brains of a sort, where there are no data."""
    generator = torch.Generator().manual_seed(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = torch.from_numpy(np.sqrt(sum(x**2 for x in axes)))
    labels = sum((radius < r).long() for r in (0.85, 0.7, 0.5, 0.25))
    heads = []
    for _ in range(4):
        v = random_velocity(shape, generator, 3.0)
        there, back = exponential(v), exponential(-v)
        one = warp(labels, there, "labels")
        image = drawn_from_labels(one, generator)
        heads.append({"image": image, "labels": one, "there": there, "back": back})
    return heads[:2], heads[2:], "drawn ellipsoids"


def shapes(inside: Tensor, generator: Generator) -> Tensor:
    """Labels of random blobs of several sizes in a brain: the same place is never the same tissue."""
    size = 4 + 8 * float(torch.rand((), generator=generator))
    noise = smooth_noise((KINDS, *inside.shape), generator, size)
    return (1 + noise.argmax(0)) * inside


class Drawn(Dataset[Head]):
    """Random pairs of a few brains; the same number is always the same pair.

    Parameters
    ----------
    heads
        On one grid.
    count
        How many pairs.
    synthesis
        What a scanner and a skull may do to them; warps of both, independent of each other.
    seed
        Of all pairs.
    """

    def __init__(self, heads: Sequence[Head], count: int, synthesis: Synthesis, seed: int) -> None:
        self.heads, self.count, self.synthesis, self.seed = heads, count, synthesis, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Head:
        generator = torch.Generator().manual_seed(ITEM_SEEDS * (self.seed + 1) + i)
        drawn, same, contrast = torch.rand(3, generator=generator).tolist()
        first, second = torch.randperm(len(self.heads), generator=generator)[:2].tolist()
        if drawn < SHAPES or same < SAME:
            second = first
        heads = [self.heads[k] for k in (first, second)]
        labels: list[Tensor | None] = [None, None]
        if drawn < SHAPES:
            labels = 2 * [shapes(heads[0]["labels"] > 0, generator)]
        elif drawn < SHAPES + LABELS:
            labels = [head["labels"] for head in heads]
        pair, maps = {}, []
        for name, head, drawing in zip(("moving", "fixed"), heads, labels, strict=True):
            moved, back = self._warp(head["image"].shape, generator)
            image = target = head["image"]
            if drawing is not None:
                image = drawn_from_labels(drawing, generator)
                target = drawn_from_labels(drawing, torch.Generator().manual_seed(int(contrast * ITEM_SEEDS)))
            pair[name] = self.synthesis.degraded(warp(image, moved), generator)
            pair[f"{name}_target"] = warp(target, moved)
            maps.append((compose(head["there"], moved), compose(back, head["back"])))
        return {**pair, "velocity": between(*maps)}

    def _warp(self, shape: Sequence[int], generator: Generator) -> tuple[Tensor, Tensor]:
        """A random smooth map, and what undoes it."""
        size = self.synthesis.displacement * float(torch.rand((), generator=generator))
        v = random_velocity(shape, generator, size, self.synthesis.scales)
        return exponential(v), exponential(-v)


def between(moving: tuple[Tensor, Tensor], fixed: tuple[Tensor, Tensor]) -> Tensor:
    """The velocity from one volume to another, each with its map to one reference and what undoes it.

    Half of the map's displacement less that of its inverse: the velocity but for its third order.
    """
    there, back = compose(moving[1], fixed[0]), compose(fixed[1], moving[0])
    return (there - back) / 2


def overlap(network: WiNet, heads: Sequence[Head], spacing: float) -> dict[str, float]:
    """Mean Dice of the labels of two brains, both ways, in percent: as they are, and as predicted."""
    found = np.zeros((2, 2))
    place = np.diag([spacing, spacing, spacing, 1.0])
    for k, (moving, fixed) in enumerate((heads, heads[::-1])):
        field = predict(network, *(Volume(head["image"].numpy(), place) for head in (fixed, moving)))
        for way, u in enumerate((torch.zeros_like(field), field)):
            scores = dice(fixed["labels"], warp(moving["labels"], u, "labels"))
            found[way, k] = 100 * float(np.mean(list(scores.values())))
    before, after = found.mean(1)
    return {"dice_percent_before": float(before), "dice_percent_after": float(after)}


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, write the weights and their card, and return the card."""
    parser = new_parser(__doc__, 5e-4)
    parser.add_argument("--spacing", type=float, default=6.0, help="mm")
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 32, 32))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=6000, help="of an epoch, the same in each")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="bf16-mixed", help="full, or bf16-mixed")
    options = parser.parse_args(given)
    shape = tuple(options.shape)
    folder = os.environ.get("INVLEARN_DATA")
    heads, held_back, told = (
        brains(Path(folder), options.out, options.spacing, shape) if folder else drawn(shape, options.seed)
    )
    settings = settings_of(options, options.batch, precision=options.precision, accelerator="cpu")
    torch.manual_seed(options.seed)
    network = WiNet("haar", options.width, spacing=options.spacing)
    result = train_winet(
        network,
        Drawn(heads, options.pairs, SYNTHESIS, options.seed),
        epochs=options.epochs,
        objective=OBJECTIVE,
        settings=settings,
    )
    last = result.history[result.best_epoch - 1]
    card = {
        "task": "deformable registration of skull-stripped T1 brain volumes, affinely aligned",
        "data": told,
        "limits": "three brains: a start for an optimiser, nothing to rely on alone",
        "grid": {"shape": list(shape), "spacing_mm": options.spacing},
        "training": {
            "steps": int(last["step"]),
            "epochs": options.epochs,
            "batch": options.batch,
            "learning_rate": options.learning_rate,
            "precision": options.precision,
            "seed": options.seed,
            "objective": OBJECTIVE.to_dict(),
            "synthesis": SYNTHESIS.to_dict(),
            "seconds": round(sum(row["seconds"] for row in result.history)),
        },
        "held_back": overlap(network.eval(), held_back, options.spacing / (FINER if folder else 1)),
    }
    save_network(options.out / "winet_brain_t1.safetensors", network, card, overwrite=True)
    print(json.dumps(card, indent=2))
    return card


if __name__ == "__main__":
    main()
