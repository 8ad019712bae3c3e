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
from invlearn.io.ismrmrd import read_scan, write_scan
from invlearn.io.landmarks import Landmarks, read_landmarks, write_landmarks, write_learn2reg
from invlearn.io.nifti import Volume, read_volume, write_volume
from invlearn.io.runs import Run, output_file, output_folder
from invlearn.io.scans import Scan
from invlearn.io.stacks import Stack, create_stack, open_stack, write_stack
from invlearn.io.swc import Tree, read_swc, write_swc

__all__ = [
    "ArrayInfo",
    "Landmarks",
    "Run",
    "Scan",
    "Stack",
    "Tree",
    "Volume",
    "create_stack",
    "inspect",
    "open_stack",
    "output_file",
    "output_folder",
    "read_array",
    "read_landmarks",
    "read_masks",
    "read_matrices",
    "read_measurements",
    "read_scan",
    "read_signals",
    "read_swc",
    "read_volume",
    "write_landmarks",
    "write_learn2reg",
    "write_scan",
    "write_stack",
    "write_swc",
    "write_volume",
]
