"""The report of a segmentation: projections that are true, trees where they belong, numbers in words."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from invlearn.io import stacks
from invlearn.io.stacks import Stack
from invlearn.io.swc import Tree
from invlearn.reports import neurons as report
from invlearn.reports.page import Page, render

SHAPE = (12, 40, 60)
VOXEL = (2.0, 0.5, 0.5)


def tree() -> Tree:
    """A soma with a branch that forks, µm."""
    xyz = np.array([[5, 5, 4], [15, 5, 4], [25, 5, 4], [28, 15, 20], [28, 2, 4], [29, 1, 4]], float)
    return Tree(
        xyz, np.array([3, 1, 1, 0.5, 0.5, 0.5]), np.array([-1, 0, 1, 2, 2, 4]), np.array([1, 3, 3, 3, 3, 3])
    )


def result(**other: Any) -> Any:
    mask = np.zeros(SHAPE, bool)
    mask[2, 10, 10:50] = True
    given = {
        "mask": mask,
        "tree": tree(),
        "voxel_size": VOXEL,
        "foreground": 40,
        "cubes": {"all": 12, "background": 3, "resumed": 0},
        "seconds": {"cubes": 1.234, "tracing": 0.5},
        "warnings": ("no voxel size: 1 µm is assumed",),
        **other,
    }
    return SimpleNamespace(**given)


def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, SHAPE).astype(np.uint8)


def shown(page: Page) -> str:
    """The page with plain spaces."""
    return render(page).replace("\N{NO-BREAK SPACE}", " ")


def pixels(uri: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[..., :3]


def test_projections_are_the_largest_values_along_each_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = stack()
    monkeypatch.setattr(stacks, "_BOX", 100)
    for given in (volume, Stack(volume)):
        seen = report.project(given, VOXEL)
        np.testing.assert_array_equal(seen.views[0], volume.max(axis=0))
        np.testing.assert_array_equal(seen.views[1], volume.max(axis=1))
        np.testing.assert_array_equal(seen.views[2], volume.max(axis=2).T)
        assert seen.extent == (24.0, 20.0, 30.0)


def test_large_projections_shrink_and_keep_their_brightest_pixels() -> None:
    volume = np.zeros((2, 1500, 3), np.uint16)
    volume[1, 1234, 2] = 999
    seen = report.project(volume, VOXEL)
    assert max(max(view.shape) for view in seen.views) <= 640
    assert all(view.max() == 999 for view in seen.views)
    assert seen.views[0][1234 // 3, 2] == 999


def test_grey_levels_lift_the_dim_and_survive_emptiness() -> None:
    view = np.zeros((50, 50))
    view[25] = np.linspace(0, 100, 50)
    seen = report.Projections((view, view, view), (1.0, 1.0, 1.0))
    flat = report.grey(seen)[0]
    assert flat.min() == 0
    assert flat.max() == 1
    assert flat[25, 10] > view[25, 10] / 100
    empty = report.Projections((np.ones((3, 3)),) * 3, (1.0, 1.0, 1.0))
    assert not report.grey(empty)[0].any()


@pytest.mark.parametrize(("extent", "length"), [(100, 20), (30, 5), (9.9, 1), (2000, 200), (0.6, 0.1)])
def test_scale_bars_have_round_lengths(extent: float, length: float) -> None:
    assert report.nice_length(extent) == pytest.approx(length)


def test_branches_cover_every_edge_once() -> None:
    t = tree()
    paths = list(report.branches(t))
    assert len(paths) == 3
    edges = [frozenset((tuple(a), tuple(b))) for path in paths for a, b in pairwise(path)]
    assert sorted(map(sorted, edges)) == sorted(
        sorted((tuple(t.xyz[a]), tuple(t.xyz[b]))) for a, b in t.edges
    )
    lone = Tree(np.zeros((1, 3)), np.ones(1), np.array([-1]), np.array([1]))
    assert list(report.branches(lone)) == []


def test_the_three_views_lie_where_they_should() -> None:
    """A bright voxel is seen at its x and y from above, at its z below and beside."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[9, 8, 45] = 255
    picture = pixels(report.stack_picture(report.project(volume, VOXEL)))
    height, width = picture.shape[:2]
    gap = 0.02 * (30 + 24)
    per_um = width / (30 + gap + 24)
    assert height == pytest.approx((20 + gap + 24) * per_um, abs=2)
    rows, columns = np.nonzero(picture.min(axis=2) > 0.95)
    seen = set(zip((rows / per_um).round().tolist(), (columns / per_um).round().tolist(), strict=True))
    x, y, z = 45.5 * 0.5, 8.5 * 0.5, 9.5 * 2
    for row, column in ((y, x), (20 + gap + z, x), (y, 30 + gap + z)):
        assert any(abs(row - r) <= 1.2 and abs(column - c) <= 1.2 for r, c in seen)


