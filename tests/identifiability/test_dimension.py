from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pywt
import pywt.data
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.identifiability.dimension import (
    estimate_dimension,
    estimate_dimension_from_measurements,
)

N = 3000


def subspace(k: int, n: int = 64, samples: int = N, seed: int = 0) -> np.ndarray:
    """Gaussian samples of a random k-dimensional subspace."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, k)) @ np.linalg.qr(rng.standard_normal((n, k)))[0].T


def sphere(d: int, samples: int = N, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((samples, d + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def swiss_roll(samples: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = 1.5 * np.pi * (1 + 2 * rng.random(samples))
    return np.stack([t * np.cos(t), 21 * rng.random(samples), t * np.sin(t)], axis=1)


# Measured estimates at N = 3000 (TwoNN, maximum likelihood) for Gaussian samples; other sizes of
# neighbourhood and other draws move them by some 15 %.
@pytest.mark.parametrize(
    ("k", "rows", "two_nn", "mle"),
    [(6, None, 5.6, 5.3), (6, 13, 5.6, 5.2), (12, None, 10.4, 9.7), (12, 13, 8.9, 8.1), (12, 48, 10.1, 9.5)],
)
def test_nearest_neighbour_estimates_of_subspaces(
    k: int, rows: int | None, two_nn: float, mle: float
) -> None:
    x = subspace(k)
    if rows is not None:
        x = x @ np.random.default_rng(1).standard_normal((64, rows))
    found = estimate_dimension(x).by_method
    assert found["two_nn"] == pytest.approx(two_nn, rel=0.15)
    assert found["mle"] == pytest.approx(mle, rel=0.15)


def test_masked_subspace_keeps_its_dimension() -> None:
    found = estimate_dimension(subspace(6)[:, np.random.default_rng(1).random(64) < 0.3])
    assert found.by_method["two_nn"] == pytest.approx(5.6, rel=0.15)
    assert found.value == 6


@pytest.mark.parametrize("k", [1, 2, 5, 12, 20])
def test_linear_subspaces_are_exact_by_local_pca(k: int) -> None:
    found = estimate_dimension(subspace(k, samples=1000))
    assert found.by_method["local_pca"] == k
    assert found.value == k


@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_spheres(d: int) -> None:
    found = estimate_dimension(sphere(d))
    assert found.by_method["mle"] == pytest.approx(d, rel=0.1)
    assert found.by_method["two_nn"] == pytest.approx(d, rel=0.1)
    assert found.by_method["local_pca"] == d
    assert d <= found.value <= d + 1
    assert found.low - 0.25 <= d <= found.high + 0.05


def test_swiss_roll_is_a_surface_by_every_method() -> None:
    found = estimate_dimension(swiss_roll())
    assert set(found.by_method) == {"mle", "two_nn", "local_pca", "box_counting"}
    for method, value in found.by_method.items():
        assert value == pytest.approx(2, abs=0.15), method
    assert found.value == 2
    assert not found.warnings


def test_the_correction_reaches_what_the_raw_estimates_miss() -> None:
    found = estimate_dimension(sphere(12, seed=3))
    assert found.by_method["mle"] < 11.2
    assert found.high >= 11.8
    assert found.value >= 12
    assert any("resolve dimensions up to" in w for w in found.warnings)


def test_noise_raises_the_estimate_and_its_level_brings_it_back() -> None:
    x = subspace(3)
    sd = 0.05 * x.std()
    noisy = x + sd * np.random.default_rng(9).standard_normal(x.shape)
    blind, told = estimate_dimension(noisy), estimate_dimension(noisy, noise=sd)
    assert blind.by_method["two_nn"] > 4.5
    assert blind.value > 3
    assert told.value == 3
    assert told.by_method["two_nn"] == pytest.approx(3, rel=0.1)


def test_noise_off_a_curved_set_is_stepped_over() -> None:
    noisy = swiss_roll() + 0.2 * np.random.default_rng(9).standard_normal((N, 3))
    blind, told = estimate_dimension(noisy), estimate_dimension(noisy, noise=0.2)
    assert blind.by_method["two_nn"] > 2.3
    assert told.by_method["two_nn"] < 2.2


def test_noise_above_everything_is_reported() -> None:
    found = estimate_dimension(sphere(2, samples=300), noise=0.2)
    assert any("too high" in w for w in found.warnings)


def test_complex_data_counts_complex_numbers() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((1000, 4, 2)) @ [1, 1j] @ (rng.standard_normal((4, 20, 2)) @ [1, 1j])
    assert estimate_dimension(z).value == 4
    # A real set in a complex space has half as many complex dimensions.
    assert estimate_dimension(subspace(4, samples=1000).astype(complex)).high == pytest.approx(2.0)


def test_images_and_tensors_and_single_precision() -> None:
    x = subspace(3, samples=500).reshape(500, 8, 8)
    reference = estimate_dimension(x)
    assert estimate_dimension(torch.from_numpy(x)).to_dict() == reference.to_dict()
    assert estimate_dimension(x.astype(np.float32)).value == 3


def test_large_images_are_projected() -> None:
    found = estimate_dimension(subspace(5, n=2000, samples=400))
    assert found.value == 5


def test_max_samples_and_seed_decide_what_is_used() -> None:
    x = swiss_roll()
    small = estimate_dimension(x, max_samples=500)
    assert small.samples == 500
    assert small.by_method != estimate_dimension(x, max_samples=500, seed=1).by_method
    assert small.to_dict() == estimate_dimension(x, max_samples=500).to_dict()


def test_photographs_have_no_gap_and_no_absurd_dimension() -> None:
    camera = pywt.data.camera().astype(float)
    corners = np.random.default_rng(0).integers(0, 504, (1500, 2))
    found = estimate_dimension(np.stack([camera[i : i + 8, j : j + 8] for i, j in corners]))
    assert found.by_method["local_pca"] < 20  # of 64 pixels, all of which vary
    assert 10 <= found.value <= 25


def test_handwritten_digits_are_about_twelve_dimensional(data_folder: Path) -> None:
    # The usual figure is about 12 (Hein and Audibert, ICML 2005).
    table = next(data_folder.rglob("mnist_5k.csv.gz"))
    digits = np.loadtxt(table, delimiter=",", max_rows=1500)[:, :-1] / 255
    found = estimate_dimension(digits)
    assert 8 < found.by_method["mle"] < 14
    assert 9 < found.by_method["two_nn"] < 15
    assert 12 <= found.value <= 30


def test_result_is_plain_json() -> None:
    found = estimate_dimension(subspace(2, samples=200))
    assert json.loads(json.dumps(found.to_dict()))["value"] == 2


def test_constant_data_have_dimension_zero() -> None:
    found = estimate_dimension(np.ones((50, 7)))
    assert (found.value, found.low, found.high) == (0, 0.0, 0.0)
    assert any("duplicate" in w for w in found.warnings)


def test_duplicates_are_dropped() -> None:
    x = subspace(3, samples=400)
    twice = estimate_dimension(np.concatenate([x, x]))
    assert twice.samples == 400
    assert twice.value == 3
    assert any("400 duplicate samples" in w for w in twice.warnings)


def test_few_samples_warn_and_too_few_are_refused() -> None:
    assert any("rough" in w for w in estimate_dimension(subspace(2, samples=40)).warnings)
    with pytest.raises(ValueError, match="4 distinct samples say nothing"):
        estimate_dimension(subspace(2, samples=4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_named(bad: float) -> None:
    x = subspace(2, samples=50)
    x[7, 3] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite entries in 1 of 50 samples \(first: sample 7\)"):
        estimate_dimension(x)


@pytest.mark.parametrize(
    ("x", "kwargs", "error", "message"),
    [
        (np.zeros((0, 3)), {}, ValueError, "is empty"),
        (np.array(["a", "b"]), {}, TypeError, "expected numbers"),
        (np.ones((9, 2)), {"noise": -1.0}, ValueError, "noise is a standard deviation >= 0"),
        (np.ones((9, 2)), {"max_samples": 2}, ValueError, "max_samples must be 5 or more"),
    ],
)
def test_bad_input(x: np.ndarray, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimate_dimension(x, **kwargs)


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10))
def test_scale_and_shift_change_nothing(scale: float, shift: float) -> None:
    x = sphere(2, samples=200)
    base = estimate_dimension(x).by_method
    moved = estimate_dimension(scale * (x + shift)).by_method
    for method in ("mle", "two_nn", "local_pca"):
        assert moved[method] == pytest.approx(base[method], rel=1e-6)


# From measurements alone.


def measured(k: int, m: int, operators: int, per: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((40, k)))[0]
    y = [rng.standard_normal((per, k)) @ (rng.standard_normal((m, 40)) @ basis).T for _ in range(operators)]
    return np.concatenate(y), np.repeat(np.arange(operators), per)


def test_measurements_are_never_pooled() -> None:
    y, index = measured(3, 10, 60, per=40)
    found = estimate_dimension_from_measurements(y, index)
    assert found.value == 3
    assert found.by_method["local_pca"] == 3
    assert found.samples == 2400
    # One cloud of all operators fills the ten dimensions.
    assert estimate_dimension(y).value > 6


def test_index_order_and_list_form_agree() -> None:
    y, index = measured(2, 8, 3, per=200)
    order = np.random.default_rng(0).permutation(len(y))
    listed = estimate_dimension_from_measurements([y[index == g] for g in range(3)])
    indexed = estimate_dimension_from_measurements(y[order], index[order])
    assert listed.value == indexed.value == 2
    assert listed.by_method["mle"] == pytest.approx(indexed.by_method["mle"])


def test_different_numbers_of_rows_and_tensors() -> None:
    rng = np.random.default_rng(0)
    x = subspace(2, n=30, samples=300)
    y = [torch.from_numpy(x @ rng.standard_normal((m, 30)).T) for m in (6, 9)]
    assert estimate_dimension_from_measurements(y).value == 2


def test_too_few_rows_are_said_to_hide_the_dimension() -> None:
    y, index = measured(6, 4, 3)
    found = estimate_dimension_from_measurements(y, index)
    assert found.value <= 4
    assert any("fill their whole space" in w for w in found.warnings)


def test_noise_of_measurements() -> None:
    y, index = measured(3, 12, 4)
    sd = 0.05 * y.std()
    noisy = y + sd * np.random.default_rng(5).standard_normal(y.shape)
    assert estimate_dimension_from_measurements(noisy, index, noise=sd).value == 3
    assert estimate_dimension_from_measurements(noisy, index).value > 3


def test_operators_that_disagree_widen_the_interval() -> None:
    x = [sphere(2, samples=400, seed=s) for s in range(4)]
    same = estimate_dimension_from_measurements(x)
    mixed = estimate_dimension_from_measurements([*x[:2], *(sphere(5, samples=400, seed=s) for s in (8, 9))])
    assert mixed.high - mixed.low > 2 * (same.high - same.low)
    assert mixed.value >= 5


def test_an_operator_with_hardly_any_samples_is_left_out() -> None:
    y, index = measured(2, 8, 2, per=200)
    found = estimate_dimension_from_measurements(
        np.concatenate([y, y[:2]]), np.concatenate([index, np.array([2, 2])])
    )
    assert any("operator 2 has only 2 samples" in w for w in found.warnings)
    assert found.value == 2


def test_samples_below_the_noise_are_reported() -> None:
    x = np.random.default_rng(0).standard_normal((200, 6))
    estimate = estimate_dimension(x, noise=100.0)
    assert estimate.value == 0
    assert any("nothing rises above the noise (SD 100)" in w for w in estimate.warnings)
    assert not estimate_dimension(np.ones((200, 6))).warnings[1:]


def test_few_measurements_of_a_curved_set() -> None:
    rng = np.random.default_rng(102)
    z = rng.standard_normal((400, 2))
    x = np.tanh(z @ rng.standard_normal((2, 32))) @ rng.standard_normal((32, 48))
    index = np.arange(400) % 10
    y = np.einsum("nij,nj->ni", rng.standard_normal((10, 30, 48))[index], x)
    estimate = estimate_dimension_from_measurements(y, index)
    assert 2 <= estimate.value <= 3  # 29 from the hard edge of 40 samples in 30 dimensions


def test_max_samples_and_seed_of_measurements() -> None:
    y, index = measured(2, 8, 2, per=300)
    found = estimate_dimension_from_measurements(y, index, max_samples=100)
    assert found.samples == 200
    assert (
        found.by_method != estimate_dimension_from_measurements(y, index, max_samples=100, seed=4).by_method
    )


@pytest.mark.parametrize(
    ("y", "index", "error", "message"),
    [
        (np.ones((9, 2)), None, ValueError, "must not be pooled"),
        (np.ones((9, 2)), np.zeros(8, int), ValueError, "integers of shape"),
        (np.ones((9, 2)), np.zeros(9), ValueError, "integers of shape"),
        ([np.ones((9, 2))], np.zeros(9, int), TypeError, "one array"),
        ([], None, ValueError, "no measurements"),
        ([np.ones((2, 3)), np.ones((2, 3))], None, ValueError, "no operator has 5 samples"),
        ([np.full((9, 2), np.nan)], None, ValueError, "measurements of operator 0 has NaN"),
    ],
)
def test_bad_measurements(y: object, index: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimate_dimension_from_measurements(y, index)  # type: ignore[arg-type]
