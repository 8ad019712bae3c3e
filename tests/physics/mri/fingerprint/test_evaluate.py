"""Errors of maps, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from invlearn.io.maps import TissueMaps
from invlearn.physics.mri.fingerprint.evaluate import evaluate_maps, pd_scale

T1 = np.array([[1.0, 2.0, 0.5], [1.0, 1.0, 9.0]])
T2 = T1 / 10
PD = np.array([[1.0, 0.5, 0.8], [0.2, 1.0, 0.0]])
TRUTH = TissueMaps(T1, T2, PD)


def test_by_hand() -> None:
    t1 = T1 + np.array([[0.1, -0.2, 0.0], [0.3, 0.0, 7.0]])
    found = evaluate_maps(t1, T2, 3 * PD, TRUTH)
    assert found.voxels == 5  # density 0 is outside
    assert found.t1.median_relative_error == pytest.approx(0.1)
    assert found.t1.nrmse == pytest.approx(np.sqrt(0.14 / 7.25))
    assert found.t1.bias == pytest.approx(0.2 / 5.5)
    assert found.t2.nrmse == found.t2.bias == 0
    assert found.pd.nrmse == pytest.approx(0, abs=1e-12)


def test_complex_density_counts_by_its_size() -> None:
    found = evaluate_maps(T1, T2, PD * np.exp(1j), TRUTH)
    assert found.pd.nrmse == pytest.approx(0, abs=1e-12)
    assert pd_scale(np.array([2.0, 4.0]), np.array([1.0, 2.0])) == 0.5
    assert pd_scale(np.zeros(2), np.ones(2)) == 0


def test_a_mask_restricts_the_voxels() -> None:
    mask = np.zeros((2, 3), bool)
    mask[0, 1] = mask[1, 2] = True
    found = evaluate_maps(1.1 * T1, T2, PD, TRUTH, mask)
    assert found.voxels == 1
    assert found.t1.bias == pytest.approx(0.1)
    with pytest.raises(ValueError, match="nothing to compare"):
        evaluate_maps(T1, T2, PD, TRUTH, np.zeros((2, 3), bool))


def test_plain_values() -> None:
    plain = evaluate_maps(T1, T2, PD, TRUTH).to_dict()
    assert set(plain) == {"t1", "t2", "pd", "voxels"}
    assert set(plain["pd"]) == {"median_relative_error", "nrmse", "bias"}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"t2 map has the shape \(3, 2\), the truth \(2, 3\)"):
        evaluate_maps(T1, T2.T, PD, TRUTH)
    spoilt = T1.copy()
    spoilt[1, 2] = np.nan  # outside
    evaluate_maps(spoilt, T2, PD, TRUTH)
    spoilt[0, 0] = np.inf
    with pytest.raises(ValueError, match="t1 map is NaN or infinite"):
        evaluate_maps(spoilt, T2, PD, TRUTH)
