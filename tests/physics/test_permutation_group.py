from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics import permutation_group
from invlearn.physics.groups import Dihedral, Permutations, Shifts

SWAP, CYCLE = [1, 0, 2, 3], [1, 2, 3, 0]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_closure_is_the_symmetric_group(kind: Any) -> None:
    group = Permutations(kind([SWAP, CYCLE]))
    table = {tuple(group.permutation(g).tolist()) for g in range(group.order)}
    assert table == set(itertools.permutations(range(4)))
    assert group.shape == (4,)
    assert [group.permutation(g).tolist() for g in group.generators] == [SWAP, CYCLE]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_one_flat_generator(kind: Any) -> None:
    group = Permutations(kind(CYCLE), (2, 2))
    assert group.order == 4
    assert group.shape == (2, 2)
    assert group.cyclic


def test_trivial_and_repeated_generators_are_dropped() -> None:
    group = Permutations([[0, 1, 2, 3], CYCLE, CYCLE])
    assert len(group.generators) == 1
    assert Permutations([0, 1, 2]).order == 1
    assert Permutations([0, 1, 2]).generators == ()
    assert Permutations([0, 1, 2]).orbits().tolist() == [0, 1, 2]
    assert [(i.dimension, i.multiplicity) for i in Permutations([0, 1, 2]).irreps()] == [(1, 3)]


@given(rows=st.lists(st.permutations(range(5)), min_size=1, max_size=2), data=st.data())
def test_elements_give_the_group_back(rows: list[list[int]], data: st.DataObject) -> None:
    group = Permutations(rows)
    table = [group.permutation(g).tolist() for g in range(group.order)]
    shuffled = data.draw(st.permutations(table))
    again = Permutations.from_elements(shuffled)
    unit = shuffled.index(list(range(5)))
    numbered = [shuffled[unit], *shuffled[:unit], *shuffled[unit + 1 :]]
    assert [again.permutation(g).tolist() for g in range(again.order)] == numbered
    assert again.cyclic == group.cyclic
    assert again.irreps() == group.irreps()


def test_elements_take_a_shape() -> None:
    group = Permutations.from_elements([[0, 1, 2, 3], [3, 2, 1, 0]], (2, 2))
    assert torch.equal(group(torch.tensor([[1, 2], [3, 4]]), 1), torch.tensor([[4, 3], [2, 1]]))


def test_a_missing_product_is_named() -> None:
    rotations = Dihedral((3, 3))
    table = np.stack([rotations.permutation(g).numpy() for g in (0, 1, 2)])
    with pytest.raises(ValueError, match=r"not closed: the product of element 2 and element 1 is not among"):
        Permutations.from_elements(table)
    closed = np.concatenate([table, rotations.permutation(3).numpy()[None]])
    assert Permutations.from_elements(closed).order == 4


def test_elements_without_identity() -> None:
    with pytest.raises(ValueError, match="do not hold the identity"):
        Permutations.from_elements([CYCLE, SWAP])


def test_repeated_elements() -> None:
    with pytest.raises(ValueError, match="element 2 repeats element 1"):
        Permutations.from_elements([[0, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("generators", "shape", "error", "message"),
    [
        (
            [[0, 1, 2], [0, 2, 2]],
            None,
            ValueError,
            "generator 1 is not a permutation: index 2 occurs 2 times",
        ),
        ([[0, 1, 3]], None, ValueError, "generator 0 is not a permutation: it has 3 entries"),
        ([[0, 1, 2], [1, 0]], None, ValueError, r"generator 1 permutes 2 entries, images of shape \(3,\)"),
        ([[1, 0, 2]], (2, 2), ValueError, r"generator 0 permutes 3 entries, images of shape \(2, 2\) have 4"),
        ([[1, 0]], (), ValueError, "at least one axis"),
        ([[1.0, 0.0]], None, TypeError, "generator 0 must hold integer indices"),
        (np.zeros((2, 2, 2), dtype=int), None, ValueError, "flat array of n indices"),
        ([], None, ValueError, "at least one generator"),
        (np.zeros((0, 4), dtype=int), None, ValueError, "at least one generator"),
    ],
)
def test_bad_generators(generators: Any, shape: tuple[int, ...] | None, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Permutations(generators, shape)


def test_order_limit() -> None:
    with pytest.raises(
        ValueError, match=r"more than 23 elements .*; raise order_limit, or generate a smaller"
    ):
        Permutations([SWAP, CYCLE], order_limit=23)
    assert Permutations([SWAP, CYCLE], order_limit=24).order == 24


def test_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation_group, "_TABLE_LIMIT", 80)
    with pytest.raises(ValueError, match=r"more than 20 elements \(0 MB\); generate a smaller subgroup"):
        Permutations([SWAP, CYCLE])


def test_an_action_too_large_to_split() -> None:
    shifts = Shifts((1025,))
    group = Permutations(shifts.permutation(1))
    with pytest.raises(ValueError, match="order 1025 or its 1025 entries must be at most 1024; use Shifts"):
        group.irreps()
    assert group.order == shifts.order


def test_a_large_image_under_a_small_group() -> None:
    square = Dihedral((64, 64))  # 4096 entries: split by the characters of the 8 elements
    group = Permutations([square.permutation(g) for g in square.generators], square.shape)
    assert group.minimal_measurements() == square.minimal_measurements()
    assert sorted(i.multiplicity for i in group.irreps()) == sorted(i.multiplicity for i in square.irreps())


def test_pickle() -> None:
    group = Permutations([SWAP, CYCLE], (2, 2))
    again = pickle.loads(pickle.dumps(group))
    assert again.irreps() == group.irreps()
    assert [again.inverse(g) for g in range(24)] == [group.inverse(g) for g in range(24)]
