"""Cavities: as by SciPy, whatever winds through the mask."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from invlearn.neuro.cavities import without_cavities


@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.95))
def test_as_scipy_fills_holes(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((7, 9, 8)) < density
    np.testing.assert_array_equal(without_cavities(mask), binary_fill_holes(mask))


def test_a_winding_tunnel_to_the_outside_stays_open() -> None:
    mask = np.ones((3, 15, 15), bool)
    for row in range(1, 14, 2):
        mask[1, row, 1:14] = False
        mask[1, row + 1, 13 if row % 4 == 1 else 1] = False
    np.testing.assert_array_equal(without_cavities(mask), mask)
    mask[1, 14] = True  # its only way out
    assert without_cavities(mask).all()
