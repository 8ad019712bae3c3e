"""The circulant matrix nearest to the normal operator, against its definition on dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.physics.linear import FiniteDifference
from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.physics.solvers import cg
from invlearn.unrolled import preconditioner as module
from invlearn.unrolled.preconditioner import Circulant

SHAPE, RANK, FRAMES = (5, 6), 2, 7


def scattered(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, dtype=torch.float64, generator=generator) - 0.5
    return points, torch.randint(FRAMES, (count,), generator=generator)


def random(*shape: int, dtype: torch.dtype = torch.complex64, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def operator(cplx: bool, coils: int) -> FingerprintOperator:
    points, frame = scattered()
    basis = torch.linalg.qr(random(FRAMES, RANK, dtype=torch.complex64 if cplx else torch.float32)).Q
    return FingerprintOperator(points, frame, basis, SHAPE, random(coils, *SHAPE) if coils else None)


def circulant(a: FingerprintOperator) -> Circulant:
    return Circulant(a.transfer(torch.float32), a.coil_maps, a.domain.shape[1:])


def nearest(dense: np.ndarray) -> np.ndarray:
    """The mean of the entries on each periodic diagonal, of `(K, H, W, K, H, W)`."""
    out = np.zeros_like(dense)
    height, width = SHAPE
    rows, columns = np.mgrid[:height, :width]
    for dy in range(height):
        for dx in range(width):
            to = (rows + dy) % height, (columns + dx) % width
            entries = dense[:, to[0], to[1], :, rows, columns]  # (H, W, K, K)
            out[:, to[0], to[1], :, rows, columns] = entries.mean((0, 1))
    return out


@pytest.mark.parametrize(("cplx", "coils"), [(False, 0), (False, 3), (True, 2)])
def test_it_inverts_the_nearest_circulant_matrix(cplx: bool, coils: int) -> None:
    a = operator(cplx, coils)
    units = torch.eye(RANK * 30, dtype=torch.complex64).reshape(-1, RANK, *SHAPE)
    dense = torch.stack([a.normal(u) for u in units], -1).reshape(RANK, *SHAPE, RANK, *SHAPE).numpy()
    matrix = nearest(dense).reshape(RANK * 30, -1)
    floor = module._FLOOR * np.trace(matrix).real / (RANK * 30)
    gradient = FiniteDifference((RANK, *SHAPE), axes=(-2, -1), complex=True)
    periodic = nearest_laplacian(gradient)
    for smoothing in (0.0, 3.0):
        x = random(RANK, *SHAPE, seed=4)
        system = matrix + floor * np.eye(RANK * 30) + smoothing * periodic
        expected = np.linalg.solve(system, x.reshape(-1).numpy()).reshape(x.shape)
        found = circulant(a).inverse(smoothing)(x).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def nearest_laplacian(gradient: FiniteDifference) -> np.ndarray:
    """∇ᴴ∇ with periodic borders, from the row of a voxel in the middle."""
    unit = torch.zeros(RANK, *SHAPE, dtype=torch.complex64)
    unit[0, 2, 3] = 1
    stencil = (gradient.H @ gradient)(unit)[0].numpy()
    out = np.zeros((RANK, *SHAPE, RANK, *SHAPE), np.complex64)
    for k in range(RANK):
        for y in range(SHAPE[0]):
            for x in range(SHAPE[1]):
                out[k, :, :, k, y, x] = np.roll(stencil, (y - 2, x - 3), (0, 1))
    return out.reshape(RANK * 30, -1)


def test_fewer_steps_where_the_middle_of_kspace_is_dense() -> None:
    shape, spokes, samples = (16, 16), 40, 32
    angle = np.pi * np.arange(spokes) * (np.sqrt(5) - 1) / 2
    radius = np.linspace(-0.5, 0.5, samples, endpoint=False)
    points = np.stack([np.outer(np.cos(angle), radius), np.outer(np.sin(angle), radius)], -1).reshape(-1, 2)
    basis = torch.linalg.qr(random(spokes, RANK, dtype=torch.float32)).Q
    frame = torch.arange(spokes).repeat_interleave(samples)
    a = FingerprintOperator(torch.from_numpy(points), frame, basis, shape, random(4, *shape) / 4 + 1)
    b = a.adjoint(a(random(RANK, *shape, seed=3)))
    plain = cg(a.H @ a, b, tolerance=1e-3, max_iterations=200, partial=True)
    fast = cg(a.H @ a, b, tolerance=1e-3, max_iterations=200, preconditioner=circulant(a).inverse())
    assert fast.converged
    assert fast.iterations < 0.7 * plain.iterations
