"""The house: packages import downwards only, and no file outgrows its reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import invlearn

ROOT = Path(invlearn.__file__).parent
FLOORS = (
    {"io", "reports", "training", "wavelets"},
    {"neuro", "physics", "registration"},
    {"identifiability"},
    {"learning"},
    {"unrolled"},
    {"cli"},
)
FLOOR = {package: number for number, packages in enumerate(FLOORS, start=1) for package in packages}
LONGEST = 600


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that the file imports anywhere, type hints left out."""
    hints = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in hints:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "invlearn":
            yield from (f"invlearn.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def packages(path: Path) -> Iterator[str]:
    """Sub-packages of invlearn that the file imports."""
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        parts = module.split(".")
        if parts[0] == "invlearn" and len(parts) > 1 and (ROOT / parts[1]).is_dir():
            yield parts[1]


def test_every_package_has_a_floor() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found <= set(FLOOR)
    assert found - {"cli"} == set(invlearn._SUBPACKAGES)


def test_imports_go_down_only() -> None:
    upwards = []
    for path in sorted(ROOT.glob("*/**/*.py")):
        home = path.relative_to(ROOT).parts[0]
        for package in set(packages(path)) - {home}:
            beside = FLOOR[package] == FLOOR[home] and FLOOR[home] == 1
            if FLOOR[package] >= FLOOR[home] and not beside:
                upwards.append(f"{path.relative_to(ROOT)} imports {package}")
    assert not upwards


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in ROOT.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert not long
