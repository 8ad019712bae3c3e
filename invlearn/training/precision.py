"""Where mixed precision does not hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SMALL = 8  # voxels along an axis


def steady(block: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """Apply a block to volumes `(..., D, H, W)`; in full precision on grids of a few voxels.

    Mixed precision saves nothing there, and torch's bfloat16 convolutions on a CPU gave NaN as the gradient
    of weights.
    """
    kind = given[0].device.type
    if not torch.is_autocast_enabled(kind) or min(given[0].shape[-3:]) >= _SMALL:
        return block(*given)
    with torch.autocast(kind, enabled=False):
        return block(*(x.float() for x in given))
