"""Settings say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from invlearn.training import Settings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"devices": 0}, "devices must be at least 1"),
        ({"nodes": 0}, "nodes must be at least 1"),
        ({"checkpoint_steps": 0, "folder": "x"}, "checkpoint_steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"gradient_clip": -1.0}, "gradient_clip must be positive"),
        ({"explosion": 0.0}, "explosion must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"workers": -1}, "workers and seed"),
        ({"seed": -1}, "workers and seed"),
        ({"resume": True}, "need a folder"),
        ({"checkpoint_steps": 5}, "need a folder"),
    ],
)
def test_numbers_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**bad)


@pytest.mark.parametrize("name", ["schedule", "precision", "bad_samples"])
def test_unknown_words(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is one of"):
        Settings(**{name: "other"})


def test_as_json() -> None:
    plain = Settings(folder=Path("a") / "b", batch_size=3).to_dict()
    assert plain["batch_size"] == 3
    assert json.loads(json.dumps(plain))["folder"] == str(Path("a") / "b")
