"""Run records, and outputs that appear whole or not at all.

Everything is written under a temporary name beside its place and moved there when all of it is
done; a failure or Ctrl-C removes what was written.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import invlearn
from invlearn.io.atomic import move, scratch_beside

RECORD = "run.json"
_PACKAGES = ("torch", "numpy", "scipy", "jax", "pywavelets", "sigpy")


def versions() -> dict[str, str]:
    """Versions of invlearn, Python, the platform, and the numerical packages installed."""
    found = {
        "invlearn": invlearn.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def hash_path(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file; of a folder, over the names and contents of all files in it.

    Raises
    ------
    FileNotFoundError
        No such file or folder.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\n".encode())
    return digest.hexdigest()


class Run:
    """What `run.json` says of a run, collected while it happens.

    Parameters
    ----------
    command
        The command line as it can be typed again.
    seed
        The seed of all randomness.
    device
        Where it was computed.

    Examples
    --------
    >>> run = Run("invlearn tour", seed=0, device="cpu")
    >>> with run.timed("figures"):
    ...     pass
    >>> run.metrics["verdict"] = "certified"
    >>> sorted(run.to_dict())[:3]
    ['command', 'device', 'inputs']
    """

    def __init__(self, command: str, seed: int, device: str) -> None:
        self.command = command
        self.seed = seed
        self.device = device
        self.metrics: dict[str, Any] = {}
        self._inputs: dict[str, dict[str, Any]] = {}
        self._timings: dict[str, float] = {}
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()

    def add_input(self, path: str | os.PathLike[str]) -> None:
        """Note a file or folder that was read, with its SHA-256."""
        self._inputs[os.fspath(path)] = {"sha256": hash_path(path)}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to the timing `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._timings[name] = self._timings.get(name, 0.0) + time.perf_counter() - start

    def to_dict(self, outputs: Iterable[str] = ()) -> dict[str, Any]:
        """The record; `outputs` names the files that the run wrote."""
        return {
            "command": self.command,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "seed": self.seed,
            "device": self.device,
            "versions": versions(),
            "inputs": self._inputs,
            "outputs": sorted(outputs),
            "timings": {name: round(seconds, 3) for name, seconds in self._timings.items()},
            "metrics": self.metrics,
        }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Strict JSON, indented, with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _refuse(taken: Iterable[Path]) -> None:
    names = sorted(map(str, taken))
    if names:
        what = f"{names[0]} exists" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more exist"
        raise FileExistsError(f"{what} already; give --overwrite, or another place")


@contextlib.contextmanager
def alone(target: str | os.PathLike[str]) -> Iterator[None]:
    """No other run of several parts, such as a study of pairs, at an output folder meanwhile.

    Raises
    ------
    FileExistsError
        There is one.
    """
    with _scratch(Path(target).absolute(), "parts"):
        yield


@contextlib.contextmanager
def _scratch(target: Path, mark: str = "invlearn") -> Iterator[Path]:
    """A temporary folder on the file system of `target`, gone afterwards."""
    place = target.parent
    while not place.exists():
        place = place.parent
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_beside(place / target.name, alone=True, mark=mark))
        except FileExistsError:
            raise
        except OSError as error:  # it names the temporary folder, which says nothing to the user
            kind = ValueError if type(error) is OSError else type(error)  # such as a read-only file system
            raise kind(
                f"{target} cannot be written: {error.strerror or error} in {place}; choose another place"
            ) from error
        yield scratch


def _earlier_outputs(record: Path) -> set[str]:
    """The files an earlier run says it wrote into the folder of its record."""
    try:
        listed = json.loads(record.read_text(encoding="utf-8"))["outputs"]
        return {name for name in listed if Path(name).name == name and name not in (".", "..")}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextlib.contextmanager
def output_folder(
    folder: str | os.PathLike[str], run: Run, *, overwrite: bool = False, expected: Iterable[str] = ()
) -> Iterator[Path]:
    """A scratch folder whose files, and `run.json`, land in `folder` when the block succeeds.

    Other files in `folder` stay. With `overwrite`, what an earlier run left there (by its
    `run.json`) and this one did not write again is removed, so that results of two runs never mix.

    Parameters
    ----------
    folder
        The output folder; made with its parents when it does not exist.
    run
        The record to write.
    overwrite
        Replace files that exist.
    expected
        Names that will be written, so that a clash is found before the work and not after it.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    FileExistsError
        A file to be written exists, and `overwrite` was not given.
    NotADirectoryError
        `folder` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; the output needs a folder")
    if not overwrite:
        _refuse(folder / name for name in {*expected, RECORD} if (folder / name).exists())
    with _scratch(folder.absolute()) as scratch:
        work = scratch / folder.absolute().name
        work.mkdir()
        yield work
        written = {path.name for path in work.iterdir()} | {RECORD}
        write_json(work / RECORD, run.to_dict(written))
        if not folder.exists():
            folder.absolute().parent.mkdir(parents=True, exist_ok=True)
            os.rename(work, folder)  # all at once
            return
        if not overwrite:
            _refuse(folder / name for name in written if (folder / name).exists())
        _land(work, folder, written)


def _land(work: Path, folder: Path, written: set[str]) -> None:
    """Move results into a folder that exists, one by one; while that lasts, there is no record of any."""
    stale = _earlier_outputs(folder / RECORD) - written
    (folder / RECORD).unlink(missing_ok=True)
    for name in sorted(written - {RECORD}):
        move(work / name, folder / name)
    for name in stale:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    move(work / RECORD, folder / RECORD)


@contextlib.contextmanager
def output_file(path: str | os.PathLike[str], run: Run, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch path of the same name that lands at `path`, with `PATH.run.json`, on success.

    Parameters
    ----------
    path
        The output file (or folder that counts as one, such as a Zarr store).
    run
        The record to write.
    overwrite
        Replace what exists.

    Yields
    ------
    Path
        The path to write to.

    Raises
    ------
    FileExistsError
        The file or its record exists, and `overwrite` was not given.
    """
    path = Path(path)
    record = path.with_name(f"{path.name}.{RECORD}")
    if not overwrite:
        _refuse(p for p in (path, record) if p.exists())
    with _scratch(path.absolute()) as scratch:
        yield scratch / path.name
        write_json(scratch / record.name, run.to_dict([path.name]))
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        move(scratch / path.name, path)
        move(scratch / record.name, record)
