"""Splitting: what the model sees and what it is tested on, and what that is worth on average."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning import Equivariant, EquivariantSplitting, Splitting
from invlearn.physics import Dense, LinearOperator, Mask, OperatorFamily
from invlearn.physics.groups import Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI

SHAPE = (3, 3)


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=dtype)


def pseudo_inverse(y: Tensor, A: LinearOperator) -> Tensor:
    return A.domain.unflatten((torch.linalg.pinv(A.to_dense()) @ y[..., None])[..., 0])


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_on_average_it_is_the_error_of_the_whole_measurement(batch_of: Any, keep: float) -> None:
    # a reconstruction that does not look: E‖A_b (x̂ - x)‖²/((1 - keep) m) = ‖A (x̂ - x)‖²/m
    A = Dense(random(40, 9), SHAPE)
    x, guess = random(2, *SHAPE, seed=2), random(2, *SHAPE, seed=3)
    loss = Splitting(keep=keep)
    found = [float(loss(batch_of(lambda y, A: guess, A, A(x), seed=i))) for i in range(400)]
    expected = A(guess - x).square().mean().item()
    assert sum(found) / 400 == pytest.approx(expected, rel=0.05)


def test_the_model_sees_a_part_with_its_operator_and_is_tested_on_the_rest(batch_of: Any) -> None:
    A = Dense(random(12, 9), SHAPE)
    x = random(4, *SHAPE, seed=2)
    seen = {}

    def model(y: Tensor, A_a: LinearOperator) -> Tensor:
        assert torch.allclose(A_a(x), y)
        seen["kept"] = (y != 0).all(0)
        return torch.zeros(4, *SHAPE, dtype=torch.float64)

    found = Splitting(keep=0.5)(batch_of(model, A, A(x))).item()
    assert 0 < seen["kept"].sum() < 12
    expected = (A(x) * ~seen["kept"]).square().mean() / 0.5
    assert found == pytest.approx(expected.item())


@pytest.mark.parametrize("keep", [1e-9, 1 - 1e-9])
def test_something_is_always_seen_and_something_tested(batch_of: Any, keep: float) -> None:
    A = Mask(torch.ones(3))
    counts = set()

    def model(y: Tensor, A_a: LinearOperator) -> Tensor:
        counts.add(int((y != 0).sum()))
        return torch.zeros_like(y)

    for seed in range(5):
        Splitting(keep=keep)(batch_of(model, A, torch.ones(1, 3), seed=seed))
    assert counts == ({1} if keep < 0.5 else {2})


def test_axes_are_kept_together(batch_of: Any) -> None:
    maps = random(2, 4, 5, dtype=torch.complex128)
    A = CartesianMRI(torch.ones(4, 5), maps)
    y = A(random(3, 4, 5, seed=2, dtype=torch.complex128))

    def model(y: Tensor, A_a: LinearOperator) -> Tensor:
        kept = y != 0  # (N, coils, rows, columns)
        assert (kept == kept[:1, :1, :1]).all()
        assert not kept.all()
        return A.adjoint(y)

    loss = Splitting(keep=0.5, shared_axes=(0, -2))
    loss.check(OperatorFamily([A]))
    assert loss(batch_of(model, A, y)).item() > 0


def test_the_centre_is_always_seen_and_the_rest_tested_as_before(batch_of: Any) -> None:
    # with nine entries kept for sure, E loss = the mean error of the other eleven
    A = Mask(torch.ones(4, 5))
    x, guess = random(2, 4, 5, seed=2), random(2, 4, 5, seed=3)
    centre = torch.zeros(4, 5, dtype=torch.bool)
    centre[1:4, 1:4] = True
    loss = Splitting(keep=0.4, centre=(3, 3))
    seen = []

    def model(y: Tensor, A_a: LinearOperator) -> Tensor:
        seen.append((y != 0).all(0))
        return guess

    found = [float(loss(batch_of(model, A, x, seed=i))) for i in range(600)]
    masks = torch.stack(seen)
    assert masks[:, centre].all()
    assert 0.35 < masks[:, ~centre].double().mean() < 0.45
    assert sum(found) / 600 == pytest.approx((guess - x)[:, ~centre].square().mean().item(), rel=0.05)


def test_a_centre_of_lines_shared_by_coils_and_readout(batch_of: Any) -> None:
    A = CartesianMRI(torch.ones(8, 6), random(2, 8, 6, dtype=torch.complex128))
    y = A(random(1, 8, 6, seed=2, dtype=torch.complex128))
    loss = Splitting(keep=0.2, shared_axes=(0, 2), centre=(4, 6))
    loss.check(OperatorFamily([A]))
    for seed in range(5):

        def model(y: Tensor, A_a: LinearOperator) -> Tensor:
            lines = (y != 0).all(-1)[0, 0]
            assert torch.equal(lines, (y != 0).any(-1).any(1)[0])
            assert lines[2:6].all()
            assert not lines.all()
            return A.adjoint(y)

        loss(batch_of(model, A, y, seed=seed))


def test_it_vanishes_where_the_part_determines_the_signal(batch_of: Any) -> None:
    A = Dense(random(60, 9), SHAPE)
    y = A(random(4, *SHAPE, seed=2))
    assert Splitting(keep=0.6)(batch_of(pseudo_inverse, A, y)).item() < 1e-20
    assert EquivariantSplitting(Shifts(SHAPE), keep=0.6)(batch_of(pseudo_inverse, A, y)).item() < 1e-20


def test_for_an_equivariant_reconstruction_moving_the_operator_changes_nothing(batch_of: Any) -> None:
    # A⁺ is one: T_g (A T_g)⁺ = A⁺
    A = Dense(random(8, 9), SHAPE)
    y = A(random(4, *SHAPE, seed=2))
    batches = [batch_of(pseudo_inverse, A, y, seed=3) for _ in range(2)]
    batches[1].integers(0, 4, 1)  # the draw of g, so that both see one mask
    plain = Splitting(keep=0.5)(batches[1]).item()
    assert plain > 0.1
    assert EquivariantSplitting(Rotations90(SHAPE), keep=0.5)(batches[0]).item() == pytest.approx(plain)


def test_a_model_that_is_not_equivariant_sees_the_moved_operator(batch_of: Any) -> None:
    A = Dense(random(8, 9), SHAPE)
    y = A(random(4, *SHAPE, seed=2))
    bias = random(*SHAPE, seed=4)
    batches = [batch_of(lambda y, A: A.adjoint(y) + bias, A, y, seed=s) for s in (3, 3)]
    batches[1].integers(0, 4, 1)
    moved = EquivariantSplitting(Rotations90(SHAPE), keep=0.5)(batches[0]).item()
    assert moved != pytest.approx(Splitting(keep=0.5)(batches[1]).item(), rel=1e-3)


@pytest.mark.parametrize("group", [Rotations90(SHAPE), Shifts(SHAPE)])
def test_the_average_over_the_group_is_equivariant(group: Any) -> None:
    A = Dense(random(8, 9), SHAPE)
    y = random(2, 8, seed=2)
    bias = random(*SHAPE, seed=4)

    def model(y: Tensor, A: LinearOperator) -> Tensor:
        return A.adjoint(y).relu() + bias

    average = Equivariant(model, group)
    h = 2
    moved = average(y, A @ group.action(h))
    assert torch.allclose(group(moved, h), average(y, A))
    assert not torch.allclose(group(model(y, A @ group.action(h)), h), model(y, A))
    few = Equivariant(model, group, elements=2, seed=5)
    assert len(few.elements) == 2
    assert not torch.allclose(few(y, A), average(y, A))
    expected = torch.stack([group(model(y, A @ group.action(g)), g) for g in few.elements]).mean(0)
    assert torch.allclose(few(y, A), expected)
    assert len({tuple(Equivariant(model, group, 2, seed).elements) for seed in range(9)}) > 1


@pytest.mark.parametrize("keep", [0.0, 1.0, -0.1, float("nan")])
def test_a_ratio_of_zero_or_one_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep must lie strictly between 0 and 1"):
        Splitting(keep=keep)
    with pytest.raises(ValueError, match="EquivariantSplitting: keep must"):
        EquivariantSplitting(Shifts(SHAPE), keep=keep)


def test_axes_that_do_not_fit_are_refused() -> None:
    family = OperatorFamily([CartesianMRI(torch.ones(4, 5), torch.ones(2, 4, 5))])
    with pytest.raises(ValueError, match="do not name axes"):
        Splitting(shared_axes=(3,)).check(family)
    with pytest.raises(ValueError, match="nothing is left to split"):
        Splitting(shared_axes=(0, 1, -1)).check(family)
    for centre in ((5, 6), (0, 2), (2, 2, 4, 5)):
        with pytest.raises(ValueError, match=r"no box .* fits into the last axes"):
            Splitting(centre=centre).check(family)
    for keyword in ({"centre": (2, 4, 5)}, {"centre": (4, 5), "shared_axes": (0,)}):
        with pytest.raises(ValueError, match="nothing is left to test on"):
            Splitting(**keyword).check(family)
    with pytest.raises(ValueError, match="EquivariantSplitting needs a group"):
        EquivariantSplitting()
    with pytest.raises(ValueError, match="acts on images of shape"):
        EquivariantSplitting(Shifts((4, 4))).check(family)
