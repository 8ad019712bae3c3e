"""Masks against multiplication."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics import Mask


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_multiplies(shape, seed):
    rng = np.random.default_rng(seed)
    keep, x = rng.random(shape) < 0.5, rng.standard_normal((2, *shape))
    for mask in (keep, keep.astype(int), keep.astype(np.float32), torch.from_numpy(keep)):
        a = Mask(mask)
        np.testing.assert_array_equal(a(x), x * keep)
        np.testing.assert_array_equal(a.normal(x), x * keep)
        np.testing.assert_array_equal(a.spectrum().values.numpy(), keep)


def test_complex_images():
    a = Mask([[1, 0]] @ np.eye(2), complex=True)
    assert a.domain.complex
    np.testing.assert_array_equal(a(np.array([[1j, 1.0]])), [[1j, 0]])


def test_mask_is_kept_at_its_own_time():
    keep = torch.tensor([True, False])
    a = Mask(keep)
    keep[:] = False
    assert a(torch.ones(2)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([0.5, 1.0]), "0 and 1"),
        (torch.tensor([float("nan"), 1.0]), "0 and 1"),
        (torch.tensor([2, 1]), "0 and 1"),
        (torch.ones(3, 0), "positive sizes"),
    ],
)
def test_bad_input(mask, message):
    with pytest.raises(ValueError, match=message):
        Mask(mask)


def test_no_broadcasting():
    with pytest.raises(ValueError, match=r"expects \(\*batch, 4, 4\), got \(4, 1\)"):
        Mask(torch.ones(4, 4))(torch.ones(4, 1))
