"""Proximal operators against closed forms, PyWavelets and general-purpose optimisers."""

from __future__ import annotations

import logging
import math
from functools import partial

import numpy as np
import pytest
import pywt
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from invlearn.unrolled import (
    L1,
    Box,
    GroupL1,
    LocallyLowRank,
    NuclearNorm,
    TotalVariation,
    WaveletShrinkage,
    Zero,
)


def noise(*shape: int, complex: bool = False, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    kind = torch.complex128 if complex else dtype
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


ALL = {
    "zero": Zero(),
    "l1": L1(0.7),
    "group": GroupL1(0.7, axis=-3),
    "tv": TotalVariation(0.3, tolerance=1e-5),
    "wavelet": WaveletShrinkage(0.6, "db2", level=1),
    "nuclear": NuclearNorm(0.9),
    "low rank": LocallyLowRank(0.9, (3, 4)),
}
EVERY = pytest.mark.parametrize("name", ALL)


# --- what makes it a proximal operator


@EVERY
@pytest.mark.parametrize("complex", [False, True])
def test_is_the_minimiser(name: str, complex: bool) -> None:
    regulariser, x, step = ALL[name], noise(4, 8, 6, complex=complex), 0.8
    u = regulariser.prox(x, step)

    def objective(v: Tensor) -> float:
        return float(0.5 * (v - x).abs().square().sum() + step * regulariser.value(v))

    least = objective(u)
    for seed in range(5):
        direction = noise(4, 8, 6, complex=complex, seed=seed + 1)
        for size in (1e-3, 1e-1):
            assert objective(u + size * direction) > least - 1e-9
    assert u.dtype == x.dtype
    if name != "zero":
        assert objective(x) > least + 1e-3
        assert regulariser.value(u) < regulariser.value(x)


@EVERY
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), step=st.floats(0.01, 3.0), complex=st.booleans())
def test_is_firmly_nonexpansive(name: str, seed: int, step: float, complex: bool) -> None:
    prox = partial(ALL[name].prox, step=step)
    x, y = noise(3, 4, 4, complex=complex, seed=seed), noise(3, 4, 4, complex=complex, seed=seed + 1)
    p, q = prox(x), prox(y)
    inner = float(((x - y).conj() * (p - q)).real.sum())
    assert float((p - q).abs().square().sum()) <= inner + 1e-3


@EVERY
def test_batch_entries_are_independent(name: str) -> None:
    x = noise(3, 4, 8, 8)
    together = ALL[name].prox(x, 0.5)
    for one, each in zip(x, together, strict=True):
        assert_close(ALL[name].prox(one, 0.5), each, rtol=0, atol=1e-4)
    total = sum(ALL[name].value(one) for one in x)
    assert_close(ALL[name].value(x), torch.as_tensor(total, dtype=x.dtype))


@EVERY
def test_weight_and_step_multiply_and_single_precision_stays(name: str) -> None:
    regulariser, x = ALL[name], noise(2, 8, 8)
    single = regulariser.prox(x.float(), 0.5)
    assert single.dtype == torch.float32
    assert_close(single.double(), regulariser.prox(x, 0.5), rtol=0, atol=2e-3 if name == "tv" else 2e-5)
    assert_close(regulariser.prox(x, torch.tensor(0.5, dtype=x.dtype)), regulariser.prox(x, 0.5))
    if name != "zero":
        assert (regulariser.prox(x, 1.0) - regulariser.prox(x, 0.5)).abs().max() > 1e-3
        double = type(regulariser)(**{**vars(regulariser), "weight": 2 * regulariser.weight})
        assert_close(
            double.prox(x, 0.5), regulariser.prox(x, 1.0), rtol=0, atol=1e-3 if name == "tv" else 1e-9
        )
        assert_close(double.value(x), 2 * regulariser.value(x))


@pytest.mark.parametrize("name", ["l1", "group", "wavelet", "nuclear", "low rank"])
@pytest.mark.parametrize("complex", [False, True])
def test_gradients(name: str, complex: bool) -> None:
    x = noise(2, 4, 4, complex=complex).requires_grad_()
    step = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ALL[name].prox, (x, step))


def test_gradients_at_zero_are_finite() -> None:
    for name in ("l1", "group", "wavelet", "nuclear", "low rank", "tv"):
        x = torch.zeros(3, 8, 8, dtype=torch.float64, requires_grad=True)
        ALL[name].prox(x, 0.5).sum().backward()
        assert torch.isfinite(x.grad).all()


# --- oracles, one by one


