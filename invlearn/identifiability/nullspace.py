"""Null spaces of stacked operators, with their spectral gap: the engine under every certificate.

All rank questions here have one form. Given effective operators A_e and, for each, a subspace V_e
of signals that it cannot contradict (empty for the plain stack), find

    null  stack_e (I - Π_{A_e V_e}) A_e ,    Π the orthogonal projector.

Three routes, one answer: singular values of the matrix; a Gram matrix of size Σ_e dim V_e where
every A_eᴴA_e is diagonal in one basis; Lanczos with a random start, whose failure probability is
bounded (Kuczyński & Woźniakowski 1992, doi:10.1137/0613066).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from invlearn.identifiability.setting import DENSE_LIMIT, Element, Setting

#: Lanczos sees squared singular values: below this relative size it calls them zero.
LANCZOS_ZERO = 1e-6
#: Failure probability of the Lanczos route.
FAILURE = 1e-9
_GRAM_LIMIT = 6000
_MAX_APPLICATIONS = 240


@dataclass(frozen=True, eq=False)
class NullSpace:
    """Null space of a stack.

    Attributes
    ----------
    nullity
        Dimension found.
    singular_values
        The smallest singular values of the stack, ascending, relative to its largest.
    vectors
        Orthonormal null vectors, flattened signals `(j, n)`; j is the nullity, or 64 where that is more.
    gap
        First singular value that is not zero, relative to the largest; 1 where all are zero, 0 where
        the computation stopped before it was found.
    borderline
        The gap is too small to trust the count at the precision of the operators.
    tolerance
        Relative size under which singular values count as zero.
    method
        How it was computed.
    exact
        False where a pass holds with probability 1 - `FAILURE`, or a count is a lower bound.
    applications
        How many times the whole family was applied to one vector (matrix-free route), else 0.
    """

    nullity: int
    singular_values: Tensor
    vectors: Tensor
    gap: float
    tolerance: float
    method: str
    borderline: bool
    exact: bool = True
    applications: int = 0


#: For each effective operator the index of its subspace in a list of bases; -1 for none.
Assignment = Sequence[int]


def null_space(
    setting: Setting, elements: Sequence[Element], bases: Sequence[Tensor], assignment: Assignment
) -> NullSpace:
    """Null space of stack_e (I - Π_{A_e V_{s(e)}}) A_e by the best route.

    Parameters
    ----------
    setting
        The operators.
    elements
        The effective operators e of the stack.
    bases
        Subspaces as rows, `(k_j, n)` each, flattened signals in float64 or complex128.
    assignment
        s(e): index into `bases` for each element, -1 for the zero subspace.
    """
    total = sum(len(bases[s]) for s in assignment if s >= 0)
    if setting.basis is not None and total <= _GRAM_LIMIT:
        return _diagonal(setting, elements, bases, assignment)
    if setting.n <= DENSE_LIMIT:
        return _dense(setting, elements, bases, assignment)
    return _lanczos(setting, elements, bases, assignment)


def orth(b: Tensor) -> Tensor:
    """Orthonormal basis of the columns of `b`, without the numerically dependent ones."""
    scale = torch.linalg.vector_norm(b)
    if b.shape[1] == 0 or scale == 0:
        return b[:, :0]
    q, r = torch.linalg.qr(b)
    diagonal = r.diagonal().abs()
    if float(diagonal.min()) > 1e-6 * float(diagonal.max()):
        return q
    u, s, _ = torch.linalg.svd(b, full_matrices=False)
    return u[:, s > 1e-11 * s[0]]


def _exact(setting: Setting, singular_values: Tensor, vectors: Tensor, method: str) -> NullSpace:
    """From singular values (ascending, relative) down to the first that is not zero, or all of them."""
    zero = setting.precision.zero
    nullity = int((singular_values <= zero).sum())
    gap = float(singular_values[nullity]) if nullity < len(singular_values) else 1.0
    doubtful = gap < setting.precision.borderline
    return NullSpace(nullity, singular_values, vectors, gap, zero, method, borderline=doubtful)


def _dense(
    setting: Setting, elements: Sequence[Element], bases: Sequence[Tensor], assignment: Assignment
) -> NullSpace:
    n = setting.n
    triangle: Tensor | None = None
    rows: list[Tensor] = []
    for e, s in zip(elements, assignment, strict=True):
        a = setting.matrix(e)
        if s >= 0:
            q = orth(a @ bases[s].T)
            a = a - q @ (q.mH @ a)
        rows.append(a)
        if sum(len(r) for r in rows) >= 2 * n:  # keep an n x n factor, not the whole stack
            triangle, rows = (
                torch.linalg.qr(torch.cat([*([] if triangle is None else [triangle]), *rows]))[1],
                [],
            )
    stacked = torch.cat([*([] if triangle is None else [triangle]), *rows])
    if len(stacked) > n:
        stacked = torch.linalg.qr(stacked)[1]
    _, s_desc, vh = torch.linalg.svd(stacked, full_matrices=True)
    values = torch.zeros(n, dtype=torch.float64, device=stacked.device)
    values[: len(s_desc)] = s_desc
    # Relative to the operators too (of size 1): a projection may leave nothing but rounding.
    values = (values / values[0].clamp_min(1.0)).flip(0)
    nullity = int((values <= setting.precision.zero).sum())
    vectors = vh[n - nullity :].conj().flip(0)
    return _exact(setting, values, vectors, "singular values of the stacked matrix")


class _Block(NamedTuple):
    """One operator in the basis where it is diagonal."""

    seen: Tensor  # the entries that it sees, ascending
    w: Tensor  # their weights, (rows, 1)
    q: Tensor  # orthonormal basis of what it makes of its subspace, (rows, k)


def _gram(blocks: Sequence[_Block], d: Tensor, dtype: torch.dtype) -> Tensor:
    """ZᴴZ, block by block over the entries that two operators both see."""
    ends = torch.tensor([b.q.shape[1] for b in blocks]).cumsum(0).tolist()
    gram = torch.zeros(ends[-1], ends[-1], dtype=dtype, device=d.device)
    weighted = [b.w * b.q for b in blocks]
    inside = torch.zeros(len(d), dtype=torch.bool, device=d.device)
    for i, (seen, _, _) in enumerate(blocks):
        inside.zero_()[seen] = True
        mine = weighted[i] / d[seen, None]
        for j in range(i + 1):
            theirs = blocks[j].seen
            both = inside[theirs].nonzero().squeeze(1)
            rows = torch.searchsorted(seen, theirs[both])
            block = weighted[j].index_select(0, both).mH @ mine.index_select(0, rows)
            gram[ends[j] - block.shape[0] : ends[j], ends[i] - block.shape[1] : ends[i]] = block
    return torch.triu(gram) + torch.triu(gram, 1).mH


def _diagonal(
    setting: Setting, elements: Sequence[Element], bases: Sequence[Tensor], assignment: Assignment
) -> NullSpace:
    # With A_eᴴA_e = diag(w_e²), A_e equals diag(w_e) up to an isometry. With Q_e an orthonormal basis
    # of w_e V_e, Σ_e w_e² = D > 0 and Z = D^(-1/2) [w_e Q_e]_e, the normal matrix of the stack is
    # D^(1/2) (I - Z Zᴴ) D^(1/2): its nullity is the multiplicity of the eigenvalue 1 of ZᴴZ. Singular
    # values are those of the stack times D^(-1/2), at most 1. In the Fourier basis of a real domain all
    # this is the complexification of the real problem, with the same dimensions.
    coords = [setting.coordinates(b).T for b in bases]  # (n, k)
    device, n = setting.device, setting.n
    dtype = coords[0].dtype if coords else setting.domain.dtype(torch.float64)
    d = torch.zeros(n, dtype=torch.float64, device=device)
    blocks: list[_Block] = []
    for e, s in zip(elements, assignment, strict=True):
        v = setting.diagonal(e)
        d += v
        seen = v.nonzero().squeeze(1)
        w = v[seen].sqrt().unsqueeze(1)
        q = orth(w * coords[s][seen]) if s >= 0 else torch.zeros(len(seen), 0, dtype=dtype, device=device)
        blocks.append(_Block(seen, w, q))
    # Unseen entries are null vectors whatever the subspaces are; the rest is a problem on the others.
    empty = (d == 0).nonzero().squeeze(1)
    unseen = torch.zeros(min(len(empty), 64), n, dtype=dtype)
    unseen[torch.arange(len(unseen)), empty[: len(unseen)].cpu()] = 1
    zeros = torch.zeros(len(empty), dtype=torch.float64, device=device)
    method = f"exact count in the {setting.basis} basis"
    width = sum(b.q.shape[1] for b in blocks)
    visible = (d[d > 0] / d.max()).sqrt().sort().values[:64]
    if not width:
        return _exact(setting, torch.cat([zeros, visible]), _signals(setting, unseen.to(device)), method)
    scale = torch.where(d > 0, d.rsqrt(), 0.0).unsqueeze(1)
    gram = _gram(blocks, d, dtype)
    eigenvalues = torch.linalg.eigvalsh(gram)  # the vectors are rarely needed
    # Eigenvalues of I - ZZᴴ, ascending: those of I - ZᴴZ, then ones.
    lambdas = torch.cat([(1 - eigenvalues).clamp_min(0).flip(0), torch.ones(64, device=device)])
    lambdas = lambdas[: n - len(empty)]
    # Squares lose half the digits: candidates for null vectors are measured again on the stack itself.
    near = int((lambdas < 1e-6).sum())
    values = lambdas[: near + 64].sqrt()
    null = torch.zeros(n, 0, dtype=dtype, device=device)
    if near:
        picked = torch.linalg.eigh(gram)[1].flip(1)[:, :near]
        lifted = torch.zeros(n, near, dtype=dtype, device=device)
        column = 0
        for b in blocks:
            lifted.index_add_(0, b.seen, b.w * (b.q @ picked[column : column + b.q.shape[1]]))
            column += b.q.shape[1]
        basis = torch.linalg.qr(scale * lifted)[0]  # Z c, a null direction of the scaled stack
        scaled, measured = scale * basis, []
        for b in blocks:
            y = b.w * scaled[b.seen]
            measured.append(torch.linalg.qr(y - b.q @ (b.q.mH @ y))[1])
        _, sv, vh = torch.linalg.svd(torch.cat(measured), full_matrices=False)
        values = torch.cat([sv.flip(0), values[near:]])
        count = int((sv <= setting.precision.zero).sum())
        null = scale * (basis @ vh.mH.flip(1)[:, :count])
    vectors = _signals(setting, torch.cat([unseen.to(device), null.T]))
    method += ", entries scaled by their coverage"
    found = _exact(setting, torch.cat([zeros, values]), vectors, method)
    faintest = float(visible[0])  # which the scaling hides
    if faintest < setting.precision.borderline:
        return replace(found, gap=min(found.gap, faintest), borderline=True)
    return found


def fourier_signals(setting: Setting, coefficients: Tensor) -> Tensor:
    """Orthonormal signals `(j, n)` that span those with the given Fourier coefficients `(i, n)`.

    A space of coefficients that is closed under conjugate reflection has a real form of the same
    dimension, spanned by real and imaginary parts: that is taken where the domain is real.
    """
    if not len(coefficients):  # torch has no FFT of an empty batch
        return coefficients if setting.domain.complex else coefficients.real
    x = setting.inverse_fourier(coefficients)
    if not setting.domain.complex:
        x = torch.cat([x.real, x.imag])
    _, s, vh = torch.linalg.svd(x, full_matrices=False)
    return vh[s > 1e-6 * s[0]]


def _signals(setting: Setting, vectors: Tensor) -> Tensor:
    """Orthonormal signals of null vectors `(j, n)` in the setting's basis."""
    if setting.basis == "fourier":
        return fourier_signals(setting, vectors)
    return orth(vectors.T).T


