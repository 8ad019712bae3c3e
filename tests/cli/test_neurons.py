"""`invlearn neuron simulate` and `evaluate`: files, numbers, and what is refused in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invlearn.io.stacks import open_stack, write_stack
from invlearn.io.swc import Tree, read_swc, write_swc
from invlearn.neuro import compare, simulate

SMALL = ["--shape", "16", "40", "48"]


def tree_of(*points: tuple[float, float, float], unit: str = "um") -> Tree:
    n = len(points)
    return Tree(np.array(points, float), np.ones(n), np.arange(-1, n - 1), np.zeros(n, int), unit)


def saved(path: Path, tree: Tree) -> Path:
    write_swc(path, tree)
    return path


BENT = tree_of((0, 0, 0), (12, 3, 2), (20, 30, 6), (44, 33, 9))


@pytest.fixture(scope="module")
def sample(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neurons") / "one"
    result = run("neuron", "simulate", "-o", folder, *SMALL, "--noise", "low", "--seed", 5)
    assert result.exit_code == 0, result.output
    assert "16 x 40 x 48 voxels" in result.stderr
    return folder


def test_a_sample_is_what_the_function_makes(sample: Path) -> None:
    assert {p.name for p in sample.iterdir()} == {
        "stack.tif",
        "mask.tif",
        "neuron.swc",
        "pairs.csv",
        "run.json",
    }
    expected = simulate((16, 40, 48), seed=5, noise="low")
    stack = open_stack(sample / "stack.tif")
    np.testing.assert_array_equal(stack.array(), expected.stack)
    assert stack.voxel_size == pytest.approx(expected.voxel_size, rel=1e-5)
    np.testing.assert_array_equal(open_stack(sample / "mask.tif").array() > 0, expected.mask)
    tree = read_swc(sample / "neuron.swc", strict=True)
    assert tree.unit == "um"
    assert compare(tree, expected.tree).distance.esa < 1e-3
    record = json.loads((sample / "run.json").read_text())
    assert record["seed"] == 5
    assert record["metrics"]["samples"][0]["noise"] == 0.15


def test_several_samples_are_numbered_and_listed(run: Any, tmp_path: Path) -> None:
    result = run("neuron", "simulate", "-o", tmp_path / "many", *SMALL, "--count", 3, "--seed", 4, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    with (tmp_path / "many" / "pairs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["stack"] for row in rows] == [f"00{k}_stack.tif" for k in range(3)]
    for k, row in enumerate(rows):
        for name in row.values():
            assert (tmp_path / "many" / name).is_file()
        expected = simulate((16, 40, 48), seed=4 + k)
        np.testing.assert_array_equal(open_stack(tmp_path / "many" / row["stack"]).array(), expected.stack)


def test_a_tracing_is_rendered(run: Any, tmp_path: Path) -> None:
    swc = saved(tmp_path / "cell.swc", BENT)
    out = tmp_path / "cell"
    result = run("neuron", "simulate", "-o", out, *SMALL, "--tree", swc, "--voxel-size", 1, 1.5, 1.5)
    assert result.exit_code == 0, result.output
    assert open_stack(out / "stack.tif").voxel_size == pytest.approx((1, 1.5, 1.5))
    assert read_swc(out / "neuron.swc").length == pytest.approx(BENT.length, rel=1e-4)
    assert str(swc) in json.loads((out / "run.json").read_text())["inputs"]


def test_nothing_is_overwritten(run: Any, refused: Any, sample: Path) -> None:
    assert "exist already; give --overwrite" in refused("neuron", "simulate", "-o", sample, *SMALL)
    again = run("neuron", "simulate", "-o", sample, *SMALL, "--noise", "low", "--seed", 5, "--overwrite")
    assert again.exit_code == 0


def test_evaluate_prints_the_contract(run: Any, sample: Path, tmp_path: Path) -> None:
    moved = read_swc(sample / "neuron.swc")
    moved = Tree(moved.xyz + 0.1, moved.radius, moved.parent, moved.kind, "um")
    result = run(
        "neuron", "evaluate", saved(tmp_path / "a.swc", moved), "--truth", sample / "neuron.swc", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"esa", "dsa", "pds", "precision", "recall", "f1", "length_ratio", "unit"} <= set(found)
    assert found["unit"] == "um"
    assert 0 < found["esa"] < 0.18
    assert (found["f1"], found["pds"]) == (1, 0)
    words = run("neuron", "evaluate", sample, "--truth", sample / "neuron.swc")
    assert words.exit_code == 0
    for line in ("esa", "precision", "length ratio", "branch points", "found within 2 µm"):
        assert line in words.stdout


def test_evaluate_in_voxels(run: Any, refused: Any, tmp_path: Path) -> None:
    um = saved(tmp_path / "um.swc", BENT)
    voxel = saved(tmp_path / "voxel.swc", tree_of(*(BENT.xyz / (0.5, 0.5, 2)), unit="voxel"))
    assert "give the voxel size" in refused("neuron", "evaluate", um, "--truth", voxel)
    result = run("neuron", "evaluate", um, "--truth", voxel, "--voxel-size", 2, 0.5, 0.5, "--json")
    found = json.loads(result.stdout)
    assert found["unit"] == "voxel"
    assert found["esa"] < 1e-3
    no_unit = saved(tmp_path / "no.swc", tree_of(*(BENT.xyz / (0.5, 0.5, 2)), unit="unknown"))
    result = run(
        "neuron",
        "evaluate",
        um,
        "--truth",
        no_unit,
        "--voxel-size",
        2,
        0.5,
        0.5,
        "--truth-unit",
        "voxel",
        "--json",
    )
    assert json.loads(result.stdout)["esa"] < 1e-3
    assert "names no unit" not in result.stderr
    assert "names no unit" in run("neuron", "evaluate", um, "--truth", no_unit).stderr
    nm = saved(tmp_path / "nm.swc", tree_of(*(BENT.xyz * 1000), unit="unknown"))
    result = run("neuron", "evaluate", nm, "--unit", "nm", "--truth", um, "--json")
    assert json.loads(result.stdout)["esa"] < 1e-3


def test_tolerance_and_threshold_count(run: Any, tmp_path: Path) -> None:
    one = saved(tmp_path / "a.swc", tree_of((0, 0, 0), (50, 0, 0)))
    two = saved(tmp_path / "b.swc", tree_of((0, 3, 0), (50, 3, 0)))

    def value(key: str, *options: object) -> float:
        return json.loads(run("neuron", "evaluate", one, "--truth", two, "--json", *options).stdout)[key]

    assert (value("f1"), value("f1", "--tolerance", 4)) == (0, 1)
    assert (value("pds"), value("pds", "--threshold", 4)) == (1, 0)


def test_a_flip_is_noticed_and_mended(run: Any, tmp_path: Path) -> None:
    truth = saved(tmp_path / "truth.swc", BENT)
    flipped = saved(tmp_path / "flipped.swc", BENT.flipped_y(99.0))
    result = run("neuron", "evaluate", flipped, "--truth", truth)
    assert "--flip-y 100" in result.stderr
    mended = run("neuron", "evaluate", flipped, "--truth", truth, "--flip-y", 100, "--json")
    assert json.loads(mended.stdout)["esa"] < 1e-3
    assert mended.stderr == ""


def test_masks_are_compared(run: Any, tmp_path: Path) -> None:
    one = np.zeros((8, 9, 10), bool)
    one[3, 2:7, 4] = True
    two = np.roll(one, 1, axis=1)
    for name, mask in (("a.tif", one), ("b.zarr", two)):
        write_stack(tmp_path / name, mask, (1, 1, 1))
    result = run(
        "neuron", "evaluate", tmp_path / "a.tif", "--truth", tmp_path / "b.zarr", "--json", "--tolerance", 0
    )
    found = json.loads(result.stdout)
    assert found["f1"] == pytest.approx(0.8)
    assert found["iou"] == pytest.approx(4 / 6)
    assert (
        "found within 2 voxels"
        in run("neuron", "evaluate", tmp_path / "a.tif", "--truth", tmp_path / "b.zarr").stdout
    )


def test_what_is_wrong_is_said_in_one_line(refused: Any, sample: Path, tmp_path: Path) -> None:
    swc = sample / "neuron.swc"
    assert "does not exist" in refused("neuron", "evaluate", tmp_path / "no.swc", "--truth", swc)
    assert "does not exist" in refused("neuron", "evaluate", swc, "--truth", tmp_path / "no.swc")
    assert "two tracings (.swc) or two masks" in refused(
        "neuron", "evaluate", swc, "--truth", sample / "mask.tif"
    )
    cycle = tmp_path / "cycle.swc"
    cycle.write_text("1 0 0 0 0 1 2\n2 0 1 0 0 1 1\n")
    assert "its own ancestor" in refused("neuron", "evaluate", cycle, "--truth", swc)
    single = saved(tmp_path / "single.swc", tree_of((1, 1, 1)))
    assert "without an edge" in refused("neuron", "evaluate", single, "--truth", swc)
    out = tmp_path / "out"
    assert "three positive numbers" in refused(
        "neuron", "simulate", "-o", out, *SMALL, "--voxel-size", 0, 1, 1
    )
    assert "a number from 0 to 1" in refused("neuron", "simulate", "-o", out, *SMALL, "--noise", "loud")
    assert "three positive whole" in refused("neuron", "simulate", "-o", out, "--shape", 16, 40)
    assert "does not exist" in refused("neuron", "simulate", "-o", out, *SMALL, "--tree", tmp_path / "no.swc")
    assert not out.exists()
