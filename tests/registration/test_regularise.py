"""Regularisers on fields whose derivatives are known."""

from __future__ import annotations

import pytest
import torch

from invlearn.registration.regularise import bending_energy, gradient_energy


def positions(*shape: int) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij"))


def test_gradient_energy_of_a_linear_field_is_its_slope() -> None:
    a = torch.tensor([[1.0, 2, 0], [0, 3, 0], [0.5, 0, 1]], dtype=torch.float64)
    u = torch.einsum("ij,jdhw->idhw", a, positions(5, 6, 7))
    assert float(gradient_energy(u)) == pytest.approx(float((a**2).sum() / 3))
    spacing = (2.0, 0.5, 1.0)
    scaled = a / torch.tensor(spacing, dtype=torch.float64)
    assert float(gradient_energy(u, spacing)) == pytest.approx(float((scaled**2).sum() / 3))
    assert float(bending_energy(u)) == pytest.approx(0, abs=1e-20)


def test_bending_energy_of_a_quadratic_field_is_its_curvature() -> None:
    z, y, x = positions(6, 7, 8)
    u = torch.stack([z * y, x**2, 0 * z])
    assert float(bending_energy(u)) == pytest.approx((2 * 1 + 4) / 3)
    assert float(bending_energy(u, (2.0, 1.0, 3.0))) == pytest.approx((2 * 0.25 + 4 / 81) / 3)


def test_translations_cost_nothing_and_batches_are_kept() -> None:
    u = torch.ones(2, 3, 4, 5, 6)
    assert torch.equal(gradient_energy(u), torch.zeros(2))
    assert torch.equal(bending_energy(u), torch.zeros(2))
    assert float(gradient_energy(torch.ones(3, 4, 4, 1))) == 0
    assert float(bending_energy(torch.ones(3, 2, 2, 1))) == 0
