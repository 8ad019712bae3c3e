"""Finished cubes on the disk, and what is put together of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from invlearn.neuro.cubes import CubeGrid
from invlearn.neuro.pieces import Pieces

SHAPE = (40, 100, 150)


def smooth() -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(0, 1, n, dtype=np.float32) for n in SHAPE], indexing="ij")
    return (z + y * y + np.sin(3 * x)) / 3


def filled(folder: Path, values: np.ndarray) -> Pieces:
    """Pieces of one array: what every cube would say if all agreed."""
    made = Pieces.begin(folder, CubeGrid(SHAPE, (48, 64, 64), 8, 8), {"a": 1})
    for number in range(len(made.grid)):
        z, y, x = (slice(span.low, span.high) for span in made.grid[number])
        made.write(number, values[z, y, x])
    return made


def test_pieces_that_agree_give_the_array_again(tmp_path: Path) -> None:
    made = filled(tmp_path / "p", smooth())
    assert made.finished() == set(range(len(made.grid)))
    region = (slice(3, 40), slice(20, 90), slice(0, 150))
    assert np.abs(made.read(region) - smooth()[region]).max() < 1e-5  # kept as 16-bit numbers


def test_cubes_that_differ_fade_into_one_another(tmp_path: Path) -> None:
    made = Pieces.begin(tmp_path / "p", CubeGrid(SHAPE, (48, 112, 64), 8, 8), {})
    for number in range(len(made.grid)):
        spans = made.grid[number]
        made.write(number, np.full([s.high - s.low for s in spans], 0.2 * (1 + number), np.float32))
    line = made.read((slice(0, 1), slice(0, 1), slice(0, 150)))[0, 0]
    assert (np.diff(line) >= -1e-6).all()
    assert np.diff(line).max() <= 0.2 / 8 + 1e-4
    assert line[[0, -1]] == pytest.approx([0.2, 0.2 * len(made.grid)], abs=1e-4)


def test_empty_cubes_take_no_room(tmp_path: Path) -> None:
    made = Pieces.begin(tmp_path / "p", CubeGrid((32, 32, 32), (32, 32, 32)), {})
    for nothing in (None, np.zeros((32, 32, 32), np.float32)):
        made.write(0, nothing)
        assert made.is_empty(0)
        assert made.path(0).stat().st_size <= 128
        assert not made.read((slice(0, 9), slice(0, 9), slice(0, 9))).any()
    made.write(0, np.full((32, 32, 32), 0.5, np.float32))
    assert not made.is_empty(0)


def test_pieces_of_another_run_are_not_used(tmp_path: Path) -> None:
    grid = CubeGrid((32, 32, 32), (32, 32, 32))
    Pieces.begin(tmp_path / "p", grid, {"stack": "a"}).write(0, None)
    assert Pieces.begin(tmp_path / "p", grid, {"stack": "a"}).finished() == {0}
    assert Pieces.begin(tmp_path / "p", grid, {"stack": "b"}).finished() == set()


def test_half_a_piece_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Pieces.begin(tmp_path / "p", CubeGrid((32, 32, 32), (32, 32, 32)), {})

    def full(path: Path, content: memoryview) -> None:
        with path.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        made.write(0, np.ones((32, 32, 32), np.float32))
    assert made.finished() == set()
    assert [path.name for path in made.folder.iterdir()] == ["manifest.json"]
