"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from invlearn.io import atomic


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic.replacing(tmp_path / "a.txt") as place:
            place.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_folders_are_replaced_whole(tmp_path: Path) -> None:
    for content in ("a", "b"):
        with atomic.replacing(tmp_path / "folder") as place:
            place.mkdir()
            (place / content).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["b"]
    with (
        pytest.raises(FileExistsError, match="exists already"),
        atomic.replacing(tmp_path / "folder", overwrite=False),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic.replacing(tmp_path / "a.txt") as place:
            place.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(OSError, match="nothing was written") as caught:
        fill()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom invlearn.io.atomic import replacing\n"
        "with replacing(sys.argv[1]) as place:\n    place.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], timeout=120)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.txt.")
    (tmp_path / ".a.txt.mine").mkdir()
    with atomic.replacing(tmp_path / "a.txt") as place:
        place.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".a.txt.mine"}


def test_what_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    """The lock of a killed run ends with the last process that it had started."""
    left = tmp_path / ".out.invlearn-left"
    left.mkdir()
    lock = os.open(left, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(0.3, os.close, (lock,)).start()
    with atomic.scratch_beside(tmp_path / "out", alone=True):
        assert not left.exists()


def test_one_run_at_a_time_where_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic.scratch_beside(target, alone=True) as first:
        with (
            pytest.raises(FileExistsError, match=r"another run is writing .*out"),
            atomic.scratch_beside(target, alone=True),
        ):
            pass
        with atomic.scratch_beside(target) as second, atomic.scratch_beside(target, alone=True, mark="other"):
            assert first != second
        with atomic.scratch_beside(tmp_path / "out2", alone=True):
            pass
        assert first.is_dir()
    with atomic.scratch_beside(target, alone=True):
        pass
    assert not list(tmp_path.iterdir())


def test_one_within_another(tmp_path: Path) -> None:
    """A command writes its file into a scratch folder with a function that uses one itself."""
    code = (
        "import sys\nfrom invlearn.io.atomic import replacing\n"
        "with replacing(sys.argv[1]) as outer:\n"
        "    with replacing(outer) as inner:\n        inner.write_text('whole')\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], timeout=120, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"
