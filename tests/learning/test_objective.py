"""Objectives are sums of weighted losses; a batch computes the reconstruction once and checks it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning import (
    EquivariantImaging,
    Loss,
    MeasurementConsistency,
    MultiOperatorImaging,
    Objective,
    Supervised,
)
from invlearn.physics import LinearOperator, OperatorFamily
from invlearn.physics.groups import Rotations90

EI = EquivariantImaging(Rotations90((3, 3)))
MC = MeasurementConsistency()


def family(count: int = 3) -> OperatorFamily:
    g = Generator().manual_seed(0)
    return OperatorFamily.from_matrices(torch.randn(count, 4, 9, generator=g, dtype=torch.float64), (3, 3))


class Counted:
    """Back projection that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, y: Tensor, A: LinearOperator) -> Tensor:
        self.calls += 1
        return A.adjoint(y)


def test_a_sum_is_the_weighted_sum_of_its_terms(batch_of: Any) -> None:
    operators, index = family(), torch.tensor([0, 1, 2, 2])
    y = torch.randn(4, 4, dtype=torch.float64, generator=Generator().manual_seed(1))
    objective = 2 * EI + (MC + MultiOperatorImaging()) * 0.5
    assert [weight for weight, _ in objective.terms] == [2, 0.5, 0.5]
    found = objective(batch_of(Counted(), operators, y, index))
    assert list(found) == ["loss", "EquivariantImaging", "MeasurementConsistency", "MultiOperatorImaging"]
    total = (
        2 * found["EquivariantImaging"]
        + found["MeasurementConsistency"] / 2
        + found["MultiOperatorImaging"] / 2
    )
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-12)


def test_the_reconstruction_is_computed_once(batch_of: Any) -> None:
    model = Counted()
    y = torch.randn(4, 4, dtype=torch.float64, generator=Generator().manual_seed(1))
    truth = torch.zeros(4, 3, 3, dtype=torch.float64)
    objective = MC + Supervised() + EI + MultiOperatorImaging()
    objective(batch_of(model, family(), y, torch.arange(4) % 3, truth))
    assert model.calls == 3  # x1, and one virtual measurement for each of the last two


def test_the_ways_to_write_an_objective() -> None:
    assert Objective.of(MC) == Objective(((1.0, MC),))
    assert Objective.of([MC, 2 * EI]) == MC + 2 * EI
    assert Objective.of(MC + EI).losses == (MC, EI)
    assert (MC + EI + MC).names == (
        "MeasurementConsistency",
        "EquivariantImaging",
        "MeasurementConsistency-2",
    )


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of MeasurementConsistency must be positive"):
        weight * MC


def test_what_is_no_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one loss"):
        Objective.of([])
    for bad in (["mse"], [None], [MeasurementConsistency]):
        with pytest.raises(TypeError, match="a loss is an object such as"):
            Objective.of(bad)  # type: ignore[arg-type]


def test_a_model_of_the_wrong_shape_is_named(batch_of: Any) -> None:
    y = torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="the output of the model"):
        MC(batch_of(lambda y, A: y, family(), y))
    with pytest.raises(ValueError, match=r"the model made \(1, 3, 3\) of measurements \(2, 4\)"):
        MC(batch_of(lambda y, A: A.adjoint(y)[:1], family(), y))


def test_losses_are_frozen_and_compare() -> None:
    assert MeasurementConsistency() == MeasurementConsistency()
    loss: Loss = EI
    with pytest.raises(AttributeError):
        loss.group = None
