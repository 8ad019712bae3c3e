"""Three routes to one null space, and the traps between them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from invlearn.identifiability import nullspace
from invlearn.identifiability.certificates import random_subspace
from invlearn.identifiability.nullspace import NullSpace, _dense, _diagonal, _lanczos, null_space, orth
from invlearn.identifiability.setting import Element, Setting
from invlearn.physics import Blur, Dense, Mask, OperatorFamily
from invlearn.physics.groups import Dihedral, Group, Rotations90, Shifts


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def masks(count: int, *shape: int, keep: float, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) < keep


def residual(setting: Setting, elements: list[Element], basis: Tensor, vectors: Tensor) -> float:
    """Largest size of (I - Π_{A_e V}) A_e w over null vectors w."""
    worst = 0.0
    for e in elements:
        a = setting.matrix(e)
        q = torch.linalg.qr(a @ basis.T)[0] if len(basis) else a[:, :0]
        y = a @ vectors.T
        worst = max(worst, float(torch.linalg.matrix_norm(y - q @ (q.mH @ y))))
    return worst


LINE = torch.eye(12, dtype=torch.float64)
CASES: dict[str, tuple[OperatorFamily, Group | None, int]] = {
    "masks": (OperatorFamily.from_masks(masks(6, 24, keep=0.6)), None, 2),
    "too few masks": (OperatorFamily.from_masks(masks(2, 24, keep=0.5)), None, 4),
    "unseen pixels": (OperatorFamily.from_masks(masks(2, 24, keep=0.5, seed=3)), None, 2),
    "complex masks": (OperatorFamily.from_masks(masks(6, 24, keep=0.6), complex=True), None, 2),
    "rotated mask": (OperatorFamily.from_masks(masks(1, 6, 6, keep=0.7, seed=1)), Dihedral((6, 6)), 2),
    "k-space": (OperatorFamily.from_kspace_masks(masks(5, 5, 5, keep=0.6)), None, 2),
    "rotated k-space": (OperatorFamily.from_kspace_masks(masks(1, 6, 6, keep=0.6)), Rotations90((6, 6)), 1),
    "shifted k-space": (OperatorFamily.from_kspace_masks(masks(1, 5, 5, keep=0.6)), Shifts((5, 5)), 2),
    "real blur": (
        OperatorFamily([Blur(torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64), (12,))]), Shifts((12,)), 2
    ),
    "real blurs": (
        OperatorFamily([Blur(torch.fft.ifft(LINE[i] + LINE[-i]).real, (12,)) for i in range(7)]),
        None,
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("plain", [True, False], ids=["stack", "subspace"])
@pytest.mark.parametrize("case", CASES)
def test_the_routes_agree(case: str, plain: bool) -> None:
    family, group, k = CASES[case]
    setting = Setting(family, group)
    assert setting.basis is not None
    basis = random_subspace(setting, k, torch.Generator().manual_seed(5))
    elements = setting.elements()
    bases, assignment = ([], [-1] * len(elements)) if plain else ([basis], [0] * len(elements))
    found: dict[str, NullSpace] = {}
    for route in (_dense, _diagonal, _lanczos):
        found[route.__name__] = route(setting, elements, bases, assignment)
    assert found["_dense"].nullity == found["_diagonal"].nullity
    for result in found.values():
        assert len(result.vectors) == result.nullity
        gram = result.vectors.conj() @ result.vectors.T
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), atol=1e-6, rtol=0)
        assert residual(setting, elements, basis[:0] if plain else basis, result.vectors) < 1e-4
    dense, quick = found["_dense"].vectors, found["_diagonal"].vectors
    torch.testing.assert_close(dense.T @ dense.conj(), quick.T @ quick.conj(), atol=1e-7, rtol=0)
    # Lanczos stops after eight null vectors besides those it is given
    known = 0 if plain else k
    assert found["_lanczos"].nullity == min(found["_dense"].nullity, known + 8)
    assert (found["_lanczos"].gap > 0) == (found["_dense"].nullity < known + 8)


@pytest.mark.parametrize("complex", [False, True])
def test_lanczos_gap_is_the_gap_of_dense_matrices(complex: bool) -> None:
    setting = Setting(OperatorFamily.from_matrices(gaussian(4, 16, 40, complex=complex)))
    basis = random_subspace(setting, 3, torch.Generator().manual_seed(0))
    elements = setting.elements()
    dense = _dense(setting, elements, [basis], [0] * 4)
    lanczos = _lanczos(setting, elements, [basis], [0] * 4)
    assert dense.nullity == lanczos.nullity == 3
    assert lanczos.gap == pytest.approx(dense.gap, rel=0.1)
    assert not lanczos.exact
    assert dense.exact
    assert 3 < lanczos.applications <= 3 + 40


@pytest.mark.parametrize("seed", range(6))
def test_lanczos_never_calls_a_deficient_stack_full(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    seen = masks(8, 45, 45, keep=0.5, seed=seed)
    seen[:, seed, 7 * seed] = False  # one pixel in 2025
    others = ~seen.any(0)
    setting = Setting(OperatorFamily.from_masks(seen))
    elements = setting.elements()
    basis = random_subspace(setting, 2, generator)
    for bases, assignment in (([], [-1] * 8), ([basis], [0] * 8)):
        found = _lanczos(setting, elements, bases, assignment)
        known = 2 if bases else 0
        assert known < found.nullity <= known + int(others.sum())
        assert found.applications <= nullspace._MAX_APPLICATIONS + 5
        ghost = found.vectors[-1]
        outside = ghost - others.flatten() * ghost if not bases else ghost[:0]
        assert float(torch.linalg.vector_norm(outside)) < 1e-4


def test_lanczos_full_rank_within_its_budget() -> None:
    setting = Setting(OperatorFamily.from_masks(masks(30, 45, 45, keep=0.3)))
    basis = random_subspace(setting, 8, torch.Generator().manual_seed(0))
    found = _lanczos(setting, setting.elements(), [basis], [0] * 30)
    exact = _diagonal(setting, setting.elements(), [basis], [0] * 30)
    assert found.nullity == exact.nullity == 8
    assert found.gap > 0.05
    assert found.applications < 150


def test_lanczos_out_of_budget_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(Dense(torch.diag(torch.logspace(0, -5, 60, dtype=torch.float64))))
    monkeypatch.setattr(nullspace, "_MAX_APPLICATIONS", 12)
    found = _lanczos(setting, setting.elements(), [], [-1])
    assert found.gap == 0
    assert found.nullity == 0
    assert "stopped" in found.method


@pytest.mark.parametrize("seed", range(3))
def test_no_false_ghost_at_the_threshold(seed: int) -> None:
    # (n, k, G) = (36, 6, 6), m = 12: the last singular values are near 1e-4, their squares near 1e-8
    setting = Setting(OperatorFamily.from_matrices(gaussian(6, 12, 36, seed=seed)))
    generator = torch.Generator().manual_seed(seed)
    bases = [random_subspace(setting, 6, generator) for _ in range(2)]
    elements = setting.elements()
    for assignment in itertools.product((0, 1), repeat=5):
        found = null_space(setting, elements, bases, (0, *assignment))
        assert found.nullity == (0 if any(assignment) else 6)
        assert not found.borderline
        assert found.gap > 1e-6


UNIONS = [
    ((32, 4, 4), 11, 4),
    ((32, 4, 4), 12, 0),
    ((36, 6, 6), 11, 6),
    ((24, 2, 3), 9, 3),
    ((24, 2, 3), 10, 0),
]


@pytest.mark.parametrize(("sizes", "m", "ghosts"), UNIONS)
def test_ghosts_of_a_union_of_subspaces(sizes: tuple[int, int, int], m: int, ghosts: int) -> None:
    n, k, g = sizes
    setting = Setting(OperatorFamily.from_matrices(gaussian(g, m, n, seed=m)))
    generator = torch.Generator().manual_seed(1)
    bases = [random_subspace(setting, k, generator) for _ in range(2)]
    for assignment in itertools.product((0, 1), repeat=g):  # all of them
        found = null_space(setting, setting.elements(), bases, assignment).nullity
        if len(set(assignment)) > 1:
            assert found == ghosts == max(0, n - g * (m - k))
        else:  # one subspace: itself, once m >= k + (n - k)/G
            assert found == (k if m >= math.ceil(k + (n - k) / g) else k + n - k - g * (m - k))


@pytest.mark.parametrize(("sizes", "threshold"), [((20, 4, 1), 6), ((20, 4, 2), 7), ((18, 6, 1), 4)])
def test_orbits_of_a_subspace_under_cyclic_shifts(sizes: tuple[int, int, int], threshold: int) -> None:
    """m = k + n/|G| leaves no ghost, one less does: an observation on random operators, no theorem."""
    n, order, k = sizes
    group = Shifts((n,), step=n // order)
    generator = torch.Generator().manual_seed(2)
    for m in (threshold - 1, threshold):
        setting = Setting(Dense(gaussian(m, n, seed=m)), group)
        v = random_subspace(setting, k, generator)
        copies = [setting.move(v, Element(0, h)) for h in range(order)]
        worst = 0
        every = max(1, order ** (order - 1) // 130)  # all of them for |G| = 4
        # the first assignment may be 0: a common move of all of them moves the intersection
        for rest in itertools.islice(itertools.product(range(order), repeat=order - 1), 0, None, every):
            if any(rest):
                worst = max(worst, null_space(setting, setting.elements(), copies, (0, *rest)).nullity)
        assert (worst == 0) == (m == threshold)


@pytest.mark.parametrize("complex", [False, True])
def test_nothing_is_left_of_a_projection_onto_everything(complex: bool) -> None:
    setting = Setting(Dense(gaussian(6, 6, complex=complex)))
    basis = random_subspace(setting, 6, torch.Generator().manual_seed(0))
    for route in (_dense, _lanczos):
        found = route(setting, setting.elements(), [basis], [0])
        assert found.nullity == 6
    everything = Setting(Mask(torch.ones(6)))
    found = _diagonal(
        everything, everything.elements(), [random_subspace(everything, 6, torch.Generator())], [0]
    )
    assert found.nullity == 6
    assert found.gap == 1


def test_units_do_not_matter() -> None:
    a = gaussian(2, 8, 12)
    for scales in ((1.0, 1.0), (1e-9, 1e9)):
        family = OperatorFamily.from_matrices([s * x for s, x in zip(scales, a, strict=True)])
        setting = Setting(family)
        for route in (_dense, _lanczos):
            assert route(setting, setting.elements(), [], [-1, -1]).nullity == 0


def test_unseen_entries_and_ghosts_are_counted_together() -> None:
    seen = masks(3, 20, keep=0.6, seed=1)
    seen[:, 4] = False
    setting = Setting(OperatorFamily.from_masks(seen))
    basis = random_subspace(setting, 5, torch.Generator().manual_seed(0))
    quick = _diagonal(setting, setting.elements(), [basis], [0] * 3)
    dense = _dense(setting, setting.elements(), [basis], [0] * 3)
    assert quick.nullity == dense.nullity > 6


def test_a_subspace_of_more_than_64_dimensions_keeps_its_gap() -> None:
    setting = Setting(OperatorFamily.from_masks(masks(12, 300, keep=0.8)))
    basis = random_subspace(setting, 70, torch.Generator().manual_seed(0))
    found = null_space(setting, setting.elements(), [basis], [0] * 12)
    assert found.nullity == 70
    assert 0.1 < found.gap < 1


@pytest.mark.parametrize(
    ("smallest", "nullity", "borderline"), [(1e-5, 0, False), (1e-9, 0, True), (1e-14, 1, False)]
)
def test_borderline(smallest: float, nullity: int, borderline: bool) -> None:
    sizes = torch.tensor([1.0, 0.7, 0.5, smallest], dtype=torch.float64)
    matrix = Setting(Dense(torch.linalg.qr(gaussian(4, 4))[0] * sizes))
    found = null_space(matrix, matrix.elements(), [], [-1])
    assert (found.nullity, found.borderline) == (nullity, borderline)
    if not nullity:
        assert found.gap == pytest.approx(smallest, rel=0.01)
    # the same amplitudes as a circular blur, in the Fourier basis
    kernel = torch.fft.irfft(torch.tensor([1.0, 0.7, 0.5, smallest], dtype=torch.float64), n=6)
    blur = Setting(Blur(kernel.roll(3), (6,)))
    basis = random_subspace(blur, 1, torch.Generator().manual_seed(0))
    assert _diagonal(blur, blur.elements(), [basis], [0]).borderline == borderline


def test_single_precision_is_not_taken_for_more() -> None:
    low = gaussian(8, 6).float() @ gaussian(6, 12).float()
    setting = Setting(Dense(low))
    assert null_space(setting, setting.elements(), [], [-1]).nullity == 6


@pytest.mark.parametrize("complex", [False, True])
def test_orth(complex: bool) -> None:
    b = gaussian(9, 3, complex=complex)
    dependent = torch.cat([b, b @ gaussian(3, 2, complex=complex)], 1)
    for columns, rank in ((b, 3), (dependent, 3), (b[:, :0], 0), (torch.zeros_like(b), 0), (1e-30 * b, 3)):
        q = orth(columns)
        assert q.shape == (9, rank)
        torch.testing.assert_close(q.mH @ q, torch.eye(rank, dtype=b.dtype))
        if rank:
            torch.testing.assert_close(q @ (q.mH @ columns), columns, rtol=1e-9, atol=0)


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("size", [4, 24], ids=["few rows: ghosts", "enough rows"])
def test_lanczos_under_shifts_with_faint_modes_agrees_with_dense(size: int, complex: bool) -> None:
    """Modes scaled by their coverage: the same null space, of the unscaled problem."""
    smooth = torch.diag(torch.linspace(0, 1, 24, dtype=torch.float64).sub(0.5).abs().mul(2).pow(6).add(1e-4))
    colored = torch.fft.ifft(torch.fft.fft(gaussian(size, 24, seed=3)) @ smooth.to(torch.complex128)).real
    matrix = colored * (1 + 0.3j * gaussian(size, 24, seed=5)) if complex else colored
    setting = Setting(Dense(matrix), Shifts((24,), step=1))
    basis = random_subspace(setting, 3, torch.Generator().manual_seed(1))
    elements = setting.elements(8 if size == 4 else None, seed=2)
    exact = _dense(setting, elements, [basis], [0] * len(elements))
    free = _lanczos(setting, elements, [basis], [0] * len(elements))
    assert setting.mode_gain is not None
    assert (exact.nullity > 3) == (size == 4)
    assert free.nullity == min(exact.nullity, 11)  # it looks for eight beyond the model
    assert residual(setting, elements, basis, free.vectors) < 1e-5


def test_a_blur_under_shifts_is_decided_matrix_free() -> None:
    """Its faint modes have 1e-2 of the gain of the strong ones: 1e-4 in the eigenvalues."""
    kernel = torch.tensor([[1.0, 2, 1], [2, 3.9, 2], [1, 2, 1]], dtype=torch.float64) / 16
    setting = Setting(Blur(kernel, (40, 40), mode="valid"), Shifts((40, 40)))
    basis = random_subspace(setting, 4, torch.Generator().manual_seed(0))
    elements = setting.elements(64)
    found = null_space(setting, elements, [basis], [0] * len(elements))
    assert setting.mode_gain is not None
    assert float(setting.mode_gain.min() / setting.mode_gain.max()) < 0.02
    assert found.nullity == 4
    assert found.gap > 0.05
    assert "scaled" in found.method
    assert found.applications < 150
