"""Magnetic resonance imaging."""

from __future__ import annotations

from invlearn.physics.mri import coils, trajectories
from invlearn.physics.mri.cartesian import CartesianMRI
from invlearn.physics.mri.density import pipe_menon
from invlearn.physics.mri.fingerprint import Dictionary, FingerprintMatch, FingerprintOperator, Grid
from invlearn.physics.mri.noncartesian import NonCartesianMRI
from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.physics.mri.spin_echo import TurboSpinEcho

__all__ = [
    "CartesianMRI",
    "Dictionary",
    "FingerprintMatch",
    "FingerprintOperator",
    "FingerprintSequence",
    "Grid",
    "NonCartesianMRI",
    "TurboSpinEcho",
    "coils",
    "pipe_menon",
    "trajectories",
]
