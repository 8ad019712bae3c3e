"""The transform in torch alone: Kaiser–Bessel interpolation of an oversampled FFT, on any device.

Interpolation and its transpose are sums over bags of rows, with the neighbours of each sample, and with
the samples near each grid point: nothing is scattered, results do not depend on the order of threads. The
kernel and its shape parameter are those of P. J. Beatty, D. G. Nishimura, J. M. Pauly, "Rapid gridding
reconstruction with a minimal oversampling ratio", IEEE Trans. Med. Imaging 24 (2005),
DOI 10.1109/TMI.2005.848376.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.physics.nufft.transform import Backend, fast_even_size
from invlearn.physics.space import real_dtype

_OVERSAMPLING = 2.0
#: Bytes of oversampled grids that are worked on at a time.
_CHUNK = {"cpu": 2**26, "cuda": 2**30}


class Bags(NamedTuple):
    """A sparse matrix by rows: the columns and values of its entries, and where each row begins."""

    columns: Tensor
    values: Tensor
    starts: Tensor

    def __matmul__(self, x: Tensor) -> Tensor:
        return embedding_bag(self.columns, x, self.starts, mode="sum", per_sample_weights=self.values)


class Gridding(NamedTuple):
    """Interpolation from the grid to the samples, and its transpose."""

    gather: Bags
    spread: Bags


class TorchBackend(Backend):
    """Width from `eps`, oversampling of 2; positions are kept in double precision."""

    name: ClassVar[str] = "torch"
    single: ClassVar[float] = 3e-6

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        super().__init__(shape, eps)
        self.grid = tuple(fast_even_size(math.ceil(_OVERSAMPLING * n)) for n in self.shape)
        # measured: the error of width w is below 10^(1.1 - 0.98 w) in one to three dimensions
        self.width = max(2, math.ceil((1.1 - math.log10(eps)) / 0.98))

    def _betas(self) -> list[float]:
        w = self.width
        return [
            math.pi * math.sqrt((w * (1 - 0.5 * n / g)) ** 2 - 0.8)
            for g, n in zip(self.grid, self.shape, strict=True)
        ]

    @cached_property
    def _deapodisation(self) -> Tensor:
        """1 / the kernel's Fourier transform at each pixel, float64 on the CPU."""
        total = torch.ones(self.shape, dtype=torch.float64)
        for axis, (n, g, beta) in enumerate(zip(self.shape, self.grid, self._betas(), strict=True)):
            r = torch.arange(n, dtype=torch.float64) - n // 2
            s = (beta**2 - (math.pi * self.width * r / g) ** 2).sqrt()
            # sinh(s)/s over exp(beta): the kernel is scaled so too
            hat = self.width * ((s - beta).exp() - (-s - beta).exp()) / (2 * s)
            total /= hat.reshape(-1, *[1] * (len(self.shape) - 1 - axis))
        return total

    def _footprint(self, samples: int, dtype: torch.dtype) -> int:
        entries = samples * self.width ** len(self.shape)
        return 2 * entries * (8 + real_dtype(dtype).itemsize) + 8 * math.prod(self.grid)

    def _prepare(self, trajectory: Tensor, dtype: torch.dtype) -> Gridding:
        samples, d, w = len(trajectory), len(self.shape), self.width
        needed = self._footprint(samples, dtype)
        if needed > memory_limit() / 2:
            raise ValueError(
                f"NonUniformFFT, backend 'torch': {samples} samples with {w**d} neighbours each take "
                f"{format_bytes(needed)}, more than half of the memory, {format_bytes(memory_limit())}; take "
                "fewer samples, a larger eps, or the backend 'finufft'"
            )
        flat = torch.zeros(samples, 1, dtype=torch.int64, device=trajectory.device)
        values = torch.ones(samples, 1, dtype=torch.float64, device=trajectory.device)
        for axis, (g, beta) in enumerate(zip(self.grid, self._betas(), strict=True)):
            position = trajectory[:, d - 1 - axis] * g
            first = torch.ceil(position - w / 2)
            near = first[:, None] + torch.arange(w, device=trajectory.device)
            t = (near - position[:, None]) * (2 / w)
            root = (1 - t * t).clamp_min(0).sqrt()
            weight = torch.special.i0e(beta * root) * (beta * (root - 1)).exp()
            # the image stands in the middle of its padded grid: a shift by half of an even length
            weight = weight * (1 - 2 * (near.long() % 2))
            index = near.long() % g
            flat = (flat[:, :, None] * g + index[:, None, :]).flatten(1)
            values = (values[:, :, None] * weight[:, None, :]).flatten(1)
        values = values.to(real_dtype(dtype))
        starts = torch.arange(0, samples * w**d, w**d, device=flat.device)
        order = flat.flatten().argsort(stable=True)
        target = flat.flatten()[order]
        rows = torch.arange(math.prod(self.grid), device=flat.device)
        return Gridding(
            Bags(flat.flatten(), values.flatten(), starts),
            Bags(order // w**d, values.flatten()[order], torch.searchsorted(target, rows)),
        )

    def _steps(self, x: Tensor) -> int:
        """Images that are worked on at a time."""
        nbytes = math.prod(self.grid) * x.element_size()
        return max(1, _CHUNK.get(x.device.type, _CHUNK["cpu"]) // nbytes)

    def _margins(self) -> list[tuple[int, int]]:
        """Zeros before and behind the image on each axis: pixel n//2 falls on g//2."""
        return [
            (g // 2 - n // 2, g - n - (g // 2 - n // 2)) for n, g in zip(self.shape, self.grid, strict=True)
        ]

    def _forward(self, x: Tensor, points: Gridding) -> Tensor:
        scale = self._deapodisation.to(x.device, real_dtype(x.dtype))
        pad = [m for before, after in reversed(self._margins()) for m in (before, after)]
        parts = []
        for part in x.split(self._steps(x)):
            spectrum = torch.fft.fftn(torch.nn.functional.pad(part * scale, pad), dim=self._dims)
            rows = torch.view_as_real(spectrum.flatten(1).T.contiguous()).flatten(1)
            parts.append(torch.view_as_complex((points.gather @ rows).unflatten(1, (-1, 2))).T)
        return torch.cat(parts)

    def _adjoint(self, y: Tensor, points: Gridding) -> Tensor:
        scale = self._deapodisation.to(y.device, real_dtype(y.dtype))
        crop = tuple(
            slice(before, before + n) for (before, _), n in zip(self._margins(), self.shape, strict=True)
        )
        parts = []
        for part in y.split(self._steps(y)):
            rows = torch.view_as_real(part.T.contiguous()).flatten(1)
            spread = torch.view_as_complex((points.spread @ rows).unflatten(1, (-1, 2))).T
            image = torch.fft.ifftn(spread.unflatten(1, self.grid), dim=self._dims, norm="forward")
            parts.append(image[(slice(None), *crop)] * scale)
        return torch.cat(parts)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + len(self.shape)))
