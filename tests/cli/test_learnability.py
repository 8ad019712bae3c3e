"""`invlearn learnability` from files to verdict: the fixed interface other people's scripts use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from invlearn.cli.learnability import GROUPS, print_report
from invlearn.identifiability import check
from invlearn.physics import OperatorFamily
from invlearn.physics.groups import group_by_name

COMMAND = ("learnability",)
RNG = np.random.default_rng(0)
N, K = 30, 3


@pytest.fixture(scope="module")
def answer(run: Any) -> Any:
    """What --json prints."""

    def read(*args: object) -> dict[str, Any]:
        result = run(*args, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return read


def save(folder: Path, name: str, array: object) -> Path:
    np.save(folder / name, array)
    return folder / name


@pytest.fixture
def gaussian(tmp_path: Path) -> Path:
    """Five operators of 12 rows on R^30: enough for k = 3."""
    return save(tmp_path, "A.npy", RNG.standard_normal((5, 12, N)))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Twenty masks of 60 % on 6 by 6 images."""
    return save(tmp_path, "masks.npy", np.random.default_rng(1).random((20, 6, 6)) < 0.6)


@pytest.fixture
def one_mask(tmp_path: Path) -> Path:
    return save(tmp_path, "one.npy", np.arange(36).reshape(1, 6, 6) % 2 == 0)


# --- answers -------------------------------------------------------------------------------------


def test_the_json_is_exactly_the_report(answer: Any, gaussian: Path) -> None:
    family = OperatorFamily.from_matrices(np.load(gaussian))
    expected = check(family, dimension=K, seed=5).to_dict()
    assert answer("--matrices", gaussian, "--dimension", K, "--seed", 5) == json.loads(json.dumps(expected))


def test_the_json_has_the_fixed_keys(answer: Any, gaussian: Path) -> None:
    report = answer("--matrices", gaussian, "--dimension", K)
    assert set(report) >= {
        "verdict", "n", "m", "operators", "group", "dimension", "bounds", "certificate", "plan", "warnings",
    }  # fmt: skip
    assert (report["n"], report["m"], report["operators"]) == (N, [12] * 5, 5)
    assert report["group"] is None
    assert report["dimension"] == K
    for bound in report["bounds"]:
        assert set(bound) >= {
            "id", "kind", "statement", "required", "actual", "margin", "holds", "applies", "source",
        }  # fmt: skip
        assert bound["kind"] in ("necessary", "sufficient")
    assert set(report["certificate"]) >= {
        "model", "scope", "nullity", "expected_nullity", "gap", "tolerance", "method",
    }  # fmt: skip
    assert set(report["plan"]) >= {"minimal_m", "minimal_operators"}


def test_json_leaves_nothing_else_on_stdout(run: Any, one_mask: Path) -> None:
    result = run("--masks", one_mask, "--dimension", 2, "--json")
    json.loads(result.stdout)
    assert "checking learnability" in result.stderr
    assert "warning:" in result.stderr
    assert run("--masks", one_mask, "--dimension", 2, "--json", "--quiet").stderr == ""


def test_verdicts_from_each_kind_of_operator(
    answer: Any, tmp_path: Path, gaussian: Path, masks: Path, one_mask: Path
) -> None:
    assert answer("--matrices", gaussian, "--dimension", K)["verdict"] == "certified"
    assert answer("--masks", masks, "--dimension", 2)["verdict"] == "certified"
    assert answer("--masks", one_mask, "--dimension", 2)["verdict"] == "impossible"
    lines = np.zeros((1, 8, 8), bool)
    lines[0, ::2] = True
    report = answer("--kspace-masks", save(tmp_path, "k.npy", lines), "--dimension", 2)
    assert report["verdict"] == "impossible"
    assert (report["n"], report["m"]) == (64, [32])  # complex numbers


def test_a_group_changes_the_answer(answer: Any, one_mask: Path) -> None:
    assert answer("--masks", one_mask, "--dimension", 2)["verdict"] == "impossible"
    moved = answer("--masks", one_mask, "--dimension", 2, "--group", "shifts")
    assert moved["verdict"] != "impossible"
    assert moved["group"] == "shifts"


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_on_the_command_line_exists(name: str) -> None:
    assert group_by_name(name, (4, 4)).name == name


