"""Singular-value shrinkage against dense decompositions, block by block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from invlearn.unrolled import LocallyLowRank, NuclearNorm
from invlearn.unrolled.lowrank import shrink_singular_values


def noise(*shape: int, complex: bool = True, seed: int = 0) -> Tensor:
    kind = torch.complex128 if complex else torch.float64
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def reference(matrix: Tensor, threshold: float) -> Tensor:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u * (s - threshold).clamp_min(0).unsqueeze(-2)) @ vh


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (2, 4, 4)])
@pytest.mark.parametrize("complex", [False, True])
def test_singular_values_shrink(shape: tuple[int, ...], complex: bool) -> None:
    matrix = noise(*shape, complex=complex)
    for threshold in (0.0, 1.0, 2.5, 100.0):
        assert_close(
            shrink_singular_values(matrix, threshold), reference(matrix, threshold), atol=1e-10, rtol=0
        )


def test_gradient_at_equal_singular_values() -> None:
    # where the derivative of the eigenvectors alone does not exist
    matrix = torch.cat([2 * torch.eye(3), torch.zeros(3, 2)], 1).double().requires_grad_()
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shrink_singular_values, (matrix, t))
    mixed = torch.diag(torch.tensor([2.0, 2.0, 0.1, 0.1])).double().requires_grad_()
    assert torch.autograd.gradcheck(shrink_singular_values, (mixed, t))


def test_nuclear_norm_of_a_series() -> None:
    x = noise(2, 5, 4, 3)
    flat = x.reshape(2, 5, 12)
    assert_close(NuclearNorm(2.0).prox(x, 0.5), reference(flat, 1.0).reshape(x.shape))
    assert_close(NuclearNorm(2.0).value(x), 2 * torch.linalg.matrix_norm(flat, "nuc").sum())
    assert_close(NuclearNorm(2.0, ndim=1).prox(x[0], 0.5), reference(x[0], 1.0))


@pytest.mark.parametrize(("patch", "image"), [((2, 3), (4, 6)), ((3, 4), (7, 10)), ((2, 2, 3), (3, 4, 5))])
def test_blocks_one_by_one(patch: tuple[int, ...], image: tuple[int, ...]) -> None:
    x = noise(2, 4, *image)
    expected, total = torch.empty_like(x), torch.zeros((), dtype=torch.float64)
    corners = torch.cartesian_prod(*(torch.arange(0, n, p) for n, p in zip(image, patch, strict=True)))
    for corner in corners.tolist():
        block = (..., *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))
        part = x[block].flatten(2)  # smaller at the far border
        expected[block] = reference(part, 0.6).reshape(x[block].shape)
        total += torch.linalg.matrix_norm(part, "nuc").sum()
    regulariser = LocallyLowRank(1.2, patch)
    assert_close(regulariser.prox(x, 0.5), expected)
    assert_close(regulariser.value(x), 1.2 * total)


def test_shifts_average_shifted_tilings() -> None:
    x = noise(4, 8, 8)
    plain = LocallyLowRank(1.0, (4, 4))

    def moved(o: int) -> Tensor:
        return plain.prox(x.roll((-o, -o), (1, 2)), 1.0).roll((o, o), (1, 2))

    assert_close(LocallyLowRank(1.0, (4, 4), shifts=2).prox(x, 1.0), (moved(0) + moved(2)) / 2)
    assert_close(
        LocallyLowRank(1.0, (4, 4), shifts=4).prox(x, 1.0), torch.stack([moved(o) for o in range(4)]).mean(0)
    )
    values = [plain.value(x.roll((-o, -o), (1, 2))) for o in (0, 2)]
    assert_close(LocallyLowRank(1.0, (4, 4), shifts=2).value(x), torch.stack(values).mean())


def test_removes_noise_of_a_low_rank_series() -> None:
    clean = torch.einsum("kr,rij->kij", noise(6, 1), noise(1, 16, 16, seed=1))
    noisy = clean + 0.3 * noise(6, 16, 16, seed=2)
    denoised = LocallyLowRank(2.0, (8, 8), shifts=4).prox(noisy, 1.0)
    assert (denoised - clean).norm() < 0.7 * (noisy - clean).norm()


def test_single_precision_is_kept_and_accurate() -> None:
    x = noise(5, 8, 8)
    single = LocallyLowRank(0.01, (4, 4)).prox(x.to(torch.complex64), 1.0)
    assert single.dtype == torch.complex64
    assert_close(single.to(x.dtype), LocallyLowRank(0.01, (4, 4)).prox(x, 1.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NuclearNorm(-1.0), "NuclearNorm: the weight"),
        (lambda: NuclearNorm(ndim=0), "ndim must be at least 1, got 0"),
        (lambda: NuclearNorm().prox(torch.zeros(3, 3), 1.0), r"acts on \(\*batch, K, 2 image axes\)"),
        (lambda: LocallyLowRank(-1.0), "LocallyLowRank: the weight"),
        (lambda: LocallyLowRank(patch=()), "positive sizes"),
        (lambda: LocallyLowRank(patch=(4, 0)), "positive sizes"),
        (lambda: LocallyLowRank(patch=(4, 8), shifts=5), "between 1 and 4"),
        (lambda: LocallyLowRank(shifts=0), "between 1 and 8"),
        (lambda: LocallyLowRank().prox(torch.zeros(8, 8), 1.0), "LocallyLowRank acts on"),
    ],
)
def test_bad_input(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
