"""How much to measure: the counting formulas, before any operator exists."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from invlearn.identifiability.bounds import max_multiplicity, smallest_integer_above
from invlearn.physics.groups import Group


@dataclass(frozen=True)
class Plan:
    """What the counting theorems ask for; generic operators, no guarantee for special ones.

    Attributes
    ----------
    minimal_m
        Smallest m that identifies the signal set with these operators *and* recovers signals: above
        max(2k, k + n/G), with a cyclic group above 2k + max_j c_j + 1; None where no theorem speaks or
        no m <= n will do.
    minimal_operators
        Smallest number of operators for the given m: floor(n/(m - k)) + 1, and 1 for m = n;
        None if m <= k or unknown.
    minimal_m_subspace
        Smallest m for one linear subspace, ceil(k + (n - k)/G).
    minimal_m_recovery
        2k + 1.
    expected_unseen
        Expected number of entries that none of G random masks with kept fraction p sees, n (1 - p)^G.
    """

    minimal_m: int | None
    minimal_operators: int | None
    minimal_m_subspace: int | None = None
    minimal_m_recovery: int | None = None
    expected_unseen: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def plan(
    n: int,
    dimension: int,
    *,
    m: int | None = None,
    operators: int | None = None,
    group: Group | None = None,
    keep: float | None = None,
) -> Plan:
    """Smallest m for a number of operators, smallest number of operators for an m.

    Parameters
    ----------
    n
        Dimension of the signals.
    dimension
        k, dimension of the signal set.
    m
        Measurements per operator.
    operators
        G, number of operators (without a group).
    group
        Symmetry of the signal set, for one operator.
    keep
        Kept fraction p of random masks, 0 ... 1.

    Raises
    ------
    ValueError
        k or m outside 1 ... n, no operator, p outside 0 ... 1.
    """
    if not 1 <= dimension <= n:
        raise ValueError(f"the dimension k must be between 1 and n = {n}, got {dimension}")
    if m is not None and not 1 <= m <= n:
        raise ValueError(f"m must be between 1 and n = {n}, got {m}")
    if operators is not None and operators < 1:
        raise ValueError(f"at least one operator is needed, got {operators}")
    if keep is not None and not 0 <= keep <= 1:
        raise ValueError(f"the kept fraction lies between 0 and 1, got {keep}")
    k = dimension
    minimal_m: int | None = None
    subspace: int | None = None
    if group is not None:
        c = max_multiplicity(group) if group.cyclic else None
        minimal_m = None if c is None else smallest_integer_above(2 * k + 1 + c)
        subspace = math.ceil(k + (n - k) / group.order - 1e-9)
    elif operators is not None:
        minimal_m = smallest_integer_above(max(2 * k, k + n / operators))
        subspace = math.ceil(k + (n - k) / operators - 1e-9)
    if minimal_m is not None and minimal_m > n:
        # m = n sees everything: nothing has to be learned from incomplete data
        minimal_m = n if operators is not None and group is None else None
    minimal_operators = None
    if m is not None and m > k:
        minimal_operators = 1 if m == n else math.floor(n / (m - k)) + 1
    count = group.order if group is not None else operators
    unseen = n * (1 - keep) ** count if keep is not None and count is not None else None
    return Plan(minimal_m, minimal_operators, subspace, min(2 * k + 1, n), unseen)
