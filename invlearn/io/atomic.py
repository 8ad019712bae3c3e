"""Single files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def move(source: Path, target: Path) -> None:
    """Move into place; what was there is replaced, a folder too."""
    if target.is_dir() and not target.is_symlink():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        os.replace(target, old / target.name)
        os.replace(source, target)
        shutil.rmtree(old)
    else:
        os.replace(source, target)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to, of the same name; it lands at `path` when the block succeeds.

    Parameters
    ----------
    path
        The file, or the folder that counts as one, such as a Zarr store.
    overwrite
        Whether what exists there may be replaced.

    Yields
    ------
    Path
        Where to write. If the block fails, what was written is removed and what was there stays.

    Raises
    ------
    FileExistsError
        Something is there, and `overwrite` was not given.
    FileNotFoundError
        The folder of `path` does not exist.
    OSError
        Whatever went wrong with writing, such as a full disk, with `path` as its file.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; allow overwriting, or choose another place")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} does not exist, so that {path.name} cannot be written there")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield scratch / path.name
            move(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if isinstance(error, FileExistsError | FileNotFoundError) or error.errno is None:
            raise
        raise type(error)(error.errno, f"{error.strerror}; nothing was written", str(path)) from error
