"""Grown trees: the spanning tree against its limits, kinds, sizes, and every argument at work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from invlearn.io.swc import AXON, DENDRITE, SOMA, Tree
from invlearn.neuro.synthesis import grow
from invlearn.neuro.synthesis.grow import KINDS, SPINE, drift, spanning_tree, wander, with_spines

EXTENT = (30.0, 60.0, 90.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grown(kind: str = "neuron", seed: int = 0, **options: Any) -> Tree:
    return grow(kind, **{"extent": EXTENT, "generator": rng(seed), **options})


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_without_balance_it_is_the_minimum_spanning_tree(seed: int, count: int) -> None:
    points = rng(seed).normal(size=(count, 3))
    parent = spanning_tree(points, 0.0)
    assert parent[0] == -1
    length = np.linalg.norm(points[1:] - points[parent[1:]], axis=1).sum()
    assert length == pytest.approx(minimum_spanning_tree(squareform(pdist(points))).sum())


def test_with_all_balance_it_is_a_star() -> None:
    points = rng().normal(size=(30, 3))
    assert (spanning_tree(points, 1.0)[1:] == 0).all()  # no detour is shorter than the straight way


def test_balance_trades_cable_for_short_ways() -> None:
    points = rng().normal(size=(60, 3))
    cable, ways = [], []
    for balance in (0.0, 0.3, 1.0):
        parent, way = spanning_tree(points, balance), np.zeros(60)
        step = np.linalg.norm(points - points[parent], axis=1)
        cable.append(step[1:].sum())
        for k in range(1, 60):
            node = k
            while node > 0:
                way[k] += step[node]
                node = parent[node]
        ways.append(way.mean())
    assert cable == sorted(cable)
    assert ways == sorted(ways, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_one_tree_in_its_box(kind: str) -> None:
    for seed in range(4):
        tree = grown(kind, seed)
        assert tree.unit == "um"
        assert len(tree.roots) == 1
        share = ((tree.xyz > -3) & (tree.xyz < np.array(EXTENT[::-1]) + 3)).all(axis=1).mean()
        assert share > 0.95
        assert tree.length > 15
        has_soma = kind in ("neuron", "dendrites", "projection")
        assert (tree.kind == SOMA).sum() == has_soma
        assert tree.ends.size == 2 or kind != "branch"


def test_the_same_generator_gives_the_same_neuron() -> None:
    one, two, other = grown(seed=3), grown(seed=3), grown(seed=4)
    np.testing.assert_array_equal(one.xyz, two.xyz)
    np.testing.assert_array_equal(one.radius, two.radius)
    assert len(one) != len(other) or not np.allclose(one.xyz, other.xyz)


def test_what_is_asked_for_shows() -> None:
    assert grown(soma=6.0).radius.max() == 6.0
    assert (grown(soma=None).kind != SOMA).all()
    thick, thin = grown("dendrites", calibre=1.0), grown("dendrites", calibre=0.25)
    np.testing.assert_allclose(thick.radius[1:], 4 * thin.radius[1:])
    fine, coarse = grown("branch", step=0.25), grown("branch", step=2.0)
    assert len(fine) > 6 * len(coarse)
    steps = np.linalg.norm(fine.xyz[1:] - fine.xyz[:-1], axis=1)
    np.testing.assert_allclose(steps, 0.25, rtol=0.1)
    wide = grown("dendrites", extent=(60.0, 120.0, 180.0))
    assert np.ptp(wide.xyz) > 1.5 * np.ptp(grown("dendrites").xyz)
    kinds = set(grown("neuron").kind)
    assert {SOMA, AXON, DENDRITE} <= kinds


def test_branches_are_thicker_towards_the_root() -> None:
    tree = grown("dendrites", soma=None, calibre=0.3)
    stems = tree.parent == tree.roots[0]
    ends = tree.children == 0
    assert tree.radius[stems].mean() > 1.3 * tree.radius[ends].mean()


def test_a_detour_ends_where_it_should() -> None:
    start, end = np.array([1.0, 2, 3]), np.array([11.0, 2, 3])
    straight = wander(start, end, 1.0, 0.0, rng())
    np.testing.assert_allclose(straight, start + np.arange(1, 11)[:, None] * (1, 0, 0))
    bent = wander(start, end, 1.0, 0.3, rng())
    np.testing.assert_allclose(bent[-1], end)
    assert np.abs(bent - straight).max() > 0.3


def test_drift_is_normal_and_forgotten_over_its_reach() -> None:
    n = 4000
    line = Tree(
        np.arange(n)[:, None] * np.array([0.5, 0, 0]), np.ones(n), np.arange(-1, n - 1), np.zeros(n, int)
    )
    value = np.stack([drift(line, 2.0, rng(seed)) for seed in range(20)])
    assert value.std() == pytest.approx(1, abs=0.05)
    for lag in (1, 4, 8):
        correlation = (value[:, lag:] * value[:, :-lag]).mean()
        assert correlation == pytest.approx(np.exp(-0.5 * lag / 2.0), abs=0.06)


def test_spines_sit_on_dendrites() -> None:
    tree = grown("neuron")
    spiny = with_spines(tree, 1.0, 0.8, rng())
    spine = np.flatnonzero(spiny.kind == SPINE)
    on = spiny.parent[spine]
    assert (spiny.kind[on] == DENDRITE).all()
    assert len(spine) > 20
    gap = np.linalg.norm(spiny.xyz[spine] - spiny.xyz[on], axis=1) - spiny.radius[on]
    assert ((gap > 0.39) & (gap < 1.21)).all()
    longer = with_spines(tree, 1.0, 1.6, rng())
    assert longer.radius[-1] == pytest.approx(2 * spiny.radius[-1])
    assert len(with_spines(tree, 0.1, 0.8, rng())) < len(spiny)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one of neuron, dendrites, axon, projection, branch, got 'tree'"):
        grown("tree")
    for options in ({"extent": (0.0, 1.0, 1.0)}, {"calibre": 0.0}, {"soma": -1.0}, {"step": 0.0}):
        with pytest.raises(ValueError, match="positive numbers of µm"):
            grown(**options)
