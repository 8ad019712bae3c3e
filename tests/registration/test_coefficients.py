"""A velocity in wavelet coefficients: finds a known deformation, scale by scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.registration import Coefficients, jacobian_determinant, register, warp
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
    found = optimise_coefficients(
        fixed, moving, iterations=25, settings=Coefficients(scales=2, smoothness=0.05)
    )
    before, after = (x.square().sum(0).sqrt()[4:-4, 4:-4, 4:-4].mean() for x in (true, found.field - true))
    assert after < 0.6 * before
    assert jacobian_determinant(found.field).min() > 0
    assert [len(values) for _, values in found.history] == [25, 25, 25]
    gains = [values[-1] for _, values in found.history]
    assert gains == sorted(gains)


def test_every_argument_matters() -> None:
    fixed, moving, _ = pair()
    two = Coefficients(scales=2)
    usual = optimise_coefficients(fixed, moving, settings=two, iterations=4)
    for change in (
        {"similarity": "mse"}, {"iterations": (1, 2, 3)}, {"spacing": (1.0, 2.0, 4.0)},
        {"initial": 0.2 * torch.ones(3, *SHAPE)}, {"settings": Coefficients(wavelet="db2", scales=2)},
        {"settings": Coefficients(scales=1)}, {"settings": Coefficients(scales=2, smoothness=5.0)},
        {"settings": Coefficients(scales=2, rate=0.3)},
    ):  # fmt: skip
        other = optimise_coefficients(fixed, moving, **{"settings": two, "iterations": 4} | change)
        assert not torch.equal(other.field, usual.field), change
    assert torch.equal(optimise_coefficients(fixed, moving, settings=two, iterations=4).field, usual.field)
    steps = [
        len(v) for _, v in optimise_coefficients(fixed[:8, :8, :8], moving[:8, :8, :8], settings=two).history
    ]
    assert steps == [40, 40, 40]


def test_it_starts_from_an_initial_field() -> None:
    fixed, moving, true = pair()
    kept = optimise_coefficients(fixed, moving, iterations=0, initial=true, settings=Coefficients(scales=2))
    torch.testing.assert_close(kept.field, true, atol=1e-5, rtol=0)


def test_scales_join_one_after_another() -> None:
    """Without steps for the details, the velocity is the low-pass band's: constant over blocks."""
    fixed, moving, _ = pair()
    two = Coefficients(scales=2)
    coarse = optimise_coefficients(fixed, moving, settings=two, iterations=(5, 0, 0)).field
    fine = optimise_coefficients(fixed, moving, settings=two, iterations=(5, 5, 5)).field
    roughness = [float(x.diff(dim=3).abs().max()) for x in (coarse, fine)]
    assert roughness[0] != roughness[1]


def test_register_offers_it() -> None:
    fixed, moving, _ = pair()
    usual, wavelets, db2 = (
        register(fixed, moving, affine="none", iterations=10, settings=settings)
        for settings in (None, Coefficients(scales=2), Coefficients("db2", 2))
    )
    assert [len(values) for _, values in wavelets.history] == [10] * 3
    assert not torch.equal(wavelets.deformation, usual.deformation)
    assert not torch.equal(wavelets.deformation, db2.deformation)
    assert wavelets.folding_percent == 0
    assert wavelets.inverse_consistency_mm < 0.06
    _, before, after = wavelets.similarity
    assert after > before + 0.1 * (1 - before)


def test_bad_arguments_are_named() -> None:
    fixed, moving, _ = pair()
    with pytest.raises(ValueError, match="numbers of steps"):
        optimise_coefficients(fixed, moving, iterations=(1, 2), settings=Coefficients(scales=2))
    with pytest.raises(ValueError, match="smoothness"):
        Coefficients(smoothness=-1.0)
    with pytest.raises(ValueError, match="at least one scale"):
        Coefficients(scales=0)
    with pytest.raises(ValueError, match="wavelet"):
        Coefficients(wavelet="none")


def test_what_lies_outside_a_mask_does_not_matter() -> None:
    fixed, moving, _ = pair()
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[4:-4, 4:-4, 4:-4] = True
    fields = [
        optimise_coefficients(x, moving, settings=Coefficients(scales=2), iterations=3, mask=m).field
        for x, m in ((fixed, mask), (torch.where(mask, fixed, 1.0), mask), (fixed, None))
    ]
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])
