"""What can be said before training, for the losses at hand."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning import (
    SURE,
    EquivariantImaging,
    EquivariantSplitting,
    MeasurementConsistency,
    MultiOperatorImaging,
    NotLearnable,
    Objective,
    Splitting,
    Supervised,
)
from invlearn.learning.gate import examine
from invlearn.physics import Blur, Dense, GaussianNoise, Mask, OperatorFamily, identity
from invlearn.physics.groups import Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI

SHAPE = (8, 8)
MC, MOI = MeasurementConsistency(), MultiOperatorImaging()
SHIFTS = EquivariantImaging(Shifts(SHAPE))


def masks(count: int) -> OperatorFamily:
    found = torch.rand(10, *SHAPE, generator=Generator().manual_seed(0)) < 0.5
    found[9] |= ~found.any(0)  # together they see every pixel
    return OperatorFamily.from_masks(found[:count])


def low_pass() -> OperatorFamily:
    kept = (torch.fft.fftfreq(8).abs() < 0.3).double()
    return OperatorFamily([Blur(torch.fft.fftshift(torch.fft.ifft2(torch.outer(kept, kept)).real), SHAPE)])


def measured(operators: OperatorFamily, k: int = 3, count: int = 300) -> tuple[list[Tensor], Tensor]:
    """Signals of a k-dimensional subspace."""
    g = Generator().manual_seed(1)
    dtype = operators.domain.dtype(torch.float64)
    basis = torch.randn(k, operators.domain.size, generator=g, dtype=dtype)
    x = (torch.randn(count, k, generator=g, dtype=dtype) @ basis).reshape(count, *operators.domain.shape)
    index = torch.arange(count) % len(operators)
    return [operators[int(i)](v) for i, v in zip(index, x, strict=True)], index


def ask(operators: OperatorFamily, losses: Any, **options: Any) -> Any:
    return examine(operators, Objective.of(losses), *measured(operators), **options)


@pytest.mark.parametrize(
    ("operators", "losses"),
    [
        (masks(1), MC),
        (masks(10), MC),  # nothing links the operators
        (masks(10), SURE(GaussianNoise(0.1))),
        (low_pass(), MC + SHIFTS),  # commutes with shifts
        (masks(1), Splitting()),
        (OperatorFamily([Mask(torch.eye(8)), Mask(torch.ones(SHAPE) - torch.eye(8).flip(0))]), MC + MOI),
    ],
    ids=["one mask", "ten masks", "risk alone", "low-pass", "splitting one mask", "a hole in two masks"],
)
def test_what_is_impossible_is_refused(operators: OperatorFamily, losses: Any) -> None:
    with pytest.raises(NotLearnable, match=r"cannot be learned with .* force=True") as caught:
        ask(operators, losses)
    assert caught.value.report.verdict == "impossible"
    assert caught.value.report.unseen is not None
    with pytest.warns(UserWarning, match="training although this cannot be learned"):
        gate = ask(operators, losses, force=True)
    assert gate.verdict == "impossible"


@pytest.mark.parametrize(
    ("operators", "losses"),
    [
        (masks(1), MC + SHIFTS),
        (masks(10), MC + MOI),
        (masks(10), [SURE(GaussianNoise(0.1)), MOI]),
        (masks(10), MC + MOI + Splitting()),
        (masks(1), EquivariantSplitting(Shifts(SHAPE))),
        (OperatorFamily([identity(SHAPE)]), SURE(GaussianNoise(0.1))),
    ],
    ids=["shifts", "ten masks", "ten masks, noise", "with splitting", "equivariant splitting", "denoising"],
)
def test_what_can_be_learned_passes_without_a_word(operators: OperatorFamily, losses: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gate = ask(operators, losses)
    assert gate.verdict in ("certified", "generic")
    assert gate.report.dimension == 3
    assert gate.seconds < 60
    assert json.loads(json.dumps(gate.to_dict()))["verdict"] == gate.verdict


def test_truth_needs_no_proof() -> None:
    gate = ask(masks(1), MC + Supervised())
    assert gate.verdict == "supervised"
    assert gate.report is None
    assert gate.to_dict()["report"] is None


def test_the_dimension_can_be_given() -> None:
    assert ask(masks(10), MC + MOI, dimension=5).report.dimension == 5
    with pytest.raises(NotLearnable, match="k = 60 is not below"):
        ask(masks(10), MC + MOI, dimension=60)


def test_an_estimated_dimension_proves_nothing_impossible() -> None:
    # signals of full dimension seen through few rows: the estimate reaches m, which may be chance
    g = Generator().manual_seed(0)
    family = OperatorFamily.from_matrices(torch.randn(40, 4, 64, generator=g, dtype=torch.float64), SHAPE)
    y, index = measured(family, k=64, count=2000)
    with pytest.warns(UserWarning, match="not certain that this can be learned with MeasurementConsistency"):
        gate = examine(family, MC + MOI, y, index)
    assert gate.verdict == "undecided"


def test_too_few_measurements_leave_it_open() -> None:
    family = masks(10)
    y, index = measured(family)
    with pytest.warns(UserWarning, match="not certain"):
        gate = examine(family, MC + MOI, y[:3], index[:3])
    assert gate.verdict == "undecided"
    with pytest.raises(NotLearnable):
        examine(masks(1), Objective.of(MC), y[:3], index[:3] * 0)


def test_noise_of_a_loss_is_told_from_the_signals() -> None:
    family = masks(1)
    y, index = measured(family, count=500)
    noise = GaussianNoise(0.3)
    g = Generator().manual_seed(0)
    y = [noise(v, g) for v in y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = examine(family, SURE(noise) + SHIFTS, y, index).report.dimension
        unknown = examine(family, MC + SHIFTS, y, index).report.dimension
    assert known < unknown


def test_splitting_alone_is_judged_by_its_own_condition() -> None:
    with pytest.warns(UserWarning, match=r"condition S1"):
        gate = ask(masks(10), Splitting(keep=0.5))
    assert gate.verdict == "undecided"
    assert gate.report.learnable
    g = Generator().manual_seed(0)
    dense = OperatorFamily.from_matrices(torch.randn(4, 30, 64, generator=g, dtype=torch.float64), SHAPE)
    with pytest.warns(UserWarning, match=r"condition S1"):
        ask(dense, Splitting(keep=0.5))


def test_complex_signals_count_complex_numbers() -> None:
    g = Generator().manual_seed(0)
    sampled = torch.rand(6, *SHAPE, generator=g) < 0.6
    sampled[0] |= ~sampled.any(0)
    family = OperatorFamily([CartesianMRI(mask) for mask in sampled])
    gate = ask(family, MC + MOI)
    assert gate.verdict == "certified"
    assert gate.report.dimension == 3


def test_large_operators_are_left_to_a_check_that_takes_its_time() -> None:
    g = Generator().manual_seed(0)
    maps = torch.randn(2, 64, 64, generator=g, dtype=torch.complex64)
    family = OperatorFamily([CartesianMRI(torch.rand(64, 64, generator=g) < 0.5, maps) for _ in range(2)])
    y, index = measured(family, count=4)
    with pytest.warns(UserWarning, match="4096 entries are too large to be checked in seconds"):
        gate = examine(family, MC + MOI, y, index)
    assert gate.verdict == "undecided"
    large = OperatorFamily.from_masks(torch.rand(2, 64, 64, generator=g) < 0.5)
    with pytest.raises(NotLearnable, match=r"of 4096 directions are seen by no operator"):
        examine(large, MC + MOI, *measured(large, count=4))
    covering = torch.rand(12, 64, 64, generator=g) < 0.6
    covering[0] |= ~covering.any(0)
    large = OperatorFamily.from_masks(covering)
    assert examine(large, MC + MOI, *measured(large, count=4), dimension=9).verdict == "certified"


def test_a_check_that_fails_does_not_stop_training() -> None:
    class Wrong(Dense):
        def _adjoint(self, y: Tensor) -> Tensor:
            return 2 * super()._adjoint(y)

    family = OperatorFamily([Wrong(torch.randn(3, 4, generator=Generator().manual_seed(s))) for s in (0, 1)])
    with pytest.warns(UserWarning, match=r"check could not be made: .*wrong adjoint"):
        assert ask(family, MC + MOI).verdict == "undecided"


def test_several_groups_the_larger_counts() -> None:
    gate = ask(masks(1), MC + EquivariantImaging(Rotations90(SHAPE)) + SHIFTS)
    assert gate.report.group == "shifts"
