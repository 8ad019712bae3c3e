"""The house from outside: short lists of arguments, a quick start, a package that is whole."""

from __future__ import annotations

import ast
import importlib.metadata
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import invlearn

ROOT = Path(invlearn.__file__).parent
MOST_ARGUMENTS = 9
EXCUSED = {"reconstruct_fingerprints"}  # all that a scan may lack, by name
HELP, IMPORT = 0.5, 0.3  # seconds of the processor
_NOT_SHIPPED = {"__pycache__"}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the library, with its file and line."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Their names, self left out."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def from_command_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click fills the arguments in."""
    return any("command" in ast.unparse(d) or "option" in ast.unparse(d) for d in function.decorator_list)


def compiled(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a kernel, which takes sizes and strides one by one."""
    return any(
        word in ast.unparse(d) for d in function.decorator_list for word in ("njit", "jit", "no_type_check")
    )


def test_no_function_has_ten_arguments() -> None:
    many = {
        where: len(names)
        for where, function in functions()
        if len(names := arguments(function)) > MOST_ARGUMENTS
        and function.name not in EXCUSED
        and not from_command_line(function)
        and not compiled(function)
    }
    assert not many


def cpu_seconds(code: str) -> float:
    """The best of three, the interpreter's own start taken off."""

    def once(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once(code) for _ in range(3)) - min(once("pass") for _ in range(3))


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import invlearn", IMPORT),
        (
            "from invlearn.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n"
            "    assert end.code == 0",
            HELP,
        ),
    ],
)
def test_it_starts_quickly(code: str, most: float) -> None:
    assert cpu_seconds(code) < most


def test_all_that_is_in_the_tree_is_declared_as_package_data() -> None:
    """By what `pyproject.toml` says: a new kind of file is shipped only when it is named there."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    for path in ROOT.rglob("*"):
        if path.is_file() and path.suffix != ".py" and not _NOT_SHIPPED & set(path.parts):
            assert any(path.match(pattern) for pattern in patterns), path


@pytest.mark.slow
def test_a_wheel_is_whole_and_works_by_itself(tmp_path: Path) -> None:
    """Built, unpacked where nothing else is, and run from there with its shipped weights."""
    pytest.importorskip("setuptools")
    if not (ROOT.parent / "pyproject.toml").exists():
        pytest.skip("no source tree")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "invlearn"):
        (source / name).symlink_to(ROOT.parent / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        "-q",
    ]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=300)
    if done.returncode and "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is not installed here")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        shipped = set(archive.namelist())
    here = {
        path.relative_to(ROOT.parent).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not _NOT_SHIPPED & set(path.parts)
    }
    assert here <= shipped
    code = (
        "import invlearn, pathlib, sys\n"
        "assert pathlib.Path(invlearn.__file__).is_relative_to(sys.argv[1]), invlearn.__file__\n"
        "from invlearn.training import read_weights\n"
        "found = sorted(pathlib.Path(invlearn.__file__).parent.rglob('*.safetensors'))\n"
        "assert found and all(read_weights(path)[1] for path in found)\n"
        "from invlearn.cli import main\n"
        "main(['--help'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path / "site")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "Usage: invlearn" in run.stdout
    assert importlib.metadata.version("invlearn") in wheel.name