class _Projected:
    """x to Σ_e A_eᴴ (I - Q_e Q_eᴴ) A_e x, counting its applications.

    Under all cyclic shifts Fourier modes are scaled to be covered alike: faint modes (of a blur, a
    down-sampling) would otherwise need more Lanczos steps than anyone can afford.
    """

    def __init__(
        self, setting: Setting, elements: Sequence[Element], bases: Sequence[Tensor], assignment: Assignment
    ) -> None:
        self.setting = setting
        self.elements = elements
        self.applications = max((len(b) for b in bases), default=0)
        self.bases = [
            orth(setting.apply(bases[s], e).T) if s >= 0 else None
            for e, s in zip(elements, assignment, strict=True)
        ]
        gain = setting.mode_gain
        usable = gain is not None and float(gain.min()) > setting.precision.rank * float(gain.max())
        self.gain = gain if usable else None

    def scaled(self, x: Tensor, power: int) -> Tensor:
        """Fourier modes of flattened signals `(*batch, n)` times their gain to a power."""
        if self.gain is None:
            return x
        y = self.setting.inverse_fourier(self.gain**power * self.setting.fourier(x))
        return y if self.setting.domain.complex else y.real

    def __call__(self, x: Tensor) -> Tensor:
        self.applications += 1
        x = self.scaled(x, -1)
        out = torch.zeros_like(x)
        for e, q in zip(self.elements, self.bases, strict=True):
            if q is None:
                out += self.setting.normal(x, e)
            else:
                y = self.setting.apply(x, e)
                out += self.setting.adjoint(y - q @ (q.mH @ y), e)
        return self.scaled(out, -1)


