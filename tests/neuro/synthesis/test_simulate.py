"""Samples: the same for a seed, true, varied, and as hard as asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from invlearn.io.swc import Tree, read_swc
from invlearn.neuro import simulate, swc_to_mask, tree_distance
from invlearn.neuro.synthesis import NOISE, Sample

SHAPE = (24, 64, 72)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [simulate(SHAPE, seed=seed) for seed in range(24)]


def test_a_seed_is_a_sample(samples: list[Sample]) -> None:
    again, other = simulate(SHAPE, seed=3), samples[4]
    np.testing.assert_array_equal(again.stack, samples[3].stack)
    np.testing.assert_array_equal(again.mask, samples[3].mask)
    np.testing.assert_array_equal(again.tree.xyz, samples[3].tree.xyz)
    assert again.to_dict() == samples[3].to_dict()
    assert not np.array_equal(other.mask, again.mask)
    json.dumps(again.to_dict(), allow_nan=False)


def test_the_tree_is_true_to_the_mask(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.stack.shape == sample.mask.shape == SHAPE
        at = np.rint(sample.tree.zyx(sample.voxel_size)).astype(int)
        assert ((at >= 0) & (at < SHAPE)).all()
        assert sample.mask[tuple(at.T)].mean() > 0.999
        drawn = swc_to_mask(sample.tree, SHAPE, sample.voxel_size)
        # spines, and what reaches in from outside, are in the mask alone
        assert (sample.mask & drawn).sum() > 0.99 * drawn.sum()
        assert drawn.sum() > 0.5 * sample.mask.sum()


def test_the_tree_lies_where_the_stack_is_bright(samples: list[Sample]) -> None:
    better = []
    for sample in samples:
        smooth = ndimage.gaussian_filter(sample.stack.astype(float), 1)
        better.append(np.median(smooth[sample.mask]) > np.percentile(smooth[~sample.mask], 75))
    assert np.mean(better) > 0.9


def test_they_vary(samples: list[Sample]) -> None:
    assert {s.stack.dtype for s in samples} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    assert np.ptp([s.noise for s in samples]) > 0.7
    flatness = [s.voxel_size[0] / s.voxel_size[2] for s in samples]
    assert min(flatness) == 1
    assert max(flatness) > 2
    assert {len(s.tree.roots) > 1 for s in samples} == {True, False}
    assert {(s.tree.kind == 1).any() for s in samples} == {True, False}
    assert any((s.stack == 0).mean() > 0.5 for s in samples)  # background set to zero
    assert any((s.stack == 0).mean() < 0.1 for s in samples)
    width = [np.median(s.tree.radius) / s.voxel_size[2] for s in samples]
    assert max(width) > 3 * min(width)
    assert min(width) >= 0.5


def test_noise_makes_it_harder() -> None:
    share = {}
    for noise in NOISE:
        found = []
        for seed in range(8):
            sample = simulate(SHAPE, seed=seed, noise=noise)
            bright = sample.stack.astype(float) - np.median(sample.stack)
            found.append(np.median(bright[sample.mask]) / (bright[~sample.mask].std() + 1e-9))
            assert sample.noise == NOISE[noise]
        share[noise] = np.median(found)
    assert share["low"] > share["medium"] > share["high"]
    photons = [simulate(SHAPE, seed=0, noise=n).microscope.detector.photons for n in (0.0, 0.5, 1.0)]
    assert photons == sorted(photons, reverse=True)


def test_a_given_tree_is_rendered(data_folder: Path) -> None:
    tree = read_swc(data_folder / "neurons" / "OP_1-gs.swc")
    sample = simulate((40, 100, 140), seed=1, noise="low", tree=tree)
    extent = np.ptp(tree.xyz, axis=0)[::-1] / sample.voxel_size
    assert (extent <= np.array(SHAPE_OF) - 6 + 1e-6).all()
    assert extent[1:].max() > 0.9 * 94
    assert 1 <= sample.voxel_size[0] / sample.voxel_size[2] <= 4
    assert sample.tree.length == pytest.approx(tree.length, rel=1e-3)
    middle = (sample.tree.xyz.min(axis=0) + sample.tree.xyz.max(axis=0)) / 2
    np.testing.assert_allclose(middle, ((np.array(SHAPE_OF) - 1) / 2 * sample.voxel_size)[::-1], atol=1e-6)


SHAPE_OF = (40, 100, 140)


def zigzag(unit: str = "um") -> Tree:
    xyz = np.array([(0, 0, 0), (30, 5, 2), (10, 20, 9), (32, 31, 14)], float)
    return Tree(xyz, np.full(4, 1.2), np.array([-1, 0, 1, 2]), np.zeros(4, int), unit)


def test_a_tree_is_moved_to_the_middle_and_not_otherwise_changed() -> None:
    tree = zigzag()
    sample = simulate(SHAPE, seed=2, tree=tree, voxel_size=(1.0, 0.7, 0.7))
    assert sample.voxel_size == (1.0, 0.7, 0.7)
    shift = sample.tree.xyz[sample.tree.roots[0]] - tree.xyz[0]
    moved = Tree(tree.xyz + shift, tree.radius, tree.parent, tree.kind, "um")
    assert tree_distance(sample.tree, moved, threshold=1.0).esa == pytest.approx(0, abs=1e-9)
    in_nm = simulate(SHAPE, seed=2, tree=tree.scaled((1e3, 1e3, 1e3), "nm"), voxel_size=(1.0, 0.7, 0.7))
    np.testing.assert_allclose(in_nm.tree.xyz, sample.tree.xyz)
    in_voxels = simulate(SHAPE, seed=2, tree=zigzag("voxel"), voxel_size=(1.0, 0.5, 0.5))
    assert np.ptp(in_voxels.tree.zyx((1.0, 0.5, 0.5))[:, 2]) == pytest.approx(32)


def test_there_are_as_many_neurons_as_asked_for() -> None:
    for neurons in (1, 4):
        with_somas = [(simulate(SHAPE, seed=seed, neurons=neurons).tree.kind == 1).sum() for seed in range(6)]
        assert max(with_somas) <= neurons
        assert max(with_somas) >= min(neurons, 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one neuron, got 0"):
        simulate(SHAPE, seed=0, neurons=0)
    with pytest.raises(ValueError, match="low, medium, high, or a number from 0 to 1, got 'loud'"):
        simulate(SHAPE, seed=0, noise="loud")
    with pytest.raises(ValueError, match="a number from 0 to 1, got 2"):
        simulate(SHAPE, seed=0, noise=2.0)
    with pytest.raises(ValueError, match="three positive whole"):
        simulate((4, 4), seed=0)
    with pytest.raises(ValueError, match="three positive numbers"):
        simulate(SHAPE, seed=0, voxel_size=(1, 0, 1))
    with pytest.raises(ValueError, match="give the voxel size"):
        simulate(SHAPE, seed=0, tree=zigzag("voxel"))
