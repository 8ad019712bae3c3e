"""The answer to "can this be learned from my measurements?"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from invlearn.identifiability.bounds import Bound
from invlearn.identifiability.certificates import Certificate, GhostTest
from invlearn.identifiability.plan import Plan

if TYPE_CHECKING:
    from invlearn.identifiability.dimension import DimensionEstimate

Verdict = Literal["impossible", "certified", "generic", "undecided"]


@dataclass(frozen=True, eq=False)
class Report:
    """Verdict, what it rests on, and pictures of what stays invisible.

    Attributes
    ----------
    verdict
        `impossible`: a necessary condition fails for these operators. `certified`: a rank certificate
        was computed for these operators, see its scope. `generic`: unstructured operators, the
        theorems for almost every operator hold, no certificate was run. `undecided`: see `reason`.
    reason
        One or two sentences.
    n
        Dimension of the signals; complex numbers for complex problems.
    m
        Rank of each operator.
    operators, group, dimension
        Number of operators, name of the group, dimension k of the signal set that was used.
    bounds, certificate, plan, warnings
        The conditions one by one, the rank certificate, planning figures, caveats.
    ghost_test
        Random mixed assignments for unions of subspaces.
    shape, complex
        Of one signal.
    coverage, coverage_basis
        How many operators (or group copies) see each entry; basis `"pixel"` or `"fourier"` (zero
        frequency first). None where no such basis exists.
    unseen, unseen_what
        Up to 8 unit-norm signals that stay invisible `(j, *shape)`, and what they are.
    completable
        Fraction of the operators for which each pixel is determined `(*shape)`, where a subspace
        certificate failed; None otherwise.
    spectrum
        Smallest relative singular values of the certificate, ascending.
    dimension_estimate, sweep
        Where the dimension came from data: the estimate, and (dimension, verdict) over its interval.
    """

    verdict: Verdict
    reason: str
    n: int
    m: tuple[int, ...]
    operators: int
    group: str | None
    dimension: int | None
    bounds: tuple[Bound, ...]
    certificate: Certificate | None
    plan: Plan
    warnings: tuple[str, ...]
    shape: tuple[int, ...]
    complex: bool
    ghost_test: GhostTest | None = None
    coverage: Tensor | None = field(default=None, repr=False)
    coverage_basis: str | None = None
    unseen: Tensor | None = field(default=None, repr=False)
    unseen_what: str = ""
    completable: Tensor | None = field(default=None, repr=False)
    dimension_estimate: DimensionEstimate | None = None
    sweep: tuple[tuple[int, Verdict], ...] = ()

    @property
    def spectrum(self) -> Tensor | None:
        """Smallest relative singular values of the certificate's stack."""
        return None if self.certificate is None else self.certificate.spectrum

    @property
    def learnable(self) -> bool:
        """Whether the verdict is `certified` or `generic`."""
        return self.verdict in ("certified", "generic")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the pictures stay out."""
        estimate = self.dimension_estimate
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "n": self.n,
            "m": list(self.m),
            "operators": self.operators,
            "group": self.group,
            "dimension": self.dimension,
            "bounds": [b.to_dict() for b in self.bounds],
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "plan": self.plan.to_dict(),
            "warnings": list(self.warnings),
            "ghost_test": None if self.ghost_test is None else self.ghost_test.to_dict(),
            "dimension_estimate": None if estimate is None else estimate.to_dict(),
            "sweep": [{"dimension": k, "verdict": v} for k, v in self.sweep],
            "complex": self.complex,
            "shape": list(self.shape),
        }

    def __str__(self) -> str:
        group = f", group {self.group}" if self.group else ""
        lines = [
            f"{self.verdict.upper()}: {self.reason}",
            f"n = {self.n}, {self.operators} operator(s){group}, k = {self.dimension}",
        ]
        for b in self.bounds:
            mark = {True: "holds", False: "FAILS", None: "?"}[b.holds] if b.applies else "does not apply here"
            figures = "" if b.actual is None else f" [{b.actual:.6g} against {b.required:.6g}]"
            lines.append(f"  {b.id:<13}{b.kind:<11}{mark:<20}{b.statement}{figures}")
        if self.certificate is not None:
            lines.append(f"certificate ({self.certificate.model}): {self.certificate.scope}")
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])
