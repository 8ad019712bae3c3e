"""The long commands on tiny inputs: what they need, what they are called with, what they leave.

Used by the driver `kill.py` and by the tests; dictionaries are coarse and the tour asks its quick questions.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOLATILE = ("run.json", "report.html", "metrics.json", "log.csv")  # with the times of the run in them
CARDS = ("pgdnet.json", "winet.json", "waveunet.json")  # likewise
KEPT = {"checkpoints", "scans", "scans_held_back"}  # what a training goes on from


@dataclass(frozen=True)
class Long:
    """A command, its output beside the folder `inputs`, and how the same is asked for again."""

    words: tuple[str, ...]
    output: str
    resume: tuple[str, ...] = ()


_TRAINED = ("--resume",)
COMMANDS = {
    "simulate": Long(
        (
            "mrf",
            "simulate",
            "inputs/maps.npz",
            "-o",
            "scan.h5",
            "--frames",
            "12",
            "--coils",
            "2",
            "--trajectory",
            "radial",
        ),
        "scan.h5",
    ),
    "reconstruct": Long(("mrf", "reconstruct", "inputs/scan.h5", "-o", "out", "--rank", "4"), "out"),
    "mrf train": Long(
        (
            "mrf",
            "train",
            "inputs/maps",
            "-o",
            "out",
            "--frames",
            "12",
            "--rank",
            "3",
            "--iterations",
            "1",
            "--width",
            "1",
            "--scans",
            "2",
            "--size",
            "16",
            "--epochs",
            "3",
        ),
        "out",
        _TRAINED,
    ),
    "register": Long(
        (
            "register",
            "inputs/0.nii.gz",
            "inputs/1.nii.gz",
            "-o",
            "out",
            "--iterations",
            "4",
            "--affine",
            "rigid",
        ),
        "out",
    ),
    "register pairs": Long(
        ("register", "--pairs", "inputs/pairs.csv", "-o", "out", "--iterations", "2"), "out"
    ),
    "registration train": Long(
        (
            "registration",
            "train",
            "inputs/volumes",
            "-o",
            "out",
            "--width",
            "1",
            "--epochs",
            "3",
            "--hold-out",
            "0",
        ),
        "out",
        _TRAINED,
    ),
    "neuron simulate": Long(
        ("neuron", "simulate", "-o", "out", "--shape", "16x40x40", "--count", "2"), "out"
    ),
    "neuron train": Long(
        (
            "neuron",
            "train",
            "inputs/stacks",
            "-o",
            "out",
            "--width",
            "1",
            "--cube",
            "16x32x32",
            "--epochs",
            "2",
            "--hold-out",
            "0",
        ),
        "out",
        _TRAINED,
    ),
    "segment": Long(("segment", "inputs/stack.tif", "-o", "out", "--trace"), "out"),
    "trace": Long(("trace", "inputs/mask.tif", "-o", "out.swc"), "out.swc"),
    "warp": Long(
        ("warp", "inputs/1.nii.gz", "--transform", "inputs/field.nii.gz", "-o", "out.nii.gz"), "out.nii.gz"
    ),
    "learnability": Long(
        ("learnability", "--masks", "inputs/masks.npy", "--dimension", "3", "--report", "out"), "out"
    ),
    "tour": Long(("tour", "-o", "out"), "out"),
}


def prepare() -> None:
    """Import what the commands run on, and make the dictionaries and the tour small."""
    import importlib

    for name in (
        "jax",
        "lightning.fabric",
        "invlearn.physics.mri",
        "invlearn.unrolled",
        "invlearn.registration.loops",
        "invlearn.registration.points",
        "invlearn.registration.winet",
        "invlearn.neuro.synthesis",
        "invlearn.neuro.segmentation",
        "invlearn.neuro.collection",
        "invlearn.cli.fingerprinting_training",
        "invlearn.reports.neurons",
        "invlearn.reports.fingerprinting",
        "invlearn.reports.registration",
    ):
        importlib.import_module(name)
    from invlearn.cli import tour, tour_learnability
    from invlearn.physics.mri.fingerprint import Grid
    from invlearn.unrolled import fingerprinting, pgdnet_training

    coarse = Grid.logarithmic((0.3, 3.5), (0.03, 0.6), step=0.4)
    fingerprinting._grid = lambda b1: coarse
    pgdnet_training.B1 = (1.0,)
    Grid.logarithmic = lambda *args, **options: coarse  # type: ignore[method-assign]
    tour.JOBS = ("invlearn.cli.tour_learnability",)
    tour_learnability.QUESTIONS = (tour_learnability.one_mask, tour_learnability.same_lines)


def write_inputs(folder: Path) -> None:
    """All inputs of all commands."""
    from scipy import ndimage

    from invlearn.io import Volume, write_stack, write_volume
    from invlearn.io.itk import write_field
    from invlearn.neuro.synthesis import simulate

    for name in ("maps", "volumes", "stacks"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    disc = (np.hypot(x, y) < 0.9).astype(float)
    maps = {"t1": disc * (1 + 0.1 * x), "t2": disc * (0.08 + 0.02 * y), "pd": disc}
    np.savez(folder / "maps.npz", **maps)
    np.savez(folder / "maps" / "0.npz", **maps)
    for k in range(3):
        noise = np.random.default_rng(k).normal(size=(16, 16, 16))
        volume = Volume(ndimage.gaussian_filter(noise, 2).astype(np.float32), np.diag([2.0, 2, 2, 1]))
        write_volume(folder / f"{k}.nii.gz", volume)
        if k < 2:
            write_volume(folder / "volumes" / f"{k}.nii.gz", volume)
    (folder / "pairs.csv").write_text("fixed,moving\n0.nii.gz,1.nii.gz\n1.nii.gz,2.nii.gz\n")
    sample = simulate((16, 40, 40), seed=4, noise="low")
    write_stack(folder / "stack.tif", sample.stack, sample.voxel_size)
    write_stack(folder / "mask.tif", sample.mask, sample.voxel_size)
    rng = np.random.default_rng(3)
    write_field(folder / "field.nii.gz", rng.normal(size=(3, 16, 16, 16)), np.diag([2.0, 2, 2, 1]))
    np.save(folder / "masks.npy", rng.random((20, 12, 12)) < 0.5)
    run(folder.parent, ("neuron", "simulate", "-o", "inputs/stacks", "--shape", "16x40x40"))
    run(folder.parent, ("mrf", "simulate", "inputs/maps.npz", "-o", "inputs/scan.h5", "--frames", "12"))


def run(folder: Path, words: tuple[str, ...], check: bool = True) -> int:
    """A command in a process forked from this one, inside a folder; its exit code, or minus its signal."""
    code = ended(start(folder, words))
    if check and code:
        raise RuntimeError(f"{' '.join(words)}: exit code {code}: {(folder.parent / 'said').read_text()}")
    return code


def start(
    folder: Path, words: tuple[str, ...], before: Callable[[], Any] | None = None, said: str = "said"
) -> int:
    """Start it; its process number. What it says goes to the file `said` in the folder."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(folder.parent / said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        if before is not None:
            before()
        from invlearn.cli import main

        code = 0
        main(list(words))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 71
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a process, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(output: Path) -> dict[str, str]:
    """What an output holds, by digest, without what every run writes anew."""
    if output.is_file():
        files = {output.name: output}
    else:
        files = {str(path.relative_to(output)): path for path in sorted(output.rglob("*")) if path.is_file()}
    return {
        name: digest(path)
        for name, path in files.items()
        if path.name not in VOLATILE + CARDS and not KEPT & set(Path(name).parts)
    }


