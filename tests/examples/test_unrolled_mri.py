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
    assert {"date", "machine", "versions"} <= set(figures)
    assert set(figures["psnr_db"]) == METHODS
    assert figures["psnr_db"]["zero-filled"] < figures["psnr_db"]["CG-SENSE"] < figures["psnr_db"]["wavelets"]
    assert len(figures["loss"]) == example.TINY.epochs
    assert figures["psnr_db"]["unrolled, splitting"] > figures["psnr_db"]["unrolled, untrained"]
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


def test_the_real_scan_is_measured_against_all_its_data(example, data_folder: Path) -> None:
    study = example.Study(width=4, levels=1, depth=1, adapt=2)
    with pytest.warns(UserWarning, match="not certain"):
        found = example.real_check(example.network(study), data_folder, study)
    assert set(found["psnr_db"]) == METHODS - {"unrolled, untrained"} | {"unrolled, adapted"}
    assert found["psnr_db"]["unrolled, adapted"] != found["psnr_db"]["unrolled, splitting"]
    assert found["used"] < 0.7 * found["measured"] < 0.7
    assert found["psnr_db"]["zero-filled"] < found["psnr_db"]["CG-SENSE"]


def test_the_page_shows_the_committed_results() -> None:
    figures = json.loads(RESULTS.read_text())
    assert figures["data"] == "heads"
    page = (ROOT / "docs" / "unrolled.md").read_text(encoding="utf-8")
    real = figures["real_scan"]["psnr_db"]
    for name, level in figures["psnr_db"].items():
        beside = f"{real[name]:.1f}" if name in real else "–"
        assert f"| {name} | {level:.1f} | {beside} |" in page


def test_learning_beats_the_classical_reconstructions_by_two_decibels() -> None:
    psnr = json.loads(RESULTS.read_text())["psnr_db"]
    assert psnr["unrolled, splitting"] >= max(psnr["CG-SENSE"], psnr["wavelets"]) + 2
