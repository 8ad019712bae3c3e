"""From graphs to trees: loops, spurs, roots, smoothness."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.neuro.forest import Forest, open_loops, prune, root_at_ends, smooth
from invlearn.neuro.skeleton import Skeleton
from invlearn.neuro.soma import Soma


def graph(edges: list[tuple[int, int]], certainty: np.ndarray, points: np.ndarray | None = None) -> Skeleton:
    count = len(certainty)
    places = np.arange(3 * count).reshape(count, 3) if points is None else points
    return Skeleton(places, np.ones(count), np.asarray(certainty, float), np.array(edges), np.ones(3))


def star(*lengths: int, radius: float = 1.0, soma: bool = False) -> Forest:
    """Straight branches of so many µm from one point, a node a µm."""
    points, parent = [np.zeros(3)], [-1]
    for k, length in enumerate(lengths):
        way = np.array([np.cos(2.1 * k), np.sin(2.1 * k), 0.3 * k])
        for step in range(1, length + 1):
            parent.append(0 if step == 1 else len(points) - 1)
            points.append(step * way / np.linalg.norm(way))
    count = len(points)
    is_soma = np.zeros(count, bool)
    is_soma[0] = soma
    return Forest(np.array(points), np.full(count, radius), np.array(parent), np.ones(count), is_soma)


@given(seed=st.integers(0, 10_000))
def test_the_spanning_forest_is_the_maximum_one(seed: int) -> None:
    """As networkx finds it, for the smaller certainty of the two ends of each edge."""
    rng = np.random.default_rng(seed)
    count = 14
    pairs = sorted({tuple(sorted(p)) for p in rng.integers(0, count, (26, 2)).tolist() if p[0] != p[1]})
    certainty = rng.permutation(count) + 1.0
    skeleton = graph([(int(a), int(b)) for a, b in pairs], certainty)
    forest = open_loops(skeleton, [])
    known = networkx.Graph()
    known.add_nodes_from(range(count))
    known.add_weighted_edges_from((a, b, min(certainty[a], certainty[b])) for a, b in pairs)
    best = networkx.maximum_spanning_tree(known)
    child = np.flatnonzero(forest.parent >= 0)
    own = np.minimum(certainty[child], certainty[forest.parent[child]])
    assert len(child) == best.number_of_edges()
    assert own.sum() == pytest.approx(sum(data["weight"] for *_, data in best.edges(data=True)))
    assert all(known.has_edge(int(c), int(forest.parent[c])) for c in child)
    assert len(forest.order) == count  # no cycles


def test_nodes_in_a_soma_become_its_root() -> None:
    points = np.zeros((9, 3), int)
    points[:, 2] = np.arange(9)
    skeleton = graph([(k, k + 1) for k in range(8)], np.ones(9), points)
    forest = open_loops(skeleton, [Soma(np.array([0.0, 0.0, 4.0]), 1.5, 4)])
    assert len(forest) == 9 - 3 + 1
    (root,) = np.flatnonzero(forest.parent < 0)
    assert forest.soma[root]
    assert forest.radius[root] == 1.5
    assert sorted(forest.points[forest.parent == root][:, 2]) == [2, 6]


def test_two_somas_are_cut_apart_at_the_weakest_node() -> None:
    points = np.zeros((21, 3), int)
    points[:, 2] = np.arange(21)
    certainty = np.ones(21)
    certainty[13] = 0.2
    skeleton = graph([(k, k + 1) for k in range(20)], certainty, points)
    somas = [Soma(np.array([0.0, 0.0, z]), 1.2, z) for z in (3, 17)]
    forest = open_loops(skeleton, somas)
    assert sorted(np.flatnonzero(forest.parent < 0)) == sorted(np.flatnonzero(forest.soma))
    tree = forest.root()
    first = forest.points[tree == np.flatnonzero(forest.soma)[0]][:, 2]
    assert first.max() in (12, 13)


@pytest.mark.parametrize(("spur", "extra", "ends"), [(0, 0, 4), (1.5, 0.5, 4), (1.5, 1.6, 3), (4.0, 0.1, 3)])
def test_short_branches_go(spur: float, extra: float, ends: int) -> None:
    forest = prune(star(20, 3, 15, 9), spur, extra)
    assert (forest.degree == 1).sum() == ends
    assert forest.step.sum() == pytest.approx(44 + 3 * (ends == 4))


def test_the_radius_counts_and_the_longest_stays() -> None:
    assert (prune(star(20, 5, radius=2), 2.4, 0).degree == 1).sum() == 2
    assert len(prune(star(20, 5, 15, radius=2), 2.6, 0)) == 36
    assert len(prune(star(4, 3, 2), 100, 0)) == 5  # the longest branch of 4 µm


def test_a_soma_may_lose_all_branches() -> None:
    assert len(prune(star(4, 3, 2, soma=True), 100, 0)) == 1
    assert len(prune(star(4, 3, 2, soma=True), 3.5, 0)) == 5


def test_a_branch_with_twigs_is_as_long_as_its_longest_path() -> None:
    """A twig of a branch that goes, goes with it; one that makes the branch long saves it."""
    forest = star(20, 3)
    tip = len(forest) - 1
    points = np.concatenate([forest.points, forest.points[tip] + [[0, 0, 1], [0, 0, 2]]])
    longer = Forest(
        points,
        np.ones(len(points)),
        np.append(forest.parent, [tip, tip + 1]),
        np.ones(len(points)),
        np.zeros(len(points), bool),
    )
    assert len(prune(forest, 4.5, 0)) == 21
    assert len(prune(longer, 4.5, 0)) == 26
    assert len(prune(longer, 5.5, 0)) == 21


def test_trees_are_rooted_at_their_thickest_end() -> None:
    forest = star(5, 7, 9)
    forest.radius[12] = 3.0  # the end of the branch of 7
    rooted = root_at_ends(forest)
    assert list(np.flatnonzero(rooted.parent < 0)) == [12]
    assert {frozenset(e) for e in zip(range(22), rooted.parent, strict=True) if e[1] >= 0} == {
        frozenset(e) for e in zip(range(22), forest.parent, strict=True) if e[1] >= 0
    }
    assert len(rooted.order) == 22
    with_soma = star(5, 7, 9, soma=True)
    np.testing.assert_array_equal(root_at_ends(with_soma).parent, with_soma.parent)


def test_smoothing_keeps_lines_and_fixed_nodes_and_calms_noise() -> None:
    forest = star(40)
    ends = forest.degree <= 1
    np.testing.assert_allclose(smooth(forest, forest.points, 10, ends), forest.points, atol=1e-12)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(41, 3))
    calm = smooth(forest, noise, 8, ends)
    np.testing.assert_array_equal(calm[ends], noise[ends])
    assert calm[5:-5].std() < 0.5 * noise.std()
    np.testing.assert_array_equal(smooth(forest, noise, 0, ends), noise)
    # an impulse spreads with the variance that is stated: half a node² a pass
    impulse = np.zeros(41)
    impulse[20] = 1
    spread = smooth(forest, impulse, 6, np.zeros(41, bool))
    assert spread.sum() == pytest.approx(1)
    assert (spread * (np.arange(41) - 20) ** 2).sum() == pytest.approx(3)


def test_lone_nodes_stay_as_they_are() -> None:
    lone = Forest(np.ones((1, 3)), np.ones(1), np.array([-1]), np.ones(1), np.zeros(1, bool))
    np.testing.assert_array_equal(smooth(lone, lone.points, 5, np.zeros(1, bool)), lone.points)
    assert len(prune(lone, 2, 2)) == 1
    np.testing.assert_array_equal(root_at_ends(lone).parent, [-1])
    assert lone.step.sum() == 0
