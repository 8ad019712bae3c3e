"""A velocity in wavelet coefficients: finds a known deformation, scale by scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.registration import jacobian_determinant, warp
from invlearn.registration.coefficients import optimise_coefficients
from invlearn.registration.fields import exponential

SHAPE = (24, 28, 20)


def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    moving = torch.from_numpy(ndimage.gaussian_filter(rng.normal(size=SHAPE), 2).astype(np.float32))
    v = np.stack([ndimage.gaussian_filter(rng.normal(size=SHAPE), 5) for _ in range(3)])
    true = exponential(torch.from_numpy((v * 2 / np.abs(v).max()).astype(np.float32)))
    return warp(moving, true), moving, true


def test_a_known_deformation_is_found_without_folds() -> None:
    fixed, moving, true = pair()
    found = optimise_coefficients(fixed, moving, scales=2, iterations=25, smoothness=0.05)
    before, after = (x.square().sum(0).sqrt()[4:-4, 4:-4, 4:-4].mean() for x in (true, found.field - true))
    assert after < 0.6 * before
    assert jacobian_determinant(found.field).min() > 0
    assert [len(values) for _, values in found.history] == [25, 25, 25]
    gains = [values[-1] for _, values in found.history]
    assert gains == sorted(gains)


def test_every_argument_matters() -> None:
    fixed, moving, _ = pair()
    usual = optimise_coefficients(fixed, moving, scales=2, iterations=4)
    for change in (
        {"similarity": "mse"}, {"wavelet": "db2"}, {"scales": 1}, {"iterations": (1, 2, 3)},
        {"smoothness": 5.0}, {"rate": 0.3}, {"initial": 0.2 * torch.ones(3, 12, 14, 10)},
    ):  # fmt: skip
        other = optimise_coefficients(fixed, moving, **{"scales": 2, "iterations": 4} | change)
        assert not torch.equal(other.field, usual.field), change
    assert torch.equal(optimise_coefficients(fixed, moving, scales=2, iterations=4).field, usual.field)


def test_scales_join_one_after_another() -> None:
    """Without steps for the details, the velocity is the low-pass band's: constant over blocks."""
    fixed, moving, _ = pair()
    coarse = optimise_coefficients(fixed, moving, scales=2, iterations=(5, 0, 0)).field
    fine = optimise_coefficients(fixed, moving, scales=2, iterations=(5, 5, 5)).field
    roughness = [float(x.diff(dim=3).abs().max()) for x in (coarse, fine)]
    assert roughness[0] != roughness[1]


def test_bad_arguments_are_named() -> None:
    fixed, moving, _ = pair()
    with pytest.raises(ValueError, match="numbers of steps"):
        optimise_coefficients(fixed, moving, scales=2, iterations=(1, 2))
    with pytest.raises(ValueError, match="smoothness"):
        optimise_coefficients(fixed, moving, smoothness=-1.0)
    with pytest.raises(ValueError, match="initial velocity"):
        optimise_coefficients(fixed, moving, initial=torch.zeros(3, 4, 4, 4))
