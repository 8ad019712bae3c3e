"""Elongated voxels: a finer grid for the network, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.neuro.zoom import ELONGATION, Zoom

SHAPE = (9, 14, 11)


def whole(shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    d, h, w = (slice(0, n) for n in shape)
    return d, h, w


def plane(shape: tuple[int, int, int], steps: tuple[float, float, float]) -> np.ndarray:
    """A linear function of the position in µm."""
    z, y, x = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, steps, strict=True)], indexing="ij")
    return (1 + 2 * z - 3 * y + 0.5 * x).astype(np.float32)


def test_voxels_that_the_network_knows_are_left_alone() -> None:
    zoom = Zoom.for_voxels(SHAPE, (2.0, 0.5, 0.5))
    assert zoom.factors == (1.0, 1.0, 1.0)
    assert zoom.network_shape == SHAPE
    x = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    assert zoom.read(x, whole(SHAPE)).dtype == np.uint8
    assert np.array_equal(zoom.read(x, whole(SHAPE)), x)
    assert np.array_equal(zoom.back(x, whole(SHAPE)), x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_long_voxels_are_cut_to_what_the_network_knows(axis: int) -> None:
    voxel = [1.0, 1.0, 1.0]
    voxel[axis] = 3 * ELONGATION[axis]
    zoom = Zoom.for_voxels(SHAPE, voxel)
    assert zoom.factors[axis] == pytest.approx(3)
    assert [f for k, f in enumerate(zoom.factors) if k != axis] == [1, 1]
    assert zoom.network_shape[axis] == 3 * (SHAPE[axis] - 1) + 1
    assert Zoom.for_voxels(SHAPE, [1e-3 * v for v in voxel]).factors == pytest.approx(zoom.factors)
    assert Zoom.for_voxels(SHAPE, voxel, (99.0, 99.0, 99.0)).factors == (1, 1, 1)


@given(st.tuples(*3 * [st.floats(1, 4)]))
def test_linear_functions_are_kept_in_place_both_ways(factors: tuple[float, float, float]) -> None:
    zoom = Zoom(SHAPE, factors)
    fine = plane(zoom.network_shape, tuple(1 / f for f in factors))
    limited = plane(SHAPE, (1.0, 1.0, 1.0))
    found = zoom.read(limited, whole(zoom.network_shape))
    inner = tuple(slice(0, int((n - 1) * f) + 1) for n, f in zip(SHAPE, factors, strict=True))
    assert np.allclose(found[inner], fine[inner], atol=1e-3)  # beyond the last voxel it stays constant
    region = (slice(2, 7), slice(0, 14), slice(3, 11))
    assert np.allclose(zoom.back(fine[zoom.source(region)], region), limited[region], atol=1e-3)


@given(st.tuples(*3 * [st.floats(1, 3)]), st.integers(0, 5), st.integers(1, 4))
def test_parts_equal_the_whole(factors: tuple[float, float, float], start: int, size: int) -> None:
    x = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    zoom = Zoom(SHAPE, factors)
    part = (slice(start, start + size),) * 3
    assert np.allclose(zoom.read(x, part), zoom.read(x, whole(zoom.network_shape))[part], atol=1e-6)
    y = np.random.default_rng(1).random(zoom.network_shape, dtype=np.float32)
    assert np.allclose(zoom.back(y[zoom.source(part)], part), zoom.back(y, whole(SHAPE))[part], atol=1e-6)


def test_factors_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Zoom(SHAPE, (0.5, 1.0, 1.0))
