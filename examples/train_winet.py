"""Train the WiNet weights that ship with invlearn: T1 brains under synthetic deformations.

``INVLEARN_DATA=… python examples/train_winet.py OUT`` reads the four brains that the environment variable
leads to; without it, drawn heads show how it goes. Every pair is one head with a random smooth warp, and
either its own contrast with another gamma, shading and noise, or the random contrasts of a label map. One
head is held back for validation. ``--resume`` goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.registration.collection import Collection, Source, common_grid
from invlearn.registration.fields import exponential, warp
from invlearn.registration.learning import Objective, Singles, train_winet
from invlearn.registration.synthesis import Synthesis, drawn_from_labels, random_velocity
from invlearn.registration.winet import WiNet, save_winet
from invlearn.training import Settings

Head = dict[str, Tensor]
GREY_AND_WHITE = (1, 2, 3, 8)  # BrainWeb: fluid, grey, white matter, glia: what is inside the skull
OBJECTIVE = Objective(similarity=0.0, smoothness=0.05, supervision=1.0)  # the warps are known: learn them


def brains(folder: Path, spacing: float, shape: tuple[int, int, int]) -> tuple[list[Head], list[Head], str]:
    """Heads to learn from, heads held back, and what they are, for a model card."""
    files = folder / "brains"
    template = files / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    tissue = folder / "mrf" / "brainweb_normal_crisp_labels_1mm.nii.gz"
    sources = [
        Source(template),
        Source(files / "colin27_ch2_t1_1mm.nii.gz", tissue),
        Source(files / "fireants_atlas_2mm_1000_3.nii.gz"),
        Source(files / "fireants_atlas_2mm_1001_3.nii.gz"),
    ]
    average, colin, head, held_back = Collection(sources, common_grid(template, spacing, shape))
    inside = torch.isin(colin["labels"], torch.tensor(GREY_AND_WHITE))
    stripped = {"image": colin["image"] * inside}
    labels = {"image": colin["image"], "labels": colin["labels"]}
    told = (
        "Colin27 (whole head, skull-stripped, and its BrainWeb labels in random contrasts), the MNI152 2009a "
        "average, and one head of unknown origin; a second head of unknown origin for validation"
    )
    return [average, {"image": colin["image"]}, stripped, head, labels], [held_back], told


def drawn(shape: tuple[int, int, int], seed: int) -> tuple[list[Head], list[Head], str]:
    """Nested ellipsoids, warped: heads of a sort, where there are no data."""
    generator = torch.Generator().manual_seed(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = torch.from_numpy(np.sqrt(sum(x**2 for x in axes)))
    labels = sum((radius < r).long() for r in (0.85, 0.7, 0.5, 0.25))
    heads = []
    for _ in range(3):
        field = exponential(random_velocity(shape, generator, 3.0))
        one = warp(labels, field, "labels")
        heads.append({"image": drawn_from_labels(one, generator), "labels": one})
    return heads[:2], heads[2:], "drawn ellipsoids"


def recovery(network: WiNet, heads: list[Head], synthesis: Synthesis, pairs: int) -> dict[str, float]:
    """Mean length, in voxels inside the body, of the error of known warps: before, and as predicted."""
    generator = torch.Generator().manual_seed(10**6)
    sums = np.zeros(2)
    for k in range(pairs):
        head = heads[k % len(heads)]
        pair = synthesis.pair(head["image"], head.get("labels"), generator)
        truth, body = exponential(pair["velocity"]), pair["fixed_target"] > 0.05
        with torch.no_grad():
            found = network(pair["moving"], pair["fixed"])
        sums += [float((x - truth).square().sum(0).sqrt()[body].mean()) for x in (0 * truth, found)]
    before, after = sums / pairs
    return {"pairs": pairs, "error_before_voxels": float(before), "error_after_voxels": float(after)}


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, write the weights and their card, and return the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for weights, card and checkpoints")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm")
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 64, 48))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=20, help="pairs of every head an epoch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", default="bf16-mixed", help="full, or bf16-mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(given)
    shape = tuple(options.shape)
    folder = os.environ.get("INVLEARN_DATA")
    heads, held_back, told = (
        brains(Path(folder), options.spacing, shape) if folder else drawn(shape, options.seed)
    )
    synthesis = Synthesis(displacement=10.0, gamma=0.3, bias=0.2, noise=0.03, label_contrast=0.5)
    settings = Settings(
        batch_size=1,
        learning_rate=options.learning_rate,
        schedule="cosine",
        gradient_clip=1.0,
        seed=options.seed,
        precision=options.precision,
        folder=options.out / "checkpoints",
        checkpoint_steps=25,
        resume=options.resume,
        accelerator="cpu",
    )
    torch.manual_seed(options.seed)
    network = WiNet("haar", options.width, spacing=options.spacing)
    result = train_winet(
        network,
        Singles(heads, options.repeats),
        epochs=options.epochs,
        objective=OBJECTIVE,
        synthesis=synthesis,
        val=Singles(held_back, 10),
        settings=settings,
    )
    last = result.history[result.best_epoch - 1]
    card = {
        "task": "deformable registration of T1 brain volumes, affinely aligned",
        "data": told,
        "limits": "very few heads, one scanner contrast: a start for an optimiser, nothing to rely on alone",
        "grid": {"shape": list(shape), "spacing_mm": options.spacing},
        "training": {
            "steps": int(last["step"]),
            "epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "precision": options.precision,
            "seed": options.seed,
            "objective": OBJECTIVE.to_dict(),
            "synthesis": synthesis.to_dict(),
            "seconds": round(sum(row["seconds"] for row in result.history)),
        },
        "held_back": recovery(network, held_back, synthesis, 10),
    }
    save_winet(options.out / "winet_brain_t1.safetensors", network, card, overwrite=True)
    print(json.dumps(card, indent=2))
    return card


if __name__ == "__main__":
    main()
