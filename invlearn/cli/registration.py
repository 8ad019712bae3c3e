"""`invlearn register`: a volume brought onto another, or a table of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invlearn.cli.options import FILE, Settings, interrupts_held, new_command

if TYPE_CHECKING:
    from invlearn.io.nifti import Volume
    from invlearn.registration import Registration

AFFINE = ("none", "rigid", "affine")
SIMILARITIES = ("lncc", "mse", "mi", "mind")
PARAMETERISATIONS = ("composed", "wavelets")
OUTPUTS = (
    "warped.nii.gz",
    "forward_field.nii.gz",
    "inverse_field.nii.gz",
    "affine.txt",
    "jacobian.nii.gz",
    "metrics.json",
    "report.html",
)


@dataclass(frozen=True)
class Pair:
    """Files of two volumes, and of their labels if there are any."""

    fixed: Path
    moving: Path
    fixed_labels: Path | None = None
    moving_labels: Path | None = None

    def __post_init__(self) -> None:
        if (self.fixed_labels is None) != (self.moving_labels is None):
            given, missing = ("fixed", "moving") if self.moving_labels is None else ("moving", "fixed")
            raise ValueError(
                f"labels are given for the {given} volume alone; give those of the {missing} one too, or none"
            )

    @property
    def files(self) -> Iterator[Path]:
        """All that are given."""
        return (path for path in asdict(self).values() if path is not None)

    def require(self) -> None:
        """Refuse files that are not there."""
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist, or is no file")


@dataclass(frozen=True)
class How:
    """How to register."""

    affine: str
    similarity: str
    parameterisation: str
    iterations: int | None
    weights: Path | None
    symmetric: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run record."""
        return {**asdict(self), "weights": None if self.weights is None else str(self.weights)}


def prepare(how: How) -> Any:
    """Import and compile what the optimisation runs on, and read the network; none without `--weights`."""
    with interrupts_held():
        import invlearn.registration.loops
        import invlearn.registration.points  # noqa: F401
        from invlearn.registration.winet import load_winet

    return None if how.weights is None else load_winet(how.weights)


def read_pair(pair: Pair) -> tuple[Volume, Volume, tuple[Volume, Volume] | None]:
    """The volumes of a pair, and its labels, seen to lie on their grids."""
    from invlearn.io.nifti import read_volume
    from invlearn.registration.results import checked_labels

    fixed, moving = read_volume(pair.fixed), read_volume(pair.moving)
    if pair.fixed_labels is None or pair.moving_labels is None:
        return fixed, moving, None
    labels = read_volume(pair.fixed_labels), read_volume(pair.moving_labels)
    return fixed, moving, checked_labels(fixed, moving, labels)


def register_pair(settings: Settings, pair: Pair, how: How, network: Any, output: Path) -> dict[str, Any]:
    """Register one pair into a folder; the numbers of its `metrics.json`."""
    from invlearn import io
    from invlearn.io.runs import write_json
    from invlearn.registration.coefficients import Coefficients
    from invlearn.registration.results import measure, write_results
    from invlearn.registration.start import register_from

    run = settings.new_run()
    with io.output_folder(output, run, overwrite=settings.overwrite, expected=OUTPUTS) as work:
        with settings.progress("reading"), run.timed("reading"):
            fixed, moving, labels = read_pair(pair)
            for path in (*pair.files, *([how.weights] if how.weights else [])):
                run.add_input(path)
        with settings.progress("registering"), run.timed("registration"):
            result = register_from(
                network,
                fixed,
                moving,
                affine=how.affine,
                similarity=how.similarity,
                iterations=how.iterations,
                settings=Coefficients() if how.parameterisation == "wavelets" else None,
                symmetric=how.symmetric,
                device=settings.torch_device(),
            )
        for note in result.notes:
            settings.note(note)
        with settings.progress("measuring and writing"), run.timed("writing"):
            found = measure(result, labels)
            run.metrics.update(
                found, options=how.to_dict(), converged=result.converged, notes=list(result.notes)
            )
            write_results(work, result)
            write_json(work / "metrics.json", found)
            write_report(work / "report.html", result, found, run)
    return found


