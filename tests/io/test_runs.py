"""Outputs appear whole or not at all, and every run leaves a record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import invlearn
from invlearn.io.runs import Run, hash_path, output_file, output_folder


def new_run(command: str = "invlearn test") -> Run:
    return Run(command, seed=3, device="cpu")


def write_half(path: Path, error: type[BaseException]) -> None:
    """A job that fails in the middle of its output."""
    path.write_text("new")
    raise error


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_record_says_what_was_done(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(b"abc")
    run = new_run("invlearn learnability --masks in.txt")
    run.add_input(source)
    with run.timed("step"):
        pass
    with run.timed("step"):
        pass
    run.metrics["verdict"] = "certified"
    with output_folder(tmp_path / "out", run) as work:
        (work / "report.html").write_text("x")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"] == "invlearn learnability --masks in.txt"
    assert record["seed"] == 3
    assert record["device"] == "cpu"
    assert record["versions"]["invlearn"] == invlearn.__version__
    assert {"python", "torch", "numpy", "platform"} <= set(record["versions"])
    assert record["inputs"] == {str(source): {"sha256": hashlib.sha256(b"abc").hexdigest()}}
    assert record["outputs"] == ["report.html", "run.json"]
    assert record["timings"]["step"] >= 0
    assert record["seconds"] >= record["timings"]["step"]
    assert record["metrics"] == {"verdict": "certified"}


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "x").write_text("1")
    first = hash_path(tmp_path / "a")
    assert first == hash_path(tmp_path / "a")
    (tmp_path / "a" / "sub" / "x").rename(tmp_path / "a" / "sub" / "y")
    assert hash_path(tmp_path / "a") != first
    with pytest.raises(FileNotFoundError, match="does not exist"):
        hash_path(tmp_path / "b")


def test_parents_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b" / "out", new_run()) as work:
        (work / "sub").mkdir()
        (work / "sub" / "x").write_text("1")
    assert listing(tmp_path) == {"a", "a/b", "a/b/out", "a/b/out/run.json", "a/b/out/sub", "a/b/out/sub/x"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), output_folder(tmp_path / "a" / "out", new_run()) as work:
        write_half(work / "half.txt", error)
    with pytest.raises(error), output_file(tmp_path / "o.tif", new_run()) as path:
        write_half(path, error)
    assert listing(tmp_path) == set()


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out", new_run()) as work:
        (work / "x").write_text("old")
    before = (tmp_path / "out" / "run.json").read_text()
    with pytest.raises(RuntimeError), output_folder(tmp_path / "out", new_run(), overwrite=True) as work:
        write_half(work / "x", RuntimeError)
    assert (tmp_path / "out" / "x").read_text() == "old"
    assert (tmp_path / "out" / "run.json").read_text() == before


def test_existing_output_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    with (
        pytest.raises(FileExistsError, match=r"report\.html exists already; give --overwrite"),
        output_folder(tmp_path / "out", new_run(), expected=["report.html"]),
    ):
        pytest.fail("the work was begun")
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(NotADirectoryError, match=r"file/out cannot be written: .*; choose another place"),
        output_folder(tmp_path / "file" / "out", new_run()),
    ):
        pytest.fail("the work was begun")

    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system", "/a/.temporary")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with (
        pytest.raises(ValueError, match="out cannot be written: Read-only file system in"),
        output_folder(tmp_path / "out", new_run()),
    ):
        pytest.fail("the work was begun")


def test_an_unforeseen_clash_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(FileExistsError), output_folder(tmp_path / "out", new_run()) as work:
        (work / "x").write_text("new")
    assert listing(tmp_path / "out") == {"x"}
    assert (tmp_path / "out" / "x").read_text() == "mine"


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with output_folder(tmp_path, new_run()) as work:
        (work / "x").write_text("1")
    assert listing(tmp_path) == {"notes.txt", "x", "run.json"}


def test_overwriting_replaces_and_removes_what_the_earlier_run_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out, new_run()) as work:
        (work / "x").write_text("old")
        (work / "stale.swc").write_text("old")
        (work / "store").mkdir()
        (work / "store" / "chunk").write_text("old")
    (out / "notes.txt").write_text("mine")
    with output_folder(out, new_run(), overwrite=True) as work:
        (work / "x").write_text("new")
        (work / "store").mkdir()
        (work / "store" / "other").write_text("new")
    assert listing(tmp_path) == {"out"} | {
        f"out/{name}" for name in ("x", "run.json", "notes.txt", "store", "store/other")
    }
    assert (out / "x").read_text() == "new"


def test_a_forged_record_cannot_remove_files_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("mine")
    (out / "run.json").write_text(json.dumps({"outputs": ["../precious", "..", 3]}))
    with output_folder(out, new_run(), overwrite=True) as work:
        (work / "x").write_text("1")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"), output_folder(tmp_path / "out", new_run()):
        pass


def test_a_single_file_gets_its_record_beside_it(tmp_path: Path) -> None:
    with output_file(tmp_path / "sub" / "o.tif", new_run()) as path:
        assert path.suffix == ".tif"
        path.write_text("1")
    assert listing(tmp_path) == {"sub", "sub/o.tif", "sub/o.tif.run.json"}
    assert json.loads((tmp_path / "sub" / "o.tif.run.json").read_text())["outputs"] == ["o.tif"]
    with pytest.raises(FileExistsError), output_file(tmp_path / "sub" / "o.tif", new_run()):
        pass
    with output_file(tmp_path / "sub" / "o.tif", new_run(), overwrite=True) as path:
        path.write_text("2")
    assert (tmp_path / "sub" / "o.tif").read_text() == "2"
