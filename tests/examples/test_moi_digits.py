"""The study of compressed sensing and inpainting at tiny size; the page says what its results say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "moi_digits.py"
RESULTS = ROOT / "benchmarks" / "results" / "moi_digits.json"


def test_the_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    main = runpy.run_path(str(EXAMPLE))["main"]
    out, figure = tmp_path / "moi.json", tmp_path / "moi.png"
    main(["--out", str(out), "--figure", str(figure), "--tiny"])
    results = json.loads(out.read_text())
    runs = results["runs"]
    assert [(run["seed"], run["problem"], run["supervised"]) for run in runs] == [
        (seed, problem, supervised)
        for seed in (0, 1)
        for problem in ("compressed sensing", "inpainting")
        for supervised in (False, True)
    ]
    alone = [run for run in runs if not run["supervised"]]
    for verdict in ("verdict", "verdict_of_the_network"):
        assert all(run[verdict] == "impossible" for run in alone)  # 2 x 200 < 784
    assert alone[0]["psnr"] != alone[2]["psnr"]  # a seed changes something
    close = results["close_to_the_threshold"]
    assert close["with truth"] != close["without, from there"] != close["without, from random weights"]
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize("problem", ["compressed sensing", "inpainting"])
def test_families_have_orthonormal_rows_that_differ(problem: str) -> None:
    import torch

    family = runpy.run_path(str(EXAMPLE))["family"](problem, 50, 3)
    for A in family:
        rows = A.to_dense()
        gram = rows @ rows.T
        assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-5)
        assert gram.diagonal().sum().item() == pytest.approx(50, rel=1e-5)
    assert not torch.equal(family[0].to_dense(), family[1].to_dense())
    other = runpy.run_path(str(EXAMPLE))["family"](problem, 50, 3, 1)
    assert not torch.equal(family[0].to_dense(), other[0].to_dense())


def test_means_and_ranges_over_the_seeds() -> None:
    runs = [{"m": 1, "psnr": 10.0}, {"m": 1, "psnr": 11.0}, {"m": 2, "psnr": 0.0}, {"m": 1, "psnr": 13.0}]
    over_seeds = runpy.run_path(str(EXAMPLE))["over_seeds"]
    assert over_seeds({"runs": runs}, "psnr", m=1) == (pytest.approx(34 / 3), 1.5)


def test_the_page_shows_the_committed_results() -> None:
    names = runpy.run_path(str(EXAMPLE))
    results = json.loads(RESULTS.read_text())
    assert names["table"](results) in (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
