"""Noise laws: their first moments, and what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from invlearn.physics import GaussianNoise, PoissonGaussianNoise, PoissonNoise

N = 200_000
LAWS = [GaussianNoise(0.3), PoissonNoise(0.05), PoissonGaussianNoise(0.05, 0.3)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", LAWS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("level", [0.0, 0.2, 5.0])
def test_mean_and_variance(noise, level):
    y = torch.full((N,), level, dtype=torch.float64)
    error = noise(y, seeded()) - y
    variance = float(noise.variance(y)[0])
    # five standard errors; the fourth moment of these laws stays near 3 variance² + gain² variance
    fourth = 3 * variance**2 + 0.05**2 * variance
    assert abs(float(error.mean())) <= 5 * (variance / N) ** 0.5
    assert abs(float(error.square().mean()) - variance) <= 5 * (fourth / N) ** 0.5


def test_formulas():
    y = torch.tensor([0.0, 2.0])
    assert GaussianNoise(0.5).variance(y).tolist() == [0.25, 0.25]
    assert PoissonNoise(0.5).variance(y).tolist() == [0.0, 1.0]
    assert PoissonGaussianNoise(0.5, 2.0).variance(y).tolist() == [4.0, 5.0]
    assert GaussianNoise(0.5).variance(y + 1j).tolist() == [0.25, 0.25]


def test_counts_are_multiples_of_the_gain():
    counts = PoissonNoise(0.25)(torch.full((1000,), 3.0, dtype=torch.float64), seeded()) / 0.25
    assert torch.equal(counts, counts.round())


def test_complex_noise_is_circular():
    noise = GaussianNoise(2.0)(torch.zeros(N, dtype=torch.complex128), seeded())
    assert abs(float(noise.abs().square().mean()) - 4) < 0.05
    assert abs(complex(noise.square().mean())) < 0.05


@pytest.mark.parametrize("noise", LAWS, ids=lambda n: type(n).__name__)
def test_seeded_shape_and_dtype(noise):
    for dtype in (torch.float32, torch.float64):
        y = torch.rand(3, 4, dtype=dtype)
        y0 = y.clone()
        first, again, other = noise(y, seeded()), noise(y, seeded()), noise(y, seeded(1))
        assert (first.shape, first.dtype) == (y.shape, dtype)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(y, y0)
    array = noise(y.numpy(), seeded())
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, first.numpy())


def test_none_without_noise():
    y = torch.rand(5)
    assert torch.equal(GaussianNoise(0.0)(y, seeded()), y)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GaussianNoise(1.0).sd = 2.0
    assert GaussianNoise(1.0) == GaussianNoise(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-1.0), "sd must be finite and not negative"),
        (lambda: GaussianNoise(float("nan")), "sd must be finite"),
        (lambda: PoissonNoise(float("inf")), "gain must be finite"),
        (lambda: PoissonNoise(0.0), "gain must be above 0"),
        (lambda: PoissonGaussianNoise(0.1, -1.0), "sd must be finite"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("noise", "y", "error", "message"),
    [
        (LAWS[0], torch.tensor([float("nan")]), ValueError, "NaN"),
        (LAWS[0], torch.ones(2, dtype=torch.float16), TypeError, "float16"),
        (LAWS[0], [1.0], TypeError, "got list"),
        (LAWS[1], torch.tensor([-0.1]), ValueError, "cannot be negative, the smallest is -0.1"),
        (LAWS[1], torch.ones(2) + 1j, ValueError, "counts are real"),
        (LAWS[2], torch.tensor([-0.1]), ValueError, "PoissonGaussianNoise: a mean count"),
    ],
)
def test_bad_measurements(noise, y, error, message):
    with pytest.raises(error, match=message):
        noise(y, seeded())
