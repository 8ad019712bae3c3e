"""Compiled loops over the edges of trees."""
# mypy: ignore-errors

from __future__ import annotations

from typing import no_type_check  # a wrapper of run-time type checks could not be compiled

import numpy as np
from numba import njit


def compiled(function):
    """Compiled at the first call; kept on disk where there is a folder to write to."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write: compiled once per process
        return njit(**options)(function)


@no_type_check
@compiled
def paint_cones(volume, start, end, radius, scale, bright, soft, margin):
    """The brightest round cone at every voxel: ``volume = max(volume, brightness · cover)``.

    A cone is the union of the balls whose centre goes from `start` to `end`, (E, 3) in voxels, and whose
    radius goes from ``radius[e, 0]`` to ``radius[e, 1]``, after each axis is stretched by ``scale[e]``. With
    the signed distance s to its surface, cover is ``s <= margin`` for ``soft = 0``, else
    ``(margin - s) / soft`` between 0 and 1. `bright` is (E, 2) at both ends.
    """
    depth, height, width = volume.shape
    for e in range(len(start)):
        sz, sy, sx = scale[e, 0], scale[e, 1], scale[e, 2]
        az, ay, ax = start[e, 0] * sz, start[e, 1] * sy, start[e, 2] * sx
        bz, by, bx = end[e, 0] * sz - az, end[e, 1] * sy - ay, end[e, 2] * sx - ax
        r0, grow = radius[e, 0], radius[e, 1] - radius[e, 0]
        length2 = bz * bz + by * by + bx * bx
        length = np.sqrt(length2)
        slope = grow / length if length > 0 else 0.0
        nested = length == 0 or abs(slope) >= 1  # one end's ball holds the other's
        shift = 0.0 if nested else slope / np.sqrt(1 - slope * slope)
        reach = max(r0, r0 + grow) + margin
        z0 = max(0, int(np.ceil((min(az, az + bz) - reach) / sz)))
        z1 = min(depth - 1, int(np.floor((max(az, az + bz) + reach) / sz)))
        y0 = max(0, int(np.ceil((min(ay, ay + by) - reach) / sy)))
        y1 = min(height - 1, int(np.floor((max(ay, ay + by) + reach) / sy)))
        x0 = max(0, int(np.ceil((min(ax, ax + bx) - reach) / sx)))
        x1 = min(width - 1, int(np.floor((max(ax, ax + bx) + reach) / sx)))
        for z in range(z0, z1 + 1):
            pz = z * sz - az
            for y in range(y0, y1 + 1):
                py = y * sy - ay
                for x in range(x0, x1 + 1):
                    px = x * sx - ax
                    if nested:
                        t = 1.0 if grow > 0 else 0.0
                    else:
                        along = (pz * bz + py * by + px * bx) / length
                        across = pz * pz + py * py + px * px - along * along
                        t = (along + shift * np.sqrt(max(across, 0.0))) / length
                        t = min(max(t, 0.0), 1.0)
                    dz, dy, dx = pz - t * bz, py - t * by, px - t * bx
                    s = np.sqrt(dz * dz + dy * dy + dx * dx) - (r0 + t * grow)
                    if s > margin:
                        continue
                    cover = 1.0 if soft == 0 else min((margin - s) / soft, 1.0)
                    value = cover * (bright[e, 0] + t * (bright[e, 1] - bright[e, 0]))
                    if value > volume[z, y, x]:
                        volume[z, y, x] = value


@no_type_check
@compiled
def paint_lines(volume, start, end, bright):
    """At least `bright`, (E, 2) at both ends, where a segment runs through: thin ones hold together."""
    depth, height, width = volume.shape
    for e in range(len(start)):
        dz, dy, dx = end[e, 0] - start[e, 0], end[e, 1] - start[e, 1], end[e, 2] - start[e, 2]
        steps = int(np.ceil(4 * max(abs(dz), abs(dy), abs(dx)))) + 1
        for k in range(steps + 1):
            t = k / steps
            z = int(np.floor(start[e, 0] + t * dz + 0.5))
            y = int(np.floor(start[e, 1] + t * dy + 0.5))
            x = int(np.floor(start[e, 2] + t * dx + 0.5))
            if 0 <= z < depth and 0 <= y < height and 0 <= x < width:
                value = bright[e, 0] + t * (bright[e, 1] - bright[e, 0])
                volume[z, y, x] = max(volume[z, y, x], value)
