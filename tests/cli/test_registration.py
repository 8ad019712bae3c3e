"""`invlearn register` and `invlearn warp`: the fixed interface other people's scripts use."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import Result
from scipy import ndimage

from invlearn.io import Volume, read_volume, write_volume
from invlearn.io.itk import points_of, read_affine, read_field, write_field
from invlearn.registration import pair as pair_module

OUTPUTS = {
    "warped.nii.gz",
    "forward_field.nii.gz",
    "inverse_field.nii.gz",
    "affine.txt",
    "jacobian.nii.gz",
    "metrics.json",
    "report.html",
    "run.json",
}
KEYS = {
    "dice_before",
    "dice_after",
    "hd95_mm",
    "folding_percent",
    "sd_log_jacobian",
    "inverse_consistency_mm",
    "similarity",
    "seconds",
    "cpu_seconds",
}
SHAPE, MOVING_SHAPE = (26, 24, 20), (24, 28, 22)


def placed(angle: float, spacing: tuple[float, float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Oblique, with unequal spacings, the first axis mirrored, the middle at the origin."""
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing) @ np.diag([-1, 1, 1])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


FIXED = placed(0.25, (1.6, 1.8, 2.4), SHAPE)
MOVING = placed(-0.1, (2.0, 1.5, 2.1), MOVING_SHAPE)


def bent(points: np.ndarray) -> np.ndarray:
    """A smooth map of space (mm), (3, ...)."""
    x, y, z = points
    return points + np.stack([1.5 * np.sin(y / 8), 1.2 * np.cos(z / 9), np.sin(x / 10)])


def labels_at(points: np.ndarray) -> np.ndarray:
    """Three nested bodies, the last one off the middle."""
    x, y, z = points
    outer = (x / 17) ** 2 + (y / 15) ** 2 + (z / 18) ** 2 < 1
    inner = (x / 11) ** 2 + (y / 9) ** 2 + (z / 12) ** 2 < 1
    core = ((x - 4) / 4) ** 2 + ((y - 2) / 4) ** 2 + (z / 6) ** 2 < 1
    return (outer.astype(np.int16) + inner + core) * 300


def image_of(labels: np.ndarray) -> np.ndarray:
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=labels.shape), 1.5)
    return (ndimage.gaussian_filter(labels.astype(np.float32), 0.7) + 60 * texture).astype(np.float32)


