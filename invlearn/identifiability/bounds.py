"""The conditions for learning from incomplete measurements, each as a value.

N1, N2, N3 are necessary and exact for the given operators. T1, T2, R, D2, D7 are counts that hold
for *almost every* operator: they say nothing about masks, Fourier operators and other special
families, where `applies` is False and they never decide.

Sources: Tachella, Chen & Davies, "Unsupervised Learning From Incomplete Measurements", NeurIPS 2022,
arXiv:2201.12151; "Sensing Theorems for Unsupervised Learning in Linear Inverse Problems", JMLR 24
(2023), arXiv:2203.12513; Sauer, Yorke & Casdagli, "Embedology", J. Stat. Phys. 65 (1991),
doi:10.1007/BF01053745.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from invlearn.identifiability.coverage import Coverage
from invlearn.identifiability.nullspace import orth
from invlearn.identifiability.setting import DENSE_LIMIT, Element, Setting
from invlearn.physics.groups import Group

NEURIPS22 = "Tachella, Chen & Davies, NeurIPS 2022, arXiv:2201.12151"
JMLR23 = "Tachella, Chen & Davies, JMLR 2023, arXiv:2203.12513"
EMBEDOLOGY = "Sauer, Yorke & Casdagli 1991, doi:10.1007/BF01053745"
COUNTING = "parameter counting on the Grassmannian (documentation, theory page)"


@dataclass(frozen=True)
class Bound:
    """One condition, evaluated.

    Attributes
    ----------
    id
        Short name: N1, N2, N3, `count`, `multiplicity`, `dimension`, T1, T2, R, D2, D7, T3.
    kind
        `"necessary"` or `"sufficient"`.
    statement
        The condition in symbols and words.
    required, actual, margin
        Right-hand side, left-hand side, and `actual - required`; None where it is no count.
    holds
        Whether it holds; None where it could not be evaluated.
    applies
        Whether it says anything about these operators.
    source
        Where it comes from.
    note
        Why it does not apply, or how it was computed.
    """

    id: str
    kind: Literal["necessary", "sufficient"]
    statement: str
    required: float | int | None
    actual: float | int | None
    margin: float | int | None
    holds: bool | None
    applies: bool
    source: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _bound(
    id: str,
    kind: Literal["necessary", "sufficient"],
    statement: str,
    values: tuple[float | int, float | int],
    strict: bool,
    source: str,
    applies: bool = True,
    note: str = "",
) -> Bound:
    """A bound `actual >= required` (or `>`); `values` = (actual, required)."""
    actual, required = values
    holds = actual > required if strict else actual >= required
    return Bound(id, kind, statement, required, actual, actual - required, holds, applies, source, note)


def stack_rank_bound(setting: Setting, coverage: Coverage) -> Bound:
    """N1 / N2: the stacked operators see every direction."""
    grouped = setting.group is not None
    statement = (
        "rank of [A T_1; ...; A T_|G|] = n: the operator and the group together see every direction"
        if grouped
        else "rank of [A_1; ...; A_G] = n: together the operators see every direction"
    )
    source = JMLR23 if grouped else NEURIPS22
    rank, n = coverage.rank, setting.n
    holds = rank == n if coverage.settled else None
    id = "N2" if grouped else "N1"
    return Bound(id, "necessary", statement, n, rank, rank - n, holds, True, source, coverage.method)


def count_bound(setting: Setting) -> Bound:
    """m >= n/G, for unequal m: the ranks add up to n."""
    total = sum(setting.ranks) * setting.order
    return _bound(
        "count",
        "necessary",
        "m >= n/G (unequal m: the ranks add up to n)",
        (total / setting.count, setting.n / setting.count),
        False,
        JMLR23 if setting.group is not None else NEURIPS22,
    )


def multiplicity_bound(setting: Setting) -> Bound:
    """m >= max_j c_j/s_j: a representation needs as many measured vectors as it has generators."""
    assert setting.group is not None
    statement = "m >= max_j c_j/s_j over the irreducible representations of the group"
    try:
        irreps = setting.group.irreps()
    except ValueError as error:  # a group too large to be split
        return _unknown("multiplicity", "necessary", statement, str(error))
    needed = max(irrep.multiplicity / irrep.dimension for irrep in irreps)
    return _bound("multiplicity", "necessary", statement, (sum(setting.ranks), needed), False, JMLR23)


def _unknown(id: str, kind: Literal["necessary", "sufficient"], statement: str, why: str) -> Bound:
    return Bound(id, kind, statement, None, None, None, None, kind == "necessary", JMLR23, why)


def max_multiplicity(group: Group) -> int | None:
    """max_j c_j, None for a group that is too large to be split."""
    try:
        return group.max_multiplicity()
    except ValueError:
        return None


def equivariance_bound(setting: Setting, coverage: Coverage) -> Bound:
    """N3: the operator must not be equivariant, unless it sees everything."""
    departure = equivariance_departure(setting)
    statement = "A is not equivariant (A T_g = T'_g A), or else the group adds nothing to what A sees"
    holds = departure > 1e-8 or coverage.rank >= setting.n
    note = "relative size of A T_g (I - A⁺A) on random probes, largest over the group's generators"
    return Bound("N3", "necessary", statement, 0.0, departure, departure, holds, True, JMLR23, note)


def equivariance_departure(setting: Setting) -> float:
    """max over generators g and operators of ‖A T_g z‖ / ‖T_g z‖ ‖A‖, z random in the null space of A.

    Zero exactly when every null space is invariant, i.e. A T_g = T'_g A for some T'. Zero too for an
    operator without a null space.
    """
    assert setting.group is not None
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for i in range(len(setting.family)):
        z = null_probe(setting, i, generator)
        size = torch.linalg.vector_norm(z)
        if float(size) < 1e-8:
            continue
        probe = torch.randn(setting.n, dtype=z.dtype, generator=generator).to(z.device)
        image = setting.apply(probe / torch.linalg.vector_norm(probe), Element(i, 0))
        scale = torch.linalg.vector_norm(image).clamp_min(1e-300)
        for g in setting.group.generators:
            seen = torch.linalg.vector_norm(setting.apply(z / size, Element(i, g)))
            worst = max(worst, float(seen / scale))
    return worst


def null_probe(setting: Setting, i: int, generator: torch.Generator) -> Tensor:
    """A random vector of the null space of A_i, `(n,)`: (I - A⁺A) of a random one."""
    z = torch.randn(setting.n, dtype=setting.domain.dtype(torch.float64), generator=generator).to(
        setting.device
    )
    z = z / torch.linalg.vector_norm(z)
    if setting.basis is not None:
        d = setting.diagonal(Element(i, 0))
        return setting.signals(torch.where(d > 0, 0, setting.coordinates(z)))
    if setting.n <= DENSE_LIMIT:
        rows = setting.row_space(i)
        return z - rows.mH @ (rows @ z)
    from invlearn.physics.solvers import lsqr

    op = setting.family[i]
    x = setting.domain.unflatten(z)
    return z - setting.domain.flatten(lsqr(op, op(x), tolerance=1e-12, max_iterations=500).value)


def dimension_bound(setting: Setting, k: int, basis: Tensor | None = None) -> Bound:
    """k < m for some operator; where the subspace is given, dim A V < rank A for some."""
    m = max(setting.ranks)
    bound = _bound(
        "dimension",
        "necessary",
        "m > k for some operator: otherwise measurements fill every range and constrain nothing",
        (m, k),
        strict=m < setting.n,
        source=NEURIPS22,
    )
    if basis is None or bound.holds:
        return bound
    for e in setting.elements(64):
        if orth(setting.apply(basis, e).T).shape[1] < setting.ranks[e.operator]:
            return replace(bound, holds=True, note="the given subspace does not fill an operator's range")
    return bound


def generic_bounds(setting: Setting, k: int) -> list[Bound]:
    """T1 or T2, R, D2 and D7, for signals of dimension k."""
    ranks, n, g = setting.distinct_ranks, setting.n, setting.effective
    m = min(ranks)
    structured = setting.family.structured
    why = (
        "these operators are of a special family, the theorem speaks of almost every operator"
        if structured
        else ""
    )
    bounds = [
        _bound(
            "R",
            "sufficient",
            "m > 2k: signals can be recovered once the set is known",
            (m, 2 * k),
            True,
            EMBEDOLOGY,
            not structured,
            why,
        ),
    ]
    if setting.group is None:
        equal = len(set(ranks)) == 1
        single = "one operator and no group" if g == 1 else ""
        bounds.append(
            _bound(
                "T1",
                "sufficient",
                "m > k + n/G: the signal set can be learned",
                (m, k + n / g),
                True,
                NEURIPS22,
                not structured and g > 1,
                why or single,
            )
        )
        if not equal:
            bounds.append(
                _bound(
                    "D7",
                    "sufficient",
                    "sum over g of max(m_g - k, 0) >= n (unequal m)",
                    (sum(max(r - k, 0) for r in ranks), n),
                    False,
                    COUNTING,
                    not structured and g > 1,
                    why or single,
                )
            )
        bounds.append(
            _bound(
                "D2",
                "sufficient",
                "m >= k + (n - k)/G: one linear subspace can be learned",
                (sum(max(r - k, 0) for r in ranks) / g + k, k + (n - k) / g),
                False,
                COUNTING,
                not structured,
                why,
            )
        )
    else:
        applies, note = t2_applies(setting)
        c = max_multiplicity(setting.group)
        statement = "m > 2k + max_j c_j + 1 (cyclic group): the signal set can be learned"
        bounds.append(
            _unknown("T2", "sufficient", statement, note or "the group is too large to be split into irreps")
            if c is None
            else _bound("T2", "sufficient", statement, (m, 2 * k + c + 1), True, JMLR23, applies, note)
        )
    return bounds


def t2_applies(setting: Setting) -> tuple[bool, str]:
    """Whether T2 speaks of this setting, and why not."""
    group: Group | None = setting.group
    if group is None or len(setting.family) > 1:
        return False, "stated for one operator"
    if not group.cyclic:
        return False, "stated for cyclic groups"
    if setting.family.structured:
        return False, "the operator is of a special family, the theorem speaks of almost every operator"
    return True, ""


def generic_holds(bounds: Sequence[Bound]) -> bool:
    """Whether the theorems that apply prove that the signals can be learned and recovered."""
    ids = {b.id: b for b in bounds if b.applies and b.holds}
    return "R" in ids and bool(ids.keys() & {"T1", "T2", "D7"})


def noise_bound(noise: float) -> Bound:
    """T3: Gaussian noise leaves the thresholds where they are, with unlimited data."""
    return Bound(
        "T3",
        "sufficient",
        "the noise's characteristic function has no zero: the noiseless law follows from the noisy one",
        None,
        None,
        None,
        True,
        True,
        JMLR23,
        f"Gaussian noise of SD {noise:g}; a statement about unlimited data",
    )


def smallest_integer_above(x: float | int) -> int:
    """The smallest integer strictly greater than x."""
    return math.floor(x + 1e-9) + 1
