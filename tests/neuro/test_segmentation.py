"""A stack to its mask: tiles and one pass, resuming, writing, geometry, bad input."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from invlearn.io.stacks import Stack, open_stack, write_stack
from invlearn.neuro import pieces as pieces_module
from invlearn.neuro.pieces import Pieces
from invlearn.neuro.prediction import Plan, StackFile
from invlearn.neuro.segmentation import How, segment
from invlearn.neuro.synthesis import simulate
from invlearn.neuro.waveunet import REACH, WaveUNet3D
from invlearn.training import save_network

VOXEL = (0.5, 0.5, 0.5)


def network_file(folder: Path, seed: int = 0) -> Path:
    """Random weights whose probabilities vary, around one half."""
    path = folder / f"{seed}.safetensors"
    torch.manual_seed(seed)
    made = WaveUNet3D(width=2)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.bias.uniform_(0.2, 0.6)  # no channel is switched off
        for _ in range(10):
            out = made(torch.rand(2, 1, 32, 32, 32))
        made.eval()
        out = made(torch.rand(2, 1, 32, 32, 32))
        score = out[:, 1] - out[:, 0]
        made.head.weight /= score.std()
        made.head.bias /= score.std()
        made.head.bias[1] -= score.mean() / score.std()
    save_network(path, made, {}, overwrite=True)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return network_file(tmp_path)


def stack(shape: tuple[int, int, int] = (20, 70, 90), seed: int = 0) -> np.ndarray:
    """Noise and a few bright bars, uint8."""
    rng = np.random.default_rng(seed)
    x = rng.normal(20, 4, shape)
    for _ in range(6):
        z, y = rng.integers(0, shape[0] - 3), rng.integers(0, shape[1] - 3)
        x[z : z + 2, y : y + 2] += 90
    return x.clip(0, 255).astype(np.uint8)


def test_tiles_with_the_reach_as_margin_equal_one_pass(weights: Path) -> None:
    x = stack((16, 16, 700))
    one = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=How(cube=(16, 16, 704)))
    tiles = How(cube=(16, 16, 288), margin=REACH, taper=16)
    many = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=tiles)
    assert one.cubes["all"] == 1
    assert many.cubes["all"] > 5
    assert float(one.probability.std()) > 0.01
    assert np.abs(one.probability - many.probability).max() < 1e-5


def test_odd_sizes_and_small_tiles_stay_close_to_one_pass(weights: Path) -> None:
    x = stack((21, 75, 133))
    one = segment(x, weights=weights, voxel_size=VOXEL, probability=True)
    many = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=How(cube=(32, 64, 64)))
    assert many.mask.shape == one.mask.shape == x.shape
    assert one.cubes["all"] == 1 < many.cubes["all"]
    assert np.abs(one.probability - many.probability).mean() < 0.1 * float(one.probability.std())


def test_the_mask_is_where_the_probability_reaches_the_threshold(weights: Path) -> None:
    for threshold in (0.3, 0.5, 0.7):
        found = segment(stack(), weights=weights, voxel_size=VOXEL, probability=True, threshold=threshold)
        assert found.mask.dtype == bool
        assert np.array_equal(found.mask, found.probability >= np.float32(threshold))
        assert found.foreground == int(found.mask.sum())
    assert segment(stack(), weights=weights, voxel_size=VOXEL).probability is None


def test_files_arrays_and_tensors_give_the_same(tmp_path: Path, weights: Path) -> None:
    x = stack()
    write_stack(tmp_path / "s.tif", x, VOXEL)
    masks = [
        segment(source, weights=weights, voxel_size=VOXEL).mask
        for source in (x, torch.from_numpy(x), tmp_path / "s.tif", str(tmp_path / "s.tif"), Stack(x))
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks[1:])


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_results_are_written_in_the_geometry_of_the_stack(tmp_path: Path, weights: Path, suffix: str) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    size = (0.9, 0.4, 0.4)
    write_stack(tmp_path / f"s{suffix}", stack(), size)
    how = How(cube=(32, 64, 64))
    found = segment(
        tmp_path / f"s{suffix}", weights=weights, output=tmp_path / "o", probability=True, how=how
    )
    plain = segment(stack(), weights=weights, voxel_size=size, probability=True, how=how)
    assert {path.name for path in (tmp_path / "o").iterdir()} == {f"mask{suffix}", f"probability{suffix}"}
    for name, expected in (("mask", 255 * plain.mask.astype(np.uint8)), ("probability", plain.probability)):
        written = open_stack(tmp_path / "o" / f"{name}{suffix}")
        assert np.array_equal(written.array(), expected)
        assert written.voxel_size == pytest.approx(size)
    assert np.array_equal(found.mask.array(), 255 * plain.mask.astype(np.uint8))
    assert found.foreground == plain.foreground
    assert found.voxel_size == pytest.approx(size)


def test_a_run_that_was_killed_goes_on_with_the_same_result(tmp_path: Path, weights: Path) -> None:
    x, how = stack(), How(cube=(32, 64, 64), folder=tmp_path / "kept")
    plain = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=How(cube=(32, 64, 64)))
    assert plain.cubes["all"] >= 4

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(x, weights=weights, voxel_size=VOXEL, how=how, progress=kill)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2
    seen: list[tuple[int, int]] = []
    found = segment(
        x, weights=weights, voxel_size=VOXEL, probability=True, how=how, progress=lambda *n: seen.append(n)
    )
    assert found.cubes["resumed"] == 2
    assert seen == [(k, plain.cubes["all"]) for k in range(3, plain.cubes["all"] + 1)]
    assert np.array_equal(found.probability, plain.probability)
    assert not (tmp_path / "kept").exists()


def test_a_process_killed_as_hard_as_can_be_leaves_whole_cubes(tmp_path: Path, weights: Path) -> None:
    np.save(tmp_path / "s.npy", stack())
    code = (
        "import os, sys; from invlearn.neuro.segmentation import How, segment; "
        "segment(sys.argv[1], weights=sys.argv[2], how=How(cube=(32, 64, 64), folder=sys.argv[3]), "
        "progress=lambda done, total: done == 3 and os.kill(os.getpid(), 9))"
    )
    kept = tmp_path / "kept"
    call = [sys.executable, "-c", code, *map(str, (tmp_path / "s.npy", weights, kept))]
    assert subprocess.run(call, check=False).returncode == -9
    how = How(cube=(32, 64, 64), folder=kept)
    found = segment(tmp_path / "s.npy", weights=weights, probability=True, how=how)
    assert found.cubes["resumed"] == 3
    plain = segment(stack(), weights=weights, probability=True, how=How(cube=(32, 64, 64)))
    assert np.array_equal(found.probability, plain.probability)


@pytest.mark.parametrize("change", ["stack", "weights", "voxel_size", "precision"])
def test_cubes_of_another_run_are_computed_anew(tmp_path: Path, weights: Path, change: str) -> None:
    def call(changed: bool) -> dict[str, int]:
        options = {"weights": weights, "voxel_size": VOXEL}
        precision = "bfloat16" if changed and change == "precision" else "float32"
        if changed and change == "weights":
            options["weights"] = network_file(tmp_path, seed=1)
        if changed and change == "voxel_size":
            options["voxel_size"] = (0.5, 0.9, 0.5)
        how = How(cube=(32, 64, 64), folder=tmp_path / "kept", precision=precision)

        def kill(done: int, total: int) -> None:
            if done == 1 and not changed:
                raise KeyboardInterrupt

        return segment(
            stack(seed=int(changed and change == "stack")), how=how, progress=kill, **options
        ).cubes

    with pytest.raises(KeyboardInterrupt):
        call(False)
    assert call(True)["resumed"] == 0


def test_background_is_skipped_and_what_is_found_stays(weights: Path) -> None:
    x = np.random.default_rng(0).normal(20, 4, (32, 64, 200))
    x[10:14, 30:34, 10:40] += 80
    how = How(cube=(32, 64, 64))
    found = segment(x, weights=weights, voxel_size=VOXEL, how=how, probability=True)
    assert 0 < found.cubes["background"] < found.cubes["all"]
    assert not found.probability[:, :, -60:].any()
    assert found.probability[:, :, :30].any()


def test_long_voxels_are_looked_at_on_a_finer_grid(weights: Path) -> None:
    x = stack((12, 40, 40))
    found = segment(x, weights=weights, voxel_size=(5.0, 0.5, 0.5))
    assert found.mask.shape == x.shape
    assert found.plan.zoom.network_shape[0] == 23
    assert not np.array_equal(found.mask, segment(x, weights=weights, voxel_size=VOXEL).mask)


def test_each_setting_reaches_the_result(weights: Path) -> None:
    x = stack((20, 40, 150))
    base = How(cube=(32, 64, 64))
    p = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=base).probability
    for other in (
        How(cube=(32, 80, 80)),
        How(cube=(32, 64, 64), margin=0),
        How(cube=(32, 64, 64), taper=4),
        How(cube=(32, 64, 64), precision="bfloat16"),
    ):
        q = segment(x, weights=weights, voxel_size=VOXEL, probability=True, how=other).probability
        assert np.abs(p - q).max() > 1e-4
    with pytest.raises(RuntimeError):
        segment(x, weights=weights, voxel_size=VOXEL, how=How(device="nothing"))


def test_a_simulated_neuron_is_found_and_traced(tmp_path: Path) -> None:
    sample = simulate((32, 96, 96), seed=11, noise="low")
    write_stack(tmp_path / "s.tif", sample.stack, sample.voxel_size)
    found = segment(tmp_path / "s.tif", trace=True, output=tmp_path / "o")
    mask = found.mask.array() > 0
    assert 2 * (mask & sample.mask).sum() / (mask.sum() + sample.mask.sum()) > 0.5
    assert found.tree is not None
    assert (tmp_path / "o" / "neuron.swc").is_file()
    box = np.array(sample.stack.shape)[::-1] * sample.voxel_size[::-1]
    assert ((found.tree.xyz >= 0) & (found.tree.xyz <= box)).all()
    assert found.to_dict()["tree"]["nodes"] == len(found.tree.xyz)


def test_nothing_found_is_said_and_not_traced(tmp_path: Path, weights: Path) -> None:
    x = np.random.default_rng(0).normal(100, 5, (32, 32, 32))
    found = segment(x, weights=weights, voxel_size=VOXEL, trace=True, output=tmp_path / "o")
    assert found.tree is None
    assert found.foreground == 0
    assert "nothing to trace" in found.warnings[0]
    assert not (tmp_path / "o" / "neuron.swc").exists()


def test_an_unknown_voxel_size_is_said(weights: Path) -> None:
    found = segment(stack(), weights=weights)
    assert found.voxel_size == (1.0, 1.0, 1.0)
    assert "--voxel-size" in found.warnings[0]
    assert not segment(stack(), weights=weights, voxel_size=VOXEL).warnings


def rgb(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((4, 8, 8, 3), np.uint8), photometric="rgb")
    return path


def truncated(path: Path) -> Path:
    write_stack(path, stack(), VOXEL)
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def one_slice(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    return path


def series(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((3, 4, 8, 8), np.uint16), imagej=True, metadata={"axes": "TZYX"})
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [(rgb, "channel|colour"), (truncated, "truncated|damaged"), (one_slice, "slice"), (series, "time")],
)
def test_files_that_are_no_stack_are_refused_in_one_line(
    tmp_path: Path, weights: Path, make: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        segment(make(tmp_path / "bad.tif"), weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 16, 16), np.uint8), "0 everywhere"),
        (np.where(stack() > 15, 255, stack()).astype(np.uint8), "saturated"),
        (np.where(stack() > 100, np.nan, stack()), "NaN"),
    ],
)
def test_stacks_without_anything_to_see_are_refused(weights: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment(x, weights=weights, voxel_size=VOXEL)


def test_other_bad_input(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match="threshold"):
        segment(stack(), weights=weights, threshold=0.0)
    with pytest.raises(ValueError, match="positive"):
        segment(stack(), weights=weights, voxel_size=(0.0, 1.0, 1.0))
    with pytest.raises(FileNotFoundError):
        segment(tmp_path / "none.tif", weights=weights)
    with pytest.raises(ValueError, match="give its path"):
        segment(stack(), weights=weights, how=How(scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        segment(stack(), weights=weights, how=How(precision="float8"))


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, write = How(cube=(32, 64, 64), folder=tmp_path / "kept"), Pieces.write

    def full(self: Pieces, number: int, probability: np.ndarray | None) -> None:
        if number == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, number, probability)

    monkeypatch.setattr(pieces_module.Pieces, "write", full)
    with pytest.raises(OSError, match="disk is full; free some space and run the same command again"):
        segment(stack(), weights=weights, voxel_size=VOXEL, how=how)
    monkeypatch.undo()
    assert segment(stack(), weights=weights, voxel_size=VOXEL, how=how).cubes["resumed"] == 2


def test_channels_and_times_are_picked(tmp_path: Path, weights: Path) -> None:
    both = np.stack([stack(), stack(seed=5)], 1)
    tifffile.imwrite(tmp_path / "c.tif", both, imagej=True, metadata={"axes": "ZCYX"})
    found = segment(StackFile(tmp_path / "c.tif", channel=1), weights=weights, voxel_size=VOXEL)
    assert np.array_equal(found.mask, segment(stack(seed=5), weights=weights, voxel_size=VOXEL).mask)
    series = np.stack([stack(), stack(seed=5)])
    tifffile.imwrite(tmp_path / "t.tif", series, imagej=True, metadata={"axes": "TZYX"})
    found = segment(StackFile(tmp_path / "t.tif", time=0), weights=weights, voxel_size=VOXEL)
    assert np.array_equal(found.mask, segment(stack(), weights=weights, voxel_size=VOXEL).mask)


def test_a_plan_names_its_precision() -> None:
    plan = How().plan(Stack(stack(), VOXEL))
    assert isinstance(plan, Plan)
    assert plan.to_dict()["precision"] == "float32"
    assert plan.grid.shape == (20, 70, 90)
