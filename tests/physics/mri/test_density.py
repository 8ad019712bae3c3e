"""Density compensation against grids and trajectories whose density is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri.density import pipe_menon
from invlearn.physics.nufft import NonUniformFFT


def radial(spokes, samples):
    angle = torch.arange(spokes, dtype=torch.float64) * math.pi / spokes
    r = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return r[None, :, None] * torch.stack([angle.cos(), angle.sin()], -1)[:, None]


def spiral(arms, samples):
    t = torch.linspace(0, 1, samples, dtype=torch.float64)
    angle = 2 * math.pi * (4 * t + torch.arange(arms)[:, None] / arms)
    return 0.5 * t[None, :, None] * torch.stack([angle.cos(), angle.sin()], -1)


@pytest.mark.parametrize("shape", [(9,), (8, 6), (4, 5, 6)])
def test_a_full_grid_has_equal_weights(shape):
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2).flip(-1)
    assert_close(
        pipe_menon(grid, shape) * math.prod(shape), torch.ones(len(grid)).double(), atol=1e-3, rtol=0
    )
    # every sample twice: half the weight each
    twice = pipe_menon(torch.cat([grid, grid]), shape)
    assert_close(2 * twice * math.prod(shape), torch.ones(2 * len(grid)).double(), atol=1e-3, rtol=0)


def test_spokes_are_weighted_by_their_distance():
    spokes, samples, n = 100, 60, 32
    k = radial(spokes, samples)
    weights = pipe_menon(k.flatten(0, 1), (n, n)).reshape(spokes, samples)
    # the area of k-space that belongs to a sample: a step along the spoke times an arc
    r = k[0].norm(dim=-1)
    inside = (r > 3 / n) & (r < 0.4)
    area = r * (math.pi / spokes) / samples
    ratio = weights[:, inside] / area[inside]
    assert float((ratio - 1).abs().max()) < 0.05


def test_the_weighted_adjoint_is_nearly_the_inverse():
    n = 32
    k = spiral(24, 400).flatten(0, 1)
    weights = pipe_menon(k, (n, n))
    assert bool((weights > 0).all())
    x = torch.zeros(n, n, dtype=torch.complex128)
    x[8:20, 10:24] = 1
    x[12:15, 4:20] += 0.5j
    transform = NonUniformFFT(k, (n, n))
    back = transform.adjoint(weights * transform(x))
    assert float((back - x).norm() / x.norm()) < 0.05
    plain = transform.adjoint(transform(x))
    plain = plain * (torch.vdot(plain.flatten(), x.flatten()) / plain.norm() ** 2)
    assert float((plain - x).norm() / x.norm()) > 0.2


def test_more_iterations_come_closer():
    n, k = 16, radial(30, 32).flatten(0, 1)
    psi = NonUniformFFT(k, (2 * n, 2 * n), eps=1e-9)
    r = 1 - (torch.arange(2 * n, dtype=torch.float64) - n).abs() / n

    def defect(weights):
        return float((psi(r[:, None] * r * psi.adjoint(weights)).abs() - 1).abs().mean())

    defects = [defect(pipe_menon(k, (n, n), iterations)) for iterations in (1, 5, 20)]
    assert defects == sorted(defects, reverse=True)
    assert defects[2] < 0.5 * defects[0]


def test_several_trajectories_numpy_and_backend():
    k = torch.stack([radial(6, 16).flatten(0, 1), spiral(6, 16).flatten(0, 1)])
    together = pipe_menon(k, (8, 8))
    assert together.shape == (2, 96)
    for part, alone in zip(together, k, strict=True):
        assert_close(pipe_menon(alone, (8, 8)), part)
    array = pipe_menon(k.numpy().astype(np.float32), (8, 8))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, together, rtol=2e-2, atol=1e-5)
    other = pipe_menon(k, (8, 8), backend="torch")
    assert not torch.equal(other, together)
    assert_close(other, together, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda k: pipe_menon(k, (8, 8), 0), ValueError, "iterations=0"),
        (lambda k: pipe_menon(k * 3, (8, 8)), ValueError, "outside"),
        (lambda k: pipe_menon(k, (8,)), ValueError, "1 axes"),
        (lambda k: pipe_menon(k.long(), (8, 8)), TypeError, "int64"),
        (lambda k: pipe_menon(k, (8, 8), backend="x"), ValueError, "no backend 'x'"),
    ],
)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call(radial(3, 8).flatten(0, 1))
