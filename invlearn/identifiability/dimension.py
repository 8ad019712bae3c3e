"""The dimension k of a signal set, from samples of it or from its incomplete measurements.

Every sufficient condition for learnability compares the number of measurements with k, so an
estimate that is too low gives a verdict that is too kind. All estimators here are biased low when
k is large for the number of samples, and up by noise; `DimensionEstimate.value` is therefore the
upper end over several estimators, after a correction of the known bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from invlearn.identifiability.estimators import (
    box_counting,
    corrected,
    local_pca,
    maximum_likelihood,
    neighbour_distances,
    principal_coordinates,
    two_nn,
)

# An upper limit this little above an integer is not rounded up to the next one: dimensions of
# smooth sets are integers, and the limits scatter by about this much.
_SLACK = 0.25
_Z = 1.96  # two-sided 95 %
_PLAUSIBLE = 1.5  # nearest-neighbour estimates fall short by less than this factor
_CLEAR = 2.0  # neighbours should be this many times farther apart than noise alone would put them
_SMALLEST = 5
_FEW = 100

Samples = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class DimensionEstimate:
    """An estimated dimension with its interval.

    Attributes
    ----------
    value
        The conservative integer to use in a learnability check: `high`, rounded up.
    low, high
        95 % interval over all estimators that are trusted on these data, bias correction included.
        Complex data counts complex numbers.
    by_method
        Uncorrected point estimate of each method: `mle`, `two_nn`, `local_pca`, `box_counting`.
    samples
        Distinct samples that were used.
    warnings
        What makes the estimate less certain.
    """

    value: int
    low: float
    high: float
    by_method: dict[str, float]
    samples: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "by_method": dict(self.by_method),
            "samples": self.samples,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Raw:
    """Estimates on one cloud of points: per method the value and its standard error."""

    estimates: dict[str, tuple[float, float]]
    samples: int
    sparse: int  # samples left for nearest neighbours after thinning
    rank: int
    warnings: tuple[str, ...]


def _as_rows(samples: Samples, who: str) -> tuple[np.ndarray, bool]:
    """`(N, ...)` to float64 `(N, D)`; complex entries become their two real parts."""
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    if not isinstance(samples, np.ndarray):
        raise TypeError(f"{who} takes a tensor or numpy array (N, ...), got {type(samples).__name__}")
    if samples.ndim == 0 or samples.size == 0:
        raise ValueError(f"{who} is empty: shape {samples.shape}, expected (N, ...) with N samples")
    if samples.dtype.kind not in "fciub":
        raise TypeError(f"{who} holds {samples.dtype}, expected numbers")
    rows = samples.reshape(len(samples), -1)
    is_complex = rows.dtype.kind == "c"
    if is_complex:
        rows = np.concatenate([rows.real, rows.imag], axis=1)
    rows = rows.astype(np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{who} has NaN or infinite entries in {int(bad.sum())} of {len(rows)} samples "
            f"(first: sample {int(np.argmax(bad))}); remove or mend them"
        )
    return rows, is_complex


def _check_noise(noise: float | None) -> float:
    if noise is None:
        return 0.0
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is a standard deviation >= 0, got {noise}")
    return float(noise)


def _estimate_cloud(
    rows: np.ndarray, noise: float, precision: float, max_samples: int, rng: np.random.Generator
) -> _Raw:
    warnings: list[str] = []
    distinct = np.unique(rows, axis=0)
    if len(distinct) < len(rows):
        warnings.append(f"{len(rows) - len(distinct)} duplicate samples were dropped")
    if len(distinct) == 1:
        return _Raw({"local_pca": (0.0, 0.0)}, 1, 1, 0, tuple(warnings))
    if len(distinct) < _SMALLEST:
        raise ValueError(
            f"{len(distinct)} distinct samples say nothing about a dimension; give {_SMALLEST} or more "
            f"({_FEW} or more for a useful estimate)"
        )
    points = principal_coordinates(
        distinct[rng.permutation(len(distinct))[:max_samples]], noise, precision, rng
    )
    rank = points.shape[1]
    if rank == 0:
        if noise:
            warnings.append(
                f"nothing rises above the noise (SD {noise:g}): the samples may all be one and the same"
            )
        return _Raw({"local_pca": (0.0, 0.0)}, len(points), len(points), 0, tuple(warnings))

    # Neighbours closer than the noise see its dimension, not the set's: thin the samples out.
    scale = _CLEAR * noise * math.sqrt(2 * rank)
    sparse, tree = points, cKDTree(points)
    distances = neighbour_distances(sparse, tree)
    while noise and np.median(distances[:, 0]) < scale and len(sparse) >= 2 * _FEW:
        sparse = sparse[::2]
        distances = neighbour_distances(sparse, cKDTree(sparse))
    if noise and np.median(distances[:, 0]) < scale:
        warnings.append(
            f"neighbours are closer than {_CLEAR:g} times what the noise puts between two samples "
            f"({scale / _CLEAR:.2g}): the estimate may be too high"
        )
    # Points that the reduction put on top of one another have no finite ratio of distances.
    distances = distances[distances[:, 0] > 0]
    estimates = {"mle": maximum_likelihood(distances), "two_nn": two_nn(distances)}

    k = estimates["mle"][0]
    base = int(max(24, 6 * math.ceil(min(k, 200))))
    scales = sorted({min(base, len(points)), min(2 * base, len(points))})
    plausible = _PLAUSIBLE * max(k, estimates["two_nn"][0])
    local = [local_pca(points, tree, s, noise, plausible, rng) for s in scales]
    # The larger scale bends more and the smaller one resolves less: their spread is the uncertainty.
    estimates["local_pca"] = (max(local), (max(local) - min(local)) / _Z)
    boxes = box_counting(points, noise, rng)
    if math.isfinite(boxes[0]):
        estimates["box_counting"] = boxes
    return _Raw(estimates, len(points), len(sparse), rank, tuple(warnings))


def _finish(raw: _Raw, is_complex: bool, seed: int) -> DimensionEstimate:
    field = 2.0 if is_complex else 1.0
    warnings = list(raw.warnings)
    by_method = {name: value / field for name, (value, _) in raw.estimates.items()}
    lows, highs = [], []
    # A set of dimension k fills its boxes over a decade of scales only with some 10^k samples.
    reach = math.log10(max(raw.samples, 2)) - 0.5
    others = max((v for name, (v, _) in raw.estimates.items() if name != "box_counting"), default=0.0)
    for name, (value, error) in raw.estimates.items():
        if not math.isfinite(value):
            continue
        upper = value
        if name in ("mle", "two_nn"):
            upper = max(value, corrected(name, value, raw.sparse, raw.rank, seed))
            error *= upper / value if value else 1.0
            lower = value
        elif name == "local_pca":
            lower = value - _Z * error
            error = 0.0
        else:
            if others > reach:
                continue
            lower = value
        lows.append(max(lower - _Z * error, 0.0))
        highs.append(min(upper + _Z * error, float(raw.rank)))
    low, high = min(lows) / field, max(highs) / field
    if raw.samples < _FEW and raw.rank:
        warnings.append(f"only {raw.samples} distinct samples: the estimate is rough")
    elif raw.samples < 10 ** (high * field / 2):
        # Eckmann and Ruelle 1992: N samples resolve dimensions up to about 2 log10 N.
        warnings.append(
            f"{raw.samples} samples resolve dimensions up to {2 * math.log10(raw.samples) / field:.1f} "
            f"or so: {high:.1f} rests on the correction of the bias and on local PCA"
        )
    value = math.ceil(high - _SLACK)
    return DimensionEstimate(value, low, high, by_method, raw.samples, tuple(warnings))


def _precision(samples: Samples) -> float:
    dtype = samples.dtype
    single = dtype in (torch.float32, torch.complex64) or dtype in (np.float32, np.complex64)
    return float(np.finfo(np.float32 if single else np.float64).eps) * 8


def estimate_dimension(
    signals: Samples, *, noise: float | None = None, max_samples: int = 3000, seed: int = 0
) -> DimensionEstimate:
    """Estimate the dimension of the set that `signals` were drawn from.

    Four estimators run: Levina-Bickel maximum likelihood [1]_ with the average of inverses [2]_,
    TwoNN [3]_, local PCA (directions before the largest gap of the mean local spectrum, at two
    neighbourhood sizes; without a gap, those above 5 % of the largest variance [4]_), and box counting
    (occupied boxes of a grid against their size: the very definition of k in the theorems, but
    within reach of a few thousand samples only for k up to about 3, and left out of the interval
    above). The upper limit takes the first two after a correction of their bias on Gaussian samples
    of the same number, and the maximum over methods.

    Parameters
    ----------
    signals
        `(N, ...)`, real or complex. A complex set is estimated from its real and imaginary parts
        and the result halved: dimensions count complex numbers.
    noise
        Standard deviation of white noise on the entries (for complex entries: of each of their two
        parts), in the unit of the signals. Directions and distances below it are ignored.
    max_samples
        More samples than this are thinned out at random.
    seed
        Seed of the random parts (thinning, projection of large images, choice of neighbourhoods).

    Returns
    -------
    DimensionEstimate

    Raises
    ------
    ValueError
        NaN or infinite entries, fewer than five distinct samples (a single repeated one has
        dimension 0), a negative noise.
    TypeError
        Not an array of numbers.

    Notes
    -----
    Nearest-neighbour methods measure the intrinsic dimension where the samples are; the theorems
    use the box-counting dimension of the whole set. They agree on smooth manifolds, not on fractals.

    References
    ----------
    .. [1] E. Levina, P. Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004.
    .. [2] D. MacKay, Z. Ghahramani, comments on [1]_, 2005.
    .. [3] E. Facco et al., "Estimating the intrinsic dimension of datasets by a minimal
       neighborhood information", Scientific Reports 7, 2017, doi:10.1038/s41598-017-11873-y.
    .. [4] K. Fukunaga, D. Olsen, "An algorithm for finding intrinsic dimensionality of data",
       IEEE Transactions on Computers C-20, 1971, doi:10.1109/T-C.1971.223208.
    """
    rows, is_complex = _as_rows(signals, "signals")
    if max_samples < _SMALLEST:
        raise ValueError(f"max_samples must be {_SMALLEST} or more, got {max_samples}")
    raw = _estimate_cloud(
        rows, _check_noise(noise), _precision(signals), max_samples, np.random.default_rng(seed)
    )
    return _finish(raw, is_complex, seed)


def _by_operator(
    y: Samples | Sequence[Samples], operator_index: Samples | None
) -> tuple[list[Samples], list[int]]:
    """Measurements sorted by operator, and the operators' numbers."""
    if operator_index is None:
        if isinstance(y, np.ndarray | torch.Tensor):
            raise ValueError(
                "measurements need operator_index (N,), one a sample, or a list with one array (N_g, m_g) "
                "per operator: points of different operators must not be pooled"
            )
        return list(y), list(range(len(y)))
    if not isinstance(y, np.ndarray | torch.Tensor):
        raise TypeError("with operator_index, the measurements are one array (N, m)")
    index = np.asarray(operator_index)
    if index.shape != (len(y),) or index.dtype.kind not in "iu":
        raise ValueError(
            f"operator_index must be integers of shape ({len(y)},), got {index.dtype} {index.shape}"
        )
    if index.size and index.min() < 0:
        raise ValueError(f"operator_index counts from 0, got {index.min()}")
    groups = np.unique(index).tolist()
    return [y[np.flatnonzero(index == g)] for g in groups], groups


