"""Files: arrays looked at before they are read, and records of what a run did."""

from __future__ import annotations

from invlearn.io.arrays import (
    ArrayInfo,
    inspect,
    read_array,
    read_masks,
    read_matrices,
    read_measurements,
    read_signals,
)
from invlearn.io.runs import Run, output_file, output_folder

__all__ = [
    "ArrayInfo",
    "Run",
    "inspect",
    "output_file",
    "output_folder",
    "read_array",
    "read_masks",
    "read_matrices",
    "read_measurements",
    "read_signals",
]
