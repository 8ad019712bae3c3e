"""Synthetic neurons: grown, rendered by a microscope model, with exact truth."""

from __future__ import annotations

from invlearn.neuro.synthesis.grow import grow
from invlearn.neuro.synthesis.microscope import Clutter, Detector, Labelling, Microscope, render
from invlearn.neuro.synthesis.simulate import NOISE, Sample, simulate
from invlearn.neuro.synthesis.variety import simulate_widely

__all__ = [
    "NOISE",
    "Clutter",
    "Detector",
    "Labelling",
    "Microscope",
    "Sample",
    "grow",
    "render",
    "simulate",
    "simulate_widely",
]
