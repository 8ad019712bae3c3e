"""Prediction in little memory: every level of the network a slab of slices at a time.

Of a level only the features of the encoder are kept. What the way up needs besides (wavelet details, places
of maxima) is a function of them, and computed again slab by slab where both ways look at blocks of two alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from invlearn.neuro.waveunet import WaveUNet3D

_SLAB = 16  # slices; even
_HALO = 2  # slices that two convolutions see beyond a slab; even
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
    return _from_level(network, 0, x.unsqueeze(1))[:, 0]


def _from_level(network: WaveUNet3D, level: int, x: Tensor) -> Tensor:
    """What a level and all below make of its input; the finest ends with probabilities."""
    if level == len(network.encoder):
        return network.bottom(x)
    convolve, down = network.encoder[level], network.downs[level]
    up, combine = network.ups[-1 - level], network.decoder[-1 - level]
    seen = _in_slabs(x.shape[2], lambda a, b: convolve(_channels_last(x[:, :, a:b])))
    del x
    risen = _blockwise if _is_blockwise(network) else _whole
    rise = risen(network, level, seen, down, up)

    def joined(a: int, b: int) -> Tensor:
        parts = [rise(a, b), seen[:, :, a:b]] if network.pair.skip else [rise(a, b)]
        found = combine(_channels_last(torch.cat(parts, 1)))
        return found if level else _likelihood(network.head(found))

    return _in_slabs(seen.shape[2], joined)


Rise = Callable[[int, int], Tensor]


def _blockwise(network: WaveUNet3D, level: int, seen: Tensor, down: Any, up: Any) -> Rise:
    """Slices from `a` (even) to `b` of what comes up, with the details computed again."""
    deep = _from_level(network, level + 1, _lower(seen, down))

    def rise(a: int, b: int) -> Tensor:
        part = seen[:, :, a:b]
        return up(deep[:, :, a // 2 : -(-b // 2)], _both(down(part))[1], part.shape[2:])

    return rise


def _lower(seen: Tensor, down: Any) -> Tensor:
    """The coarser features alone."""
    return _in_slabs(-(-seen.shape[2] // 2), lambda a, b: _both(down(seen[:, :, 2 * a : 2 * b]))[0], halo=0)


def _whole(network: WaveUNet3D, level: int, seen: Tensor, down: Any, up: Any) -> Rise:
    """The same where a way looks further."""
    lower, memory = _both(down(seen))
    found = up(_from_level(network, level + 1, lower), memory, seen.shape[2:])
    return lambda a, b: found[:, :, a:b]


def _is_blockwise(network: WaveUNet3D) -> bool:
    short = str(network.architecture["wavelet"]) in _SHORTEST or "max" in network.pair.down
    return network.pair.up != _SMOOTH and short


def _both(lower: Any) -> tuple[Tensor, Any]:
    """What a way down gives: the coarser features, and what the way up needs."""
    return lower if isinstance(lower, tuple) else (lower, None)


def _in_slabs(depth: int, compute: Callable[[int, int], Tensor], halo: int = _HALO) -> Tensor:
    """Slices 0 to `depth`, from ``compute(a, b)`` of slabs with a halo, whose own slices are kept."""
    out: Tensor | None = None
    for z in range(0, depth, _SLAB):
        low, high = max(0, z - halo), min(depth, z + _SLAB + halo)
        found = compute(low, high)[:, :, z - low : z - low + _SLAB]
        if out is None:
            size = (*found.shape[:2], depth, *found.shape[3:])
            out = torch.empty(
                size, dtype=found.dtype, device=found.device, memory_format=torch.channels_last_3d
            )
        out[:, :, z : z + _SLAB] = found
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