def _lanczos(
    setting: Setting, elements: Sequence[Element], bases: Sequence[Tensor], assignment: Assignment
) -> NullSpace:
    normal = _Projected(setting, elements, bases, assignment)
    dtype = setting.domain.dtype(torch.float64)
    found = orth(normal.scaled(_common_null(setting, bases, assignment), 1).T).T.contiguous()
    known = len(found)
    method = f"Lanczos with a random start, failure probability {FAILURE:.0e}"
    faintest = 1.0
    if normal.gain is not None:
        method += ", Fourier modes scaled by their coverage"
        faintest = float(normal.gain.min() / normal.gain.max())
    while True:
        run = _smallest(normal, found, dtype, seed=len(found))
        null = run.settled and run.value <= LANCZOS_ZERO**2 * run.top
        if null:
            found = torch.cat([found, run.vector.unsqueeze(0)])
        if not null or len(found) - known >= 8 or len(found) == setting.n:
            break
    gap = math.sqrt(max(run.value, 0.0) / run.top) if run.settled and not null else 0.0
    if gap == 0.0:
        method = "Lanczos with a random start, stopped before the whole null space was found"
    values = torch.tensor([0.0] * len(found) + ([gap] if gap else []), dtype=torch.float64)
    return NullSpace(
        len(found),
        values,
        orth(normal.scaled(found, -1).T).T,
        gap,
        LANCZOS_ZERO,
        method,
        borderline=0 < min(gap, faintest) < setting.precision.borderline,
        exact=False,
        applications=normal.applications,
    )


