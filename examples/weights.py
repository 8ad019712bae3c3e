"""What the scripts have in common that train the weights which ship: their command line, how to train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from invlearn.training import Settings


def new_parser(about: str, learning_rate: float = 1e-3) -> argparse.ArgumentParser:
    """A command line with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("out", type=Path, help="folder for weights, card, checkpoints, and what is prepared")
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    return parser


def settings_of(options: argparse.Namespace, batch_size: int = 1, **other: Any) -> Settings:
    """Cosine schedule, clipped gradients, and a checkpoint every hundred steps.

    Parameters
    ----------
    options
        Of `new_parser`.
    batch_size, other
        Further entries of `Settings`.
    """
    return Settings(
        batch_size=batch_size,
        learning_rate=options.learning_rate,
        schedule="cosine",
        gradient_clip=1.0,
        seed=options.seed,
        folder=options.out / "checkpoints",
        checkpoint_steps=100,
        resume=options.resume,
        **other,
    )
