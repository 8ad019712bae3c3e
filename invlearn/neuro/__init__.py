"""Neurons: from a microscope's stack to a mask and a tracing."""

from __future__ import annotations

from invlearn.neuro.distance import tree_distance
from invlearn.neuro.metrics import compare, overlap
from invlearn.neuro.rasterise import swc_to_mask
from invlearn.neuro.segmentation import segment
from invlearn.neuro.synthesis.simulate import simulate
from invlearn.neuro.trace import trace
from invlearn.neuro.waveunet import WaveUNet3D, load_waveunet

__all__ = [
    "WaveUNet3D",
    "compare",
    "load_waveunet",
    "overlap",
    "segment",
    "simulate",
    "swc_to_mask",
    "trace",
    "tree_distance",
]
