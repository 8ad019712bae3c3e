from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics.group import Group
from invlearn.physics.groups import Permutations, Rotations90
from invlearn.physics.space import Space


@pytest.fixture
def group() -> Group:
    return Rotations90((3, 3))


# --- how frequencies move, by the general rule


def affine(shape: tuple[int, ...], matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    grid = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape))
    return np.ravel_multi_index((matrix @ grid + offset[:, None]) % np.array(shape)[:, None], shape)


@given(
    n=st.integers(2, 6),
    shear=st.integers(0, 5),
    offset=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    transpose=st.booleans(),
)
def test_affine_maps_of_the_grid_move_frequencies(
    n: int, shear: int, offset: tuple[int, int], transpose: bool
) -> None:
    matrix = np.array([[1, shear], [0, 1]])
    p = affine((n, n), matrix[::-1] if transpose else matrix, np.array(offset))
    group = Permutations([p], (n, n))
    g = group.generators[0] if group.generators else 0
    f = group.fourier_permutation(g)
    assert f is not None
    x = np.random.default_rng(0).standard_normal((n, n))
    after = np.abs(np.fft.fft2(group(x, g))) ** 2
    np.testing.assert_allclose(after.ravel(), (np.abs(np.fft.fft2(x)) ** 2).ravel()[f.numpy()], atol=1e-10)


def test_unequal_sides_shear_where_periods_allow_it() -> None:
    # (u, v) -> (u, v + 3u) on 2 x 6: the period 2 of u divides that of its image
    p = affine((2, 6), np.array([[1, 0], [3, 1]]), np.array([1, 4]))
    f = Permutations([p], (2, 6)).fourier_permutation(1)
    assert f is not None
    x = np.random.default_rng(0).standard_normal((2, 6))
    before = np.abs(np.fft.fft2(x)).ravel()
    np.testing.assert_allclose(np.abs(np.fft.fft2(x.ravel()[p].reshape(2, 6))).ravel(), before[f.numpy()])


@pytest.mark.parametrize(
    "p",
    [
        [1, 0, 2, 3, 4],  # a swap
        [0, 1, 2, 4, 3],
    ],
)
def test_other_permutations_scatter_frequencies(p: list[int]) -> None:
    assert Permutations([p]).fourier_permutation(1) is None


def test_a_reordering_of_a_rectangle_scatters_frequencies() -> None:
    # row-major to column-major: u has the period 2 but its image the period 3
    p = np.arange(6).reshape(2, 3).T.ravel()
    assert Permutations([p], (2, 3)).fourier_permutation(1) is None


# --- the edges


def test_numpy_in_numpy_out(group: Group) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 3))
    x.flags.writeable = False
    out = group(x, 1)
    assert isinstance(out, np.ndarray)
    assert out.dtype == x.dtype
    assert np.array_equal(out, np.rot90(x, 1, (1, 2)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.complex128])
def test_any_dtype(group: Group, dtype: torch.dtype) -> None:
    x = torch.arange(9).reshape(3, 3).to(dtype)
    assert group(x, 1).dtype == dtype
    assert torch.equal(group(x, 2), x.flip(0, 1))


def test_the_result_has_its_own_memory(group: Group) -> None:
    x = torch.zeros(3, 3)
    group(x, 0).fill_(1)
    assert not x.any()


def test_complex_action(group: Group) -> None:
    operator = group.action(1, complex=True)
    assert operator.domain == Space((3, 3), complex=True)
    assert group.action(1).domain == Space((3, 3))


def test_wrong_shape(group: Group) -> None:
    with pytest.raises(ValueError, match=r"Rotations90\(\(3, 3\)\) acts on \(\*batch, 3, 3\), got \(3, 4\)"):
        group(torch.zeros(3, 4), 1)
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        group(torch.zeros(3), 1)


@pytest.mark.parametrize("g", [-1, 4])
def test_no_such_element(group: Group, g: int) -> None:
    for call in (group.permutation, group.inverse, group.action, group.fourier_permutation):
        with pytest.raises(ValueError, match=f"has the elements 0 to 3, got {g}"):
            call(g)
    with pytest.raises(ValueError, match=f"has the elements 0 to 3, got {g}"):
        group.compose(0, g)
    with pytest.raises(ValueError, match=f"has the elements 0 to 3, got {g}"):
        group(torch.zeros(3, 3), g)


@pytest.mark.parametrize("count", [0, 5])
def test_subset_of_an_impossible_size(group: Group, count: int) -> None:
    with pytest.raises(ValueError, match=f"has 4 elements, cannot choose {count}"):
        group.subset(count, seed=0)


def test_domain(group: Group) -> None:
    group.check_domain(Space((3, 3)))
    group.check_domain(Space((3, 3), complex=True))
    with pytest.raises(
        ValueError, match=r"images of shape \(3, 3\) but the signals have shape \(9,\); build"
    ):
        group.check_domain(Space((9,)))
