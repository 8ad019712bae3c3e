"""Train the PGD-Net weights that ship with invlearn, from anatomy that was drawn and never scanned.

``python examples/train_pgdnet.py OUT --frames 200`` and ``--frames 1000`` make the two files. Scans of drawn
heads are simulated once into OUT (``scans``, ``scans_held_back``); training goes through them, flipped and
transposed at random. Everything comes from the seed; ``--resume`` goes on after an interruption.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from weights import new_parser, settings_of

from invlearn.io import read_volume
from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.fingerprint.anatomy import (
    BONE,
    FAT,
    FLUID,
    GREY,
    MUSCLE,
    TISSUES,
    WHITE,
)
from invlearn.training import save_network
from invlearn.unrolled import load_pgdnet
from invlearn.unrolled.pgdnet_pool import Pool, Variety, write_pool
from invlearn.unrolled.pgdnet_rounds import mean_errors, train_in_rounds
from invlearn.unrolled.pgdnet_subjects import TEXTURE, of_labels, one_of, synthetic
from invlearn.unrolled.pgdnet_training import KspaceLoss, MapLoss, loss_card, new_pgdnet, train_pgdnet

#: The Cramér-Rao bounds in white and grey matter are within 0.5 % of those without truncation, in fluid 6 %.
RANK = {200: 8, 1000: 10}
LIMITS = (
    "made from drawn heads, and from the planes of one labelled head where those were given: folds, fluid, "
    "fat, lesions, all of random values; nobody's scan; two axes, one tissue a voxel (partial volumes as "
    "mean values), no motion, no flow, no off-resonance; flip angles as played unless a B1 map is given (0.7 "
    "to 1.3); 4 to 10 coils, 18 to 45 dB, spirals of 1.2 to 5 turns and spokes; beyond that it was not "
    "trained. Standard errors are those of the noise and know no bias."
)


#: What BrainWeb's labels are made of.
BRAINWEB = {
    label: TISSUES[tissue]
    for label, tissue in enumerate((FLUID, GREY, WHITE, FAT, MUSCLE, MUSCLE, BONE, GREY, MUSCLE), start=1)
}
KEPT = slice(75, 106)  # of the axial planes: those around the one that the benchmarks reconstruct


def label_planes(path: Path) -> np.ndarray:
    """Axial planes `(planes, H, W)`, without those that are kept for tests."""
    planes = read_volume(path).data.T
    return np.delete(planes, KEPT, 0).astype(np.uint8)


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, write the weights and their card, and return the card."""
    parser = new_parser(__doc__)
    parser.add_argument("--frames", type=int, default=200, help="of the built-in train")
    parser.add_argument("--rank", type=int, help="of the subspace")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--scans", type=int, default=280)
    parser.add_argument("--labels", type=Path, help="BrainWeb's labels (NIfTI): half of the scans from them")
    parser.add_argument("--texture", type=float, default=TEXTURE, help="of tissues, see tissue_maps")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 80, 96])
    parser.add_argument("--rounds", type=int, default=3, help="through all iterations, see train_in_rounds")
    parser.add_argument("--epochs", type=int, default=4, help="in a round; of all without maps")
    parser.add_argument("--self-supervised", action="store_true", help="from k-space alone")
    parser.add_argument("--robust", type=float, default=0.03, help="large errors count less, see MapLoss")
    parser.add_argument("--begin", type=Path, help="weights to begin with, of the same sequence and sizes")
    options = parser.parse_args(given)
    variety = Variety(sizes=tuple(options.sizes))
    began = time.perf_counter()
    network, signals = new_pgdnet(
        FingerprintSequence.default(options.frames),
        rank=options.rank or RANK.get(options.frames),
        seed=options.seed,
        iterations=options.iterations,
        width=options.width,
    )
    if options.begin:
        network.load_state_dict(load_pgdnet(options.begin).state_dict())
    pools, anatomy, told = [], synthetic(variety.b1, options.texture), "drawn heads, no real one"
    if options.labels:
        planes = label_planes(options.labels)
        anatomy = one_of(anatomy, of_labels(planes, BRAINWEB, b1=variety.b1, texture=options.texture))
        told = f"drawn heads, and planes of the labels {options.labels.name} with tissues drawn anew"
    for number, (name, scans) in enumerate(
        (("scans", options.scans), ("scans_held_back", max(1, options.scans // 12)))
    ):
        write_pool(
            options.out / name,
            network,
            anatomy,
            scans,
            variety=variety,
            split=options.self_supervised,
            seed=2 * options.seed + number,
            progress=lambda done, of: print(f"scan {done} of {of}", flush=True) if done % 24 == 0 else None,
        )
        pools.append(Pool(options.out / name, turned=number == 0))
    settings = settings_of(options, accelerator="auto")
    loss: KspaceLoss | MapLoss
    if options.self_supervised:
        loss = KspaceLoss()
        result = train_pgdnet(
            network, pools[0], epochs=options.epochs, val=pools[1], loss=loss, settings=settings
        )
        held_back = dict(result.history[result.best_epoch - 1])
    else:
        loss = MapLoss(relative=True, robust=options.robust)
        result = train_in_rounds(
            network,
            pools[0],
            rounds=options.rounds,
            epochs=options.epochs,
            loss=loss,
            val=pools[1],
            settings=settings,
        )
        held_back = mean_errors(network, pools[1], loss)
    card = {
        "task": f"T1, T2 and density from the built-in fingerprinting train of {options.frames} frames",
        "data": {"anatomy": told, "texture": options.texture, "pool": pools[0].about},
        "limits": LIMITS,
        "signals": signals,
        "training": {
            "loss": loss_card(loss),
            "rounds": None if options.self_supervised else options.rounds,
            "epochs": options.epochs,
            "steps": int(result.history[-1]["step"]),
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "begin": options.begin and json.loads(options.begin.with_suffix(".json").read_text())["training"],
            "seconds": round(sum(row["seconds"] for row in result.history)),
        },
        "held_back": held_back,
    }
    name = f"pgdnet_{options.frames}.safetensors"
    save_network(options.out / name, network, card, overwrite=True)
    print(json.dumps(card, indent=2))
    print(f"{options.out / name}: {time.perf_counter() - began:.0f} s")
    return card


if __name__ == "__main__":
    main()
