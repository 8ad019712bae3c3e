"""Processor kernels of the pair optimisation: one pass over memory each, over a range of planes.

Volumes are float32 ``(D, H, W)`` or ``(C, D, H, W)``, fields ``(3, D, H, W)`` in voxels. Beyond the border
the nearest sample counts. The loops count in unsigned integers and take rows as views: signed indices may
be negative in Python's sense, and the test for it would keep the compiler from using vector instructions.
"""
# mypy: ignore-errors

from __future__ import annotations

from typing import no_type_check  # a wrapper of run-time type checks could not be compiled

import numpy as np
from numba import njit, uint64

_V3, _V4 = "float32[:, :, ::1]", "float32[:, :, :, ::1]"


def compiled(signature):
    """Compiled when the module is imported; kept on disk where there is a folder to write to."""
    options = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}

    def decorate(function):
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # nowhere to write: compiled once per process
            return njit(signature, **options)(function)

    return decorate


@no_type_check
@compiled(f"void({_V4}, {_V4}, {_V4}, boolean, int64, int64)")
def warp(image, field, out, add, first, last):
    """``out[c](p) = image[c](p + field(p))``, trilinear, for the planes first … last; plus `field` if `add`.

    A row at a time: first where its voxels look, which vector instructions find, then what lies there.
    """
    channels, depth, height, width = image.shape
    volume = depth * height * width
    flat = image.reshape(-1)
    zero = np.float32(0)
    top_z, top_y, top_x = np.float32(depth - 1), np.float32(height - 1), np.float32(width - 1)
    # the last cell ends at the last sample; an axis of one sample has a cell of no length
    cell_z, cell_y, cell_x = (
        np.int32(max(depth - 2, 0)),
        np.int32(max(height - 2, 0)),
        np.int32(max(width - 2, 0)),
    )
    plane, line = np.int32(height * width), np.int32(width)
    dz, dy, dx = (
        uint64(plane if depth > 1 else 0),
        uint64(line if height > 1 else 0),
        uint64(1 if width > 1 else 0),
    )
    rows, n = field.shape[2], uint64(field.shape[3])
    at = np.empty(field.shape[3], np.int32)
    fz, fy, fx = np.empty(at.size, np.float32), np.empty(at.size, np.float32), np.empty(at.size, np.float32)
    for z in range(first, last):
        for y in range(rows):
            uz, uy, ux = field[0, z, y], field[1, z, y], field[2, z, y]
            for x in range(n):
                pz, py, px = np.float32(z) + uz[x], np.float32(y) + uy[x], np.float32(np.int32(x)) + ux[x]
                # in this order NaN becomes 0, and reads no memory that is not there
                pz, py, px = pz if pz > zero else zero, py if py > zero else zero, px if px > zero else zero
                pz, py, px = (
                    pz if pz < top_z else top_z,
                    py if py < top_y else top_y,
                    px if px < top_x else top_x,
                )
                iz, iy, ix = min(np.int32(pz), cell_z), min(np.int32(py), cell_y), min(np.int32(px), cell_x)
                fz[x], fy[x], fx[x] = pz - np.float32(iz), py - np.float32(iy), px - np.float32(ix)
                at[x] = iz * plane + iy * line + ix
            for c in range(channels):
                source, target = flat[c * volume : (c + 1) * volume], out[c, z, y]
                for x in range(n):
                    k = uint64(at[x])
                    a = source[k] + fx[x] * (source[k + dx] - source[k])
                    k += dy
                    b = source[k] + fx[x] * (source[k + dx] - source[k])
                    k += dz
                    d = source[k] + fx[x] * (source[k + dx] - source[k])
                    k -= dy
                    e = source[k] + fx[x] * (source[k + dx] - source[k])
                    near, far = a + fy[x] * (b - a), e + fy[x] * (d - e)
                    target[x] = near + fz[x] * (far - near)
                if add:
                    own = field[c, z, y]
                    for x in range(n):
                        target[x] += own[x]


