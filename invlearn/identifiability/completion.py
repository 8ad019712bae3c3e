"""Low-rank completion: which entries a finite set of partly seen signals determines.

Every column of a matrix of rank r is a signal in an r-dimensional subspace, seen through its own
mask: learning from incomplete measurements with finitely many samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Completion:
    """Rank test for completion from a pattern of seen entries.

    Attributes
    ----------
    rank, target
        Rank of the Jacobian at a random point, and the rank r (m + n - r) of a locally unique
        completion.
    entries
        Number of seen entries.
    completable
        Boolean `(m, n)`: entries that the seen ones determine up to finitely many choices.
    """

    rank: int
    target: int
    entries: int
    completable: Tensor

    @property
    def unique(self) -> bool:
        """Whether the whole matrix is locally determined, for almost every matrix of that rank."""
        return self.rank == self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "rank": self.rank,
            "target": self.target,
            "entries": self.entries,
            "unique": self.unique,
            "completable_fraction": float(self.completable.double().mean()),
        }


def completion(seen: Tensor | np.ndarray, rank: int, seed: int = 0) -> Completion:
    """Whether a generic matrix of given rank is determined by its seen entries.

    The Jacobian of (U, V) to (U Vᵀ)_ij over the seen entries, at a random point: full rank there is
    full rank almost everywhere (Singer & Cucuringu 2010, arXiv:0902.3846); an unseen entry is
    completable when its row lies in the span of the seen ones (Király, Theran & Tomioka, JMLR 2015,
    arXiv:1211.4116).

    Parameters
    ----------
    seen
        Boolean `(m, n)`.
    rank
        Rank r of the matrix, 1 ... min(m, n).
    seed
        Of the random point.
    """
    seen = torch.as_tensor(seen)
    if seen.ndim != 2 or seen.dtype != torch.bool:
        raise ValueError(
            f"the pattern of seen entries is a boolean matrix, got {seen.dtype} {tuple(seen.shape)}"
        )
    m, n = seen.shape
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"the rank must be between 1 and {min(m, n)}, got {rank}")
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(m, rank, dtype=torch.float64, generator=generator)
    v = torch.randn(n, rank, dtype=torch.float64, generator=generator)
    i, j = torch.meshgrid(torch.arange(m), torch.arange(n), indexing="ij")
    i, j = i.flatten(), j.flatten()
    jacobian = torch.zeros(m * n, m + n, rank, dtype=torch.float64)
    entry = torch.arange(m * n)
    jacobian[entry, i] = v[j]
    jacobian[entry, m + j] = u[i]
    jacobian = jacobian.flatten(1)
    rows = jacobian[seen.flatten()]
    if len(rows):
        _, s, vh = torch.linalg.svd(rows, full_matrices=False)
        span = vh[s > 1e-9 * s[0]]
    else:
        span = jacobian[:0]
    left = jacobian - (jacobian @ span.T) @ span
    completable = torch.linalg.vector_norm(left, dim=1) < 1e-7 * torch.linalg.vector_norm(jacobian, dim=1)
    return Completion(len(span), rank * (m + n - rank), int(seen.sum()), completable.reshape(m, n))
