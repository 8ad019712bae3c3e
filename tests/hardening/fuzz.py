"""Damaged files for every reader: only named errors may come, no crash, no hang, no memory without bound.

    python tests/hardening/fuzz.py --inputs 20000 --seed 1 [--reader NAME ...]

Each reader works in a process of its own with little memory. Input number i of a seed is always the same,
so that what is found is found again: `--reader tiff --first 4711 --inputs 1 --keep FOLDER`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from mutations import mutate
from readers import READERS

NAMED = (ValueError, TypeError, FileNotFoundError)
PATIENCE = 10.0  # seconds of the processor for one input
MEMORY = 1 << 30  # bytes that a reader may take beyond what is loaded before it starts


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def warm_up(readers: list[str], folder: Path) -> None:
    """Every reader once: what they import is loaded before memory is counted."""
    for name in readers:
        place = folder / name / "files"
        place.mkdir(parents=True)
        READERS[name].files(place)
        for source in originals(place):
            with contextlib.suppress(ValueError):  # some are refused as they are
                READERS[name].read(source)


def originals(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".raw")


def attempt(name: str, folder: Path, seed: int, number: int, keep: Path | None) -> tuple[str, dict[str, Any]]:
    """ "read", "refused" or "defect", and what the defect is."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    sources = originals(folder / "files")
    source, other = (sources[int(rng.integers(len(sources)))] for _ in range(2))
    place = folder / "input"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = mutate(source, place / "damaged_", rng, other)
    if keep is not None:
        shutil.copytree(place, keep, dirs_exist_ok=True)
    try:
        READERS[name].read(path)
    except NAMED as error:
        if not str(error).strip():
            return "defect", {"error": type(error).__name__, "message": "says nothing", "where": where(error)}
        if type(error) not in (*NAMED, NotADirectoryError):
            return "defect", described(error)
        return "refused", {}
    except BaseException as error:
        return "defect", described(error)
    return "read", {}


def described(error: BaseException) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)[:200], "where": where(error)}


def where(error: BaseException) -> str:
    """The last line of the library, and the very last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/invlearn/" in f.filename] or frames
    return " / ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in (ours[-1], frames[-1]))


def work(
    name: str, folder: Path, seed: int, numbers: range, progress: mmap.mmap, pipe: int, keep: Any
) -> None:
    """In the child: attempts one after the other; defects go through the pipe."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    counts = Counter[str]()
    for number in numbers:
        progress[:8] = struct.pack("<q", number)
        outcome, found = attempt(name, folder, seed, number, keep)
        counts[outcome] += 1
        if found:
            os.write(pipe, json.dumps({"number": number, **found}).encode() + b"\n")
        progress[8:24] = struct.pack("<qq", counts["read"], counts["refused"])
    os._exit(0)


def campaign(name: str, folder: Path, seed: int, numbers: range, keep: Path | None) -> dict[str, Any]:
    """All inputs of one reader; a worker that dies or hangs is replaced by another."""
    started, defects, counts = time.process_time(), [], Counter[str]()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    progress = mmap.mmap(-1, 24)
    report = os.memfd_create("report")
    first = numbers.start
    while first < numbers.stop:
        progress[:24] = bytes(24)
        child = os.fork()
        if child == 0:
            try:
                work(name, folder / name, seed, range(first, numbers.stop), progress, report, keep)
            except BaseException:
                os.write(report, traceback.format_exc().encode())
                os._exit(70)
        status, hung = watch(child, progress)
        at, read, refused = struct.unpack("<qqq", progress[:24])
        counts.update(read=read, refused=refused)
        if status == 0:
            break
        if os.WIFEXITED(status):
            raise RuntimeError(f"the worker of {name} failed at input {at}: {content(report)}")
        what = "hang" if hung else f"killed by signal {signal.Signals(os.WTERMSIG(status)).name}"
        defects.append({"number": at, "error": what, "message": "", "where": ""})
        first = at + 1
    defects += [json.loads(line) for line in content(report).splitlines()]
    os.close(report)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - started + spent.ru_utime - children.ru_utime
    return {
        "reader": name,
        "inputs": len(numbers),
        **counts,
        "seconds": round(seconds, 1),
        "defects": defects,
    }


def content(file: int) -> str:
    """All that was written to it."""
    return os.pread(file, os.fstat(file).st_size, 0).decode()


def watch(child: int, progress: mmap.mmap) -> tuple[int, bool]:
    """Wait for the child; end it when it spends too long on one input."""
    seen, since = b"", 0.0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, False
        if progress[:8] != seen:
            seen, since = progress[:8], spent(child)
        elif spent(child) - since > PATIENCE:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1], True
        time.sleep(0.05 if progress[:8] != bytes(8) else 0.005)


def spent(child: int) -> float:
    """Seconds of the processor that a process has had."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=200, help="for each reader")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", action="append", choices=list(READERS))
    parser.add_argument("--keep", type=Path, help="leave the last damaged file in this folder")
    parser.add_argument("--json", type=Path, help="write what was found")
    options = parser.parse_args()
    readers = options.reader or list(READERS)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        warm_up(readers, Path(scratch))
        found = []
        for name in readers:
            numbers = range(options.first, options.first + options.inputs)
            result = campaign(name, Path(scratch), options.seed, numbers, options.keep)
            found.append(result)
            print(
                f"{name:13} {result['inputs']:6} inputs: {result['read']} read, {result['refused']} refused, "
                f"{len(result['defects'])} defects ({result['seconds']} s)",
                flush=True,
            )
            kinds = Counter((d["error"], d["where"]) for d in result["defects"])
            for (error, place), count in kinds.most_common():
                one = next(d for d in result["defects"] if (d["error"], d["where"]) == (error, place))
                print(
                    f"    {count} x {error} at {place}: {one['message']} (input {one['number']})", flush=True
                )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(result["defects"] for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
