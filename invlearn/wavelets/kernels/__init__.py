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


@lru_cache(maxsize=1)
def _cpu() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    from invlearn.wavelets.kernels import cpu

    return cpu


def _backend(x: Tensor) -> ModuleType:
    if type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu":
        cpu = _cpu()
        if cpu is not None and x.dtype in cpu.DTYPES:
            return cpu
    return polyphase


def _parts(z: Tensor) -> Tensor:
    """Real and imaginary part as the two entries of a leading axis."""
    return torch.view_as_real(z.resolve_conj()).movedim(-1, 0)


def analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    """See `polyphase.analyse`."""
    if x.is_complex():
        return [torch.complex(*parts) for parts in analyse(_parts(x), analysis)]
    return _backend(x).analyse(x, analysis)


def synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    """See `polyphase.synthesise`."""
    if bands[0].is_complex():
        return torch.complex(*synthesise([_parts(band) for band in bands], analysis))
    return _backend(bands[0]).synthesise(bands, analysis)
