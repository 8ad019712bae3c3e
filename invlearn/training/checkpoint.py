"""Checkpoints that are whole or not there, and are read without unpickling objects.

Two are kept, `last.ckpt` and `previous.ckpt` before it. Each is written under a temporary name and moved into
place; its checksums are tested before it is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from invlearn.io.atomic import replacing

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_FORMAT = "invlearn checkpoint 1"


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write `last.ckpt`; what it was becomes `previous.ckpt`."""
    last = folder / LAST
    with replacing(last) as place:
        content = io.BytesIO()
        torch.save({"format": _FORMAT, **state}, content)  # into a file, it would not tell of a full disk
        place.write_bytes(content.getbuffer())
        if last.exists():
            os.replace(last, folder / PREVIOUS)
    return last


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or no checkpoint of this trainer; names a whole checkpoint beside it, if there is one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}{_fallback(path)}")
    try:
        return _load(path)
    except ValueError as error:
        raise ValueError(f"the checkpoint {path} cannot be used: {error}{_fallback(path)}") from error


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: the last one, or the one before if the last never came into place."""
    for name in (LAST, PREVIOUS):
        if (folder / name).exists():
            return folder / name
    return None


def _load(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise many kinds on damaged files
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"it is truncated or damaged ({why})") from error
    if bad is not None:
        raise ValueError(f"it is damaged (checksum of {bad})")
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError("it was not written by this trainer")
    return state


def _fallback(path: Path) -> str:
    for name in (LAST, PREVIOUS):
        other = path.parent / name
        if other != path and other.is_file():
            with contextlib.suppress(ValueError):
                _load(other)
                return f"; go on from the checkpoint before it with resume={str(other)!r}"
    return "; there is no whole checkpoint beside it: train from the beginning, in another folder"
