"""`invlearn registration train`: weights for WiNet from the user's own volumes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.app import INTERRUPTED
from invlearn.cli.options import FILE, Settings, Sizes, interrupts_held, new_command

if TYPE_CHECKING:
    from invlearn.registration.collection import Collection, Source
    from invlearn.registration.winet import WiNet
    from invlearn.training import TrainingResult

WEIGHTS, CHECKPOINTS = "winet.safetensors", "checkpoints"
OUTPUTS = (WEIGHTS, "winet.json", "log.csv")
PRECISIONS = ("full", "bf16-mixed", "16-mixed")
_CHECKPOINT_STEPS = 100  # an interruption costs no more; and one is written after every epoch
_KEPT_BACK = 10  # of so many volumes, one is held back unless told otherwise


def held_back(asked: int | None, count: int, synthetic: bool) -> int:
    """How many volumes are kept from training.

    Raises
    ------
    ValueError
        Too few are left.
    """
    number = count // _KEPT_BACK if asked is None else asked
    needed = 1 if synthetic else 2
    if count - number < needed:
        few = f"{count} volumes" if count != 1 else "1 volume"
        hint = "" if synthetic else "; give more, --atlas, or --synthetic for pairs of each with itself"
        raise ValueError(
            f"{few}, {number} of them held back, leave fewer than the {needed} that training needs{hint}"
        )
    return number


def sources_of(volumes: Path, atlas: Path | None) -> list[Source]:
    """The atlas first, if there is one, then the volumes without it."""
    from invlearn.registration.collection import LABELS, Source, find_sources

    found = find_sources(volumes)
    if atlas is None:
        return found
    if not atlas.is_file():
        raise FileNotFoundError(f"--atlas {atlas} does not exist")
    rest = [source for source in found if source.image.resolve() != atlas.resolve()]
    if not rest:
        raise ValueError(f"{volumes} has no volume but the atlas; give others that it is to be matched with")
    known = next((source for source in found if source not in rest), None)
    labels = atlas.parent / LABELS / atlas.name
    return [known or Source(atlas, labels if labels.is_file() else None), *rest]


def samples(volumes: Collection, synthetic: bool, atlas: bool, held: int, repeats: int) -> tuple[Any, Any]:
    """What to train on, and what to validate on: real pairs where there are two volumes, else none."""
    from invlearn.registration.learning import Pairs, Singles

    count = len(volumes)
    first, kept = range(count - held), range(count - held, count)
    moving = [0] if atlas else list(kept if held > 1 else first)
    pairs = [(i, j) for j in kept for i in moving if i != j]
    val = Pairs(volumes, pairs) if pairs else None
    if synthetic:
        return Singles(volumes, repeats, first), val
    chosen = [(0, j) for j in first if j] if atlas else [(i, j) for i in first for j in first if i != j]
    return Pairs(volumes, chosen), val


@new_command("train", short_help="Train WiNet on a folder of volumes.")
@click.argument("volumes", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option("--atlas", type=FILE, metavar="F", help="Match this volume with every other; else all pairs.")
@click.option("--synthetic", is_flag=True, help="Random deformations of each volume instead of pairs.")
@click.option(
    "--label-contrast",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Of synthetic pairs of volumes with labels, how many get random contrasts from them.",
)
@click.option("--spacing", type=float, metavar="MM", help="Of the common grid; default the first volume's.")
@click.option("--shape", type=Sizes(), metavar="D H W", help="Of the common grid; default covers the first.")
@click.option("--wavelet", default="haar", show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=32, show_default=True, help="Channels.")
@click.option("--displacement", is_flag=True, help="Predict the field itself: not a diffeomorphism.")
@click.option("--symmetric", is_flag=True, help="Compare in both directions.")
@click.option("--smoothness", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Default 100.")
@click.option("--steps", type=click.IntRange(min=1), help="At least so many, in whole epochs; or --epochs.")
@click.option("--learning-rate", type=float, default=3e-4, show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="full", show_default=True)
@click.option("--hold-out", type=click.IntRange(min=0), metavar="N", help="Last volumes; default a tenth.")
@click.option("--weights", type=FILE, metavar="F", help="Start from these.")
@click.option("--resume", is_flag=True, help="Go on with the run in DIR.")
def train(settings: Settings, volumes: Path, output: Path, **options: Any) -> int:
    """Train WiNet on VOLUMES: a folder of .nii.gz files (labels of the same names in its folder labels),
    or a CSV file with the columns image and labels.

    Writes winet.safetensors with its model card winet.json, log.csv and run.json; the folder checkpoints is
    what --resume goes on from.

    \b
    invlearn registration train brains -o weights --spacing 2
    invlearn registration train brains -o weights --atlas template.nii.gz
    invlearn registration train brains -o weights --synthetic --steps 5000
    """
    from invlearn.io.runs import output_folder

    if options["epochs"] and options["steps"]:
        raise click.UsageError("give --epochs or --steps, not both", click.get_current_context())
    if options["synthetic"] and options["atlas"]:
        raise click.UsageError("give --atlas or --synthetic, not both", click.get_current_context())
    with interrupts_held():
        from invlearn.registration.collection import Collection, common_grid
    found = sources_of(volumes, options["atlas"])
    held = held_back(options["hold_out"], len(found), options["synthetic"])
    grid = common_grid(found[0].image, options["spacing"], _three(options["shape"]))
    collection = Collection(found, grid)
    checkpoints(output / CHECKPOINTS, settings.overwrite, options["resume"])
    run = settings.new_run()
    again = settings.overwrite or options["resume"]
    try:
        with output_folder(output, run, overwrite=again, expected=OUTPUTS) as work:
            for path in (
                *(s.image for s in found),
                *(s.labels for s in found if s.labels),
                options["weights"],
            ):
                if path is not None:
                    run.add_input(path)
            with settings.progress("training"), run.timed("training"):
                network, result, card = compute(settings, collection, held, output, options)
            for name in collection.resampled:
                settings.note(
                    f"{name} was resampled to {grid.spacing:g} mm, {' × '.join(map(str, grid.shape))}"
                )
            run.metrics.update(result.to_dict())
            write(work, output, network, card)
    except KeyboardInterrupt:
        click.echo(f"invlearn: interrupted; {how_to_go_on(output / CHECKPOINTS)}", err=True)
        return INTERRUPTED
    settings.note(f"{output / WEIGHTS}: the weights of epoch {result.best_epoch}")
    return 0


def how_to_go_on(folder: Path) -> str:
    """What to do after an interruption, by whether there is a checkpoint."""
    from invlearn.training.checkpoint import find_checkpoint

    if find_checkpoint(folder) is None:
        return "there is no checkpoint yet: start again"
    return "the same command with --resume goes on from the last checkpoint"


def _three(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is not None and len(shape) != 3:
        raise ValueError(f"--shape takes three numbers, such as 80 96 112, got {len(shape)}")
    return shape


def checkpoints(folder: Path, overwrite: bool, resume: bool) -> None:
    """Make way for a new run, or refuse to."""
    from invlearn.training.checkpoint import find_checkpoint

    places = [folder, *folder.glob("*/")]  # some trainings have rounds, each with a folder
    if resume or not any(find_checkpoint(place) for place in places):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds an earlier run; give --resume to go on with it, --overwrite, or another folder"
        )
    shutil.rmtree(folder)


def compute(
    settings: Settings, volumes: Collection, held: int, output: Path, options: Mapping[str, Any]
) -> tuple[WiNet, TrainingResult, dict[str, Any]]:
    """Train, and say in a card what was done."""
    from invlearn.registration.learning import Objective, train_winet
    from invlearn.registration.synthesis import Synthesis

    data, val = samples(volumes, options["synthetic"], options["atlas"] is not None, held, repeats=10)
    epochs = math.ceil(options["steps"] / len(data)) if options["steps"] else options["epochs"] or 100
    training = training_settings(settings, output, options)
    network = new_network(settings.seed, volumes.grid.spacing, options)
    objective = Objective(
        smoothness=options["smoothness"],
        symmetric=options["symmetric"],
        supervision=1.0 if options["synthetic"] and network.diffeomorphic else 0.0,
    )
    synthesis = Synthesis(label_contrast=options["label_contrast"])
    result = train_winet(
        network, data, epochs=epochs, objective=objective, synthesis=synthesis, val=val, settings=training
    )
    trained = {"objective": objective.to_dict(), "settings": training.decisive(), "epochs": epochs}
    if options["synthetic"]:
        trained["synthesis"] = synthesis.to_dict()
    mode = "synthetic" if options["synthetic"] else "atlas" if options["atlas"] else "pairs"
    names = [source.image.name for source in volumes.sources]
    card = {
        "task": "deformable registration of 3D volumes, affinely aligned",
        "data": {
            "volumes": names[: len(names) - held],
            "held_back": names[len(names) - held :],
            "mode": mode,
        },
        "grid": {"shape": list(volumes.grid.shape), "spacing_mm": volumes.grid.spacing},
        "training": trained,
        "result": dict(result.history[result.best_epoch - 1]),
    }
    return network, result, card


def training_settings(settings: Settings, output: Path, options: Mapping[str, Any]) -> Any:
    """How the trainer is to go about it."""
    from invlearn.training import Settings as Training

    device = settings.torch_device()
    return Training(
        batch_size=1,
        learning_rate=options["learning_rate"],
        precision=options["precision"],
        seed=settings.seed,
        folder=output / CHECKPOINTS,
        checkpoint_steps=_CHECKPOINT_STEPS,
        resume=options["resume"],
        accelerator=device.type,
        devices=1 if device.index is None else f"{device.index},",  # a list with one entry
        progress=False if settings.quiet else None,
    )


def new_network(seed: int, spacing: float, options: Mapping[str, Any]) -> WiNet:
    """The network before training: random, or with the weights of a file."""
    import torch

    from invlearn.registration.winet import WiNet
    from invlearn.training import load_into

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WiNet(
            options["wavelet"],
            options["width"],
            diffeomorphic=not options["displacement"],
            spacing=spacing,
        )
    if options["weights"] is not None:
        load_into(network, options["weights"], expect={"network": network.to_dict()})
    return network


def write(work: Path, output: Path, network: WiNet, card: Mapping[str, Any]) -> None:
    """The weights, their card and the log."""
    from invlearn.training import save_network

    save_network(work / WEIGHTS, network, card)
    shutil.copy(output / CHECKPOINTS / "log.csv", work / "log.csv")


@click.group("registration", short_help="Train networks for `invlearn register`.")
def command() -> None:
    """Networks that predict deformations; `invlearn register` works without any."""


command.add_command(train)
