"""The public names: listed in one place, docs/reference, and each with a docstring.

Public is what the `__all__` of a sub-package names, and what a module that docs/reference lists defines
without an underscore.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import invlearn

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = [f"invlearn.{name}" for name in invlearn._SUBPACKAGES]


def listed() -> dict[str, set[str]]:
    """Modules in the reference, each with the names that its entry leaves out."""
    found: dict[str, set[str]] = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for block in re.findall(r"```\{eval-rst\}\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            module = re.search(r"automodule:: (\S+)", block)
            left_out = re.search(r":exclude-members: (.*)", block)
            assert module is not None, page
            assert module[1] not in found, f"{module[1]} is listed twice"
            found[module[1]] = set(left_out[1].replace(" ", "").split(",")) if left_out else set()
    return found


LISTED = listed()


def names(module: ModuleType) -> list[str]:
    """Public names of a module: its `__all__`, else what it defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("__")]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def public() -> dict[str, Any]:
    """Every public object by its full name."""
    found = {}
    for path in sorted({*PACKAGES, *LISTED}):
        module = importlib.import_module(path)
        found |= {f"{path}.{name}": getattr(module, name) for name in names(module)}
    return found


PUBLIC = public()


def documented() -> Iterator[Any]:
    for path, left_out in LISTED.items():
        module = importlib.import_module(path)
        yield from (getattr(module, name) for name in names(module) if name not in left_out)


def test_every_sub_package_is_in_the_reference() -> None:
    assert set(PACKAGES) <= set(LISTED)
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    for page in REFERENCE.glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index


def test_every_public_name_is_in_the_reference() -> None:
    there = {id(value) for value in documented()}
    modules = {value.__name__ for value in PUBLIC.values() if inspect.ismodule(value)}
    assert modules <= set(LISTED)
    missing = [
        name for name, value in PUBLIC.items() if not inspect.ismodule(value) and id(value) not in there
    ]
    assert not missing


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties that a class defines itself and shows."""
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, value


def inherits_words(kind: type, name: str) -> bool:
    """Whether a class above says what the method does."""
    return any(getattr(getattr(base, name, None), "__doc__", None) for base in kind.__mro__[1:])


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for path, value in PUBLIC.items():
        if inspect.isclass(value):
            own = value.__dict__.get("__doc__") or ""
            if not own.strip() or own.startswith(f"{value.__name__}("):  # what dataclasses put there
                silent.append(path)
            silent += [
                f"{path}.{name}"
                for name, member in members(value)
                if not (member.__doc__ or "").strip() and not inherits_words(value, name)
            ]
        elif inspect.isfunction(value) and not (value.__doc__ or "").strip():
            silent.append(path)
    assert not silent


def test_described_arguments_are_all_there() -> None:
    """A docstring with a list of parameters names each of them."""
    missing = [
        f"{path}({name})"
        for path, value in PUBLIC.items()
        if inspect.isfunction(value) and "\n    Parameters\n" in (value.__doc__ or "")
        for name in inspect.signature(value).parameters
        if not re.search(rf"\b{name}\b", value.__doc__ or "")
    ]
    assert not missing


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_guides_use_public_names_alone(page: Path) -> None:
    there = {id(value) for value in documented()}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("invlearn"):
                home = importlib.import_module(str(node.module))
                for alias in node.names:
                    full, value = f"{node.module}.{alias.name}", getattr(home, alias.name)
                    assert full in LISTED or id(value) in there, f"{full} is not in docs/reference"
