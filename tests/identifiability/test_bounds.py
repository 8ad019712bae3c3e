"""Conditions: statements, values, and when they speak."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from invlearn.identifiability import bounds
from invlearn.identifiability.bounds import Bound
from invlearn.identifiability.coverage import measure_coverage
from invlearn.identifiability.setting import Setting
from invlearn.physics import Blur, Dense, LinearOperator, Mask, OperatorFamily, identity
from invlearn.physics.groups import Dihedral, Group, Permutations, Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def family(*sizes: int, n: int = 30) -> OperatorFamily:
    return OperatorFamily.from_matrices([gaussian(m, n, seed=i) for i, m in enumerate(sizes)])


def generic(
    operators: OperatorFamily | LinearOperator, k: int, group: Group | None = None
) -> dict[str, Bound]:
    return {b.id: b for b in bounds.generic_bounds(Setting(operators, group), k)}


def test_stack_rank_is_exact() -> None:
    for sizes, rank in (((10, 10), 20), ((10, 10, 10), 30), ((20, 20), 30)):
        setting = Setting(family(*sizes))
        found = bounds.stack_rank_bound(setting, measure_coverage(setting))
        assert (found.id, found.kind, found.actual, found.required) == ("N1", "necessary", rank, 30)
        assert found.holds == (rank == 30)
        assert found.applies
        assert found.margin == rank - 30
    grouped = Setting(Dense(gaussian(3, 16), (4, 4)), Rotations90((4, 4)))
    found = bounds.stack_rank_bound(grouped, measure_coverage(grouped))
    assert found.id == "N2"
    assert found.actual == 12
    assert not found.holds


def test_count_bound_uses_ranks() -> None:
    a = gaussian(10, 30)
    enough = bounds.count_bound(Setting(family(10, 12, 8)))
    assert enough.holds
    assert enough.actual == enough.required == 10
    twice = OperatorFamily.from_matrices([torch.cat([a, a]), gaussian(8, 30, seed=1)])
    assert not bounds.count_bound(Setting(twice)).holds  # 28 rows, rank 18
    turned = bounds.count_bound(Setting(Dense(gaussian(9, 36), (6, 6)), Rotations90((6, 6))))
    assert turned.holds
    assert turned.margin == 0


def s4() -> Permutations:
    rows = torch.arange(12).reshape(4, 3)
    return Permutations(torch.stack([rows[[1, 0, 2, 3]].flatten(), rows[[1, 2, 3, 0]].flatten()]))


@pytest.mark.parametrize(
    ("group", "m"), [(s4(), 3), (Rotations90((7, 7)), 13), (Rotations90((5, 5)), 7), (Shifts((12,), 3), 3)]
)
def test_multiplicity_bound_is_sharp(group: Group, m: int) -> None:
    for rows, holds in ((m - 1, False), (m, True)):
        setting = Setting(Dense(gaussian(rows, group.size), group.shape), group)
        assert bounds.multiplicity_bound(setting).holds == holds
        assert (measure_coverage(setting).rank == group.size) == holds


def disk_blur(n: int = 12) -> Blur:
    f = torch.fft.fftfreq(n) * n
    u, v = torch.meshgrid(f, f, indexing="ij")
    kernel = torch.fft.ifft2((u**2 + v**2 <= 9.5).double()).real
    return Blur(kernel.roll((n // 2, n // 2), (0, 1)), (n, n))


EQUIVARIANT = {
    "circular blur, shifts": (disk_blur(), Shifts((12, 12)), True),
    "isotropic blur, D4": (disk_blur(), Dihedral((12, 12)), True),
    "k-space, shifts": (CartesianMRI(gaussian(6, 6) > 0), Shifts((6, 6)), True),
    "k-space, turns": (CartesianMRI(gaussian(6, 6) > 0), Rotations90((6, 6)), False),
    "mask, shifts": (Mask(gaussian(6, 6) > 0), Shifts((6, 6)), False),
    "matrix, shifts": (Dense(gaussian(9, 36), (6, 6)), Shifts((6, 6)), False),
    "mean, shifts": (Dense(torch.full((1, 36), 2.0), (6, 6)), Shifts((6, 6)), True),
}


@pytest.mark.parametrize("case", EQUIVARIANT)
def test_equivariance(case: str) -> None:
    operator, group, equivariant = EQUIVARIANT[case]
    setting = Setting(operator, group)
    departure = bounds.equivariance_departure(setting)
    assert departure < 1e-10 if equivariant else departure > 1e-3
    found = bounds.equivariance_bound(setting, measure_coverage(setting))
    assert found.holds == (not equivariant)
    assert found.kind == "necessary"


def test_an_equivariant_operator_without_a_null_space_is_no_failure() -> None:
    kernel = torch.tensor([0.2, 1.0, 0.2], dtype=torch.float64)
    setting = Setting(Blur(kernel, (9,)), Shifts((9,)))
    assert bounds.equivariance_departure(setting) == 0.0
    assert bounds.equivariance_bound(setting, measure_coverage(setting)).holds


@pytest.mark.parametrize("which", ["mask", "k-space", "matrix", "complex matrix", "large"])
def test_null_probe(which: str) -> None:
    op: LinearOperator = {
        "mask": Mask(gaussian(12) > 0),
        "k-space": CartesianMRI(gaussian(4, 4) > 0),
        "matrix": Dense(gaussian(4, 9)),
        "complex matrix": Dense(gaussian(4, 9, complex=True)),
        "large": Mask(gaussian(40, 40) > 0) @ identity((40, 40)) @ Dense_diagonal(1600),
    }[which]
    z = bounds.null_probe(Setting(op), 0, torch.Generator().manual_seed(1))
    assert float(torch.linalg.vector_norm(z)) > 0.1
    assert float(op.codomain.norm(op(op.domain.unflatten(z)))) < 1e-9


def Dense_diagonal(n: int) -> LinearOperator:
    from invlearn.physics import Downsample

    return identity((40, 40)) + 0.1 * Downsample((40, 40), 2).H @ Downsample((40, 40), 2)


def test_theorems_for_families() -> None:
    found = generic(family(*[10] * 5), 3)  # k + n/G = 9
    assert found["T1"].holds
    assert found["T1"].applies
    assert found["T1"].margin == 1
    assert found["R"].holds
    assert found["R"].required == 6
    assert found["D2"].required == pytest.approx(3 + 27 / 5)
    assert found["D2"].holds
    assert "D7" not in found
    assert "T2" not in found
    assert not generic(family(*[9] * 5), 3)["T1"].holds  # strict
    assert not generic(family(*[6] * 20), 3)["R"].holds  # strict
    assert bounds.generic_holds(list(found.values()))


def test_unequal_ranks() -> None:
    found = generic(family(7, 9, 26), 2)
    assert found["D7"].actual == 5 + 7 + 24
    assert found["D7"].holds
    assert found["T1"].holds is False
    assert bounds.generic_holds(list(found.values()))
    assert not generic(family(7, 9, 16), 2)["D7"].holds
    assert generic(family(7, 9, 20), 2)["D7"].actual == 30  # equality is enough
    weak = generic(family(2, 9, 25), 2)  # an operator of rank <= k constrains nothing
    assert weak["D7"].actual == 7 + 23
    assert not weak["R"].holds
    assert not bounds.generic_holds(list(weak.values()))


def test_duplicates_do_not_count() -> None:
    a = gaussian(12, 30)
    doubled = OperatorFamily.from_matrices([a, 2 * a, gaussian(12, 30, seed=1)])
    assert generic(doubled, 1)["T1"].required == 1 + 15
    alone = generic(OperatorFamily.from_matrices([a, 2 * a]), 1)
    assert not alone["T1"].applies
    assert "one operator" in alone["T1"].note


def test_dimension_against_rank() -> None:
    def holds(*sizes: int, k: int) -> bool | None:
        return bounds.dimension_bound(Setting(family(*sizes)), k).holds

    assert not holds(5, 5, k=5)
    assert holds(5, 6, k=5)
    assert holds(30, k=30)  # sees everything


def test_dimension_of_a_given_subspace() -> None:
    setting = Setting(
        OperatorFamily.from_masks(torch.eye(6)[:2].repeat_interleave(3, 0)[:2] + torch.eye(6)[1:3])
    )
    filled, hidden = torch.eye(6, dtype=torch.float64)[:4], torch.eye(6, dtype=torch.float64)[2:]
    assert not bounds.dimension_bound(setting, 4, filled).holds
    found = bounds.dimension_bound(setting, 4, hidden)
    assert found.holds
    assert "fill" in found.note


@pytest.mark.parametrize(
    ("group", "applies", "required"),
    [(Shifts((12,), 3), True, 2 * 2 + 3 + 1), (Dihedral((4, 4)), False, None), (Shifts((4, 4)), False, None)],
)
def test_t2_speaks_of_cyclic_groups(group: Group, applies: bool, required: float | None) -> None:
    found = generic(Dense(gaussian(9, group.size), group.shape), 2, group)
    assert found["T2"].applies == applies
    assert ("T1" in found) is False
    if required is not None:
        assert found["T2"].required == required
        assert found["T2"].holds
        assert bounds.generic_holds(list(found.values()))
        at = generic(Dense(gaussian(int(required), 12)), 2, group)
        assert not at["T2"].holds  # strict
    else:
        assert found["T2"].note == "stated for cyclic groups"
        assert not bounds.generic_holds(list(found.values()))


def test_t2_speaks_of_one_operator() -> None:
    found = generic(OperatorFamily.from_matrices(gaussian(2, 9, 12)), 2, Shifts((12,), 3))
    assert not found["T2"].applies
    assert "one operator" in found["T2"].note


@pytest.mark.parametrize(
    "structured",
    [
        OperatorFamily.from_masks(gaussian(40, 30) > -2),
        OperatorFamily.from_kspace_masks(gaussian(40, 5, 6) > -2),
        OperatorFamily.from_matrices(torch.sign(gaussian(40, 20, 30))),
        OperatorFamily.from_matrices(gaussian(40, 20, 30) * (gaussian(40, 20, 30, seed=1) > 0)),
    ],
    ids=["masks", "k-space", "signs", "sparse"],
)
def test_structured_operators_are_not_almost_every_operator(structured: OperatorFamily) -> None:
    found = generic(structured, 2)
    assert found["T1"].holds
    assert not found["T1"].applies
    assert "special family" in found["T1"].note
    assert not found["R"].applies
    assert not found["D2"].applies
    assert not bounds.generic_holds(list(found.values()))


def test_groups_too_large_to_be_split_leave_the_rest_standing() -> None:
    shifts = Shifts((40, 40))
    group = Permutations(torch.stack([shifts.permutation(1), shifts.permutation(40)]), (40, 40))
    setting = Setting(Mask(gaussian(40, 40) > 1), group)
    unknown = bounds.multiplicity_bound(setting)
    assert unknown.holds is None
    assert "too large" in unknown.note
    assert bounds.generic_bounds(setting, 2)[-1].holds is None
    assert measure_coverage(setting).rank == 1600
    assert bounds.max_multiplicity(group) is None
    assert bounds.max_multiplicity(shifts) == 1


def test_sources_and_json() -> None:
    setting = Setting(family(10, 10, 10))
    listed = [
        bounds.stack_rank_bound(setting, measure_coverage(setting)),
        bounds.count_bound(setting),
        *bounds.generic_bounds(setting, 3),
        bounds.noise_bound(0.1),
    ]
    for b in listed:
        plain = b.to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain.keys() == {
            "id", "kind", "statement", "required", "actual", "margin", "holds", "applies", "source", "note"
        }  # fmt: skip
        assert plain["source"]
        assert "Theorem" not in plain["source"]
    assert "0.1" in listed[-1].note
    assert "0.2" in bounds.noise_bound(0.2).note
