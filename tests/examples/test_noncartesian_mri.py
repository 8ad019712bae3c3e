"""The how-to page's example: simulated at tiny size, and the real scans where they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "noncartesian_mri.py"))


def test_simulated_scan(tmp_path):
    import sigpy

    result = EXAMPLE["reconstruct"](EXAMPLE["simulated"](48), damping=1e-3, iterations=40)
    assert result.difference < 0.02  # SigPy's gridding is accurate to some 1e-3
    truth = np.abs(sigpy.shepp_logan((48, 48)))
    errors = []
    for image in (np.abs(result.image), np.abs(result.adjoint)):
        scale = np.vdot(image, truth) / np.vdot(image, image)
        errors.append(np.linalg.norm(scale * image - truth) / np.linalg.norm(truth))
    assert errors[0] < 0.2 < errors[1]
    EXAMPLE["figure"](result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_real_scans(data_folder):
    brain, phantom, _ = EXAMPLE["real_scans"](data_folder)
    result = EXAMPLE["reconstruct"](brain, iterations=10)
    assert result.difference < 1e-4  # both are exact: FFTs
    result = EXAMPLE["reconstruct"](phantom, iterations=10)
    assert result.difference < 5e-2
    # the phantom's bottles are bright, the air between them is dark
    image = np.abs(result.image)
    assert image[140, 270] > 10 * image[330, 60]
