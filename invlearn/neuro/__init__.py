"""Neurons: from a microscope's stack to a mask and a tracing.

Names are imported on first use: tracing, comparing and simulating do without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invlearn.neuro.distance import tree_distance
    from invlearn.neuro.metrics import compare, overlap
    from invlearn.neuro.rasterise import swc_to_mask
    from invlearn.neuro.segmentation import segment
    from invlearn.neuro.synthesis.simulate import simulate
    from invlearn.neuro.tracing import trace
    from invlearn.neuro.waveunet import WaveUNet3D, load_waveunet

# No module beside this one has the name of what it gives: once imported, it would stand in its place here.
_HOMES = {
    "WaveUNet3D": "waveunet",
    "compare": "metrics",
    "load_waveunet": "waveunet",
    "overlap": "metrics",
    "segment": "segmentation",
    "simulate": "synthesis.simulate",
    "swc_to_mask": "rasterise",
    "trace": "tracing",
    "tree_distance": "distance",
}

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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
