"""Families: the right operator for the right sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import Blur, Dense, Mask, OperatorFamily, Space, identity
from invlearn.physics.linear.dense import Dense as DenseClass


def gaussian_family(count=3, m=4, n=6):
    g = torch.Generator().manual_seed(0)
    return OperatorFamily.from_matrices(torch.randn(count, m, n, dtype=torch.float64, generator=g))


@given(index=st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_each_sample_by_its_operator(index):
    family = gaussian_family()
    x = torch.randn(len(index), 6, dtype=torch.float64)
    y = family(x, torch.tensor(index))
    assert_close(y, torch.stack([family[g](v) for g, v in zip(index, x, strict=True)]))
    back = family.adjoint(y, torch.tensor(index))
    assert_close(back, torch.stack([family[g].adjoint(v) for g, v in zip(index, y, strict=True)]))


def test_numpy_in_numpy_out():
    family = gaussian_family()
    x, index = np.random.default_rng(0).standard_normal((4, 6)), np.array([2, 0, 0, 1])
    y = family(x, index)
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, family(torch.tensor(x), torch.tensor(index)).numpy())
    assert isinstance(family.adjoint(y, index), np.ndarray)


def test_gradients_flow():
    family = gaussian_family()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 2, 1])
    y = family(x, index)
    y.backward(torch.ones_like(y))
    assert_close(x.grad, family.adjoint(torch.ones_like(y), index).detach())


def test_random_access_and_stack():
    family = gaussian_family()
    assert len(family) == 3 == len(list(family))
    assert family.domain == Space((6,))
    assert_close(family.stack().to_dense(), torch.cat([op.to_dense() for op in family]))
    assert not family.structured
    assert OperatorFamily([Dense(torch.randn(2, 4)), identity((4,))]).structured


def test_constructors():
    masks = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    family = OperatorFamily.from_masks(masks)
    x = np.ones((4, 5))
    np.testing.assert_array_equal([a(x) for a in family], masks)
    assert OperatorFamily.from_masks(masks, complex=True).domain.complex
    kspace = OperatorFamily.from_kspace_masks(masks)
    assert kspace.domain == Space((4, 5), True)
    np.testing.assert_array_equal(np.fft.fftshift(kspace[1].spectrum().values), masks[1])
    images = OperatorFamily.from_matrices([np.ones((2, 20)), np.ones((3, 20))], shape=(4, 5))
    assert images.domain == Space((4, 5))
    assert isinstance(images[1], DenseClass)
    masks.flags.writeable = False
    assert len(OperatorFamily.from_masks(masks)) == 3


def test_saved_and_moved_as_a_module():
    family = gaussian_family()
    other = OperatorFamily.from_matrices(torch.zeros(3, 4, 6, dtype=torch.float64))
    other.load_state_dict(family.state_dict())
    assert_close(other.stack().to_dense(), family.stack().to_dense())
    assert next(iter(family.to("meta").buffers())).is_meta


def test_empty_and_mixed_families():
    with pytest.raises(ValueError, match="at least one operator"):
        OperatorFamily([])
    with pytest.raises(ValueError, match=r"mixed domains: operator 1 .*R\[5\].*R\[4\]"):
        OperatorFamily([identity((4,)), identity((5,))])
    with pytest.raises(ValueError, match="mixed domains"):
        OperatorFamily([identity((4,)), identity((4,), complex=True)])
    with pytest.raises(TypeError):
        OperatorFamily([torch.ones(3, 3)])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 3]), "out of range for 3"),
        (torch.tensor([-1, 0]), "out of range"),
        (torch.tensor([0]), r"shape \(2,\)"),
        (torch.tensor([[0], [1]]), r"shape \(2,\)"),
        (torch.tensor([0.0, 1.0]), "integers"),
        (torch.tensor([True, False]), "integers"),
    ],
)
def test_bad_index(index, message):
    with pytest.raises(ValueError, match=message):
        gaussian_family()(torch.ones(2, 6), index)


def test_bad_batches():
    family = gaussian_family()
    with pytest.raises(ValueError, match="at least one sample"):
        family(torch.ones(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="expects"):
        family(torch.ones(2, 7), torch.tensor([0, 1]))
    # one sample without its batch axis
    with pytest.raises(ValueError, match=r"acts on a batch \(N, 6\).*got \(6,\)"):
        family(torch.ones(6), torch.zeros(6, dtype=torch.int64))
    unequal = OperatorFamily([Mask(torch.ones(5)), Blur(torch.ones(2), (5,), "valid")])
    with pytest.raises(ValueError, match=r"codomains differ \(R\[4\], R\[5\]\)"):
        unequal(torch.ones(2, 5), torch.tensor([0, 1]))
    assert unequal.stack().codomain == Space((9,))
