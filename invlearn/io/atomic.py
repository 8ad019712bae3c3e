"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PATIENCE = 1.0  # seconds in which what a killed process had started is gone, and its locks with it


def move(source: Path, target: Path) -> None:
    """Move into place; what was there is replaced, a folder too."""
    if target.is_dir() and not target.is_symlink():
        with scratch_beside(target) as old:
            os.replace(target, old / target.name)
            os.replace(source, target)
    else:
        os.replace(source, target)


@contextlib.contextmanager
def scratch_beside(target: Path, *, alone: bool = False, mark: str = "invlearn") -> Iterator[Path]:
    """A hidden folder beside a file or folder, gone afterwards.

    It is locked while it is in use, and the lock ends with the process: what killed processes left is seen to
    be nobody's, and removed.

    Parameters
    ----------
    target
        The file or folder.
    alone
        Whether no other run with this mark may be at it.
    mark
        In the name of the folder.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    FileExistsError
        Another run is at it.
    """
    prefix = f".{target.name}.{mark}-"
    with contextlib.ExitStack() as mine:
        with _locked(target.parent, wait=True):  # nobody takes for left behind what is just being made
            for other in [path for path in target.parent.iterdir() if path.name.startswith(prefix)]:
                if _in_use(other, _PATIENCE if alone else 0.0) and alone:
                    raise FileExistsError(
                        f"another run is writing {target}; wait for its end, or choose another place"
                    )
            scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            mine.callback(shutil.rmtree, scratch, ignore_errors=True)
            mine.enter_context(_locked(scratch, wait=True))
        inside = scratch / "new"  # what is written in here may use a scratch folder of its own
        inside.mkdir()
        yield inside


def _in_use(scratch: Path, patience: float) -> bool:
    """Whether a process works in a scratch folder, for some seconds; it is removed if none does."""
    end = time.monotonic() + patience
    try:
        while True:
            try:
                with _locked(scratch, wait=False):
                    shutil.rmtree(scratch, ignore_errors=True)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    return True
                time.sleep(0.02)
    except OSError:  # gone by now, or on a file system without locks: nothing is known of it
        pass
    return False


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder; waiting, go without where the file system has none."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if not wait:
                raise
        yield
    finally:
        os.close(handle)


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
        with scratch_beside(path) as scratch:
            yield scratch / path.name
            _flush(scratch / path.name)
            move(scratch / path.name, path)
    except OSError as error:
        if isinstance(error, FileExistsError | FileNotFoundError) or error.errno is None:
            raise
        raise type(error)(error.errno, f"{error.strerror}; nothing was written", str(path)) from error


def _flush(path: Path) -> None:
    """A file to the disk before its name: after a power cut it is the old one or the new one, and whole."""
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
