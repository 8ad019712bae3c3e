"""Risk estimates: their expectation is the risk. Divergences: that of a matrix is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from invlearn.learning import (
    SURE,
    UNSURE,
    EquivariantImaging,
    MeasurementConsistency,
    robust_equivariant_imaging,
)
from invlearn.learning.sure import divergence, second_derivatives
from invlearn.physics import (
    Dense,
    Fourier,
    GaussianNoise,
    Noise,
    OperatorFamily,
    PoissonGaussianNoise,
    PoissonNoise,
    identity,
)
from invlearn.physics.groups import Rotations90

N = 20_000


def matrix(m: int, complex: bool, seed: int = 0) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(m, m, generator=Generator().manual_seed(seed), dtype=dtype) / m**0.5


def within(samples: Tensor, expected: float, sds: float = 4.0) -> bool:
    """Whether the mean of samples agrees with its expectation."""
    return abs(samples.mean().item() - expected) < sds * samples.std().item() / len(samples) ** 0.5


@pytest.mark.parametrize("complex", [False, True])
def test_divergence_of_a_matrix(batch_of: Any, complex: bool) -> None:
    H = matrix(4, complex)
    weight = torch.rand(4, generator=Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randn(N, 4, generator=Generator().manual_seed(2), dtype=H.dtype)
    batch = batch_of(lambda y, A: y @ H.T, identity((4,), complex), y)
    assert divergence(batch, None).item() == pytest.approx(H.diagonal().real.mean().item(), abs=0.02)
    expected = (weight * H.diagonal().real).mean().item()
    assert divergence(batch, None, weight).item() == pytest.approx(expected, abs=0.02)


def test_one_probe_gives_a_diagonal_exactly(batch_of: Any) -> None:
    d = torch.tensor([0.5, -2.0, 3.0j], dtype=torch.complex128)
    y = torch.randn(1, 3, generator=Generator().manual_seed(0), dtype=torch.complex128)
    batch = batch_of(lambda y, A: d * y, identity((3,), True), y)
    assert divergence(batch, None).item() == pytest.approx(d.real.mean().item(), rel=1e-8)


def test_conjugation_has_no_divergence(batch_of: Any) -> None:
    H = matrix(4, True)
    y = torch.randn(N, 4, generator=Generator().manual_seed(2), dtype=H.dtype)
    batch = batch_of(lambda y, A: y.conj() @ H.T, identity((4,), True), y)
    assert divergence(batch, None).item() == pytest.approx(0, abs=0.02)


def test_second_derivatives_of_a_quadratic(batch_of: Any) -> None:
    Q = torch.randn(4, 4, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    y = torch.randn(200_000, 4, generator=Generator().manual_seed(1), dtype=torch.float64)
    batch = batch_of(
        lambda y, A: torch.einsum("ijk,nj,nk->ni", Q, y, y), identity((4,)), y.new_zeros(y.shape)
    )
    exact = (weight * 2 * torch.einsum("iii->i", Q)).mean().item()
    assert second_derivatives(batch, 1.0, weight).item() == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("complex", [False, True])
def test_sure_is_the_risk_of_a_linear_estimator(batch_of: Any, complex: bool) -> None:
    # E‖H y - u‖²/m = ‖(H - 1) u‖²/m + sd² ‖H‖_F²/m, with H = A B for the reconstruction x = B y
    A = Dense(matrix(4, complex, 1))
    B = matrix(4, complex, 2)
    H = A.matrix @ B
    u = A(torch.randn(4, generator=Generator().manual_seed(3), dtype=A.matrix.dtype))
    sd = 0.7
    risk = ((H @ u - u).abs().square().sum() + sd**2 * H.abs().square().sum()).item() / 4
    g = Generator().manual_seed(4)
    y = GaussianNoise(sd)(u.expand(N, 4), g)
    estimates = torch.stack(
        [
            SURE(GaussianNoise(sd))(batch_of(lambda y, A: y @ B.T, A, part, seed=i))
            for i, part in enumerate(y.split(50))
        ]
    )
    assert within(estimates, risk)
    assert not within(estimates, 1.05 * risk)


def quadratic(y: Tensor, A: Any) -> Tensor:
    return 0.08 * y.square() + 0.5 * y


def linear(y: Tensor, A: Any) -> Tensor:
    return 0.6 * y + 0.2


@pytest.mark.parametrize(
    ("noise", "model", "second_order", "unbiased"),
    [
        (PoissonNoise(0.5), linear, False, True),
        (PoissonGaussianNoise(0.5, 0.6), linear, False, True),
        (PoissonNoise(0.5), quadratic, False, False),
        (PoissonNoise(0.5), quadratic, True, True),
        (PoissonGaussianNoise(0.5, 0.6), quadratic, False, False),
        (PoissonGaussianNoise(0.5, 0.6), quadratic, True, True),
    ],
)
def test_sure_for_counts(batch_of: Any, noise: Noise, model: Any, second_order: bool, unbiased: bool) -> None:
    u = torch.full((400_000, 1), 1.5, dtype=torch.float64)
    y = noise(u, Generator().manual_seed(0))
    loss = SURE(noise, second_order=second_order, step=1.0)
    differences = torch.stack(
        [
            loss(batch_of(model, identity((1,)), part, seed=i)) - (model(part, None) - 1.5).square().mean()
            for i, part in enumerate(y.split(1000))
        ]
    )
    assert within(differences, 0.0) == unbiased


def test_the_second_order_term_is_subtracted(batch_of: Any) -> None:
    # exactly, by enumerating counts: E[u h(y)] against the expansion, for h = y²
    gain, u = 0.5, 1.5
    counts = torch.arange(60, dtype=torch.float64)
    law = torch.exp(counts * math.log(u / gain) - u / gain - torch.lgamma(counts + 1))
    y = gain * counts
    risk = (law * (y**2 - u).square()).sum().item()
    first = (law * ((y**2 - y).square() - gain * y + 2 * gain * y * 2 * y)).sum().item()
    bend = gain * (law * gain * y * 2).sum().item()
    assert first - bend == pytest.approx(risk, rel=1e-10)
    assert abs(first + bend - risk) > 0.1


def test_the_step_of_the_differences_matters_only_for_curved_models(batch_of: Any) -> None:
    y = torch.randn(5, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    loss = [SURE(GaussianNoise(0.5), step=step) for step in (1e-3, 1.0)]
    straight, curved = (
        [float(one(batch_of(model, identity((3,)), y))) for one in loss]
        for model in (linear, lambda y, A: y**3)
    )
    assert straight[0] == pytest.approx(straight[1], rel=1e-9)
    assert curved[0] != pytest.approx(curved[1], rel=1e-2)


class Diagonal(nn.Module):
    """A gain an entry."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(m, dtype=torch.float64))

    def forward(self, y: Tensor, A: Any) -> Tensor:
        return self.gain * y


