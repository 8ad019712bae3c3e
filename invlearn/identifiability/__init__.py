"""Can a reconstruction be learned from these measurements alone?"""

from __future__ import annotations

from invlearn.identifiability.bounds import Bound
from invlearn.identifiability.certificates import Certificate, GhostTest
from invlearn.identifiability.check import check
from invlearn.identifiability.completion import Completion, completion
from invlearn.identifiability.dimension import (
    DimensionEstimate,
    estimate_dimension,
    estimate_dimension_from_measurements,
)
from invlearn.identifiability.evidence import Generated, Measurements
from invlearn.identifiability.learn import learn_subspace
from invlearn.identifiability.phase import phase_diagram
from invlearn.identifiability.plan import Plan, plan
from invlearn.identifiability.report import Report
from invlearn.identifiability.splitting import check_splitting

__all__ = [
    "Bound",
    "Certificate",
    "Completion",
    "DimensionEstimate",
    "Generated",
    "GhostTest",
    "Measurements",
    "Plan",
    "Report",
    "check",
    "check_splitting",
    "completion",
    "estimate_dimension",
    "estimate_dimension_from_measurements",
    "learn_subspace",
    "phase_diagram",
    "plan",
]
