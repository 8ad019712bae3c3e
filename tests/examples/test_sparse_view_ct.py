"""The tomography study at tiny size; the page says what its committed results say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "sparse_view_ct.json"
METHODS = {"FBP", "TV", "consistency alone", "EI, rotations", "supervised"}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("sparse_view_ct", ROOT / "examples" / "sparse_view_ct.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_tiny_study(example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    example.main(["--tiny", "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "new" / "a.png")])
    figures = json.loads((tmp_path / "a.json").read_text())
    assert set(figures["psnr_db"]) == METHODS
    assert figures["psnr_db"]["FBP"] < figures["psnr_db"]["TV"]
    trained = figures["trained"]
    assert trained["consistency alone"]["verdict"] == "impossible"
    assert trained["EI, rotations"]["verdict"] == "undecided"
    assert "group only approximately" in trained["EI, rotations"]["reason"]
    assert figures["check_with_quarter_turns"]["verdict"] == "impossible"  # 4 views: a quarter turn maps them
    assert trained["supervised"]["training"]["history"][-1]["train/loss"] < 0.2
    assert (tmp_path / "new" / "a.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        example.main([])


def test_the_page_shows_the_committed_results() -> None:
    figures = json.loads(RESULTS.read_text())
    assert figures["data"] == "digits"
    page = (ROOT / "docs" / "unrolled.md").read_text(encoding="utf-8")
    for name, level in figures["psnr_db"].items():
        assert f"| {name} | {level:.1f} |" in page
