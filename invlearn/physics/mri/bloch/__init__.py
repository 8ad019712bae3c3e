"""Bloch simulation of pulse sequences by extended phase graphs, in JAX, with exact derivatives.

JAX is imported by the first simulation.
"""

from __future__ import annotations

from invlearn.physics.mri.bloch.bounds import crb
from invlearn.physics.mri.bloch.layer import BlochLayer
from invlearn.physics.mri.bloch.simulate import PulseSequence, simulate

__all__ = ["BlochLayer", "PulseSequence", "crb", "simulate"]