def digest(path: Path) -> str:
    """Of a file; of HDF5 by its samples, of weights by their tensors, as times stand beside them."""
    if path.suffix == ".safetensors":
        from invlearn.training import read_weights

        state = read_weights(path)[0]
        return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
    if path.suffix == ".h5":
        from invlearn.io import read_scan

        scan = read_scan(path)
        return hashlib.sha256(scan.kspace.tobytes() + scan.trajectory.tobytes()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def whole(output: Path) -> bool:
    """Nothing, or nothing but what a run goes on from, or all that a record names."""
    if not output.exists() or output.is_file():
        return True
    for record in output.rglob("run.json"):
        listed = json.loads(record.read_text())["outputs"]
        if not all((record.parent / name).exists() for name in listed):
            return False
    if (output / "run.json").exists():
        return True
    names = {path.name for path in output.iterdir()} - KEPT
    kept = {name for name in names if ".invlearn-" not in name}  # but for scratch
    return all((output / name / "run.json").exists() for name in kept)  # the pairs that are done


def again(command: Long, output: Path) -> tuple[str, ...]:
    """What is typed after a kill."""
    if command.resume and (output / "checkpoints").exists():
        return (*command.words, *command.resume)
    if output.is_file():
        return (*command.words, "--overwrite")
    return command.words


def fresh(folder: Path, inputs: Path) -> Path:
    """An empty place beside the inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "inputs").symlink_to(inputs)
    return folder