@no_type_check
@compiled(f"void({_V4}, {_V4}, float32[::1], float32[::1], int64, int64)")
def smooth_planes(image, out, across, along, first, last):
    """Symmetric filter with half taps (middle first), `across` y, `along` x; planes first … last of C·D."""
    _, depth, height, width = image.shape
    reach, radius = across.shape[0] - 1, along.shape[0] - 1
    line = np.empty(width + 2 * radius, np.float32)
    n = uint64(width)
    r = uint64(radius)
    for k in range(first, last):
        c, z = k // depth, k % depth
        for y in range(height):
            centre, middle = image[c, z, y], across[0]
            for x in range(n):
                line[x + r] = middle * centre[x]
            for t in range(1, reach + 1):
                above, below, tap = image[c, z, max(y - t, 0)], image[c, z, min(y + t, height - 1)], across[t]
                for x in range(n):
                    line[x + r] += tap * (above[x] + below[x])
            for x in range(r):
                line[x] = line[r]
                line[n + r + x] = line[n + r - uint64(1)]
            target, middle = out[c, z, y], along[0]
            for x in range(n):
                target[x] = middle * line[x + r]
            for t in range(1, radius + 1):
                s, tap = uint64(t), along[t]
                for x in range(n):
                    target[x] += tap * (line[x + r - s] + line[x + r + s])


@no_type_check
@compiled(f"void({_V4}, {_V4}, float32[::1], int64, int64)")
def smooth_depth(image, out, taps, first, last):
    """The same along z, for the rows first … last of H, all channels."""
    channels, depth, _, width = image.shape
    radius = taps.shape[0] - 1
    n = uint64(width)
    for c in range(channels):
        for z in range(depth):
            for y in range(first, last):
                centre, target, middle = image[c, z, y], out[c, z, y], taps[0]
                for x in range(n):
                    target[x] = middle * centre[x]
                for t in range(1, radius + 1):
                    before, after = image[c, max(z - t, 0), y], image[c, min(z + t, depth - 1), y]
                    tap = taps[t]
                    for x in range(n):
                        target[x] += tap * (before[x] + after[x])


@no_type_check
@compiled(f"void({_V4}, {_V4}, int64, int64, int64, int64)")
def box_planes(image, out, reach, radius, first, last):
    """Sums over windows of 2 reach + 1 along y and 2 radius + 1 along x, cut at the border.

    Running sums: the same few additions for any radius. Planes first … last of C·D.
    """
    _, depth, height, width = image.shape
    column = np.empty(width, np.float32)
    n = uint64(width)
    for k in range(first, last):
        c, z = k // depth, k % depth
        column[:] = 0
        for y in range(min(reach, height)):
            row = image[c, z, y]
            for x in range(n):
                column[x] += row[x]
        for y in range(height):
            if y + reach < height:
                row = image[c, z, y + reach]
                for x in range(n):
                    column[x] += row[x]
            if y - reach > 0:
                row = image[c, z, y - reach - 1]
                for x in range(n):
                    column[x] -= row[x]
            target = out[c, z, y]
            total = np.float32(0)
            for x in range(min(radius, width)):
                total += column[x]
            low, high = min(radius + 1, width), max(width - radius, 0)
            if low < high:
                for x in range(low):
                    total += column[x + radius]
                    target[x] = total
                for x in range(uint64(low), uint64(high)):
                    total += column[x + uint64(radius)] - column[x - uint64(radius) - uint64(1)]
                    target[x] = total
                for x in range(high, width):
                    total -= column[x - radius - 1]
                    target[x] = total
            else:
                for x in range(width):
                    if x + radius < width:
                        total += column[x + radius]
                    if x - radius > 0:
                        total -= column[x - radius - 1]
                    target[x] = total


@no_type_check
@compiled(f"void({_V4}, {_V4}, int64, int64, int64)")
def box_depth(image, out, radius, first, last):
    """The same along z, for the rows first … last of H, all channels."""
    channels, depth, _, width = image.shape
    n = uint64(width)
    total = np.empty(width, np.float32)
    for c in range(channels):
        for y in range(first, last):
            total[:] = 0
            for z in range(min(radius, depth)):
                row = image[c, z, y]
                for x in range(n):
                    total[x] += row[x]
            for z in range(depth):
                if z + radius < depth:
                    row = image[c, z + radius, y]
                    for x in range(n):
                        total[x] += row[x]
                if z - radius > 0:
                    row = image[c, z - radius - 1, y]
                    for x in range(n):
                        total[x] -= row[x]
                target = out[c, z, y]
                for x in range(n):
                    target[x] = total[x]


