"""Finished cubes on the disk: what a stopped run goes on from, and what its result is put together of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from invlearn.io.arrays import write_npy
from invlearn.neuro.cubes import CubeGrid, Slices

_MANIFEST = "manifest.json"
_STEPS = 65535  # probabilities are kept as 16-bit numbers: exact to 8e-6
_HEADER = 128  # bytes of a file of NumPy without any numbers
_EMPTY = np.zeros((0, 0, 0), np.uint16)


class Pieces:
    """The probabilities of cubes in a folder, a file each.

    Files are written under a temporary name and moved into place: a file that is there is whole, whoever
    wrote it, on this machine or another.

    Parameters
    ----------
    folder
        Exists.
    grid
        The cubes.
    """

    def __init__(self, folder: str | os.PathLike[str], grid: CubeGrid) -> None:
        self.folder, self.grid = Path(folder), grid

    @classmethod
    def begin(cls, folder: str | os.PathLike[str], grid: CubeGrid, manifest: Mapping[str, Any]) -> Pieces:
        """The pieces in a folder if they belong to the same run, by its manifest; else an empty folder."""
        folder = Path(folder)
        text = json.dumps(dict(manifest), indent=2, sort_keys=True) + "\n"
        known = folder / _MANIFEST
        if not (known.is_file() and known.read_text(encoding="utf-8") == text):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            known.write_text(text, encoding="utf-8")
        return cls(folder, grid)

    def path(self, number: int) -> Path:
        """The file of a cube."""
        return self.folder / f"{number}.npy"

    def finished(self) -> set[int]:
        """Numbers of the cubes that are there."""
        return {int(path.stem) for path in self.folder.glob("*.npy") if path.stem.isdecimal()}

    def write(self, number: int, probability: Float[np.ndarray, "D H W"] | None) -> None:
        """Keep what a cube contributes, from its `low` to its `high`; None is zero everywhere.

        Raises
        ------
        OSError
            It cannot be written; a full disk, for example.
        """
        steps = _EMPTY if probability is None else np.rint(probability * _STEPS).astype(np.uint16)
        if not steps.any():
            steps = _EMPTY
        path = self.path(number)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write_npy(scratch, steps)
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def read(self, region: Slices) -> Float[np.ndarray, "d h w"]:
        """The blended probability in a region; all its cubes must be finished."""
        out = np.zeros([part.stop - part.start for part in region], np.float32)
        for number in self.grid.touching(region):
            if self.is_empty(number):
                continue
            steps = np.load(self.path(number), mmap_mode="r")
            spans = self.grid[number]
            inner = [
                slice(max(span.low, part.start), min(span.high, part.stop))
                for span, part in zip(spans, region, strict=True)
            ]
            z, y, x = (
                span.weight(np.arange(part.start, part.stop)) for span, part in zip(spans, inner, strict=True)
            )
            part = steps[
                tuple(slice(i.start - s.low, i.stop - s.low) for i, s in zip(inner, spans, strict=True))
            ]
            value = part * np.float32(1 / _STEPS)
            value *= z[:, None, None]
            value *= y[:, None] * x
            out[
                tuple(slice(i.start - r.start, i.stop - r.start) for i, r in zip(inner, region, strict=True))
            ] += value
        return out

    def is_empty(self, number: int) -> bool:
        """Whether a finished cube is zero everywhere."""
        return self.path(number).stat().st_size <= _HEADER
