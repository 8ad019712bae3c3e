"""Losses vanish where theory says, and measure what their formula says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning import (
    EquivariantImaging,
    MeasurementConsistency,
    MultiOperatorImaging,
    Supervised,
)
from invlearn.physics import (
    Blur,
    Dense,
    Fourier,
    GaussianNoise,
    LinearOperator,
    Mask,
    OperatorFamily,
    PoissonNoise,
)
from invlearn.physics.groups import Rotations90, Shifts

SHAPE = (4, 4)


def gaussian(count: int, m: int, complex: bool = False) -> OperatorFamily:
    dtype = torch.complex128 if complex else torch.float64
    matrices = torch.randn(count, m, 16, generator=Generator().manual_seed(0), dtype=dtype)
    return OperatorFamily.from_matrices(matrices, SHAPE)


def pseudo_inverse(y: Tensor, A: LinearOperator) -> Tensor:
    return A.domain.unflatten((torch.linalg.pinv(A.to_dense()) @ y[..., None])[..., 0])


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("complex", [False, True])
def test_supervised_and_consistency_are_mean_squares(batch_of: Any, complex: bool) -> None:
    A = gaussian(1, 3, complex)[0]
    dtype = A.domain.dtype(torch.float64)
    x, y = random(5, *SHAPE, dtype=dtype), random(5, 3, dtype=dtype, seed=2)
    batch = batch_of(lambda y, A: A.adjoint(y), A, y, truth=x)
    expected = (A.adjoint(y) - x).abs().square().sum() / (5 * 16)
    assert Supervised()(batch).item() == pytest.approx(expected.item(), rel=1e-12)
    expected = (A(A.adjoint(y)) - y).abs().square().sum() / (5 * 3)
    assert MeasurementConsistency()(batch).item() == pytest.approx(expected.item(), rel=1e-12)
    assert not MeasurementConsistency()(batch).is_complex()


@pytest.mark.parametrize("complex", [False, True])
def test_ei_vanishes_at_an_exact_reconstruction(batch_of: Any, complex: bool) -> None:
    loss = EquivariantImaging(Rotations90(SHAPE))
    A = gaussian(1, 20, complex)[0]
    y = A(random(6, *SHAPE, dtype=A.domain.dtype(torch.float64)))
    assert loss(batch_of(pseudo_inverse, A, y)).item() < 1e-20
    B = gaussian(1, 8, complex)[0]
    y = B(random(6, *SHAPE, dtype=B.domain.dtype(torch.float64)))
    assert loss(batch_of(pseudo_inverse, B, y)).item() > 0.05


def test_ei_is_the_mean_over_the_group(batch_of: Any) -> None:
    group, A = Rotations90(SHAPE), gaussian(1, 8)[0]
    y = random(2, 8)
    x1 = A.adjoint(y)
    moved = [group(x1, g) for g in (1, 2, 3)]
    expected = torch.stack([(A.adjoint(A(x)) - x).square().mean() for x in moved]).mean().item()
    loss = EquivariantImaging(group)
    copies = loss(batch_of(lambda y, A: A.adjoint(y), A, y.repeat(3000, 1)))
    assert copies.item() == pytest.approx(expected, rel=0.03)


def test_ei_is_blind_where_the_operator_commutes_with_the_group(batch_of: Any) -> None:
    # N3: what A⁺ returns lies in a set that is invariant already, the loss has nothing to say
    kept = (torch.fft.fftfreq(4).abs() < 0.3).double()
    A = Blur(torch.fft.fftshift(torch.fft.ifft2(torch.outer(kept, kept)).real), SHAPE)
    y = A(random(6, *SHAPE))
    assert EquivariantImaging(Shifts(SHAPE))(batch_of(lambda y, A: A.adjoint(y), A, y)).item() < 1e-20


@pytest.mark.parametrize("complex", [False, True])
def test_moi_vanishes_at_the_exact_reconstruction_of_a_subspace(batch_of: Any, complex: bool) -> None:
    family = gaussian(4, 6, complex)
    dtype = family.domain.dtype(torch.float64)
    U = torch.linalg.qr(random(16, 3, dtype=dtype)).Q

    def exact(y: Tensor, A: LinearOperator) -> Tensor:
        """U (A U)⁺ y, sample by sample."""
        columns = A.domain.unflatten(U.T)[:, None].expand(3, len(y), *SHAPE)
        AU = A(columns).permute(1, 2, 0)
        return A.domain.unflatten((U @ torch.linalg.pinv(AU) @ y[..., None])[..., 0])

    x = (U @ random(3, 9, dtype=dtype)).T.reshape(9, *SHAPE)
    index = torch.arange(9) % 4
    y = family(x, index)
    assert MultiOperatorImaging()(batch_of(exact, family, y, index)).item() < 1e-20
    assert MeasurementConsistency()(batch_of(exact, family, y, index)).item() < 1e-20

    def back(y: Tensor, A: LinearOperator) -> Tensor:
        return A.adjoint(y) / 16

    assert MultiOperatorImaging()(batch_of(back, family, y, index)).item() > 0.01


def test_moi_measures_with_another_operator_than_the_samples_own(batch_of: Any) -> None:
    family = OperatorFamily([Mask(torch.eye(3)[g]) for g in range(3)])
    seen = []

    def model(y: Tensor, A: LinearOperator) -> Tensor:
        seen.append(A(torch.ones(30, 3)))  # row i: which pixel the operator of sample i keeps
        return A.adjoint(y)

    index = torch.arange(30) % 3
    MultiOperatorImaging()(batch_of(model, family, torch.ones(30, 3) * torch.eye(3)[index], index))
    own, other = (row.argmax(1) for row in seen)
    assert torch.equal(own, index)
    assert not (other == own).any()
    assert len(set(((other - own) % 3).tolist())) == 2


def test_moi_with_codomains_that_differ_takes_one_operator_a_step(batch_of: Any) -> None:
    family = OperatorFamily([Dense(random(m, 16, seed=m), SHAPE) for m in (3, 5, 7)])
    y = random(1, 5)
    index = torch.tensor([1])
    for seed in range(4):
        found = MultiOperatorImaging()(
            batch_of(lambda y, A: A.adjoint(y), family, y, index, seed=seed)
        ).item()
        x1 = family[1].adjoint(y)
        expected = [(A.adjoint(A(x1)) - x1).square().mean().item() for A in (family[0], family[2])]
        assert any(found == pytest.approx(value, rel=1e-10) for value in expected)


@pytest.mark.parametrize(
    "kind", [lambda noise: EquivariantImaging(Rotations90(SHAPE), noise), MultiOperatorImaging]
)
def test_noise_on_virtual_measurements_adds_its_share(batch_of: Any, kind: Any) -> None:
    # f exact and linear with A⁺ = Aᴴ: the noise alone is left, sd² ‖A⁺‖_F²/n = sd²
    q = [torch.linalg.qr(random(16, 16, seed=s)).Q for s in (1, 2)]
    family = OperatorFamily.from_matrices(torch.stack(q), SHAPE)
    x = random(4000, *SHAPE)
    index = torch.arange(4000) % 2
    batch = batch_of(lambda y, A: A.adjoint(y), family, family(x, index), index)
    assert kind(GaussianNoise(0.3))(batch).item() == pytest.approx(0.09, rel=0.03)
    assert kind(GaussianNoise(0.0))(batch).item() < 1e-20


def test_counts_on_virtual_measurements_take_negative_ones_as_zero(batch_of: Any) -> None:
    A = Mask(torch.ones(SHAPE))
    x = -random(3, *SHAPE).abs()
    y = x.clone().requires_grad_()
    loss = EquivariantImaging(Rotations90(SHAPE), PoissonNoise(0.1))
    value = loss(batch_of(lambda y, A: y, A, y))
    assert value.item() == pytest.approx(x.square().mean().item(), rel=1e-9)  # no counts, no noise
    broken = loss(batch_of(lambda y, A: y * torch.nan, A, x))
    assert broken.isnan()  # for the trainer to see


def test_gradients_of_complex_losses(batch_of: Any) -> None:
    A = Fourier((4, 4)) @ Mask(torch.eye(4), complex=True)
    weight = torch.tensor(0.7 + 0.2j, dtype=torch.complex128, requires_grad=True)
    y = random(2, 4, 4, dtype=torch.complex128)
    objective = MeasurementConsistency() + EquivariantImaging(Shifts(SHAPE))

    def value(weight: Tensor) -> Tensor:
        return objective(batch_of(lambda y, A: weight * A.adjoint(y), A, y))["loss"]

    assert torch.autograd.gradcheck(value, (weight,))


def test_a_loss_that_needs_a_group_says_so() -> None:
    with pytest.raises(ValueError, match=r"EquivariantImaging needs a group, such as EquivariantImaging"):
        EquivariantImaging()
    with pytest.raises(ValueError, match="only the identity"):
        EquivariantImaging(Shifts((1, 1)))
    with pytest.raises(ValueError, match=r"acts on images of shape \(5, 5\)"):
        EquivariantImaging(Shifts((5, 5))).check(gaussian(1, 3))
    with pytest.raises(ValueError, match="learns from several operators, got one"):
        MultiOperatorImaging().check(gaussian(1, 3))
