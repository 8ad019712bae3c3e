"""The direct sum that every non-uniform transform is compared with."""

from __future__ import annotations

import math

import pytest
import torch


def _matrix(trajectory, shape):
    """exp(-2πi k·r), `(*T, M, pixels)`, r from the pixel N//2, x along the last axis; float64."""
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in shape]
    r = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2).flip(-1)
    return torch.exp(-2j * math.pi * (trajectory.to(torch.float64) @ r.T))


@pytest.fixture(scope="session")
def matrix():
    """matrix(trajectory, shape): the transform as a matrix."""
    return _matrix


@pytest.fixture
def direct():
    """direct(trajectory, x, shape): images to samples, exactly."""
    return lambda k, x, shape: (_matrix(k, shape) @ x.flatten(-len(shape))[..., None])[..., 0]


@pytest.fixture
def direct_adjoint():
    """direct_adjoint(trajectory, y, shape): samples to images, exactly."""
    return lambda k, y, shape: (_matrix(k, shape).mH @ y[..., None])[..., 0].unflatten(-1, shape)


@pytest.fixture
def points():
    """points(*size): a seeded uniform trajectory."""
    generator = torch.Generator().manual_seed(3)
    return lambda *size: torch.rand(*size, dtype=torch.float64, generator=generator) - 0.5


@pytest.fixture
def error():
    """Relative l2 error."""

    def relative(x, exact):
        return float((x.to(exact.dtype) - exact).norm() / exact.norm())

    return relative
