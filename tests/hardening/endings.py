"""Every long command ended in other ways: Ctrl-C, SIGTERM, a full disk, a read-only folder, two at once.

python tests/hardening/endings.py [--command NAME ...] [--ending NAME ...] [--times N] [--seed S]
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, Long, contents, ended, fresh, prepare, run, start, whole, write_inputs

SMALL = 1500  # bytes that a file may have on the full disk
KEPT = (".out.cubes",)  # what `segment` goes on from


@dataclass
class Case:
    """A command, where it is run, and what it leaves when nobody disturbs it."""

    command: Long
    place: Path
    inputs: Path
    expected: dict[str, str]
    seconds: float
    rng: np.random.Generator

    def folder(self) -> Path:
        return fresh(self.place / "work", self.inputs)

    def said(self, name: str = "said") -> str:
        return (self.place / name).read_text()

    def left(self, folder: Path) -> list[str]:
        """What lies around, besides the output."""
        names = {path.name for path in folder.iterdir()} - {"inputs", self.command.output, *KEPT}
        return sorted(names - {f"{self.command.output}.run.json"})

    def moment(self) -> float:
        return float(self.rng.uniform(0.05, 0.95) * self.seconds)


def interrupted(case: Case, number: int) -> str:
    """A signal at some moment: exit code 130, nothing half-written, nothing left."""
    folder = case.folder()
    child = start(folder, case.command.words)
    time.sleep(case.moment())
    os.kill(child, number)
    code = ended(child)
    if code == 0 and contents(folder / case.command.output) == case.expected:
        return ""  # it was done already
    if code != 130:
        return f"exit code {code}: {case.said()[-300:]}"
    if "Traceback" in case.said():
        return f"a traceback: {case.said()[-300:]}"
    if case.left(folder) or not whole(folder / case.command.output):
        return f"left behind: {case.left(folder)}"
    return ""


def full_disk(case: Case) -> str:
    """No file can grow: a line that says so, exit code 1 or 2, and no output."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))

    return refused(case, case.folder(), limit, "File too large")


def read_only(case: Case) -> str:
    """A folder that cannot be written to: a line that says so, exit code 2."""
    with mounted(case.place / "mounted") as folder:
        if folder is None:
            return ""  # only root can make one that root cannot write to
        (folder / "inputs").symlink_to(case.inputs)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        return refused(case, folder, None, "Read-only file system")


def no_space(case: Case) -> str:
    """A disk of a few kilobytes."""
    with mounted(case.place / "mounted", "size=12k") as folder:
        if folder is None:
            return ""
        (folder / "inputs").symlink_to(case.inputs)
        return refused(case, folder, None, "No space left")


def refused(case: Case, folder: Path, before: Callable[[], None] | None, words: str) -> str:
    """What is wrong with how a command fails."""
    code, said = ended(start(folder, case.command.words, before)), case.said()
    lines = [line for line in said.splitlines() if not line.endswith("...")]
    if code not in (1, 2):
        return f"exit code {code}: {said[-300:]}"
    if "Traceback" in said or not lines or words.lower() not in said.lower():
        return f"it said {said[-400:]!r}"
    if case.left(folder) or not whole(folder / case.command.output):
        return f"left behind: {case.left(folder)}"
    return ""


def two_at_once(case: Case) -> str:
    """Both are done, or one is refused; never a mixture."""
    folder = case.folder()
    first = start(folder, case.command.words)
    time.sleep(float(case.rng.uniform(0, 0.3)) * case.seconds)
    second = start(folder, case.command.words, said="said2")
    codes = [ended(first), ended(second)]
    if 0 not in codes or set(codes) - {0, 2}:
        return f"exit codes {codes}: {case.said()[-200:]} {case.said('said2')[-200:]}"
    if contents(folder / case.command.output) != case.expected:
        return f"a mixture: {sorted(contents(folder / case.command.output))}, exit codes {codes}"
    return f"left behind: {case.left(folder)}" if case.left(folder) else ""


@contextmanager
def mounted(place: Path, options: str = "size=64m") -> Iterator[Path | None]:
    """A small disk of its own; None where that is not allowed."""
    place.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    if made.returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


ENDINGS: dict[str, Callable[[Case], str]] = {
    "ctrl-c": lambda case: interrupted(case, signal.SIGINT),
    "sigterm": lambda case: interrupted(case, signal.SIGTERM),
    "full disk": full_disk,
    "no space": no_space,
    "read-only": read_only,
    "two at once": two_at_once,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--command", action="append", choices=list(COMMANDS))
    parser.add_argument("--ending", action="append", choices=list(ENDINGS))
    parser.add_argument("--times", type=int, default=3, help="of those that depend on the moment")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    prepare()
    troubles, rng = 0, np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        place, inputs = Path(scratch), Path(scratch, "inputs")
        write_inputs(inputs)
        for name in options.command or COMMANDS:
            command = COMMANDS[name]
            folder, began = fresh(place / "whole", inputs), time.monotonic()
            run(folder, command.words)
            case = Case(
                command, place, inputs, contents(folder / command.output), time.monotonic() - began, rng
            )
            for ending in options.ending or ENDINGS:
                moments = ending in ("ctrl-c", "sigterm", "two at once")
                found = [ENDINGS[ending](case) for _ in range(options.times if moments else 1)]
                bad = [line for line in found if line]
                troubles += len(bad)
                print(f"{name:19} {ending:12} {len(found) - len(bad)} of {len(found)} well", flush=True)
                for line in bad:
                    print(f"    {line}", flush=True)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
