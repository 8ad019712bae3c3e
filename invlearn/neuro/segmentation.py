"""From a stack of any size to the mask of its neurons, cube by cube."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from invlearn.io.runs import hash_path
from invlearn.io.stacks import Stack, create_stack, open_stack, write_stack
from invlearn.io.voxels import VoxelSize
from invlearn.neuro.cubes import MARGIN, TAPER, CubeGrid
from invlearn.neuro.normalise import estimate
from invlearn.neuro.pieces import Pieces
from invlearn.neuro.prediction import Blend, Job, Plan, StackFile, ready
from invlearn.neuro.waveunet import SHIPPED
from invlearn.neuro.zoom import Zoom

if TYPE_CHECKING:
    from invlearn.io.swc import Tree

MASK, PROBABILITY, TREE = "mask", "probability", "neuron.swc"
UNKNOWN_VOXEL = (1.0, 1.0, 1.0)  # µm, where nothing is known
_WHITE = 255  # of neuron in a mask that is written
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class How:
    """How to compute.

    Attributes
    ----------
    device
        Of the network.
    precision
        `"float32"`, or `"bfloat16"`: about twice as fast where the processor has instructions for it.
    cube
        Voxels of a cube along each axis, multiples of 16; None chooses them by memory and work.
    margin, taper
        See `invlearn.neuro.cubes.CubeGrid`.
    scheduler
        Address of a Dask scheduler whose workers compute the cubes: they see the stack, the weights and
        `folder` under the same paths as this process. None computes here.
    folder
        Where finished cubes are kept until all is done: the same call goes on from there after it was
        stopped, with the same result. None takes a temporary folder.
    """

    device: str = "cpu"
    precision: str = "float32"
    cube: tuple[int, int, int] | None = None
    margin: int = MARGIN
    taper: int = TAPER
    scheduler: str | None = None
    folder: str | os.PathLike[str] | None = None

    def plan(self, stack: Stack) -> Plan:
        """What to do with a stack.

        Raises
        ------
        ValueError
            A stack in which there is nothing to see, cubes that do not fit.
        """
        zoom = Zoom.for_voxels(stack.shape, stack.voxel_size or UNKNOWN_VOXEL)
        shape = zoom.network_shape
        if self.cube is None:
            grid = CubeGrid.for_stack(shape, margin=self.margin, taper=self.taper)
        else:
            grid = CubeGrid(shape, self.cube, self.margin, self.taper)
        return Plan(grid, zoom, estimate(stack, stack.name), self.precision)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Where the neurons of a stack are.

    Attributes
    ----------
    mask
        (D, H, W), bool. Where it was written, a `Stack` of the file instead (0 and 255).
    probability
        The same with probabilities, float32, if they were asked for.
    tree
        The tracing in µm, if it was asked for and there is a neuron.
    voxel_size
        (dz, dy, dx), µm.
    plan
        How it was computed.
    foreground
        Voxels of the mask.
    cubes
        How many there are (`all`), are empty (`background`), had been finished by an earlier run (`resumed`).
    seconds
        Of the parts of the work.
    warnings
        What the user should know.
    """

    mask: Any
    probability: Any | None
    tree: Tree | None
    voxel_size: tuple[float, float, float]
    plan: Plan
    foreground: int
    cubes: dict[str, int]
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Numbers, without the arrays."""
        return {
            "shape": list(self.plan.zoom.shape),
            "voxel_size_um": list(self.voxel_size),
            "foreground_voxels": self.foreground,
            "cubes": dict(self.cubes),
            "plan": self.plan.to_dict(),
            "tree": None if self.tree is None else self.tree.to_dict(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "warnings": list(self.warnings),
        }


def segment(
    stack: str | os.PathLike[str] | StackFile | Stack | Any,
    *,
    weights: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    voxel_size: VoxelSize | None = None,
    trace: bool = False,
    probability: bool = False,
    output: str | os.PathLike[str] | None = None,
    how: How | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Find the neurons in a stack of any size.

    Intensities are normalised by the stack's own background, noise and brightness; overlapping cubes go
    through the network, except those that are plainly background, and their probabilities are blended.

    Parameters
    ----------
    stack
        A file (TIFF, NIfTI, NRRD, Zarr; see `invlearn.io.stacks.open_stack`), a `StackFile`, a `Stack`, or an
        array (D, H, W), NumPy or torch.
    weights
        Of a WaveUNet3D; None takes those that come with invlearn.
    threshold
        Probability from which on a voxel is neuron.
    voxel_size
        (dz, dy, dx) in µm; None takes the file's, or 1 µm with a warning. For the mask only its proportions
        matter: axes with voxels longer than the network knows are interpolated.
    trace
        Trace the neurons too.
    probability
        Keep the probability too.
    output
        Folder for `mask.tif`, `probability.tif` and `neuron.swc`; of a Zarr stack, `mask.zarr` and
        `probability.zarr`, written block by block. None returns arrays.
    how
        Device, precision, cubes, scheduler, where to go on from.
    progress
        Called with the number of finished cubes and of all.

    Returns
    -------
    Segmentation
        In the geometry of the stack.

    Raises
    ------
    FileNotFoundError
        No such stack or weights.
    ValueError
        A stack or weights that cannot be used; the message says what to do.
    OSError
        The results cannot be written, such as on a full disk; finished cubes are kept in `how.folder`.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is a probability above 0 and at most 1, got {threshold}")
    how, clock = how or How(), _Clock()
    if isinstance(stack, str | os.PathLike):
        stack = StackFile(Path(stack))
    if isinstance(stack, torch.Tensor):
        stack = stack.numpy(force=True)
    file = stack if isinstance(stack, StackFile) else None
    if how.scheduler is not None and file is None:
        raise ValueError("workers of a Dask cluster read the stack themselves: give its path, not an array")
    opened = file.open(voxel_size) if file else open_stack(stack, voxel_size=voxel_size)
    with clock("network"):
        network = ready(weights, how.device)
    with clock("normalisation"):
        plan = how.plan(opened)
    with _folder(how.folder) as folder:
        manifest = _manifest(file or opened, weights, plan) if how.folder else {}
        pieces = Pieces.begin(folder, plan.grid, manifest)
        resumed = pieces.finished()
        missing = [number for number in range(len(plan.grid)) if number not in resumed]
        with clock("cubes"), _disk_full(folder):
            if how.scheduler is None:
                done = _here(plan, opened, network, pieces, missing)
            else:
                from invlearn.neuro.cluster import over_workers

                assert file is not None
                where = None if weights is None else Path(weights).absolute()
                job = Job(_absolute(file), where, plan, pieces.folder.absolute(), how.device)
                done = over_workers(how.scheduler, job, missing)
            for count, _ in enumerate(done, start=len(resumed) + 1):
                if progress is not None:
                    progress(count, len(plan.grid))
        results = _Results(Blend(pieces, plan.zoom), opened.voxel_size or UNKNOWN_VOXEL, output, file)
        with clock("blending"):
            mask = results.keep(MASK, threshold)
            kept = results.keep(PROBABILITY, None) if probability else None
        whole = open_stack(mask)
        foreground = sum(int(np.count_nonzero(whole[box])) for box in whole.boxes())
        with clock("tracing"):
            tree = results.traced(threshold) if trace and foreground else None
        empty = sum(pieces.is_empty(number) for number in range(len(plan.grid)))
    cubes = {"all": len(plan.grid), "background": empty, "resumed": len(resumed)}
    warnings = _warnings(opened, foreground, trace)
    return Segmentation(
        mask, kept, tree, results.voxel_size, plan, foreground, cubes, clock.seconds, warnings
    )


def _here(plan: Plan, stack: Stack, network: Any, pieces: Pieces, numbers: Iterable[int]) -> Iterator[int]:
    """Compute cubes in this process."""
    for number in numbers:
        pieces.write(number, plan.probability(stack, network, number))
        yield number


class _Results:
    """What is made of the blended pieces, in memory or in a folder."""

    def __init__(
        self,
        blend: Blend,
        voxel_size: tuple[float, float, float],
        output: str | os.PathLike[str] | None,
        file: StackFile | None,
    ) -> None:
        self.blend, self.voxel_size = blend, voxel_size
        self.output = None if output is None else Path(output)
        self.suffix = ".zarr" if file is not None and file.is_zarr else ".tif"
        if self.output is not None:
            self.output.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, threshold: float | None) -> Any:
        """The array of the mask or the probability, or the `Stack` of the file that was written."""
        blend = Blend(self.blend.pieces, self.blend.zoom, threshold)
        if self.output is None:
            return blend.array()
        path = self.output / f"{name}{self.suffix}"
        if self.suffix == ".tif":
            write_stack(path, blend, self.voxel_size)
        else:
            dtype = np.float32 if threshold is None else np.uint8
            target = create_stack(path, blend.shape, dtype, voxel_size=self.voxel_size)
            for box, values in blend.blocks():
                if values.any():
                    target[box] = values if threshold is None else values * np.uint8(_WHITE)
        return open_stack(path)

    def traced(self, threshold: float) -> Tree:
        """The tracing of the probability, which is read box by box."""
        from invlearn.io.swc import write_swc
        from invlearn.neuro.tracing import trace

        tree = trace(self.blend, self.voxel_size, threshold=threshold)
        if self.output is not None:
            write_swc(self.output / TREE, tree)
        return tree


def _absolute(file: StackFile) -> StackFile:
    return StackFile(file.path.absolute(), file.channel, file.time)


def _manifest(stack: StackFile | Stack, weights: str | os.PathLike[str] | None, plan: Plan) -> dict[str, Any]:
    """What must agree for finished cubes to be of use again."""
    if isinstance(stack, StackFile):
        found = [hash_path(stack.path), stack.channel, stack.time]
    else:
        digest = hashlib.sha256()
        for slab in stack.slabs():
            digest.update(slab.tobytes())
        found = [digest.hexdigest(), str(stack.dtype), None]
    return {
        "stack": found,
        "weights": hash_path(SHIPPED if weights is None else weights),
        "plan": plan.to_dict(),
    }


def _warnings(stack: Stack, foreground: int, trace: bool) -> tuple[str, ...]:
    found = []
    if stack.voxel_size is None:
        found.append(
            f"{stack.name} does not say its voxel size: 1 x 1 x 1 µm is taken; give --voxel-size Z Y X"
        )
    if not foreground:
        tracing = ": there is nothing to trace, and no SWC" if trace else ""
        found.append(f"no neuron was found in {stack.name}{tracing}; a lower --threshold may show dim ones")
    return tuple(found)


@contextlib.contextmanager
def _folder(kept: str | os.PathLike[str] | None) -> Iterator[Path]:
    """A folder for pieces, gone when all is done; one that was asked for stays when something fails."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="invlearn-") as folder:
            yield Path(folder) / "cubes"
        return
    yield Path(kept)
    shutil.rmtree(kept)


@contextlib.contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    """Say what a full disk means for the work done so far."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk is full; free some space and run the same command again, finished cubes are kept "
            f"({error.strerror})",
            str(folder),
        ) from error


class _Clock:
    """Seconds of the parts of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start
