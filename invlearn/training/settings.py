"""How to train, apart from what and for how long."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    batch_size
        Samples a step, over all devices together. So a run on more devices makes the same steps.
    learning_rate
        Of Adam (AdamW with a weight decay).
    weight_decay
        Of AdamW.
    schedule
        `"constant"`, or `"cosine"`: from the learning rate down to zero over all epochs.
    gradient_clip
        Largest norm of a gradient; None for no limit.
    seed
        Of the order of the data and of everything random in a step.
    patience
        Stop after this many epochs without a better validation loss (training loss where there is no
        validation); None never stops early.
    precision
        `"full"`: the precision the model has. `"16-mixed"`, `"bf16-mixed"`: automatic mixed precision; the
        loss can keep parts in full precision.
    accelerator, devices, nodes, strategy
        Handed to Lightning: kind of device (`"auto"`, `"cpu"`, `"cuda"`, ...), how many of them (or `"auto"`)
        on how many hosts, and how to work together (`"auto"`, `"ddp"`, ...: data parallel).
    workers
        Processes that load data; 0 loads in this one.
    folder
        Where checkpoints (`last.ckpt`, and `previous.ckpt` before it) and logs (`log.csv`, and `tensorboard/`
        where TensorBoard is installed) go; None keeps nothing.
    checkpoint_steps
        Write a checkpoint every so many steps too, and not only after every epoch.
    resume
        True goes on from `last.ckpt` of the folder (from the beginning if there is none yet); a path from
        that checkpoint.
    bad_samples
        What to do about samples with NaN or infinite entries: `"refuse"` names the first that comes along;
        `"skip"` looks through all data before training and leaves them out.
    explosion
        A loss of this many times the largest of the first ten steps counts as diverged, as NaN does; within
        them, this many times the first one, where the weights have more than doubled, too.
    progress
        Whether to show a progress bar; None shows it on a terminal.

    Raises
    ------
    ValueError
        A number out of its range, an unknown word, resuming or checkpoints without a folder.
    """

    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    gradient_clip: float | None = None
    seed: int = 0
    patience: int | None = None
    precision: str = "full"
    accelerator: str = "auto"
    devices: int | str = 1
    nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    folder: str | os.PathLike[str] | None = None
    checkpoint_steps: int | None = None
    resume: bool | str | os.PathLike[str] = False
    bad_samples: str = "refuse"
    explosion: float = 1e4
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "nodes", "patience", "checkpoint_steps", "devices"):
            value = getattr(self, name)
            optional = value is None and name in ("patience", "checkpoint_steps")
            if optional or (isinstance(value, str) and name == "devices"):
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Settings: {name} must be at least 1 and a whole number, got {value!r}")
        for name in ("learning_rate", "gradient_clip", "explosion"):
            value = getattr(self, name)
            if value is None and name == "gradient_clip":
                continue
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"Settings: {name} must be positive and finite, got {value!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"Settings: weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if self.workers < 0 or self.seed < 0:
            raise ValueError(
                f"Settings: workers and seed must not be negative, got {self.workers}, {self.seed}"
            )
        for name, known in (
            ("schedule", ("constant", "cosine")),
            ("precision", ("full", "16-mixed", "bf16-mixed")),
            ("bad_samples", ("refuse", "skip")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Settings: {name} is one of {', '.join(known)}; got {getattr(self, name)!r}"
                )
        if self.folder is None and (self.resume is True or self.checkpoint_steps is not None):
            raise ValueError("Settings: resume and checkpoint_steps need a folder for the checkpoints")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        plain = asdict(self)
        for name in ("folder", "resume"):
            if isinstance(plain[name], os.PathLike):
                plain[name] = os.fspath(plain[name])
        return plain

    def decisive(self) -> dict[str, Any]:
        """What a resumed run must share with the run it goes on from, to equal an unbroken one."""
        names = (
            "batch_size",
            "learning_rate",
            "weight_decay",
            "schedule",
            "gradient_clip",
            "seed",
            "precision",
        )
        return {name: getattr(self, name) for name in names}
