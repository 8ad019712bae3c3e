"""The page on the reader's own data quotes messages: they are what is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from invlearn.io import (
    Scan,
    Volume,
    open_stack,
    read_masks,
    read_swc,
    read_volume,
    write_volume,
)
from invlearn.io.itk import read_field
from invlearn.io.maps import TissueMaps

PAGE = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text(encoding="utf-8")
QUOTED = [
    re.findall(r"`([^`]+)`", line.split("|")[1])
    for line in PAGE.split("## Messages")[1].splitlines()
    if line.startswith("| `")
]
ONES = np.ones((4, 4))


def several_arrays() -> None:
    np.savez("a.npz", mine=ONES, other=ONES)
    read_masks("a.npz")


def new_matlab() -> None:
    Path("a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n")
    read_masks("a.mat")


def pickled() -> None:
    np.save("a.npy", np.array([np.ones(2), np.ones(3)], dtype=object), allow_pickle=True)
    read_masks("a.npy")


def grey_mask() -> None:
    np.save("a.npy", np.full((2, 3, 3), 0.5))
    read_masks("a.npy")


def milliseconds() -> None:
    TissueMaps(t1=900 * ONES, t2=80 * ONES, pd=ONES)


def swapped() -> None:
    TissueMaps(t1=0.08 * ONES, t2=0.9 * ONES, pd=ONES)


def not_a_number() -> None:
    TissueMaps(t1=np.where(np.eye(4) > 0, np.nan, 1.0), t2=0.1 * ONES, pd=ONES)


def wrong_trajectory() -> None:
    trajectory = np.stack(np.meshgrid(np.linspace(-8, 8, 16), np.linspace(-8, 8, 16)), -1).reshape(-1, 2)
    Scan(np.ones((1, 256), complex), trajectory, np.zeros(256, int), 1, (16, 16))


def series() -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4, 3), np.float32), np.eye(4)), "a.nii")
    read_volume("a.nii")


def singular() -> None:
    Volume(np.ones((4, 4, 4)), np.diag([1.0, 1.0, 0.0, 1.0]))


def volume_as_field() -> None:
    write_volume("a.nii", Volume(np.ones((4, 4, 4), np.float32), np.eye(4)))
    read_field("a.nii")


def one_slice() -> None:
    tifffile.imwrite("a.tif", np.ones((8, 8), np.uint8))
    open_stack("a.tif")


def colours() -> None:
    tifffile.imwrite("a.tif", np.ones((4, 8, 8, 3), np.uint8), photometric="rgb")
    open_stack("a.tif")


def cycle() -> None:
    Path("a.swc").write_text("1 3 0 0 0 1 2\n2 3 1 0 0 1 1\n")
    read_swc("a.swc")


CASES = (
    several_arrays, new_matlab, pickled, grey_mask, milliseconds, swapped, not_a_number, wrong_trajectory,
    series, singular, volume_as_field, one_slice, colours, cycle,
)  # fmt: skip


def test_every_message_has_a_case() -> None:
    assert len(QUOTED) == len(CASES) >= 14


@pytest.mark.parametrize(
    ("case", "quoted"),
    list(zip(CASES, QUOTED, strict=False)),
    ids=[case.__name__ for case in CASES[: len(QUOTED)]],
)
def test_the_message_is_the_one_on_the_page(
    case: Callable[[], None], quoted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError)) as caught:
        case()
    said = str(caught.value)
    assert "\n" not in said
    for words in quoted:
        assert words in said
