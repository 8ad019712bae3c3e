"""`invlearn trace`: the tree of a mask or a probability, as SWC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from invlearn.cli.options import FILE, Settings, new_command

SUFFIX = ".swc"


@new_command("trace", short_help="The tree of a mask, as SWC in µm.")
@click.argument("mask", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT.swc", help="File to write.")
@click.option("--voxel-size", type=float, nargs=3, metavar="Z Y X", help="In µm; otherwise the file's own.")
@click.option("--channel", type=click.IntRange(min=0), metavar="N", help="Of several, counted from 0.")
@click.option("--time", type=click.IntRange(min=0), metavar="N", help="Time point of several, from 0.")
@click.option(
    "--threshold", type=float, default=0.5, show_default=True, metavar="T", help="For probabilities."
)
@click.option("--soma", type=float, nargs=3, metavar="Z Y X", help="A voxel of it; else looked for.")
@click.option("--no-soma", is_flag=True, help="Look for none: the root is the thickest end.")
@click.option("--bridge", type=float, metavar="UM", help="Longest dark gap, µm. [default: 8 voxels]")
@click.option(
    "--spur",
    type=float,
    default=1.5,
    show_default=True,
    metavar="R",
    help="Least side branch, in radii.",
)
@click.option(
    "--smallest", type=float, metavar="UM", help="Least cable of a separate tree, µm. [default: 16 voxels]"
)
def command(
    settings: Settings,
    mask: Path,
    output: Path,
    voxel_size: tuple[float, float, float] | None,
    soma: tuple[float, float, float] | None,
    no_soma: bool,
    channel: int | None,
    time: int | None,
    **options: Any,
) -> None:
    """Trace MASK: rooted trees without cycles, with radii, roots at the somas, in micrometres.

    MASK is a stack (TIFF, NIfTI, NRRD, Zarr, .npy) of whole numbers, foreground where they are not 0, or of
    probabilities between 0 and 1. The SWC has x = column · dx, y = row · dy (downwards), z = slice · dz.

    \b
    invlearn trace mask.tif -o neuron.swc
    invlearn trace mask.tif -o neuron.swc --voxel-size 1 0.33 0.33
    invlearn trace probability.tif -o neuron.swc --threshold 0.4 --bridge 5
    """
    if soma is not None and no_soma:
        raise click.UsageError("give --soma or --no-soma, not both", click.get_current_context())
    if output.suffix.lower() != SUFFIX:
        raise ValueError(f"{output} must end with {SUFFIX}")
    from invlearn import io
    from invlearn.io.stacks import open_stack
    from invlearn.io.swc import write_swc
    from invlearn.neuro.tracing import trace

    run = settings.new_run()
    with io.output_file(output, run, overwrite=settings.overwrite) as work, settings.progress("tracing"):
        stack = open_stack(mask, channel=channel, time=time, voxel_size=voxel_size)
        if stack.voxel_size is None:
            settings.note(f"{mask} has no voxel size: 1 µm is assumed (give --voxel-size Z Y X)")
        spacing = stack.voxel_size or (1.0, 1.0, 1.0)
        where: Any = None if no_soma else soma or "auto"
        with run.timed("tracing"):
            tree = trace(stack, spacing, soma=where, **options)
        write_swc(work, tree, comment=f"traced by invlearn from {mask.name}")
        run.add_input(mask)
        found = tree.to_dict()
        run.metrics.update(found, voxel_size_um=list(spacing), voxel_size_source=stack.voxel_size_source)
    settings.note(f"{output}: {in_words(found)}")


def in_words(found: dict[str, Any]) -> str:
    """One line on a tree."""
    trees = "one tree" if found["trees"] == 1 else f"{found['trees']} trees"
    parts = f"{found['branch_points']} branch points, {found['ends']} ends"
    return f"{trees}, {found['length']:.0f} µm of cable, {parts}"