def test_the_tracing_lies_over_what_was_traced() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    seen = report.project(volume, VOXEL)
    at = np.array([[5.0, 5, 4], [25, 5, 4]])
    line = Tree(at, np.ones(2), np.array([-1, 0]), np.array([3, 3]))
    picture = pixels(report.tree_picture(seen, line, VOXEL))
    per_um = picture.shape[1] / (30 + 0.02 * 54 + 24)
    y, x = (5.25, 15.25)  # the centre of the first voxel is at half a voxel from the edge
    window = picture[int((y - 0.5) * per_um) : int((y + 0.5) * per_um), int(x * per_um)]
    assert window.max() > 0.5
    both = pixels(report.truth_picture(seen, line, line, VOXEL))
    assert both[int(y * per_um), int(x * per_um)].min() > 0.9  # white over orange
    masked = np.zeros(SHAPE, bool)
    masked[2, 10, 10:50] = True
    tinted = pixels(report.mask_picture(seen, report.project(masked, VOXEL)))
    red, _, blue = tinted[int(5.25 * per_um), int(15 * per_um)]
    assert red > 0.5 > blue


def test_the_page_says_what_was_found() -> None:
    html = shown(Page("Neurons", report.sections(Stack(stack()), result())))
    for words in (
        "1 tree, 45 µm of cable, 1 branch point, 3 ends",
        "12 × 40 × 60 voxels of 2 × 0.5 × 0.5 µm",
        "40 (0.139 %)",
        "12; 3",
        "1: 3.0 µm",
        "seconds: cubes",
        "1 µm is assumed",
        "The mask",
    ):
        assert words in html
    assert len(re.findall("data:image/png", html)) == 3


def test_without_a_tree_or_a_neuron() -> None:
    html = shown(Page("Neurons", report.sections(stack(), result(tree=None, warnings=()))))
    assert "40 voxels belong to neurons" in html
    assert "branch points" not in html
    assert len(re.findall("data:image/png", html)) == 2
    nothing = result(tree=None, foreground=0, mask=np.zeros(SHAPE, bool))
    assert report.answer(nothing) == ("No neuron was found in this stack.", "unsure")
    assert len(re.findall("data:image/png", render(Page("Neurons", report.sections(stack(), nothing))))) == 1


def test_many_trees_and_long_cables_are_said_in_words() -> None:
    far = Tree(
        np.array([[0.0, 0, 0], [12_000, 0, 0], [0, 5, 0], [3, 5, 0]]),
        np.ones(4),
        np.array([-1, 0, -1, 2]),
        np.full(4, 3),
    )
    assert report.answer(result(tree=far))[0].startswith(
        "2 trees, 12,003 µm of cable, 0 branch points, 4 ends"
    )
    assert dict(report.tree_rows(far))["cable"] == "12.0 mm"
    assert "somas, with their radii" not in dict(report.tree_rows(far))


def test_the_summary_shows_the_truth_beside_it() -> None:
    section = report.summary(stack(), result(), tree(), "Where?", [], "There.")
    html = shown(Page("Tour", [section]))
    assert "orange alone was missed" in html
    assert "There." in html
    assert len(re.findall("data:image/png", html)) == 4
