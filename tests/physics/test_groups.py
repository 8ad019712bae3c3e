from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics.groups import Dihedral, Flips, Group, Permutations, Rotations90, Shifts, group_by_name

sides = st.integers(1, 6)
shapes = st.lists(sides, min_size=1, max_size=3).filter(lambda s: math.prod(s) <= 60).map(tuple)
squares = st.builds(lambda lead, n: (*lead, n, n), st.sampled_from([(), (1,), (2,)]), st.integers(2, 6))


# Groups are built inside the tests: a strategy may not run code checked by beartype, which draws
# from the `random` module.
Recipe = partial[Group]


@st.composite
def permutation_groups(draw: st.DrawFn) -> Recipe:
    n = draw(st.integers(1, 5))
    rows = draw(st.lists(st.permutations(range(n)), min_size=1, max_size=2))
    copies = draw(st.integers(1, 3))  # the same permutation of the rows of an (n, copies) image
    blocks = [[i * copies + j for i in row for j in range(copies)] for row in rows]
    return partial(Permutations, blocks, (n, copies))


recipes = st.one_of(
    st.builds(lambda shape, step: partial(Shifts, shape, step), shapes, st.integers(0, 4)),
    st.builds(lambda shape: partial(Rotations90, shape), squares),
    st.builds(lambda shape: partial(Flips, shape), shapes),
    st.builds(lambda shape: partial(Dihedral, shape), squares),
    permutation_groups(),
)


def stack_rank(group: Group, m: int) -> int:
    """Rank of [A T_1; ...; A T_|G|] for a random A of m rows, by dense linear algebra."""
    a = torch.randn(m, group.size, dtype=torch.float64, generator=torch.Generator().manual_seed(m))
    inverse = [group.permutation(group.inverse(g)) for g in range(group.order)]
    return int(torch.linalg.matrix_rank(torch.cat([a[:, p] for p in inverse])))


def symmetric_group(n: int, copies: int = 1) -> Permutations:
    index = np.arange(n * copies).reshape(n, copies)
    swap, cycle = [1, 0, *range(2, n)], [*range(1, n), 0]
    return Permutations([index[swap].ravel(), index[cycle].ravel()], (n, copies))


# --- oracle: the smallest number of rows that a generic A needs, against dense ranks


@pytest.mark.parametrize(
    ("group", "order", "minimal", "largest"),
    [
        (Shifts((12,)), 12, 1, 1),
        (Shifts((12,), step=3), 4, 3, 3),
        (Rotations90((5, 5)), 4, 7, 7),
        (Rotations90((6, 6)), 4, 9, 9),
        (Rotations90((7, 7)), 4, 13, 13),
        (Flips((11,)), 2, 6, 6),
        (symmetric_group(5), 120, 1, 1),
        (symmetric_group(4, copies=3), 24, 3, 3),
    ],
    ids=lambda value: repr(value) if isinstance(value, Group) else "",
)
def test_minimal_measurements(group: Group, order: int, minimal: int, largest: int) -> None:
    assert group.order == order
    assert group.minimal_measurements() == minimal
    assert group.max_multiplicity() == largest
    assert stack_rank(group, minimal) == group.size
    if minimal > 1:
        assert stack_rank(group, minimal - 1) < group.size


def test_multiplicities_of_quarter_turns() -> None:
    group = Rotations90((5, 5))
    assert group.fixed_points().tolist() == [25, 1, 1, 1]
    assert [i.multiplicity for i in group.irreps()] == [7, 6, 6, 6]


def test_counting_by_the_order_alone_misleads() -> None:
    group = symmetric_group(4, copies=3)
    assert group.size / group.order == 0.5
    assert [(i.dimension, i.multiplicity) for i in group.irreps()] == [(1, 3), (3, 3)]


@pytest.mark.parametrize("shape", [(4, 4), (5, 5)])
def test_minimal_measurements_of_the_dihedral_group(shape: tuple[int, int]) -> None:
    group = Dihedral(shape)
    m = group.minimal_measurements()
    assert stack_rank(group, m) == group.size
    assert stack_rank(group, m - 1) < group.size


# --- oracle: the transforms of torch and numpy


def test_actions_are_the_usual_transforms() -> None:
    x = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    assert np.array_equal(Shifts((2, 3, 3))(x, 1 * 9 + 2 * 3 + 1), np.roll(x, (1, 2, 1), (0, 1, 2)))
    assert np.array_equal(Rotations90((2, 3, 3))(x, 3), np.rot90(x, 3, (1, 2)))
    assert np.array_equal(Flips((2, 3, 3))(x, 5), np.flip(x, (0, 2)))
    assert np.array_equal(Dihedral((2, 3, 3))(x, 5), np.rot90(np.flip(x, 2), 1, (1, 2)))


