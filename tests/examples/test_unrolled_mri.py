"""The MRI study at tiny size; the page says what its committed results say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "unrolled_mri.json"
METHODS = {"zero-filled", "CG-SENSE", "wavelets", "unrolled, untrained", "unrolled, splitting"}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("unrolled_mri", ROOT / "examples" / "unrolled_mri.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.filterwarnings("ignore:it is not certain that this can be learned")
def test_tiny_study(example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    example.main(["--tiny", "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "new" / "a.png")])
    figures = json.loads((tmp_path / "a.json").read_text())
    assert set(figures["psnr_db"]) == METHODS
    assert figures["psnr_db"]["zero-filled"] < figures["psnr_db"]["CG-SENSE"] < figures["psnr_db"]["wavelets"]
    assert len(figures["loss"]) == example.TINY.epochs
    assert figures["loss"][-1] < figures["loss"][0]
    assert figures["verdict"]["verdict"] in ("undecided", "certified")
    assert (tmp_path / "new" / "a.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        example.main([])


def test_masks_and_scans_are_what_they_say(example) -> None:
    study = example.Study()
    masks = example.line_masks(study, 5, torch.Generator().manual_seed(0))
    assert masks.shape == (5, *study.shape)
    assert (masks[:, :, 0].sum(1) == study.lines).all()
    middle = study.shape[0] // 2
    assert masks[:, middle - study.centre // 2 : middle + study.centre // 2].all()
    assert len({tuple(mask[:, 0].tolist()) for mask in masks}) == 5
    energy = example.coil_maps(study).abs().square().sum(0)
    torch.testing.assert_close(energy, torch.ones(study.shape))


def test_heads(example, data_folder: Path) -> None:
    study = example.Study(train=6, test=3)
    train, test = example.heads(study, data_folder, torch.Generator().manual_seed(0))
    assert train.shape == (6, *study.shape)
    assert test.shape == (3, *study.shape)
    for images in (train, test):
        assert 0.3 < float(images.abs()[images.abs() > 0.1].mean()) < 0.8


def test_the_page_shows_the_committed_results() -> None:
    figures = json.loads(RESULTS.read_text())
    assert figures["data"] == "heads"
    page = (ROOT / "docs" / "unrolled.md").read_text(encoding="utf-8")
    for name, level in figures["psnr_db"].items():
        assert f"| {name} | {level:.1f} |" in page
