"""Finite differences against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.physics import FiniteDifference, check_adjoint


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
    mode=st.sampled_from(["replicate", "circular"]),
)
def test_as_numpy(shape, data, mode):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    x = np.random.default_rng(0).standard_normal(shape)
    d = FiniteDifference(shape, axes, mode)
    for part, axis in zip(d(x), axes, strict=True):
        last = x.take([0 if mode == "circular" else -1], axis)
        np.testing.assert_allclose(part, np.diff(x, axis=axis, append=last), atol=1e-14)
    assert check_adjoint(d)


def test_constants_are_the_kernel():
    for mode in ("replicate", "circular"):
        singular = np.linalg.svd(FiniteDifference((3, 4), mode=mode).to_dense().numpy(), compute_uv=False)
        assert (singular > 1e-10).sum() == 11
        assert not FiniteDifference((3, 4), mode=mode)(np.ones((3, 4))).any()


def test_laplacian():
    d = FiniteDifference((6,), mode="circular")
    np.testing.assert_allclose(
        d.normal(np.eye(6)), 2 * np.eye(6) - np.roll(np.eye(6), 1, 0) - np.roll(np.eye(6), -1, 0)
    )


def test_axes_are_listed_first_and_ordered():
    x = np.random.default_rng(0).standard_normal((3, 4))
    both, swapped = FiniteDifference((3, 4))(x), FiniteDifference((3, 4), axes=(1, 0))(x)
    np.testing.assert_array_equal(both[::-1], swapped)
    assert FiniteDifference((3, 4), axes=1, complex=True).codomain.shape == (1, 3, 4)
    assert FiniteDifference((3, 4), complex=True).codomain.complex


def test_bad_input():
    with pytest.raises(ValueError, match="twice"):
        FiniteDifference((3, 4), axes=(0, 0))
    with pytest.raises(ValueError, match="do not name axes"):
        FiniteDifference((3, 4), axes=2)
    with pytest.raises((ValueError, TypeError), match="mode"):
        FiniteDifference((3, 4), mode="zero")
