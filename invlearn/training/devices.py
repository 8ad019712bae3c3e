"""What Lightning Fabric does for the trainer: devices, processes, precision."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from invlearn.training import logs
from invlearn.training.settings import Settings

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def make_fabric(settings: Settings) -> Fabric:
    try:
        from lightning.fabric import Fabric
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"training needs Lightning ({error}); install it with: pip install 'invlearn[train]'"
        ) from error
    precision: Any = "32-true" if settings.precision == "full" else settings.precision
    with logs.quiet():
        try:
            fabric = Fabric(
                accelerator=settings.accelerator,
                strategy=settings.strategy,
                devices=settings.devices,
                num_nodes=settings.nodes,
                precision=precision,
            )
        except Exception as error:  # Lightning raises many kinds for devices that are not there
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"training cannot run with accelerator={settings.accelerator!r}, "
                f"devices={settings.devices!r}, strategy={settings.strategy!r} here ({why}); take "
                "accelerator='auto', or 'cpu'"
            ) from error
        fabric.launch()
    return fabric


@contextlib.contextmanager
def own_randomness(fabric: Fabric) -> Iterator[None]:
    """Give the global generators back as they were."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Parcel:
    """A batch that Lightning hands on as it is: mixed precision is for networks, not for measurements."""

    def __init__(self, batch: Any, generator: Generator) -> None:
        self.batch = batch
        self.generator = generator


class Losses(nn.Module):
    """The task, with its answer as a mapping of numbers."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, parcel: Parcel) -> dict[str, Tensor]:
        found = self.task(parcel.batch, parcel.generator)
        losses = dict(found) if isinstance(found, Mapping) else {"loss": found}
        if "loss" not in losses or losses["loss"].numel() != 1:
            raise ValueError(
                f"the module to train must return a loss, or a mapping with 'loss'; got {list(losses)}"
            )
        return losses


def over_devices(fabric: Fabric, values: list[float]) -> list[float]:
    """The sums of some numbers over all devices."""
    total = fabric.all_reduce(
        torch.tensor(values, dtype=torch.float64, device=fabric.device), reduce_op="sum"
    )
    assert isinstance(total, Tensor)
    return [float(value) for value in total]


class Sums:
    """Means of losses over the samples of an epoch."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums = dict(sums or {})

    def add(self, losses: Mapping[str, Tensor], samples: int) -> None:
        self.sums["samples"] = self.sums.get("samples", 0.0) + samples
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + samples * float(value.detach())

    def means(self, fabric: Fabric, prefix: str) -> dict[str, float]:
        if fabric.world_size > 1:
            totals = over_devices(fabric, list(self.sums.values()))
            self.sums = dict(zip(self.sums, totals, strict=True))
        count = self.sums.pop("samples")
        return {f"{prefix}/{name}": value / count for name, value in self.sums.items()}
