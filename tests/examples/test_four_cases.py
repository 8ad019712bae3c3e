"""The study of four cases at tiny size; its committed results, and what the page says of them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "four_cases.py"
RESULTS = ROOT / "benchmarks" / "results" / "four_cases.json"


def test_the_study_runs_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    main = runpy.run_path(str(EXAMPLE))["main"]
    out = tmp_path / "four.json"
    main(["--out", str(out), "--tiny"])
    runs = json.loads(out.read_text())["runs"]
    assert [run["verdict"] for run in list(runs.values())[:4]] == [
        "impossible",
        "certified",
        "certified",
        "impossible",
    ]
    assert len(runs) == 7
    assert "| inpainting, one mask | impossible |" in capsys.readouterr().out
    del runs["low-pass, supervised"]
    out.write_text(json.dumps({**json.loads(out.read_text()), "runs": runs}))
    main(["--out", str(out), "--tiny"])
    assert capsys.readouterr().out.count("cpu_seconds") == 1
    with pytest.raises(SystemExit, match="results of other settings"):
        main(["--out", str(out)])


def test_the_verdicts_foretell_the_committed_results() -> None:
    names = runpy.run_path(str(EXAMPLE))
    results = json.loads(RESULTS.read_text())
    runs = results["runs"]
    for case in names["cases"]():
        own, best = runs[case], runs[names["with_truth"](case)]
        assert best["psnr"] > own["linear"] + 2
        if own["verdict"] == "impossible":
            assert own["psnr"] < own["linear"] + 0.5
        else:
            assert own["psnr"] > own["linear"] + 5
    assert names["table"](results) in (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
