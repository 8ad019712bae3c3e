"""Landmarks in CSV files, and fields as the Learn2Reg challenge reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from invlearn.io.landmarks import Landmarks, read_landmarks, write_landmarks, write_learn2reg


def test_points_and_other_columns_come_back(tmp_path: Path) -> None:
    text = 'label,z,x,y\n"a, b",3,1,2\n\nc,-6.5,4e0,5\n'
    (tmp_path / "a.csv").write_text("\ufeff" + text, encoding="utf-8")
    found = read_landmarks(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.points, [[1, 2, 3], [4, 5, -6.5]])
    write_landmarks(tmp_path / "b.csv", Landmarks(found.points + 1, found.columns, found.rows))
    again = read_landmarks(tmp_path / "b.csv")
    np.testing.assert_allclose(again.points, found.points + 1)
    assert [row[0] for row in again.rows] == ["a, b", "c"]


def test_points_without_a_file(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(5, 3)) * 100
    write_landmarks(tmp_path / "a.csv", Landmarks(points))
    assert (tmp_path / "a.csv").read_text().startswith("x,y,z\n")
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.csv").points, points, atol=1e-6)
    write_landmarks(tmp_path / "b.csv", Landmarks(np.empty((0, 3))))
    assert read_landmarks(tmp_path / "b.csv").points.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "must name x,y,z"),
        (b"x,y\n1,2\n", "must name x,y,z"),
        (b"x,y,z\n1,2\n", "line 2: 2 cells under 3"),
        (b"x,y,z\n1,2,3\n1,2,q\n", "line 3"),
        (b"x,y,z\n1,2,inf\n", "NaN or infinite"),
        (b"\xff\xfe\x00x", "no CSV file"),
    ],
)
def test_files_that_are_refused(text: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ValueError, match=words):
        read_landmarks(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_landmarks(tmp_path / "b.csv")


@pytest.mark.parametrize("shape", [(16, 14, 12), (15, 13, 11)])
def test_the_challenge_warps_as_we_do(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Its evaluation: enlarge each component by two, add the grid, sample."""
    rng = np.random.default_rng(0)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 4) * 60 for _ in range(3)])
    write_learn2reg(tmp_path / "disp_0001_0002.npz", field)
    half = np.load(tmp_path / "disp_0001_0002.npz")["arr_0"]
    assert half.dtype == np.float16
    assert half.shape == (3, *((n + 1) // 2 for n in shape))
    z = [ndimage.zoom(c.astype(float), 2, order=1, grid_mode=True, mode="nearest") for c in half]
    large = np.stack(z)[:, : shape[0], : shape[1], : shape[2]]
    assert np.abs(large - field)[:, 2:-2, 2:-2, 2:-2].max() < 0.08 * np.abs(field).max()


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("a.npy", np.zeros((3, 4, 4, 4)), "does not end with .npz"),
        ("a.npz", np.zeros((4, 4, 4, 3)), r"\(3, X, Y, Z\)"),
        ("a.npz", np.zeros((3, 4, 4, 1)), "two voxels"),
        ("a.npz", np.full((3, 4, 4, 4), 1e6), "float16"),
        ("a.npz", np.full((3, 4, 4, 4), np.nan), "float16"),
    ],
)
def test_fields_that_are_refused(name: str, field: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        write_learn2reg(tmp_path / name, field)
    assert list(tmp_path.iterdir()) == []