@no_type_check
@compiled(f"void({_V3}, {_V3}, {_V4}, float32[::1], int64, int64)")
def products(fixed, moving, out, means, first, last):
    """f, m, f², m² and f m, less the two means: what the sums of local correlation are made of."""
    _, height, width = fixed.shape
    n = uint64(width)
    mean_f, mean_m = means[0], means[1]
    for z in range(first, last):
        for y in range(height):
            f, m = fixed[z, y], moving[z, y]
            a, b, c, d, e = out[0, z, y], out[1, z, y], out[2, z, y], out[3, z, y], out[4, z, y]
            for x in range(n):
                p, q = f[x] - mean_f, m[x] - mean_m
                a[x] = p
                b[x] = q
                c[x] = p * p
                d[x] = q * q
                e[x] = p * q


@no_type_check
@compiled(f"void({_V3}, {_V4}, float32[::1], float64[::1], int64, int64)")
def correlation_weights(shares, sums, floors, values, first, last):
    """What a window gives to its voxels, in place of the sums of `products`.

    Formula: `forces.LocalCorrelation`. `shares` holds one over the number of voxels of the window, `floors`
    what is added to both variances and to the covariance.
    """
    _, height, width = shares.shape
    n = uint64(width)
    lines = np.empty((5, width), np.float32)  # apart from what is written: else no vector instructions
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    floor_f, floor_m, floor_fm = floors[0], floors[1], floors[2]
    for z in range(first, last):
        total = 0.0
        for y in range(height):
            share = shares[z, y]
            a, b, c, d, e = sums[0, z, y], sums[1, z, y], sums[2, z, y], sums[3, z, y], sums[4, z, y]
            sf, sm, sff, smm, sfm = lines[0], lines[1], lines[2], lines[3], lines[4]
            for x in range(n):
                sf[x], sm[x], sff[x], smm[x], sfm[x] = a[x], b[x], c[x], d[x], e[x]
            squares = zero
            for x in range(n):
                s = share[x]
                mean_f, mean_m = sf[x] * s, sm[x] * s
                vf = one / (max(sff[x] * s - mean_f * mean_f, zero) + floor_f)
                vm = one / (max(smm[x] * s - mean_m * mean_m, zero) + floor_m)
                covariance = sfm[x] * s - mean_f * mean_m + floor_fm
                slope_f, slope_m = covariance * vf, covariance * vm
                squares += slope_f * slope_m
                pull = two * s * slope_f * vm
                a[x] = pull
                b[x] = pull * slope_f
                c[x] = pull * (slope_f * mean_f - mean_m)
                d[x] = pull * slope_m
                e[x] = pull * (slope_m * mean_m - mean_f)
            total += squares
        values[z] = total


