"""What no operator sees."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invlearn.identifiability import check
from invlearn.identifiability import coverage as module
from invlearn.identifiability.coverage import Coverage, measure_coverage
from invlearn.identifiability.setting import Setting
from invlearn.physics import Blur, Crop, Dense, Downsample, LinearOperator, Mask, OperatorFamily, identity
from invlearn.physics.groups import Group, Permutations, Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def covered(operator: LinearOperator, group: Group) -> Coverage:
    found = measure_coverage(Setting(operator, group))
    assert found.settled
    return found


def s4_on_matrices() -> Permutations:
    """S_4 on R^4 (x) R^3: both generators permute rows."""
    rows = torch.arange(12).reshape(4, 3)
    return Permutations(torch.stack([rows[[1, 0, 2, 3]].flatten(), rows[[1, 2, 3, 0]].flatten()]))


MINIMAL = {
    "C12": (Shifts((12,)), 1),
    "shifts by 3": (Shifts((12,), step=3), 3),
    "rot90 5x5": (Rotations90((5, 5)), 7),
    "rot90 6x6": (Rotations90((6, 6)), 9),
    "rot90 7x7": (Rotations90((7, 7)), 13),
    "reflection": (Permutations(torch.arange(10, -1, -1)), 6),
    "S5": (Permutations(torch.tensor([[1, 0, 2, 3, 4], [1, 2, 3, 4, 0]])), 1),
    "S4 on R4 x R3": (s4_on_matrices(), 3),
}


@pytest.mark.parametrize("case", MINIMAL)
def test_minimal_m_for_a_generic_operator(case: str) -> None:
    group, m = MINIMAL[case]
    assert group.minimal_measurements() == m
    assert covered(Dense(gaussian(m, group.size), group.shape), group).rank == group.size
    if m > 1:
        assert covered(Dense(gaussian(m - 1, group.size), group.shape), group).rank < group.size


@pytest.mark.parametrize("complex", [False, True])
def test_all_shifts_by_probes_equal_the_dense_stack(complex: bool) -> None:
    shape = (6, 5)
    kernel = torch.zeros(6, 5, dtype=torch.float64)
    kernel[0, 0] = kernel[3, 0] = 1  # nothing of odd vertical frequencies
    operators: list[LinearOperator] = [
        Crop((6, 5), (2, 2), complex=complex) @ Blur(kernel, shape, complex=complex),
        Dense(gaussian(1, 30, complex=complex), shape),
        Downsample(shape, 2, complex=complex),
        Dense(1e-9 * torch.ones(2, 30), shape, complex=complex),
    ]
    for op in operators:
        setting = Setting(op, Shifts(shape))
        found = measure_coverage(setting)
        dense = torch.cat([setting.matrix(e) for e in setting.elements()])
        assert found.rank == int(torch.linalg.matrix_rank(dense))
        assert found.settled
        assert len(found.unseen) == 30 - found.rank
        if len(found.unseen):
            assert found.unseen.is_complex() == complex
            assert float((dense @ found.unseen.T).abs().max()) < 1e-9 * float(dense.abs().max())
            gram = found.unseen.conj() @ found.unseen.T
            torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype))
    ranks = [measure_coverage(Setting(op, Shifts(shape))).rank for op in operators]
    assert ranks == [15, 30, 30, 1]


def test_shifts_of_operators_in_different_units() -> None:
    line = torch.ones(1, 8, dtype=torch.float64)
    family = OperatorFamily([Dense(1e-12 * gaussian(1, 8)), Dense(1e12 * line)])
    assert measure_coverage(Setting(family, Shifts((8,)))).rank == 8


def test_unseen_pixels_are_shown() -> None:
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[1, 2] = mask[4, 4] = False
    found = measure_coverage(Setting(Mask(mask)))
    assert found.rank == 23
    assert "pixel" in found.method
    assert torch.equal((found.unseen.abs() > 1e-9).any(0).reshape(5, 5), ~mask)
    real = measure_coverage(Setting(CartesianMRI(mask)))
    assert real.rank == 23
    assert real.unseen.is_complex()
    assert "fourier" in real.method


def test_pictures_are_limited_the_count_is_not() -> None:
    found = measure_coverage(Setting(Mask(torch.arange(400) < 100)))
    assert found.rank == 100
    assert found.unseen.shape == (64, 400)


@pytest.mark.parametrize(("keep", "count"), [(0.3, 12), (0.6, 3)])
def test_expected_holes(keep: float, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, 100, 100, generator=generator) < keep
    holes = 10_000 - measure_coverage(Setting(OperatorFamily.from_masks(masks))).rank
    expected = 10_000 * (1 - keep) ** count
    assert holes == int((~masks.any(0)).sum())
    assert abs(holes - expected) < 4 * math.sqrt(expected)


def test_large_operators_without_a_structure() -> None:
    blur = Blur(gaussian(3, 3).abs() / 9, (45, 45), "replicate") + 2 * identity((45, 45))
    masks = torch.rand(2, 45, 45, generator=torch.Generator().manual_seed(0)) < 0.9
    missing = int((~masks.any(0)).sum())
    holes = measure_coverage(Setting(OperatorFamily([Mask(m) @ blur for m in masks])))
    assert holes.settled
    assert 2025 - missing <= holes.rank < 2025
    image = blur(holes.unseen.reshape(-1, 45, 45))
    assert float(image[:, masks.any(0)].abs().max()) < 1e-4
    whole = measure_coverage(Setting(OperatorFamily([Mask(masks[0]) @ blur, blur])))
    assert whole.settled
    assert whole.rank == 2025
    assert "probability" in whole.method


def test_a_search_that_stopped_early_counts_no_more_than_the_rows() -> None:
    family = OperatorFamily.from_matrices(gaussian(2, 300, 1600))
    found = measure_coverage(Setting(family))
    assert found.settled
    assert not found.complete
    assert found.rank == 600
    assert "upper bound" in found.note
    report = check(family, dimension=3)
    assert report.verdict == "impossible"
    assert report.reason.startswith("At least 1000 of 1600 directions")


def test_an_unfinished_search_of_a_large_group_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    shifts = Shifts((12, 12))
    group = Permutations(torch.stack([shifts.permutation(1), shifts.permutation(12)]), (12, 12))
    a = gaussian(72, 144)
    setting = Setting(Dense(a - a.mean(1, keepdim=True), (12, 12)), group)  # blind to the constant
    found = measure_coverage(setting)
    assert found.settled
    assert found.rank == 143
    monkeypatch.setattr(module, "DENSE_LIMIT", 10)
    found = measure_coverage(setting)
    assert not found.settled
    assert "only 32 of 144" in found.note


@pytest.mark.parametrize(
    ("smallest", "rank", "noted"), [(1e-4, 4, False), (1e-9, 4, True), (1e-15, 3, False)]
)
def test_borderline_is_noted(smallest: float, rank: int, noted: bool) -> None:
    sizes = torch.tensor([1.0, 0.7, 0.5, smallest], dtype=torch.float64)
    found = measure_coverage(Setting(Dense(torch.linalg.qr(gaussian(4, 4))[0] * sizes)))
    assert found.rank == rank
    assert ("borderline" in found.note) == noted