def test_step_restricts_shifts() -> None:
    group = Shifts((12, 5, 4), step=(8, 1, 0))
    assert group.steps == (4, 1, 4)
    assert group.order == 3 * 5
    x = torch.arange(240).reshape(12, 5, 4)
    assert torch.equal(group(x, group.generators[0]), torch.roll(x, 4, 0))
    assert {int(group(x, g)[0, 0, 0]) % 4 for g in range(group.order)} == {0}
    assert Shifts((6,), step=4).order == Shifts((6,), step=2).order == 3


@pytest.mark.parametrize(
    ("group", "cyclic"),
    [
        (Shifts((8,)), True),
        (Shifts((4, 9)), True),
        (Shifts((4, 6)), False),
        (Shifts((4, 6), step=(2, 2)), True),
        (Rotations90((4, 4)), True),
        (Flips((4, 1)), True),
        (Flips((4, 3)), False),
        (Dihedral((4, 4)), False),
        (Permutations([[1, 0, 2, 3, 4], [0, 1, 3, 4, 2]]), True),
        (Permutations([[1, 0, 2, 3], [0, 1, 3, 2]]), False),
        (symmetric_group(3), False),
    ],
    ids=repr,
)
def test_cyclic(group: Group, cyclic: bool) -> None:
    assert group.cyclic is cyclic

    def order(g: int) -> int:
        power, count = g, 1
        while power:
            power, count = group.compose(power, g), count + 1
        return count

    assert cyclic is any(order(g) == group.order for g in range(group.order))


# --- properties


@given(recipe=recipes, data=st.data())
def test_axioms_and_homomorphism(recipe: Recipe, data: st.DataObject) -> None:
    group = recipe()
    element = st.integers(0, group.order - 1)
    g, h, k = data.draw(element), data.draw(element), data.draw(element)
    assert group.compose(0, g) == group.compose(g, 0) == g
    assert group.compose(g, group.inverse(g)) == group.compose(group.inverse(g), g) == 0
    assert group.compose(group.compose(g, h), k) == group.compose(g, group.compose(h, k))
    x = torch.randn(2, *group.shape)
    assert torch.equal(group(group(x, h), g), group(x, group.compose(g, h)))
    assert torch.equal(group(x, 0), x)
    p, q = group.permutation(g), group.permutation(h)
    assert torch.equal(q[p], group.permutation(group.compose(g, h)))
    assert torch.equal(group(x, g).flatten(1), x.flatten(1)[:, p])
    assert torch.equal(group.action(g)(x), group(x, g))
    assert torch.equal(group.action(g).adjoint(x), group(x, group.inverse(g)))


@given(recipe=recipes)
def test_elements_are_distinct_and_generated(recipe: Recipe) -> None:
    group = recipe()
    assert len({tuple(group.permutation(g).tolist()) for g in range(group.order)}) == group.order
    reached, queue = {0}, [0]
    for g in queue:
        for s in group.generators:
            if (product := group.compose(g, s)) not in reached:
                reached.add(product)
                queue.append(product)
    assert len(reached) == group.order


@given(recipe=recipes)
def test_counting(recipe: Recipe) -> None:
    group = recipe()
    fixed = group.fixed_points()
    entries = torch.arange(group.size)
    assert fixed.tolist() == [int((group.permutation(g) == entries).sum()) for g in range(group.order)]
    irreps = group.irreps()
    assert sum(i.dimension * i.multiplicity for i in irreps) == group.size
    assert all(i.multiplicity >= 1 and group.order % i.dimension == 0 for i in irreps)
    assert len({i.label for i in irreps}) == len(irreps)
    orbits = group.orbits()
    assert int(fixed.sum()) == group.order * (int(orbits.max()) + 1)  # Burnside
    assert irreps[0].dimension == 1  # the trivial irrep comes first, one copy an orbit
    assert irreps[0].multiplicity == int(orbits.max()) + 1
    assert int((fixed**2).sum()) == group.order * sum(i.multiplicity**2 for i in irreps)
    assert group.minimal_measurements() >= group.size / group.order
    for g in range(min(group.order, 6)):
        assert torch.equal(orbits[group.permutation(g)], orbits)


