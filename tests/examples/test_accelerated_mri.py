"""The how-to page's example, at tiny size."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerated_mri.py"


def test_verdicts_of_the_how_to_page() -> None:
    cases = runpy.run_path(str(EXAMPLE))["cases"](16, 3)
    verdicts = {name: report.verdict for name, report in cases}
    assert verdicts["every 4th line, one mask"] == "impossible"
    assert verdicts["every 4th line, shifts"] == "impossible"
    assert verdicts["every 4th line, rotations by 90 degrees"] == "impossible"
    assert verdicts["40 random line masks"] == "certified"
    unseen = {name: report.n - report.bounds[0].actual for name, report in cases}
    assert unseen["every 4th line, shifts"] == unseen["every 4th line, one mask"]
    assert unseen["every 4th line, rotations by 90 degrees"] < unseen["every 4th line, one mask"]