def test_groups_act_on_the_shape_given(answer: Any, run: Any, tmp_path: Path) -> None:
    blur = np.zeros((36, 36))
    for i in range(36):
        blur[i, i] = blur[i, (i // 6) * 6 + (i + 1) % 6] = 0.5
    path = save(tmp_path, "A.npy", blur)
    report = answer("--matrices", path, "--shape", 6, 6, "--group", "shifts", "--dimension", 2)
    assert report["verdict"] == "impossible"
    assert report["shape"] == [6, 6]
    square = run("--matrices", path, "--shape", 4, 9, "--group", "rotations90", "--dimension", 2)
    assert square.exit_code == 2
    assert "equal" in square.stderr


def test_one_bare_mask_with_its_shape(answer: Any, run: Any, tmp_path: Path) -> None:
    mask = np.arange(36).reshape(6, 6) % 2 == 0
    path = save(tmp_path, "m.npy", mask)
    assert answer("--masks", path, "--shape", 6, 6, "--dimension", 2)["shape"] == [6, 6]
    assert "read as" not in run("--masks", path, "--shape", 6, 6, "--dimension", 2).stderr
    as_rows = run("--masks", path, "--dimension", 2, "--json")
    assert (json.loads(as_rows.stdout)["operators"], json.loads(as_rows.stdout)["shape"]) == (6, [6])
    assert "read as 6 masks of a signal with 6 entries" in as_rows.stderr


def test_npz_and_mat_give_the_same_answer(answer: Any, tmp_path: Path, masks: Path) -> None:
    array = np.load(masks)
    np.savez(tmp_path / "m.npz", masks=array, other=np.eye(2))
    scipy.io.savemat(tmp_path / "m.mat", {"masks": array.astype(float)})
    expected = answer("--masks", masks, "--dimension", 2)
    assert answer("--masks", tmp_path / "m.npz", "--dimension", 2) == expected
    assert answer("--masks", tmp_path / "m.mat", "--dimension", 2) == expected


# --- knowledge from data -------------------------------------------------------------------------


def subspace_signals(count: int, n: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.standard_normal((count, k)) @ rng.standard_normal((k, n))


def test_the_dimension_comes_from_signals(answer: Any, tmp_path: Path, masks: Path) -> None:
    signals = save(tmp_path, "x.npy", subspace_signals(400, 36, 2).reshape(-1, 6, 6))
    report = answer("--masks", masks, "--signals", signals)
    assert report["dimension"] == 2
    assert report["verdict"] == "certified"
    flat = save(tmp_path, "flat.npy", np.load(signals).reshape(-1, 36))
    assert answer("--masks", masks, "--signals", flat) == report


@pytest.mark.parametrize("layout", ["zero-filled", "image", "kept"])
def test_the_dimension_comes_from_measurements_alone(answer: Any, tmp_path: Path, layout: str) -> None:
    rng = np.random.default_rng(2)
    count = 600
    masks = rng.random((6, 36)).argsort(1) < 27
    path = save(tmp_path, "m.npy", masks.reshape(6, 6, 6))
    x, index = subspace_signals(count, 36, 2), rng.integers(0, 6, count)
    y = x * masks[index]
    if layout == "image":
        y = y.reshape(-1, 6, 6)
    elif layout == "kept":
        y = x[masks[index]].reshape(count, 27)
    np.savez(tmp_path / "y.npz", y=y, operator_index=index)
    report = answer("--masks", path, "--measurements", tmp_path / "y.npz")
    assert report["dimension"] == 2
    assert report["verdict"] == "certified"


def test_complex_measurements_of_kspace(answer: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((4, 8, 8)) < 0.8
    basis = rng.standard_normal((2, 8, 8)) + 1j * rng.standard_normal((2, 8, 8))
    x = np.tensordot(rng.standard_normal((500, 2)) + 1j * rng.standard_normal((500, 2)), basis, 1)
    index = rng.integers(0, 4, 500)
    family = OperatorFamily.from_kspace_masks(masks)
    y = family(torch.from_numpy(x), torch.from_numpy(index)).numpy()
    np.savez(tmp_path / "y.npz", y=y.reshape(500, -1), operator_index=index)
    report = answer("--kspace-masks", save(tmp_path, "k.npy", masks), "--measurements", tmp_path / "y.npz")
    assert report["dimension"] == 2


def test_noise_is_passed_on(answer: Any, tmp_path: Path, masks: Path) -> None:
    rng = np.random.default_rng(5)
    x = subspace_signals(400, 36, 2) + 0.3 * rng.standard_normal((400, 36))
    path = save(tmp_path, "x.npy", x)
    known = answer("--masks", masks, "--signals", path, "--noise", 0.3)
    assert known["dimension"] < answer("--masks", masks, "--signals", path)["dimension"]


# --- exit codes and words ------------------------------------------------------------------------


def test_strict_exits_3_unless_it_is_a_yes(run: Any, gaussian: Path, one_mask: Path) -> None:
    assert run("--masks", one_mask, "--dimension", 2).exit_code == 0
    assert run("--masks", one_mask, "--dimension", 2, "--strict").exit_code == 3
    assert run("--matrices", gaussian, "--dimension", K, "--strict").exit_code == 0
    silent = run("--masks", one_mask, "--dimension", 2, "--strict", "--json", "--quiet")
    assert silent.exit_code == 3
    assert json.loads(silent.stdout)["verdict"] == "impossible"


def test_k_at_least_m_is_a_verdict_and_k_above_n_bad_input(answer: Any, run: Any, gaussian: Path) -> None:
    assert answer("--matrices", gaussian, "--dimension", 12)["verdict"] == "impossible"
    above = run("--matrices", gaussian, "--dimension", N + 1)
    assert above.exit_code == 2
    assert above.stdout == ""
    assert f"{N}" in above.stderr


def test_people_read_the_verdict_first(run: Any, one_mask: Path) -> None:
    result = run("--masks", one_mask, "--dimension", 2)
    assert result.stdout.startswith("Impossible:")
    assert "6 × 6 = 36 numbers" in result.stdout
    assert "N1" in result.stdout
    quiet = run("--masks", one_mask, "--dimension", 2, "--quiet")
    assert result.stdout.startswith(quiet.stdout)
    assert "N1" not in quiet.stdout
    assert quiet.stderr == ""


def test_a_certificate_is_named_with_its_scope(gaussian: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(OperatorFamily.from_matrices(np.load(gaussian)), dimension=K)
    print_report(report, quiet=False)
    text = " ".join(capsys.readouterr().out.split())
    assert report.certificate is not None
    assert report.certificate.scope in text
    assert f"m = {report.plan.minimal_m}" in text


# --- reports -------------------------------------------------------------------------------------


def test_report_writes_page_answer_and_record(run: Any, tmp_path: Path, masks: Path) -> None:
    out = tmp_path / "out"
    args = ["--masks", masks, "--dimension", 2, "--report", out, "--seed", 4]
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json", "run.json"}
    assert json.loads((out / "report.json").read_text()) == json.loads(result.stdout)
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == f"invlearn learnability {' '.join(map(str, args))} --json"
    assert record["seed"] == 4
    assert list(record["inputs"]) == [str(masks)]
    assert record["metrics"]["verdict"] == "certified"
    assert set(record["timings"]) == {"check", "report"}
    html = (out / "report.html").read_text()
    assert "Certified:" in html
    assert "data:image/svg+xml" in html  # the spectrum
    assert "data:image/png" in html  # the coverage
    assert record["command"] in html


def test_an_impossible_report_shows_what_is_invisible(run: Any, tmp_path: Path, one_mask: Path) -> None:
    run("--masks", one_mask, "--dimension", 2, "--report", tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "What stays invisible" in html
    assert "18 of 36 are seen by none" in html


def test_nothing_is_overwritten_without_being_told(
    run: Any, tmp_path: Path, masks: Path, one_mask: Path
) -> None:
    out = tmp_path / "out"
    run("--masks", masks, "--dimension", 2, "--report", out)
    before = (out / "report.json").read_text()
    again = run("--masks", one_mask, "--dimension", 2, "--report", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert again.stderr.count("\n") == 1
    assert (out / "report.json").read_text() == before
    assert run("--masks", one_mask, "--dimension", 2, "--report", out, "--overwrite").exit_code == 0
    assert json.loads((out / "report.json").read_text())["verdict"] == "impossible"


def test_a_report_beside_the_input(run: Any, tmp_path: Path, one_mask: Path) -> None:
    assert run("--masks", one_mask, "--dimension", 2, "--report", tmp_path).exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"one.npy", "report.html", "report.json", "run.json"}


def test_bad_input_leaves_no_folder(run: Any, tmp_path: Path, masks: Path) -> None:
    assert run("--masks", masks, "--dimension", 99, "--report", tmp_path / "a" / "out").exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"masks.npy"}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_exits_130_and_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path, "A.npy", RNG.standard_normal((20, 300, 1000)))
    command = ["learnability", "--matrices", "A.npy", "--dimension", "40", "--report", "out"]
    # The signal is sent once the check has begun, which the progress line says.
    process = subprocess.Popen(
        [sys.executable, "-c", "from invlearn.cli import main; main()", *command],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # a background job is deaf to it, and so are those that it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("checking learnability")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"A.npy"}


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "exactly one of --masks, --matrices, --kspace-masks; got none"),
        (["--masks", "m.npy"], "exactly one of --dimension, --signals, --measurements; got none"),
        (["--masks", "m.npy", "--matrices", "A.npy", "--dimension", "2"], "got --masks and --matrices"),
        (["--masks", "m.npy", "--dimension", "2", "--signals", "x.npy"], "got --dimension and --signals"),
        (["--masks", "m.npy", "--dimension", "0"], "0 is not in the range"),
        (["--masks", "m.npy", "--dimension", "two"], "not a valid integer"),
        (["--masks", "m.npy", "--dimension", "2", "--group", "turns"], "shifts"),
        (["--masks", "m.npy", "--dimension", "2", "--noise", "-1"], "not in the range"),
        (["--masks", "m.npy", "--dimension", "2", "--noise", "nan"], "finite"),
        (["--masks", "m.npy", "--dimension", "2", "--shape", "0"], "positive whole numbers"),
        (["--masks", "m.npy", "--dimension", "2", "--device", "abacus"], "--device abacus cannot be used"),
        (["--masks", "m.npy", "--dimension", "2", "stray"], "stray"),
    ],
)
def test_wrong_options(run: Any, tmp_path: Path, args: Sequence[str], text: str) -> None:
    save(tmp_path, "m.npy", np.ones((2, 4, 4)))
    result = run(*[tmp_path / a if a.endswith(".npy") else a for a in args], "--quiet")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def _write_bad(folder: Path) -> dict[str, list[object]]:
    """Files that cannot be used, and the options that name them."""
    good = save(folder, "good.npy", np.ones((2, 4, 4), bool))
    nan = np.ones((2, 3, 6))
    nan[1, 2, 5] = np.nan
    (folder / "empty.npy").touch()
    (folder / "cut.npy").write_bytes(good.read_bytes()[:-8])
    (folder / "huge.npy").write_bytes(b"")
    with (folder / "huge.npy").open("wb") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": (1, 10**9, 4096)}
        np.lib.format.write_array_header_1_0(stream, header)
    np.savez(folder / "keys.npz", foo=np.eye(2), bar=np.eye(2))
    np.savez(folder / "no_index.npz", y=np.ones((4, 16)))
    np.savez(folder / "wide.npz", y=np.ones((60, 99)), operator_index=np.arange(60) % 2)
    np.savez(folder / "outside.npz", y=np.ones((4, 16)), operator_index=[0, 1, 2, 0])
    zeros = np.ones((2, 4, 4))
    zeros[1] = 0
    eye = np.stack([np.eye(4), np.zeros((4, 4))])
    return {
        "does not exist": ["--masks", folder / "none.npy", "--dimension", 2],
        "is empty (0 bytes)": ["--masks", folder / "empty.npy", "--dimension", 2],
        "truncated": ["--masks", folder / "cut.npy", "--dimension", 2],
        "32.8 TB of memory": ["--matrices", folder / "huge.npy", "--dimension", 2],
        "found the keys foo, bar, expected masks": ["--masks", folder / "keys.npz", "--dimension", 2],
        "operator_index missing": ["--masks", good, "--measurements", folder / "no_index.npz"],
        "99": ["--masks", good, "--measurements", folder / "wide.npz"],
        "runs from 0 to 2": ["--masks", good, "--measurements", folder / "outside.npz"],
        "NaN or infinite value": ["--matrices", save(folder, "nan.npy", nan), "--dimension", 2],
        "at index (1, 2, 5)": ["--matrices", folder / "nan.npy", "--dimension", 2],
        "float16": ["--matrices", save(folder, "h.npy", np.ones((2, 3, 6), "f2")), "--dimension", 2],
        "found 2.0 at index (0, 0, 0)": ["--masks", save(folder, "two.npy", 2 * zeros), "--dimension", 2],
        "zero": ["--masks", save(folder, "zero.npy", zeros), "--dimension", 2],
        "operator 1": ["--matrices", save(folder, "zeros.npy", eye), "--dimension", 2],
        "by --shape": ["--masks", good, "--shape", 5, 5, "--dimension", 2],
        "does not hold": ["--matrices", folder / "zeros.npy", "--shape", 3, 3, "--dimension", 2],
        "act on signals of shape (4, 4)": [
            "--masks",
            good,
            "--signals",
            save(folder, "odd.npy", np.ones((5, 3))),
        ],
        "no .mat file": ["--masks", _text(folder / "text.mat"), "--dimension", 2],
        "not .csv": ["--masks", _text(folder / "text.csv"), "--dimension", 2],
    }


def _text(path: Path) -> Path:
    path.write_text("1,2,3\n" * 50)
    return path


def test_bad_files_are_one_line_and_exit_2(run: Any, tmp_path: Path) -> None:
    for text, args in _write_bad(tmp_path).items():
        result = run(*args, "--quiet")
        assert result.exit_code == 2, (text, result.output)
        assert result.stdout == "", text
        assert text in result.stderr, (text, result.stderr)
        assert result.stderr.startswith("invlearn"), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr


def test_half_a_warning_is_no_answer(run: Any, one_mask: Path) -> None:
    """Warnings of the check reach stderr in full, and the JSON too."""
    result = run("--masks", one_mask, "--dimension", 2, "--json")
    for warning in json.loads(result.stdout)["warnings"]:
        assert f"invlearn: warning: {warning}" in result.stderr
