"""Similarities against direct sums and independent libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import entropy

from invlearn.registration import similarity as S

SHAPE = (9, 10, 11)


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, 1) * 5)


@given(radius=st.tuples(*[st.integers(0, 12)] * 3), single=st.booleans(), seed=st.integers(0, 5))
def test_box_is_a_sum_over_a_window(radius: tuple[int, ...], single: bool, seed: int) -> None:
    x = image(seed).to(torch.float32 if single else torch.float64)
    expected = x.double().numpy()
    for axis, r in enumerate(radius):
        expected = ndimage.correlate1d(expected, np.ones(2 * r + 1), axis=axis, mode="constant")
    np.testing.assert_allclose(S.box(x, radius), expected, atol=2e-3 if single else 1e-9)


def direct_lncc(f: np.ndarray, m: np.ndarray, radius: int) -> float:
    """Window by window."""
    values = []
    floor_f, floor_m = S._FLAT * f.var(), S._FLAT * m.var()
    for at in np.ndindex(f.shape):
        window = tuple(slice(max(i - radius, 0), i + radius + 1) for i in at)
        a, b = f[window].ravel(), m[window].ravel()
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        covariance += np.sqrt(floor_f * floor_m)
        values.append(covariance**2 / ((a.var() + floor_f) * (b.var() + floor_m)))
    return float(np.mean(values))


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lncc_is_the_mean_squared_correlation_of_windows(radius: int, dtype: torch.dtype) -> None:
    f, m = image(0), image(1)
    expected = direct_lncc(f.numpy(), m.numpy(), radius)
    assert float(S.lncc(f.to(dtype), m.to(dtype), radius)) == pytest.approx(expected, rel=1e-4)


def test_lncc_is_blind_to_contrast_and_brightness() -> None:
    f, m = image(0), image(1)
    assert float(S.lncc(f, 3 * m + 100, 2)) == pytest.approx(float(S.lncc(f, m, 2)), rel=1e-6)
    # what is added to the covariance counts against inverted contrast
    assert 0.75 < float(S.lncc(f, -2 * f + 1, 2)) < 1
    assert float(S.lncc(f, m, 2)) < 0.5


@pytest.mark.parametrize("name", ["lncc", "mse", "mi", "mind"])
def test_all_can_be_differentiated_and_prefer_the_right_shift(name: str, monkeypatch) -> None:
    monkeypatch.setattr(S, "_FLAT", 0)  # a share of the variance, which is not differentiated
    f = image(0, (16, 16, 16))
    here, there = S.CLIMBED[name](f, f), S.CLIMBED[name](f, torch.roll(f, 1, 0))
    assert here > there
    m = image(1, (16, 16, 16)).requires_grad_()
    S.CLIMBED[name](f, m).backward()
    bump = torch.zeros(16, 16, 16, dtype=torch.float64)
    bump[8, 7, 8] = 1e-5  # away from the border, where MIND's least distance is shared by two pairs
    with torch.no_grad():
        slope = (S.CLIMBED[name](f, m + bump) - S.CLIMBED[name](f, m - bump)) / 2e-5
    assert float(m.grad[8, 7, 8]) == pytest.approx(float(slope), rel=1e-4)


def test_mi_of_itself_is_the_entropy_and_of_noise_is_nothing() -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (20, 20, 20)).astype(float))
    # six grey values on the centres of bins, two apart, whose splines reach one bin to each side
    mine = float(S.mutual_information(values, values, bins=23))
    p = np.bincount(values.flatten().long().numpy()) / values.numel()
    assert mine == pytest.approx(entropy(p), rel=0.02)
    other = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 20, 20)))
    assert float(S.mutual_information(values, other)) < 0.05
    assert float(S.mutual_information(values, (values - 3) ** 2)) > 0.8


def test_mi_takes_its_bins() -> None:
    f, m = image(0), image(1)
    assert float(S.mutual_information(f, m, 8)) != float(S.mutual_information(f, m, 32))
    with pytest.raises(ValueError, match="4 bins"):
        S.mutual_information(f, m, 3)


def direct_mind(x: np.ndarray, radius: int, distance: int) -> np.ndarray:
    """Patch distances of all twelve pairs, computed by padding and scipy."""
    six = [np.eye(3, dtype=int)[a] * s for a in range(3) for s in (-1, 1)]
    pairs = [(a, b) for i, a in enumerate(six) for b in six[i + 1 :] if math.isclose(np.sum((a - b) ** 2), 2)]
    padded = np.pad(x, distance, mode="edge")

    def shifted(by: np.ndarray) -> np.ndarray:
        start = distance + distance * by
        return padded[tuple(slice(s, s + n) for s, n in zip(start, x.shape, strict=True))]

    d = []
    for a, b in pairs:
        difference = (shifted(a) - shifted(b)) ** 2
        for axis in range(3):
            difference = ndimage.correlate1d(
                difference, np.full(2 * radius + 1, 1 / (2 * radius + 1)), axis=axis, mode="constant"
            )
        d.append(difference)
    stack = np.stack(d) - np.min(d, axis=0)
    return np.sort(np.exp(-stack / stack.mean(0)), axis=0)


def test_mind_is_its_definition() -> None:
    x = image(3)
    mine = np.sort(S.mind_descriptor(x, radius=1, distance=2).numpy(), axis=0)
    assert mine.shape[0] == 12
    np.testing.assert_allclose(mine, direct_mind(x.numpy(), 1, 2), atol=0.02)


def test_mind_is_blind_to_inverted_contrast() -> None:
    f = image(0, (16, 16, 16))
    assert float(S.mind(f, -3 * f)) == pytest.approx(0, abs=1e-9)
    assert float(S.mind(f, image(1, (16, 16, 16)))) > 0.01
    assert float(S.mind(f, image(1, (16, 16, 16)), 1, 1)) != float(S.mind(f, image(1, (16, 16, 16)), 2, 1))


def test_soft_dice_of_labels() -> None:
    a = torch.zeros(4, 4, 4, dtype=torch.int64)
    b = a.clone()
    a[:2], b[1:3] = 1, 1
    both = S.soft_dice(S.one_hot(a, [1, 9]), S.one_hot(b, [1, 9]))
    torch.testing.assert_close(both, torch.tensor([0.5, 1.0]))


def test_batches_are_compared_one_by_one() -> None:
    f, m = torch.stack([image(0), image(1)]), torch.stack([image(2), image(3)])
    for name, of in S.CLIMBED.items():
        both = of(f, m)
        assert both.shape == (2,), name
        torch.testing.assert_close(both[1], of(f[1], m[1]))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="one shape"):
        S.mse(image(), image(shape=(3, 3, 3)))
    with pytest.raises(ValueError, match="radius"):
        S.box(image(), -1)
    with pytest.raises(ValueError, match="lncc, mse, mi, mind"):
        S.check_name("ssd")
    S.check_name("mi")
