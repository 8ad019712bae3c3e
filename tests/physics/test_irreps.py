from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics.groups import Dihedral, Flips, Group, Permutations, Rotations90, Shifts
from invlearn.physics.irreps import (
    Irrep,
    abelian_irreps,
    dihedral_irreps,
    isotypic_split,
    regular_irreps,
    split_irreps,
)


def sizes(irreps: Sequence[Irrep]) -> Counter[tuple[int, int]]:
    return Counter((i.dimension, i.multiplicity) for i in irreps)


def moves(group: Group) -> np.ndarray:
    rows = [group.permutation(g).numpy() for g in group.generators]
    return np.array(rows, dtype=np.int64).reshape(-1, group.size)


def cayley(group: Group) -> np.ndarray:
    elements = range(group.order)
    return np.array([[group.compose(h, g) for h in elements] for g in elements])


@pytest.mark.parametrize(
    "group",
    [
        Shifts((12,)),
        Shifts((12,), step=3),
        Shifts((4, 6), step=(2, 1)),
        Shifts((1,)),
        Flips((3, 4, 1)),
        Flips((3, 3, 3)),
        Rotations90((5, 5)),
        Rotations90((2, 4, 4)),
        Dihedral((2, 2)),
        Dihedral((4, 4)),
        Dihedral((5, 5)),
        Dihedral((2, 3, 3)),
    ],
    ids=repr,
)
def test_the_three_methods_agree(group: Group) -> None:
    closed_form = group.irreps()
    assert sizes(split_irreps(moves(group))) == sizes(closed_form)
    by_characters = regular_irreps(cayley(group), group.generators, group.fixed_points())
    assert sizes(by_characters) == sizes(closed_form)


@given(
    n=st.integers(1, 6),
    data=st.data(),
)
def test_splitting_and_characters_agree_on_any_group(n: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.permutations(range(n)), min_size=1, max_size=2))
    group = Permutations(rows)
    if group.order > 200:
        group = Permutations(rows[:1])
    by_characters = regular_irreps(cayley(group), group.generators, group.fixed_points())
    assert by_characters == split_irreps(moves(group))


def test_abelian_labels_name_the_frequency() -> None:
    # flips of a 3 x 2 image: an antisymmetric image has less room along the axis of length 3
    found = abelian_irreps((2, 2), Flips((3, 2)).fixed_points())
    assert [(i.label, i.multiplicity) for i in found] == [
        ("frequency (0, 0)", 2),
        ("frequency (0, 1)", 2),
        ("frequency (1, 0)", 1),
        ("frequency (1, 1)", 1),
    ]


def test_dihedral_labels_follow_the_table() -> None:
    # the corners of a square: A1, one diagonal form, and the plane itself
    found = dihedral_irreps(Dihedral((2, 2)).fixed_points())
    assert [(i.label, i.dimension, i.multiplicity) for i in found] == [
        ("A1", 1, 1),
        ("B2", 1, 1),
        ("E", 2, 1),
    ]
    # the entry products u*v and u^2 - v^2 on a grid around the centre transform as B2 and B1
    group, side = Dihedral((5, 5)), torch.arange(-2, 3)
    product, difference = side[:, None] * side, side[:, None] ** 2 - side**2
    for g, (b1, b2) in {1: (-1, -1), 4: (1, -1), 5: (-1, 1)}.items():
        assert torch.equal(group(difference, g), b1 * difference)
        assert torch.equal(group(product, g), b2 * product)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_isotypic_bases_are_invariant_and_orthonormal(n: int) -> None:
    index = np.arange(2 * n).reshape(n, 2)
    generators = np.array([index[[1, 0, *range(2, n)]].ravel(), index[[*range(1, n), 0]].ravel()])
    kinds = isotypic_split(generators)
    assert sorted((k.dimension, k.copies) for k in kinds) == [(1, 2), (n - 1, 2)]
    for kind in kinds:
        basis = kind.basis
        assert np.allclose(basis.conj().T @ basis, np.eye(kind.dimension))
        for p in generators:
            moved = basis[p]
            assert np.allclose(basis @ (basis.conj().T @ moved), moved)


def test_isotypic_split_depends_on_the_seed_only_in_its_basis() -> None:
    generators = np.array([[1, 2, 3, 4, 0]])
    first, again, other = (isotypic_split(generators, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.basis, b.basis) for a, b in zip(first, again, strict=True))
    assert len(first) == len(other) == 5
    assert not all(np.array_equal(a.basis, b.basis) for a, b in zip(first, other, strict=True))


def test_complex_characters_stay_apart() -> None:
    # over the reals, the two non-trivial characters of Z3 would merge into one plane
    assert sizes(split_irreps(np.array([[1, 2, 0]]))) == Counter({(1, 1): 3})


def test_all_irreps_of_the_symmetric_group() -> None:
    # S4 on itself: every irrep as often as its dimension
    group = Permutations([[1, 0, 2, 3], [1, 2, 3, 0]])
    table = cayley(group)
    found = split_irreps(table[list(group.generators)])
    assert sizes(found) == Counter({(1, 1): 2, (2, 2): 1, (3, 3): 2})
    assert found[0].label == "trivial"
    assert math.fsum(i.dimension**2 for i in found) == group.order


def test_a_split_that_cannot_be_resolved_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # without randomness the commuting matrix is no generic one, and the exact count shows it
    class Constant:
        def standard_normal(self, size: int) -> np.ndarray:
            return np.ones(size)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Constant())
    with pytest.raises(ArithmeticError, match="action on 4 entries failed"):
        isotypic_split(np.array([[1, 2, 3, 0]]))
