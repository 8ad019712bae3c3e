"""The `invlearn` command, one module a job; no mathematics here."""

from __future__ import annotations

from invlearn.cli.app import main

__all__ = ["main"]