def test_soft_thresholding_by_hand() -> None:
    x = torch.tensor([3.0, -0.5, 0.0, -2.0, 3j, 0.6 + 0.8j], dtype=torch.complex128)
    expected = torch.tensor([2.0, 0.0, 0.0, -1.0, 2j, 0.0], dtype=torch.complex128)
    assert_close(L1(2.0).prox(x, 0.5), expected)
    assert float(L1(2.0).value(x)) == pytest.approx(2 * 9.5)


def test_groups_vanish_together() -> None:
    x = torch.tensor([[3.0, 0.3], [4.0, 0.4]], dtype=torch.float64)
    assert_close(GroupL1(1.0, axis=-2).prox(x, 1.0), torch.tensor([[2.4, 0.0], [3.2, 0.0]]).double())
    assert_close(GroupL1(1.0, axis=(-2, -1)).prox(x, 1.0), x * (1 - 1 / x.norm()))
    assert float(GroupL1(2.0, axis=-2).value(x)) == pytest.approx(11.0)


def test_box() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0])
    assert torch.equal(Box().prox(x, 1.0), torch.tensor([0.0, 0.5, 2.0]))
    assert torch.equal(Box(-0.5, 1.0).prox(x, 1.0), torch.tensor([-0.5, 0.5, 1.0]))
    assert Box().value(x) == math.inf
    assert Box(-1.0, 2.0).value(x) == 0


def test_total_variation_of_a_signal_against_bounded_least_squares() -> None:
    # the dual of the 1-D problem: min ½‖x - tDᵀp‖² over |p| <= 1
    x = noise(2, 30).cumsum(-1)
    difference = np.diff(np.eye(30), axis=0)
    for weight in (0.3, 3.0):
        u = TotalVariation(weight, 1, tolerance=1e-6, max_iterations=20_000).prox(x, 0.5)
        for one, got in zip(x.numpy(), u.numpy(), strict=True):
            dual = scipy.optimize.lsq_linear(0.5 * weight * difference.T, one, (-1, 1), tol=1e-14)
            np.testing.assert_allclose(got, one - 0.5 * weight * difference.T @ dual.x, atol=1e-5)


@pytest.mark.parametrize("complex", [False, True])
def test_total_variation_of_an_image_against_a_general_solver(complex: bool) -> None:
    # the dual over fields of vectors of length at most 1, by SLSQP
    h, w = 3, 3
    x = noise(h, w, complex=complex)
    rows = np.kron(np.vstack([np.diff(np.eye(h), axis=0), np.zeros((1, h))]), np.eye(w))
    columns = np.kron(np.eye(h), np.vstack([np.diff(np.eye(w), axis=0), np.zeros((1, w))]))
    nabla = np.stack([rows, columns])  # (2, n, n)
    parts = [x.real, x.imag] if complex else [x]
    target = np.stack([p.numpy().ravel() for p in parts])  # (c, n)

    def image(p: np.ndarray) -> np.ndarray:
        return target - 0.7 * np.einsum("aij,cai->cj", nabla, p.reshape(len(target), 2, h * w))

    def slope(p: np.ndarray) -> np.ndarray:
        return -0.7 * np.einsum("aij,cj->cai", nabla, image(p)).ravel()

    found = scipy.optimize.minimize(
        lambda p: 0.5 * (image(p) ** 2).sum(),
        np.zeros(len(target) * 2 * h * w),
        jac=slope,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda p: 1 - (p.reshape(len(target) * 2, -1) ** 2).sum(0),
            "jac": lambda p: np.concatenate([np.diag(-2 * row) for row in p.reshape(-1, h * w)], axis=1),
        },
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    u = TotalVariation(1.4, tolerance=1e-7, max_iterations=20_000).prox(x, 0.5)
    got = np.stack([p.numpy().ravel() for p in ([u.real, u.imag] if complex else [u])])
    np.testing.assert_allclose(got, image(found.x), atol=1e-5)


def test_total_variation_of_a_volume_of_equal_slices() -> None:
    x = noise(6, 7)
    tight = {"tolerance": 1e-6, "max_iterations": 20_000}
    flat = TotalVariation(0.4, 2, **tight)
    volume = TotalVariation(0.4, 3, **tight)
    assert_close(volume.prox(x.expand(5, 6, 7), 1.0)[2], flat.prox(x, 1.0), rtol=0, atol=1e-4)
    assert float(volume.value(x.expand(5, 6, 7))) == pytest.approx(5 * float(flat.value(x)))


