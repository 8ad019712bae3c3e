"""Spaces: what they hold and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.io.tensors import as_tensor
from invlearn.physics.space import Space, as_numbers, as_zero_one, complex_dtype, real_dtype

SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


@given(shape=SHAPES, cplx=st.booleans(), batch=st.lists(st.integers(0, 3), max_size=2))
def test_flattening_round_trips(shape, cplx, batch):
    space = Space(shape, cplx)
    x = space.random(*batch, generator=torch.Generator().manual_seed(0))
    assert x.is_complex() == cplx
    assert space.batch_shape(x) == tuple(batch)
    flat = space.flatten(x)
    assert flat.shape == (*batch, space.size)
    assert torch.equal(space.unflatten(flat), x)
    real = space.to_real(x)
    assert real.shape == (*batch, space.size * (1 + cplx))
    assert torch.equal(space.from_real(real), x)
    assert_close(torch.linalg.vector_norm(real, dim=-1), space.norm(x))


@given(shape=SHAPES, cplx=st.booleans())
def test_inner_product(shape, cplx):
    space = Space(shape, cplx)
    g = torch.Generator().manual_seed(0)
    x, y = space.random(2, generator=g), space.random(2, generator=g)
    expected = [np.vdot(a, b) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(space.inner(x, y).numpy(), expected, atol=1e-12)
    assert_close(space.norm(x).square(), torch.real(space.inner(x, x)))


def test_random_is_seeded_and_circular():
    space = Space((50_000,), True)
    x, again = (space.random(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(x, again)
    assert abs(float(x.abs().square().mean()) - 1) < 0.03
    assert abs(complex(x.square().mean())) < 0.03


def test_precisions():
    assert complex_dtype(torch.float32) == torch.complex64 == complex_dtype(torch.complex64)
    assert real_dtype(torch.complex128) == torch.float64 == real_dtype(torch.float64)
    assert Space((2,), True).dtype(torch.float32) == torch.complex64
    assert Space((2,)).dtype(torch.complex128) == torch.float64
    assert Space((2,)).zeros(3, dtype=torch.float32).dtype == torch.float32


def test_equality_and_text():
    assert Space((2, 3)) == Space((2, 3))
    assert Space((2, 3)) != Space((3, 2))
    assert Space((2,)) != Space((2,), True)
    assert str(Space((2, 3), True)) == "C[2, 3]"
    assert len({Space((2,)), Space((2,))}) == 1


@pytest.mark.parametrize("shape", [(0,), (3, 0), (-1,)])
def test_empty_spaces_are_refused(shape):
    with pytest.raises(ValueError, match="positive sizes"):
        Space(shape)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "got list"),
        (torch.zeros(2, 3, dtype=torch.float16), TypeError, "convert first"),
        (torch.zeros(2, 3, dtype=torch.bfloat16), TypeError, "bfloat16"),
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(3, 2), ValueError, r"\(\*batch, 2, 3\), got \(3, 2\)"),
        (torch.zeros(3), ValueError, r"got \(3,\)"),
        (torch.zeros(()), ValueError, r"got \(\)"),
        (torch.zeros(5, 6), ValueError, "reshape"),
        (torch.zeros(2, 3, dtype=torch.complex64), ValueError, r"pass x\.real"),
    ],
)
def test_what_does_not_belong(x, error, message):
    with pytest.raises(error, match=message) as caught:
        Space((2, 3)).check(x, "the blur")
    assert str(caught.value).startswith("the blur")


def test_real_data_is_taken_as_complex():
    x = Space((2,), True).check(torch.ones(4, 2), "it")
    assert x.dtype == torch.complex64


def test_arrays_become_tensors():
    locked = np.arange(4.0)
    locked.flags.writeable = False
    for array in (
        locked,
        np.arange(4.0)[::-1],
        np.array(2.0),
        np.ones((2, 3)).T,
        np.broadcast_to(1.0, (2, 2)),
    ):
        x = as_tensor(array, "it")
        assert x.shape == array.shape
        np.testing.assert_array_equal(x.numpy(), array)
    with pytest.raises(TypeError, match="it expects a tensor or numpy array, got list"):
        as_tensor([1.0], "it")
    with pytest.raises(TypeError, match="convert with"):
        as_tensor(np.array([object()]), "it")


def test_numbers_and_masks():
    assert as_numbers(np.arange(3), "it").dtype == torch.float64
    assert as_numbers(torch.ones(2, dtype=torch.bool), "it").dtype == torch.float64
    with pytest.raises(ValueError, match="it has NaN"):
        as_numbers(torch.tensor([np.inf]), "it")
    with pytest.raises(TypeError, match="float16"):
        as_numbers(np.ones(2, dtype=np.float16), "it")
    assert as_zero_one(np.array([0, 1]), "it").tolist() == [False, True]
    with pytest.raises(ValueError, match="threshold"):
        as_zero_one(np.array([0, 2]), "it")