def write(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    write_volume(path, Volume(data, affine))
    return path


@pytest.fixture(scope="module")
def folder(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes on different, oblique grids with labels, registered."""
    place = tmp_path_factory.mktemp("registration")
    fixed = labels_at(points_of(FIXED, SHAPE))
    moving = labels_at(bent(points_of(MOVING, MOVING_SHAPE)))
    write(place / "fixed.nii.gz", image_of(fixed), FIXED)
    write(place / "moving.nii.gz", image_of(moving), MOVING)
    write(place / "fixed_labels.nii.gz", fixed, FIXED)
    write(place / "moving_labels.nii.gz", moving, MOVING)
    result = run(*command(place), "-o", place / "out")
    assert result.exit_code == 0, result.output
    assert "Dice" in result.stderr
    return place


def command(place: Path) -> list[object]:
    labels = [
        "--fixed-labels",
        place / "fixed_labels.nii.gz",
        "--moving-labels",
        place / "moving_labels.nii.gz",
    ]
    return ["register", place / "fixed.nii.gz", place / "moving.nii.gz", "--similarity", "mse", *labels]


def test_the_files_and_numbers_are_what_the_contract_says(folder: Path) -> None:
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == OUTPUTS
    found = json.loads((out / "metrics.json").read_text())
    assert set(found) == KEYS
    for key in ("dice_before", "dice_after", "hd95_mm"):
        assert set(found[key]) == {"mean", "300", "600", "900"}
    assert found["dice_after"]["mean"] == pytest.approx(
        np.mean([found["dice_after"][k] for k in ("300", "600", "900")])
    )
    assert found["dice_after"]["mean"] > max(0.75, found["dice_before"]["mean"])
    assert found["folding_percent"] == 0
    assert found["inverse_consistency_mm"] < 0.1
    assert found["similarity"]["after"] > found["similarity"]["before"]
    assert found["cpu_seconds"] > 0
    record = json.loads((out / "run.json").read_text())
    assert set(record["outputs"]) == OUTPUTS
    assert len(record["inputs"]) == 4
    assert record["metrics"]["options"]["similarity"] == "mse"
    np.testing.assert_allclose(nibabel.load(out / "jacobian.nii.gz").affine, FIXED, atol=1e-5)


def test_the_page_shows_all_of_it_without_scripts(folder: Path) -> None:
    html = (folder / "out" / "report.html").read_text()
    for words in ("Checkerboard", "in turns", "Deformed grid", "|J|", "similarity (mse)", "HD95", "axial"):
        assert words in html
    assert "<script" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def resampled(moving: Path, grid: Path, field: Path) -> tuple[np.ndarray, np.ndarray]:
    """What SimpleITK makes of it, and where the moving volume reaches with a voxel to spare."""
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(field), sitk.sitkVectorFloat64))
    image, reference = sitk.ReadImage(str(moving), sitk.sitkFloat32), sitk.ReadImage(str(grid))
    # beyond the outermost centres ITK and we differ in how the border goes on
    core = sitk.Image(image.GetSize(), sitk.sitkFloat32)
    core.CopyInformation(image)
    core = sitk.Resample(core + 1, reference, transform, sitk.sitkLinear, 0.0)
    values = sitk.Resample(image, reference, transform, sitk.sitkLinear, 0.0)
    inside = ndimage.binary_erosion(sitk.GetArrayFromImage(core).T > 0.999, iterations=2)
    return sitk.GetArrayFromImage(values).T, inside


def test_simpleitk_makes_the_same_image_of_our_forward_field(folder: Path) -> None:
    out = folder / "out"
    theirs, inside = resampled(
        folder / "moving.nii.gz", folder / "fixed.nii.gz", out / "forward_field.nii.gz"
    )
    ours = read_volume(out / "warped.nii.gz")
    np.testing.assert_allclose(ours.affine, FIXED, atol=1e-5)
    assert inside.mean() > 0.3
    assert np.abs(ours.data - theirs)[inside].max() < 1e-3 * np.ptp(theirs)


def test_simpleitk_makes_the_same_image_of_our_inverse_field(run: Any, folder: Path, tmp_path: Path) -> None:
    out = folder / "out"
    fixed, moving = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    theirs, inside = resampled(fixed, moving, out / "inverse_field.nii.gz")
    assert run("warp", fixed, "--transform", out, "--inverse", "-o", tmp_path / "back.nii.gz").exit_code == 0
    ours = read_volume(tmp_path / "back.nii.gz")
    np.testing.assert_allclose(ours.affine, MOVING, atol=1e-5)
    assert ours.shape == MOVING_SHAPE
    assert inside.mean() > 0.3
    assert np.abs(ours.data - theirs)[inside].max() < 1e-3 * np.ptp(theirs)
    # and the fixed image, brought to the moving one, resembles it
    target = read_volume(moving).data
    assert np.corrcoef(ours.data[inside], target[inside])[0, 1] > 0.95


def test_the_affine_file_is_the_affine_part_of_the_field(folder: Path) -> None:
    matrix = read_affine(folder / "out" / "affine.txt")
    field, affine = read_field(folder / "out" / "forward_field.nii.gz")
    x = points_of(affine, field.shape[1:])
    linear = np.einsum("ij,jdhw->idhw", matrix[:3, :3], x) + matrix[:3, 3].reshape(3, 1, 1, 1)
    assert np.abs(x + field - linear).mean() < 2.5  # what is left is the deformation
    sitk.ReadTransform(str(folder / "out" / "affine.txt"))


def test_warp_repeats_what_register_wrote(run: Any, folder: Path, tmp_path: Path) -> None:
    out = folder / "out"
    result = run("warp", folder / "moving.nii.gz", "--transform", out, "-o", tmp_path / "again.nii.gz")
    assert result.exit_code == 0, result.output
    again, written = read_volume(tmp_path / "again.nii.gz"), read_volume(out / "warped.nii.gz")
    shape = " × ".join(map(str, written.shape))
    closing = f"invlearn: {tmp_path / 'again.nii.gz'}: an image of {shape} voxels"
    assert result.stderr.splitlines()[-1] == closing
    assert np.abs(again.data - written.data).max() < 1e-3 * np.ptp(written.data)
    assert str(out) in json.loads((tmp_path / "again.nii.gz.run.json").read_text())["inputs"]
    one_file = run(
        "warp",
        folder / "moving.nii.gz",
        "--transform",
        out / "forward_field.nii.gz",
        "-o",
        tmp_path / "b.nii",
    )
    assert one_file.exit_code == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii").data, again.data)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_labels_stay_labels_of_their_dtype(run: Any, folder: Path, tmp_path: Path, dtype: type) -> None:
    data = (read_volume(folder / "moving_labels.nii.gz").data // 300).astype(dtype)
    if np.dtype(dtype).itemsize == 4:
        data *= 16_777_217 // 3 * 3 + 1  # not a float32
    path = write(tmp_path / "labels.nii.gz", data, MOVING)
    assert (
        run("warp", path, "--transform", folder / "out", "--labels", "-o", tmp_path / "w.nii.gz").exit_code
        == 0
    )
    found = read_volume(tmp_path / "w.nii.gz").data
    assert found.dtype == dtype
    assert set(np.unique(found)) == set(np.unique(data))
    fixed = read_volume(folder / "fixed_labels.nii.gz").data > 0
    assert 2 * ((found > 0) & fixed).sum() / ((found > 0).sum() + fixed.sum()) > 0.9


def test_points_go_where_the_image_goes(run: Any, folder: Path, tmp_path: Path) -> None:
    """The centre of a blob in the moving image, carried along, is the blob's centre in the warped image."""
    there = np.array([3.0, -2.0, 4.0])
    blob = np.exp(-((points_of(MOVING, MOVING_SHAPE) - there.reshape(3, 1, 1, 1)) ** 2).sum(0) / 18)
    path = write(tmp_path / "blob.nii.gz", blob.astype(np.float32), MOVING)
    (tmp_path / "p.csv").write_text("name,x,y,z\nblob,3,-2,4\n")
    for source in (folder / "out", folder / "out" / "forward_field.nii.gz"):
        args = ("--transform", source, "--overwrite", "-o")
        assert run("warp", path, *args, tmp_path / "w.nii.gz").exit_code == 0
        result = run("warp", tmp_path / "p.csv", *args, tmp_path / "w.csv")
        assert result.exit_code == 0, result.output
        warped = read_volume(tmp_path / "w.nii.gz")
        centre = (points_of(FIXED, SHAPE) * warped.data).sum((1, 2, 3)) / warped.data.sum()
        header, row = (tmp_path / "w.csv").read_text().splitlines()
        assert header == "name,x,y,z"
        name, *at = row.split(",")
        assert name == "blob"
        moved = np.array(at, float)
        assert np.linalg.norm(moved - centre) < 0.5
        assert np.linalg.norm(moved - there) > 0.4  # there was something to do
        assert run("warp", tmp_path / "w.csv", *args, tmp_path / "back.csv", "--inverse").exit_code == 0
        back = np.array((tmp_path / "back.csv").read_text().splitlines()[1].split(",")[1:], float)
        assert np.linalg.norm(back - there) < 0.1


def test_points_agree_with_simpleitk(run: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n3,-2,4\n-5,6,-7\n")
    out = folder / "out"
    assert run("warp", tmp_path / "p.csv", "--transform", out, "-o", tmp_path / "w.csv").exit_code == 0
    ours = np.loadtxt(tmp_path / "w.csv", delimiter=",", skiprows=1)
    field = sitk.ReadImage(str(out / "inverse_field.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    flip = np.array([-1, -1, 1.0])  # RAS to LPS
    theirs = [
        flip * transform.TransformPoint((flip * p).tolist()) for p in np.array([[3.0, -2, 4], [-5, 6, -7]])
    ]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_options_change_the_result(run: Any, folder: Path, tmp_path: Path) -> None:
    plain = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    found: dict[str, Any] = {}
    cases = {
        "lncc": (),
        "none": ("--affine", "none"),
        "rigid": ("--affine", "rigid"),
        "mind": ("--similarity", "mind", "--affine", "none"),
        "wavelets": ("--parameterisation", "wavelets", "--affine", "none"),
        "stop": ("--iterations", "0"),
    }
    for name, options in cases.items():
        limit = () if "--iterations" in options else ("--iterations", "2")
        result = run("register", *plain, "-o", tmp_path / name, "--quiet", *options, *limit)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())
        assert found[name]["dice_before"] is found[name]["dice_after"] is found[name]["hd95_mm"] is None
    assert found["stop"]["sd_log_jacobian"] == 0
    assert found["mind"]["similarity"]["name"] == "mind"
    parameterisations = {
        name: json.loads((tmp_path / name / "run.json").read_text())["metrics"]["options"]["parameterisation"]
        for name in ("none", "wavelets")
    }
    assert parameterisations == {"none": "composed", "wavelets": "wavelets"}
    # from the same affine map to another field
    assert found["wavelets"]["similarity"]["before"] == found["none"]["similarity"]["before"]
    assert found["wavelets"]["similarity"]["after"] != found["none"]["similarity"]["after"]
    assert found["wavelets"]["folding_percent"] == 0
    matrices = {name: read_affine(tmp_path / name / "affine.txt") for name in cases}
    np.testing.assert_allclose(matrices["none"], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(matrices["rigid"][:3, :3]), 1, atol=1e-6)
    assert abs(np.linalg.det(matrices["lncc"][:3, :3]) - 1) > 1e-4


def test_the_same_files_give_the_same_result(run: Any, folder: Path, tmp_path: Path) -> None:
    assert run(*command(folder), "-o", tmp_path / "out").exit_code == 0
    again, first = (read_volume(x / "out" / "warped.nii.gz").data for x in (tmp_path, folder))
    np.testing.assert_array_equal(again, first)


def test_nothing_is_overwritten_unasked(refused: Any, folder: Path) -> None:
    before = (folder / "out" / "run.json").read_bytes()
    assert "--overwrite" in refused(*command(folder), "-o", folder / "out")
    assert (folder / "out" / "run.json").read_bytes() == before


# --- many pairs


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> Path:
    names = [os.path.relpath(folder / n, tmp_path) for n in ("fixed.nii.gz", "moving.nii.gz")]
    labels = [str(folder / n) for n in ("fixed_labels.nii.gz", "moving_labels.nii.gz")]
    lines = ["fixed,moving,fixed_labels,moving_labels,name", ",".join([*names, *labels, "there"])]
    lines.append(",".join([*names[::-1], "", "", "back"]))
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pairs_are_done_once(
    run: Any, refused: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("register", "--pairs", table, "-o", tmp_path / "study", "--iterations", 3)
    result = run(*args)
    assert result.exit_code == 0, result.output
    for name in ("there", "back"):
        assert {path.name for path in (tmp_path / "study" / name).iterdir()} == OUTPUTS
        assert any(line.startswith(f"invlearn: {name}: ") for line in result.stderr.splitlines())
    summary = json.loads((tmp_path / "study" / "metrics.json").read_text())
    assert set(summary["pairs"]) == {"there", "back"}
    assert summary["failed"] == {}
    assert set(summary["pairs"]["there"]) == KEYS

    marks = {n: (tmp_path / "study" / n / "run.json").stat().st_mtime_ns for n in ("there", "back")}
    (tmp_path / "study" / "back" / "run.json").unlink()
    for path in (tmp_path / "study" / "back").iterdir():
        path.unlink()
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("done before") == 1
    assert (tmp_path / "study" / "there" / "run.json").stat().st_mtime_ns == marks["there"]
    assert (tmp_path / "study" / "back" / "warped.nii.gz").exists()
    assert "other options" in refused(*args[:-1], 4)


def test_a_pair_that_fails_leaves_the_others(run: Any, table: Path, folder: Path, tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.nii.gz", np.ones(SHAPE, np.float32), FIXED)
    lines = table.read_text().splitlines()
    lines.insert(1, f"{flat},{folder / 'moving.nii.gz'},,,flat")
    table.write_text("\n".join(lines))
    result = run("register", "--pairs", table, "-o", tmp_path / "study", "--iterations", 1, "--quiet")
    assert result.exit_code == 1
    assert "flat: " in result.stderr
    assert "constant" in result.stderr
    assert not (tmp_path / "study" / "flat").exists()
    summary = json.loads((tmp_path / "study" / "metrics.json").read_text())
    assert set(summary["pairs"]) == {"there", "back"}
    assert set(summary["failed"]) == {"flat"}


def test_an_interrupted_study_goes_on(
    run: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("register", "--pairs", table, "-o", tmp_path / "study", "--iterations", 1)
    real, calls = pair_module.optimise, []

    def stopped(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(pair_module, "optimise", stopped)
    result = run(*args)
    assert result.exit_code == 130
    assert "goes on" in result.stderr
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"there"}
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header"),
        ("a,b\nc,d\n", "header"),
        ("fixed,moving\n", "header"),
        ("fixed,moving,nmae\nf,m,x\n", "header"),
        ("fixed,moving\nF\n", "line 2: 1 cells under 2"),
        ("fixed,moving\nF,missing.nii.gz\n", "missing.nii.gz does not exist"),
        ("fixed,moving\nF,\n", "empty"),
        ("fixed,moving\nF,M\nF,M\n", "several pairs called"),
        ("fixed,moving,name\nF,M,../x\n", "no name for a folder"),
        ("fixed,moving,name\nF,M,metrics.json\n", "no name for a folder"),
        ("fixed,moving,name\nF,M,a\x07b\n", "no name for a folder"),
        ("fixed;moving\nF;M\n", "header"),
        ("fixed,moving,fixed_labels,moving_labels\nF,M,F,\n", "labels are given for the fixed volume alone"),
    ],
)
def test_tables_that_are_refused(refused: Any, text: str, words: str, folder: Path, tmp_path: Path) -> None:
    names = {"F": str(folder / "fixed.nii.gz"), "M": str(folder / "moving.nii.gz")}
    lines = [",".join(names.get(c, c) for c in line.split(",")) for line in text.splitlines()]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    assert words in refused("register", "--pairs", tmp_path / "p.csv", "-o", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_folder_with_another_result_is_kept(refused: Any, folder: Path, table: Path) -> None:
    assert "another result" in refused("register", "--pairs", table, "-o", folder / "out")


# --- bad input


def bad(folder: Path, tmp_path: Path, kind: str) -> Path:
    data = read_volume(folder / "fixed.nii.gz").data.copy()
    affine, path = FIXED.copy(), tmp_path / "bad.nii.gz"
    if kind == "missing":
        return path
    if kind == "truncated":
        path.write_bytes((folder / "fixed.nii.gz").read_bytes()[:3000])
        return path
    if kind == "no image":
        path.write_bytes(gzip.compress(b"not an image" * 100))
        return path
    if kind == "2-D":
        data = data[:, :, 10]
    elif kind == "4-D":
        data = np.stack([data, data], -1)
    elif kind == "all NaN":
        data[:] = np.nan
    elif kind == "constant":
        data[:] = 7
    elif kind == "singular":
        affine[:, 1] = 2 * affine[:, 0]
    elif kind == "complex":
        data = data.astype(np.complex64)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize("side", ["fixed", "moving"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("truncated", "truncated or damaged"),
        ("no image", "no NIfTI file"),
        ("2-D", "2 dimensions"),
        ("4-D", "4 dimensions"),
        ("all NaN", "no finite voxel"),
        ("constant", "constant"),
        ("singular", "singular"),
        ("complex", "real numbers"),
    ],
)
def test_volumes_that_are_refused(
    refused: Any, side: str, kind: str, words: str, folder: Path, tmp_path: Path
) -> None:
    path = bad(folder, tmp_path, kind)
    pair = (path, folder / "moving.nii.gz") if side == "fixed" else (folder / "fixed.nii.gz", path)
    assert words in refused("register", *pair, "-o", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p != path] == []


def test_no_overlap_is_refused(refused: Any, folder: Path, tmp_path: Path) -> None:
    affine = FIXED.copy()
    affine[:3, 3] += 500
    path = write(tmp_path / "far.nii.gz", read_volume(folder / "fixed.nii.gz").data, affine)
    pair = (folder / "fixed.nii.gz", path)
    assert "do not overlap" in refused("register", *pair, "-o", tmp_path / "out", "--affine", "none")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fixed-labels", "fixed_labels.nii.gz"], "labels are given for the fixed volume alone"),
        (["--moving-labels", "moving_labels.nii.gz"], "labels are given for the moving volume alone"),
        (
            ["--fixed-labels", "moving_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz"],
            "different grids",
        ),
        (
            ["--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "fixed_labels.nii.gz"],
            "different grids",
        ),
        (["--fixed-labels", "fixed.nii.gz", "--moving-labels", "moving_labels.nii.gz"], "no whole numbers"),
        (["--fixed-labels", "no.nii.gz", "--moving-labels", "moving_labels.nii.gz"], "does not exist"),
        (["--weights", "no.safetensors"], "does not exist"),
        (["--weights", "fixed.nii.gz"], "safetensors"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_options_that_are_refused(
    refused: Any, options: list[str], words: str, folder: Path, tmp_path: Path
) -> None:
    given = [folder / o if o.endswith((".gz", ".safetensors")) else o for o in options]
    pair = (folder / "fixed.nii.gz", folder / "moving.nii.gz")
    assert words in refused("register", *pair, "-o", tmp_path / "out", *given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("a.nii.gz",),
        ("a.nii.gz", "b.nii.gz", "--pairs", "c.csv"),
        ("a", "b", "--affine", "wild"),
        ("a", "b", "--parameterisation", "spline"),
    ],
)
def test_usage(refused: Any, args: tuple[str, ...], tmp_path: Path) -> None:
    assert "see --help" in refused("register", *args, "-o", tmp_path / "out")


def test_weights_of_something_else_are_refused(refused: Any, folder: Path, tmp_path: Path) -> None:
    import torch

    from invlearn.training.weights import write_weights

    write_weights(tmp_path / "other.safetensors", {"w": torch.zeros(2)}, {"network": {"kind": "UNet"}})
    pair = (folder / "fixed.nii.gz", folder / "moving.nii.gz")
    words = refused("register", *pair, "-o", tmp_path / "out", "--weights", tmp_path / "other.safetensors")
    assert "UNet" in words
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def quick(run: Callable[..., Result]) -> Callable[..., tuple[Result, Path]]:
    """A registration of two steps, and where its results are."""

    def register(*args: object) -> tuple[Result, Path]:
        result = run("register", *args, "--iterations", 2)
        return result, Path(str(args[args.index("-o") + 1]))

    return register


def test_nan_and_huge_values_are_said_and_survived(quick: Any, folder: Path, tmp_path: Path) -> None:
    data = read_volume(folder / "fixed.nii.gz").data.copy()
    data[3, 4, 5], data[10, 10, 10], data[11, 11, 11] = np.nan, np.inf, 1e30
    path = write(tmp_path / "odd.nii.gz", data, FIXED)
    result, out = quick(path, folder / "moving.nii.gz", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "2 voxels are NaN or infinite" in result.stderr
    assert np.isfinite(read_volume(out / "warped.nii.gz").data).all()
    found = json.loads((out / "metrics.json").read_text())
    assert found["similarity"]["after"] > found["similarity"]["before"]
    assert "NaN" in json.loads((out / "run.json").read_text())["metrics"]["notes"][0]


def test_missing_and_disagreeing_forms_are_said(quick: Any, folder: Path, tmp_path: Path) -> None:
    data = read_volume(folder / "moving.nii.gz").data
    image = nibabel.Nifti1Image(data, MOVING)
    other = MOVING.copy()
    other[0, 3] += 5
    image.set_sform(MOVING, 1)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "two.nii.gz")
    result, out = quick(folder / "fixed.nii.gz", tmp_path / "two.nii.gz", "-o", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "the sform was used" in result.stderr
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "none.nii.gz")
    result, out = quick(folder / "fixed.nii.gz", tmp_path / "none.nii.gz", "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert "neither sform nor qform" in result.stderr
    assert "neither sform nor qform" in (out / "report.html").read_text()


def test_thin_volumes(quick: Any, run: Any, tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 6.0, 1.0])
    data = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 28, 3)), (2, 2, 0)).astype(
        np.float32
    )
    fixed = write(tmp_path / "a.nii.gz", data, affine)
    moving = write(tmp_path / "b.nii.gz", np.roll(data, 1, 0), affine)
    result, out = quick(fixed, moving, "-o", tmp_path / "out", "--affine", "none")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "metrics.json").read_text())["folding_percent"] == 0
    assert read_volume(out / "warped.nii.gz").shape == (30, 28, 3)
    back = run(
        "warp", fixed, "--transform", out / "forward_field.nii.gz", "--inverse", "-o", tmp_path / "i.nii"
    )
    assert back.exit_code == 0, back.output


def test_folders_that_cannot_be_written(
    refused: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refused(*command(folder), "-o", tmp_path / "file")
    assert "file" in refused("register", "--pairs", tmp_path / "file", "-o", tmp_path / "file")

    def denied(*args: Any, **options: Any) -> str:
        raise PermissionError(13, "Permission denied", str(options.get("dir")))

    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    words = refused(*command(folder), "-o", tmp_path / "out")
    assert "cannot be written" in words
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_an_interrupted_run_leaves_nothing(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pair_module, "optimise", stopped)
    result = run(*command(folder), "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def odd_inputs(folder: Path) -> None:
    """Volumes and fields that cannot be warped, or be a transform."""
    data, place = read_volume(folder / "moving.nii.gz").data, MOVING.copy()
    place[:3, 3] += 900
    write(folder / "far.nii.gz", data, place)
    nibabel.save(nibabel.Nifti1Image(data.astype(np.complex64), MOVING), folder / "complex.nii.gz")
    for source, name in (("moving.nii.gz", "cut"), ("out/forward_field.nii.gz", "cut_field")):
        (folder / f"{name}.nii.gz").write_bytes((folder / source).read_bytes()[:4000])
    field, affine = read_field(folder / "out" / "forward_field.nii.gz")
    field[1, 2, 3, 4] = np.nan
    write_field(folder / "nan_field.nii.gz", field, affine)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ("no.nii.gz", {}, "does not exist"),
        ("moving.nii.gz", {"--transform": "no"}, "does not exist"),
        ("moving.nii.gz", {"--transform": "."}, "holds no forward_field.nii.gz"),
        ("moving.nii.gz", {"--transform": "fixed.nii.gz"}, "displacement field"),
        ("moving.nii.gz", {"-o": "out.txt"}, "must end with .nii or .nii.gz"),
        ("moving.nii.gz", {"-o": "out.csv"}, "must end with .nii or .nii.gz"),
        ("moving.nii.gz", {"--labels": None}, "no whole numbers"),
        ("points.csv", {"-o": "out.nii.gz"}, "must end with .csv"),
        ("points.csv", {"-o": "out.csv", "--labels": None}, "--labels is for images"),
        ("header.csv", {"-o": "out.csv"}, "must name x,y,z"),
        ("word.csv", {"-o": "out.csv"}, "line 3"),
        ("nan.csv", {"-o": "out.csv"}, "NaN or infinite"),
        ("four.nii.gz", {}, "4 dimensions"),
        ("far.nii.gz", {}, "lies nowhere where"),
        ("complex.nii.gz", {}, "real numbers"),
        ("cut.nii.gz", {}, "truncated or damaged"),
        ("moving.nii.gz", {"--transform": "cut_field.nii.gz"}, "truncated or damaged"),
        ("moving.nii.gz", {"--transform": "nan_field.nii.gz"}, "NaN or infinite displacements"),
        ("moving.nii.gz", {"--transform": "out/affine.txt"}, "an affine alone"),
    ],
)
def test_warps_that_are_refused(
    refused: Any, given: str, options: dict[str, str | None], words: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "points.csv").write_text("x,y,z\n1,2,3\n")
    (folder / "header.csv").write_text("a,b,c\n1,2,3\n")
    (folder / "word.csv").write_text("x,y,z\n1,2,3\n1,2,three\n")
    (folder / "nan.csv").write_text("x,y,z\n1,2,nan\n")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), folder / "four.nii.gz")
    odd_inputs(folder)
    given_options: dict[str, str | None] = {"--transform": "out", "-o": "warped.nii.gz", **options}
    args: list[object] = []
    for name, value in given_options.items():
        args.append(name)
        if value is not None:
            args.append((tmp_path if name == "-o" else folder) / value)
    assert words in refused("warp", folder / given, *args)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_float32_are_kept_and_missing_ones_said(run: Any, folder: Path, tmp_path: Path) -> None:
    data = read_volume(folder / "moving.nii.gz").data.astype(np.float64) * 1e300
    huge = write(tmp_path / "huge.nii.gz", data, MOVING)
    result = run("warp", huge, "--transform", folder / "out", "-o", tmp_path / "w.nii.gz")
    assert result.exit_code == 0, result.output
    usual = read_volume(folder / "out" / "warped.nii.gz").data
    found = read_volume(tmp_path / "w.nii.gz").data / 1e300
    np.testing.assert_allclose(found, usual, atol=1e-3 * np.ptp(usual))
    data[:2] = np.nan
    holes = write(tmp_path / "holes.nii.gz", data, MOVING)
    result = run("warp", holes, "--transform", folder / "out", "-o", tmp_path / "h.nii.gz")
    assert result.exit_code == 0, result.output
    assert f"{2 * np.prod(MOVING_SHAPE[1:])} voxels are NaN" in result.stderr


def test_points_beyond_the_field_are_said(run: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n500,0,0\n0,0,0\n")
    result = run("warp", tmp_path / "p.csv", "--transform", folder / "out", "-o", tmp_path / "w.csv")
    assert result.exit_code == 0
    assert "1 of 2 points" in result.stderr
    assert result.stderr.splitlines()[-1] == f"invlearn: {tmp_path / 'w.csv'}: 2 points"
