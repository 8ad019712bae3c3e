"""What a training was for: equal for equal operators, losses and data, different for any others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from invlearn.learning import EquivariantImaging, Loss, MeasurementConsistency, Objective, Splitting
from invlearn.learning.identity import data_hash, objective_card, physics_card
from invlearn.physics import Crop, FiniteDifference, FromFunction, Mask, OperatorFamily, Space, Wavelet
from invlearn.physics.groups import Shifts
from invlearn.physics.mri import CartesianMRI


def noise(*shape: int, complex: bool = False, seed: int = 0) -> Tensor:
    kind = torch.complex64 if complex else torch.float32
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def mri(seed: int = 0) -> CartesianMRI:
    generator = torch.Generator().manual_seed(seed)
    return CartesianMRI(torch.rand(8, 8, generator=generator) < 0.5, noise(2, 8, 8, complex=True))


def test_objective_card_has_weights_settings_and_order() -> None:
    group = Shifts((4, 4))
    objective = MeasurementConsistency() + 0.5 * Splitting(keep=0.7) + 2 * EquivariantImaging(group)
    card = objective_card(objective)
    assert card[0] == "1 MeasurementConsistency()"
    assert card[1].startswith("0.5 Splitting(keep=0.7")
    assert card[2].startswith(f"2 EquivariantImaging(group={group!r}")

    class Own(Loss):  # no dataclass: its representation holds an address
        def __call__(self, batch: Any) -> Tensor:
            return batch.x1.abs().mean()

    kept = [Own(), Own()]
    assert objective_card(Objective.of(kept[0])) == objective_card(Objective.of(kept[1]))


def test_physics_card_knows_operators_apart() -> None:
    assert physics_card(mri()) == physics_card(mri())
    assert physics_card(mri()) != physics_card(mri(seed=1))
    double = mri().to(torch.float64)
    assert physics_card(double)["numbers"] != physics_card(mri())["numbers"]
    family = OperatorFamily([mri(), mri(seed=1)])
    assert physics_card(family)["operators"] == 2
    assert physics_card(OperatorFamily([mri(seed=1), mri()])) != physics_card(family)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: 2 * Mask(torch.ones(8, 8)), lambda: 3 * Mask(torch.ones(8, 8))),
        (lambda: Wavelet((8, 8), "haar", 1), lambda: Wavelet((8, 8), "haar", 2)),
        (lambda: Wavelet((8, 8), "haar", 1), lambda: Wavelet((8, 8), "sym2", 1)),
        (lambda: Crop((8, 8), (4, 4)), lambda: Crop((8, 8), (4, 4), start=(1, 1))),
        (lambda: FiniteDifference((8, 8)), lambda: FiniteDifference((8, 8), mode="circular")),
        (
            lambda: 2 * Mask(torch.ones(8, 8)) @ Mask(torch.eye(8)),
            lambda: Mask(torch.ones(8, 8)) @ Mask(torch.eye(8)),
        ),
    ],
)
def test_physics_card_knows_settings_that_are_no_tensors(one: Any, other: Any) -> None:
    first, used = one(), one()
    used(torch.ones(used.domain.shape))
    used.eval()
    used.spectrum()
    assert physics_card(first) == physics_card(used)
    assert physics_card(first)["numbers"] != physics_card(other())["numbers"]


def test_physics_card_is_the_same_in_every_process() -> None:
    def operator() -> FromFunction:
        return FromFunction(lambda x: 2 * x, Space((4,)), Space((4,)))

    kept = [operator() for _ in range(2)]  # both alive: two functions at two places
    assert physics_card(kept[0]) == physics_card(kept[1])


def test_data_hash() -> None:
    assert data_hash(noise(4)) == data_hash(noise(4).numpy()) == data_hash([noise(4)])
    assert (
        len({data_hash(noise(4)), data_hash(noise(2, 2)), data_hash(noise(4).double()), data_hash(noise(5))})
        == 4
    )
    assert data_hash([noise(4), noise(4)]) != data_hash(noise(4))
