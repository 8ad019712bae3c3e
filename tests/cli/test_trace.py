"""`invlearn trace`: good input, options that count, bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from invlearn.io.stacks import write_stack
from invlearn.io.swc import Tree, read_swc
from invlearn.neuro import swc_to_mask, trace

COMMAND = ("trace",)
VOXEL = (1.0, 0.5, 0.5)
SHAPE = (20, 60, 100)


@pytest.fixture
def mask() -> np.ndarray:
    """A ball with three branches, one of them broken, and a fourth piece far away."""
    ball = Tree(np.array([[25.0, 15, 10]]), np.array([5.0]), np.array([-1]), np.array([1]))
    ends = [
        [(25, 15, 10), (46, 15, 10)],
        [(25, 15, 10), (4, 5, 8)],
        [(25, 15, 10), (8, 26, 12)],
        [(40, 26, 4), (46, 26, 4)],
    ]
    found = swc_to_mask(ball, SHAPE, VOXEL)
    for end in ends:
        branch = Tree(np.array(end, float), np.full(2, 1.0), np.array([-1, 0]), np.array([3, 3]))
        found |= swc_to_mask(branch, SHAPE, VOXEL)
    found[:, :, 74:76] = False
    return found


@pytest.fixture
def path(tmp_path: Path, mask: np.ndarray) -> Path:
    write_stack(tmp_path / "mask.tif", mask, VOXEL)
    return tmp_path / "mask.tif"


def test_a_mask_becomes_a_tree_in_micrometres(run: Any, path: Path, mask: np.ndarray) -> None:
    out = path.with_name("neuron.swc")
    result = run(path, "-o", out)
    assert result.exit_code == 0, result.output
    assert "branch points" in result.stderr
    tree = read_swc(out, strict=True)
    assert tree.unit == "um"
    expected = trace(mask, VOXEL)
    np.testing.assert_allclose(tree.xyz, expected.xyz, atol=1e-4)
    np.testing.assert_array_equal(tree.parent, expected.parent)
    record = json.loads(path.with_name("neuron.swc.run.json").read_text())
    assert record["metrics"]["trees"] == 1
    assert record["metrics"]["voxel_size_um"] == list(VOXEL)
    assert str(path) in record["inputs"]
    assert run(path, "-o", out).exit_code == 2
    assert run(path, "-o", out, "--overwrite").exit_code == 0


def test_every_option_counts(run: Any, path: Path) -> None:
    def nodes(*options: object) -> Tree:
        out = path.with_name("other.swc")
        result = run(path, "-o", out, "--overwrite", *options)
        assert result.exit_code == 0, result.output
        return read_swc(out)

    plain = nodes()
    assert (plain.kind == 1).sum() == 1
    assert not (nodes("--no-soma").kind == 1).any()
    root = nodes("--soma", 10, 30, 88)
    np.testing.assert_allclose(root.xyz[root.roots[0]], (44, 15, 10), atol=1)
    assert len(nodes("--bridge", 0, "--smallest", 1).roots) == 3
    assert len(nodes("--smallest", 1).roots) == 2
    assert len(nodes("--spur", 30).ends) < len(plain.ends)
    np.testing.assert_allclose(nodes("--voxel-size", 2, 1, 1).xyz.max(), 2 * plain.xyz.max(), rtol=0.05)


def test_one_of_several_channels_and_times_is_picked(
    run: Any, refused: Any, tmp_path: Path, mask: np.ndarray
) -> None:
    several = np.zeros((2, SHAPE[0], 3, *SHAPE[1:]), np.uint8)
    several[1, :, 2] = mask
    metadata = {"axes": "TZCYX", "spacing": VOXEL[0], "unit": "um"}
    tifffile.imwrite(
        tmp_path / "m.tif", several, imagej=True, resolution=(1 / VOXEL[2], 1 / VOXEL[1]), metadata=metadata
    )
    out = ("-o", tmp_path / "a.swc")
    assert "--time" in refused(tmp_path / "m.tif", *out, "--channel", 2)
    assert "--channel" in refused(tmp_path / "m.tif", *out, "--time", 1)
    assert "no foreground" in refused(tmp_path / "m.tif", *out, "--time", 0, "--channel", 2)
    assert run(tmp_path / "m.tif", *out, "--time", 1, "--channel", 2).exit_code == 0
    np.testing.assert_allclose(read_swc(tmp_path / "a.swc").xyz, trace(mask, VOXEL).xyz, atol=1e-4)


def test_probabilities_have_a_threshold(run: Any, tmp_path: Path, mask: np.ndarray) -> None:
    np.save(tmp_path / "p.npy", 0.4 * mask.astype(np.float32))
    out = tmp_path / "out.swc"
    result = run(tmp_path / "p.npy", "-o", out)
    assert result.exit_code == 2
    assert "0.5" in result.stderr
    result = run(tmp_path / "p.npy", "-o", out, "--threshold", 0.3)
    assert result.exit_code == 0, result.output
    assert "1 µm is assumed" in result.stderr


def test_bad_input_is_one_line(run: Any, tmp_path: Path, path: Path) -> None:
    empty = tmp_path / "empty.tif"
    write_stack(empty, np.zeros(SHAPE, bool), VOXEL)
    raw = tmp_path / "raw.npy"
    np.save(raw, np.random.default_rng(0).random(SHAPE) * 100)
    out = tmp_path / "out.swc"
    cases = [
        ((empty, "-o", out), "no foreground"),
        ((raw, "-o", out), "segment a raw stack first"),
        ((tmp_path / "none.tif", "-o", out), "none.tif"),
        ((path, "-o", tmp_path / "out.txt"), "must end with .swc"),
        ((path, "-o", out, "--voxel-size", 0, 1, 1), "voxel size"),
        ((path, "-o", out, "--soma", 1, 2, 500), "inside the volume"),
        ((path, "-o", out, "--soma", 1, 2, 5, "--no-soma"), "not both"),
        ((path, "-o", out, "--bridge", -1), "bridge"),
    ]
    for arguments, words in cases:
        result = run(*arguments, "--quiet")
        assert result.exit_code == 2, arguments
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not out.exists()
