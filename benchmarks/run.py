"""All benchmarks, one after another, then the comparison page: what ``make bench`` does.

``python benchmarks/run.py [NAME ...] [--peers PYTHON] [--weights FILE ...]``. Each script runs in a process
of its own, measures the peers that it finds installed, and writes its JSON file. A script that fails, or
needs data without the environment variable INVLEARN_DATA, is named at the end and leaves its file as it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
WITH_DATA = ("fingerprinting_accuracy", "pgdnet", "registration", "neurons")
SCRIPTS = (
    "learnability", "wavelets", "nufft", "bloch", "fingerprinting", "fingerprinting_accuracy",
    "fingerprinting_reconstruction", "pgdnet", "unrolled", "winet", "registration", "segmentation", "neurons",
    "gpu",
)  # fmt: skip


def commands(peers: str, weights: list[str]) -> dict[str, list[str]]:
    """The arguments of the scripts that take some."""
    found = {name: [] for name in SCRIPTS}
    found["registration"] = ["--peers", peers] if peers else []
    found["pgdnet"] = ["--weights", *weights]
    return found


def missing(name: str, weights: list[str]) -> str:
    """Why a script cannot run, or nothing."""
    if name in WITH_DATA and not os.environ.get("INVLEARN_DATA"):
        return "INVLEARN_DATA does not name the folder with the data"
    if name == "gpu" and not shutil.which("nvidia-smi"):
        return "needs a machine with CUDA"
    if name == "pgdnet" and not weights:
        return "needs --weights, such as those of `invlearn mrf train`"
    return ""


def run(names: list[str], peers: str, weights: list[str], call: Callable[[list[str]], int]) -> list[str]:
    """Run them; what went wrong, a line each."""
    failed = []
    for name in names:
        reason = missing(name, weights)
        if not reason and (
            code := call([sys.executable, str(HERE / f"{name}.py"), *commands(peers, weights)[name]])
        ):
            reason = f"exit code {code}"
        if reason:
            failed.append(f"{name}: {reason}")
    if call([sys.executable, str(HERE / "page.py")]):
        failed.append("the page could not be written")
    return failed


def main(given: list[str] | None = None) -> int:
    """Measure all, write the page, say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*SCRIPTS, []], help="these alone")
    parser.add_argument("--peers", default="", help="an interpreter that has antspyx or convexAdam")
    parser.add_argument("--weights", nargs="+", default=[], help="of PGD-Net")
    options = parser.parse_args(given)
    failed = run(options.names or list(SCRIPTS), options.peers, options.weights, subprocess.call)
    for line in failed:
        print(f"left out: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
