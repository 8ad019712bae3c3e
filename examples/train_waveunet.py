"""Train the WaveUNet3D weights that ship with invlearn, on simulated neurons alone.

``python examples/train_waveunet.py OUT`` makes a pool of seeded stacks of all kinds and levels of noise
(once: ``--pool`` keeps them), draws cubes of them, and writes ``OUT/waveunet.safetensors`` with a model card
that says what the network does on stacks of other seeds. ``--resume`` goes on after an interruption.

Half of the stacks are those of `simulate`, a quarter of these magnified; the other half are those of
`simulate_widely`. What ships was made by the command in its card, ``waveunet_v3.json``.

The networks of the comparison with a plain U-Net::

    train_waveunet.py OUT --plain --width 4 --steps 1200 --epochs 4 --pair WaveSNet_V3|UNet_V1 --seed 0|1|2
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import zoom
from torch.utils.data import Subset

sys.path.insert(0, str(Path(__file__).parent))
from weights import new_parser, settings_of

from invlearn.neuro.learning import Cubes, Example, Fixed, Variation, train_waveunet
from invlearn.neuro.losses import Objective
from invlearn.neuro.normalise import estimate
from invlearn.neuro.synthesis import simulate, simulate_widely
from invlearn.neuro.waveunet import WaveUNet3D
from invlearn.training import load_into, save_network

Shape = tuple[int, int, int]
TRAINING, VALIDATION = 1_000_000, 2_000_000  # where the seeds of the stacks begin
MAGNIFICATION = (1.3, 2.2)  # thick neurites, noise finer than the optics
SERIES = 10_000_000  # further than any seed that is used
LEVELS = ("low", "medium", "high")
WIDE = "wide"  # stacks of `simulate_widely`


def widely_simulated(seed: int, shape: Shape) -> Example:
    """A stack of `simulate_widely`, normalised, and its truth; of another seed if it holds nothing at all."""
    stack, mask = simulate_widely(shape, seed=seed)
    if np.ptp(stack) == 0:
        return widely_simulated(seed + SERIES, shape)
    return Example(estimate(stack)(stack).astype(np.float16), mask)


def simulated(seed: int, shape: Shape, noise: str | None, magnified: bool = False) -> Example:
    """A stack of a seed, normalised, and its truth; every fourth one magnified, if asked for."""
    if noise == WIDE:
        return widely_simulated(seed, shape)
    if not magnified or seed % 4:
        sample = simulate(shape, seed=seed, noise=noise)
        return Example(estimate(sample.stack)(sample.stack).astype(np.float16), sample.mask)
    factor = float(np.random.default_rng(seed).uniform(*MAGNIFICATION))
    small = [max(16, round(n / factor)) for n in shape]
    sample = simulate(small, seed=seed, noise=noise)
    factors = [n / s for n, s in zip(shape, small, strict=True)]
    image = zoom(sample.stack.astype(np.float32), factors, order=1)
    mask = zoom(sample.mask.astype(np.float32), factors, order=1) > 0.5
    return Example(estimate(image)(image).astype(np.float16), mask)


class Pool(Sequence[Example]):
    """Simulated stacks, kept in a folder when one is given: the same seed is the same stack.

    Each has the noise of `levels`, of all kinds and scales for None; "wide" are those of `simulate_widely`.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Shape, folder: Path | None, levels: Sequence[str | None]
    ) -> None:
        size = "x".join(map(str, shape))
        self.files = [
            None if folder is None else folder / f"{seed}_{size}_{level}"
            for seed, level in zip(seeds, levels, strict=True)
        ]
        self.kept: list[Example] = []
        for seed, file, level in zip(seeds, self.files, levels, strict=True):
            if file is None:
                self.kept.append(simulated(seed, shape, level, level is None))
            elif not Path(f"{file}_mask.npy").exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                example = simulated(seed, shape, level, level is None)
                np.save(f"{file}_image.npy", example.image)
                np.save(f"{file}_mask.npy", example.mask)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Example:  # type: ignore[override]
        file = self.files[i]
        if file is None:
            return self.kept[i]
        return Example(np.load(f"{file}_image.npy", "r"), np.load(f"{file}_mask.npy", "r"))


