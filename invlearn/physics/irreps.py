"""How a permutation action splits into irreducible representations over the complex numbers.

A group that permutes n entries acts on C^n as a sum of irreducible representations, number j of
dimension s_j and multiplicity c_j, with sum_j s_j c_j = n. By orthogonality of characters [1]_

    c_j = 1/|G| sum_g conj(chi_j(g)) fix(g),      fix(g) = number of entries that g leaves in place.

For an abelian group the characters are Fourier modes of the group, so that all c_j are one FFT of
the fixed-point counts; D4 has its character table; any other group is split by the eigenspaces of
a random Hermitian matrix that commutes with it.

References
----------
.. [1] J.-P. Serre, Linear Representations of Finite Groups, Springer 1977.
       doi:10.1007/978-1-4684-9458-7
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

SPLIT_LIMIT = 1024  # complex eigendecomposition of this side: some seconds, tens of MB
_ATTEMPTS = 8

_D4_TABLE = {  # identity, r and r^3, r^2, flips along an axis, flips along a diagonal
    "A1": (1, 1, 1, 1, 1),
    "A2": (1, 1, 1, -1, -1),
    "B1": (1, -1, 1, 1, -1),
    "B2": (1, -1, 1, -1, 1),
    "E": (2, 0, -2, 0, 0),
}
_D4_CLASSES = (0, 1, 2, 1, 3, 4, 3, 4)  # of the elements r^k f^a, numbered k + 4a


class Irrep(NamedTuple):
    """An irreducible representation that occurs in an action.

    Attributes
    ----------
    dimension
        s_j, over the complex numbers.
    multiplicity
        c_j >= 1, how many copies of it the action holds.
    label
        Its name, for reports.
    """

    dimension: int
    multiplicity: int
    label: str


def abelian_irreps(radices: Sequence[int], fixed: Int[Tensor, " order"]) -> tuple[Irrep, ...]:
    """Irreps of a product of cyclic groups Z_r1 x Z_r2 x ..., all of dimension 1.

    Parameters
    ----------
    radices
        Orders of the cyclic factors; elements are numbered in row-major order of their digits.
    fixed
        Entries that each element leaves in place.
    """
    counts = torch.fft.fftn(fixed.reshape(tuple(radices)).to(torch.float64)).real / fixed.numel()
    multiplicity = counts.round().to(torch.int64)
    occurs = multiplicity.nonzero().tolist()
    values = multiplicity[multiplicity != 0].tolist()
    return tuple(Irrep(1, c, f"frequency {tuple(j)}") for j, c in zip(occurs, values, strict=True))


def dihedral_irreps(fixed: Int[Tensor, 8]) -> tuple[Irrep, ...]:
    """Irreps of D4 by its character table, elements r^k f^a (a flip, then k quarter turns) at k + 4a."""
    irreps = []
    for label, row in _D4_TABLE.items():
        total = sum(row[c] * int(f) for c, f in zip(_D4_CLASSES, fixed, strict=True))
        if total:
            irreps.append(Irrep(row[0], total // 8, label))
    return tuple(irreps)


def components(permutations: np.ndarray, n: int) -> np.ndarray:
    """Label of the orbit of each of n points under the group that `(r, n)` permutations generate."""
    source = np.tile(np.arange(n), len(permutations))
    edges = csr_array((np.ones(source.size, dtype=np.int8), (source, permutations.ravel())), shape=(n, n))
    return connected_components(edges, directed=False)[1]


class Isotype(NamedTuple):
    """All copies of one irrep: its dimension, how many copies, an orthonormal basis `(n, s)` of one."""

    dimension: int
    copies: int
    basis: np.ndarray


def isotypic_split(generators: np.ndarray, seed: int = 0) -> list[Isotype]:
    """Split a permutation action by a random Hermitian matrix that commutes with it.

    A generic such matrix has one eigenspace per copy of an irrep, and a second one couples two
    eigenspaces exactly when they hold the same irrep. The outcome is checked against an exact
    count, sum_j c_j^2 = number of orbits on pairs of entries, and drawn again if it disagrees.

    Parameters
    ----------
    generators
        `(r, n)` permutations that generate the group; `n` at most `SPLIT_LIMIT`.
    seed
        Of the random matrices.

    Raises
    ------
    ArithmeticError
        No draw passed the check.
    """
    n = generators.shape[1]
    pairs = (generators[:, :, None] * n + generators[:, None, :]).reshape(len(generators), n * n)
    orbital = components(pairs, n * n).reshape(n, n)
    count = int(orbital.max()) + 1
    rng = np.random.default_rng(seed)

    def commuting() -> np.ndarray:
        value = rng.standard_normal(count) + 1j * rng.standard_normal(count)
        return value[orbital] + value[orbital].conj().T

    for _ in range(_ATTEMPTS):
        eigenvalues, vectors = scipy.linalg.eigh(commuting())
        jumps = np.diff(eigenvalues) > 1e-12 * n * np.abs(eigenvalues).max()
        starts = np.concatenate([[0], np.flatnonzero(jumps) + 1])
        sizes = np.diff(starts, append=n)
        coupling = np.abs(vectors.conj().T @ commuting() @ vectors) ** 2
        blocks = np.add.reduceat(np.add.reduceat(coupling, starts, axis=0), starts, axis=1)
        kinds, kind = connected_components(csr_array(blocks > 1e-12 * blocks.max()), directed=False)
        members = [np.flatnonzero(kind == j) for j in range(kinds)]
        equal = all(len(set(sizes[m].tolist())) == 1 for m in members)
        if equal and sum(len(m) ** 2 for m in members) == count:
            return [
                Isotype(int(sizes[m[0]]), len(m), vectors[:, starts[m[0]] : starts[m[0]] + sizes[m[0]]])
                for m in members
            ]
    raise ArithmeticError(f"the isotypic split of an action on {n} entries failed {_ATTEMPTS} draws")


def split_irreps(generators: np.ndarray) -> tuple[Irrep, ...]:
    """Irreps of the action that `(r, n)` permutations generate, by splitting the action itself."""
    return _labelled(
        (kind.dimension, kind.copies, _invariant(kind.basis, generators))
        for kind in isotypic_split(generators)
    )


def regular_irreps(
    cayley: np.ndarray, generators: Sequence[int], fixed: Int[Tensor, " order"]
) -> tuple[Irrep, ...]:
    """Irreps of an action from its fixed-point counts, with the characters of a small group.

    The group acts on itself, x(h) to x(hg), and there every irrep occurs: splitting that action
    gives all characters, and their products with the fixed-point counts the multiplicities.

    Parameters
    ----------
    cayley
        `(order, order)`, element number of hg at row g and column h.
    generators
        Numbers of elements that generate the group.
    fixed
        Entries that each element leaves in place.
    """
    order = len(cayley)
    moves = cayley[list(generators)]
    weighted = np.empty((order, order))  # sum_g fix(g) times the matrix of g
    weighted[np.arange(order), cayley] = fixed.numpy()[:, None]
    found = []
    for kind in isotypic_split(moves):
        # its trace on one copy is sum_g chi_j(g) fix(g)
        copies = round(float(np.vdot(kind.basis, weighted @ kind.basis).real) / order)
        if copies:
            found.append((kind.dimension, copies, _invariant(kind.basis, moves)))
    return _labelled(found)


def _invariant(basis: np.ndarray, permutations: np.ndarray) -> bool:
    return all(np.allclose(basis[p], basis, atol=1e-6) for p in permutations)


def _labelled(found: Iterable[tuple[int, int, bool]]) -> tuple[Irrep, ...]:
    """Irreps from (dimension, multiplicity, trivial?): the trivial one first, then by size."""
    ordered = sorted(found, key=lambda f: (not f[2], f[0], -f[1]))
    return tuple(
        Irrep(s, c, "trivial" if trivial else f"number {j}, dimension {s}")
        for j, (s, c, trivial) in enumerate(ordered)
    )
