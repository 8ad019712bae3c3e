"""Flip-angle design: the objective is the bound, the gradient its derivative, the result better."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.bloch import crb
from invlearn.physics.mri.bloch.design import _objective, _spline, design_flip_angles

T1, T2 = np.array([0.8, 1.3, 4.0]), np.array([0.07, 0.1, 1.8])
START = FingerprintSequence.default(40)
WEIGHTS = (1.0, 2.0)


def mean_log_bound(sequence, weights=WEIGHTS):
    bounds = crb(sequence, T1, T2)
    logs = np.log(bounds[:, 1:] / np.stack([T1, T2], 1))
    return float((logs @ np.array(weights)).mean() / sum(weights))


def test_spline_keeps_within_its_coefficients():
    basis = _spline(40, 8)
    assert basis.shape == (40, 8)
    assert basis.min() >= 0
    np.testing.assert_allclose(basis.sum(1), 1)


@pytest.mark.parametrize("profile", [None, np.array([[1.0, 1], [0.7, 1]])])
def test_objective_is_the_mean_log_bound_and_its_gradient(profile):
    sequence, basis = replace(START, slice_profile=profile), _spline(40, 8)
    coefficients = np.linspace(0.2, 0.9, 8)
    objective = _objective(sequence, basis, np.stack([T1, T2]), WEIGHTS, 20)
    value, gradient = objective(coefficients)
    assert value == pytest.approx(
        mean_log_bound(replace(sequence, flip_angle=basis @ coefficients)), abs=1e-9
    )
    step = 1e-5 * np.eye(8)
    numeric = [(objective(coefficients + s)[0] - objective(coefficients - s)[0]) / 2e-5 for s in step]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


def test_design_lowers_the_bounds_within_the_limits():
    largest = math.radians(60)
    design = design_flip_angles(
        START, T1, T2, weights=WEIGHTS, largest=largest, knots=8, states=20, iterations=6
    )
    assert 1 <= len(design.objective) - 1 <= 6
    assert np.all(np.diff(design.objective) < 0)
    assert mean_log_bound(design.sequence) == pytest.approx(design.objective[-1], abs=1e-9)
    assert mean_log_bound(design.sequence) < mean_log_bound(START) - 0.1
    assert design.sequence.flip_angle.max() <= largest
    assert design.sequence.duration == START.duration
    assert FingerprintSequence.from_dict(design.to_dict()["sequence"]) == design.sequence
    assert not design.converged  # after six steps

    only = {
        weights: design_flip_angles(
            START, T1, T2, weights=weights, knots=8, states=20, iterations=25
        ).sequence
        for weights in ((1.0, 0.0), (0.0, 1.0))
    }
    for weights, sequence in only.items():
        other = only[weights[::-1]]
        assert mean_log_bound(sequence, weights) < mean_log_bound(other, weights)
    assert max(sequence.flip_angle.max() for sequence in only.values()) > largest
    coarse = design_flip_angles(START, T1, T2, weights=WEIGHTS, largest=0.5, knots=5, states=4, iterations=1)
    assert coarse.sequence.flip_angle.max() <= 0.5
    assert len(coarse.objective) == 2
    # four orders are too few to know the bound
    assert abs(mean_log_bound(coarse.sequence) - coarse.objective[-1]) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knots": 3}, "4 to 40 .* knots, got 3"),
        ({"knots": 41}, "4 to 40 .* knots, got 41"),
        ({"weights": (0.0, 0.0)}, "weights must be >= 0"),
        ({"weights": (-1.0, 2.0)}, "weights must be >= 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        design_flip_angles(START, T1, T2, **options)


def test_several_axes_are_refused():
    sequence = replace(START, phase=np.arange(40.0))
    with pytest.raises(ValueError, match="share one axis"):
        design_flip_angles(sequence, T1, T2)