def estimate_dimension_from_measurements(
    y: Samples | Sequence[Samples],
    operator_index: Samples | None = None,
    *,
    noise: float | None = None,
    max_samples: int = 3000,
    seed: int = 0,
) -> DimensionEstimate:
    """Estimate the dimension of the signal set from measurements y = A_g x alone.

    Almost every linear map with more than 2k rows keeps the dimension of a set (and one with more
    than k rows keeps the dimension of a subspace), so each operator's measurements give an
    estimate of k. They are never pooled: the union of the sets A_g X is another set.

    Parameters
    ----------
    y
        `(N, ...)` with `operator_index`, or one array `(N_g, ...)` per operator (sizes may differ).
    operator_index
        `(N,)` integers: which operator measured sample i.
    noise, max_samples, seed
        As in `estimate_dimension`; `max_samples` counts per operator.

    Returns
    -------
    DimensionEstimate
        Means over operators weighted by their samples; the interval also holds the jackknife error
        over operators. `samples` counts all operators.

    Raises
    ------
    ValueError
        As in `estimate_dimension`; measurements without operator index, an index that does not fit.
    """
    parts, groups = _by_operator(y, operator_index)
    if not parts:
        raise ValueError("there are no measurements")
    sigma = _check_noise(noise)
    raws: list[_Raw] = []
    warnings: list[str] = []
    sizes: list[int] = []
    is_complex = False
    for g, part in zip(groups, parts, strict=True):
        rows, part_complex = _as_rows(part, f"the measurements of operator {g}")
        is_complex = is_complex or part_complex
        if len(np.unique(rows, axis=0)) < _SMALLEST and len(parts) > 1 and len(rows) < _SMALLEST:
            warnings.append(f"operator {g} has only {len(rows)} samples and was left out")
            continue
        raws.append(
            _estimate_cloud(rows, sigma, _precision(part), max_samples, np.random.default_rng([seed, g]))
        )
        sizes.append(rows.shape[1])
        warnings += [f"operator {g}: {w}" for w in raws[-1].warnings]
    if not raws:
        raise ValueError(f"no operator has {_SMALLEST} samples or more; measure more signals per operator")
    combined = _combine(raws)
    full = sum(
        r.rank == size and r.estimates["local_pca"][0] >= size for r, size in zip(raws, sizes, strict=True)
    )
    if full:
        warnings.append(
            f"the measurements of {full} of {len(raws)} operators fill their whole space: "
            "k may be larger than any measurement can show"
        )
    estimate = _finish(combined, is_complex, seed)
    return DimensionEstimate(
        estimate.value,
        estimate.low,
        estimate.high,
        estimate.by_method,
        sum(r.samples for r in raws),
        (*warnings, *estimate.warnings),
    )


