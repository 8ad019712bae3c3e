"""Cubes cover a stack once, without seams, and only what is plainly background is skipped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.neuro.cubes import MULTIPLE, CubeGrid, is_background, mirrored
from invlearn.neuro.normalise import Normaliser, estimate
from invlearn.neuro.synthesis import simulate

SIDES = st.tuples(*3 * [st.sampled_from([64, 80, 96])])
SHAPES = st.tuples(*3 * [st.integers(1, 300)])


@given(SHAPES, SIDES, st.integers(0, 16), st.integers(1, 16))
def test_weights_add_up_to_one_and_margins_are_not_used(
    shape: tuple[int, int, int], cube: tuple[int, int, int], margin: int, taper: int
) -> None:
    grid = CubeGrid(shape, cube, margin, taper)
    assert len(grid) == math.prod(len(spans) for spans in grid.axes)
    for n, spans in zip(shape, grid.axes, strict=True):
        places = np.arange(n)
        weights = np.array([span.weight(places) for span in spans])
        assert weights.sum(0) == pytest.approx(1, abs=1e-6)
        assert ((weights > 0).sum(0) <= 2).all()
        for k, span in enumerate(spans):
            assert span.start % MULTIPLE == 0
            assert (span.stop - span.start) % MULTIPLE == 0
            used = np.flatnonzero(weights[k])
            assert used.min() >= span.low
            assert used.max() < span.high
            assert span.start == 0 or span.low >= span.start + margin
            assert span.stop >= n or span.high <= span.stop - margin
        assert spans[-1].stop >= n


@given(SHAPES)
def test_a_region_knows_its_cubes(shape: tuple[int, int, int]) -> None:
    grid = CubeGrid(shape, (64, 64, 64))
    region = tuple(slice(n // 3, n // 3 + max(1, n // 4)) for n in shape)
    touching = set(grid.touching(region))
    for number in range(len(grid)):
        spans = grid[number]
        overlaps = all(s.low < r.stop and s.high > r.start for s, r in zip(spans, region, strict=True))
        assert (number in touching) == overlaps


def test_numbers_go_through_the_cubes_with_x_fastest() -> None:
    grid = CubeGrid((100, 150, 200), (64, 64, 64))
    order = list(itertools.product(*grid.axes))
    assert [grid[k] for k in range(len(grid))] == order


@pytest.mark.parametrize("n", [256, 300, 700, 1024])
def test_of_cubes_with_equal_work_the_slimmest_are_taken(n: int) -> None:
    """The network's memory grows with the plane in which it cuts a cube."""
    a, b, c = sorted(CubeGrid.for_stack((n, n, n)).cube)
    assert CubeGrid.for_stack((n, n, n)).cube in {(a, c, b), (c, a, b), (b, c, a), (c, b, a)}


@given(st.tuples(*3 * [st.integers(16, 2000)]))
def test_chosen_cubes_keep_to_the_memory_and_waste_little(shape: tuple[int, int, int]) -> None:
    voxels = 1 << 21
    grid = CubeGrid.for_stack(shape, voxels)
    assert math.prod(grid.cube) <= voxels
    seen = math.prod(sum(span.stop - span.start for span in spans) for spans in grid.axes)
    padded = math.prod(MULTIPLE * math.ceil(n / MULTIPLE) for n in shape)
    assert seen <= 6 * padded
    if padded <= voxels:
        assert len(grid) == 1


def test_each_setting_matters() -> None:
    base = CubeGrid((100, 300, 300), (64, 96, 96))
    places = np.arange(300)
    for other in (
        CubeGrid((100, 300, 300), (64, 128, 128)),
        CubeGrid((100, 300, 300), (64, 96, 96), margin=0),
        CubeGrid((100, 300, 300), (64, 96, 96), taper=4),
    ):
        assert not np.array_equal(other.axes[2][0].weight(places), base.axes[2][0].weight(places))


