"""Three numbers that describe a stack's intensities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.neuro.normalise import Normaliser, estimate, sample

SHAPE = (32, 64, 64)


def stack(noise: float = 4.0, background: float = 50.0, bright: float = 200.0) -> np.ndarray:
    """A bar in normal noise, float64; 0.4 % of the voxels."""
    x = np.random.default_rng(0).normal(background, noise, SHAPE)
    x[12:20, 30:34, 10:26] = bright
    return x


def test_the_three_numbers_of_a_bar_in_noise() -> None:
    found = estimate(stack())
    assert found.background == pytest.approx(50, abs=0.1)
    assert found.noise == pytest.approx(4, rel=0.03)
    assert found.foreground == pytest.approx(200, abs=1)


def test_background_becomes_zero_and_foreground_one() -> None:
    found = estimate(stack())
    assert found(np.array([found.background, found.foreground])) == pytest.approx([0, 1], abs=1e-6)
    assert found(np.array([1e9])) == pytest.approx([2])


@given(st.floats(0.01, 500), st.floats(-1e4, 1e4))
def test_gain_and_offset_do_not_matter(gain: float, offset: float) -> None:
    x = stack()
    y = x * gain + offset
    rounding = np.finfo(np.float32).eps * (1 + abs(offset) / (4 * gain))  # of samples, in units of the noise
    assert np.abs(estimate(y)(y) - estimate(x)(x)).max() < 10 * rounding


@pytest.mark.parametrize(("dtype", "gain"), [(np.uint8, 1.0), (np.uint16, 20.0), (np.float32, 0.01)])
def test_the_type_does_not_matter(dtype: type, gain: float) -> None:
    x = stack()
    y = np.rint(x * gain).astype(dtype) if dtype != np.float32 else (x * gain).astype(dtype)
    assert np.abs(estimate(y)(y) - estimate(x)(x)).mean() < 0.02


def test_a_background_that_was_wiped_out() -> None:
    x = np.zeros(SHAPE, np.uint8)
    x[12:20, 30:34, 10:26] = 100
    found = estimate(x)
    assert (found.background, found.noise, found.foreground) == (0, 0, 100)


def test_a_background_that_was_cut_off_at_zero() -> None:
    x = np.clip(stack(background=-1.0), 0, None)
    assert estimate(x).noise == pytest.approx(4, rel=0.5)


def test_noise_of_few_grey_levels_is_not_taken_for_a_neuron() -> None:
    x = np.random.default_rng(0).poisson(0.6, SHAPE).astype(np.uint8)
    x[12:20, 30:34, 10:26] += 60
    assert estimate(x).foreground > 50


def test_dim_neurites_come_within_sight() -> None:
    found = Normaliser(0.0, 0.0, 100.0)
    assert found(np.array([10.0])) > 0.4


def test_each_number_matters() -> None:
    x = np.array([3.0, 20.0])
    base = Normaliser(1.0, 1.0, 50.0)(x)
    for other in (Normaliser(2.0, 1.0, 50.0), Normaliser(1.0, 5.0, 50.0), Normaliser(1.0, 1.0, 90.0)):
        assert np.abs(other(x) - base).max() > 0.01


def test_the_sample_is_bounded_and_the_same_for_a_lazy_stack() -> None:
    x = np.random.default_rng(0).random((70, 300, 300), dtype=np.float32)
    assert sample(x).size <= 1 << 22
    assert sample(x[:8]).size == 8 * 300 * 300

    class Lazy:
        shape = x.shape

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            assert all(isinstance(part, slice) for part in key)
            return x[key]

    assert np.array_equal(sample(Lazy()), sample(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 0 * x, "value 0 everywhere"),
        (lambda x: np.where(x > 40, 255.0, x), "saturated"),
        (lambda x: np.where(x > 199, np.nan, x), "NaN"),
        (lambda x: np.where(x > 199, np.inf, x), "infinite"),
    ],
)
def test_stacks_without_a_neuron_in_sight_are_refused(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(change(stack()), "a.tif")


def test_numbers_that_make_no_sense_are_refused() -> None:
    for numbers in ((1.0, 1.0, 1.0), (1.0, -1.0, 2.0)):
        with pytest.raises(ValueError, match="above the background"):
            Normaliser(*numbers)
