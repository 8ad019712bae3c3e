"""Magnetic resonance imaging."""

from __future__ import annotations

from invlearn.physics.mri.cartesian import CartesianMRI

__all__ = ["CartesianMRI"]
