from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from invlearn.identifiability.estimators import (
    box_counting,
    corrected,
    local_pca,
    maximum_likelihood,
    neighbour_distances,
    principal_coordinates,
    two_nn,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("d", [1.0, 3.5, 20.0])
def test_two_nn_inverts_the_pareto_law(d: float) -> None:
    # In dimension d the ratio of the first two distances is Pareto with exponent d.
    ratio = rng().random(4000) ** (-1 / d)
    value, error = two_nn(np.stack([np.full(4000, 0.3), 0.3 * ratio], axis=1))
    assert error == pytest.approx(d / math.sqrt(4000), rel=0.5)
    assert abs(value - d) < 4 * error


@pytest.mark.parametrize("d", [1.0, 3.5, 20.0])
def test_maximum_likelihood_inverts_the_law_of_distances(d: float) -> None:
    # Given the largest of K distances, the others are r u^(1/d) with u uniform.
    u = np.sort(rng().random((2000, 20)), axis=1)
    value, error = maximum_likelihood(u ** (1 / d))
    assert abs(value - d) < 4 * error
    assert 0 < error < 0.02 * d


def test_neighbour_distances_leave_the_point_itself_out() -> None:
    points = np.arange(30.0)[:, None]
    distances = neighbour_distances(points, cKDTree(points))
    assert distances.shape == (30, 20)
    np.testing.assert_array_equal(distances[0], np.arange(1, 21))
    few = np.arange(5.0)[:, None]
    assert neighbour_distances(few, cKDTree(few)).shape == (5, 4)


def test_principal_coordinates_keep_distances_and_drop_noise() -> None:
    x = rng().standard_normal((300, 4)) @ rng(1).standard_normal((4, 30)) + 7
    kept = principal_coordinates(x, 0.0, 1e-15, rng())
    assert kept.shape == (300, 4)
    np.testing.assert_allclose(
        np.linalg.norm(kept[0] - kept[1:], axis=1), np.linalg.norm(x[0] - x[1:], axis=1)
    )
    noisy = x + 0.01 * rng(2).standard_normal(x.shape)
    assert principal_coordinates(noisy, 0.0, 1e-15, rng()).shape[1] == 30
    assert principal_coordinates(noisy, 0.01, 1e-15, rng()).shape[1] == 4
    assert principal_coordinates(noisy, 0.0, 1.0, rng()).shape[1] < 30
    assert principal_coordinates(np.ones((9, 3)), 0.0, 1e-15, rng()).shape == (9, 0)


def test_large_images_are_projected_and_keep_their_rank() -> None:
    x = rng().standard_normal((50, 3)) @ rng(1).standard_normal((3, 1000))
    assert principal_coordinates(x, 0.0, 1e-15, rng()).shape == (50, 3)


def spectrum_of(points: np.ndarray, neighbours: int, noise: float = 0.0, plausible: float = 0.0) -> float:
    return local_pca(points, cKDTree(points), neighbours, noise, plausible, rng())


def test_local_pca_stops_at_the_gap() -> None:
    t = rng().random((2000, 2))
    surface = np.column_stack([t, 0.3 * np.sin(2 * t[:, 0])])
    assert spectrum_of(surface, 24, plausible=3.0) == 2


def test_local_pca_does_not_believe_the_drop_at_the_end_of_a_small_neighbourhood() -> None:
    points = rng().standard_normal((40, 30)) * 0.7 ** np.arange(30)
    assert spectrum_of(points, 40, plausible=30.0) > 20  # the last of 30 values is tiny
    assert spectrum_of(points, 40, plausible=10.0) < 10


def test_local_pca_without_a_gap() -> None:
    points = rng().standard_normal((1000, 6)) * [1, 0.6, 0.4, 0.25, 0.15, 0.1]
    everything = spectrum_of(points, 1000, plausible=6.0)
    main = spectrum_of(points, 1000, plausible=5.0)
    assert everything == 6
    assert main == 4  # 0.15 ** 2 is less than 5 % of the largest variance


def test_local_pca_does_not_count_noise() -> None:
    points = rng().standard_normal((1000, 6)) * [1, 1, 1, 0.4, 0.4, 0.4]
    assert spectrum_of(points, 1000, noise=0.4) == 3
    assert spectrum_of(points, 1000, noise=0.0) == 6


@pytest.mark.parametrize("d", [1, 2])
def test_boxes_of_filled_cubes(d: int) -> None:
    side = np.linspace(0, 1, 4096 if d == 1 else 64)
    grid = (
        np.stack(np.meshgrid(*[side] * d), axis=-1).reshape(-1, d)
        @ np.linalg.qr(rng().standard_normal((3, d)))[0].T
    )
    value, error = box_counting(grid, 0.0, rng())
    # The rim adds boxes at coarse scales: a filled square of a few thousand points comes out low.
    assert value == pytest.approx(d, abs=0.3)
    assert error < 0.1


def test_boxes_of_a_cantor_dust() -> None:
    digits = np.array(np.meshgrid(*[[0, 2]] * 10)).reshape(10, -1).T
    dust = (digits @ 3.0 ** -np.arange(1, 11))[:, None]
    assert box_counting(dust, 0.0, rng())[0] == pytest.approx(math.log(2) / math.log(3), abs=0.05)


def test_boxes_below_the_noise_are_not_counted() -> None:
    line = np.column_stack([np.linspace(0, 1, 3000), np.zeros(3000)]) + 0.02 * rng().standard_normal(
        (3000, 2)
    )
    assert box_counting(line, 0.02, rng())[0] < box_counting(line, 0.0, rng())[0]
    assert math.isnan(box_counting(line, 1.0, rng())[0])


@pytest.mark.parametrize("method", ["mle", "two_nn"])
def test_correction_is_the_inverse_of_the_bias_on_gaussians(method: str) -> None:
    points = rng(5).standard_normal((1000, 10))
    raw = {"mle": maximum_likelihood, "two_nn": two_nn}[method](neighbour_distances(points, cKDTree(points)))[
        0
    ]
    assert raw < 9.9
    assert corrected(method, raw, 1000, 50, 0) == pytest.approx(10, abs=1.0)
    assert corrected(method, raw, 1000, 8, 0) <= 8
    assert corrected(method, raw, 1000, 50, 0) != corrected(method, raw, 1000, 50, 1)


def test_more_samples_have_less_of_a_bias() -> None:
    assert 9 < corrected("mle", 9.0, 3000, 50, 0) < corrected("mle", 9.0, 300, 50, 0)


def test_nothing_to_correct() -> None:
    assert corrected("mle", 0.5, 100, 5, 0) == 0.5
    assert corrected("mle", math.inf, 100, 5, 0) == math.inf
