"""Planning formulas."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.identifiability import plan
from invlearn.identifiability.bounds import smallest_integer_above
from invlearn.physics.groups import Dihedral, Rotations90, Shifts


@given(st.integers(1, 400), st.data())
def test_smallest_m_and_smallest_number_of_operators(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    g = data.draw(st.integers(1, 60))
    m = data.draw(st.integers(1, n))
    found = plan(n, k, m=m, operators=g)
    enough = [i for i in range(1, n + 1) if i > 2 * k and i > k + Fraction(n, g)]
    assert found.minimal_m == (min(enough) if enough else n)
    assert found.minimal_m_subspace == math.ceil(k + Fraction(n - k, g))
    assert found.minimal_m_recovery == min(2 * k + 1, n)
    if m <= k:
        assert found.minimal_operators is None if m < n else True
    elif m < n:
        count = found.minimal_operators
        assert count is not None
        assert m > k + Fraction(n, count)
        assert count == 1 or m <= k + Fraction(n, count - 1)
    else:
        assert found.minimal_operators == 1


@pytest.mark.parametrize(("g", "curve"), [(40, 31.6), (20, 51.2), (10, 90.4)])
def test_mnist_curve(g: int, curve: float) -> None:
    assert 12 + 784 / g == pytest.approx(curve)
    assert plan(784, 12, operators=g).minimal_m == math.floor(curve) + 1


@pytest.mark.parametrize(
    ("n", "order", "k", "above"), [(20, 4, 1, 8), (20, 4, 2, 10), (20, 5, 2, 9), (18, 6, 1, 6)]
)
def test_cyclic_groups(n: int, order: int, k: int, above: int) -> None:
    found = plan(n, k, group=Shifts((n,), step=n // order))
    assert found.minimal_m == above + 1
    assert found.minimal_m_subspace == math.ceil(k + Fraction(n - k, order))


def test_groups_for_which_no_theorem_speaks() -> None:
    assert plan(36, 2, group=Dihedral((6, 6))).minimal_m is None
    assert plan(16, 2, group=Shifts((4, 4))).minimal_m is None  # a product of two, not cyclic
    assert plan(49, 2, group=Rotations90((7, 7))).minimal_m == 2 * 2 + 13 + 1 + 1
    assert plan(49, 20, group=Rotations90((7, 7))).minimal_m is None  # no m <= n


def test_expected_unseen() -> None:
    assert plan(1000, 3, operators=5, keep=0.3).expected_unseen == pytest.approx(1000 * 0.7**5)
    assert plan(16, 1, group=Rotations90((4, 4)), keep=0.5).expected_unseen == pytest.approx(1.0)
    assert plan(16, 1, keep=0.5).expected_unseen is None
    assert plan(16, 1, operators=2).expected_unseen is None


def test_to_dict() -> None:
    found = plan(100, 3, m=20, operators=10).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert {"minimal_m", "minimal_operators"} <= found.keys()
    assert plan(100, 3).minimal_m is None
    assert plan(100, 3).minimal_operators is None


def test_smallest_integer_above() -> None:
    assert [smallest_integer_above(x) for x in (2.0, 2.3, 2.999999999999, 31.6)] == [3, 3, 4, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 0}, "dimension"),
        ({"dimension": 11}, "dimension"),
        ({"dimension": 2, "m": 0}, "m must"),
        ({"dimension": 2, "m": 11}, "m must"),
        ({"dimension": 2, "operators": 0}, "at least one operator"),
        ({"dimension": 2, "keep": 1.5}, "kept fraction"),
    ],
)
def test_bad_input(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(10, **arguments)  # type: ignore[arg-type]
