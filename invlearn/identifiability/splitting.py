"""Loss level: can measurement splitting have the supervised minimiser?

A separate question from `check`: signals may be identifiable from the measurements while a
given splitting loss still leaves parts of them free, and the reverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from invlearn.physics.operator import LinearOperator

Half = LinearOperator | np.ndarray | torch.Tensor
_TOLERANCE = 1e-12
_SOURCES = {
    "S1": "splitting loss: Yaman et al. 2020, SSDU (doi:10.1002/mrm.28378); condition: Tachella and Davies "
    "(arXiv:2601.03244)",
    "S2": "Liu et al. 2020, RARE (arXiv:1912.05854)",
    "S3": "Aggarwal, Pramanik and Jacob, ENSURE (arXiv:2010.10631)",
}


@dataclass(frozen=True)
class SplittingCondition:
    """One rank condition on the operators of a split.

    Attributes
    ----------
    id
        `"S1"`, `"S1-complement"`, `"S2"` or `"S3"`.
    statement
        What must have full rank, and what follows.
    required, actual
        Rank needed (n) and found; over the A_a, the worst.
    holds
        Whether `actual` reaches `required` for every A_a of positive weight.
    failing_probability
        Weight of the A_a for which it does not.
    smallest
        Smallest eigenvalue of the mean of A_bᴴA_b over its largest, at the worst A_a: how unevenly the loss
        weighs the error there.
    source
        Where the condition comes from.
    """

    id: str
    statement: str
    required: int
    actual: int
    holds: bool
    failing_probability: float
    smallest: float
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class SplittingReport:
    """What a splitting loss can and cannot fix.

    Attributes
    ----------
    n
        Size of a signal.
    inputs
        Number of different A_a.
    worst_split
        Index of a split whose A_a has the smallest rank under S1 (ties: the smallest eigenvalue).
    uncovered
        `(n,)`, per entry between 0 and 1: how much of it lies in the null space of the mean of A_bᴴA_b for
        that A_a, in the basis where the operators are diagonal (pixels, or frequencies with zero
        first). The sum is n - rank.
    conditions
        S1, its noise-free complement version, S2 and S3.
    """

    n: int
    inputs: int
    worst_split: int
    uncovered: np.ndarray
    conditions: tuple[SplittingCondition, ...]

    def __getitem__(self, id: str) -> SplittingCondition:
        """The condition with this id."""
        for condition in self.conditions:
            if condition.id == id:
                return condition
        raise KeyError(f"no condition {id!r}; there are {', '.join(c.id for c in self.conditions)}")

    @property
    def holds(self) -> bool:
        """Whether the splitting loss has the supervised minimiser as it stands (S1)."""
        return self["S1"].holds

    @property
    def holds_noise_free(self) -> bool:
        """Whether it has for noise-free data and a network that keeps what A_a saw."""
        return self["S1-complement"].holds

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "n": self.n,
            "inputs": self.inputs,
            "worst_split": self.worst_split,
            "uncovered": self.uncovered.tolist(),
            "holds": self.holds,
            "holds_noise_free": self.holds_noise_free,
            "conditions": [c.to_dict() for c in self.conditions],
        }


class _Matrix:
    """Half of a split as its rows; where A^H A is diagonal, as the entries of that diagonal."""

    def __init__(self, half: Half, where: str) -> None:
        self.diagonal: np.ndarray | None = None
        self.rows: np.ndarray | None = None
        self.identity: np.ndarray
        self.kind, self.basis = "matrix", ""
        if isinstance(half, LinearOperator):
            spectrum = half.spectrum()
            if spectrum is not None:
                self.kind, self.basis = f"{type(half).__name__} ({spectrum.basis})", str(spectrum.basis)
                self.diagonal = spectrum.values.detach().cpu().numpy().astype(np.float64).ravel()
                # Operators with one A^H A may still differ; a random signal tells them apart.
                probe = half.domain.random(generator=torch.Generator().manual_seed(0)).to(half.device)
                self.identity = half(probe).detach().cpu().numpy().ravel()
            else:
                self.rows = half.to_dense().detach().cpu().numpy()
        else:
            array = np.asarray(half.detach().cpu() if isinstance(half, torch.Tensor) else half)
            if array.dtype == bool:
                self.kind, self.basis = "mask", "pixel"
                self.identity = self.diagonal = array.astype(np.float64).ravel()
            elif array.ndim == 2 and array.dtype.kind in "fciu":
                self.rows = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
            else:
                raise ValueError(
                    f"{where} must be a LinearOperator, a boolean mask of the image shape or a matrix "
                    f"(m, n); got {array.dtype} {array.shape}"
                )
        if self.rows is not None:
            self.identity = self.rows
            if not np.isfinite(self.rows).all():
                raise ValueError(f"{where} has NaN or infinite entries")

    @property
    def n(self) -> int:
        """Size of a signal."""
        return len(self.diagonal) if self.diagonal is not None else self.rows.shape[1]  # type: ignore[union-attr]

    @property
    def key(self) -> tuple[str, bytes]:
        """Equal for equal operators; rounding errors apart."""
        scale = float(np.abs(self.identity).max(initial=0.0)) or 1.0
        # Adding zero turns -0.0 into 0.0, whose bytes differ.
        digits = (np.round(self.identity / scale, 10) + 0.0).tobytes()
        return f"{self.kind} {self.identity.shape} {scale:.9e}", digits


class _Mean:
    """Weighted mean of A^H A: rank and null space from the stacked rows, never from the Gram matrix.

    A Gram matrix squares the singular values, and near a threshold those are small already.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.diagonal: np.ndarray | None = None
        self.rows: list[np.ndarray] = []

    def add(self, half: _Matrix, weight: float) -> None:
        """Add weight * A^H A."""
        if half.diagonal is not None:
            self.diagonal = weight * half.diagonal + (0.0 if self.diagonal is None else self.diagonal)
            return
        assert half.rows is not None
        self.rows.append(np.sqrt(weight) * half.rows)
        if sum(map(len, self.rows)) > 2 * self.n:
            self.rows = [np.asarray(np.linalg.qr(np.concatenate(self.rows), mode="r"))]

    def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues over the largest, and the eigenvectors as rows (for a diagonal: the values alone)."""
        if self.diagonal is not None:
            return self.diagonal / max(float(self.diagonal.max()), 1e-300), np.empty(0)
        _, singular, vectors = np.linalg.svd(np.concatenate(self.rows), full_matrices=True)
        values = np.zeros(self.n)
        values[: len(singular)] = singular**2
        return values / max(float(values[0]), 1e-300), vectors

    def rank(self) -> tuple[int, float]:
        """The rank, and the smallest eigenvalue over the largest (0 without full rank)."""
        values = self._spectrum()[0]
        count = int((values > _TOLERANCE).sum())
        return count, float(values.min()) if count == self.n else 0.0

    def unseen(self) -> np.ndarray:
        """Per entry, the squared length of its part in the null space: 0 seen, 1 not seen at all."""
        values, vectors = self._spectrum()
        missing = values <= _TOLERANCE
        if self.diagonal is not None:
            return missing.astype(np.float64)
        return (np.abs(vectors[missing]) ** 2).sum(axis=0)


def _parse(splits: Sequence[Sequence[Half]]) -> list[tuple[_Matrix, _Matrix]]:
    if not len(splits):
        raise ValueError("there are no splits; give pairs (A_a, A_b)")
    parsed = []
    for i, pair in enumerate(splits):
        if len(pair) != 2:
            raise ValueError(f"split {i} must be a pair (A_a, A_b), got {len(pair)} items")
        halves = _Matrix(pair[0], f"A_a of split {i}"), _Matrix(pair[1], f"A_b of split {i}")
        parsed.append(halves)
        for name, half in zip(("A_a", "A_b"), halves, strict=True):
            first = parsed[0][0]
            if half.n != first.n or half.basis != first.basis:
                raise ValueError(
                    f"{name} of split {i} is a {half.kind} on {half.n} entries, A_a of split 0 a "
                    f"{first.kind} on {first.n}: all must act on one domain and be of one kind "
                    "(all masks, or all matrices)"
                )
    return parsed


def check_splitting(
    splits: Sequence[Sequence[Half]], weights: Sequence[float] | np.ndarray | None = None
) -> SplittingReport:
    """Rank conditions under which a splitting loss has the supervised minimiser.

    A splitting loss E ||A_b f(A_a x, A_a) - A_b x||^2 equals the supervised loss with the error weighted by
    M = E[A_bᴴA_b | A_a]. For every A_a that occurs:

    * **S1**: rank M = n. Then the minimisers are those of the supervised loss. Sufficient, not necessary.
    * **S1-complement**: rank [A_a; M] = n. Enough where data are free of noise and the network
      keeps what A_a saw (for example by a projection onto {x: A_a x = y_a}); the rest is tested.
    * **S2** (Artifact2Artifact): rank E[A_bᴴA_b] = n, for A_b independent of A_a. Without independence it is
      only necessary for S1.
    * **S3** (ENSURE): E[P] positive definite, P the projector onto the range of [A_a; A_b]ᴴ. Its rank is that
      of the stack of everything measured.

    Parameters
    ----------
    splits
        Pairs (A_a, A_b): linear operators, boolean masks of the image shape, or matrices `(m, n)`. Pairs with
        equal A_a are one condition, however many A_b go with it. List *all* the A_b that go with an
        A_a: what is not listed does not occur.
    weights
        Probability of each pair (any positive scale); equal by default. Pairs of weight zero do not
        count.

    Returns
    -------
    SplittingReport

    Raises
    ------
    ValueError
        No splits, halves on different domains or of mixed kinds, NaN, weights that do not fit.

    Notes
    -----
    Operators that are diagonal in the pixel or Fourier basis are handled as their diagonal (exact at
    any size), others as dense matrices. A rank counts the eigenvalues above 1e-12 of the largest.

    References
    ----------
    .. [1] J. Tachella, M. Davies, "Self-supervised learning from noisy and incomplete data",
       arXiv:2601.03244.
    .. [2] B. Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks without
       fully sampled reference data", MRM 2020, doi:10.1002/mrm.28378.
    """
    parsed = _parse(splits)
    w = np.ones(len(parsed)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(parsed),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() == 0:
        raise ValueError(
            f"weights must be {len(parsed)} numbers >= 0, one a split and not all zero; got shape {w.shape}"
        )
    w = w / w.sum()
    n = parsed[0][0].n
    groups: dict[tuple[str, bytes], list[int]] = {}
    for i, (a, _) in enumerate(parsed):
        if w[i] > 0:
            groups.setdefault(a.key, []).append(i)

    total, everything = _Mean(n), _Mean(n)
    found: list[tuple[int, float, int, float]] = []  # rank, smallest, first split, probability
    completed: list[tuple[int, float, float]] = []
    for members in groups.values():
        probability = float(w[members].sum())
        mean, known = _Mean(n), _Mean(n)
        known.add(parsed[members[0]][0], 1.0)
        for i in members:
            for target in (mean, known):
                target.add(parsed[i][1], float(w[i]) / probability)
            total.add(parsed[i][1], float(w[i]))
            everything.add(parsed[i][1], float(w[i]))
        everything.add(parsed[members[0]][0], probability)
        found.append((*mean.rank(), members[0], probability))
        completed.append((*known.rank(), probability))
    worst = min(found)
    members = next(g for g in groups.values() if g[0] == worst[2])
    mean = _Mean(n)
    for i in members:
        mean.add(parsed[i][1], float(w[i]))

    def condition(id: str, statement: str, rank: int, smallest: float, failing: float) -> SplittingCondition:
        source = _SOURCES[id.split("-")[0]]
        return SplittingCondition(id, statement, n, rank, rank == n, failing, smallest, source)

    s2, s3 = total.rank(), everything.rank()
    return SplittingReport(
        n=n,
        inputs=len(groups),
        worst_split=worst[2],
        uncovered=mean.unseen(),
        conditions=(
            condition(
                "S1",
                "rank E[A_b^H A_b | A_a] = n for every A_a: same minimiser as supervised (sufficient)",
                *worst[:2],
                float(sum(p for rank, _, _, p in found if rank < n)),
            ),
            condition(
                "S1-complement",
                "rank [A_a; E[A_b^H A_b | A_a]] = n for every A_a: noise-free data, and a network that keeps "
                "what A_a saw",
                *min(completed)[:2],
                float(sum(p for rank, _, p in completed if rank < n)),
            ),
            condition(
                "S2",
                "rank E[A_b^H A_b] = n: Artifact2Artifact, for A_b independent of A_a",
                *s2,
                float(s2[0] < n),
            ),
            condition("S3", "E[P] > 0, P onto the range of [A_a; A_b]^H: ENSURE", *s3, float(s3[0] < n)),
        ),
    )


def bernoulli_splits(
    masks: np.ndarray | torch.Tensor,
    keep: float,
    draws: int,
    *,
    seed: int = 0,
    weights: Sequence[float] | np.ndarray | None = None,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Random splits of a family of masks, ready for `check_splitting`.

    A mask g is drawn, every entry of it goes to A_a with probability `keep`, the others to A_b. Several masks
    can lead to the same A_a; all of them are listed for each drawn A_a, weighted by their exact posterior
    P(g | A_a) ~ w_g keep^|a| (1 - keep)^(|g| - |a|) over the g that contain A_a. So the conditional mean is
    exact for each A_a, and only the choice of A_a is sampled.

    Parameters
    ----------
    masks
        `(G, *image)` of 0 and 1.
    keep
        Probability, strictly between 0 and 1, that a measured entry goes to A_a.
    draws
        Number of A_a to draw.
    seed
        Seed of the draws.
    weights
        Probability of each mask (any positive scale); equal by default.

    Returns
    -------
    splits
        Pairs of boolean arrays of the image shape.
    weights
        `(len(splits),)`, sum 1.

    Raises
    ------
    ValueError
        Masks other than 0 and 1, `keep` outside (0, 1), no draws, weights that do not fit.
    """
    array = np.asarray(masks.detach().cpu() if isinstance(masks, torch.Tensor) else masks)
    if array.ndim < 2 or not np.isin(array, (0, 1)).all():
        raise ValueError(f"masks must be (G, *image) of 0 and 1, got {array.dtype} {array.shape}")
    if not 0 < keep < 1 or draws < 1:
        raise ValueError(f"keep must be strictly between 0 and 1 and draws 1 or more, got {keep} and {draws}")
    array = array.astype(bool)
    flat = array.reshape(len(array), -1)
    prior = np.ones(len(flat)) if weights is None else np.asarray(weights, dtype=np.float64)
    if prior.shape != (len(flat),) or not np.isfinite(prior).all() or (prior < 0).any() or not prior.sum():
        raise ValueError(f"weights must be {len(flat)} numbers >= 0, one a mask and not all zero")
    prior = prior / prior.sum()
    rng = np.random.default_rng(seed)
    sizes = flat.sum(axis=1)
    splits: list[tuple[np.ndarray, np.ndarray]] = []
    found: list[float] = []
    for g in rng.choice(len(flat), size=draws, p=prior):
        a = flat[g] & (rng.random(flat.shape[1]) < keep)
        possible = np.flatnonzero(~(a & ~flat).any(axis=1) & (prior > 0))
        logs = np.log(prior[possible]) + (sizes[possible] - a.sum()) * np.log1p(-keep)
        posterior = np.exp(logs - logs.max())
        posterior /= posterior.sum()
        image = a.reshape(array.shape[1:])
        splits += [(image, array[j] & ~image) for j in possible]
        found += (posterior / draws).tolist()
    return splits, np.array(found)
