"""Learning reconstructions from measurements alone, where theory says that it can work."""

from __future__ import annotations

from invlearn.learning.fit import FitResult, fit
from invlearn.learning.folder import MeasurementFolder
from invlearn.learning.gate import Gate, NotLearnable
from invlearn.learning.losses import (
    EquivariantImaging,
    MeasurementConsistency,
    MultiOperatorImaging,
    Supervised,
)
from invlearn.learning.objective import Batch, Loss, Objective
from invlearn.learning.splitting import Equivariant, EquivariantSplitting, Splitting
from invlearn.learning.sure import SURE, UNSURE, robust_equivariant_imaging
from invlearn.training import Diverged, Settings

__all__ = [
    "SURE",
    "UNSURE",
    "Batch",
    "Diverged",
    "Equivariant",
    "EquivariantImaging",
    "EquivariantSplitting",
    "FitResult",
    "Gate",
    "Loss",
    "MeasurementConsistency",
    "MeasurementFolder",
    "MultiOperatorImaging",
    "NotLearnable",
    "Objective",
    "Settings",
    "Splitting",
    "Supervised",
    "fit",
    "robust_equivariant_imaging",
]
