"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
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
