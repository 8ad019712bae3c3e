"""Rank certificates for the operators at hand.

* subspace (D2): the null space of Σ_g A_gᴴ (I - Π_{A_g V}) A_g equals V. With V random, full rank at
  one proves it for almost every linear k-subspace (rank is lower semicontinuous).
* tangent (D4): the same with V a tangent space of the signal set, at points of it: excludes smooth
  deformations near the point, not distant ghosts.
* union (D3): for mixed assignments of subspaces to operators, the preimages must not meet outside
  the set: random assignments, evidence and no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from invlearn.identifiability.nullspace import FAILURE, NullSpace, null_space, orth
from invlearn.identifiability.setting import DENSE_LIMIT, Element, Setting


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was computed for these operators.

    Attributes
    ----------
    model
        `"subspace"`, `"tangent"`, `"union"`, or, with a group, `"orbit"` of a subspace.
    scope
        For which signals and operators it speaks, and for which not, in words.
    nullity, expected_nullity
        Dimension of the null space found, and the one that a pass needs.
    gap
        First nonzero singular value, relative to the largest.
    tolerance
        Relative size under which a singular value counts as zero.
    method
        How the rank was computed.
    spectrum
        Smallest singular values, ascending, relative to the largest.
    ghosts
        Orthonormal directions that are consistent with the measurements though not in the model,
        `(j, n)`.
    borderline
        The gap is too small to trust the count.
    """

    model: str
    scope: str
    nullity: int
    expected_nullity: int
    gap: float
    tolerance: float
    method: str
    spectrum: Tensor = field(repr=False)
    ghosts: Tensor = field(repr=False)
    borderline: bool = False

    @property
    def passed(self) -> bool:
        """Full rank, with a gap wide enough to be sure."""
        return self.nullity == self.expected_nullity and self.gap > 0 and not self.borderline

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        keys = ("model", "scope", "nullity", "expected_nullity", "gap", "tolerance", "method", "borderline")
        return {key: getattr(self, key) for key in keys} | {"passed": self.passed}


