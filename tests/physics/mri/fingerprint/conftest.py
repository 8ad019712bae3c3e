"""A short train and its dictionaries, simulated once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invlearn.physics.mri import Dictionary, FingerprintSequence, Grid

FRAMES = 40


@pytest.fixture(scope="session")
def sequence() -> FingerprintSequence:
    """Forty frames after an inversion, all pulses about x."""
    n = np.arange(FRAMES)
    flip = np.radians(10 + 50 * np.sin(np.pi * (n + 0.5) / FRAMES) ** 2 + 20 * (n > 25))
    tr = 0.02 + 0.005 * np.sin(n / 3)
    return FingerprintSequence(flip, np.zeros(FRAMES), tr, np.full(FRAMES, 0.002), inversion_time=0.018)


@pytest.fixture(scope="session")
def short(sequence) -> FingerprintSequence:
    """So few frames that they are compiled once."""
    return sequence.truncated(12)


@pytest.fixture(scope="session")
def grid() -> Grid:
    return Grid.logarithmic((0.3, 3.0), (0.03, 1.0), step=0.15)


@pytest.fixture(scope="session")
def dictionary(sequence, grid) -> Dictionary:
    return Dictionary.build(sequence, grid, rank=6, dtype=torch.float64)


@pytest.fixture(scope="session")
def complete(sequence, grid) -> Dictionary:
    """So many coefficients that nothing of the signals is lost."""
    return Dictionary.build(sequence, grid, rank=16, dtype=torch.float64)


@pytest.fixture(scope="session")
def with_b1(sequence) -> Dictionary:
    coarse = Grid.logarithmic((0.4, 2.5), (0.04, 0.5), step=0.25, b1=np.linspace(0.85, 1.15, 13))
    return Dictionary.build(sequence, coarse, rank=8, dtype=torch.float64)


@pytest.fixture(scope="session")
def tissues() -> tuple[torch.Tensor, torch.Tensor]:
    """T1 and T2 (s) off the grid, well inside it; one T2 close to T1."""
    t1 = torch.tensor([0.41, 0.83, 1.33, 1.9, 2.7, 0.62, 1.05], dtype=torch.float64)
    t2 = torch.tensor([0.047, 0.071, 0.113, 0.39, 0.81, 0.58, 0.034], dtype=torch.float64)
    return t1, t2
