"""Where and when a benchmark ran: what every JSON file in `results` says of itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


def about(threads: int, *packages: str) -> dict[str, Any]:
    """Date, machine, and the versions of Python and of packages, those left out that are not installed.

    Parameters
    ----------
    threads
        That the measured code may use.
    packages
        Names on the package index.
    """
    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine = {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "threads": threads,
        "versions": versions,
    }


def processor() -> str:
    """The processor's name where the system tells it, else its kind."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
