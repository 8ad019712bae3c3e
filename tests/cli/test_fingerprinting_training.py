"""`invlearn mrf train`: weights from a folder of maps, gone on with, and used by `reconstruct`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invlearn.physics.mri.fingerprint import Grid
from invlearn.unrolled import load_pgdnet, pgdnet_training

COMMAND = ("mrf",)
FRAMES = 40
TINY = ("--frames", FRAMES, "--rank", 5, "--iterations", 2, "--width", 2, "--scans", 2, "--size", 16)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small dictionary, and no flip angles but those played."""
    coarse = Grid.logarithmic((0.2, 4.0), (0.02, 1.0), step=0.4)
    monkeypatch.setattr(pgdnet_training, "B1", (1.0,))
    monkeypatch.setattr(Grid, "logarithmic", lambda *args, **options: coarse)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    disc = (np.hypot(x, y) < 0.9).astype(float)
    for i in range(2):
        np.savez(folder / f"{i}.npz", t1=disc * (1 + 0.1 * x + 0.1 * i), t2=disc * (0.08 + 0.02 * y), pd=disc)
    return folder


def test_train_go_on_and_reconstruct(run: Any, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("train", maps, "-o", out, *TINY, "--epochs", 1, "--rounds", 2)
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    files = {"pgdnet.safetensors", "pgdnet.json", "log.csv", "run.json"}
    assert names == files | {"checkpoints", "scans", "scans_held_back"}
    card = json.loads((out / "pgdnet.json").read_text())
    assert card["network"]["frames"] == FRAMES
    assert card["data"]["maps"] == ["0.npz", "1.npz"]
    assert card["training"]["from"] == "maps"
    network = load_pgdnet(out / "pgdnet.safetensors")
    assert (network.iterations, network.rank, network.unet.width) == (2, 5, 2)
    assert card["training"]["epochs"] == 2
    assert "--resume" in run("train", maps, "-o", out, *TINY).output
    before = (out / "pgdnet.safetensors").read_bytes()
    result = run(
        "train", maps, "-o", out, *TINY, "--epochs", 1, "--rounds", 2, "--resume"
    )  # nothing was left to do
    assert result.exit_code == 0, result.output
    assert (out / "pgdnet.safetensors").read_bytes() == before
    assert len((out / "log.csv").read_text().splitlines()) == 3
    assert "epochs was 1 and is 3" in run("train", maps, "-o", out, *TINY, "--epochs", 3, "--resume").output
    run("simulate", maps / "0.npz", "-o", tmp_path / "s.h5", "--frames", FRAMES, "--snr", 40)
    args = ("--method", "pgdnet", "--weights", out / "pgdnet.safetensors")
    result = run("reconstruct", tmp_path / "s.h5", "-o", tmp_path / "r", *args)
    assert result.exit_code == 0, result.output
    result = run("train", maps, "-o", out, *TINY, "--epochs", 1, "--overwrite", "--self-supervised")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "pgdnet.json").read_text())["training"]["from"] == "k-space alone"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no folder"),
        ("empty", "holds no maps: nothing to learn from"),
        ("bad", "t1 must be positive"),
    ],
)
def test_bad_folders(run: Any, tmp_path: Path, content: str | None, message: str) -> None:
    folder = tmp_path / "maps"
    if content is not None:
        folder.mkdir()
    if content == "bad":
        np.savez(folder / "a.npz", t1=-np.ones((20, 20)), t2=np.ones((20, 20)), pd=np.ones((20, 20)))
    result = run("train", folder, "-o", tmp_path / "o", *TINY)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "o" / "pgdnet.safetensors").exists()


def test_a_rank_beyond_the_frames(run: Any, maps: Path, tmp_path: Path) -> None:
    result = run("train", maps, "-o", tmp_path / "o", "--frames", 4, "--rank", 5)
    assert result.exit_code == 2
    assert "rank 5 is not between 1 and the sequence's 4 frames" in result.stderr
