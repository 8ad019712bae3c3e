"""Verdicts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invlearn.identifiability import Generated, Measurements, Report, check
from invlearn.physics import Blur, Dense, Fourier, Mask, OperatorFamily
from invlearn.physics.groups import Dihedral, Permutations, Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def matrices(g: int, m: int, n: int, seed: int = 0, complex: bool = False) -> OperatorFamily:
    return OperatorFamily.from_matrices(gaussian(g, m, n, seed=seed, complex=complex))


def masks(g: int, *shape: int, keep: float, seed: int = 0) -> OperatorFamily:
    return OperatorFamily.from_masks(
        torch.rand(g, *shape, generator=torch.Generator().manual_seed(seed)) < keep
    )


def failing(report: Report) -> set[str]:
    return {b.id for b in report.bounds if b.kind == "necessary" and b.holds is False}


@pytest.mark.parametrize(("n", "k", "g"), [(20, 2, 3), (20, 2, 6), (24, 5, 4), (15, 1, 2)])
def test_family_of_random_matrices_over_m(n: int, k: int, g: int) -> None:
    for m in range(1, n + 1):
        family = matrices(g, m, n)
        verdict = check(family, dimension=k).verdict
        quick = check(family, dimension=k, certify=False)
        if g * m < n or m <= k:
            assert verdict == quick.verdict == "impossible"
        else:
            assert verdict == ("certified" if m >= math.ceil(k + (n - k) / g) else "undecided")
            strict = m > 2 * k and m > k + n / g
            assert quick.verdict == ("generic" if strict else "undecided")
            assert quick.certificate is None


def test_certified_says_for_what() -> None:
    report = check(matrices(4, 14, 24), dimension=3)
    assert report.verdict == "certified"
    assert report.certificate is not None
    assert report.certificate.nullity == report.certificate.expected_nullity == 3
    assert "unions" in report.certificate.scope
    assert "almost every" in report.certificate.scope
    assert report.ghost_test is not None
    assert report.ghost_test.ghost_dimension == 0


def test_unions_need_more_and_the_report_says_so() -> None:
    report = check(matrices(4, 11, 32), dimension=4)  # one subspace from 11, unions from 12
    assert report.verdict == "certified"
    assert report.ghost_test is not None
    assert report.ghost_test.ghost_dimension == 4
    assert any("unions" in w and "4 spurious" in w for w in report.warnings)
    assert not any("unions" in w for w in check(matrices(4, 12, 32), dimension=4).warnings)


def test_one_operator() -> None:
    assert check(Dense(gaussian(8, 12)), dimension=2).verdict == "impossible"
    assert check(Mask(torch.arange(12) > 0), dimension=2).verdict == "impossible"
    for whole in (Dense(gaussian(12, 12)), Mask(torch.ones(3, 4)), CartesianMRI(torch.ones(3, 4))):
        for k in (1, 3, 12):
            assert check(whole, dimension=k).verdict == "certified"


@pytest.mark.parametrize("k", [8, 9, 24])
def test_k_of_m_or_more_is_a_verdict(k: int) -> None:
    report = check(matrices(6, 8, 24), dimension=k)
    assert report.verdict == "impossible"
    assert failing(report) == {"dimension"}
    assert str(k) in report.reason
    assert report.certificate is None


@pytest.mark.parametrize("dimension", [0, -1, 25])
def test_k_outside_1_to_n_is_bad_input(dimension: int) -> None:
    with pytest.raises(ValueError, match="between 1 and n = 24"):
        check(matrices(6, 8, 24), dimension=dimension)


@pytest.mark.parametrize("dimension", [2.5, "3", True])
def test_k_is_an_integer(dimension: object) -> None:
    from invlearn.identifiability.check import _checked_dimension
    from invlearn.identifiability.setting import Setting

    with pytest.raises(TypeError):
        _checked_dimension.__wrapped__(dimension, Setting(Dense(gaussian(3, 4))))


def test_without_a_dimension() -> None:
    assert check(matrices(3, 8, 24)).verdict == "undecided"  # everything is seen, nothing more is known
    assert check(matrices(2, 8, 24)).verdict == "impossible"
    report = check(masks(3, 6, 6, keep=0.3))
    assert report.verdict == "impossible"
    assert report.unseen is not None
    assert report.coverage is not None
    assert torch.equal((report.unseen.abs() > 1e-9).any(0), (report.coverage == 0)) or len(report.unseen) == 8


def test_masks_are_decided_by_their_certificate_only() -> None:
    family = masks(20, 5, 5, keep=0.7)
    assert check(family, dimension=2, certify=False).verdict == "undecided"
    assert check(family, dimension=2).verdict == "certified"
    # two blocks of pixels that no mask sees together, and one operator that would be counted on
    torn = torch.zeros(20, 24, dtype=torch.bool)
    torn[::2, :12] = torn[1::2, 12:] = True
    report = check(OperatorFamily.from_masks(torn), dimension=2)
    assert failing(report) == set()
    assert report.verdict == "undecided"
    assert report.certificate is not None
    assert report.certificate.nullity == 4
    assert {b.id for b in report.bounds if b.kind == "sufficient" and b.applies} == set()


def test_failed_certificates_show_what_is_not_determined() -> None:
    torn = torch.zeros(6, 24, dtype=torch.bool)
    torn[::2, :13] = torn[1::2, 11:] = True  # two common pixels, one too few for k = 3
    report = check(OperatorFamily.from_masks(torn), dimension=3)
    assert report.verdict == "undecided"
    assert "1 direction" in report.reason
    assert report.unseen is not None
    assert "not separate" in report.unseen_what
    assert report.completable is not None
    assert report.completable.shape == (24,)
    assert report.completable[11:13].tolist() == [1, 1]  # seen by all
    assert report.completable[0] == 0.5  # by half of them, and not completable for the others


def test_equivariant_operator_is_impossible() -> None:
    kernel = torch.ones(3, 3, dtype=torch.float64)  # its transform vanishes on whole lines of 12 x 12
    report = check(Blur(kernel, (12, 12), "circular"), group=Shifts((12, 12)), dimension=3)
    assert report.verdict == "impossible"
    assert {"N2", "N3"} <= failing(report)
    assert report.unseen is not None
    assert report.group == "shifts"
    # the same operator with what it does see turned into the rest
    assert failing(check(CartesianMRI(gaussian(6, 6) > 0), group=Shifts((6, 6)), dimension=1)) == {"N2", "N3"}


def test_equivariant_but_invertible_operator_is_possible() -> None:
    kernel = torch.tensor([0.2, 1.0, 0.2], dtype=torch.float64)
    report = check(Blur(kernel, (11,), "circular"), group=Shifts((11,)), dimension=3)
    assert report.verdict == "certified"
    assert failing(report) == set()


def test_group_verdicts_over_m() -> None:
    group = Shifts((20,), step=5)
    verdicts = [check(Dense(gaussian(m, 20, seed=m)), group=group, dimension=1) for m in range(3, 11)]
    assert [v.verdict for v in verdicts[:2]] == ["impossible"] * 2  # N2: m >= 5
    assert verdicts[2].verdict == "undecided"  # k + (n - k)/|G| = 5.75
    assert verdicts[2].certificate is not None
    assert verdicts[2].certificate.nullity == 1 + 3
    assert [v.verdict for v in verdicts[3:]] == ["certified"] * 5
    quick = [
        check(Dense(gaussian(m, 20, seed=m)), group=group, dimension=1, certify=False).verdict
        for m in range(5, 11)
    ]
    assert quick == ["undecided"] * 4 + ["generic"] * 2  # T2: m > 8
    scope = verdicts[-1].certificate.scope  # type: ignore[union-attr]
    assert "copies under the group" in scope
    assert verdicts[-1].certificate.model == "orbit"


def test_copies_that_pass_one_by_one_may_not_pass_mixed() -> None:
    group = Shifts((20,), step=5)
    report = check(Dense(gaussian(8, 20)), group=group, dimension=4)  # n - |G| (m - k) = 4
    assert report.certificate is not None
    assert report.certificate.passed
    assert report.ghost_test is not None
    assert report.ghost_test.ghost_dimension == 4
    assert report.verdict == "undecided"
    assert "mixed" in report.reason
    basis = gaussian(4, 20, seed=1)
    given = check(Dense(gaussian(8, 20)), group=group, subspace=basis)
    assert given.verdict == "undecided"
    assert given.ghost_test == report.ghost_test
    invariant = basis[:1].reshape(1, 4, 5).sum(1).repeat(1, 4)  # its copies are itself
    assert check(Dense(gaussian(8, 20)), group=group, subspace=invariant).verdict == "certified"
    assert check(Dense(gaussian(9, 20)), group=group, dimension=4).verdict == "certified"
    assert check(Dense(gaussian(9, 20)), group=group, subspace=basis).verdict == "certified"


def test_groups_that_are_not_cyclic_have_no_generic_verdict() -> None:
    a = Dense(gaussian(20, 16), (4, 4))
    assert check(a, group=Dihedral((4, 4)), dimension=2, certify=False).verdict == "undecided"
    rows = Dense(gaussian(7, 16), (4, 4))
    assert check(rows, group=Dihedral((4, 4)), dimension=2, certify=False).verdict == "undecided"
    assert check(rows, group=Dihedral((4, 4)), dimension=2).verdict == "certified"


def test_accelerated_mri() -> None:
    lines = torch.zeros(12, 12, dtype=torch.bool)
    lines[::3] = True
    operator = CartesianMRI(lines, centered=False)
    for group, seen in ((Shifts((12, 12)), 48), (Rotations90((12, 12)), 80), (Dihedral((12, 12)), 80)):
        report = check(operator, group=group, dimension=2)
        assert report.verdict == "impossible"
        assert report.complex
        assert report.bounds[0].actual == seen
        assert report.bounds[0].id == "N2"


def test_complex_measurements_of_real_signals_warn() -> None:
    keep = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0])
    report = check(Mask(keep, complex=True) @ Fourier((8,), complex=False), dimension=1)
    assert report.m == (8,)
    assert report.verdict == "certified"
    assert any("two real ones" in w for w in report.warnings)
    assert not any("two real ones" in w for w in check(matrices(3, 8, 12), dimension=1).warnings)


def test_complex_operators_count_complex_numbers() -> None:
    assert check(matrices(5, 9, 30, complex=True), dimension=3).verdict == "certified"
    assert check(matrices(5, 8, 30, complex=True), dimension=3).verdict == "undecided"


def test_duplicates_and_redundant_rows_are_named() -> None:
    a = gaussian(3, 8, 20)
    report = check(
        OperatorFamily.from_matrices([a[0], a[1], -3 * a[0], torch.cat([a[2], a[2][:2]])]), dimension=1
    )
    assert report.m == (8, 8, 8, 8)
    assert report.operators == 4
    assert any("3 different operators: 2 repeats 0" in w for w in report.warnings)
    assert any("operator 3 has 10 rows of rank 8" in w for w in report.warnings)
    assert {b.id: b.required for b in report.bounds}["T1"] == pytest.approx(1 + 20 / 3)


def test_weak_operators_are_left_out_with_a_warning() -> None:
    family = OperatorFamily.from_matrices([gaussian(m, 20, seed=m) for m in (14, 2, 1, 10)])
    report = check(family, dimension=2)
    assert report.verdict == "certified"
    assert report.m == (14, 2, 1, 10)
    assert any(w.startswith("2 operator(s) have rank <= k = 2") for w in report.warnings)
    alone = check(OperatorFamily.from_matrices([gaussian(m, 20, seed=m) for m in (14, 10)]), dimension=2)
    assert alone.certificate is not None
    assert report.certificate is not None
    assert alone.certificate.gap == pytest.approx(report.certificate.gap)


def test_given_subspace_is_judged_itself() -> None:
    family = masks(4, 24, keep=0.6)
    free = check(family, dimension=2)
    assert free.verdict == "certified"
    # a subspace that vanishes where the masks overlap falls apart
    torn = torch.zeros(2, 24, dtype=torch.bool)
    torn[0, :13] = torn[1, 11:] = True
    basis = gaussian(1, 24)
    split = basis.clone()
    split[:, 11:13] = 0
    pair = OperatorFamily.from_masks(torn)
    assert check(pair, subspace=basis).verdict == "certified"
    report = check(pair, subspace=split.numpy())
    assert report.verdict == "undecided"
    assert report.dimension == 1
    assert "given" in report.certificate.scope


def test_given_subspace_in_the_null_space_of_an_operator() -> None:
    eye = torch.eye(8, dtype=torch.float64)
    family = OperatorFamily.from_masks(torch.stack([torch.arange(8) < 4, torch.arange(8) > 2]))
    # k = 5 is no less than the ranks 4 and 5, but the images have dimension 1 and 5 or less
    basis = eye[3:]
    assert check(family, dimension=5).verdict == "impossible"
    report = check(family, subspace=basis)
    assert report.verdict == "certified"


def test_samples_give_a_local_certificate() -> None:
    t = torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6.28
    signals = torch.stack([t.cos(), t.sin(), (2 * t).cos()], 1) @ gaussian(3, 16)
    report = check(matrices(4, 7, 16), signals=signals.reshape(-1, 16), dimension=1)
    assert report.verdict == "certified"
    assert report.certificate is not None
    assert report.certificate.model == "tangent"
    assert "local" in report.certificate.scope
    estimated = check(matrices(4, 7, 16), signals=signals.numpy())
    assert estimated.dimension_estimate is not None
    assert estimated.dimension in (1, 2)
    assert estimated.verdict in dict(map(reversed, estimated.sweep))  # type: ignore[arg-type]
    assert dict(estimated.sweep)[estimated.dimension] == estimated.verdict


def test_noise_is_used_and_reported() -> None:
    t = torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6.28
    clean = torch.stack([t.cos(), t.sin()], 1) @ torch.linalg.qr(gaussian(16, 2))[0].T
    signals = clean + 0.05 * gaussian(400, 16, seed=3)
    with_noise, without = (check(matrices(4, 12, 16), signals=signals, noise=s) for s in (0.05, None))
    assert with_noise.dimension is not None
    assert without.dimension is not None
    assert with_noise.dimension < without.dimension
    assert "T3" in {b.id for b in with_noise.bounds}
    assert "T3" not in {b.id for b in without.bounds}
    assert any("0.05" in w for w in with_noise.warnings)


def test_network_gives_a_local_certificate() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 16), nn.Unflatten(0, (4, 4))).double()
    family = OperatorFamily.from_matrices(gaussian(4, 7, 16), (4, 4))
    report = check(family, signals=Generated(net, 2))
    assert report.verdict == "certified"
    assert report.dimension == 2
    assert "network" in report.certificate.scope  # type: ignore[union-attr]
    few = check(OperatorFamily.from_matrices(gaussian(4, 5, 16), (4, 4)), signals=Generated(net, 2))
    assert few.verdict == "undecided"
    with pytest.raises(ValueError, match="2 latents"):
        check(family, signals=Generated(net, 2), dimension=3)


def test_measurements_alone() -> None:
    family = matrices(4, 9, 16)
    x = gaussian(1200, 2) @ gaussian(2, 16, seed=1)
    index = torch.arange(1200) % 4
    y = family(x, index)
    report = check(family, signals=Measurements(y, index))
    assert report.dimension == 2
    assert report.verdict == "certified"
    assert report.dimension_estimate is not None
    assert "almost every" in report.certificate.scope
    fixed = check(family, signals=Measurements(y, index), dimension=4)
    assert fixed.dimension == 4
    assert fixed.dimension_estimate is None
    assert fixed.sweep == ()


def test_complex_measurements_count_in_the_field_of_the_signals() -> None:
    fourier = Fourier((4, 4), complex=False)
    assert fourier.codomain.complex
    assert not fourier.domain.complex
    x = (gaussian(800, 3) @ gaussian(3, 16, seed=1)).reshape(-1, 4, 4)
    index = torch.zeros(800, dtype=torch.int64)
    assert check(fourier, signals=Measurements(fourier(x), index)).dimension == 3
    real = matrices(1, 12, 16)
    y = real(x.flatten(1), index)
    assert check(real, signals=Measurements(y, index)).dimension == 3
    with pytest.raises(ValueError, match=r"y is complex, but these operators give real"):
        check(real, signals=Measurements(y + 0j, index))


def test_an_estimate_that_reaches_m_proves_nothing_impossible() -> None:
    family = matrices(10, 6, 20)
    x = gaussian(1500, 8) @ gaussian(8, 20, seed=1)
    index = torch.arange(1500) % 10
    report = check(family, signals=Measurements(family(x, index), index))
    assert report.dimension == 6
    assert report.verdict == "undecided"
    assert report.reason.startswith("The estimated dimension")
    assert dict(report.sweep)[6] == "impossible"  # if k were 6
    assert [b.holds for b in report.bounds if b.id == "dimension"] == [None]
    assert check(family, dimension=6).verdict == "impossible"
    # Examples whose whole interval lies above m leave no doubt.
    assert check(family, signals=gaussian(1500, 20)).verdict == "impossible"


def test_certified_without_recovery_warns() -> None:
    report = check(matrices(20, 6, 20), dimension=3)
    assert report.verdict == "certified"
    assert any("m <= 2k" in w for w in report.warnings)
    assert not any("m <= 2k" in w for w in check(matrices(20, 7, 20), dimension=3).warnings)


def test_borderline_is_undecided() -> None:
    sizes = torch.ones(12, dtype=torch.float64)
    sizes[-1] = 1e-10
    report = check(Dense(torch.linalg.qr(gaussian(12, 12))[0] * sizes), dimension=2)
    assert report.verdict == "undecided"
    assert "Borderline" in report.reason
    assert any("borderline" in w for w in report.warnings)


def test_a_borderline_blur_has_no_directions_to_show() -> None:
    gauss = torch.exp(-(torch.arange(-7, 8).double() ** 2) / 8)
    kernel = (gauss[:, None] * gauss).float()
    blur = Blur(kernel / kernel.sum(), (32, 32), mode="circular")
    assert check(blur, group=Shifts((32, 32)), dimension=5).verdict == "undecided"  # in seconds, not minutes
    report = check(blur, dimension=5)
    assert report.verdict == "undecided"
    assert "Borderline" in report.reason
    assert report.unseen is None
    assert report.completable is None


def test_seed_changes_the_random_subspace_and_nothing_else() -> None:
    first, second, again = (check(masks(8, 20, keep=0.6), dimension=2, seed=s) for s in (0, 1, 0))
    assert first.certificate is not None
    assert second.certificate is not None
    assert again.certificate is not None
    assert first.certificate.gap == again.certificate.gap != second.certificate.gap
    assert first.verdict == second.verdict == "certified"


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    family = matrices(3, 8, 12)
    moved: list[object] = []
    original = OperatorFamily.to
    monkeypatch.setattr(
        OperatorFamily, "to", lambda self, d: (moved.append((self is family, d)), original(self, d))[1]
    )
    assert check(family, dimension=2, device="cpu").to_dict() == check(family, dimension=2).to_dict()
    assert moved == [(False, "cpu")]  # a copy is moved


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("which", ["matrices", "masks", "turned", "large"])
def test_gpu_gives_the_same_verdict(which: str) -> None:
    operators, group = {
        "matrices": (matrices(4, 14, 24), None),
        "masks": (masks(20, 5, 5, keep=0.7), None),
        "turned": (OperatorFamily.from_matrices(gaussian(2, 8, 16), (4, 4)), Dihedral((4, 4))),
        "large": (masks(30, 60, 60, keep=0.3), None),
    }[which]
    here, there = (check(operators, group=group, dimension=3, device=d) for d in ("cpu", "cuda"))
    assert here.verdict == there.verdict
    assert here.m == there.m
    assert here.certificate is not None
    assert there.certificate is not None
    assert there.certificate.gap == pytest.approx(here.certificate.gap, rel=1e-6)


def test_a_group_too_large_to_be_split() -> None:
    line = Permutations(torch.arange(1100).roll(1))
    report = check(Mask(torch.arange(1100) % 3 > 0), group=line, dimension=1)
    assert report.verdict == "certified"
    assert report.plan.minimal_m is None
    assert "?" in str(report)


def test_plan_comes_along() -> None:
    report = check(matrices(4, 14, 24), dimension=3)
    assert report.plan.minimal_m == 10
    assert report.plan.minimal_operators == 24 // 11 + 1
    assert check(masks(5, 100, keep=0.5), dimension=2).plan.expected_unseen is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subspace": gaussian(2, 12), "dimension": 2}, "subspace= alone"),
        ({"subspace": gaussian(2, 12), "signals": gaussian(40, 12)}, "subspace= alone"),
        ({"subspace": gaussian(1, 12).repeat(2, 1)}, "only 1 dimensions"),
        ({"subspace": gaussian(12)}, r"subspace= must be \(count, 12\)"),
        ({"signals": gaussian(40, 11)}, "signals="),
        ({"signals": torch.full((40, 12), torch.nan)}, "NaN"),
        ({"signals": gaussian(40, 12, complex=True)}, "real data"),
        ({"dimension": 2, "noise": -1.0}, "noise"),
        ({"dimension": 2, "noise": float("nan")}, "noise"),
        ({"dimension": 2, "group": Shifts((11,))}, "shape"),
        ({"dimension": 2, "group": Rotations90((4, 4))}, "shape"),
        ({"signals": Measurements(torch.zeros(9, 7))}, "7 numbers"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(matrices(3, 8, 12), **arguments)  # type: ignore[arg-type]


def test_bad_operators() -> None:
    a = gaussian(2, 3, 12)
    a[1, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        check(OperatorFamily.from_matrices(a), dimension=1)
    with pytest.raises(ValueError, match=r"operator 0 .*zero"):
        check(Mask(torch.zeros(4, 4)), dimension=1)
    with pytest.raises(TypeError, match="float16"):
        OperatorFamily.from_matrices(gaussian(2, 3, 12).half())
    with pytest.raises(TypeError, match="float16"):
        check(matrices(3, 8, 12), signals=gaussian(40, 12).half())
    with pytest.raises(ValueError, match="mixed domains"):
        OperatorFamily([Dense(gaussian(2, 3)), Dense(gaussian(2, 4))])
    with pytest.raises(ValueError, match="not closed"):
        Permutations.from_elements([[0, 1, 2], [1, 2, 0]])
    with pytest.raises(TypeError):
        check(nn.Linear(3, 3), dimension=1)  # type: ignore[arg-type]


def test_matrices_that_memory_cannot_hold_are_refused_untouched() -> None:
    row = gaussian(1, 1000)
    for huge in (row.expand(10**9, 1000), np.broadcast_to(row.numpy(), (10**9, 1000))):
        with pytest.raises(ValueError, match=r"8\.0 TB of memory"):
            Dense(huge)
        with pytest.raises(ValueError, match=r"8\.0 TB"):
            OperatorFamily.from_matrices(huge[None])
    with pytest.raises(ValueError, match=r"TB|PB"):
        OperatorFamily.from_masks(torch.ones(1, 1, dtype=torch.bool).expand(1, 10**7, 10**7))


def test_verdicts_are_stable_under_relabelling() -> None:
    a = gaussian(3, 9, 20)
    verdicts = {
        check(OperatorFamily.from_matrices(a[list(order)] * scale), dimension=2).verdict
        for order, scale in itertools.product(itertools.permutations(range(3)), (1e-8, 1e8))
    }
    assert verdicts == {"certified"}


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        check(OperatorFamily.from_masks(torch.ones(2, 4)), device="nowhere")
