"""One trainer for every learned part, and files for what it learned."""

from __future__ import annotations

from invlearn.training.results import Diverged, TrainingResult
from invlearn.training.settings import Settings
from invlearn.training.trainer import train
from invlearn.training.weights import load_into, load_network, read_weights, save_network, write_weights

__all__ = [
    "Diverged",
    "Settings",
    "TrainingResult",
    "load_into",
    "load_network",
    "read_weights",
    "save_network",
    "train",
    "write_weights",
]
