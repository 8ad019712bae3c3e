"""`invlearn warp`: a saved transform applied to another image, a label map or points."""

from __future__ import annotations

from pathlib import Path

import click

from invlearn.cli.options import FILE, Settings, new_command

POINTS = ".csv"


@new_command("warp", short_help="A saved transform applied to images, labels or points.")
@click.argument("image_or_points", type=FILE)
@click.option(
    "--transform", type=FILE, required=True, metavar="DIR_OR_FIELD", help="Of register, ITK or ANTs."
)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="OUT", help=".nii, .nii.gz, or .csv for points."
)
@click.option("--inverse", is_flag=True, help="From the fixed side to the moving side.")
@click.option("--labels", is_flag=True, help="A label map: no label is invented, its integers are kept.")
def command(
    settings: Settings, image_or_points: Path, transform: Path, output: Path, inverse: bool, labels: bool
) -> None:
    """Bring what lies on the moving side onto the fixed side: an image, a label map, or points.

    With --inverse, from the fixed side to the moving one. Images come out on the grid of the field. Points
    are a .csv with x,y,z in mm, RAS (LPS, as in ANTs, has x and y of opposite sign), among other columns;
    they go the same way as the image, that is, through the other field. Of a single field file, the
    direction that it does not hold is computed from it.

    \b
    invlearn warp labels.nii.gz --transform out -o labels_on_fixed.nii.gz --labels
    invlearn warp atlas.nii.gz --transform out --inverse -o atlas_on_moving.nii.gz
    invlearn warp landmarks.csv --transform out -o landmarks_on_fixed.csv
    """
    points = image_or_points.suffix.lower() == POINTS
    if points and labels:
        raise click.UsageError("--labels is for images, and points are given", click.get_current_context())
    _check_suffix(output, points)
    for path in (image_or_points, transform):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    if transform.suffix.lower() == ".txt":
        raise ValueError(f"{transform} holds an affine alone; give the folder, or the field that includes it")
    if points:
        warp_points(settings, image_or_points, transform, output, inverse)
    else:
        warp_image(settings, image_or_points, transform, output, inverse, labels)


def _check_suffix(output: Path, points: bool) -> None:
    from invlearn.io.nifti import SUFFIXES

    wanted = (POINTS,) if points else SUFFIXES
    if not output.name.lower().endswith(wanted):
        raise ValueError(f"{output} must end with {' or '.join(wanted)}")


def warp_image(
    settings: Settings, image: Path, transform: Path, output: Path, inverse: bool, labels: bool
) -> None:
    """A volume onto the grid of the field."""
    import numpy as np

    from invlearn import io
    from invlearn.registration.transform import Transform, as_labels

    run = settings.new_run()
    with io.output_file(output, run, overwrite=settings.overwrite) as work, settings.progress("warping"):
        volume = io.read_volume(image)
        if volume.note:
            settings.note(f"{image}: {volume.note}")
        if labels:
            volume = as_labels(volume, str(image))
        field = Transform.read(transform, inverse=inverse)
        if not field.reaches(volume):
            raise ValueError(
                f"{image} lies nowhere where {transform} leads: the result would be empty; look at its "
                f"affine, or {'leave --inverse out' if inverse else 'take --inverse'}"
            )
        missing = np.count_nonzero(~np.isfinite(volume.data))
        if missing:
            settings.note(f"{image}: {missing} voxels are NaN or infinite, and so are their neighbours then")
        io.write_volume(work, field.image(volume, "labels" if labels else "linear"))
        run.add_input(image)
        run.add_input(transform)
        run.metrics.update(note=volume.note, shape=list(field.shape))
    shape = " × ".join(map(str, field.shape))
    settings.note(f"{output}: {'labels' if labels else 'an image'} of {shape} voxels")


def warp_points(settings: Settings, points: Path, transform: Path, output: Path, inverse: bool) -> None:
    """Points, the same way as an image: from the partners of the field's grid onto it."""
    import dataclasses

    from invlearn import io
    from invlearn.io.landmarks import read_landmarks, write_landmarks
    from invlearn.registration.transform import Transform

    run = settings.new_run()
    with io.output_file(output, run, overwrite=settings.overwrite) as work:
        given = read_landmarks(points)
        if transform.is_dir():
            field = Transform.read(transform, inverse=not inverse)
            moved, inside = field.points(given.points), field.covers(given.points)
        else:
            field = Transform.read(transform)
            moved = field.points(given.points) if inverse else field.source(given.points)
            inside = field.covers(given.points if inverse else moved)
        if not inside.all():
            settings.note(
                f"{(~inside).sum()} of {len(moved)} points lie outside of the field's grid: extrapolated"
            )
        write_landmarks(work, dataclasses.replace(given, points=moved))
        run.add_input(points)
        run.add_input(transform)
        run.metrics.update(points=len(moved), outside=int((~inside).sum()))
    settings.note(f"{output}: {len(moved)} points")
