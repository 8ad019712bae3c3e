"""`invlearn segment`, from the command line."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from invlearn.io.stacks import open_stack, write_stack
from invlearn.io.swc import read_swc
from invlearn.neuro.synthesis import simulate
from invlearn.neuro.waveunet import WaveUNet3D
from invlearn.training import save_network, write_weights


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated stack."""
    path = tmp_path_factory.mktemp("sample") / "stack.tif"
    made = simulate((24, 64, 64), seed=4, noise="low")
    write_stack(path, made.stack, made.voxel_size)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that are quick."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    save_network(path, WaveUNet3D(width=1), {})
    return path


def test_a_stack_becomes_mask_probability_tracing_report_and_record(
    run: Any, sample: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("segment", sample, "-o", out, "--trace", "--probability", "--threshold", 0.4)
    assert result.exit_code == 0, result.output
    names = {"mask.tif", "probability.tif", "neuron.swc", "report.html", "run.json"}
    assert {path.name for path in out.iterdir()} == names
    mask, probability = (open_stack(out / f"{name}.tif") for name in ("mask", "probability"))
    assert set(np.unique(mask.array())) == {0, 255}
    assert np.array_equal(mask.array() > 0, probability.array() >= np.float32(0.4))
    assert mask.voxel_size == pytest.approx(open_stack(sample).voxel_size, rel=1e-4)
    tree = read_swc(out / "neuron.swc")
    assert tree.unit == "um"
    record = json.loads((out / "run.json").read_text())
    assert record["command"].startswith("invlearn segment")
    assert record["metrics"]["foreground_voxels"] == int((mask.array() > 0).sum())
    assert record["metrics"]["tree"]["nodes"] == len(tree)
    assert str(sample) in record["inputs"]
    assert "voxels of neuron" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no cubes are left


def test_zarr_in_zarr_out(run: Any, sample: Path, small: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    stack = open_stack(sample)
    write_stack(tmp_path / "s.zarr", stack, stack.voxel_size)
    assert run("segment", tmp_path / "s.zarr", "-o", tmp_path / "z", "--weights", small).exit_code == 0
    assert run("segment", sample, "-o", tmp_path / "t", "--weights", small).exit_code == 0
    masks = [open_stack(tmp_path / name).array() for name in ("z/mask.zarr", "t/mask.tif")]
    assert np.array_equal(*masks)


def test_nothing_is_overwritten_unasked(run: Any, sample: Path, small: Path, tmp_path: Path) -> None:
    arguments = ("segment", sample, "-o", tmp_path / "o", "--weights", small, "--quiet")
    assert run(*arguments).exit_code == 0
    again = run(*arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert run(*arguments, "--overwrite").exit_code == 0


def test_options_reach_the_record(run: Any, sample: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    options = ("--voxel-size", 9, 0.5, 0.5, "--precision", "bfloat16", "--seed", 3)
    assert run("segment", sample, "-o", out, "--weights", small, *options).exit_code == 0
    record = json.loads((out / "run.json").read_text())
    assert record["metrics"]["voxel_size_um"] == [9, 0.5, 0.5]
    assert record["metrics"]["plan"]["precision"] == "bfloat16"
    assert record["metrics"]["plan"]["factors"][0] > 1
    assert record["seed"] == 3
    assert str(small) in record["inputs"]


def test_channel_and_time_are_picked_or_asked_for(run: Any, small: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 200, (2, 8, 3, 32, 32)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", x, imagej=True, metadata={"axes": "TZCYX"})
    arguments = ("segment", tmp_path / "s.tif", "-o", tmp_path / "o", "--weights", small)
    asked = run(*arguments, "--time", 1)
    assert asked.exit_code == 2
    assert "--channel" in asked.output
    assert run(*arguments, "--time", 1, "--channel", 2).exit_code == 0


def test_an_empty_stack_has_a_mask_and_no_tracing(run: Any, small: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(100, 5, (16, 32, 32)).astype(np.float32)
    write_stack(tmp_path / "s.tif", x, (1.0, 1.0, 1.0))
    result = run("segment", tmp_path / "s.tif", "-o", tmp_path / "o", "--weights", small, "--trace")
    assert result.exit_code == 1
    assert "nothing to trace" in result.output
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"mask.tif", "report.html", "run.json"}


def test_bad_input_is_one_line_and_exit_2(run: Any, sample: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "other.safetensors", nn.Linear(2, 2), {"network": {"kind": "WiNet"}})
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 8, 8, 3), np.uint8), photometric="rgb")
    write_stack(tmp_path / "black.tif", np.zeros((8, 32, 32), np.uint8), (1.0, 1.0, 1.0))
    (tmp_path / "cut.tif").write_bytes(sample.read_bytes()[:-4000])
    for arguments, message in (
        ((tmp_path / "none.tif",), "does not exist"),
        ((tmp_path / "rgb.tif",), "--channel|colour"),
        ((tmp_path / "black.tif",), "0 everywhere"),
        ((tmp_path / "cut.tif",), "truncated|damaged"),
        ((sample, "--weights", tmp_path / "other.safetensors"), "are for WiNet"),
        ((sample, "--voxel-size", 0, 1, 1), "positive"),
        ((sample, "--threshold", 0), "threshold"),
        ((sample, "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers|invlearn\\[big\\]"),
    ):
        result = run("segment", *arguments, "-o", tmp_path / "o", "--quiet")
        assert result.exit_code in (1, 2), arguments
        lines = [line for line in result.output.splitlines() if line.startswith("invlearn")]
        assert len(lines) == 1, result.output
        assert re.search(message, lines[0]), lines[0]
        assert not (tmp_path / "o").exists()


def test_a_full_disk_is_said_and_the_command_goes_on_later(
    run: Any, sample: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from invlearn.neuro import segmentation
    from invlearn.neuro.pieces import Pieces

    write, grid = Pieces.write, segmentation.CubeGrid
    monkeypatch.setattr(
        grid, "for_stack", classmethod(lambda cls, shape, **_: grid(shape, (32, 48, 48), 0, 16))
    )

    def full(self: Pieces, number: int, probability: np.ndarray | None) -> None:
        if number == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, number, probability)

    arguments = ("segment", sample, "-o", tmp_path / "o", "--weights", small, "--quiet")
    with monkeypatch.context() as broken:
        broken.setattr(Pieces, "write", full)
        failed = run(*arguments)
    assert failed.exit_code == 1
    assert "disk is full; free some space and run the same command again" in failed.output
    assert not (tmp_path / "o").exists()
    assert run(*arguments).exit_code == 0
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["metrics"]["cubes"]["resumed"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_zarr_stack_is_not_written_into(run: Any, sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    found, store = open_stack(sample), tmp_path / "s.zarr"
    write_stack(store, found, (1.0, 1.0, 1.0))
    before = sorted(store.rglob("*"))
    for place in (store, store / "out", tmp_path / "." / "s.zarr"):
        result = run("segment", store, "-o", place, "--overwrite")
        assert result.exit_code == 2
        assert "is the stack itself, or lies inside it" in result.stderr
    assert sorted(store.rglob("*")) == before
