"""Commands that are killed, interrupted, short of disk, or run twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


minutes = pytest.mark.skipif(
    "INVLEARN_SLOW" not in os.environ, reason="takes minutes; set INVLEARN_SLOW=1 to run it"
)


def driver(name: str, *options: str) -> str:
    """What a driver prints, when all is well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / name, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from invlearn.io import Scan, write_scan
from invlearn.io.arrays import write_npy

n = 500
scan = Scan(np.ones((2, n), complex), np.zeros((n, 2)), np.zeros(n, int), 1, (8, 8), (0.2, 0.2), 0.005,
            np.full(1, 0.5), np.full(1, 0.012), np.full(1, 0.002))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
for name, write, content in (("a.npy", write_npy, np.zeros(n)), ("a.h5", write_scan, scan)):
    try:
        write(Path(sys.argv[1], name), content)
    except OSError as error:
        print(name, error.strerror)
"""


def test_a_full_disk_is_said_where_numpy_and_hdf5_say_nothing_or_crash(tmp_path: Path) -> None:
    call = [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.npy File too large\na.h5 File too large\n"


def of_commands(*names: str) -> list[str]:
    return [word for name in names for word in ("--command", name)]


@pytest.mark.slow
@minutes
def test_killed_commands_leave_nothing_half_written_and_end_the_same() -> None:
    """Two runs with one seed give the same bits, and so does one that was killed and asked for again."""
    names = ("register pairs", "neuron simulate", "neuron train", "segment", "trace", "warp", "tour")
    assert driver("kill.py", "--times", "2", *of_commands(*names)).count("0 troubles") == len(names)


@pytest.mark.slow
@minutes
@pytest.mark.parametrize(
    "commands",
    [
        ("simulate", "reconstruct"),
        ("mrf train",),
        ("register", "register pairs"),
        ("registration train",),
        ("neuron simulate", "neuron train", "segment", "trace"),
        ("warp", "learnability"),
        ("tour",),
    ],
    ids=", ".join,
)
def test_commands_end_cleanly_however_they_end(commands: tuple[str, ...]) -> None:
    """Ctrl-C, SIGTERM, a full disk, a read-only folder, two runs at once."""
    said = driver("endings.py", "--times", "1", *of_commands(*commands))
    assert said.count("1 of 1 well") == 6 * len(commands)
