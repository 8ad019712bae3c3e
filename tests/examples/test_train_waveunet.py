"""The script that makes the shipped weights, at a tiny size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from invlearn.neuro.waveunet import load_waveunet

TINY = (
    "--stacks",
    "3",
    "--shape",
    "16",
    "48",
    "48",
    "--cube",
    "16",
    "32",
    "32",
    "--width",
    "1",
    "--batch",
    "2",
)
SCHEDULE = ("--steps", "4", "--epochs", "2", "--precision", "full")


def script() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "train_waveunet.py"
    spec = importlib.util.spec_from_file_location("train_waveunet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_and_a_card_come_out_and_can_be_gone_on_from(tmp_path: Path) -> None:
    main = script().main
    card = main([str(tmp_path / "a"), *TINY, *SCHEDULE, "--pool", str(tmp_path / "pool")])
    assert {"low", "medium", "high", "wide"} <= set(card["held_back"])
    assert 0 <= card["held_back"]["low"]["f1"] <= 1
    weights = tmp_path / "a" / "waveunet.safetensors"
    assert load_waveunet(weights).to_dict()["width"] == 1
    assert len(list((tmp_path / "pool").glob("*_mask.npy"))) == 7
    again = main([str(tmp_path / "b"), *TINY, *SCHEDULE, "--start", str(weights)])
    assert again["training"]["before"]["steps"] == card["training"]["steps"]


def test_a_kept_pool_is_the_pool(tmp_path: Path) -> None:
    made = script()
    seeds, shape = range(made.TRAINING, made.TRAINING + 3), (16, 48, 48)  # the first one is magnified
    kinds = (None, "low", made.WIDE)
    for folder in (tmp_path / "p", tmp_path / "p"):
        kept, drawn = made.Pool(seeds, shape, folder, kinds), made.Pool(seeds, shape, None, kinds)
        for k in range(3):
            assert np.array_equal(kept[k].image, drawn[k].image)
            assert np.array_equal(kept[k].mask, drawn[k].mask)
            assert kept[k].mask.shape == shape


def test_half_of_the_stacks_are_wide_unless_plain(tmp_path: Path) -> None:
    main = script().main
    tiny = [*TINY, "--stacks", "8", "--steps", "1", "--epochs", "1", "--precision", "full"]
    card = main([str(tmp_path / "a"), *tiny])
    assert card["data"]["wide"] == 4
    plain = main([str(tmp_path / "b"), *tiny, "--plain"])
    assert plain["data"]["wide"] == 0
    assert "wide" not in plain["held_back"]


def test_a_stack_that_holds_nothing_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = script()
    whole = made.simulate_widely

    def sometimes(shape: tuple[int, int, int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        stack, mask = whole(shape, seed=seed)
        return (stack if seed > made.SERIES else np.zeros_like(stack)), mask

    monkeypatch.setattr(made, "simulate_widely", sometimes)
    assert np.ptp(made.simulated(3, (16, 48, 48), made.WIDE).image) > 0
