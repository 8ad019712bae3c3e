"""Processor kernels of the affine stage: mutual information at sampled points, and its slope."""
# mypy: ignore-errors

from __future__ import annotations

from typing import no_type_check

import numpy as np

from invlearn.registration.loops import compiled


@no_type_check
@compiled("float32(float32)")
def _spline(t):
    """The cubic B-spline."""
    t = abs(t)
    if t < 1:
        return np.float32(2 / 3) - t * t * (np.float32(2) - t) * np.float32(0.5)
    t = max(np.float32(2) - t, np.float32(0))
    return t * t * t * np.float32(1 / 6)


@no_type_check
@compiled("float32(float32)")
def _slope(t):
    """Its derivative."""
    s = abs(t)
    if s < 1:
        value = s * (np.float32(1.5) * s - np.float32(2))
    else:
        s = max(np.float32(2) - s, np.float32(0))
        value = -s * s * np.float32(0.5)
    return value if t >= 0 else -value


@no_type_check
@compiled("UniTuple(float32, 4)(float32[:, :, ::1], float64, float64, float64)")
def _sample(volume, z, y, x):
    """Trilinear value and its derivatives along the three axes; beyond the border the nearest, and flat."""
    depth, height, width = volume.shape
    cz, cy, cx = min(max(z, 0.0), depth - 1.0), min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    iz, iy, ix = (
        min(int(cz), max(depth - 2, 0)),
        min(int(cy), max(height - 2, 0)),
        min(int(cx), max(width - 2, 0)),
    )
    jz, jy, jx = min(iz + 1, depth - 1), min(iy + 1, height - 1), min(ix + 1, width - 1)
    fz, fy, fx = np.float32(cz - iz), np.float32(cy - iy), np.float32(cx - ix)
    a, b = volume[iz, iy, ix], volume[iz, iy, jx]
    c, d = volume[iz, jy, ix], volume[iz, jy, jx]
    e, f = volume[jz, iy, ix], volume[jz, iy, jx]
    g, h = volume[jz, jy, ix], volume[jz, jy, jx]
    ab, cd, ef, gh = a + fx * (b - a), c + fx * (d - c), e + fx * (f - e), g + fx * (h - g)
    low, high = ab + fy * (cd - ab), ef + fy * (gh - ef)
    near, far = (cd - ab) + fz * ((gh - ef) - (cd - ab)), np.float32(1) - fz
    dx = far * ((np.float32(1) - fy) * (b - a) + fy * (d - c)) + fz * (
        (np.float32(1) - fy) * (f - e) + fy * (h - g)
    )
    zero = np.float32(0)
    return (
        low + fz * (high - low),
        high - low if z == cz else zero,
        near if y == cy else zero,
        dx if x == cx else zero,
    )


@no_type_check
@compiled(
    "float64(float64[:, ::1], float32[::1], float32[:, :, ::1], float64[:, ::1], int64, float64[:, ::1])"
)
def information(points, positions, volume, matrix, bins, slope):
    """Mutual information of fixed and sampled moving values; `slope` becomes its derivative by `matrix`.

    `points` (N, 3) are mapped by the (3, 4) `matrix` to voxels of `volume`, whose values lie between 0 and 1;
    `positions` are those of the fixed values on the axis of bins, from 1 to bins - 2, as the moving ones are.
    """
    n = points.shape[0]
    scale = np.float32(bins - 3)
    joint = np.zeros((bins, bins))
    samples = np.empty((n, 4), np.float32)
    for i in range(n):
        p, q, r = points[i]
        z = matrix[0, 0] * p + matrix[0, 1] * q + matrix[0, 2] * r + matrix[0, 3]
        y = matrix[1, 0] * p + matrix[1, 1] * q + matrix[1, 2] * r + matrix[1, 3]
        x = matrix[2, 0] * p + matrix[2, 1] * q + matrix[2, 2] * r + matrix[2, 3]
        samples[i] = _sample(volume, z, y, x)
        u, v = positions[i], samples[i, 0] * scale + np.float32(1)
        first, second = int(u) - 1, int(v) - 1
        for a in range(max(first, 0), min(first + 4, bins)):
            weight = _spline(u - np.float32(a))
            for b in range(max(second, 0), min(second + 4, bins)):
                joint[a, b] += weight * _spline(v - np.float32(b))
    joint /= n
    rows, columns = joint.sum(1), joint.sum(0)
    ratio = np.zeros((bins, bins))
    total = 0.0
    for a in range(bins):
        for b in range(bins):
            if joint[a, b] > 0:
                ratio[a, b] = np.log(joint[a, b] / (rows[a] * columns[b]))
                total += joint[a, b] * ratio[a, b]
    slope[:] = 0
    for i in range(n):
        u, v = positions[i], samples[i, 0] * scale + np.float32(1)
        first, second = int(u) - 1, int(v) - 1
        pull = 0.0
        for b in range(max(second, 0), min(second + 4, bins)):
            change = _slope(v - np.float32(b))
            for a in range(max(first, 0), min(first + 4, bins)):
                pull += change * _spline(u - np.float32(a)) * ratio[a, b]
        pull *= scale / n
        for k in range(3):
            along = pull * samples[i, k + 1]
            for j in range(3):
                slope[k, j] += along * points[i, j]
            slope[k, 3] += along
    return total