@given(recipe=recipes, data=st.data())
def test_frequencies_move_as_said(recipe: Recipe, data: st.DataObject) -> None:
    group = recipe()
    g = data.draw(st.integers(0, group.order - 1))
    f = group.fourier_permutation(g)
    axes = tuple(range(-len(group.shape), 0))
    generator = torch.Generator().manual_seed(g)
    x = torch.randn(group.shape, dtype=torch.complex128, generator=generator)
    before = torch.fft.fftn(x, dim=axes).abs().square().flatten()
    after = torch.fft.fftn(group(x, g), dim=axes).abs().square().flatten()
    if f is None:
        assert isinstance(group, Permutations)
        assert not torch.allclose(before.sort().values, after.sort().values)
    else:
        assert sorted(f.tolist()) == list(range(group.size))
        assert int(f[0]) == 0
        torch.testing.assert_close(after, before[f])


@pytest.mark.parametrize("side", [5, 6])
def test_frequencies_of_real_images_under_quarter_turns(side: int) -> None:
    x = torch.randn(side, side, dtype=torch.float64)
    group = Dihedral((side, side))
    frequencies = torch.fft.fftfreq(side) * side
    for g in range(8):
        f = group.fourier_permutation(g)
        assert f is not None
        power = torch.fft.fft2(group(x, g)).abs().square().flatten()
        torch.testing.assert_close(power, torch.fft.fft2(x).abs().square().flatten()[f])
        row, column = frequencies[f // side].abs(), frequencies[f % side].abs()
        mine = torch.arange(side * side)
        radius = frequencies[mine // side].square() + frequencies[mine % side].square()
        assert torch.equal(row.square() + column.square(), radius)  # turns and flips keep |k|


def test_shifts_leave_frequencies_by_the_general_rule_too() -> None:
    group = Shifts((4, 5))
    same = Permutations([group.permutation(g) for g in group.generators], group.shape)
    for g in range(same.order):
        assert torch.equal(same.fourier_permutation(g), torch.arange(20))
        assert torch.equal(group.fourier_permutation(g), torch.arange(20))


@given(recipe=recipes, data=st.data())
def test_subset(recipe: Recipe, data: st.DataObject) -> None:
    group = recipe()
    count = data.draw(st.integers(1, group.order))
    chosen = group.subset(count, seed=3)
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen) == count
    assert set(chosen) <= set(range(group.order))
    assert chosen == group.subset(count, seed=3)


def test_subset_depends_on_the_seed() -> None:
    assert Shifts((64, 64)).subset(10, seed=0) != Shifts((64, 64)).subset(10, seed=1)


def test_a_large_shift_group_is_lazy() -> None:
    group = Shifts((512, 512))
    assert group.order == 512**2
    assert group.compose(group.order - 1, 513) == 0
    assert group.permutation(1)[:2].tolist() == [511, 0]
    assert len(group.subset(5, seed=0)) == 5
    assert int(group.fixed_points().sum()) == 512**2
    irreps = group.irreps()
    assert len(irreps) == 512**2
    assert group.minimal_measurements() == 1


# --- names and bad input


def test_no_such_shift() -> None:
    with pytest.raises(ValueError, match="has the elements 0 to 24, got 25"):
        Shifts((5, 5)).fourier_permutation(25)


@pytest.mark.parametrize("kind", [Shifts, Rotations90, Flips, Dihedral])
def test_by_name(kind: type[Group]) -> None:
    group = group_by_name(kind.name, (4, 4))
    assert type(group) is kind
    assert group.shape == (4, 4)
    assert group.exact


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(
        ValueError, match="no group 'rotation'; there are shifts, rotations90, flips, dihedral"
    ):
        group_by_name("rotation", (4, 4))


@pytest.mark.parametrize("kind", [Rotations90, Dihedral])
@pytest.mark.parametrize("shape", [(4, 5), (4,), (1, 1)])
def test_turns_need_squares(kind: type[Group], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be equal and at least 2, got shape .*; crop or pad"):
        group_by_name(kind.name, shape)


@pytest.mark.parametrize("kind", [Shifts, Flips, Rotations90, Dihedral])
def test_bad_shapes(kind: type[Group]) -> None:
    with pytest.raises(ValueError, match="at least one axis"):
        group_by_name(kind.name, ())
    with pytest.raises(ValueError, match="positive sizes"):
        group_by_name(kind.name, (4, 0))


@pytest.mark.parametrize("step", [-1, (1, 2, 3), (1, -2)])
def test_bad_steps(step: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one step >= 0, or one an axis"):
        Shifts((4, 4), step)
