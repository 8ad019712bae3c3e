"""ESA, DSA and PDS against the definition written out, and exact distances to segments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.io.swc import Tree
from invlearn.neuro.distance import nearest, sample_points, tree_distance


def line(*points: tuple[float, float, float], unit: str = "voxel") -> Tree:
    n = len(points)
    return Tree(np.array(points, float), np.ones(n), np.arange(-1, n - 1), np.zeros(n, int), unit)


def random_tree(seed: int, nodes: int = 40, spread: float = 30.0, roots: int = 1) -> Tree:
    rng = np.random.default_rng(seed)
    parent = np.array([-1 if k < roots else int(rng.integers(k)) for k in range(nodes)])
    xyz = rng.normal(scale=spread, size=(nodes, 3))
    return Tree(xyz, np.ones(nodes), parent, np.zeros(nodes, int), "voxel")


def by_the_book(one: Tree, two: Tree, threshold: float) -> dict[str, float]:
    """The definition, edge by edge and point by point."""

    def to_segment(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        along = b - a
        square = float(along @ along)
        t = 0.0 if square == 0 else min(max(float((p - a) @ along) / square, 0.0), 1.0)
        return float(np.linalg.norm(p - (a + t * along)))

    def one_way(tree: Tree, other: Tree) -> list[float]:
        found = []
        for node, parent in tree.edges:
            a, b = tree.xyz[node], tree.xyz[parent]
            count = int(1.5 + np.linalg.norm(b - a))
            points = [a] if count <= 1 else [a + k / (count - 1) * (b - a) for k in range(count)]
            for p in points:
                found.append(min(to_segment(p, other.xyz[c], other.xyz[q]) for c, q in other.edges))
        return found

    ways = one_way(one, two), one_way(two, one)
    far = [[d for d in way if d >= threshold] for way in ways]
    dsa = [float(np.mean(f)) for f in far if f]
    return {
        "esa": float(np.mean([np.mean(way) for way in ways])),
        "dsa": float(np.mean(dsa)) if dsa else 0.0,
        "pds": float(np.mean([len(f) / len(way) for f, way in zip(far, ways, strict=True)])),
        "esa_forth": float(np.mean(ways[0])),
        "esa_back": float(np.mean(ways[1])),
        "pds_forth": len(far[0]) / len(ways[0]),
        "pds_back": len(far[1]) / len(ways[1]),
        "maximum": min(max(ways[0]), max(ways[1])),
        "threshold": threshold,
    }


@pytest.mark.parametrize(
    ("seed", "spread", "roots", "threshold"),
    [(0, 30, 1, 2.0), (1, 0.4, 1, 0.3), (2, 8, 3, 5.0), (3, 3, 2, 50.0)],
)
def test_the_numbers_are_those_of_the_definition(
    seed: int, spread: float, roots: int, threshold: float
) -> None:
    one, two = random_tree(seed, 30, spread, roots), random_tree(seed + 100, 45, spread)
    found = tree_distance(one, two, threshold=threshold).to_dict()
    assert found == pytest.approx(by_the_book(one, two, threshold), abs=1e-9)


def test_parallel_lines_are_as_far_apart_as_they_are() -> None:
    one, two = line((0, 0, 0), (10, 0, 0)), line((0, 3, 4), (10, 3, 4))
    found = tree_distance(one, two)
    assert (found.esa, found.dsa, found.pds, found.maximum) == pytest.approx((5, 5, 1, 5))
    apart = tree_distance(one, two, threshold=5.5)
    assert (apart.esa, apart.dsa, apart.pds) == (5, 0, 0)
    at = tree_distance(one, two, threshold=5.0)  # at the threshold, a point is different
    assert at.pds == 1


def test_one_direction_without_different_points_leaves_the_other_alone() -> None:
    short, long = line((0, 0, 0), (10, 0, 0)), line((0, 0, 0), (20, 0, 0))
    found = tree_distance(short, long)
    # 21 points of the long one, 12 … 20 are 2 … 10 away
    assert found.dsa == pytest.approx(6)
    assert (found.pds_forth, found.pds_back) == pytest.approx((0, 9 / 21))
    assert found.maximum == 0
    assert found.esa_back == pytest.approx(55 / 21)


def test_an_edge_has_a_point_a_unit_and_both_its_ends() -> None:
    points = sample_points(line((0, 0, 0), (4, 0, 0), (4.4, 0, 0), (4.4, 0.6, 0)))
    # edges of 4, 0.4 and 0.6: int(5.5), int(1.9) and int(2.1) points; the second is its node
    assert sorted(points[:, 0].tolist()) == pytest.approx([0, 1, 2, 3, 4, 4.4, 4.4, 4.4])
    assert len(points) == 8


@given(st.integers(0, 10_000), st.sampled_from([0.5, 5.0, 500.0]))
def test_nearest_is_exact_for_near_and_far_points(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(seed, 60, 10.0)
    points = rng.normal(scale=far, size=(20, 3))
    child, parent = tree.edges.T
    a, b = tree.xyz[child], tree.xyz[parent]
    t = np.clip(((points[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
    direct = np.linalg.norm(points[:, None] - (a + t[..., None] * (b - a)), axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest(points, tree), direct, rtol=1e-9, atol=1e-9)


def test_nodes_on_one_spot_are_fine() -> None:
    tree = line((1, 1, 1), (1, 1, 1), (1, 1, 1))
    np.testing.assert_allclose(nearest(np.zeros((2, 3)), tree), np.sqrt(3))
    assert tree_distance(tree, tree).esa == 0


@given(st.integers(0, 10_000))
def test_it_is_symmetric_and_zero_for_the_same_tree(seed: int) -> None:
    one, two = random_tree(seed, 12, 5.0), random_tree(seed + 1, 9, 5.0)
    forth, back = tree_distance(one, two), tree_distance(two, one)
    assert (forth.esa, forth.dsa, forth.pds, forth.maximum) == pytest.approx(
        (back.esa, back.dsa, back.pds, back.maximum)
    )
    assert forth.esa_forth == pytest.approx(back.esa_back)
    assert tree_distance(one, one).esa == pytest.approx(0, abs=1e-9)
    moved = Tree(one.xyz + 100, one.radius, one.parent, one.kind, "voxel")
    again = Tree(two.xyz + 100, two.radius, two.parent, two.kind, "voxel")
    assert tree_distance(moved, again).esa == pytest.approx(forth.esa)


def test_bad_input_is_refused() -> None:
    lone = Tree(np.zeros((1, 3)), np.ones(1), np.array([-1]), np.zeros(1, int), "voxel")
    two = line((0, 0, 0), (1, 0, 0))
    for pair in ((lone, two), (two, lone)):
        with pytest.raises(ValueError, match="without an edge"):
            tree_distance(*pair)
    with pytest.raises(ValueError, match="one tree is in voxel, the other in um"):
        tree_distance(two, line((0, 0, 0), (1, 0, 0), unit="um"))
    for threshold in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive distance"):
            tree_distance(two, two, threshold=threshold)
