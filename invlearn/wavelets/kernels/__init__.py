"""Where an analysis step and its adjoint are computed: compiled kernels if they can, else plain torch.

Both functions take plain tensors (no gradients, no tracing) and give the results of `polyphase` to
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from invlearn.wavelets import polyphase
from invlearn.wavelets.polyphase import Analysis

HALF_PRECISION = (torch.float16, torch.bfloat16)  # summed in float32


@lru_cache(maxsize=1)
def _cpu() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    from invlearn.wavelets.kernels import cpu

    return cpu


@lru_cache(maxsize=1)
def _cuda() -> ModuleType | None:
    if find_spec("triton") is None:
        return None
    from invlearn.wavelets.kernels import cuda

    return cuda


def _backend(x: Tensor) -> ModuleType:
    """The compiled kernels for this device and dtype, or the reference."""
    find = {"cpu": _cpu, "cuda": _cuda}.get(x.device.type)
    if find is not None and type(x) in (Tensor, torch.nn.Parameter):
        backend = find()
        if backend is not None and x.dtype in backend.DTYPES:
            return backend
    return polyphase


def _parts(z: Tensor) -> Tensor:
    """Real and imaginary part as the two entries of a leading axis."""
    return torch.view_as_real(z.resolve_conj()).movedim(-1, 0)


def analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    """See `polyphase.analyse`."""
    if x.is_complex():
        return [torch.complex(*parts) for parts in analyse(_parts(x), analysis)]
    backend = _backend(x)
    if backend is polyphase and x.dtype in HALF_PRECISION:
        return [band.to(x.dtype) for band in analyse(x.float(), analysis)]
    return backend.analyse(x, analysis)


def synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    """See `polyphase.synthesise`."""
    first = bands[0]
    if first.is_complex():
        return torch.complex(*synthesise([_parts(band) for band in bands], analysis))
    backend = _backend(first)
    if backend is polyphase and first.dtype in HALF_PRECISION:
        return synthesise([band.float() for band in bands], analysis).to(first.dtype)
    return backend.synthesise(bands, analysis)
