"""The report of a registration: slices that stand upright, tiles, grids, numbers."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from invlearn.io import Volume
from invlearn.reports import registration as report
from invlearn.reports.page import Page, Plot, Table, Text, render

SHAPE = (12, 16, 10)
FOUND: dict[str, Any] = {
    "dice_before": {"mean": 0.5, "1": 0.4, "2": 0.6},
    "dice_after": {"mean": 0.8, "1": 0.75, "2": 0.85},
    "hd95_mm": {"mean": 1.5, "1": 1.5, "2": None},
    "folding_percent": 0.0,
    "sd_log_jacobian": 0.1,
    "inverse_consistency_mm": 0.01,
    "similarity": {"name": "lncc", "before": 0.3, "after": 0.9},
    "seconds": 1.234,
    "cpu_seconds": 2.0,
}
PLAIN = {**FOUND, "dice_before": None, "dice_after": None, "hd95_mm": None}


def result(**other: Any) -> Any:
    rng = np.random.default_rng(0)
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])
    volume = Volume(rng.random(SHAPE).astype(np.float32), affine)
    given = {
        "fixed": volume,
        "moving": volume,
        "warped": volume.like(volume.data[::-1].copy()),
        "deformation": 0.2 * rng.normal(size=(3, *SHAPE)),
        "history": (((6, 8, 5), (0.3, 0.5, 0.6)), (SHAPE, (0.5, 0.9))),
        "similarity": ("lncc", 0.3, 0.9),
        "converged": True,
        "notes": (),
        "jacobian": lambda: 1 + 0.1 * rng.normal(size=SHAPE),
        **other,
    }
    return SimpleNamespace(**given)


def page(given: Any, found: dict[str, Any]) -> str:
    return render(Page("Registration", report.sections(given, given.fixed.data, found)))


def pixels(uri: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[..., 0]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_slices_stand_upright_whatever_the_axes(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """Brightness x + 10 y + 100 z grows to the right and upwards in all three pictures."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for world, axis in enumerate(axes):
        affine[world, axis] = flips[world] * (1.0, 2.0, 3.0)[world]
    grid = np.indices((6, 7, 8)).reshape(3, -1)
    x, y, z = (affine[:3, :3] @ grid).reshape(3, 6, 7, 8)
    view = report.Canonical(affine)
    assert view.spacing == (1.0, 2.0, 3.0)
    seen = view.volume(x + 10 * y + 100 * z)
    for plane in range(3):
        flat = report.cut(seen, plane, 2)
        assert (np.diff(flat, axis=1) > 0).all()
        assert (np.diff(flat, axis=0) < 0).all()
    # one voxel along each of the three directions, said in the voxels of the file
    u = np.zeros((3, 6, 7, 8))
    for world, axis in enumerate(axes):
        u[axis] = flips[world]
    np.testing.assert_array_equal(view.field(u), 1)


def test_pixels_are_square() -> None:
    flat = np.arange(40.0).reshape(5, 8)
    assert report.shaped(flat, (1.0, 4.0)).shape == (20, 8)
    assert report.shaped(flat, (2.0, 2.0)).shape == (5, 8)
    assert max(report.shaped(np.zeros((1000, 600)), (0.5, 0.5)).shape) == 256
    assert set(np.unique(report.shaped((flat > 20) * 1.0, (1.0, 4.0), smooth=False))) == {0.0, 1.0}
    assert report.shaped(np.ones((1, 30)), (1.0, 0.1)).shape[0] >= 1


def test_a_checkerboard_has_tiles_of_both() -> None:
    board = report.checkerboard(np.zeros((14, 21)), np.ones((14, 21)))
    assert board.mean() == pytest.approx(0.5, abs=0.1)
    assert (board[:3, :3] == 0).all()
    assert (board[:3, 3:6] == 1).all()
    assert (board[3:6, 3:6] == 0).all()


def test_grey_values_are_not_ruled_by_outliers() -> None:
    x = np.random.default_rng(0).random((20, 20, 20))
    x[:10] = 0
    x[15, 3, 3], x[15, 3, 4], x[15, 3, 5] = 1e9, np.nan, np.inf
    grey = report.unit(x)
    assert grey.min() == 0
    assert grey.max() == 1
    assert grey[12:].mean() > 0.4
    assert not report.unit(np.full((3, 3, 3), 5.0)).any()


def test_a_flicker_needs_no_script() -> None:
    a, b = np.zeros((4, 6)), np.ones((4, 6))
    kind, data = report.flicker(a, b).split(",")
    assert "svg" in kind
    text = base64.b64decode(data).decode()
    assert "@keyframes" in text
    assert "prefers-reduced-motion" in text
    assert "<script" not in text
    first, second = re.findall(r'href="([^"]+)"', text)
    assert pixels(first).max() == 0
    assert pixels(second).min() == 1


def test_grid_lines_follow_the_field() -> None:
    still = report.grid_lines(np.zeros((2, 9, 5)), (2.0, 1.0))
    assert all(np.ptp(line, axis=0).min() == 0 for line in still)
    u = np.zeros((2, 9, 5))
    u[0] = 0.5  # voxels, along columns of 2 mm
    for line, moved in zip(still, report.grid_lines(u, (2.0, 1.0)), strict=True):
        np.testing.assert_allclose(moved - line, [[1.0, 0.0]] * len(line))


def test_the_determinant_is_shown_about_one() -> None:
    scale = report.determinant_scale(np.array([0.9, 1.0, 1.13]))
    assert (scale.low, scale.high) == pytest.approx((0.8, 1.2))
    wide = report.determinant_scale(np.array([-3.0, 1.0, 9.0]))
    assert (wide.low, wide.high) == (0.0, 2.0)


def test_the_page_of_a_pair_with_labels() -> None:
    html = page(result(), FOUND)
    assert "Dice 0.500 before, 0.800 after; nothing folds." in html
    for words in ("0.750", "1.500 mm", "6 × 8 × 5", "0.0100 mm", "Deformed grid", "Jacobian"):
        assert words in html
    assert "–" in html  # a label without a distance
    assert "used up its steps" not in html
    assert "used up its steps" in page(result(converged=False), FOUND)
    assert "sform" in page(result(notes=("the sform was used",)), FOUND)


def test_the_page_of_a_pair_without_labels() -> None:
    html = page(result(history=()), PLAIN)
    assert "Similarity (lncc) 0.300 before, 0.900 after" in html
    assert "Dice" not in html


def test_answers_say_what_went_wrong() -> None:
    assert report.answer(FOUND)[1] == "good"
    words, tone = report.answer({**FOUND, "folding_percent": 0.5})
    assert tone == "unsure"
    assert "0.5 % of the voxels fold" in words
    assert report.answer({**FOUND, "dice_after": {**FOUND["dice_after"], "mean": 0.4}})[1] == "unsure"
    worse = {**PLAIN, "similarity": {"name": "mse", "before": -0.1, "after": -0.2}}
    assert report.answer(worse)[1] == "unsure"


def test_many_labels_are_folded_away() -> None:
    many = {str(k): 0.5 for k in range(1, 40)} | {"mean": 0.5}
    html = page(result(), {**FOUND, **dict.fromkeys(("dice_before", "dice_after", "hd95_mm"), many)})
    assert "All 39 labels" in html


def test_a_summary_is_one_section() -> None:
    given = result()
    section = report.summary(given, given.fixed.data, FOUND, "Where?", [Text("a story")], "Here.")
    assert section.title == "Where?"
    assert section.answer == "Here."
    kinds = [type(block) for block in section.blocks]
    assert kinds[0] is Text
    assert kinds.count(Plot) == 4
    assert Table not in kinds
