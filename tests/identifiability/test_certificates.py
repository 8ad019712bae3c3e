"""Rank certificates against their formulas."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from invlearn.identifiability.certificates import (
    Certificate,
    GhostTest,
    completability,
    covering_elements,
    ghost_test,
    random_subspace,
    subspace_certificate,
    tangent_certificate,
    tangent_rank,
)
from invlearn.identifiability.setting import Setting
from invlearn.physics import Dense, Mask, OperatorFamily
from invlearn.physics.groups import Rotations90, Shifts


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_setting(n: int, g: int, m: int, seed: int = 0, complex: bool = False) -> Setting:
    return Setting(OperatorFamily.from_matrices(gaussian(g, m, n, seed=seed, complex=complex)))


def subspace(setting: Setting, k: int, seed: int = 0) -> Tensor:
    return random_subspace(setting, k, torch.Generator().manual_seed(seed))


def certify(setting: Setting, k: int) -> Certificate:
    return subspace_certificate(setting, subspace(setting, k), "test")


def smallest_m(n: int, k: int, g: int) -> int:
    """The first m that passes; below it the nullity is what counting says."""
    for m in range(k + 1, n + 1):
        found = certify(random_setting(n, g, m, seed=m), k)
        missing = max(0, n - k - g * (m - k))
        assert found.nullity == k + missing
        assert len(found.ghosts) == missing
        if found.passed:
            return m
    raise AssertionError("no m passes")


@pytest.mark.parametrize(
    ("sizes", "m"),
    [
        ((30, 3, 2), 17),
        ((30, 3, 5), 9),
        ((30, 3, 10), 6),
        ((30, 8, 4), 14),
        ((40, 5, 7), 10),
        ((40, 5, 40), 6),
    ],
)
def test_smallest_m_of_the_reference_table(sizes: tuple[int, int, int], m: int) -> None:
    n, k, g = sizes
    assert smallest_m(n, k, g) == math.ceil(k + (n - k) / g) == m


@pytest.mark.parametrize("n", [10, 13])
@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("g", [1, 2, 3, 6])
def test_smallest_m_on_a_grid(n: int, k: int, g: int) -> None:
    assert smallest_m(n, k, g) == math.ceil(k + (n - k) / g)


def test_complex_operators_count_complex_numbers() -> None:
    for m, passes in ((8, False), (9, True)):
        assert certify(random_setting(30, 5, m, complex=True), 3).passed == passes


@pytest.mark.parametrize(
    ("sizes", "m", "rank"),
    [((30, 3, 5), 8, 40), ((30, 3, 5), 9, 42), ((30, 3, 10), 5, 50), ((30, 3, 10), 6, 57)],
)
def test_tangent_jacobian(sizes: tuple[int, int, int], m: int, rank: int) -> None:
    n, k, g = sizes
    setting = random_setting(n, g, m)
    basis = subspace(setting, k)
    found, target = tangent_rank(setting, basis)
    assert found == rank
    assert target == n + (g - 1) * k
    certificate = subspace_certificate(setting, basis, "test")
    assert target - found == certificate.nullity - k == len(certificate.ghosts)


@pytest.mark.parametrize("seed", range(4))
def test_tangent_jacobian_equals_the_certificate_for_masks(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    setting = Setting(OperatorFamily.from_masks(torch.rand(5, 18, generator=generator) < 0.45))
    basis = subspace(setting, 2, seed)
    found, target = tangent_rank(setting, basis)
    assert target - found == subspace_certificate(setting, basis, "test").nullity - 2


def test_ghosts_are_consistent_and_outside_the_model() -> None:
    setting = random_setting(30, 5, 8)
    basis = subspace(setting, 3)
    found = subspace_certificate(setting, basis, "test")
    assert found.nullity == 5
    assert not found.passed
    assert float((found.ghosts @ basis.mH).abs().max()) < 1e-12
    for e in setting.elements():  # every operator explains them by the model
        image = setting.apply(torch.cat([basis, found.ghosts]), e)
        assert int(torch.linalg.matrix_rank(image, rtol=1e-9)) == 3


@pytest.mark.parametrize(("short", "ghosts"), [(1, 1), (0, 0), (-1, 0)])
def test_unequal_sizes(short: int, ghosts: int) -> None:
    """The ghost of two mixed subspaces goes at sum of max(m_g - k, 0) = n, whatever the sizes."""
    n, k = 24, 2
    sizes = [2 + 5, 2 + 11, 2, 1, 2 + 8 - short]  # two operators of rank <= k count for nothing
    family = OperatorFamily.from_matrices([gaussian(m, n, seed=m) for m in sizes])
    setting = Setting(family)
    assert sum(max(r - k, 0) for r in setting.ranks) == n - short
    assert ghost_test(setting, k, assignments=4).ghost_dimension == ghosts


@pytest.mark.parametrize(("m", "ghosts"), [(11, 4), (12, 0)])
def test_ghost_test_of_a_union(m: int, ghosts: int) -> None:
    setting = random_setting(32, 4, m)
    assert certify(setting, 4).passed  # one subspace is fixed at both
    assert ghost_test(setting, 4) == GhostTest(ghosts, 3)


@pytest.mark.parametrize(("m", "found"), [(5, True), (6, False)])
def test_ghost_test_of_an_orbit(m: int, found: bool) -> None:
    setting = Setting(Dense(gaussian(m, 20)), Shifts((20,), step=5))
    assert (ghost_test(setting, 1, assignments=6).ghost_dimension > 0) == found


def test_ghost_test_mixes_even_where_the_group_has_two_elements() -> None:
    # counting: mixed copies leave n - 2 (m - k) directions
    setting = Setting(Dense(gaussian(8, 12)), Shifts((12,), step=6))
    assert certify(setting, 3).passed
    for seed in range(4):
        assert ghost_test(setting, 3, assignments=1, seed=seed).ghost_dimension == 2


def test_one_operator_cannot_mix() -> None:
    assert ghost_test(random_setting(8, 1, 8), 2).ghost_dimension == 0


def test_an_intersection_inside_the_orbit_is_no_ghost() -> None:
    # masks of single entries: everything is consistent with everything
    everything = Setting(Dense(gaussian(12, 12)), Shifts((12,)))
    assert ghost_test(everything, 2).ghost_dimension == 0


def test_one_operator_has_no_mixed_assignments_to_claim() -> None:
    assert ghost_test(random_setting(6, 1, 6), 2) == GhostTest(0, 0)


def test_a_sample_of_a_large_group_does_not_pass_what_it_does_not_see() -> None:
    # k = 1, and the first sample of group elements can leave exactly one pixel unseen
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[[0, 1, 5, 7], [0, 3, 2, 9]] = True
    setting = Setting(Mask(mask), Shifts((20, 20)))
    sizes = [len(e) for e in covering_elements(setting, 1, 0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 400
    found = subspace_certificate(setting, subspace(setting, 1), "test", model="orbit")
    assert found.passed
    assert found.model == "orbit"
    assert found.nullity == 1
    hidden = Mask(torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert not certify(Setting(hidden), 1).passed  # one pixel is unseen: the null space is larger than V


def test_every_operator_is_looked_at_without_a_group() -> None:
    setting = random_setting(6, 3, 4)
    assert list(covering_elements(setting, 2, 0)) == [setting.elements()]


def test_certificate_fields() -> None:
    found = certify(random_setting(12, 3, 8), 2)
    assert found.passed
    assert found.gap == pytest.approx(float(found.spectrum[2]))
    plain = found.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {"model", "scope", "nullity", "expected_nullity", "gap", "tolerance", "method"} <= plain.keys()
    assert json.loads(json.dumps(GhostTest(2, 3).to_dict())) == {"ghost_dimension": 2, "assignments": 3}


def test_borderline_does_not_pass() -> None:
    u, _, vh = torch.linalg.svd(gaussian(6, 6))
    sizes = torch.ones(6, dtype=torch.float64)
    sizes[-1] = 1e-10
    found = certify(Setting(Dense(u @ torch.diag(sizes) @ vh)), 2)
    assert found.nullity == 2
    assert found.borderline
    assert not found.passed


def test_tangent_certificate_is_that_of_the_worst_point() -> None:
    setting = Setting(OperatorFamily.from_masks(torch.tensor([[1, 1, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1]])))
    good = subspace(setting, 1)
    # zero on the two pixels that both masks see: the parts that each sees are not tied together
    loose = torch.tensor([[1.0, 2.0, 0.0, 3.0, 4.0, 0.0]], dtype=torch.float64)
    both = tangent_certificate(setting, [good, loose, good], "a test")
    alone = tangent_certificate(setting, [good], "a test")
    assert alone.passed
    assert not both.passed
    assert both.nullity == 2
    assert "3 points" in both.scope
    assert "a test" in both.scope
    with pytest.raises(ValueError, match="no point"):
        tangent_certificate(setting, [], "a test")


def test_completability_against_a_wiggled_model() -> None:
    """Entries that differ between two models with the same measurements are not completable."""
    masks = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 1]])
    setting = Setting(OperatorFamily.from_masks(masks))
    basis = subspace(setting, 2)
    ghosts = subspace_certificate(setting, basis, "test").ghosts
    assert len(ghosts) > 0
    determined = completability(setting, basis, ghosts)
    assert determined.shape == (3, 6)
    assert bool(determined[masks.bool()].all())  # what was measured is known
    coefficients = gaussian(2, 50, seed=5)
    moved = basis + 1e-6 * gaussian(2, len(ghosts), seed=6) @ ghosts
    for g, mask in enumerate(masks.bool()):
        x = coefficients.T @ basis
        fit = torch.linalg.lstsq(moved[:, mask].T, x[:, mask].T, driver="gelsd").solution
        change = ((fit.T @ moved) - x).abs().max(0).values
        consistent = (fit.T @ moved - x)[:, mask].abs().max() < 1e-10
        assert bool(consistent)
        assert torch.equal(change < 1e-9, determined[g])


def test_completability_of_a_known_model_needs_k_measurements() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    setting = Setting(OperatorFamily.from_masks(masks))
    basis = subspace(setting, 2)
    none = torch.zeros(0, 4, dtype=torch.float64)
    assert completability(setting, basis, none).tolist() == [[True] * 4, [True, False, False, False]]


def test_random_subspace() -> None:
    setting = Setting(Mask(torch.ones(3, 3), complex=True), Rotations90((3, 3)))
    v = subspace(setting, 4)
    assert v.dtype == torch.complex128
    torch.testing.assert_close(v.conj() @ v.T, torch.eye(4, dtype=torch.complex128))
    assert not torch.equal(v, subspace(setting, 4, seed=1))
