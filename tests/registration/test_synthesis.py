"""Synthetic pairs: the velocity is the truth, the seed decides, every knob turns something."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from invlearn.registration import exponential, jacobian_determinant, warp
from invlearn.registration.synthesis import (
    Synthesis,
    drawn_from_labels,
    random_velocity,
    smooth_noise,
)

SHAPE = (32, 40, 24)
QUIET = Synthesis(displacement=3.0, gamma=0.0, bias=0.0, noise=0.0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def head() -> tuple[Tensor, Tensor]:
    """Nested balls: image and labels."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = sum((x**2 for x in axes), torch.zeros(())).sqrt()
    labels = (radius < 0.8).long() + (radius < 0.5).long()
    return torch.sigmoid((0.8 - radius) * 12) * (1 - 0.4 * torch.sigmoid((0.5 - radius) * 12)), labels


def test_the_velocity_brings_the_moving_volume_onto_the_fixed_one() -> None:
    image, _ = head()
    pair = QUIET.pair(image, None, seeded(1))
    field = exponential(pair["velocity"])
    before, after = (
        (x - pair["fixed"]).square().mean().sqrt() for x in (pair["moving"], warp(pair["moving"], field))
    )
    assert float(pair["velocity"].abs().max()) > 1
    assert after < before / 5
    assert torch.equal(pair["moving"], pair["moving_target"])
    assert torch.equal(pair["fixed"], pair["fixed_target"])


def test_labels_get_contrasts_of_their_own_and_targets_one_contrast() -> None:
    image, labels = head()
    pair = dataclasses.replace(QUIET, label_contrast=1.0).pair(image, labels, seeded(2))
    field = exponential(pair["velocity"])
    rms = lambda x: float(x.square().mean().sqrt())  # noqa: E731
    assert rms(warp(pair["moving_target"], field) - pair["fixed_target"]) < 0.03
    assert rms(warp(pair["moving"], field) - pair["fixed"]) > 0.1
    same = dataclasses.replace(QUIET, label_contrast=0.0).pair(image, labels, seeded(2))
    assert rms(warp(same["moving"], exponential(same["velocity"])) - same["fixed"]) < 0.03


def test_the_seed_decides() -> None:
    image, labels = head()
    one, two, other = (Synthesis().pair(image, labels, seeded(seed)) for seed in (5, 5, 6))
    assert set(one) == {"moving", "fixed", "moving_target", "fixed_target", "velocity"}
    for name, value in one.items():
        assert torch.equal(value, two[name])
        assert not torch.equal(value, other[name])


@pytest.mark.parametrize(
    "change",
    [
        {"displacement": 1.0},
        {"scales": (16.0,)},
        {"gamma": 0.0},
        {"bias": 0.0},
        {"noise": 0.0},
        {"label_contrast": 0.0},
    ],
)
def test_every_number_matters(change: dict) -> None:
    image, labels = head()
    usual = Synthesis(label_contrast=1.0)
    one = usual.pair(image, labels, seeded(3))["moving"]
    two = dataclasses.replace(usual, **change).pair(image, labels, seeded(3))["moving"]
    assert float((one - two).abs().max()) > 1e-3


def test_noise_shading_and_gamma_have_the_stated_size() -> None:
    flat = torch.full(SHAPE, 0.5)
    noise = [float(dataclasses.replace(QUIET, noise=0.2).degraded(flat, seeded(k)).std()) for k in range(40)]
    assert 0.15 < max(noise) <= 0.21
    assert np.mean(noise) == pytest.approx(0.1, abs=0.03)
    shaded = [dataclasses.replace(QUIET, bias=0.4).degraded(flat, seeded(k)) for k in range(20)]
    assert max(float((x / flat).log().abs().max()) for x in shaded) <= 0.4 + 1e-4
    assert max(float((x / flat).log().abs().max()) for x in shaded) > 0.25
    bright = [
        float(dataclasses.replace(QUIET, gamma=0.5).degraded(flat, seeded(k)).mean()) for k in range(20)
    ]
    powers = np.log(bright) / np.log(0.5)
    assert np.exp(-0.5) - 1e-3 < powers.min() < 1 < powers.max() < np.exp(0.5) + 1e-3


@pytest.mark.parametrize("largest", [0.0, 2.5])
def test_a_velocity_is_as_long_as_asked_and_does_not_fold(largest: float) -> None:
    v = random_velocity(SHAPE, seeded(), largest)
    assert float(v.square().sum(0).sqrt().max()) == pytest.approx(largest, rel=1e-5)
    assert jacobian_determinant(exponential(v)).min() > 0


def test_smooth_noise_varies_over_its_scale() -> None:
    correlations = []
    for scale in (6.0, 24.0):
        x = smooth_noise((4, 48, 48, 48), seeded(), scale)
        x = x - x.mean((1, 2, 3), keepdim=True)
        correlations.append(float((x[:, 6:] * x[:, :-6]).mean() / x.square().mean()))
    assert correlations[0] < 0.5 < 0.8 < correlations[1]


def test_drawn_labels_keep_their_regions() -> None:
    _, labels = head()
    for seed in range(6):
        image = drawn_from_labels(labels, seeded(seed))
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        deep = labels == 2
        assert float(image[12:20, 16:24, 9:15][deep[12:20, 16:24, 9:15]].std()) < 1e-3
    dark = [float(drawn_from_labels(labels, seeded(seed))[0, 0, 0]) == 0 for seed in range(40)]
    assert 8 < sum(dark) < 32


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"displacement": -1.0}, "displacement"),
        ({"noise": float("nan")}, "noise"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0,)}, "scales"),
        ({"label_contrast": 1.5}, "label_contrast"),
    ],
)
def test_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Synthesis(**options)
