"""Estimators of intrinsic dimension, on one cloud of points.

Each takes plain arrays and gives a value with its standard error. What to make of them together is
decided in `dimension`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

NEIGHBOURS = 20
_GAP = 8.0  # ratio of neighbouring local variances that separates tangent from curvature
_MINOR = 0.05  # local variances below this part of the largest are no directions of their own
_PROJECT_ABOVE = 512


def principal_coordinates(
    rows: np.ndarray, noise: float, precision: float, rng: np.random.Generator
) -> np.ndarray:
    """Coordinates in the principal directions that rise above noise and rounding.

    A random projection to more than 2k dimensions keeps the dimension of a set, and an orthonormal
    one keeps white noise white with the same standard deviation: it only makes large images
    affordable.
    """
    if rows.shape[1] > _PROJECT_ABOVE:
        basis = np.linalg.qr(rng.standard_normal((rows.shape[1], _PROJECT_ABOVE)))[0]
        rows = rows @ basis
    centred = rows - rows.mean(axis=0)
    n, d = centred.shape
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    if s.size == 0 or s[0] == 0:
        return np.zeros((n, 0))
    # Largest singular value of pure noise (Marchenko-Pastur edge) and of rounding errors.
    floor = max(
        noise * (math.sqrt(n) + math.sqrt(d)),
        precision * max(s[0], float(np.abs(rows).max()) * math.sqrt(n)) * math.sqrt(d),
    )
    keep = s > floor
    return u[:, keep] * s[keep]


def neighbour_distances(points: np.ndarray, tree: cKDTree) -> np.ndarray:
    """Distances to the nearest neighbours, `(N, 20)` sorted; fewer columns where there are fewer points."""
    return tree.query(points, k=min(NEIGHBOURS, len(points) - 1) + 1)[0][:, 1:]


def _jackknife(inverse: np.ndarray, groups: int = 20) -> tuple[float, float]:
    """1 / mean(inverse) and its delete-a-group jackknife standard error."""
    total, n = float(inverse.sum()), inverse.size
    if total <= 0:
        return math.inf, 0.0
    parts = np.array_split(inverse, min(groups, n))
    without = np.array([(n - p.size) / max(total - p.sum(), 1e-300) for p in parts])
    g = len(parts)
    return n / total, float(np.sqrt((g - 1) / g * ((without - without.mean()) ** 2).sum()))


def maximum_likelihood(distances: np.ndarray) -> tuple[float, float]:
    """Levina-Bickel estimate from sorted distances `(N, K)`, averaged as MacKay and Ghahramani do."""
    logs = np.log(distances)
    return _jackknife((logs[:, -1:] - logs[:, :-1]).mean(axis=1))


def two_nn(distances: np.ndarray) -> tuple[float, float]:
    """TwoNN by maximum likelihood: N / sum log(r_2 / r_1)."""
    return _jackknife(np.log(distances[:, 1] / distances[:, 0]))


def local_pca(
    points: np.ndarray,
    tree: cKDTree,
    neighbours: int,
    noise: float,
    plausible: float,
    rng: np.random.Generator,
) -> float:
    """Number of directions before the largest gap of the mean local spectrum.

    A gap behind more than `plausible` directions is not believed: the last values of a neighbourhood
    of few samples drop as steeply. Without a gap, every direction that the data have counts if these
    are few enough (a linear set); otherwise, as for photographs, those above 5 % of the largest variance.
    """
    n, d = points.shape
    centres = points[rng.permutation(n)[: min(n, 200)]]
    index = tree.query(centres, k=neighbours)[1]
    local = points[index]
    local = local - local.mean(axis=1, keepdims=True)
    values = np.linalg.svd(local, compute_uv=False) ** 2 / neighbours
    spectrum = np.exp(np.log(np.maximum(values, 1e-300)).mean(axis=0))
    edge = (noise * (1 + math.sqrt(d / neighbours))) ** 2
    spectrum = spectrum[: min(d, neighbours - 1)]
    spectrum = spectrum[spectrum > max(edge, 1e-20 * spectrum[0])]
    if spectrum.size <= 1:
        return float(spectrum.size)
    ratios = (spectrum[:-1] / spectrum[1:])[: max(1, math.floor(plausible))]
    if ratios.max() > _GAP:
        return float(np.argmax(ratios) + 1)
    if d <= plausible:
        return float(spectrum.size)
    return float((spectrum > _MINOR * spectrum[0]).sum())


def box_counting(points: np.ndarray, noise: float, rng: np.random.Generator) -> tuple[float, float]:
    """Slope of log N(eps) against -log eps over the scales that the samples still fill.

    N(eps) is the number of occupied boxes, the smallest over a few random grid offsets.
    """
    n, d = points.shape
    size = float(np.ptp(points, axis=0).max())
    xs, ys = [], []
    offsets = rng.random((8, d))
    eps = size / 2
    # Below four samples a box the count is the number of samples, not of boxes; below the noise
    # the set is a full-dimensional cloud.
    while eps > max(4 * noise, size * 1e-6):
        counts = [len(np.unique(np.floor(points / eps + o).astype(np.int64), axis=0)) for o in offsets]
        if min(counts) > n / 4:
            break
        xs.append(-math.log(eps))
        ys.append(math.log(min(counts)))
        eps /= math.sqrt(2)
    if len(xs) < 3:
        return math.nan, 0.0
    x, y = np.array(xs), np.array(ys)
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    spread = math.sqrt(float((residual**2).sum()) / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    return float(slope), spread


def corrected(method: str, raw: float, samples: int, rank: int, seed: int) -> float:
    """The dimension at which Gaussian samples, as many as these, give the estimate `raw`.

    Distances grow so alike in high dimension that nearest-neighbour estimates fall short, by an
    amount that depends on k and N alone to first order.
    """
    if not math.isfinite(raw) or raw < 1:
        return raw
    estimator = {"mle": maximum_likelihood, "two_nn": two_nn}[method]
    previous_d, previous = 0, 0.0
    d = max(1, math.floor(raw))
    while True:
        reference = np.random.default_rng([seed, d]).standard_normal((samples, d))
        found = estimator(neighbour_distances(reference, cKDTree(reference)))[0]
        if found >= raw or d >= min(rank, 3 * raw):
            break
        previous_d, previous = d, found
        d += max(1, round((raw - found) * 0.7))
    if found <= raw:
        return float(min(d, rank))
    return previous_d + (d - previous_d) * (raw - previous) / (found - previous)
