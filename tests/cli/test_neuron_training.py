"""`invlearn neuron train`, from simulated stacks to weights that `invlearn segment` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from invlearn.cli.neuron_training import held_back
from invlearn.neuro.waveunet import load_waveunet

QUICK = ("--width", 1, "--cube", 16, 32, 32, "--quiet")


@pytest.fixture(scope="module")
def stacks(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small simulated stacks."""
    folder = tmp_path_factory.mktemp("stacks") / "s"
    made = run(
        "neuron", "simulate", "-o", folder, "--count", 3, "--shape", 16, 48, 48, "--noise", "low", "--quiet"
    )
    assert made.exit_code == 0, made.output
    return folder


def test_simulated_stacks_make_weights_for_segment(run: Any, stacks: Path, tmp_path: Path) -> None:
    out = tmp_path / "w"
    result = run(
        "neuron", "train", stacks, "-o", out, *QUICK, "--epochs", 2, "--hold-out", 1, "--pair", "UNet_V1"
    )
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert {"waveunet.safetensors", "waveunet.json", "log.csv", "run.json", "checkpoints"} <= names
    assert load_waveunet(out / "waveunet.safetensors").to_dict()["pair"] == "UNet_V1"
    card = json.loads((out / "waveunet.json").read_text())
    assert len(card["data"]["stacks"]) == 2
    assert len(card["data"]["held_back"]) == 1
    assert "val/loss" in card["result"]
    assert len((out / "log.csv").read_text().splitlines()) == 3
    stack = next(stacks.glob("*stack.tif"))
    weights = out / "waveunet.safetensors"
    assert run("segment", stack, "-o", tmp_path / "o", "--weights", weights, "--quiet").exit_code == 0


def test_an_interrupted_run_goes_on_and_others_start_from_its_weights(
    run: Any, stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from invlearn.training.logs import Bar

    def stop(self: Bar, epoch: int, loss: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    out, whole = tmp_path / "w", tmp_path / "whole"
    command = ("neuron", "train", stacks, *QUICK, "--epochs", 2)
    with monkeypatch.context() as broken:
        broken.setattr(Bar, "step", stop)
        assert run(*command, "-o", out).exit_code == 130
    assert {path.name for path in out.iterdir()} == {"checkpoints"}
    refused = run(*command, "-o", out)
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    assert run(*command, "-o", out, "--resume").exit_code == 0
    assert run(*command, "-o", whole).exit_code == 0
    first, second = (load_waveunet(f / "waveunet.safetensors").state_dict() for f in (out, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights = ("--weights", out / "waveunet.safetensors")
    start = ("neuron", "train", stacks, *weights, "--quiet")
    assert run(*start, *QUICK, "--epochs", 1, "-o", tmp_path / "other").exit_code == 0
    wrong = run(*start, "--width", 2, "-o", tmp_path / "x")
    assert wrong.exit_code == 2
    assert "width is 1 in the file and 2 here" in wrong.output


def test_options_reach_the_card(run: Any, stacks: Path, tmp_path: Path) -> None:
    options = ("--steps", 3, "--batch", 16, "--neuron-weight", 2, "--cldice", 0.5, "--learning-rate", 1e-4)
    out = tmp_path / "w"
    assert run("neuron", "train", stacks, "-o", out, *QUICK, *options, "--wavelet", "db2").exit_code == 0
    card = json.loads((out / "waveunet.json").read_text())
    assert card["network"]["wavelet"] == "db2"
    training = card["training"]
    assert training["objective"]["class_weights"] == [1, 2]
    assert training["objective"]["cldice"] == 0.5
    assert training["settings"]["batch_size"] == 16
    assert training["settings"]["learning_rate"] == 1e-4
    assert card["result"]["step"] >= 3


def test_bad_input_is_refused(run: Any, stacks: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "none",), "does not exist"),
        ((tmp_path,), "has no stacks"),
        ((stacks, "--hold-out", 3), "leave none to learn from"),
        ((stacks, "--cube", 16, 32), "three numbers"),
        ((stacks, "--cube", 20, 32, 32), "multiples of 16"),
        ((stacks, "--epochs", 1, "--steps", 1), "not both"),
        ((stacks, "--learning-rate", -1), "learning_rate"),
        ((stacks, "--voxel-size", 0, 1, 1), "positive"),
        ((stacks, "--pair", "Unet"), "Unet"),
        ((stacks, "--channel", 1), "has the channels 0 … 0, and no 1"),
        ((stacks, "--time", 2), "has the time points 0 … 0, and no 2"),
    ):
        result = run("neuron", "train", *arguments, "-o", tmp_path / "o", "--quiet")
        assert result.exit_code == 2, (arguments, result.output)
        assert message in " ".join(result.output.split()), result.output


def test_how_many_are_held_back() -> None:
    assert [held_back(None, n) for n in (1, 4, 5, 11)] == [0, 0, 1, 2]
    assert held_back(2, 3) == 2
    with pytest.raises(ValueError, match="leave none"):
        held_back(None, 0)
