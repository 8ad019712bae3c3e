"""`invlearn neuron`: simulated stacks with their truth, and tracings or masks against a truth."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.neuron_training import train
from invlearn.cli.options import FILE, Settings, Sizes, interrupts_held, new_command

if TYPE_CHECKING:
    from invlearn.io.swc import Tree
    from invlearn.neuro.synthesis import Sample

_FILES = {"stack": "stack.tif", "mask": "mask.tif", "swc": "neuron.swc"}
_PAIRS = "pairs.csv"
_TRACING = "neuron.swc"
UNITS = ("um", "nm", "voxel")
VOXEL_SIZE = click.option("--voxel-size", type=float, nargs=3, metavar="Z Y X", help="Size of a voxel, µm.")


def file_names(count: int) -> list[dict[str, str]]:
    """The files of each sample; numbered if there are several."""
    if count == 1:
        return [_FILES]
    digits = max(len(str(count - 1)), 3)
    return [{kind: f"{k:0{digits}}_{name}" for kind, name in _FILES.items()} for k in range(count)]


def read_noise(noise: str | None) -> str | float | None:
    """A name or a number."""
    if noise is None:
        return None
    try:
        return float(noise)
    except ValueError:
        return noise


def samples(settings: Settings, count: int, options: dict[str, Any]) -> Iterator[Sample]:
    """One after the other, the seeds in a row."""
    from invlearn.neuro.synthesis import simulate

    for k in range(count):
        with settings.progress(f"simulating {k + 1} of {count}"):
            sample = simulate(seed=settings.seed + k, **options)
        yield sample


def write_sample(folder: Path, names: dict[str, str], sample: Sample) -> None:
    """Stack, mask and tree."""
    from invlearn.io.stacks import write_stack
    from invlearn.io.swc import write_swc

    write_stack(folder / names["stack"], sample.stack, sample.voxel_size)
    write_stack(folder / names["mask"], sample.mask, sample.voxel_size)
    write_swc(folder / names["swc"], sample.tree, comment=f"simulated, seed {sample.seed}")


@new_command("simulate", short_help="Stacks of random neurons, with their masks and tracings.")
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Number of stacks.")
@click.option("--shape", type=Sizes(), default="64 192 192", show_default=True, help="Slices, rows, columns.")
@click.option("--noise", metavar="LEVEL", help="low, medium, high, or a number from 0 to 1; drawn without.")
@click.option("--neurons", type=click.IntRange(min=1), metavar="N", help="In each stack; 1 to 3 without.")
@click.option("--tree", type=FILE, metavar="SWC", help="A tracing to render instead of random neurons.")
@VOXEL_SIZE
def simulate(
    settings: Settings,
    output: Path,
    count: int,
    shape: tuple[int, ...],
    noise: str | None,
    tree: Path | None,
    **drawn: Any,
) -> None:
    """Grow neurons, or take one from an SWC file, and render them as a microscope would.

    Writes stack.tif, mask.tif, neuron.swc (µm), pairs.csv and run.json; with --count, numbered. The folder is
    what `invlearn neuron train` takes.

    \b
    invlearn neuron simulate -o sample --noise high
    invlearn neuron simulate -o many --count 20 --shape 64 256 256 --seed 7
    invlearn neuron simulate -o cell --tree cell.swc --shape 100 400 400
    """
    from invlearn.io.runs import output_folder

    names = file_names(count)
    expected = [_PAIRS, *(name for each in names for name in each.values())]
    run = settings.new_run()
    with output_folder(output, run, overwrite=settings.overwrite, expected=expected) as work:
        with interrupts_held():
            import invlearn.neuro.synthesis  # noqa: F401
        options: dict[str, Any] = {"shape": shape, "noise": read_noise(noise), **drawn}
        if tree is not None:
            options["tree"] = read_tree(settings, tree)
            run.add_input(tree)
        made = []
        for each, sample in zip(names, samples(settings, count, options), strict=True):
            with run.timed("writing"):
                write_sample(work, each, sample)
            made.append(sample.to_dict())
        with (work / _PAIRS).open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(_FILES))
            table.writeheader()
            table.writerows(names)
        run.metrics["samples"] = made
    settings.note(f"{output}: {describe(made[0])}" + (f"; and {count - 1} more" if count > 1 else ""))


def describe(sample: dict[str, Any]) -> str:
    """One line."""
    size = " x ".join(map(str, sample["shape"]))
    voxel = " x ".join(f"{s:.3g}" for s in sample["voxel_size"])
    tree = sample["tree"]
    return f"{size} voxels of {voxel} µm, {tree['length']:.0f} µm of cable, noise {sample['noise']:.2f}"


def read_tree(settings: Settings, path: Path) -> Tree:
    """A tracing; what was wrong with it becomes a note."""
    from invlearn.io.swc import read_swc

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = read_swc(path)
    for warning in caught:
        settings.note(str(warning.message))
    return tree


def evaluate_trees(
    settings: Settings, files: list[tuple[Path, str | None]], flip: int | None, options: dict[str, Any]
) -> Any:
    """The comparison of two SWC files, with the units given for them, and notes on units and flips."""
    from invlearn.neuro.metrics import compare, in_one_unit, suspected_flip

    trees = []
    for path, unit in files:
        tree = read_tree(settings, path)
        if unit is None and tree.unit == "unknown":
            settings.note(
                f"{path} names no unit: taken as that of the other file, or as µm; or give its unit"
            )
        trees.append(tree if unit is None else replace(tree, unit=unit))
    tree, truth = in_one_unit(trees[0], trees[1], options.pop("voxel_size"))
    if flip is not None:
        tree = tree.flipped_y(flip - 1.0)
    found = compare(tree, truth, **options)
    last = suspected_flip(tree, truth)
    if last is not None:
        settings.note(
            f"the trees lie apart, but together with y counted from the other end; if one program did so, "
            f"add --flip-y {round(last) + 1}"
        )
    return found


def evaluate_masks(paths: tuple[Path, Path], tolerance: float) -> Any:
    """The comparison of two masks."""
    from invlearn.io.stacks import open_stack
    from invlearn.neuro.metrics import overlap

    mask, truth = (open_stack(path) for path in paths)
    return overlap(mask.array(), truth.array(), tolerance=tolerance)


def is_tree(path: Path) -> bool:
    """Whether the file is a tracing by its name."""
    return path.suffix.lower() in (".swc", ".eswc")


@new_command("evaluate", short_help="A tracing, or a mask, against a truth.")
@click.argument("found", type=FILE, metavar="OUT.swc")
@click.option("--truth", type=FILE, required=True, metavar="GOLD.swc", help="The true tracing, or mask.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON, and nothing else.")
@VOXEL_SIZE
@click.option("--unit", type=click.Choice(UNITS), help="Of OUT; without, what the file says.")
@click.option("--truth-unit", type=click.Choice(UNITS), help="Of GOLD; without, what the file says.")
@click.option(
    "--flip-y",
    type=click.IntRange(min=1),
    metavar="HEIGHT",
    help="OUT counts y from the last row of a stack so high (in the unit that is printed).",
)
@click.option("--tolerance", type=float, default=2.0, show_default=True, help="Where cable counts as found.")
@click.option("--threshold", type=float, default=2.0, show_default=True, help="From where on DSA, PDS count.")
def evaluate(
    settings: Settings,
    found: Path,
    truth: Path,
    as_json: bool,
    unit: str | None,
    truth_unit: str | None,
    flip_y: int | None,
    tolerance: float,
    **options: Any,
) -> None:
    """Compare a tracing with a gold standard: ESA, DSA, PDS, precision, recall, F1, length, topology.

    Lengths are in µm, or in voxels with --voxel-size (files in µm or nm are divided by it). OUT may be the
    folder of `invlearn segment --trace`. Two masks (TIFF, NIfTI, ...) are compared voxel by voxel.

    \b
    invlearn neuron evaluate out/neuron.swc --truth gold.swc
    invlearn neuron evaluate out --truth gold.swc --voxel-size 1 0.33 0.33 --json
    invlearn neuron evaluate out/mask.tif --truth mask.tif
    """
    if found.is_dir() and (found / _TRACING).is_file() and is_tree(truth):
        found = found / _TRACING
    for path in (found, truth):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    if is_tree(found) != is_tree(truth):
        raise ValueError(f"{found} and {truth}: compare two tracings (.swc) or two masks")
    if is_tree(found):
        files = [(found, unit), (truth, truth_unit)]
        result = evaluate_trees(settings, files, flip_y, {**options, "tolerance": tolerance}).to_dict()
    else:
        result = evaluate_masks((found, truth), tolerance).to_dict()
    click.echo(json.dumps(result, indent=2, allow_nan=False) if as_json else in_words(result))


def in_words(result: dict[str, Any]) -> str:
    """A line a number."""
    unit = result.get("unit", "voxel")
    unit = "µm" if unit == "um" else "voxels"
    lines = [f"{name:12}{result[name]:10.3f} {unit}" for name in ("esa", "dsa") if name in result]
    shares = ("pds", "precision", "recall", "f1", "iou", "cldice", "length_ratio")
    lines += [f"{name:12}{result[name]:10.3f}" for name in shares if name in result]
    for name in ("branch_points", "ends"):
        if name in result:
            m = result[name]
            lines.append(
                f"{name:14}{m['found']:8}   of {m['true']}: {m['missing']} missing, {m['extra']} extra"
            )
    if "trees" in result:
        lines.append(f"{'trees':14}{result['trees']:8}   of {result['true_trees']}")
    lines.append(f"found within {result['tolerance']:g} {unit}")
    return "\n".join(lines).replace("_", " ")


@click.group("neuron", short_help="Neurons: simulate stacks, train a network, evaluate tracings.")
def command() -> None:
    """Simulated stacks of neurons, networks trained on them, and tracings against a truth."""


for part in (simulate, train, evaluate):
    command.add_command(part)
