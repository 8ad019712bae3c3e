"""Closed cavities of a mask, filled: thinning would keep the walls around them."""
# mypy: ignore-errors

from __future__ import annotations

from typing import no_type_check  # a wrapper of run-time type checks could not be compiled

import numpy as np

from invlearn.neuro.loops import compiled

_UNKNOWN, _OUTSIDE, _INSIDE = 0, 1, 2


@no_type_check
@compiled
def _flood(state, turned):
    """One sweep: what is unknown beside the outside is outside too. Says whether anything changed."""
    depth, height, width = state.shape
    changed = False
    for i in range(1, depth - 1):
        z = depth - 1 - i if turned else i
        for j in range(1, height - 1):
            y = height - 1 - j if turned else j
            for k in range(1, width - 1):
                x = width - 1 - k if turned else k
                if state[z, y, x] == 0 and (
                    state[z, y, x - 1] == 1
                    or state[z, y, x + 1] == 1
                    or state[z, y - 1, x] == 1
                    or state[z, y + 1, x] == 1
                    or state[z - 1, y, x] == 1
                    or state[z + 1, y, x] == 1
                ):
                    state[z, y, x] = 1
                    changed = True
    return changed


def without_cavities(mask: np.ndarray) -> np.ndarray:
    """A mask with every hole filled that no path through faces of voxels leads out of.

    Parameters
    ----------
    mask
        (D, H, W), bool.
    """
    state = np.full(np.add(mask.shape, 2), _OUTSIDE, dtype=np.uint8)
    state[1:-1, 1:-1, 1:-1] = np.where(mask, np.uint8(_INSIDE), np.uint8(_UNKNOWN))
    turned = False
    while _flood(state, turned):
        turned = not turned
    return state[1:-1, 1:-1, 1:-1] != _OUTSIDE
