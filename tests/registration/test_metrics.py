"""Metrics against SimpleITK, brute force and analytic fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.spatial import cKDTree

from invlearn.registration import metrics as M


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    g = np.indices((24, 26, 28))
    labels = np.zeros(g.shape[1:], np.int16)
    for k in (1, 2, 40):
        centre, radius = rng.uniform(8, 18, 3), rng.uniform(4, 7)
        labels[np.sum((g - centre.reshape(3, 1, 1, 1)) ** 2, 0) < radius**2] = k
    return labels


def test_dice_is_simpleitk_dice() -> None:
    a, b = blobs(0), blobs(1)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(a), sitk.GetImageFromArray(b))
    mine = M.dice(a, torch.from_numpy(b))
    assert set(mine) == {1, 2, 40}
    for k, value in mine.items():
        assert value == pytest.approx(overlap.GetDiceCoefficient(k))
    assert set(M.dice(a, b, [2, 7])) == {2, 7}
    assert math.isnan(M.dice(a, b, [7])[7])
    assert M.dice(a, 0 * b)[1] == 0


def surface(mask: np.ndarray) -> np.ndarray:
    """Brute force: object voxels with one of six neighbours outside."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(3):
        for by in (-1, 1):
            inner &= np.roll(padded, by, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inner)


def test_hd95_is_brute_force() -> None:
    a, b, spacing = blobs(0), blobs(1), (1.0, 2.0, 0.7)
    mine = M.hd95(a, b, spacing)
    for k, value in mine.items():
        x, y = surface(a == k) * spacing, surface(b == k) * spacing
        d1, d2 = cKDTree(y).query(x)[0], cKDTree(x).query(y)[0]
        assert value == pytest.approx(max(np.percentile(d1, 95), np.percentile(d2, 95)))
    assert math.isnan(M.hd95(a, 0 * b, spacing, [1])[1])
    assert M.hd95(a, a, spacing)[1] == 0


def test_target_registration_error_is_a_distance() -> None:
    points = np.zeros((2, 3))
    np.testing.assert_allclose(M.target_registration_error(points, np.array([[3, 4, 0], [0, 0, 2]])), [5, 2])
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        M.target_registration_error(points, points[:1])


def test_folding_and_roughness() -> None:
    u = torch.zeros(3, 10, 10, 10)
    assert M.folding_percent(u) == 0
    assert M.sd_log_jacobian(u) == 0
    u[0, 5, 5, 5] = -4
    assert M.folding_percent(u) == pytest.approx(0.1)  # one voxel of a thousand
    assert M.sd_log_jacobian(u) > 0.3
    g = torch.arange(10.0)
    stretched = torch.zeros(3, 10, 10, 10)
    stretched[0] = torch.where(g < 5, 0 * g, g - 5).reshape(10, 1, 1)
    half = torch.zeros(10, 10, 10, dtype=torch.bool)
    half[:4] = True
    assert M.sd_log_jacobian(stretched, half) == pytest.approx(0, abs=1e-6)
    assert M.sd_log_jacobian(stretched) == pytest.approx(
        np.std(np.log(np.r_[[1] * 5, 1.5, [2] * 4])), rel=1e-5
    )


def test_inverse_consistency_is_in_millimetres() -> None:
    u = torch.zeros(3, 6, 6, 6)
    u[1] = 2
    assert M.inverse_consistency(u, -u) == 0
    assert M.inverse_consistency(u, 0 * u, (1.0, 3.0, 1.0)) == pytest.approx(6)
    v = -u
    v[1, :3] = 0
    top = torch.zeros(6, 6, 6, dtype=torch.bool)
    top[:3] = True
    assert M.inverse_consistency(u, v, mask=top) == pytest.approx(2)
    assert M.inverse_consistency(u, v, mask=~top) == pytest.approx(0)


def test_bad_labels_are_named() -> None:
    with pytest.raises(ValueError, match="one grid"):
        M.dice(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int))
    with pytest.raises(TypeError, match="integers"):
        M.dice(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int))