@dataclass(frozen=True)
class GhostTest:
    """Random mixed assignments of two subspaces (or of an orbit's members) to the operators.

    Attributes
    ----------
    ghost_dimension
        Largest dimension of a spurious intersection; 0 if none was found.
    assignments
        How many were tried.
    """

    ghost_dimension: int
    assignments: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def random_subspace(setting: Setting, k: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows `(k, n)` spanning a random subspace."""
    x = torch.randn(k, setting.n, dtype=setting.domain.dtype(torch.float64), generator=generator)
    return orth(x.to(setting.device).T).T.contiguous()


def covering_elements(setting: Setting, k: int, seed: int) -> Iterator[Sequence[Element]]:
    """Growing random sets of effective operators, up to all: a pass on some of them is a pass on all."""
    per = max(1.0, sum(max(r - k, 0) for r in setting.ranks) / len(setting.family))
    count = max(64, int(2 * setting.n / per) + 8)
    while count < setting.count:
        yield setting.elements(count, seed)
        count *= 4
    yield setting.elements()


def subspace_certificate(
    setting: Setting, basis: Tensor, scope: str, *, model: str = "subspace", seed: int = 0
) -> Certificate:
    """Whether the subspace spanned by the rows of `basis` is fixed by its measurements.

    Parameters
    ----------
    setting
        The operators, with or without a group.
    basis
        `(k, n)`, flattened signals.
    scope
        In words, for the report.
    model
        Name of the model class.
    seed
        Of the choice of group elements where the group is large.
    """
    basis = orth(basis.to(setting.device, setting.domain.dtype(torch.float64)).T).T.contiguous()
    k = len(basis)
    candidates: Iterable[Sequence[Element]] = covering_elements(setting, k, seed)
    if setting.basis == "fourier" and setting.group is not None and setting.group.name == "shifts":
        # A T_g = T'_g A: every shift of A has the same null space, of A - Π_{AV} A, so one is enough.
        candidates = [[Element(i, 0) for i in range(len(setting.family))]]
    result: NullSpace | None = None
    for elements in candidates:
        result = null_space(setting, elements, [basis], [0] * len(elements))
        if result.nullity == k and not result.borderline:
            break
        if setting.n > DENSE_LIMIT and setting.basis is None:
            break  # a larger set costs as much again and again
    assert result is not None
    if not result.exact and result.nullity == k and result.gap > 0:
        scope += f" (holds with probability 1 - {FAILURE:.0e} over the random start of the computation)"
    ghosts = result.vectors - (result.vectors @ basis.mH) @ basis
    if len(ghosts):
        ghosts = orth(ghosts[torch.linalg.vector_norm(ghosts, dim=1) > 1e-6].T).T
    return Certificate(
        model,
        scope,
        result.nullity,
        k,
        result.gap,
        result.tolerance,
        result.method,
        result.singular_values,
        ghosts,
        result.borderline,
    )


def ghost_test(
    setting: Setting, k: int, basis: Tensor | None = None, *, assignments: int = 3, seed: int = 0
) -> GhostTest:
    """Look for ghosts of a union of subspaces under random mixed assignments.

    Without a group the union has two random k-subspaces; with one it is the orbit {T_h V} of the
    subspace V spanned by the rows of `basis`, or else of a random one. An intersection that lies
    inside one of the subspaces is no ghost.
    """
    generator = torch.Generator().manual_seed(seed + 17)
    worst = 0
    elements = next(covering_elements(setting, k, seed))
    if len(elements) == 1:
        return GhostTest(0, 0)  # one operator: nothing to mix
    for _ in range(assignments):
        v = random_subspace(setting, k, generator) if basis is None else orth(basis.T).T
        if setting.group is None:
            bases = [v, random_subspace(setting, k, generator)]
        else:
            members = torch.randperm(setting.order, generator=generator)[:4].tolist()
            bases = [setting.move(v, Element(0, h)) for h in members]
        assignment = torch.randint(len(bases), (len(elements),), generator=generator).tolist()
        if len(set(assignment)) == 1:
            assignment[0] = (assignment[0] + 1) % len(bases)
        found = null_space(setting, elements, bases, assignment)
        worst = max(worst, _outside(setting, found, bases))
    return GhostTest(worst, assignments)


def _outside(setting: Setting, found: NullSpace, bases: Sequence[Tensor]) -> int:
    """Dimension of a null space, or 0 where it lies inside a subspace of the union."""
    members = list(bases)
    if setting.group is not None and setting.order <= 64:
        members = [setting.move(bases[0], Element(0, g)) for g in range(setting.order)]
    for v in members:
        outside = found.vectors - (found.vectors @ v.mH) @ v
        if found.nullity == 0 or float(torch.linalg.vector_norm(outside)) < 1e-5:
            return 0
    return found.nullity


def tangent_certificate(
    setting: Setting, tangents: Sequence[Tensor], origin: str, seed: int = 0
) -> Certificate:
    """The worst subspace certificate over tangent spaces: rank of the tangent Jacobian is
    n + (G - 1) k at each of the points."""
    scope = (
        f"local: at {len(tangents)} points of the signal set (tangent spaces from {origin}), no smooth "
        "deformation of the set has the same measurements; signals far from these points and distant "
        "alternatives are not covered"
    )
    worst: Certificate | None = None
    for u in tangents:
        one = subspace_certificate(setting, u, scope, model="tangent", seed=seed)
        excess = one.nullity - one.expected_nullity
        if worst is None or (excess, -one.gap) > (worst.nullity - worst.expected_nullity, -worst.gap):
            worst = one
    if worst is None:
        raise ValueError("no point of the signal set to look at")
    return worst


def tangent_rank(setting: Setting, basis: Tensor) -> tuple[int, int]:
    """Rank of the tangent Jacobian J (D4) and the rank n + (G - 1) k of a pass.

    J stacks, over g, the rows [A_g | 0 .. -A_g U .. 0]. Dense; for small problems and as an oracle of
    `subspace_certificate`, to which it is equivalent when every A_g is injective on U.
    """
    elements = setting.elements()
    k, n = len(basis), setting.n
    rows = []
    for j, e in enumerate(elements):
        a = setting.matrix(e)
        row = torch.zeros(a.shape[0], n + len(elements) * k, dtype=a.dtype, device=a.device)
        row[:, :n] = a
        row[:, n + j * k : n + (j + 1) * k] = -a @ basis.to(a.dtype).T
        rows.append(row)
    s = torch.linalg.svdvals(torch.cat(rows))
    return int((s > 1e-10 * s[0]).sum()), n + (len(elements) - 1) * k


def completability(setting: Setting, basis: Tensor, ghosts: Tensor) -> Tensor:
    """For each operator and entry, whether the entry of a signal seen by that operator is determined.

    A ghost w moves the model by E = w cᵀ; signals measured by A_g follow with w - U b_g where A_g w =
    A_g U b_g. Signals U b with A_g U b = 0 stay free even when the model is known. An entry is
    determined (to first order) when neither moves it. The per-entry test of Király, Theran & Tomioka
    (JMLR 2015, arXiv:1211.4116) with unlimited samples of each mask.

    Parameters
    ----------
    basis
        The model's subspace, `(k, n)`.
    ghosts
        From the certificate, `(j, n)`.

    Returns
    -------
    Tensor
        Boolean `(G, n)`, in the pixel basis.
    """
    out = []
    for e in setting.elements():
        left, s, vh = torch.linalg.svd(setting.apply(basis, e).T, full_matrices=True)
        rank = int((s > setting.precision.rank * s[0]).sum()) if len(s) else 0
        inverse = vh[:rank].mH / s[:rank] @ left[:, :rank].mH
        follow = inverse @ setting.apply(ghosts, e).T
        moved = torch.cat([ghosts - (basis.T @ follow).T, (basis.T @ vh[rank:].mH).T])
        out.append((moved.abs() < 1e-7).all(0))
    return torch.stack(out)
