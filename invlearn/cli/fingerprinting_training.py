"""`invlearn mrf train`: PGD-Net for a sequence of one's own, from tissue maps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.options import FILE, Settings, interrupts_held, new_command
from invlearn.cli.registration_training import checkpoints

if TYPE_CHECKING:
    from invlearn.training import TrainingResult
    from invlearn.unrolled.pgdnet import PGDNet
    from invlearn.unrolled.pgdnet_pool import Pool

WEIGHTS, CHECKPOINTS = "pgdnet.safetensors", "checkpoints"
OUTPUTS = (WEIGHTS, "pgdnet.json", "log.csv")
POOLS = {"train": "scans", "val": "scans_held_back"}
_ROUNDS = "How often all iterations are gone through; not from k-space alone."
_ROBUST = 0.03  # see MapLoss
_EPOCHS = {"rounds": 4, "k-space": 30}
_KEPT_BACK = 10  # of so many maps or scans, one is held back


def pools(
    settings: Settings, network: PGDNet, maps: list[Path], output: Path, options: Mapping[str, Any]
) -> tuple[Pool, Pool]:
    """Scans to learn from, and scans of other people (of other pieces, where there are few maps)."""
    from invlearn.cli.fingerprinting import progress_bar
    from invlearn.unrolled.pgdnet_pool import Pool, Variety, write_pool
    from invlearn.unrolled.pgdnet_subjects import of_maps

    held = len(maps) // _KEPT_BACK
    seen, kept = (maps[:-held], maps[-held:]) if held else (maps, maps)
    variety = Variety(sizes=(options["size"],))
    counts = {"train": options["scans"], "val": max(1, options["scans"] // _KEPT_BACK)}
    for number, (name, chosen) in enumerate((("train", seen), ("val", kept))):
        with progress_bar(settings, f"simulating scans, {POOLS[name]}") as progress:
            write_pool(
                output / POOLS[name],
                network,
                of_maps(chosen),
                counts[name],
                variety=variety,
                split=options["self_supervised"],
                seed=2 * settings.seed + number,
                progress=progress or (lambda done, of: None),
            )
    return Pool(output / POOLS["train"], turned=True), Pool(output / POOLS["val"])


@new_command("train", short_help="Train PGD-Net on a folder of tissue maps.")
@click.argument("maps_folder", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option("--sequence", type=FILE, metavar="CSV", help="Default: the built-in train.")
@click.option("--inversion-time", type=click.FloatRange(min=0), metavar="S")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Only the first N frames.")
@click.option("--rank", type=click.IntRange(min=1), metavar="K", help="Dimension of the signals' subspace.")
@click.option("--iterations", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=24, show_default=True, help="Of the CNN.")
@click.option("--scans", type=click.IntRange(min=1), default=200, show_default=True, help="To simulate.")
@click.option("--size", type=click.IntRange(min=16), default=96, show_default=True, help="Their matrix.")
@click.option("--self-supervised", is_flag=True, help="From k-space alone: the maps are only scanned.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help=_ROUNDS)
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Default: 4 in every round; 30 from k-space alone."
)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the run in DIR.")
def train(settings: Settings, maps_folder: Path, output: Path, **options: Any) -> None:
    """Train PGD-Net on MAPS_FOLDER: .npz files with t1, t2 (s), pd, or folders with T1map.nii.gz and so on.

    Scans of random pieces of these maps are simulated, with random coils, trajectories and noise. The weights
    are for the sequence and nothing else: any matrix, coils and trajectory can be reconstructed with them.
    Writes pgdnet.safetensors with its model card pgdnet.json, log.csv and run.json; the folders checkpoints
    and scans are what --resume goes on from.

    \b
    invlearn mrf train maps -o weights --frames 200
    invlearn mrf reconstruct scan.h5 -o out --method pgdnet --weights weights/pgdnet.safetensors
    """
    from invlearn.cli.fingerprinting import read_sequence
    from invlearn.io.runs import output_folder

    with interrupts_held():
        from invlearn.unrolled.pgdnet_subjects import find_maps
        from invlearn.unrolled.pgdnet_training import new_pgdnet
    maps = find_maps(maps_folder)
    sequence = read_sequence(options["sequence"], options["inversion_time"], options["frames"])
    checkpoints(output / CHECKPOINTS, settings.overwrite, options["resume"])
    if settings.overwrite and not options["resume"]:
        for name in POOLS.values():
            shutil.rmtree(output / name, ignore_errors=True)
    run = settings.new_run()
    again = settings.overwrite or options["resume"]
    with output_folder(output, run, overwrite=again, expected=OUTPUTS) as work:
        for path in (*(m for m in maps if m.is_file()), options["sequence"]):
            if path is not None:
                run.add_input(path)
        with settings.progress("simulating signals"), run.timed("decoder"):
            network, about = new_pgdnet(
                sequence,
                rank=options["rank"],
                seed=settings.seed,
                iterations=options["iterations"],
                width=options["width"],
            )
        with run.timed("scans"):
            data, held = pools(settings, network, maps, output, options)
        with settings.progress("training"), run.timed("training"):
            result = compute(settings, network, data, held, output, options)
        run.metrics.update(result.to_dict())
        write(work, output, network, result, data, about, [m.name for m in maps], options)
    settings.note(f"{output / WEIGHTS}: the weights of epoch {result.best_epoch}")


def compute(
    settings: Settings, network: PGDNet, data: Pool, held: Pool, output: Path, options: Mapping[str, Any]
) -> TrainingResult:
    """Train."""
    from invlearn.training import Settings as Training
    from invlearn.unrolled.pgdnet_rounds import train_in_rounds
    from invlearn.unrolled.pgdnet_training import KspaceLoss, MapLoss, train_pgdnet

    device = settings.torch_device()
    training = Training(
        batch_size=1,
        learning_rate=options["learning_rate"],
        schedule="cosine",
        gradient_clip=1.0,
        seed=settings.seed,
        folder=output / CHECKPOINTS,
        resume=options["resume"],
        accelerator=device.type,
        devices=1 if device.index is None else f"{device.index},",  # a list with one entry
        progress=False if settings.quiet else None,
    )
    if options["self_supervised"]:
        epochs = options["epochs"] or _EPOCHS["k-space"]
        return train_pgdnet(network, data, epochs=epochs, val=held, loss=KspaceLoss(), settings=training)
    return train_in_rounds(
        network,
        data,
        rounds=options["rounds"],
        epochs=options["epochs"] or _EPOCHS["rounds"],
        loss=MapLoss(relative=True, robust=_ROBUST),
        val=held,
        settings=training,
    )


def write(
    work: Path,
    output: Path,
    network: PGDNet,
    result: TrainingResult,
    data: Pool,
    about: Mapping[str, float],
    names: list[str],
    options: Mapping[str, Any],
) -> None:
    """The weights, their card and the log."""
    from invlearn.training import save_network
    from invlearn.training.logs import write_csv

    card = {
        "task": "T1, T2 and proton density from multi-coil fingerprinting scans of one sequence",
        "data": {"maps": names, "pool": data.about},
        "training": {
            "from": "k-space alone" if options["self_supervised"] else "maps",
            "epochs": len(result.history),
            "learning_rate": options["learning_rate"],
        },
        "signals": dict(about),
        "result": dict(result.history[result.best_epoch - 1]),
    }
    save_network(work / WEIGHTS, network, card)
    write_csv(work, list(result.history))
