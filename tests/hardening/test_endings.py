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


def of_commands(*names: str) -> list[str]:
    return [word for name in names for word in ("--command", name)]


@pytest.mark.slow
@minutes
def test_killed_commands_leave_nothing_half_written_and_end_the_same() -> None:
    """Two runs with one seed give the same bits, and so does one that was killed and asked for again."""
    commands = of_commands("register pairs", "neuron simulate", "neuron train", "segment", "tour")
    assert driver("kill.py", "--times", "2", *commands).count("0 troubles") == 5


@pytest.mark.slow
@minutes
def test_commands_end_cleanly_however_they_end() -> None:
    """Ctrl-C, SIGTERM, a full disk, a read-only folder, two runs at once."""
    commands = of_commands("register pairs", "neuron simulate", "neuron train", "segment")
    assert driver("endings.py", "--times", "1", *commands).count("1 of 1 well") == 24
