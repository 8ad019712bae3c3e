"""`invlearn mrf`: magnetic resonance fingerprinting from maps to k-space, and from k-space to maps."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from invlearn.cli.app import FAILED
from invlearn.cli.fingerprinting_training import train
from invlearn.cli.options import FILE, Settings, interrupts_held, new_command

METHODS = ("adjoint", "subspace", "llr", "pgdnet")
MAPS = {"T1map": "s", "T2map": "s", "PDmap": "arbitrary"}
OUTPUTS = (*(f"{name}{sd}.nii.gz" for name in MAPS for sd in ("", "_sd")), "report.html")
SPIRAL_TURNS, SPIRAL_SAMPLES = 4, 1000
CSV_HELP = "flip_angle_deg,phase_deg,tr_s,te_s and a row a frame."
INVERSION_HELP = "From the inversion to the first pulse."


def read_sequence(path: Path | None, inversion_time: float | None, frames: int | None) -> Any:
    """The sequence of `--sequence`, or the built-in train; cut to `frames`."""
    import dataclasses

    from invlearn.physics.mri import FingerprintSequence

    if path is None:
        sequence = FingerprintSequence.default(frames or 1000)
        return (
            sequence
            if inversion_time is None
            else dataclasses.replace(sequence, inversion_time=inversion_time)
        )
    sequence = FingerprintSequence.from_csv(path, inversion_time=inversion_time)
    if frames is None:
        return sequence
    if frames > sequence.frames:
        raise ValueError(f"{path} has {sequence.frames} frames, --frames asks for {frames}")
    return sequence.truncated(frames)


def make_trajectory(name: str, frames: int, shape: tuple[int, ...]) -> Any:
    """`(arms, samples, d)`: a built-in trajectory with an arm a frame, or the one in a file."""
    from invlearn.physics.mri import trajectories

    if name not in ("spiral", "radial"):
        return trajectories.read_trajectory(Path(name))
    if len(shape) != 2:
        raise ValueError(
            f"--trajectory {name} is for maps (H, W), these are {shape}; give a file with (arms, samples, 3)"
        )
    if name == "radial":
        return trajectories.radial(frames, 2 * max(shape), golden_angle=True)
    interleaves = max(1, max(shape) // SPIRAL_TURNS)  # each arm makes so many turns
    return trajectories.spiral(frames, SPIRAL_SAMPLES, shape, interleaves=interleaves, golden_angle=True)


@contextlib.contextmanager
def progress_bar(settings: Settings, text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr on a terminal, a line elsewhere, nothing when quiet; to be told (done, of)."""
    from rich.console import Console

    console = Console(stderr=True)
    if settings.quiet or not console.is_terminal:
        with settings.progress(text):
            yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextlib.contextmanager
def stages(settings: Settings) -> Iterator[Callable[[str], None]]:
    """A function that says on stderr what is being done: a spinner on a terminal, lines elsewhere."""
    with contextlib.ExitStack() as current:

        def say(text: str) -> None:
            current.close()
            current.enter_context(settings.progress(text))

        yield say


def _finite(value: float | None, option: str) -> None:
    if value is not None and not math.isfinite(value):
        raise click.UsageError(f"{option} must be a finite number, got {value}", click.get_current_context())


