"""The script that makes the shipped weights, at tiny size; that it goes on where it ended."""

from __future__ import annotations

import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest

from invlearn.physics.mri.fingerprint import Grid
from invlearn.unrolled import load_pgdnet, pgdnet_training

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_pgdnet.py"))


def test_it_trains_writes_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = Grid.logarithmic((0.2, 4.0), (0.02, 1.0), step=0.4)
    monkeypatch.setattr(pgdnet_training, "B1", (0.8, 1.0, 1.2))
    monkeypatch.setattr(Grid, "logarithmic", lambda *args, **options: coarse)
    tiny = [
        str(tmp_path),
        "--frames",
        "30",
        "--rank",
        "4",
        "--iterations",
        "2",
        "--width",
        "2",
        "--scans",
        "2",
    ]
    tiny += ["--sizes", "24"]
    labels = np.zeros((40, 36, 120), np.uint8)
    labels[8:32, 6:30] = 1 + np.arange(120) % 9
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "labels.nii.gz")
    assert SCRIPT["label_planes"](tmp_path / "labels.nii.gz").shape == (89, 36, 40)
    tiny += ["--labels", str(tmp_path / "labels.nii.gz")]
    first = SCRIPT["main"]([*tiny, "--epochs", "2"])
    (tmp_path / "checkpoints" / "round_02" / "last.ckpt").unlink()  # one epoch before
    card = SCRIPT["main"]([*tiny, "--epochs", "2", "--resume"])
    assert card["held_back"] == first["held_back"]
    assert card["training"]["steps"] == 3 * 2 * 2 * 2  # rounds, epochs, iterations, scans
    assert "labels.nii.gz" in card["data"]["anatomy"]
    assert {"task", "data", "limits", "signals", "training", "held_back"} == set(card)
    network = load_pgdnet(tmp_path / "pgdnet_30.safetensors")
    assert (network.rank, network.sequence.frames) == (4, 30)
