"""Inverse problems and scientific imaging: from learnability to a reconstruction.

The sub-packages (`invlearn.physics`, `invlearn.identifiability`, `invlearn.wavelets`, ...) are
imported on first use, so that ``import invlearn`` costs nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = (
    "identifiability",
    "io",
    "learning",
    "neuro",
    "physics",
    "registration",
    "reports",
    "training",
    "unrolled",
    "wavelets",
)

__all__ = ["__version__", *_SUBPACKAGES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
