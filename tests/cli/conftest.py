"""What several jobs' tests of the command line share."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from invlearn.cli import main


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Callable[..., Result]:
    """The command in this process; the words of the module's `COMMAND`, if it has any, come first."""
    first = getattr(request.module, "COMMAND", ())
    return lambda *words: CliRunner().invoke(main, [*first, *map(str, words)])


@pytest.fixture(scope="module")
def refused(run: Callable[..., Result]) -> Callable[..., str]:
    """What the command says when it refuses: one line, exit code 2, no traceback, nothing on stdout."""

    def line(*words: object) -> str:
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if not line.endswith("...")]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("invlearn")
        return lines[0]

    return line


@pytest.fixture(params=[True, False])
def nilearn_installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With nilearn, and as if it were not installed."""
    if request.param:
        pytest.importorskip("nilearn")
        return True
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("nilearn"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    return False
