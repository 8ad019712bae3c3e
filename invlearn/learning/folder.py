"""Measurements in a folder of files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

_PARTS = ("y", "operator_index", "x")


class MeasurementFolder(Dataset[tuple[Tensor, ...]]):
    """Samples for `fit` from `.npz` files, one sample a file, in the order of their names.

    Parameters
    ----------
    folder
        Every file holds `y`; `operator_index` (an integer) for a family; `x` where there is ground truth. All
        files hold the same of them.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        A folder without `.npz` files; a file that cannot be read or holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        self.files = sorted(folder.glob("*.npz"))
        if not self.files:
            raise ValueError(
                f"the folder {folder} has no .npz files: there is nothing to learn from; write one file a "
                "sample, for example with np.savez(path, y=y, operator_index=g)"
            )
        self.parts = tuple(sorted(self._read(0), key=_PARTS.index))

    def _read(self, i: int) -> dict[str, np.ndarray]:
        path = self.files[i]
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} cannot be read (it is no .npz file, or a damaged one)")
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error})") from error
        if "y" not in found or not set(found) <= set(_PARTS):
            raise ValueError(
                f"{path} holds {', '.join(found) or 'nothing'}; a sample is y, operator_index, x"
            )
        return found

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        found = self._read(i)
        if set(found) != set(self.parts):
            raise ValueError(
                f"{self.files[i]} holds {', '.join(found)}, but {self.files[0]} holds {', '.join(self.parts)}"
            )
        return tuple(torch.from_numpy(found[name]) for name in self.parts)