@pytest.mark.parametrize("complex", [False, True])
def test_unsure_finds_its_saddle_point(batch_of: Any, complex: bool) -> None:
    # for gains a_i and E|y_i|² = v_i: a_i = 1 - η/v_i with Σ a_i = 0, so η = m/Σ 1/v_i
    v = torch.tensor([0.25, 0.25, 0.25, 0.25, 2.0, 4.0], dtype=torch.float64)
    dtype = torch.complex128 if complex else torch.float64
    y = v.sqrt() * torch.randn(4000, 6, generator=Generator().manual_seed(0), dtype=dtype)
    v = y.abs().square().mean(0)
    expected = 6 / (1 / v).sum()
    model, s = Diagonal(6), nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    loss = UNSURE(start=1.0, rate=1.0)
    optimiser = torch.optim.Adam([model.gain, s], lr=0.05, betas=(0.5, 0.9))
    for i in range(500):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * 0.99**i
        batch = batch_of(model, identity((6,), complex), y, seed=i, learned={"UNSURE": s})
        optimiser.zero_grad()
        loss(batch).backward()
        optimiser.step()
    assert loss.level(s).item() == pytest.approx(expected.item(), rel=0.03)
    assert model.gain.detach() == pytest.approx((1 - expected / v).numpy(), abs=0.05)


def test_unsure_starts_where_it_is_told_and_moves_as_fast() -> None:
    assert UNSURE(0.3).level(torch.tensor(0.0)).item() == pytest.approx(0.09)
    assert UNSURE(0.3, rate=2.0).level(torch.tensor(1.0)).item() == pytest.approx(0.09 * math.exp(2))
    assert UNSURE(0.3).initial == {"UNSURE": 0.0}


@pytest.mark.parametrize(("gain", "moves"), [(0.5, False), (-0.5, True)])
def test_the_level_goes_no_further_up_than_the_power_of_the_measurements(
    batch_of: Any, gain: float, moves: bool
) -> None:
    y = torch.randn(50, 6, generator=Generator().manual_seed(0), dtype=torch.float64)
    power = y.square().mean().item()
    s = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))  # η = e³, far above
    loss = UNSURE(start=1.0, rate=1.0)
    batch = batch_of(lambda y, A: gain * y, identity((6,)), y, learned={"UNSURE": s})
    value = loss(batch)
    assert value.item() == pytest.approx(power * ((1 - gain) ** 2 + 2 * gain))  # the divergence is the gain
    if value.requires_grad:
        value.backward()
    found = 0.0 if s.grad is None else s.grad.item()
    assert found == (pytest.approx(-2 * gain * math.exp(3)) if moves else 0.0)  # descent: down, or not up


def test_robust_equivariant_imaging_is_a_sum() -> None:
    noise, group = GaussianNoise(0.1), Rotations90((3, 3))
    objective = robust_equivariant_imaging(noise, group, 2.0)
    assert objective == SURE(noise) + 2.0 * EquivariantImaging(group, noise)


def test_without_noise_sure_is_consistency(batch_of: Any) -> None:
    y = torch.randn(5, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    batch = batch_of(linear, identity((4,)), y)
    assert SURE(GaussianNoise(0.0))(batch).item() == pytest.approx(MeasurementConsistency()(batch).item())


def test_bad_settings() -> None:
    class Other(Noise):
        def _draw(self, y: Tensor, generator: Generator) -> Tensor:
            return y

        def variance(self, y: Tensor) -> Tensor:
            return y

    with pytest.raises(ValueError, match="SURE knows GaussianNoise"):
        SURE(Other())
    with pytest.raises(ValueError, match="no second-order term"):
        SURE(GaussianNoise(0.1), second_order=True)
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="step of the finite differences"):
            SURE(GaussianNoise(0.1), step=step)
        with pytest.raises(ValueError, match="step of the finite differences"):
            UNSURE(0.1, step=step)
    with pytest.raises(ValueError, match="start must be positive"):
        UNSURE(0.0)
    with pytest.raises(ValueError, match="rate must be positive"):
        UNSURE(1.0, rate=-1.0)
    with pytest.raises(ValueError, match="counts are real"):
        SURE(PoissonNoise(1.0)).check(OperatorFamily([Fourier((4,))]))