def write_report(path: Path, result: Registration, found: dict[str, Any], run: Any) -> None:
    """The page of one pair."""
    from invlearn.io.runs import versions
    from invlearn.registration.results import by_header
    from invlearn.reports.page import Page, write_page
    from invlearn.reports.registration import sections

    parts = sections(result, by_header(result.fixed, result.moving).data, found)
    write_page(path, Page("Registration", parts, command=run.command, versions=list(versions().items())))


def in_words(found: dict[str, Any]) -> str:
    """One line on how it went."""
    before, after = found["dice_before"], found["dice_after"]
    name, alike = found["similarity"]["name"], found["similarity"]
    words = [f"{name} {alike['before']:.3f} → {alike['after']:.3f}"]
    if after is not None and after["mean"] is not None:
        words.insert(0, f"Dice {before['mean']:.3f} → {after['mean']:.3f}")
    return ", ".join([*words, f"{found['folding_percent']:.2g} % folded", f"{found['seconds']:.1f} s"])


@new_command("register", short_help="A volume onto another: affine, then diffeomorphic, with its inverse.")
@click.argument("fixed", type=FILE, required=False)
@click.argument("moving", type=FILE, required=False)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option(
    "--affine", type=click.Choice(AFFINE), default="affine", show_default=True, help="The first stage."
)
@click.option("--similarity", type=click.Choice(SIMILARITIES), default="lncc", show_default=True)
@click.option(
    "--parameterisation",
    type=click.Choice(PARAMETERISATIONS),
    default="composed",
    show_default=True,
    help="Of the deformation: small maps composed, or a velocity in wavelet coefficients.",
)
@click.option(
    "--symmetric/--no-symmetric",
    default=True,
    show_default=True,
    help="Whether swapping the volumes undoes the result, where their grids are about as fine and large.",
)
@click.option(
    "--iterations", type=click.IntRange(min=0), metavar="N", help="Steps a grid at most; 0: affine alone."
)
@click.option(
    "--weights",
    type=FILE,
    metavar="F",
    help="A WiNet whose prediction is the start: .safetensors, or brain_t1, which comes along.",
)
@click.option("--fixed-labels", type=FILE, metavar="F", help="Label map of FIXED, for Dice and HD95.")
@click.option("--moving-labels", type=FILE, metavar="F", help="Label map of MOVING.")
@click.option(
    "--pairs",
    type=FILE,
    metavar="CSV",
    help="fixed,moving[,fixed_labels,moving_labels][,name], a line a pair.",
)
def command(
    settings: Settings,
    fixed: Path | None,
    moving: Path | None,
    output: Path,
    pairs: Path | None,
    fixed_labels: Path | None,
    moving_labels: Path | None,
    **options: Any,
) -> int:
    """Bring MOVING onto the grid of FIXED (NIfTI), or all pairs of a CSV, each into a folder of its own.

    Writes warped.nii.gz; forward_field.nii.gz and inverse_field.nii.gz, which ITK, SimpleITK and ANTs read
    (LPS mm, the affine included); affine.txt, jacobian.nii.gz, metrics.json, report.html and run.json. With
    --pairs, the same command goes on where it stopped.

    \b
    invlearn register fixed.nii.gz moving.nii.gz -o out
    invlearn register t1.nii.gz t2.nii.gz -o out --affine rigid --similarity mi
    invlearn register --pairs pairs.csv -o study
    """
    how = How(**options)
    if how.weights is not None:
        with interrupts_held():
            from invlearn.registration.winet import weights_file
        how = replace(how, weights=weights_file(how.weights))
    if pairs is not None:
        if any(x is not None for x in (fixed, moving, fixed_labels, moving_labels)):
            raise click.UsageError("give FIXED and MOVING, or --pairs, not both", click.get_current_context())
        from invlearn.cli.registration_pairs import register_pairs

        return register_pairs(settings, pairs, how, output)
    if fixed is None or moving is None:
        raise click.UsageError("give FIXED and MOVING, or --pairs CSV", click.get_current_context())
    pair = Pair(fixed, moving, fixed_labels, moving_labels)
    pair.require()
    with settings.progress("preparing"):
        network = prepare(how)
    settings.note(f"{output}: {in_words(register_pair(settings, pair, how, network, output))}")
    return 0
