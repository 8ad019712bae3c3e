from __future__ import annotations

import numpy as np
import pytest
import torch

from invlearn.physics.checks import check_adjoint
from invlearn.physics.linear.permutation import Permutation
from invlearn.physics.registry import example


def test_reorders_as_indexing_does() -> None:
    indices = torch.tensor([3, 0, 5, 1, 4, 2])
    x = torch.randn(4, 2, 3)
    out = Permutation(indices, (2, 3))(x)
    assert torch.equal(out.reshape(4, 6), x.reshape(4, 6)[:, indices])


def test_adjoint_is_the_inverse_to_the_bit() -> None:
    operator = example("permutation")
    x = operator.domain.random(3)
    assert torch.equal(operator.adjoint(operator(x)), x)
    assert torch.equal(operator(operator.adjoint(x)), x)
    assert torch.equal(operator.normal(x), x)
    assert check_adjoint(operator).passed


def test_complex_says_the_domain() -> None:
    operator = Permutation(torch.tensor([1, 0]), complex=True)
    assert operator.domain.complex
    x = torch.tensor([1j, 2.0])
    assert torch.equal(operator(x), x.flip(0))


def test_spectrum_is_flat() -> None:
    spectrum = example("permutation").spectrum()
    assert spectrum is not None
    assert torch.equal(spectrum.values, torch.ones(3, 5, dtype=torch.float64))


def test_keeps_its_own_copy() -> None:
    indices = np.array([1, 2, 0])
    operator = Permutation(indices)
    indices[:] = 0
    assert operator(torch.tensor([10.0, 20.0, 30.0])).tolist() == [20.0, 30.0, 10.0]


@pytest.mark.parametrize(
    ("indices", "shape", "error", "message"),
    [
        (np.array([0.0, 1.0]), None, TypeError, "integer"),
        (np.array([True, False]), None, TypeError, "integer"),
        (np.array([0, 1, 1]), None, ValueError, "index 1 occurs 2 times and 2 never"),
        (np.array([0, 3, 1]), None, ValueError, "from 0 to 2, got 0 to 3"),
        (np.array([0, -1, 1]), None, ValueError, "got -1 to 1"),
        (np.zeros((2, 2), dtype=int), None, ValueError, "flat array"),
        (np.zeros(0, dtype=int), None, ValueError, "flat array"),
        (np.arange(6), (2, 2), ValueError, "6 entries does not fit"),
    ],
)
def test_bad_indices(indices: np.ndarray, shape: tuple[int, ...] | None, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Permutation(indices, shape)
