"""Stacks with known neurons, of a folder or a table, made ready for training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from invlearn.io.stacks import READERS, Stack, open_stack
from invlearn.io.swc import Tree, read_swc
from invlearn.io.tables import read_table
from invlearn.io.voxels import VoxelSize
from invlearn.neuro.learning import Example
from invlearn.neuro.normalise import estimate
from invlearn.neuro.rasterise import swc_to_mask
from invlearn.neuro.zoom import Zoom

TABLE = "pairs.csv"
MASKS = "masks"  # the folder beside the stacks
_UNKNOWN_VOXEL = (1.0, 1.0, 1.0)  # µm
_INSIDE = 0.5  # of a tracing's nodes lie in its stack, or it belongs to another
_SLAB = 32  # slices that are prepared at a time


@dataclass(frozen=True)
class Pair:
    """The files of one stack: its neuron as a mask or as a tracing; a mask is preferred."""

    stack: Path
    mask: Path | None = None
    swc: Path | None = None

    @property
    def truth(self) -> Path:
        """What is learned from."""
        found = self.mask or self.swc
        assert found is not None
        return found


def find_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """Stacks with their truth: the rows of a CSV file, or what lies in a folder.

    Parameters
    ----------
    path
        A CSV file with the columns `stack` and `mask` or `swc`, of files relative to it; or a folder with
        such a file `pairs.csv`; or a folder of stacks, each with a tracing `NAME.swc` beside it or a mask of
        the same name in the folder `masks`.

    Raises
    ------
    FileNotFoundError
        No such folder or table, or a file that it names is not there.
    ValueError
        No stacks, a table without its columns, a stack without a truth, or one that is listed twice.
    """
    path = Path(path)
    if path.is_dir() and not path.name.lower().endswith(".zarr"):
        found = _in_table(path / TABLE) if (path / TABLE).is_file() else _in_folder(path)
    elif path.is_file():
        found = _in_table(path)
    else:
        raise FileNotFoundError(f"{path} does not exist; give a folder of stacks, or a CSV file of them")
    if not found:
        raise ValueError(
            f"{path} has no stacks ({', '.join(READERS)}) with a tracing NAME.swc beside them or a mask in "
            f"{MASKS}/: there is nothing to learn from"
        )
    stacks = [pair.stack for pair in found]
    twice = next((stack for k, stack in enumerate(stacks) if stack in stacks[:k]), None)
    if twice is not None:
        raise ValueError(f"{path} names {twice} twice; keep one of them")
    return found


def _in_folder(folder: Path) -> list[Pair]:
    found = []
    for stack in sorted(folder.iterdir()):
        ending = max((s for s in READERS if stack.name.lower().endswith(s)), key=len, default=None)
        if ending is None:
            continue
        stem = stack.name[: -len(ending)]
        swc, mask = folder / f"{stem}.swc", folder / MASKS / stack.name
        if not swc.exists() and not mask.exists():
            raise FileNotFoundError(
                f"{stack} has neither a tracing {swc.name} beside it nor a mask {MASKS}/{mask.name}; add "
                "one, or list the pairs in a CSV file"
            )
        found.append(Pair(stack, mask if mask.exists() else None, swc if swc.exists() else None))
    return found


def _in_table(path: Path) -> list[Pair]:
    found = []
    for row in read_table(path).rows:
        stack, mask, swc = (row.file(column) for column in ("stack", "mask", "swc"))
        if stack is None or (mask is None and swc is None):
            raise ValueError(
                f"{row.where}: there is no stack, or neither mask nor swc; the header is stack,mask,swc"
            )
        found.append(Pair(stack, mask, swc))
    return found


class Collection(Sequence[Example]):
    """Pairs made ready for training: normalised, on the grid of the network, and kept in files.

    Parameters
    ----------
    pairs
        Of `find_pairs`.
    folder
        For the prepared stacks, which are mapped into memory and not held there.
    voxel_size
        (dz, dy, dx) in µm of all stacks; None takes what each of them says.
    channel, time
        Of all stacks that have several, counted from 0; masks have one.

    Attributes
    ----------
    notes
        What the user should know of the pairs.

    Raises
    ------
    FileNotFoundError, ValueError
        A file that is missing or damaged; a truth of another shape, or that lies elsewhere, or is empty.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        folder: str | os.PathLike[str],
        voxel_size: VoxelSize | None = None,
        *,
        channel: int | None = None,
        time: int | None = None,
    ) -> None:
        self.pairs, self.folder, self.notes = list(pairs), Path(folder), list[str]()
        for number, pair in enumerate(self.pairs):
            stack = open_stack(pair.stack, channel=channel, time=time, voxel_size=voxel_size)
            self._prepare(number, pair, stack)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Example:  # type: ignore[override]
        image, mask = self._files(i)
        return Example(np.load(image, mmap_mode="r"), np.load(mask, mmap_mode="r"))

    def _files(self, i: int) -> tuple[Path, Path]:
        return self.folder / f"{i}_image.npy", self.folder / f"{i}_mask.npy"

    def _prepare(self, number: int, pair: Pair, stack: Stack) -> None:
        if stack.voxel_size is None:
            self.notes.append(f"{pair.stack} does not say its voxel size: 1 x 1 x 1 µm is taken")
        voxel = stack.voxel_size or _UNKNOWN_VOXEL
        zoom = Zoom.for_voxels(stack.shape, voxel)
        normaliser = estimate(stack, stack.name)
        image_file, mask_file = self._files(number)
        shape = zoom.network_shape
        image = open_memmap(image_file, "w+", np.float16, shape)
        mask = open_memmap(mask_file, "w+", np.bool_, shape)
        if pair.mask is not None:
            truth = open_stack(pair.mask)
            if truth.shape != stack.shape:
                raise ValueError(f"the mask {pair.mask} is {truth.shape}, its stack is {stack.shape}")
        else:
            size = [v / f for v, f in zip(voxel, zoom.factors, strict=True)]
            mask[:] = swc_to_mask(self._tree(pair, stack, voxel), shape, size)
        for z in range(0, shape[0], _SLAB):
            box = (slice(z, min(z + _SLAB, shape[0])), slice(0, shape[1]), slice(0, shape[2]))
            image[box] = normaliser(zoom.read(stack, box))
            if pair.mask is not None:
                mask[box] = zoom.read(_Binary(truth), box) >= 0.5
        if not mask.any():
            raise ValueError(f"{pair.truth} has no neuron in it; leave {pair.stack} out")

    def _tree(self, pair: Pair, stack: Stack, voxel: Sequence[float]) -> Tree:
        """The tracing, seen to lie in its stack, and not upside down."""
        assert pair.swc is not None
        tree = read_swc(pair.swc).in_um(voxel)
        places = np.rint(tree.zyx(voxel)).astype(int)
        inside = ((places >= 0) & (places < stack.shape)).all(1)
        if inside.mean() < _INSIDE:
            raise ValueError(
                f"{1 - inside.mean():.0%} of the nodes of {pair.swc} lie outside of its stack; check the "
                "voxel size and the unit (µm)"
            )
        z, y, x = places[inside].T
        image = stack.array()
        there, flipped = (float(np.median(image[z, row, x])) for row in (y, stack.shape[1] - 1 - y))
        if flipped > there:
            self.notes.append(
                f"{pair.swc} seems to count y from the other end, as Vaa3D does: the stack is brighter there"
            )
        return tree


class _Binary:
    """A mask as zeros and ones, read box by box."""

    def __init__(self, mask: Stack) -> None:
        self.mask, self.shape = mask, mask.shape

    def __getitem__(self, box: tuple[slice, slice, slice]) -> np.ndarray:
        return (self.mask[box] != 0).astype(np.float32)
