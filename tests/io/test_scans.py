"""The scan in memory: what it refuses, and the units it recognises in a trajectory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from invlearn.io import Scan
from invlearn.io.scans import require_cycles_per_pixel


def make_scan(**changes) -> Scan:
    rng = np.random.default_rng(0)
    coils, frames, samples = 2, 3, 4
    total = frames * samples
    fields = {
        "kspace": rng.standard_normal((coils, total)) + 1j * rng.standard_normal((coils, total)),
        "trajectory": rng.uniform(-0.5, 0.5, (total, 2)),
        "frame": np.repeat(np.arange(frames), samples),
        "frames": frames,
        "shape": (8, 6),
        "field_of_view": (0.24, 0.18),
    }
    return Scan(**(fields | changes))


def test_counts_and_readouts():
    scan = make_scan(frame=np.array([0] * 4 + [2] * 2 + [1] * 2 + [2] * 4))
    assert (scan.coils, scan.samples) == (2, 12)
    assert scan.kspace.dtype == np.complex64
    assert scan.readouts.tolist() == [4, 2, 2, 4]
    assert scan.readout.tolist() == [0] * 4 + [1] * 2 + [2] * 2 + [3] * 4
    assert replace(scan, readouts=np.array([2] * 6)).readout.max() == 5


def test_one_value_for_all_frames_or_one_each():
    scan = make_scan(flip_angle=np.array(0.2), tr=np.array([0.01]), te=np.linspace(0.001, 0.002, 3))
    assert scan.flip_angle.shape == (1,)
    assert scan.te.shape == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kspace": np.zeros((0, 12), complex)}, "coils, samples"),
        ({"kspace": np.zeros((2, 11), complex)}, r"frame must be \(11,\)"),
        ({"trajectory": np.zeros((11, 2))}, r"12 samples a coil .* must be \(12, 2\); got \(11, 2\)"),
        ({"trajectory": np.zeros((12, 3))}, r"2 axes, so"),
        ({"trajectory": np.full((12, 2), np.nan)}, "12 points that are NaN"),
        ({"trajectory": np.full((12, 2), 0.6)}, "outside the field of view: it reaches 0.6"),
        ({"frames": 2}, "run from 0 to 2, but there are 2 frames"),
        ({"frame": np.full(12, -1)}, "from -1"),
        ({"shape": (8,)}, r"\(H, W\) or \(D, H, W\)"),
        ({"shape": (8, 0)}, r"\(H, W\) or \(D, H, W\)"),
        ({"field_of_view": (0.24,)}, "2 positive lengths in metres"),
        ({"field_of_view": (0.24, -1.0)}, "2 positive lengths in metres"),
        ({"readouts": np.array([4, 4])}, "8 samples together, k-space 12"),
        ({"tr": np.array([0.01, 0.02])}, "tr needs one value, or one for each of 3 frames"),
        ({"te": np.array([-0.01])}, "te has negative"),
        ({"flip_angle": np.array([np.inf])}, "flip_angle has"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        make_scan(**changes)


def test_nan_samples_are_counted_and_placed():
    kspace = make_scan().kspace.copy()
    kspace[1, 5:7] = np.nan
    with pytest.raises(ValueError, match=r"2 samples that are NaN .* readout 1 \(frame 1\)"):
        make_scan(kspace=kspace)


@pytest.mark.parametrize(
    ("factor", "shape", "field_of_view", "message"),
    [
        (2 * math.pi, None, None, "radians per pixel.*2π"),
        (2 * math.pi, (80, 60), (0.24, 0.18), "radians per pixel.*2π"),
        (np.array([60, 80]), (80, 60), (0.24, 0.18), "cycles per field of view.*matrix size"),
        (60 / 0.18, (80, 60), (0.24, 0.18), "1/m.*pixel size"),
        (1e6, (80, 60), (0.24, 0.18), "check its unit"),
        (300, None, None, "cycles per field of view .*1/m"),
    ],
)
def test_the_probable_unit_is_named(factor, shape, field_of_view, message):
    trajectory = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 2))
    require_cycles_per_pixel(trajectory, "it", shape, field_of_view)
    with pytest.raises(ValueError, match=message):
        require_cycles_per_pixel(trajectory * factor, "it", shape, field_of_view)


def test_rounding_is_no_error():
    require_cycles_per_pixel(np.full((1, 2), 0.5 + 1e-6), "it")
    with pytest.raises(ValueError, match="outside the field of view"):
        require_cycles_per_pixel(np.full((1, 2), 0.5 + 1e-4), "it")
