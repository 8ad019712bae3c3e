"""Tracing: shapes whose centre lines are known, real morphologies, gaps, several neurons, bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from invlearn.io.swc import Tree, joined, read_swc, write_swc
from invlearn.neuro import swc_to_mask, trace

Voxel = tuple[float, float, float]
CUBE, FLAT = (1.0, 1.0, 1.0), (3.0, 1.0, 1.0)


def line(start: Sequence[float], end: Sequence[float], radius: float = 2.0, count: int = 120) -> Tree:
    """A straight branch; points are (x, y, z), µm."""
    xyz = np.linspace(start, end, count)
    return Tree(xyz, np.full(count, radius), np.arange(count) - 1, np.full(count, 3))


def curve(xyz: np.ndarray, radius: float) -> Tree:
    return Tree(xyz, np.full(len(xyz), radius), np.arange(len(xyz)) - 1, np.full(len(xyz), 3))


def fork(radius: float = 2.0) -> Tree:
    trunk, left, right = (
        line(*ends, radius)
        for ends in (((10, 50, 25), (50, 50, 25)), ((50, 50, 25), (90, 20, 35)), ((50, 50, 25), (90, 80, 15)))
    )
    return joined([trunk, left, right])


def helix() -> Tree:
    s = np.linspace(0, 4 * np.pi, 400)
    return curve(np.stack([50 + 25 * np.cos(s), 50 + 25 * np.sin(s), 10 + 3 * s], axis=1), 1.5)


def neuron(soma: float = 9.0, shift: Sequence[float] = (0, 0, 0)) -> Tree:
    """Three branches from a ball."""
    middle = np.array([50.0, 50, 25])
    branches = [line(middle, end, 1.5) for end in ((92, 50, 25), (15, 20, 35), (20, 85, 15))]
    ball = Tree(middle[None], np.array([soma]), np.array([-1]), np.array([1]))
    found = joined([ball, *branches])
    return Tree(found.xyz + shift, found.radius, found.parent, found.kind)


def mask_of(tree: Tree, voxel_size: Voxel = CUBE, shape: Sequence[float] = (48, 100, 100)) -> np.ndarray:
    """A stack of the extent `shape`, µm."""
    return swc_to_mask(tree, [round(n / s) for n, s in zip(shape, voxel_size, strict=True)], voxel_size)


def spread(tree: Tree, step: float = 0.25) -> np.ndarray:
    """Points along all edges."""
    points = [tree.xyz]
    for child, parent in tree.edges:
        a, b = tree.xyz[child], tree.xyz[parent]
        count = int(np.ceil(np.linalg.norm(a - b) / step))
        points.append(a + (b - a) * np.linspace(0, 1, count + 1)[:, None])
    return np.concatenate(points)


def apart(a: Tree, b: Tree) -> tuple[float, float]:
    """Mean distance from the points of each to the other, µm."""
    p, q = spread(a), spread(b)
    return float(cKDTree(q).query(p)[0].mean()), float(cKDTree(p).query(q)[0].mean())


def topology(tree: Tree) -> tuple[int, int, int]:
    return len(tree.roots), len(tree.branch_points), len(tree.ends)


@pytest.mark.parametrize("voxel_size", [CUBE, FLAT, (0.5, 0.5, 0.5)])
@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (line((10, 20, 25), (90, 60, 40)), (1, 0, 2)),
        (line((10, 20, 25), (90, 60, 40), 0.5), (1, 0, 2)),
        (fork(), (1, 1, 3)),
        (fork(5.0), (1, 1, 3)),
        (helix(), (1, 0, 2)),
    ],
    ids=["tube", "thin tube", "fork", "thick fork", "helix"],
)
def test_centre_lines_of_shapes(tree: Tree, expected: tuple[int, int, int], voxel_size: Voxel) -> None:
    found = trace(mask_of(tree, voxel_size), voxel_size)
    assert topology(found) == expected
    assert max(apart(found, tree)) < 0.35 * np.mean(voxel_size)
    length = sum(np.linalg.norm(tree.xyz[a] - tree.xyz[b]) for a, b in tree.edges)
    assert found.length == pytest.approx(length, rel=0.06)


@pytest.mark.parametrize("radius", [1.5, 2.5, 5.0])
def test_radii_are_those_of_the_tube(radius: float) -> None:
    found = trace(mask_of(line((10, 20, 25), (90, 60, 30), radius)))
    assert np.median(found.radius) == pytest.approx(radius, abs=0.3)


def test_a_ring_is_opened_and_rooted() -> None:
    s = np.linspace(0, 2 * np.pi, 300)
    ring = curve(np.stack([50 + 25 * np.cos(s), 50 + 25 * np.sin(s), np.full(300, 20.0)], axis=1), 1.5)
    found = trace(mask_of(ring))
    assert topology(found) == (1, 0, 2)
    assert found.length > 0.95 * 2 * np.pi * 25
    ends = found.xyz[found.ends]
    assert np.linalg.norm(ends[0] - ends[1]) < 5  # nowhere is it cut but at one place


def test_a_ring_is_opened_where_it_is_least_certain() -> None:
    s = np.linspace(0, 2 * np.pi, 300)
    ring = curve(np.stack([50 + 25 * np.cos(s), 50 + 25 * np.sin(s), np.full(300, 20.0)], axis=1), 1.5)
    probability = mask_of(ring).astype(np.float32)
    probability[:, 48:53, 70:] *= 0.6
    found = trace(probability)
    assert np.abs(found.xyz[found.ends] - (75, 50, 20)).max() < 4


@pytest.mark.parametrize("voxel_size", [CUBE, FLAT])
def test_the_root_is_the_soma(voxel_size: Voxel) -> None:
    found = trace(mask_of(neuron(), voxel_size), voxel_size)
    (root,) = found.roots
    assert found.kind[root] == 1
    assert (found.kind == 1).sum() == 1
    assert found.radius[root] == pytest.approx(9, abs=0.7)
    np.testing.assert_allclose(found.xyz[root], (50, 50, 25), atol=max(voxel_size))
    assert topology(found) == (1, 1, 3)
    assert max(apart(found, neuron())) < 0.6


def test_the_root_is_the_thickest_end_without_a_soma() -> None:
    taper = line((90, 60, 30), (10, 20, 25))
    taper = Tree(taper.xyz, np.linspace(1, 4, len(taper)), taper.parent, taper.kind)
    found = trace(mask_of(taper))
    assert np.linalg.norm(found.xyz[found.roots[0]] - (10, 20, 25)) < 5
    assert not (found.kind == 1).any()


def test_a_soma_is_found_given_or_not_wanted() -> None:
    mask = mask_of(neuron(7.0))
    assert (trace(mask).kind == 1).sum() == 1
    assert not (trace(mask, soma=None).kind == 1).any()
    there = trace(mask, soma=(25, 50, 80))
    (root,) = np.flatnonzero(there.kind == 1)
    np.testing.assert_allclose(there.xyz[root], (80, 50, 25), atol=1.5)
    assert root in there.roots


def test_two_neurons_that_touch_are_two_trees() -> None:
    """Cut where the bridge between them is thinnest."""
    shape = (48, 100, 190)
    a, b = neuron(), neuron(shift=(90, 0, 0))
    contact = line((92, 50, 25), (105, 20, 35), 0.6)
    found = trace(mask_of(joined([a, b, contact]), shape=shape))
    somas = np.flatnonzero(found.kind == 1)
    assert sorted(somas) == sorted(found.roots)
    assert len(somas) == 2
    tree = found.components()
    for number, truth in (
        (tree[somas[np.argmin(found.xyz[somas, 0])]], a),
        (tree[somas[np.argmax(found.xyz[somas, 0])]], b),
    ):
        own = found.take(np.flatnonzero(tree == number))
        assert max(apart(own, truth)) < 2.5


def test_separate_neurons_are_separate_trees() -> None:
    both = joined([line((10, 20, 10), (90, 20, 10)), line((10, 70, 35), (90, 70, 35))])
    found = trace(mask_of(both))
    assert topology(found) == (2, 0, 4)
    assert max(apart(found, both)) < 0.4


def gap(length: float) -> np.ndarray:
    """A tube with a piece missing in the middle."""
    mask = mask_of(line((10, 50, 25), (90, 50, 25)))
    low = round(50 - length / 2)
    mask[:, :, low : low + round(length)] = False
    return mask


def test_gaps_are_bridged_up_to_a_length() -> None:
    whole = line((10, 50, 25), (90, 50, 25))
    bridged = trace(gap(4))
    assert topology(bridged) == (1, 0, 2)
    assert max(apart(bridged, whole)) < 0.6
    assert topology(trace(gap(4), bridge=0)) == (2, 0, 4)
    assert topology(trace(gap(14))) == (2, 0, 4)
    assert topology(trace(gap(14), bridge=20)) == (1, 0, 2)


def test_bridges_follow_the_probability() -> None:
    """A gap too long to be bridged in the dark is bridged in half-light, along the light."""
    s = np.linspace(0, np.pi, 200)
    arc = curve(np.stack([50 + 25 * np.cos(s), 40 + 25 * np.sin(s), np.full(200, 20.0)], axis=1), 1.5)
    probability = mask_of(arc).astype(np.float32)
    lost = np.zeros(probability.shape, dtype=bool)
    lost[:, 40:, 44:56] = True
    assert topology(trace(np.where(lost, 0, probability))) == (2, 0, 4)
    found = trace(np.where(lost, 0.4 * probability, probability).astype(np.float32))
    assert topology(found) == (1, 0, 2)
    assert max(apart(found, arc)) < 0.8


def test_bridges_go_on_straight_rather_than_sideways() -> None:
    """Equal gaps to a branch that goes on and to one that passes by."""
    ahead = joined([line((10, 50, 25), (45, 50, 25), 1.0), line((54, 50, 25), (90, 50, 25), 1.0)])
    aside = joined([line((10, 50, 25), (45, 50, 25), 1.0), line((10, 59, 25), (90, 59, 25), 1.0)])
    assert len(trace(mask_of(ahead), bridge=8.5).roots) == 1
    assert len(trace(mask_of(aside), bridge=8.5).roots) == 2


def test_two_somas_are_not_bridged() -> None:
    a, b = neuron(), neuron(shift=(80, 0, 0))
    mask = mask_of(joined([a, b]), shape=(48, 100, 190))
    mask[:, :, 92:94] = False
    found = trace(mask)
    assert sorted(found.roots) == sorted(np.flatnonzero(found.kind == 1))
    assert len(found.roots) == 2


def test_spurs_go_and_branches_stay() -> None:
    trunk = line((10, 50, 25), (90, 50, 25), 4.0)
    spine, twig = line((40, 50, 25), (40, 56, 25), 1.0), line((60, 50, 25), (60, 70, 25), 1.0)
    mask = mask_of(joined([trunk, spine, twig]))
    assert topology(trace(mask)) == (1, 1, 3)
    assert topology(trace(mask, spur=0.5)) == (1, 2, 4)
    assert topology(trace(mask, spur=6)) == (1, 0, 2)


def test_small_pieces_go() -> None:
    rng = np.random.default_rng(0)
    mask = mask_of(line((10, 50, 25), (90, 50, 25)))
    specks = rng.integers((0, 0, 0), (48, 40, 100), size=(60, 3))
    mask[tuple(specks.T)] = True
    mask[40:42, 80:82, 10:16] = True
    assert topology(trace(mask)) == (1, 0, 2)
    assert len(trace(mask, smallest=3).roots) > 1


def test_rough_masks_with_holes_have_no_walls() -> None:
    """Every hole would otherwise be a closed surface that thinning keeps."""
    tree = fork(5.0)
    mask = mask_of(tree) & (np.random.default_rng(0).random((48, 100, 100)) > 0.08)
    found = trace(mask)
    assert max(apart(found, tree)) < 0.8
    assert len(found.branch_points) <= 2


def test_the_threshold_counts() -> None:
    probability = np.maximum(
        0.9 * mask_of(line((10, 20, 10), (90, 20, 10))), 0.3 * mask_of(line((10, 70, 35), (90, 70, 35)))
    ).astype(np.float32)
    assert len(trace(probability, bridge=0).roots) == 1
    assert len(trace(probability, bridge=0, threshold=0.2).roots) == 2


def test_tensors_numbers_and_lazy_stacks_are_the_same() -> None:
    mask = mask_of(fork())

    class Lazy:
        shape = mask.shape

        def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
            return mask[box]

    first = trace(mask)
    for other in (torch.from_numpy(mask), mask.astype(np.uint8) * 255, mask.astype(np.float64), Lazy()):
        again = trace(other)
        np.testing.assert_array_equal(first.xyz, again.xyz)
        np.testing.assert_array_equal(first.parent, again.parent)


@given(seed=st.integers(0, 10_000), density=st.floats(0.001, 0.4), dz=st.sampled_from([1.0, 2.5]))
def test_any_mask_gives_a_proper_forest_on_it(seed: int, density: float, dz: float) -> None:
    """Sorted, without cycles, finite, near the foreground, whatever comes in."""
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 13, 11)) < density
    mask[4, 6, 5] = True
    tree = trace(mask, (dz, 1, 1), bridge=0)
    assert (tree.parent < np.arange(len(tree))).all()
    assert (tree.radius > 0).all()
    voxels = np.argwhere(mask) * (dz, 1, 1)
    assert cKDTree(voxels).query(tree.xyz[:, ::-1])[0].max() < 2.5 * dz


def test_a_single_voxel_is_a_tree() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[2, 3, 4] = True
    tree = trace(mask, (2.0, 1.0, 0.5))
    np.testing.assert_allclose(tree.xyz, [[2.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("volume", "options", "words"),
    [
        (np.zeros((5, 6, 7), bool), {}, "no foreground"),
        (np.full((5, 6, 7), 0.4), {}, "no foreground to trace.*0.5"),
        (np.ones((5, 6, 7), bool), {}, "whole volume is foreground"),
        (np.ones((6, 7), bool), {}, r"\(6, 7\)"),
        (np.full((5, 6, 7), np.nan), {}, "NaN"),
        (np.full((5, 6, 7), 80.0), {}, "segment a raw stack first"),
        (np.ones((5, 6, 7), complex), {}, "complex"),
        (np.ones((5, 6, 7), bool), {"threshold": 0.0}, "threshold"),
        (np.ones((5, 6, 7), bool), {"voxel_size": (0, 1, 1)}, "voxel size"),
        (np.ones((5, 6, 7), bool), {"bridge": -1.0}, "bridge"),
        (np.ones((5, 6, 7), bool), {"spur": np.inf}, "spur"),
        (np.ones((5, 6, 7), bool), {"smallest": np.nan}, "smallest"),
    ],
)
def test_bad_input_is_refused(volume: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trace(volume, **options)


def test_a_soma_outside_is_refused() -> None:
    mask = mask_of(fork())
    for soma in ((0, 0, 500), (1, 2), "middle"):
        with pytest.raises(ValueError, match="soma is 'auto'"):
            trace(mask, soma=soma)


MORPHOLOGIES = [
    ("OP_1-gs.swc", 1.0, (1.0, 0.33, 0.33)),
    ("hemibrain_DA1_1734350788.swc", 0.008, (1.0, 0.7, 0.7)),
    ("snudda_WT-P270-20-15ak-cor.swc", 1.0, (2.5, 1.5, 1.5)),
]


@pytest.mark.parametrize(("name", "scale", "voxel_size"), MORPHOLOGIES)
def test_real_morphologies_come_back(data_folder: Path, name: str, scale: float, voxel_size: Voxel) -> None:
    """To within a voxel (the mean of its sides), both ways."""
    tree = read_swc(data_folder / "neurons" / name)
    low = (tree.xyz * scale).min(axis=0) - 8
    tree = Tree(tree.xyz * scale - low, tree.radius * scale, tree.parent, tree.kind)
    extent = (tree.xyz.max(axis=0) + 8)[::-1]
    found = trace(mask_of(tree, voxel_size, extent), voxel_size)
    assert max(apart(found, tree)) < np.mean(voxel_size)
    assert len(found.roots) == 1


def test_morphio_reads_it(tmp_path: Path) -> None:
    morphio = pytest.importorskip("morphio")
    found = trace(mask_of(neuron()))
    write_swc(tmp_path / "neuron.swc", found)
    read = morphio.Morphology(tmp_path / "neuron.swc")
    assert len(read.root_sections) == 3
    assert read.soma.diameters[0] == pytest.approx(2 * found.radius[found.roots[0]], rel=1e-4)
    ends = {tuple(np.round(s.points[-1], 2)) for s in read.iter() if not s.children}
    assert ends == {tuple(np.round(p, 2)) for p in found.xyz[found.ends].astype(np.float32)}


@pytest.mark.parametrize("nucleus", [2.0, 5.0, 8.0])
def test_a_soma_with_a_dark_nucleus_is_a_soma(nucleus: float) -> None:
    whole = mask_of(neuron())
    away = np.linalg.norm(np.indices(whole.shape).T - (25, 50, 50), axis=-1).T
    hollow = whole & (away >= nucleus)
    assert hollow.sum() < whole.sum()
    found, expected = trace(hollow), trace(whole)
    np.testing.assert_array_equal(found.xyz, expected.xyz)
    np.testing.assert_array_equal(found.radius, expected.radius)
    assert found.kind[found.roots].tolist() == [1]
