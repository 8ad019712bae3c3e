"""The script that makes the shipped weights, at a tiny size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

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
    assert {"low", "medium", "high"} <= set(card["held_back"])
    assert 0 <= card["held_back"]["low"]["f1"] <= 1
    weights = tmp_path / "a" / "waveunet.safetensors"
    assert load_waveunet(weights).to_dict()["width"] == 1
    assert len(list((tmp_path / "pool").glob("*_mask.npy"))) == 6
    again = main([str(tmp_path / "b"), *TINY, *SCHEDULE, "--start", str(weights)])
    assert again["training"]["before"]["steps"] == card["training"]["steps"]


def test_a_kept_pool_is_the_pool(tmp_path: Path) -> None:
    made = script()
    seeds, shape = range(made.TRAINING, made.TRAINING + 2), (16, 48, 48)  # the first one is magnified
    for folder in (tmp_path / "p", tmp_path / "p"):
        kept, drawn = made.Pool(seeds, shape, folder), made.Pool(seeds, shape, None)
        for k in range(2):
            assert np.array_equal(kept[k].image, drawn[k].image)
            assert np.array_equal(kept[k].mask, drawn[k].mask)
            assert kept[k].mask.shape == shape