@new_command("simulate", short_help="A scan from T1, T2 and proton-density maps.")
@click.argument("maps", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="SCAN.h5", help="ISMRMRD file to write.")
@click.option("--sequence", type=FILE, metavar="CSV", help=CSV_HELP)
@click.option("--inversion-time", type=click.FloatRange(min=0), metavar="S", help=INVERSION_HELP)
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Only the first N frames.")
@click.option("--trajectory", default="spiral", show_default=True, metavar="spiral|radial|FILE")
@click.option("--coils", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--snr", type=float, metavar="DB", help="rms of k-space over rms of the noise; default none.")
def simulate(
    settings: Settings,
    maps: Path,
    output: Path,
    sequence: Path | None,
    inversion_time: float | None,
    frames: int | None,
    trajectory: str,
    coils: int,
    snr: float | None,
) -> None:
    """Simulate a scan of MAPS: an .npz with t1, t2 (s), pd, or a folder with T1map.nii.gz and so on.

    \b
    invlearn mrf simulate maps.npz -o scan.h5 --frames 500 --snr 30
    """
    from invlearn import io
    from invlearn.io.maps import read_maps

    _finite(snr, "--snr")
    tissue = read_maps(maps)
    with interrupts_held():
        from invlearn.physics.mri.fingerprint.simulate import simulate_scan
    run = settings.new_run()
    train = read_sequence(sequence, inversion_time, frames)
    arms = make_trajectory(trajectory, train.frames, tissue.shape)
    with io.output_file(output, run, overwrite=settings.overwrite) as work:
        for path in (maps, sequence, Path(trajectory)):
            if path is not None and path.exists():
                run.add_input(path)
        with progress_bar(settings, "simulating frames") as progress, run.timed("simulation"):
            scan = simulate_scan(
                tissue, train, arms, coils=coils, snr=snr, seed=settings.seed, progress=progress
            )
        with settings.progress("writing"), run.timed("writing"):
            io.write_scan(work, scan)
    settings.note(
        f"{output}: {train.frames} frames, {coils} coils, matrix {' × '.join(map(str, scan.shape))}"
    )


def read_numbers(path: Path | None, names: tuple[str, ...]) -> Any:
    """An array of numbers from `.npy`, `.npz`, `.mat` or, for a map, NIfTI."""
    from invlearn import io
    from invlearn.io.maps import read_map

    if path is None:
        return None
    if path.name.endswith((".nii", ".nii.gz")):
        return read_map(path)[0]
    return io.read_array(path, names)


def read_inputs(
    scan: Path, sequence: Path | None, inversion_time: float | None, trajectory: Path | None
) -> Any:
    """The scan, and its sequence: of `--sequence`, else of the scan's header."""
    import dataclasses

    from invlearn import io
    from invlearn.physics.mri import FingerprintSequence, trajectories
    from invlearn.unrolled.fingerprinting import sequence_of

    train = None if sequence is None else FingerprintSequence.from_csv(sequence)
    arms = None if trajectory is None else trajectories.read_trajectory(trajectory).numpy()
    data = io.read_scan(scan, trajectory=arms, frames=None if train is None else train.frames)
    if inversion_time is None:
        inversion_time = data.inversion_time
    return data, dataclasses.replace(train or sequence_of(data), inversion_time=inversion_time)


def write_results(folder: Path, result: Any, voxel_size: tuple[float, ...]) -> None:
    """The maps and their standard errors as NIfTI."""
    import numpy as np

    from invlearn.io.maps import write_map

    for name, unit in MAPS.items():
        key = name[:2].lower()
        write_map(folder / f"{name}.nii.gz", np.abs(getattr(result, key)), voxel_size, unit)
        write_map(folder / f"{name}_sd.nii.gz", getattr(result, f"{key}_sd"), voxel_size, unit)


def voxel_size(scan: Any) -> tuple[float, ...]:
    """Of a scan, in mm; 1 mm where it does not say."""
    if scan.field_of_view is None:
        return (1.0,) * len(scan.shape)
    return tuple(1e3 * extent / n for extent, n in zip(scan.field_of_view, scan.shape, strict=True))


@new_command("reconstruct", short_help="T1, T2 and proton-density maps from a scan.")
@click.argument("scan", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="Folder to write.")
@click.option("--sequence", type=FILE, metavar="CSV", help=CSV_HELP)
@click.option("--inversion-time", type=click.FloatRange(min=0), metavar="S", help=INVERSION_HELP)
@click.option("--trajectory", type=FILE, help="Instead of the scan's, in cycles a pixel.")
@click.option("--coil-maps", type=FILE, help="(C, *image), complex; estimated otherwise.")
@click.option("--b1", type=FILE, help="Actual over nominal flip angle: (*image), or NIfTI.")
@click.option("--method", type=click.Choice(METHODS), default="subspace", show_default=True)
@click.option("--rank", type=click.IntRange(min=1), metavar="K", help="Dimension of the signals' subspace.")
@click.option("--weights", type=FILE, metavar="F", help="Of --method pgdnet; else those for this sequence.")
def reconstruct(settings: Settings, scan: Path, output: Path, method: str, **options: Any) -> int:
    """Reconstruct an ISMRMRD SCAN of any program.

    Writes T1map.nii.gz, T2map.nii.gz (s), PDmap.nii.gz, their standard errors _sd, report.html and
    run.json. The sequence comes from --sequence, or from the lists in the scan's header.

    \b
    invlearn mrf reconstruct scan.h5 -o out
    invlearn mrf reconstruct scan.h5 -o out --sequence train.csv --inversion-time 0.018
    """
    from invlearn.io.runs import output_folder

    files = [scan, *(value for value in options.values() if isinstance(value, Path))]
    for path in files:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    run = settings.new_run()
    with output_folder(output, run, overwrite=settings.overwrite, expected=OUTPUTS) as work:
        result, size = compute(settings, run, scan, method, options)
        for path in files:
            run.add_input(path)
        run.metrics.update(result.to_dict())
        with settings.progress("writing"), run.timed("writing"):
            write_results(work, result, size)
            write_report(work, result, run)
    if not result.converged:
        settings.note(f"{method} had not converged after {result.iterations} steps; the maps were written")
    settings.note(f"{output}: {in_words(result)}")
    return 0 if result.converged else FAILED


def in_words(result: Any) -> str:
    """One line on the maps."""
    shape, how = " × ".join(map(str, result.t1.shape)), result.settings
    words = f"maps of {shape} voxels, {how['method']} of rank {how['rank']}"
    return f"{words}, {result.iterations} steps, {result.residual:.1%} of the data not explained"


def compute(settings: Settings, run: Any, scan: Path, method: str, options: Mapping[str, Any]) -> Any:
    """The maps of a scan, and their voxel size in mm."""
    with settings.progress("reading"), run.timed("reading"), interrupts_held():
        from invlearn.unrolled.fingerprinting import reconstruct_fingerprints

        data, sequence = read_inputs(
            scan, *(options[n] for n in ("sequence", "inversion_time", "trajectory"))
        )
        coil_maps = read_numbers(options["coil_maps"], ("coil_maps", "maps"))
        b1 = read_numbers(options["b1"], ("b1",))
    with stages(settings) as progress, run.timed("reconstruction"):
        result = reconstruct_fingerprints(
            data,
            method,
            sequence=sequence,
            weights=options["weights"],
            rank=options["rank"],
            coil_maps=coil_maps,
            b1=b1,
            device=settings.torch_device(),
            progress=progress,
        )
    return result, voxel_size(data)


def write_report(folder: Path, result: Any, run: Any) -> None:
    """`report.html`."""
    from invlearn.io.runs import versions
    from invlearn.reports.fingerprinting import sections
    from invlearn.reports.page import Page, write_page

    page = Page("Fingerprinting", sections(result), command=run.command, versions=list(versions().items()))
    write_page(folder / "report.html", page)


@new_command("evaluate", short_help="Maps against a truth.")
@click.argument("folder", type=FILE, metavar="DIR")
@click.option(
    "--truth", type=FILE, required=True, metavar="MAPS", help="An .npz or a folder, as for simulate."
)
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON, and nothing else.")
def evaluate(settings: Settings, folder: Path, truth: Path, as_json: bool) -> None:
    """Compare the maps in DIR with a truth where it has signal: fractions, PD after one scale.

    \b
    invlearn mrf evaluate out --truth maps.npz --json
    """
    from invlearn.io.maps import read_estimate, read_maps
    from invlearn.physics.mri.fingerprint.evaluate import evaluate_maps

    found = evaluate_maps(*read_estimate(folder), read_maps(truth)).to_dict()
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    click.echo(f"{'':4}{'median error':>14}{'NRMSE':>10}{'bias':>10}   over {found['voxels']:,} voxels")
    for name in ("t1", "t2", "pd"):
        error = found[name]
        shares = f"{error['median_relative_error']:14.2%}{error['nrmse']:10.2%}{error['bias']:+10.2%}"
        click.echo(f"{name.upper():4}{shares}")


@click.group("mrf", short_help="Magnetic resonance fingerprinting: simulate, reconstruct, train, evaluate.")
def command() -> None:
    """Magnetic resonance fingerprinting: T1, T2 and proton density from multi-coil k-space.

    For research. Fingerprinting is covered by patents: see docs/fingerprinting.md.
    """


for part in (simulate, reconstruct, train, evaluate):
    command.add_command(part)
