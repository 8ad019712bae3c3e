"""Effective operators: ranks, duplicates, group action, the table of coverage ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.identifiability.setting import Element, Setting, matrix_rank
from invlearn.physics import Blur, Dense, Downsample, Fourier, LinearOperator, Mask, OperatorFamily
from invlearn.physics.groups import Dihedral, Flips, Group, Permutations, Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI
from invlearn.physics.space import Space


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class WrongAdjoint(LinearOperator):
    def __init__(self) -> None:
        super().__init__(Space((6,)), Space((6,)))

    def _forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.cumsum(-1)


class NotANumber(LinearOperator):
    def __init__(self) -> None:
        super().__init__(Space((4,)), Space((4,)))

    def _forward(self, x: Tensor) -> Tensor:
        return x / 0 * 0

    def _adjoint(self, y: Tensor) -> Tensor:
        return y


def every_kind() -> list[tuple[OperatorFamily, Group | None]]:
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(3, 4, 4, generator=generator) < 0.4
    kspace = torch.rand(2, 4, 4, generator=generator) < 0.4
    shift = Permutations(torch.randperm(16, generator=generator), (4, 4))
    one_sided = Mask(kspace[0], complex=True) @ Fourier((4, 4), complex=False)
    return [
        (OperatorFamily.from_masks(masks), None),
        (OperatorFamily.from_masks(masks), Rotations90((4, 4))),
        (OperatorFamily.from_masks(masks, complex=True), Dihedral((4, 4))),
        (OperatorFamily.from_kspace_masks(kspace), Dihedral((4, 4))),
        (OperatorFamily.from_kspace_masks(kspace), shift),
        (OperatorFamily.from_matrices(gaussian(2, 5, 16), (4, 4)), Shifts((4, 4))),
        (OperatorFamily.from_matrices(gaussian(2, 5, 16, complex=True), (4, 4)), Flips((4, 4))),
        (OperatorFamily([one_sided]), Rotations90((4, 4))),
        (OperatorFamily([Blur(gaussian(3, 3), (4, 4))]), Shifts((4, 4))),
    ]


@pytest.mark.parametrize("case", range(len(every_kind())))
def test_matrix_apply_adjoint_normal_and_diagonal_are_one_operator(case: int) -> None:
    family, group = every_kind()[case]
    setting = Setting(family, group)
    x = setting.domain.flatten(setting.domain.random(2, generator=torch.Generator().manual_seed(2)))
    for e in setting.elements()[:: max(1, setting.count // 6)]:
        a = setting.matrix(e)
        torch.testing.assert_close(setting.apply(x, e), x @ a.T)
        y = gaussian(2, a.shape[0], complex=a.is_complex())
        torch.testing.assert_close(setting.adjoint(y, e), y @ a.conj())
        torch.testing.assert_close(setting.normal(x, e), x @ (a.mH @ a).T)
        moved = setting.domain.unflatten(x)
        if group is not None:
            moved = group(moved, e.group)
        plain = setting.matrix(Element(e.operator, 0))
        torch.testing.assert_close(setting.apply(x, e), setting.domain.flatten(moved) @ plain.T)
        if setting.basis is not None:
            size = torch.linalg.eigvalsh(a.mH @ a)[-1]
            c = setting.coordinates(x)
            torch.testing.assert_close(
                setting.signals(c * setting.diagonal(e)), setting.normal(x, e) / size, atol=1e-12, rtol=1e-9
            )


def test_bases() -> None:
    found = [Setting(family, group).basis for family, group in every_kind()]
    assert found == ["pixel", "pixel", "pixel", "fourier", None, None, None, None, "fourier"]


def test_elements_are_all_or_distinct_ones() -> None:
    setting = Setting(OperatorFamily.from_matrices(gaussian(2, 3, 12)), Shifts((12,)))
    assert len(set(setting.elements())) == setting.count == 24
    some = setting.elements(7, seed=1)
    assert len(set(some)) == 7
    assert set(some) < set(setting.elements())
    assert some == setting.elements(7, seed=1) != setting.elements(7, seed=2)


# Rank of E_g T_gᴴ AᴴA T_g on 12 x 12 images: shifts, quarter turns, D4.
GROUPS = [Shifts((12, 12)), Rotations90((12, 12)), Dihedral((12, 12))]


def missing_block() -> Tensor:
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[4:8, 4:8] = False
    return mask


def lines() -> Tensor:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[::3] = True  # counted from the zero frequency
    return mask


def low_pass(disk: bool) -> Tensor:
    f = torch.fft.fftfreq(12) * 12
    u, v = torch.meshgrid(f, f, indexing="ij")
    return u**2 + v**2 <= 9.5 if disk else (u.abs() <= 3.5) & (v.abs() <= 3.5)


def ranks(operator: LinearOperator) -> list[int]:
    from invlearn.identifiability.coverage import measure_coverage

    out = []
    for group in GROUPS:
        setting = Setting(operator, group)
        found = measure_coverage(setting)
        assert found.settled
        if setting.coverage is not None:
            assert int((setting.coverage > 0).sum()) == found.rank
        dense = torch.cat([setting.matrix(e) for e in setting.elements()[:36]])
        if group.order <= 36:
            assert int(torch.linalg.matrix_rank(dense)) == found.rank
        out.append(found.rank)
    return out


def test_table_of_ranks_masks() -> None:
    assert ranks(Mask(missing_block())) == [144, 128, 128]
    assert ranks(Downsample((12, 12), 2, antialias=False)) == [144, 144, 144]


def test_table_of_ranks_random_mask_structure() -> None:
    # an orbit of a quarter turn is missed where all of its four pixels are
    mask = torch.rand(12, 12, generator=torch.Generator().manual_seed(4)) < 0.45
    turned = torch.stack([torch.rot90(mask, t) for t in range(4)]).any(0)
    flipped = turned | turned.flip(-1)
    assert ranks(Mask(mask)) == [144, int(turned.sum()), int(flipped.sum())]
    assert int(turned.sum()) < 144


def test_table_of_ranks_fourier() -> None:
    assert ranks(CartesianMRI(lines(), centered=False)) == [48, 80, 80]
    assert ranks(CartesianMRI(low_pass(False), centered=False)) == [49, 49, 49]
    assert ranks(CartesianMRI(low_pass(True), centered=False)) == [29, 29, 29]
    seen = torch.rand(12, 12, generator=torch.Generator().manual_seed(5)) < 0.4
    shift, turn, all_of_them = ranks(CartesianMRI(seen, centered=False))
    assert shift == int(seen.sum()) < turn <= all_of_them < 144


def test_a_shift_never_helps_a_blur_nor_a_turn_an_isotropic_one() -> None:
    f = low_pass(True).double()
    kernel = torch.fft.ifft2(f).real.roll((6, 6), (0, 1))
    assert ranks(Blur(kernel, (12, 12))) == [29, 29, 29]


def test_coverage_counts_effective_operators() -> None:
    masks = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.3
    group = Dihedral((6, 6))
    coverage = Setting(OperatorFamily.from_masks(masks), group).coverage
    counted = sum(group(m.double(), g) for m in masks for g in range(8))
    assert coverage is not None
    torch.testing.assert_close(coverage, counted)
    trivial = Setting(Mask(torch.ones(1, 1)), Shifts((1, 1))).coverage
    assert trivial is not None
    assert trivial.tolist() == [[1.0]]
    assert Setting(Dense(gaussian(3, 6))).coverage is None


def test_rank_counts_not_rows() -> None:
    a = gaussian(5, 12)
    family = OperatorFamily.from_matrices([torch.cat([a, a[:2]]), a[:3], gaussian(14, 12)])
    setting = Setting(family)
    assert setting.rows == (7, 3, 14)
    assert setting.ranks == (5, 3, 12)
    single = OperatorFamily([Dense((gaussian(8, 4) @ gaussian(4, 12)).float())])
    assert Setting(single).ranks == (4,)  # the redundancy is exact to single precision only


def test_complex_measurements_of_real_signals_are_pairs() -> None:
    half = torch.zeros(8, dtype=torch.bool)
    half[1:4] = True
    setting = Setting(Mask(half, complex=True) @ Fourier((8,), complex=False))
    assert setting.rows == (16,)
    assert setting.ranks == (6,)
    both = half | half.flip(0).roll(1)  # the conjugate frequencies say nothing new
    assert Setting(Mask(both, complex=True) @ Fourier((8,), complex=False)).ranks == (6,)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_duplicates_are_equal_row_spaces(scale: float) -> None:
    a, mix = gaussian(5, 12), gaussian(5, 5, seed=1)
    wide = torch.cat([a, gaussian(1, 5, seed=2) @ a])
    matrices = [a, gaussian(5, 12, seed=3), scale * mix @ a, wide, a[:4]]
    setting = Setting(OperatorFamily.from_matrices(matrices))
    assert setting.duplicates == ((0, 2), (0, 3))
    assert setting.effective == 3
    assert setting.distinct_ranks == (5, 5, 4)
    single = OperatorFamily.from_matrices([a.float(), -3 * a.float(), a.float().flip(0) / 7])
    assert Setting(single).duplicates == ((0, 1), (0, 2))  # equal to single precision
    assert Setting(OperatorFamily.from_matrices(gaussian(2, 6, 6))).duplicates == ()  # both see everything
    masks = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 0, 1]])
    assert Setting(OperatorFamily.from_masks(masks)).duplicates == ((0, 2),)


def test_only_the_operators_that_need_it_get_a_matrix() -> None:
    n = 1600  # above the limit for matrices; the blur's would have 2.5 million entries
    family = OperatorFamily([Dense(gaussian(3, n), (40, 40)), Blur(gaussian(3, 3), (40, 40), "replicate")])
    setting = Setting(family)
    assert setting.ranks == (3, n)
    assert setting.rank_unknown == {1}
    assert list(setting._matrices) == [0]


@pytest.mark.parametrize(("smallest", "rank"), [(1e-3, 4), (1e-9, 4), (1e-13, 3)])
def test_matrix_rank(smallest: float, rank: int) -> None:
    u, v = torch.linalg.qr(gaussian(9, 4))[0], torch.linalg.qr(gaussian(6, 4, seed=1))[0]
    a = u @ torch.diag(torch.tensor([1.0, 0.5, 0.2, smallest], dtype=torch.float64)) @ v.T
    assert matrix_rank(a, 1e-11) == matrix_rank(a.T, 1e-11) == rank
    assert matrix_rank(a @ a.T, 1e-11) == int((smallest**2 > 1e-11) + 3)


def test_precision_follows_the_stored_dtype() -> None:
    assert (
        Setting(Dense(gaussian(3, 6))).precision.rank < Setting(Dense(gaussian(3, 6).float())).precision.rank
    )
    assert Setting(Mask(torch.ones(6))).precision == Setting(Dense(gaussian(3, 6))).precision


def test_bad_operators_are_named() -> None:
    good = Dense(gaussian(3, 6))
    with pytest.raises(ValueError, match=r"operator 1 \(WrongAdjoint.*wrong adjoint"):
        Setting(OperatorFamily([good, WrongAdjoint()]))
    with pytest.raises(ValueError, match=r"operator 1 .* is zero"):
        Setting(OperatorFamily([good, Dense(torch.zeros(3, 6))]))
    with pytest.raises(ValueError, match=r"operator 0 .*NaN or infinite"):
        Setting(NotANumber())
    with pytest.raises(ValueError, match="shape"):
        Setting(good, Shifts((5,)))
    with pytest.raises(ValueError, match="mixed domains"):
        Setting(OperatorFamily([good, Dense(gaussian(3, 5))]))


def test_nonlinear_operators_are_refused_with_a_way_out() -> None:
    with pytest.raises(TypeError, match="linearize") as error:
        Setting.__init__.__wrapped__(Setting.__new__(Setting), np.sin)  # past the test-only type check
    assert "ufunc" in str(error.value)


def test_a_group_is_given_as_an_object() -> None:
    with pytest.raises(TypeError, match=r"group= is a Group, such as Shifts\(\(4,\)\), got str 'shifts'"):
        Setting.__init__.__wrapped__(Setting.__new__(Setting), Dense(torch.eye(4)), "shifts")


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_sizes_whose_squares_are_no_numbers_are_named(size: float) -> None:
    family = OperatorFamily([Dense(gaussian(3, 4)), Dense(size * gaussian(3, 4))])
    with pytest.raises(ValueError, match=r"operator 1 \(Dense.*gives values of size .*; scale it"):
        Setting(family)
