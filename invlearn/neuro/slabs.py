"""Prediction in little memory: every level of the network a slab at a time, cut across a long axis.

Of a level only the features of the encoder are kept. What the way up needs besides (wavelet details, places
of maxima) is a function of them, and computed again slab by slab where both ways look at blocks of two alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from invlearn.neuro.waveunet import WaveUNet3D

_SLAB = 16  # voxels along the axis that is cut; even
_HALO = 2  # voxels that two convolutions see beyond a slab; even
_SHORTEST = ("haar", "db1")  # wavelets of blocks of two
_SMOOTH = "linear"  # a way up that looks further than at blocks of two, whatever the wavelet


def probability(network: WaveUNet3D, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
    """The probability of the last class, float32: the softmax of ``network(x)`` to rounding.

    The largest tensors are the features of the finest level, once, and slabs of what is computed with them.

    Parameters
    ----------
    network
        In evaluation mode, best `folded`.
    x
        Normalised intensities.
    """
    return _from_level(network, 0, x.unsqueeze(1), 2 + cut_axis(x.shape[1:]))[:, 0]


def cut_axis(shape: Sequence[int]) -> int:
    """Of D, H, W (0, 1, 2), the longest; but W, whose slabs take a quarter more time, from twice on alone."""
    return max(range(3), key=lambda k: shape[k] / (1, 1, 2)[k])


def _from_level(network: WaveUNet3D, level: int, x: Tensor, axis: int) -> Tensor:
    """What a level and all below make of its input; the finest ends with probabilities."""
    if level == len(network.encoder):
        return network.bottom(x)
    convolve, down = network.encoder[level], network.downs[level]
    up, combine = network.ups[-1 - level], network.decoder[-1 - level]
    seen = _in_slabs(axis, x.shape[axis], lambda a, b: convolve(_channels_last(_slab(x, axis, a, b))))
    del x
    risen = _blockwise if _is_blockwise(network) else _whole
    rise = risen(network, level, seen, axis, down, up)

    def joined(a: int, b: int) -> Tensor:
        parts = [rise(a, b), _slab(seen, axis, a, b)] if network.pair.skip else [rise(a, b)]
        found = combine(_channels_last(torch.cat(parts, 1)))
        return found if level else _likelihood(network.head(found))

    return _in_slabs(axis, seen.shape[axis], joined)


Rise = Callable[[int, int], Tensor]


def _blockwise(network: WaveUNet3D, level: int, seen: Tensor, axis: int, down: Any, up: Any) -> Rise:
    """From `a` (even) to `b` of what comes up, with the details computed again."""
    deep = _from_level(network, level + 1, _lower(seen, axis, down), axis)

    def rise(a: int, b: int) -> Tensor:
        part = _slab(seen, axis, a, b)
        return up(_slab(deep, axis, a // 2, -(-b // 2)), _both(down(part))[1], part.shape[2:])

    return rise


def _lower(seen: Tensor, axis: int, down: Any) -> Tensor:
    """The coarser features alone."""
    size = seen.shape[axis]
    return _in_slabs(
        axis, -(-size // 2), lambda a, b: _both(down(_slab(seen, axis, 2 * a, min(2 * b, size))))[0], halo=0
    )


def _whole(network: WaveUNet3D, level: int, seen: Tensor, axis: int, down: Any, up: Any) -> Rise:
    """The same where a way looks further."""
    lower, memory = _both(down(seen))
    found = up(_from_level(network, level + 1, lower, axis), memory, seen.shape[2:])
    return lambda a, b: _slab(found, axis, a, b)


def _slab(x: Tensor, axis: int, a: int, b: int) -> Tensor:
    """From `a` to `b` along an axis."""
    return x.narrow(axis, a, b - a)


def _is_blockwise(network: WaveUNet3D) -> bool:
    short = str(network.architecture["wavelet"]) in _SHORTEST or "max" in network.pair.down
    return network.pair.up != _SMOOTH and short


def _both(lower: Any) -> tuple[Tensor, Any]:
    """What a way down gives: the coarser features, and what the way up needs."""
    return lower if isinstance(lower, tuple) else (lower, None)


def _in_slabs(axis: int, length: int, compute: Callable[[int, int], Tensor], halo: int = _HALO) -> Tensor:
    """All of an axis, from ``compute(a, b)`` of slabs with a halo that is cut off again."""
    out: Tensor | None = None
    for start in range(0, length, _SLAB):
        low, high, stop = max(0, start - halo), min(length, start + _SLAB + halo), min(length, start + _SLAB)
        found = _slab(compute(low, high), axis, start - low, stop - low)
        if out is None:
            size = [*found.shape]
            size[axis] = length
            out = torch.empty(
                size, dtype=found.dtype, device=found.device, memory_format=torch.channels_last_3d
            )
        _slab(out, axis, start, stop).copy_(found)
    assert out is not None
    return out


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _likelihood(logits: Tensor) -> Tensor:
    """Of the last class, (B, 1, D, H, W)."""
    logits = logits.float()
    if logits.shape[1] == 2:
        return torch.sigmoid(logits[:, 1:] - logits[:, :1])
    return logits.softmax(1)[:, -1:]