def _common_null(setting: Setting, bases: Sequence[Tensor], assignment: Assignment) -> Tensor:
    """V, which is in the null space when every element has the same V; else nothing, `(0, n)`."""
    if len(set(assignment)) == 1 and assignment[0] >= 0:
        return bases[assignment[0]]
    return torch.zeros(0, setting.n, dtype=setting.domain.dtype(torch.float64), device=setting.device)


@dataclass(frozen=True, eq=False)
class _Ritz:
    value: float  # smallest Ritz value
    vector: Tensor
    top: float  # bound of the spectrum
    settled: bool  # value > 0 is proved up to FAILURE, or the vector is a null vector


def _smallest(normal: _Projected, found: Tensor, dtype: torch.dtype, seed: int) -> _Ritz:
    """Smallest eigenvalue of `normal` on the complement of `found`, from a random start.

    If the smallest eigenvalue were 0, Lanczos on (c - normal), c >= its norm, would after j steps
    have found at most ε c with probability 1 - 1.648 √n exp(-√ε (2j - 1)). A Ritz value above that
    proves the eigenvalue positive with that probability.
    """
    setting = normal.setting
    n = setting.n - len(found)
    generator = torch.Generator().manual_seed(1000 + seed)
    q = torch.randn(setting.n, dtype=dtype, generator=generator).to(setting.device)
    basis: list[Tensor] = []
    alpha: list[float] = []
    beta: list[float] = []

    def orthogonal(x: Tensor) -> Tensor:
        for _ in range(2):  # twice is enough
            x = x - found.T @ (found.conj() @ x)
            if basis:
                b = torch.stack(basis)
                x = x - b.T @ (b.conj() @ x)
        return x

    q = orthogonal(q)
    q = q / torch.linalg.vector_norm(q)
    ritz, top, weights = 0.0, 1.0, torch.ones(1)
    settled = False
    while normal.applications < _MAX_APPLICATIONS and len(basis) < n:
        w = normal(q)
        alpha.append(float(torch.linalg.vecdot(q, w).real))
        basis.append(q)
        w = orthogonal(w)
        size = float(torch.linalg.vector_norm(w))
        j = len(alpha)
        if j % 5 == 0 or size <= 1e-13 * top or j == n:
            t = torch.diag(torch.tensor(alpha, dtype=torch.float64))
            if j > 1:
                off = torch.tensor(beta, dtype=torch.float64)
                t += torch.diag(off, 1) + torch.diag(off, -1)
            eigenvalues, vectors = torch.linalg.eigh(t)
            top = max(1.05 * float(eigenvalues[-1]), 1.0)  # 1: the operators' own size
            ritz, weights = float(eigenvalues[0]), vectors[:, 0]
            residual = size * abs(float(weights[-1]))
            epsilon = max(ritz, 0.0) / top
            bound = 1.648 * math.sqrt(n) * math.exp(-math.sqrt(epsilon) * (2 * j - 1))
            null = ritz <= LANCZOS_ZERO**2 * top and residual <= LANCZOS_ZERO * top
            if bound <= FAILURE or null or size <= 1e-13 * top or j == n:
                settled = True
                break
        beta.append(size)
        q = w / size
    used = basis[: len(weights)]  # the last few steps may be newer than the last Ritz vector
    vector = torch.stack(used).T @ weights.to(q.device, dtype) if used else q
    return _Ritz(ritz, vector / torch.linalg.vector_norm(vector), top, settled)
