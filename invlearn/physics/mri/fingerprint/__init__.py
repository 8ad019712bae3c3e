"""Magnetic resonance fingerprinting: dictionaries, matching and the subspace operator."""

from __future__ import annotations

from invlearn.physics.mri.fingerprint.dictionary import Dictionary
from invlearn.physics.mri.fingerprint.grid import Grid
from invlearn.physics.mri.fingerprint.matching import FingerprintMatch
from invlearn.physics.mri.fingerprint.operator import FingerprintOperator

__all__ = ["Dictionary", "FingerprintMatch", "FingerprintOperator", "Grid"]
