"""kill -9 at random moments of every long command: nothing half-written, and the same result afterwards.

python tests/hardening/kill.py --times 20 --seed 1 [--command NAME ...]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, Long, again, contents, ended, fresh, prepare, run, start, whole, write_inputs


def unbroken(place: Path, inputs: Path, command: Long) -> tuple[dict[str, str], float]:
    """What it leaves when nobody disturbs it, the same twice, and the seconds it takes."""
    found = []
    for name in ("first", "second"):
        folder = fresh(place / name, inputs)
        began = time.monotonic()
        run(folder, command.words)
        seconds = time.monotonic() - began
        found.append(contents(folder / command.output))
    if found[0] != found[1]:
        differs = [name for name in found[0] if found[0][name] != found[1].get(name)]
        raise AssertionError(f"two runs with one seed differ in {differs}")
    return found[0], seconds


def killed(folder: Path, command: Long, after: float) -> bool:
    """Whether it was killed, and not done already."""
    child = start(folder, command.words)
    time.sleep(after)
    os.killpg(child, signal.SIGKILL)
    return ended(child) == -signal.SIGKILL


def trouble(folder: Path, command: Long, expected: dict[str, str]) -> str:
    """What is wrong after a kill; nothing, most likely."""
    output = folder / command.output
    if not whole(output):
        return f"half of it was written: {sorted(str(p.relative_to(folder)) for p in output.rglob('*'))[:20]}"
    if output.exists() and (output / "run.json").exists():
        return "" if contents(output) == expected else "what it had finished is another result"
    words = again(command, output)
    code = run(folder, words, check=False)
    if code:
        return (
            f"{' '.join(words)}: exit code {code}: {(folder.parent / 'said').read_text().splitlines()[-1:]}"
        )
    if contents(output) != expected:
        now = contents(output)
        return f"the result differs in {[n for n in {*now, *expected} if now.get(n) != expected.get(n)]}"
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return f"left behind: {hidden}" if hidden else ""


def campaign(name: str, place: Path, inputs: Path, times: int, rng: np.random.Generator) -> int:
    """Kill one command so many times; the number of troubles."""
    command = COMMANDS[name]
    expected, seconds = unbroken(place, inputs, command)
    troubles, kills, resumed = [], 0, 0
    for _ in range(times):
        folder = fresh(place / "killed", inputs)
        after = float(rng.uniform(0, 1.05 * seconds))
        kills += killed(folder, command, after)
        resumed += (folder / command.output).exists()
        found = trouble(folder, command, expected)
        if found:
            troubles.append(f"after {after:.2f} s: {found}")
    print(
        f"{name:19} {seconds:5.1f} s: {kills} of {times} killed on the way, {resumed} left something to go "
        f"on from, {len(troubles)} troubles",
        flush=True,
    )
    for line in troubles:
        print(f"    {line}", flush=True)
    return len(troubles)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20, help="kills of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", action="append", choices=list(COMMANDS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    prepare()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch, "inputs")
        write_inputs(inputs)
        names = options.command or list(COMMANDS)
        troubles = sum(campaign(name, Path(scratch), inputs, options.times, rng) for name in names)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
