"""The tomography study at tiny size; the page says what its committed results say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "sparse_view_ct.json"
METHODS = {
    "supervised",
    "equivariant splitting, averaged",
    "FBP",
    "TV",
    "unrolled, untrained",
    "EI, rotations",
    "equivariant splitting",
}


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
    assert {"date", "machine", "versions"} <= set(figures)
    assert set(figures["psnr_db"]) == METHODS
    assert figures["psnr_db"]["FBP"] < figures["psnr_db"]["TV"]
    trained = figures["trained"]
    for name in ("EI, rotations", "equivariant splitting"):
        assert trained[name]["verdict"] == "undecided"
        assert "group only approximately" in trained[name]["reason"]
    assert figures["checked"]["consistency alone"]["verdict"] == "impossible"
    assert figures["checked"]["quarter turns"]["verdict"] == "impossible"  # it maps 4 views to themselves
    losses = trained["supervised"]["losses"]["train/loss"]
    assert losses[-1] < losses[0]
    assert (tmp_path / "new" / "a.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        example.main([])


def test_turned_images_lie_in_the_disc(example) -> None:
    group = example.Rotations(8, (13, 13))
    images = torch.ones(6, 13, 13)
    turned = example.turned(images, group, torch.Generator().manual_seed(0))
    assert (turned[:, 0, 0] == 0).all()
    assert (turned[:, 6, 6] == 1).all()
    ramp = torch.arange(13.0).expand(6, 13, 13)
    assert len({tuple(x.flatten().tolist()) for x in example.turned(ramp, group, torch.Generator())}) > 1


def test_the_page_shows_the_committed_results() -> None:
    figures = json.loads(RESULTS.read_text())
    assert figures["data"] == "heads"
    page = (ROOT / "docs" / "unrolled.md").read_text(encoding="utf-8")
    for name, level in figures["psnr_db"].items():
        assert f"| {name} | {level:.1f} |" in page
