"""The flip-angle example at tiny size, and its committed result."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from invlearn.physics.mri import FingerprintSequence

ROOT = Path(__file__).parents[2]


def test_example_writes_a_better_train(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "examples" / "flip_angle_design.py"))["main"]
    result, train = tmp_path / "new" / "design.json", tmp_path / "train.csv"
    main(
        ["--frames", "40", "--iterations", "3", "--knots", "8", "--json", str(result), "--train", str(train)]
    )
    written = json.loads(result.read_text())
    assert written == json.loads(capsys.readouterr().out)
    assert (written["frames"], written["iterations"], written["knots"]) == (40, 3, 8)
    assert sum(written["gain_t2"].values()) > 3
    assert FingerprintSequence.from_csv(train).frames == 40


def test_committed_result_is_better_in_t2_and_the_page_says_so():
    written = json.loads((ROOT / "benchmarks" / "results" / "flip_angle_design.json").read_text())
    assert written["frames"] == 1000
    assert min(written["gain_t2"].values()) > 1
    page = (ROOT / "docs" / "bloch.md").read_text(encoding="utf-8")
    for tissue, gain in written["gain_t2"].items():
        pairs = [(written["default"][tissue][t], written["designed"][tissue][t]) for t in ("t1", "t2")]
        row = f"| {tissue} | " + " | ".join(f"{value:.2f}" for pair in pairs for value in pair)
        assert f"{row} | {gain:.2f} |" in page