def test_total_variation_tolerance_bounds_the_error(caplog: pytest.LogCaptureFixture) -> None:
    x = noise(2, 12, 12)
    exact = TotalVariation(0.5, tolerance=1e-6, max_iterations=20_000).prox(x, 1.0)
    assert not caplog.records
    for tolerance in (1e-1, 1e-3):
        u = TotalVariation(0.5, tolerance=tolerance).prox(x, 1.0)
        error = ((u - exact).norm(dim=(1, 2)) / x.norm(dim=(1, 2))).max()
        assert 1e-6 < error <= tolerance
    with caplog.at_level(logging.WARNING):
        TotalVariation(0.5, tolerance=1e-9, max_iterations=10).prox(x, 1.0)
    assert "TotalVariation.prox did not converge" in caplog.text
    assert torch.equal(TotalVariation(0.0).prox(x, 1.0), x)


def threshold(x: np.ndarray, t: float) -> np.ndarray:
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


@pytest.mark.parametrize("approximation", [False, True])
def test_wavelet_shrinkage_against_pywavelets(approximation: bool) -> None:
    x = noise(2, 16, 24)
    regulariser = WaveletShrinkage(0.8, "db2", level=2, approximation=approximation)
    u = regulariser.prox(x, 0.5)
    total = 0.0
    for one, got in zip(x.numpy(), u.numpy(), strict=True):
        low, *details = pywt.wavedec2(one, "db2", "periodization", 2)
        shrunk = [tuple(threshold(band, 0.4) for band in level) for level in details]
        kept = threshold(low, 0.4) if approximation else low
        np.testing.assert_allclose(got, pywt.waverec2([kept, *shrunk], "db2", "periodization"), atol=1e-12)
        total += 0.8 * sum(np.abs(band).sum() for level in details for band in level)
        total += 0.8 * np.abs(low).sum() * approximation
    assert float(regulariser.value(x)) == pytest.approx(total)


def test_wavelet_settings_matter() -> None:
    x = noise(16, 16)
    plain = WaveletShrinkage(0.8, "haar")
    assert_close(plain.prox(x, 1.0), WaveletShrinkage(0.8, "haar", level=4).prox(x, 1.0))
    for other in (
        WaveletShrinkage(0.8, "haar", level=2),
        WaveletShrinkage(0.8, "sym2"),
        WaveletShrinkage(0.8, "haar", ndim=1),
        WaveletShrinkage(0.8, "haar", shifts=2),
    ):
        assert (other.prox(x, 1.0) - plain.prox(x, 1.0)).abs().max() > 0.01
        assert other.value(x) != plain.value(x)
    spun = WaveletShrinkage(0.8, "haar", shifts=2).prox(x, 1.0)
    moved = plain.prox(x.roll((-1, -1), (0, 1)), 1.0).roll((1, 1), (0, 1))
    assert_close(spun, (plain.prox(x, 1.0) + moved) / 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: L1(-1.0), "L1: the weight must be at least 0 and finite, got -1.0"),
        (lambda: L1(math.nan), "L1: the weight"),
        (lambda: GroupL1(axis=0), "counted from the last"),
        (lambda: GroupL1(axis=()), "counted from the last"),
        (lambda: GroupL1(axis=-3).prox(torch.zeros(2, 2), 1.0), r"GroupL1 acts on .*got \(2, 2\)"),
        (lambda: Box(2.0, 1.0), "lower must not be above upper"),
        (lambda: Box().prox(torch.zeros(2, dtype=torch.complex64), 1.0), "complex numbers have no order"),
        (lambda: TotalVariation(ndim=4), "ndim must be 1, 2 or 3, got 4"),
        (lambda: TotalVariation(tolerance=2.0), "tolerance lies between 0 and 1"),
        (lambda: TotalVariation(max_iterations=0), "max_iterations must be at least 1"),
        (
            lambda: TotalVariation().prox(torch.zeros(3), 1.0),
            r"acts on \(\*batch, 2 image axes\), got \(3,\)",
        ),
        (lambda: WaveletShrinkage(ndim=0), "ndim must be 1, 2 or 3"),
        (lambda: WaveletShrinkage(shifts=0), "shifts must be at least 1"),
        (lambda: WaveletShrinkage().prox(torch.zeros(8), 1.0), "2 image axes"),
        (lambda: WaveletShrinkage().prox(torch.zeros(17, 16), 1.0), "divisible by 2; crop or pad"),
        (lambda: WaveletShrinkage(wavelet="bior2.2").prox(torch.zeros(16, 16), 1.0), "orthogonal wavelet"),
        (lambda: WaveletShrinkage(level=3).prox(torch.zeros(60, 60), 1.0), "divisible by 8"),
        (lambda: WaveletShrinkage(wavelet="hear").prox(torch.zeros(16, 16), 1.0), "did you mean 'haar'"),
    ],
)
def test_bad_input(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