def judged(network: WaveUNet3D, pool: Pool, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of voxels at threshold 0.5, over all stacks of each level of noise."""
    network = network.folded()
    counts = {name: np.zeros(3) for name in names}
    for name, example in zip(names, pool, strict=True):
        with torch.inference_mode():
            found = network.probability(torch.from_numpy(example.image.astype(np.float32))[None])[0].numpy()
        mask = found >= 0.5
        counts[name] += ((mask & example.mask).sum(), mask.sum(), example.mask.sum())
    return {
        name: {
            "precision": float(both / max(found, 1)),
            "recall": float(both / max(truth, 1)),
            "f1": float(2 * both / max(found + truth, 1)),
        }
        for name, (both, found, truth) in counts.items()
    }


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, write the weights and their card, and return the card."""
    parser = new_parser(__doc__, learning_rate=2e-3)
    parser.add_argument("--pool", type=Path, help="folder that keeps the simulated stacks")
    parser.add_argument("--stacks", type=int, default=200, help="to learn from")
    parser.add_argument("--plain", action="store_true", help="no stacks of simulate_widely")
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 160, 160), help="of a stack")
    parser.add_argument("--pair", default="WaveSNet_V3")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--wavelet", default="haar")
    parser.add_argument("--cube", type=int, nargs=3, default=(32, 64, 64))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=10, help="how often to look at the validation stacks")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cldice", type=float, default=0.0)
    parser.add_argument("--precision", default="bf16-mixed", help="full, or bf16-mixed")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    options = parser.parse_args(given)
    shape, cube = tuple(options.shape), tuple(options.cube)
    kinds = [None if options.plain or k % 8 < 4 else WIDE for k in range(options.stacks)]
    pool = Pool(range(TRAINING, TRAINING + options.stacks), shape, options.pool, kinds)
    names = [*LEVELS, *(() if options.plain else [WIDE])] * max(1, min(4, options.stacks // 3))
    held_back = Pool(range(VALIDATION, VALIDATION + len(names)), shape, options.pool, names)
    cubes = Cubes(pool, cube)
    count = min(len(cubes), math.ceil(options.steps * options.batch / options.epochs))
    chosen = np.linspace(0, len(cubes) - 1, count).round().astype(int).tolist()
    objective, variation = Objective(class_weights=(1.0, 3.0), cldice=options.cldice), Variation()
    settings = settings_of(options, options.batch, precision=options.precision, accelerator="cpu")
    torch.manual_seed(options.seed)
    network = WaveUNet3D(options.pair, width=options.width, wavelet=options.wavelet)
    before = None
    if options.start is not None:
        before = load_into(network, options.start, expect={"network": network.to_dict()}).get("training")
    result = train_waveunet(
        network,
        Subset(cubes, chosen),
        epochs=options.epochs,
        objective=objective,
        variation=variation,
        val=Fixed(Cubes(held_back, cube), 48),
        settings=settings,
    )
    last = result.history[result.best_epoch - 1]
    card = {
        "task": "neurons in fluorescence microscopy stacks: probability of a voxel to belong to one",
        "data": {
            "simulated_stacks": options.stacks,
            "wide": kinds.count(WIDE),
            "shape": list(shape),
            "seeds_from": TRAINING,
        },
        "limits": "has seen simulated light microscopy alone: bright neurons on a dark background",
        "training": {
            "before": before,
            "steps": int(last["step"]),
            "cube": list(cube),
            "seed": options.seed,
            "objective": objective.to_dict(),
            "variation": variation.to_dict(),
            "settings": settings.decisive(),
            "seconds": round(sum(row["seconds"] for row in result.history)),
        },
        "held_back": {"seeds_from": VALIDATION, "stacks": len(names)} | judged(network, held_back, names),
    }
    save_network(options.out / "waveunet.safetensors", network, card, overwrite=True)
    print(json.dumps(card, indent=2))
    return card


if __name__ == "__main__":
    main()
