"""What a run tells while it goes on: a CSV table, TensorBoard, a progress bar."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LOG = "log.csv"


def write_csv(folder: Path, history: Sequence[Mapping[str, int | float]]) -> None:
    """Write one row an epoch to `log.csv`; a resumed run's table holds the earlier epochs too."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    scratch = folder / f".{LOG}.{os.getpid()}"
    scratch.write_text(text.getvalue(), encoding="utf-8")
    os.replace(scratch, folder / LOG)


def tensorboard(folder: Path) -> Any | None:
    """Lightning's logger for TensorBoard, where that is installed."""
    if not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        return None
    from lightning.fabric.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's remarks on the machine, which are not about the training, to itself."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(_fabric|_utilities)?(\..*)?")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Bar:
    """A progress bar over all epochs, or nothing.

    Parameters
    ----------
    shown
        None shows it on a terminal.
    total, done
        Steps of the whole run, and those made before.
    """

    def __init__(self, shown: bool | None, total: int, done: int) -> None:
        self._progress: Any = None
        if shown or (shown is None and sys.stderr.isatty()):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} steps"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._task = self._progress.add_task("training", total=total, completed=done)
            self._progress.start()

    def step(self, epoch: int, loss: float) -> None:
        """One step more."""
        if self._progress is not None:
            self._progress.update(self._task, advance=1, description=f"epoch {epoch}, loss {loss:.4g}")

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
