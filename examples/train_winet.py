"""Train WiNet on T1 brains, without any true deformation.

``INVLEARN_DATA=… python examples/train_winet.py OUT`` reads the four brains that the environment variable
leads to; without it, drawn heads show how it goes. Labels outline the brain of Colin27; in the two unlabelled
heads `register` finds it. A training pair is two brains, or twice the same, each under a random smooth warp,
with another gamma, shading and noise; or a label map in two sets of random contrasts. The loss is local
correlation after the warp, and roughness. The MNI152 average is held back, and its grey and white matter say
what the network is worth. ``--resume`` goes on after an interruption.
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
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).parent))
from weights import new_parser, settings_of

from invlearn.io import Volume, read_volume, write_volume
from invlearn.registration import register
from invlearn.registration.collection import Collection, Source, common_grid
from invlearn.registration.fields import exponential, warp
from invlearn.registration.learning import Objective, train_winet
from invlearn.registration.metrics import dice
from invlearn.registration.synthesis import Synthesis, drawn_from_labels, random_velocity
from invlearn.registration.winet import WiNet
from invlearn.training import save_network

Head = dict[str, Tensor]
BRAIN = (1, 2, 3, 8)  # BrainWeb: fluid, grey, white matter, glia
OBJECTIVE = Objective(smoothness=0.1)
SYNTHESIS = Synthesis(displacement=2.5, gamma=0.4, bias=0.3, noise=0.03, label_contrast=1.0)
SAME = 0.3  # share of the pairs that are one brain twice
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
    sources = [
        Source(path["colin"], path["tissue"]),
        Source(path["head_1000"]),
        Source(path["head_1001"]),
        Source(path["average"], path["average_labels"]),
        Source(path["colin"], path["colin_labels"]),
    ]
    found = list(Collection(sources, common_grid(path["average"], spacing, shape)))
    told = (
        "Colin27 (skull-stripped, with its BrainWeb labels in random contrasts) and two heads of unknown "
        "origin (skull-stripped by registering Colin27); the MNI152 2009a average is held back"
    )
    return found[:3], found[3:], told


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
        field = exponential(random_velocity(shape, generator, 3.0))
        one = warp(labels, field, "labels")
        heads.append({"image": drawn_from_labels(one, generator), "labels": one})
    return heads[:2], heads[2:], "drawn ellipsoids"


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
        first, second = (int(k) for k in torch.randperm(len(self.heads), generator=generator)[:2])
        if float(torch.rand((), generator=generator)) < SAME:
            head = self.heads[first]
            pair = self.synthesis.pair(head["image"], head.get("labels"), generator)
            return {name: pair[name] for name in ("moving", "fixed", "moving_target", "fixed_target")}
        pair = {}
        for name, k in (("moving", first), ("fixed", second)):
            target = self._warped(self.heads[k]["image"], generator)
            pair |= {name: self.synthesis.degraded(target, generator), f"{name}_target": target}
        return pair

    def _warped(self, image: Tensor, generator: Generator) -> Tensor:
        size = self.synthesis.displacement * float(torch.rand((), generator=generator))
        return warp(image, exponential(random_velocity(image.shape, generator, size, self.synthesis.scales)))


def overlap(network: WiNet, heads: Sequence[Head]) -> dict[str, float]:
    """Mean Dice of the labels of two brains, both ways, in percent: as they are, and as predicted."""
    found = np.zeros((2, 2))
    for k, (moving, fixed) in enumerate((heads, heads[::-1])):
        with torch.no_grad():
            field = network(moving["image"], fixed["image"])
        for way, u in enumerate((torch.zeros_like(field), field)):
            scores = dice(fixed["labels"], warp(moving["labels"], u, "labels"))
            found[way, k] = 100 * float(np.mean(list(scores.values())))
    before, after = found.mean(1)
    return {"dice_percent_before": float(before), "dice_percent_after": float(after)}


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, write the weights and their card, and return the card."""
    parser = new_parser(__doc__)
    parser.add_argument("--spacing", type=float, default=4.0, help="mm")
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 56, 48))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=200, help="of an epoch, the same in each")
    parser.add_argument("--precision", default="full", help="full, or bf16-mixed")
    options = parser.parse_args(given)
    shape = tuple(options.shape)
    folder = os.environ.get("INVLEARN_DATA")
    heads, held_back, told = (
        brains(Path(folder), options.out, options.spacing, shape) if folder else drawn(shape, options.seed)
    )
    settings = settings_of(options, precision=options.precision, accelerator="cpu")
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
            "learning_rate": options.learning_rate,
            "precision": options.precision,
            "seed": options.seed,
            "objective": OBJECTIVE.to_dict(),
            "synthesis": SYNTHESIS.to_dict(),
            "seconds": round(sum(row["seconds"] for row in result.history)),
        },
        "held_back": overlap(network, held_back),
    }
    save_network(options.out / "winet_brain_t1.safetensors", network, card, overwrite=True)
    print(json.dumps(card, indent=2))
    return card


if __name__ == "__main__":
    main()
