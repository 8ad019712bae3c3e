"""Turbo spin echo: what it plays and what it refuses; its signals are checked with the phase graph."""

from __future__ import annotations

import numpy as np
import pytest

from invlearn.physics.mri import TurboSpinEcho

FLIPS = np.full(4, np.pi)


def test_programme():
    sequence = TurboSpinEcho(FLIPS, 0.01, excitation_angle=1.0, excitation_phase=0.2, inversion_time=0.1)
    programme = sequence.programme()
    assert sequence.frames == programme.frames == 4
    assert programme.dephasing == (1, 1)
    assert programme.excitation == (1.0, 0.2, 0.005)
    np.testing.assert_array_equal(programme.te, np.full(4, 0.005))
    np.testing.assert_array_equal(programme.phase, np.full(4, np.pi / 2))
    assert programme.axis is None
    assert TurboSpinEcho(FLIPS, 0.01, phase=np.zeros(4)).programme().axis == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_angle": np.zeros(0)}, "at least one frame"),
        ({"flip_angle": -FLIPS}, "not negative"),
        ({"flip_angle": FLIPS * np.nan}, "flip_angle is not finite in frame 0"),
        ({"phase": np.zeros(3)}, "one phase an echo, got 3 for 4"),
        ({"echo_spacing": 0.0}, "echo_spacing must be positive seconds"),
        ({"echo_spacing": float("nan")}, "echo_spacing must be positive seconds"),
        ({"excitation_angle": -1.0}, "not negative"),
        ({"excitation_phase": float("inf")}, "must be finite"),
        ({"inversion_time": -1.0}, "inversion_time must be seconds >= 0"),
        ({"inversion_efficiency": 2.0}, "inversion_efficiency must lie in 0 to 1"),
        ({"slice_profile": np.ones(2)}, "slice_profile must be"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        TurboSpinEcho(**({"flip_angle": FLIPS, "echo_spacing": 0.01} | changes))
