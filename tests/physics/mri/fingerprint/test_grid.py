from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics.mri import Grid


def test_default_covers_the_tissues():
    grid = Grid.logarithmic()
    assert 3000 < grid.size < 6000
    assert (float(grid.t1[0]), float(grid.t2[0])) == pytest.approx((0.1, 0.01))
    assert (float(grid.t1[-1]), float(grid.t2[-1])) == pytest.approx((5.0, 2.5))
    assert grid.b1.tolist() == [1.0]
    assert f"{grid.size} atoms" in repr(grid)


@given(step=st.floats(0.02, 0.5), low=st.floats(0.05, 0.5), ratio=st.floats(2, 20))
def test_neighbours_have_one_ratio(step, low, ratio):
    t1 = Grid.logarithmic((low, low * ratio), (0.01, low), step=step).t1
    ratios = t1[1:] / t1[:-1]
    assert_close(ratios, ratios[:1].expand_as(ratios))
    assert 1 < float(ratios[0]) <= (1 + step) * (1 + 1e-9)


def test_atoms_are_the_combinations_with_t2_up_to_t1():
    grid = Grid([0.5, 1.0, 2.0], [0.1, 0.5, 1.0], b1=[0.9, 1.1])
    assert grid.physical.tolist() == [[True, True, False], [True, True, True], [True, True, True]]
    assert grid.size == 2 * 8
    assert grid.corners.all()  # the cell T1 0.5..1, T2 0.5..1 has points with T2 < T1


@given(step=st.floats(0.05, 0.8), start=st.floats(0.011, 0.4))
def test_every_point_with_t2_up_to_t1_lies_in_a_whole_cell(step, start):
    grid = Grid.logarithmic((0.1, 3.0), (start, 2.9), step=step)
    cells = grid.corners[:-1, :-1] & grid.corners[1:, :-1] & grid.corners[:-1, 1:] & grid.corners[1:, 1:]
    for t1 in np.geomspace(0.1, 2.999, 13):
        for t2 in np.geomspace(start * 1.001, 2.899, 11):
            if t2 <= t1:
                i = int(torch.searchsorted(grid.t1, t1, right=True)) - 1
                j = int(torch.searchsorted(grid.t2, t2)) - 1
                assert cells[i, j]


NAN = math.nan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-0.1, 1.0], [0.1, 0.2]), "t1 must be positive and increasing"),
        (([1.0, 0.5], [0.1, 0.2]), "t1 must be positive and increasing"),
        (([0.5, 1.0], [0.0, 0.2]), "t2 must be positive and increasing"),
        (([0.5, 1.0], [0.1, NAN]), "t2 has NaN"),
        (([0.5], [0.1, 0.2]), "t1 must list at least 2 values"),
        (([0.05, 0.1], [0.2, 0.5]), "T2 > T1 is no tissue"),
        (([0.5, 1.0], [0.2, 1.5]), "T2 > T1 is no tissue"),
        (([0.5, 1.0], [0.1, 0.2], [-1.0]), "b1 must be positive"),
        (([0.5, 1.0], [0.1, 0.2], []), "b1 must list at least 1"),
        ((np.ones((1, 2)), [0.1, 0.2]), "t1 must list"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step must be a fraction"),
        ({"t1": (-1.0, 2.0)}, "t1 must run from a positive"),
        ({"t2": (0.5, 0.1)}, "t2 must run from a positive"),
        ({"t2": (0.5, math.inf)}, "t2 must run from a positive"),
    ],
)
def test_bad_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid.logarithmic(**arguments)


def test_arguments_matter():
    assert float(Grid.logarithmic(t1=(0.2, 5.0)).t1[0]) == pytest.approx(0.2)
    assert float(Grid.logarithmic(t2=(0.01, 1.0)).t2[-1]) == pytest.approx(1.0)
    assert Grid.logarithmic(step=0.029).size > 3 * Grid.logarithmic().size
    assert Grid.logarithmic(b1=[0.9, 1.0]).size == 2 * Grid.logarithmic().size
