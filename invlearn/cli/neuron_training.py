"""`invlearn neuron train`: weights for `invlearn segment` from the user's own stacks."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.options import FILE, Settings, Sizes, interrupts_held, new_command
from invlearn.cli.registration_training import PRECISIONS, checkpoints

if TYPE_CHECKING:
    from invlearn.neuro.collection import Collection, Pair
    from invlearn.neuro.waveunet import WaveUNet3D
    from invlearn.training import TrainingResult

WEIGHTS, CHECKPOINTS = "waveunet.safetensors", "checkpoints"
OUTPUTS = (WEIGHTS, "waveunet.json", "log.csv")
PAIRS = ("WaveSNet_V3", "WaveSNet_V4", "WaveSNet_V1", "WaveSNet_V2", "UNet_V1", "UNet_V2", "SegNet")
_KEPT_BACK = 5  # of so many stacks, one is held back unless told otherwise
_VALIDATION = 64  # cubes of the stacks that are held back


def held_back(asked: int | None, count: int) -> int:
    """How many stacks are kept from training.

    Raises
    ------
    ValueError
        None is left.
    """
    number = count // _KEPT_BACK if asked is None else asked
    if count - number < 1:
        raise ValueError(f"{count} stack(s), {number} of them held back, leave none to learn from; give more")
    return number


@new_command("train", short_help="Train a network on stacks with known neurons.")
@click.argument("pairs", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option("--pair", type=click.Choice(PAIRS), default=PAIRS[0], show_default=True, help="The network.")
@click.option("--width", type=click.IntRange(min=1), default=8, show_default=True, help="Channels.")
@click.option("--wavelet", default="haar", show_default=True)
@click.option("--voxel-size", type=float, nargs=3, metavar="Z Y X", help="In µm; default what the files say.")
@click.option("--channel", type=click.IntRange(min=0), metavar="N", help="Of several, counted from 0.")
@click.option("--time", type=click.IntRange(min=0), metavar="N", help="Time point of several, from 0.")
@click.option("--cube", type=Sizes(), default="32 64 64", show_default=True, metavar="D H W")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Cubes a step.")
@click.option("--epochs", type=click.IntRange(min=1), help="Default 30.")
@click.option("--steps", type=click.IntRange(min=1), help="At least so many, in whole epochs; or --epochs.")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True)
@click.option(
    "--neuron-weight",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Of a voxel of neuron in the cross-entropy; background has 1.",
)
@click.option("--cldice", type=click.FloatRange(0), default=0.0, show_default=True, help="Weight of clDice.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="full", show_default=True)
@click.option("--hold-out", type=click.IntRange(min=0), metavar="N", help="Last stacks; default a fifth.")
@click.option("--weights", type=FILE, metavar="F", help="Start from these.")
@click.option("--resume", is_flag=True, help="Go on with the run in DIR.")
def train(settings: Settings, pairs: Path, output: Path, **options: Any) -> None:
    """Train a WaveUNet3D on PAIRS: a folder of stacks, each with a tracing NAME.swc beside it or a mask of
    the same name in its folder masks; or a CSV file with the columns stack and mask or swc. What `invlearn
    neuron simulate` writes is such a folder.

    Writes waveunet.safetensors, which `invlearn segment --weights` takes, with its model card waveunet.json,
    log.csv and run.json; the folder checkpoints is what --resume goes on from.

    \b
    invlearn neuron train stacks -o weights
    invlearn neuron train pairs.csv -o weights --steps 5000 --cldice 0.5 --precision bf16-mixed
    """
    from invlearn.io.runs import output_folder

    if options["epochs"] and options["steps"]:
        raise click.UsageError("give --epochs or --steps, not both", click.get_current_context())
    if len(options["cube"]) != 3:
        raise ValueError(f"--cube takes three numbers, such as 32 64 64, got {len(options['cube'])}")
    with interrupts_held():
        from invlearn.neuro.collection import Collection, find_pairs
    found = find_pairs(pairs)
    held = held_back(options["hold_out"], len(found))
    checkpoints(output / CHECKPOINTS, settings.overwrite, options["resume"])
    run = settings.new_run()
    again = settings.overwrite or options["resume"]
    with (
        output_folder(output, run, overwrite=again, expected=OUTPUTS) as work,
        tempfile.TemporaryDirectory(prefix="invlearn-") as prepared,
    ):
        for path in (*(p.stack for p in found), *(p.truth for p in found), options["weights"]):
            if path is not None:
                run.add_input(path)
        with settings.progress("reading"), run.timed("reading"):
            collection = Collection(
                found, prepared, options["voxel_size"], channel=options["channel"], time=options["time"]
            )
        for note in collection.notes:
            settings.note(note)
        with settings.progress("training"), run.timed("training"):
            network, result, card = compute(settings, collection, held, output, options)
        run.metrics.update(result.to_dict())
        write(work, output, network, card)
    settings.note(f"{output / WEIGHTS}: the weights of epoch {result.best_epoch}")


def compute(
    settings: Settings, stacks: Collection, held: int, output: Path, options: Mapping[str, Any]
) -> tuple[WaveUNet3D, TrainingResult, dict[str, Any]]:
    """Train, and say in a card what was done."""
    from invlearn.neuro.learning import Cubes, Fixed, Variation, train_waveunet
    from invlearn.neuro.losses import Objective

    count = len(stacks) - held
    data = Cubes([stacks[k] for k in range(count)], options["cube"])
    kept = [stacks[k] for k in range(count, len(stacks))]
    val = Fixed(Cubes(kept, options["cube"]), _VALIDATION, settings.seed) if kept else None
    an_epoch = math.ceil(len(data) / options["batch"])
    epochs = math.ceil(options["steps"] / an_epoch) if options["steps"] else options["epochs"] or 30
    training = training_settings(settings, output, options)
    network = new_network(settings.seed, options)
    objective = Objective(class_weights=(1.0, options["neuron_weight"]), cldice=options["cldice"])
    result = train_waveunet(network, data, epochs=epochs, objective=objective, val=val, settings=training)
    card = {
        "task": "neurons in microscopy stacks: probability of a voxel to belong to one",
        "data": {"stacks": names(stacks.pairs[:count]), "held_back": names(stacks.pairs[count:])},
        "training": {
            "cube": list(options["cube"]),
            "objective": objective.to_dict(),
            "variation": Variation().to_dict(),
            "settings": training.decisive(),
            "epochs": epochs,
        },
        "result": dict(result.history[result.best_epoch - 1]),
    }
    return network, result, card


def names(pairs: list[Pair]) -> list[str]:
    """Of the stacks."""
    return [pair.stack.name for pair in pairs]


def training_settings(settings: Settings, output: Path, options: Mapping[str, Any]) -> Any:
    """How the trainer is to go about it."""
    from invlearn.training import Settings as Training

    device = settings.torch_device()
    return Training(
        batch_size=options["batch"],
        learning_rate=options["learning_rate"],
        schedule="cosine",
        gradient_clip=1.0,
        precision=options["precision"],
        seed=settings.seed,
        folder=output / CHECKPOINTS,
        checkpoint_steps=200,
        resume=options["resume"],
        accelerator=device.type,
        devices=1 if device.index is None else f"{device.index},",  # a list with one entry
        progress=False if settings.quiet else None,
    )


def new_network(seed: int, options: Mapping[str, Any]) -> WaveUNet3D:
    """The network before training: random, or with the weights of a file."""
    import torch

    from invlearn.neuro.waveunet import WaveUNet3D
    from invlearn.training import load_into

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WaveUNet3D(options["pair"], width=options["width"], wavelet=options["wavelet"])
    if options["weights"] is not None:
        load_into(network, options["weights"], expect={"network": network.to_dict()})
    return network


def write(work: Path, output: Path, network: WaveUNet3D, card: Mapping[str, Any]) -> None:
    """The weights, their card and the log."""
    from invlearn.training import save_network

    save_network(work / WEIGHTS, network, card)
    shutil.copy(output / CHECKPOINTS / "log.csv", work / "log.csv")
