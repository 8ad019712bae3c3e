"""FINUFFT on the CPU and cuFINUFFT on NVIDIA cards: plans that are made once and reused.

A. H. Barnett, J. Magland, L. af Klinteberg, "A parallel nonuniform fast Fourier transform library based
on an 'exponential of semicircle' kernel", SIAM J. Sci. Comput. 41 (2019), DOI 10.1137/18M120885X.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from invlearn.physics.nufft.transform import Backend

#: Plans that are kept, each with an oversampled grid: both directions for two sizes of batch.
_PLANS = 4


class PlanBackend(Backend):
    """A library with the plan interface of FINUFFT.

    Both directions use one kernel and one oversampling, so that they are adjoints to rounding.
    """

    single: ClassVar[float] = 1e-4

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        super().__init__(shape, eps)
        self._plans: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._loaded: dict[tuple[Any, ...], Any] = {}

    @abstractmethod
    def _options(self, device: torch.device) -> dict[str, Any]:
        """Options of a plan besides sizes, sign and dtype, as they are now."""

    @abstractmethod
    def _array(self, x: Tensor) -> Any:
        """The tensor's memory as the library takes it."""

    def _prepare(self, trajectory: Tensor, dtype: torch.dtype) -> list[Any]:
        radians = (2 * math.pi * trajectory).to(dtype.to_real())
        return [self._array(radians[:, a].contiguous()) for a in reversed(range(len(self.shape)))]

    def _plan(self, adjoint: bool, x: Tensor, points: list[Any]) -> Any:
        options = self._options(x.device)
        key = (adjoint, len(x), x.dtype, *options.values())
        if key not in self._plans:
            while len(self._plans) >= _PLANS:
                old, _ = self._plans.popitem(last=False)
                self._loaded.pop(old)
            self._plans[key] = importlib.import_module(self.name).Plan(
                1 if adjoint else 2,
                self.shape,
                len(x),
                isign=1 if adjoint else -1,
                dtype=str(x.dtype).removeprefix("torch."),
                **options,
            )
        self._plans.move_to_end(key)
        if self._loaded.get(key) is not points:
            self._plans[key].setpts(*points)
            self._loaded[key] = points
        return self._plans[key]

    def _forward(self, x: Tensor, points: list[Any]) -> Tensor:
        out = x.new_empty(len(x), len(points[0]))
        self._plan(False, x, points).execute(self._array(x), out=self._array(out))
        return out

    def _adjoint(self, y: Tensor, points: list[Any]) -> Tensor:
        out = y.new_empty(len(y), *self.shape)
        self._plan(True, y, points).execute(self._array(y), out=self._array(out))
        return out


class FinufftBackend(PlanBackend):
    """FINUFFT, with as many threads as `torch.get_num_threads()`."""

    name: ClassVar[str] = "finufft"

    def _options(self, device: torch.device) -> dict[str, Any]:
        # The grid of 1.25 is the cheaper one, but errs up to 2.2 times the eps asked for (measured), and its
        # kernel gets too wide for the last digits; the grid of 2 keeps eps.
        fine = self.eps >= 1e-8
        return {
            "eps": self.eps / 3 if fine else max(self.eps, 1e-14),
            "upsampfac": 1.25 if fine else 2.0,
            "nthreads": torch.get_num_threads(),
        }

    def _array(self, x: Tensor) -> Any:
        return x.numpy()


class CufinufftBackend(PlanBackend):
    """cuFINUFFT, on the tensors' device and in its current stream."""

    name: ClassVar[str] = "cufinufft"

    def _options(self, device: torch.device) -> dict[str, Any]:
        return {
            "eps": max(self.eps / 3, 1e-14),
            "upsampfac": 2.0,
            "gpu_device_id": device.index or 0,
            "gpu_stream": torch.cuda.current_stream(device).cuda_stream,
        }

    def _array(self, x: Tensor) -> Any:
        return x
