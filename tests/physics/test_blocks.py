"""Stacks and block diagonals against matrices."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from invlearn.physics import Dense, Fourier, Mask, Space, block_diagonal, identity, stack
from invlearn.physics.mri import CartesianMRI


def matrices(*shapes):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=g) for s in shapes]


def test_stack_of_one_shape_has_a_new_axis():
    a, b = matrices((3, 4), (3, 4))
    s = stack([Dense(a), Dense(b)])
    assert s.codomain == Space((2, 3))
    assert_close(s.to_dense(), torch.cat([a, b]))
    x = torch.randn(5, 4, dtype=torch.float64)
    assert_close(s(x), torch.stack([x @ a.T, x @ b.T], 1))
    assert_close(s.normal(x), x @ (a.T @ a + b.T @ b))


def test_stack_of_unequal_shapes_is_flat():
    a, b = matrices((3, 4), (1, 4))
    s = stack([Dense(a), Dense(b)])
    assert s.codomain == Space((4,))
    assert_close(s.to_dense(), torch.cat([a, b]))
    assert_close(s.H.to_dense(), torch.cat([a, b]).T)


def test_block_diagonal():
    a, b = matrices((3, 4), (2, 5))
    d = block_diagonal([Dense(a), Dense(b)])
    assert (d.domain, d.codomain) == (Space((9,)), Space((5,)))
    assert_close(d.to_dense(), torch.block_diag(a, b))
    assert_close(d.H.to_dense(), torch.block_diag(a, b).T)
    square = block_diagonal([Dense(a), Dense(a)])
    assert (square.domain, square.codomain) == (Space((2, 4)), Space((2, 3)))


def test_spectra_add_up():
    m1, m2 = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0])
    assert stack([Mask(m1), Mask(m2)]).spectrum().values.tolist() == [2, 1, 1]
    k = stack([CartesianMRI(m1, centered=False), identity((3,), complex=True)]).spectrum()
    assert (k.basis, k.values.tolist()) == ("fourier", [2, 1, 2])
    assert stack([CartesianMRI(m1), Mask(m1, complex=True)]).spectrum() is None
    d = block_diagonal([Mask(m1), 2 * identity((3,))]).spectrum()
    assert d.values.tolist() == [[1, 0, 1], [4, 4, 4]]
    assert block_diagonal([CartesianMRI(m1), CartesianMRI(m2)]).spectrum() is None


@pytest.mark.parametrize("join", [stack, block_diagonal])
def test_bad_lists(join):
    with pytest.raises(ValueError, match="at least one operator"):
        join([])
    with pytest.raises(ValueError, match="real and complex"):
        join([identity((3,)), Fourier((3,), complex=False)])
    with pytest.raises(TypeError, match=r"linear operators, got Tensor|violat|type"):
        join([torch.ones(3, 3)])


def test_mixed_domains():
    with pytest.raises(ValueError, match=r"cannot stack.*R\[3\].*R\[4\]"):
        stack([identity((3,)), identity((4,))])
