"""What a trajectory, an image shape, an accuracy and a backend's name must be."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.tensors import as_tensor
from invlearn.physics.nufft.plans import CufinufftBackend, FinufftBackend
from invlearn.physics.nufft.torch_backend import TorchBackend
from invlearn.physics.nufft.transform import Backend
from invlearn.physics.space import as_numbers

#: Rounding that is allowed beyond half a cycle per pixel.
_SLACK = 1e-5


def check_trajectory(trajectory: Any, who: str) -> Tensor:
    """A trajectory `(*T, M, d)` as a float32 or float64 tensor, within -0.5 … 0.5 cycles per pixel.

    Raises
    ------
    TypeError
        Not an array, integer, complex or half-precision entries.
    ValueError
        No samples, a last axis other than 1 to 3, NaN, or points outside.
    """
    trajectory = as_tensor(trajectory, f"{who}: the trajectory")
    if not trajectory.is_floating_point():
        raise TypeError(
            f"{who}: the trajectory is {trajectory.dtype}; it takes real float32 or float64 numbers, in "
            "cycles per pixel"
        )
    if trajectory.ndim < 2 or not 1 <= trajectory.shape[-1] <= 3:
        raise ValueError(
            f"{who}: a trajectory is (*trajectories, samples, d) with d = 1, 2 or 3 last, got "
            f"{tuple(trajectory.shape)}"
        )
    if trajectory.numel() == 0:
        raise ValueError(f"{who}: the trajectory {tuple(trajectory.shape)} has no samples")
    as_numbers(trajectory.detach(), f"{who}: the trajectory")
    reach = float(trajectory.detach().abs().max())
    if reach > 0.5 + _SLACK:
        radians = reach <= math.pi + 1e-3
        unit = "radians per pixel: divide by 2π" if radians else "cycles per field of view: divide by N"
        raise ValueError(
            f"{who}: the trajectory reaches {reach:.6g}, outside -0.5 … 0.5 cycles per pixel "
            f"(it may be in {unit})"
        )
    return trajectory


def check_shape(shape: Sequence[int], trajectory: Tensor, who: str) -> tuple[int, ...]:
    """The image shape, one size for each coordinate of the trajectory.

    Raises
    ------
    ValueError
        Another number of axes, sizes below one, or a grid beyond the memory there is.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) != trajectory.shape[-1]:
        raise ValueError(
            f"{who}: the image shape {shape} has {len(shape)} axes, the trajectory {tuple(trajectory.shape)} "
            f"has {trajectory.shape[-1]} coordinates; they must be as many"
        )
    if any(n < 1 for n in shape):
        raise ValueError(f"{who}: image sizes must be positive, got {shape}")
    needed = 16 * math.prod(2 * n for n in shape)
    if needed > memory_limit():
        raise ValueError(
            f"{who}: images of {shape} need a grid of {format_bytes(needed)}, more than the "
            f"{format_bytes(memory_limit())} of memory there is"
        )
    return shape


def check_eps(eps: float, who: str) -> float:
    """The accuracy, 1e-13 to 0.1.

    Raises
    ------
    ValueError
        Out of that range.
    """
    if not 1e-13 <= eps <= 0.1:
        raise ValueError(f"{who}: eps={eps} is not an accuracy that can be had; choose 1e-13 to 0.1")
    return float(eps)


_BY_DEVICE = {"cpu": "finufft", "cuda": "cufinufft"}


def choose_backend(name: str | None, device: torch.device, who: str) -> type[Backend]:
    """The backend's class, by name or by device and by what is installed.

    Raises
    ------
    ValueError
        An unknown name, one that works on another device, or a package that cannot be imported.
    """
    device_of = {library: kind for kind, library in _BY_DEVICE.items()}
    if name is None:
        library = _BY_DEVICE.get(device.type)
        name = library if library and _importable(library) else "torch"
    elif name not in (*device_of, "torch"):
        raise ValueError(f"{who}: there is no backend {name!r}; choose one of {', '.join(device_of)}, torch")
    elif device.type not in (device_of.get(name, device.type), "meta"):
        raise ValueError(
            f"{who}: the backend {name!r} works on {device_of[name]} tensors, the trajectory is on {device}; "
            "move it, or leave the choice to backend=None"
        )
    elif name != "torch" and not _importable(name):
        raise ValueError(f"{who}: backend {name!r} cannot be imported; pip install {name}, or take 'torch'")
    return {backend.name: backend for backend in (FinufftBackend, CufinufftBackend, TorchBackend)}[name]


def _importable(library: str) -> bool:
    try:
        importlib.import_module(library)
    except (ImportError, OSError):  # OSError: installed beside a CUDA that it does not find
        return False
    return True