@no_type_check
@compiled(f"void({_V3}, {_V3}, {_V4}, {_V4}, float32[::1], float32[::1], int64, int64)")
def correlation_force(fixed, moving, weights, out, means, spacing, first, last):
    """Residuals times gradients, the moving volume's less the fixed one's; curvatures times their squares.

    Both come from summed `correlation_weights`.
    """
    depth, height, width = fixed.shape
    half, one = np.float32(0.5), np.float32(1)
    mean_f, mean_m = means[0], means[1]
    iz, iy, ix = (
        np.float32(1) / spacing[0] ** 2,
        np.float32(1) / spacing[1] ** 2,
        np.float32(1) / spacing[2] ** 2,
    )
    for z in range(first, last):
        z0, z1 = max(z - 1, 0), min(z + 1, depth - 1)
        sz = half if z1 - z0 == 2 else one
        for y in range(height):
            y0, y1 = max(y - 1, 0), min(y + 1, height - 1)
            sy = half if y1 - y0 == 2 else one
            f, m = fixed[z, y], moving[z, y]
            f_before, f_after = fixed[z0, y], fixed[z1, y]
            m_before, m_after = moving[z0, y], moving[z1, y]
            f_above, f_below = fixed[z, y0], fixed[z, y1]
            m_above, m_below = moving[z, y0], moving[z, y1]
            a, b, c = weights[0, z, y], weights[1, z, y], weights[2, z, y]
            d, e = weights[3, z, y], weights[4, z, y]
            oz, oy, ox, curvature = out[0, z, y], out[1, z, y], out[2, z, y], out[3, z, y]
            for x in range(width):
                p, q = f[x] - mean_f, m[x] - mean_m
                pull_f, pull_m = a[x] * q - b[x] * p + c[x], a[x] * p - d[x] * q + e[x]
                x0, x1 = max(x - 1, 0), min(x + 1, width - 1)
                sx = half if x1 - x0 == 2 else one
                fz, fy, fx = (
                    sz * (f_after[x] - f_before[x]),
                    sy * (f_below[x] - f_above[x]),
                    sx * (f[x1] - f[x0]),
                )
                mz, my, mx = (
                    sz * (m_after[x] - m_before[x]),
                    sy * (m_below[x] - m_above[x]),
                    sx * (m[x1] - m[x0]),
                )
                oz[x] = (pull_m * mz - pull_f * fz) * iz
                oy[x] = (pull_m * my - pull_f * fy) * iy
                ox[x] = (pull_m * mx - pull_f * fx) * ix
                curvature[x] = b[x] * (fz * fz * iz + fy * fy * iy + fx * fx * ix) + d[x] * (
                    mz * mz * iz + my * my * iy + mx * mx * ix
                )


@no_type_check
@compiled(f"void({_V4}, {_V4}, float32, float32[::1], float32, int64, int64)")
def limited_step(force, out, damping, largest, momentum, first, last):
    """force / (curvature + damping), bent so that it is not longer than `largest` (its inverse per axis).

    To it `momentum` times what `out` holds is added, into `out`.
    """
    _, _, height, width = force.shape
    n = uint64(width)
    one = np.float32(1)
    lz, ly, lx = largest[0], largest[1], largest[2]
    for z in range(first, last):
        for y in range(height):
            a, b, c, d = force[0, z, y], force[1, z, y], force[2, z, y], force[3, z, y]
            oz, oy, ox = out[0, z, y], out[1, z, y], out[2, z, y]
            for x in range(n):
                scale = one / (d[x] + damping)
                vz, vy, vx = a[x] * scale, b[x] * scale, c[x] * scale
                bz, by, bx = vz * lz, vy * ly, vx * lx
                bend = one / np.sqrt(one + bz * bz + by * by + bx * bx)
                oz[x] = vz * bend + momentum * oz[x]
                oy[x] = vy * bend + momentum * oy[x]
                ox[x] = vx * bend + momentum * ox[x]


@no_type_check
@compiled(f"void({_V4}, {_V3}, int64, int64)")
def jacobian(field, out, first, last):
    """det(I + ∇u): central differences, one-sided at the border, for the planes first … last."""
    _, depth, height, width = field.shape
    one, half = np.float32(1), np.float32(0.5)
    for z in range(first, last):
        z0, z1 = max(z - 1, 0), min(z + 1, depth - 1)
        sz = half if z1 - z0 == 2 else one
        for y in range(height):
            y0, y1 = max(y - 1, 0), min(y + 1, height - 1)
            sy = half if y1 - y0 == 2 else one
            for x in range(width):
                x0, x1 = max(x - 1, 0), min(x + 1, width - 1)
                sx = half if x1 - x0 == 2 else one
                a = one + sz * (field[0, z1, y, x] - field[0, z0, y, x])
                b = sy * (field[0, z, y1, x] - field[0, z, y0, x])
                c = sx * (field[0, z, y, x1] - field[0, z, y, x0])
                d = sz * (field[1, z1, y, x] - field[1, z0, y, x])
                e = one + sy * (field[1, z, y1, x] - field[1, z, y0, x])
                f = sx * (field[1, z, y, x1] - field[1, z, y, x0])
                g = sz * (field[2, z1, y, x] - field[2, z0, y, x])
                h = sy * (field[2, z, y1, x] - field[2, z, y0, x])
                k = one + sx * (field[2, z, y, x1] - field[2, z, y, x0])
                out[z, y, x] = a * (e * k - f * h) - b * (d * k - f * g) + c * (d * h - e * g)