def _combine(raws: list[_Raw]) -> _Raw:
    """Weighted mean over operators; local PCA, a count, takes its largest value."""
    estimates: dict[str, tuple[float, float]] = {}
    for name in ("mle", "two_nn", "local_pca", "box_counting"):
        found = [(r.estimates[name], r.samples) for r in raws if name in r.estimates]
        found = [f for f in found if math.isfinite(f[0][0])]
        if not found:
            continue
        values = np.array([f[0][0] for f in found])
        errors = np.array([f[0][1] for f in found])
        weights = np.array([f[1] for f in found], dtype=float)
        weights /= weights.sum()
        if name == "local_pca":
            low = float((values - _Z * errors).min())
            estimates[name] = (float(values.max()), (float(values.max()) - low) / _Z)
            continue
        mean = float(weights @ values)
        within = float((weights**2) @ errors**2)
        between = 0.0
        if len(values) > 1:
            without = (mean - weights * values) / (1 - weights)
            between = float((len(values) - 1) / len(values) * ((without - without.mean()) ** 2).sum())
        # The spread over operators already holds each one's sampling error.
        estimates[name] = (mean, math.sqrt(max(within, between)))
    typical, sparse = (int(np.median([getattr(r, name) for r in raws])) for name in ("samples", "sparse"))
    return _Raw(estimates, typical, sparse, max(r.rank for r in raws), ())
