"""The Wiener estimate beside the matrix that it inverts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.unrolled.wiener import Wiener

SHAPE, K = (5, 6), 2


@dataclass(frozen=True)
class Scan:
    operator: FingerprintOperator

    @property
    def kernel(self) -> Tensor:
        return self.operator.transfer(torch.float32)

    @property
    def coil_maps(self) -> Tensor:
        maps = self.operator.coil_maps
        assert maps is not None
        return maps

    def normal(self, x: Tensor) -> Tensor:
        return self.operator.normal(x)


@pytest.fixture(scope="module")
def scan() -> Scan:
    g = torch.Generator().manual_seed(0)
    trajectory = torch.rand(90, 2, generator=g, dtype=torch.float64) - 0.5
    basis, _ = torch.linalg.qr(torch.randn(10, K, generator=g))
    maps = torch.randn(3, *SHAPE, generator=g, dtype=torch.complex64)
    operator = FingerprintOperator(trajectory, torch.arange(90) % 10, basis.to(torch.complex64), SHAPE, maps)
    return Scan(operator)


COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.2]])


def matrix(scan: Scan, variance: float) -> Tensor:
    """A^H A plus the precision of the prior, written out."""
    n = K * math.prod(SHAPE)
    unit = torch.eye(n, dtype=torch.complex64).reshape(n, K, *SHAPE)
    normal = torch.stack([scan.normal(e).flatten() for e in unit], 1)
    fy, fx = (torch.fft.fftfreq(s) for s in SHAPE)
    spectrum = 1 / (0.02**2 + fy[:, None] ** 2 + fx**2)
    inverse = torch.linalg.inv(COVARIANCE + 1e-4 * COVARIANCE.trace() / K * torch.eye(K)).to(torch.complex64)
    columns = []
    for e in unit:
        f = torch.fft.fftn(e, dim=(-2, -1)) * spectrum.mean() / spectrum
        columns.append(torch.fft.ifftn(torch.einsum("ab,bij->aij", inverse, f), dim=(-2, -1)).flatten())
    return normal + variance * torch.stack(columns, 1)


@pytest.mark.parametrize("variance", [0.0, 0.5, 20.0])
def test_many_steps_solve_the_system(scan: Scan, variance: float) -> None:
    b = torch.randn(K, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    found = Wiener(scan, COVARIANCE).correction(b, variance, 80).images
    exact = torch.linalg.solve(matrix(scan, variance), b.flatten()).reshape(b.shape)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=2e-3 * float(exact.abs().max()))


def test_the_normal_operator_of_the_correction_is_known(scan: Scan) -> None:
    b = torch.randn(K, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    found = Wiener(scan, COVARIANCE).correction(b, 0.5, 6)
    torch.testing.assert_close(found.normal, scan.normal(found.images), rtol=1e-4, atol=1e-4)


def test_more_steps_and_a_smaller_variance_come_nearer_to_the_data(scan: Scan) -> None:
    x = torch.randn(K, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    wiener, b = Wiener(scan, COVARIANCE), scan.normal(x)

    def misfit(variance: float, steps: int) -> float:
        return float(torch.linalg.vector_norm(scan.normal(wiener.correction(b, variance, steps).images) - b))

    assert misfit(0.0, 20) < misfit(0.0, 3) < misfit(0.0, 1)
    assert misfit(0.0, 20) < misfit(1.0, 20) < misfit(100.0, 20)


def test_what_tissues_never_do_is_not_believed(scan: Scan) -> None:
    rare = torch.diag(torch.tensor([1.0, 1e-3]))
    b = torch.ones(K, *SHAPE, dtype=torch.complex64)
    usual, found = (Wiener(scan, c).correction(b, 3.0, 40).images for c in (torch.eye(K), rare))
    share = [float(x[1].abs().square().sum() / x[0].abs().square().sum()) for x in (usual, found)]
    assert share[1] < 0.05 * share[0]


def test_nothing_comes_of_nothing(scan: Scan) -> None:
    zero = torch.zeros(K, *SHAPE, dtype=torch.complex64)
    assert not bool(Wiener(scan, COVARIANCE).correction(zero, 1.0, 5).images.any())
