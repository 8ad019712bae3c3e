"""The example that writes a scan without invlearn, at tiny size: its physics and its file."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from invlearn.io import read_scan
from invlearn.physics.mri import FingerprintSequence

EXAMPLE = Path(__file__).parents[2] / "examples" / "foreign_scan.py"


def test_the_example_uses_nothing_of_invlearn() -> None:
    assert "import invlearn" not in EXAMPLE.read_text()
    assert "from invlearn" not in EXAMPLE.read_text()


def test_its_fingerprints_in_a_limit_known_in_closed_form() -> None:
    """Long repetition times: each frame starts from equilibrium, its signal is -i sin(flip) exp(-TE/T2)."""
    flip, te = np.array([30.0, 90.0, 60.0]), np.full(3, 0.01)
    signal = runpy.run_path(str(EXAMPLE))["fingerprints"](
        flip, np.full(3, 50.0), te, np.array([0.5]), np.array([0.1])
    )
    np.testing.assert_allclose(signal[0, 1:], -1j * np.sin(np.deg2rad(flip[1:])) * np.exp(-0.1), atol=1e-9)


def test_the_files_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[-1:1:12j, -1:1:10j]
    disc = (x**2 + y**2 < 0.6).astype(float)
    np.savez(tmp_path / "maps.npz", t1=disc, t2=0.1 * disc, pd=disc)
    names = [str(tmp_path / name) for name in ("maps.npz", "scan.h5", "train.csv")]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *names, "--frames", "6", "--coils", "3", "--snr", "40"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    scan = read_scan(tmp_path / "scan.h5")
    assert (scan.frames, scan.coils, scan.shape) == (6, 3, (12, 10))
    assert scan.flip_angle is None
    train = FingerprintSequence.from_csv(tmp_path / "train.csv")
    assert train.frames == 6
    np.testing.assert_allclose(train.te, 0.0021)
