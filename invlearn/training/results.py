"""How a training ended: with weights and a history, or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


class Diverged(RuntimeError):
    """Training was stopped because the loss became NaN, infinite, or exploded.

    The module holds the weights of the last good epoch (those it came with, in the first).

    Attributes
    ----------
    epoch, step
        Where, counted from 1.
    checkpoint
        The last good checkpoint, if there is a folder for them.
    """

    def __init__(self, message: str, epoch: int, step: int, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.checkpoint = checkpoint


@dataclass(frozen=True)
class TrainingResult:
    """What training did. The module holds the weights of `best_epoch`.

    Attributes
    ----------
    history
        One mapping an epoch: `epoch` (from 1), `step`, `learning_rate`, `train/loss` and its parts
        `train/...`,
        `val/loss` and parts where there is validation, `seconds`.
    best_epoch
        The epoch with the lowest validation loss; without validation the last one.
    stopped
        `"finished"` all epochs, or `"early"` by the settings' patience.
    skipped
        Numbers of samples that were left out because of NaN or infinite entries.
    checkpoint
        The last checkpoint, if there is a folder for them.
    """

    history: tuple[Mapping[str, int | float], ...]
    best_epoch: int
    stopped: Literal["finished", "early"]
    skipped: tuple[int, ...] = ()
    checkpoint: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "history": [dict(row) for row in self.history],
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "skipped": list(self.skipped),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
        }