def test_cubes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        CubeGrid((50, 50, 50), (40, 48, 48))
    with pytest.raises(ValueError, match="too small for a margin of 8 and a taper of 16: take 48 at least"):
        CubeGrid((100, 100, 100), (32, 64, 64))
    with pytest.raises(ValueError, match="not negative"):
        CubeGrid((50, 50, 50), (64, 64, 64), margin=-1)
    with pytest.raises(ValueError, match="too few"):
        CubeGrid.for_stack((500, 500, 500), 1000)


def test_the_end_is_mirrored() -> None:
    x = np.arange(6).reshape(1, 2, 3)
    found = mirrored(x, (1, 3, 5))
    assert found[0].tolist() == [[0, 1, 2, 2, 1], [3, 4, 5, 5, 4], [3, 4, 5, 5, 4]]
    assert mirrored(x, x.shape) is x


def noisy(shape: tuple[int, int, int] = (64, 64, 64)) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape)


def test_plain_noise_is_background() -> None:
    normaliser = Normaliser(100.0, 10.0, 200.0)
    assert is_background(noisy(), normaliser)
    assert is_background(np.random.default_rng(0).poisson(100, (64, 64, 64)), normaliser)
    assert is_background(np.zeros((16, 16, 16), np.uint8), Normaliser(0.0, 0.0, 9.0))


def test_a_thin_line_below_twice_the_noise_is_not() -> None:
    x = noisy()
    x[30:32, 30:32, 5:60] += 18  # 1.8 standard deviations
    assert not is_background(x, Normaliser(100.0, 10.0, 200.0))


def test_background_and_noise_of_the_cube_count_where_they_are_lower() -> None:
    x = noisy()
    x[30:32, 30:32, 5:60] += 18
    assert not is_background(x, Normaliser(160.0, 10.0, 300.0))
    assert not is_background(x, Normaliser(100.0, 90.0, 300.0))


@pytest.mark.parametrize("photons", [1, 4, 30])
def test_photon_noise_of_a_large_cube_is_background_and_a_dim_twig_in_it_is_not(photons: int) -> None:
    """Millions of averages reach five standard deviations, and few photons do so often."""
    rng = np.random.default_rng(photons)
    x = rng.poisson(photons, (96, 128, 128)).astype(np.uint8)
    normaliser = estimate(x)
    assert is_background(x, normaliser)
    twig = (slice(40, 42), slice(50, 52), slice(40, 64))
    x[twig] += rng.poisson(3 * photons**0.5, x[twig].shape).astype(np.uint8)
    assert not is_background(x, normaliser)


def test_hot_pixels_are_background() -> None:
    x = noisy()
    x[5::12, 5::12, 5::12] = 1000
    assert is_background(x, Normaliser(100.0, 10.0, 200.0))
    x[30, 30, 5:60] = 1000  # a line one voxel wide
    assert not is_background(x, Normaliser(100.0, 10.0, 200.0))


def test_a_cube_full_of_bright_things_is_kept() -> None:
    x = noisy()
    x[:, :24] += 500
    assert not is_background(x, Normaliser(100.0, 10.0, 600.0))
    assert not is_background(x[:, ::-1, ::2], Normaliser(100.0, 10.0, 600.0))


def test_one_bright_voxel_in_a_wiped_background_is_kept() -> None:
    x = np.zeros((32, 32, 32), np.uint8)
    x[4, 5, 6] = 7
    assert not is_background(x, Normaliser(0.0, 0.0, 100.0))


@pytest.mark.parametrize("seed", range(6))
def test_no_dim_neuron_is_skipped(seed: int) -> None:
    """At the hardest level of noise; a cube may be lost that has a sliver of the neuron at its edge."""
    sample = simulate((48, 96, 96), seed=300 + seed, noise=1.0)
    normaliser = estimate(sample.stack)
    lost = 0
    for place in itertools.product((0, 16), (0, 32, 64), (0, 32, 64)):
        part = tuple(slice(a, a + 32) for a in place)
        inside = int(sample.mask[part].sum())
        if is_background(sample.stack[part], normaliser):
            lost = max(lost, inside)
    assert lost <= 30
