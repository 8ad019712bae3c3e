"""The script that trains WiNet on brains, at tiny size, on drawn heads."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from invlearn.registration.winet import load_winet

SCRIPT = Path(__file__).parents[2] / "examples" / "train_winet.py"
TINY = ["--shape", "16", "16", "16", "--width", "2", "--pairs", "2"]


def test_example_writes_weights_with_a_card_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    main = runpy.run_path(str(SCRIPT))["main"]
    card = main([str(tmp_path), "--epochs", "1", *TINY])
    assert card["data"] == "drawn ellipsoids"
    assert card["training"]["steps"] == 2
    measured = card["held_back"]
    assert 40 < measured["dice_percent_before"] < 95
    assert abs(measured["dice_percent_after"] - measured["dice_percent_before"]) < 20
    assert load_winet(tmp_path / "winet_brain_t1.safetensors").width == 2
    again = main([str(tmp_path), "--epochs", "1", "--resume", *TINY])
    assert again == card


def test_a_number_is_always_the_same_pair_and_others_differ() -> None:
    module = runpy.run_path(str(SCRIPT))
    heads = module["drawn"]((16, 16, 16), 0)[0]
    first, again, other = (module["Drawn"](heads, 20, module["SYNTHESIS"], s) for s in (0, 0, 1))
    assert len(first) == 20
    for i in range(8):
        pair = first[i]
        assert all(torch.equal(pair[name], again[i][name]) for name in pair)
        assert not torch.equal(pair["moving"], other[i]["moving"])
        assert set(pair) == {"moving", "fixed", "moving_target", "fixed_target"}
    assert not torch.equal(first[0]["moving"], first[1]["moving"])
