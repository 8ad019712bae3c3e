"""`invlearn segment`: the neurons of a stack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.options import FILE, Settings, interrupts_held, new_command

if TYPE_CHECKING:
    from invlearn.neuro.segmentation import Segmentation

PRECISIONS = ("float32", "bfloat16")


@contextlib.contextmanager
def bar(settings: Settings, text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar with the time left, on a terminal; a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    if settings.quiet or not console.is_terminal:
        with settings.progress(text):
            yield None
        return
    columns = (
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cubes"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=None)

        def show(done: int, total: int) -> None:
            if (
                progress.tasks[0].total is None
            ):  # what an earlier run finished tells nothing about the time left
                progress.reset(task, total=total, completed=done)
            progress.update(task, completed=done)

        yield show


def outputs(zarr: bool, probability: bool, trace: bool) -> list[str]:
    """Names of the files that will be written, besides `run.json`."""
    suffix = ".zarr" if zarr else ".tif"
    names = [f"mask{suffix}", "report.html"]
    return [*names, *([f"probability{suffix}"] if probability else []), *(["neuron.swc"] if trace else [])]


@new_command("segment", short_help="Find the neurons in a microscope's stack.")
@click.argument("stack", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option(
    "--weights", type=FILE, metavar="F", help="A WaveUNet3D (.safetensors); default the built-in one."
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    metavar="T",
    help="Probability from which on a voxel is neuron.",
)
@click.option(
    "--voxel-size", type=float, nargs=3, metavar="Z Y X", help="In µm; default what the file says, else 1."
)
@click.option("--channel", type=click.IntRange(min=0), metavar="N", help="Of several, counted from 0.")
@click.option("--time", type=click.IntRange(min=0), metavar="N", help="Time point of several, from 0.")
@click.option("--trace", is_flag=True, help="Trace the neurons too: neuron.swc.")
@click.option("--probability", is_flag=True, help="Write the probabilities too.")
@click.option("--scheduler", metavar="ADDRESS", help="Let the workers of this Dask scheduler compute.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
def command(settings: Settings, stack: Path, output: Path, **options: Any) -> int:
    """Find the neurons in STACK: TIFF, OME-TIFF, NIfTI, NRRD, Zarr, OME-Zarr, of any size.

    Writes mask.tif (mask.zarr of a Zarr stack; 0 and 255), report.html and run.json; probability.tif and
    neuron.swc (µm) on request. The same command goes on where it was stopped.

    \b
    invlearn segment stack.tif -o out --trace
    invlearn segment brain.ome.zarr -o out --scheduler tcp://host:8786
    """
    from invlearn.io.runs import output_folder

    with interrupts_held():
        from invlearn.neuro.prediction import StackFile
    if not stack.exists():
        raise FileNotFoundError(f"{stack} does not exist")
    place = output.resolve()
    if stack.resolve() in (place, *place.parents):
        raise ValueError(f"{output} is the stack itself, or lies inside it: choose another folder")
    file = StackFile(stack, options["channel"], options["time"])
    expected = outputs(file.is_zarr, options["probability"], options["trace"])
    run = settings.new_run()
    with output_folder(output, run, overwrite=settings.overwrite, expected=expected) as work:
        for path in (stack, options["weights"]):
            if path is not None:
                run.add_input(path)
        found = compute(settings, file, work, output, options)
        run.metrics.update(found.to_dict())
        write_report(work / "report.html", file, found, run)
    for warning in found.warnings:
        settings.note(warning)
    settings.note(f"{output}: {in_words(found)}")
    return 1 if options["trace"] and found.tree is None else 0


def compute(settings: Settings, file: Any, work: Path, output: Path, options: dict[str, Any]) -> Segmentation:
    """Segment into a folder; finished cubes are kept beside the output until all is done."""
    from invlearn.neuro.segmentation import How, segment

    kept = output.absolute().with_name(f".{output.absolute().name}.cubes")
    how = How(
        device=str(settings.torch_device()),
        precision=options["precision"],
        scheduler=options["scheduler"],
        folder=kept,
    )
    with bar(settings, "segmenting") as progress:
        return segment(
            file,
            weights=options["weights"],
            threshold=options["threshold"],
            voxel_size=options["voxel_size"],
            trace=options["trace"],
            probability=options["probability"],
            output=work,
            how=how,
            progress=progress,
        )


def write_report(path: Path, file: Any, found: Segmentation, run: Any) -> None:
    """The page of one stack."""
    from invlearn.io.runs import versions
    from invlearn.reports.neurons import sections
    from invlearn.reports.page import Page, write_page

    parts = sections(file.open(found.voxel_size), found)
    write_page(path, Page("Neurons", parts, command=run.command, versions=list(versions().items())))


def in_words(found: Segmentation) -> str:
    """One line on what was found."""
    words = [f"{found.foreground} voxels of neuron"]
    if found.tree is not None:
        tree = found.tree.to_dict()
        words.append(f"{tree['trees']} tree(s), {tree['length']:.0f} µm of cable")
    cubes = found.cubes
    words.append(f"{cubes['all']} cubes, {cubes['background']} of them empty")
    return ", ".join([*words, f"{sum(found.seconds.values()):.1f} s"])
