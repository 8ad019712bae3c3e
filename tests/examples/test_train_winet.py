"""The script behind the shipped weights, at tiny size, on drawn heads."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from invlearn.registration.winet import load_winet

SCRIPT = Path(__file__).parents[2] / "examples" / "train_winet.py"
TINY = ["--shape", "16", "16", "16", "--width", "2", "--repeats", "1", "--precision", "full"]


def test_example_writes_weights_with_a_card_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    main = runpy.run_path(str(SCRIPT))["main"]
    card = main([str(tmp_path), "--epochs", "1", *TINY])
    assert card["data"] == "drawn ellipsoids"
    assert card["training"]["steps"] == 2
    measured = card["held_back"]
    assert measured["error_before_voxels"] > 0.2
    assert measured["error_after_voxels"] < 3 * measured["error_before_voxels"]
    assert load_winet(tmp_path / "winet_brain_t1.safetensors").width == 2
    again = main([str(tmp_path), "--epochs", "1", "--resume", *TINY])
    assert again == card


def test_the_brains_are_read(data_folder: Path) -> None:
    module = runpy.run_path(str(SCRIPT))
    heads, held_back, _ = module["brains"](data_folder, 12.0, (16, 20, 16))
    assert (len(heads), len(held_back)) == (5, 1)
    assert all(head["image"].shape == (16, 20, 16) for head in heads + held_back)
    whole, stripped = (head["image"] for head in heads[1:3])
    assert 0 < float((stripped > 0.1).float().mean()) < 0.7 * float((whole > 0.1).float().mean())
