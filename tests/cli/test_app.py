"""The command as a whole: start-up cost, exit codes, one line for an error, never a traceback."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import invlearn
from invlearn.cli import app as app_module
from invlearn.cli import main

RUN = "from invlearn.cli import main; main()"


def invoke(*args: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-c", RUN, *args], capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom invlearn.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as exit:\n    assert exit.code == 0\n"
        "heavy = {'torch', 'jax', 'sigpy', 'matplotlib', 'scipy', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_help_lists_the_commands() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name in app_module.COMMANDS:
        assert name in text
    assert "Can a reconstruction be learned" in text
    assert "3 answered 'no'" in text.replace("\n ", "").replace("  ", " ")


@pytest.mark.parametrize("name", sorted(app_module.COMMANDS))
def test_every_command_has_the_common_options(name: str) -> None:
    command = importlib.import_module(app_module.COMMANDS[name]).command
    parts = [[part] for part in command.commands] if isinstance(command, click.Group) else [[]]
    for part in parts:
        result = CliRunner().invoke(main, [name, *part, "--help"])
        assert result.exit_code == 0
        for option in ("--seed", "--device", "--overwrite", "--quiet", "--help"):
            assert option in result.output


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"invlearn {invlearn.__version__}\n"
    assert result.exit_code == 0


def test_no_arguments_show_the_help() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


@pytest.mark.parametrize("args", [["nonsense"], ["learnability", "--nonsense"], ["--nonsense"]])
def test_wrong_usage_is_one_line_and_exit_2(args: list[str]) -> None:
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("invlearn")
    assert result.stderr.count("\n") == 1
    assert "nonsense" in result.stderr


class Probe:
    """A stand-in for a command's module that raises."""

    def __init__(self, error: BaseException) -> None:
        @click.command("probe")
        def command() -> None:
            raise error

        self.command = command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("the mask\nhas two lines"), 2, "invlearn: the mask has two lines\n"),
        (TypeError("float16"), 2, "invlearn: float16\n"),
        (FileNotFoundError("a.npy does not exist"), 2, "invlearn: a.npy does not exist\n"),
        (FileExistsError("a exists"), 2, "invlearn: a exists\n"),
        (PermissionError(13, "Permission denied", "/a"), 2, "invlearn: Permission denied: /a\n"),
        (OSError(28, "No space left on device", "/a"), 1, "invlearn: No space left on device: /a\n"),
        (RuntimeError("did not converge"), 1, "invlearn: did not converge\n"),
        (MemoryError("1 TB"), 1, "invlearn: out of memory (1 TB)\n"),
        (ZeroDivisionError(), 1, "invlearn: ZeroDivisionError\n"),
        (click.UsageError("wrong"), 2, "invlearn probe: wrong (see --help)\n"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str | None
) -> None:
    monkeypatch.delenv("INVLEARN_TRACEBACK", raising=False)
    monkeypatch.setitem(app_module.COMMANDS, "probe", "probe_module")
    monkeypatch.setitem(sys.modules, "probe_module", Probe(error))  # type: ignore[arg-type]
    result = CliRunner().invoke(main, ["probe"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if line is None:
        assert "interrupted, nothing was written" in result.stderr
    else:
        assert result.stderr == line


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVLEARN_TRACEBACK", "1")
    monkeypatch.setitem(app_module.COMMANDS, "probe", "probe_module")
    monkeypatch.setitem(sys.modules, "probe_module", Probe(ValueError("x")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x"):
        CliRunner().invoke(main, ["probe"], catch_exceptions=False)


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_told(
    monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    CliRunner().invoke(main, ["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = invoke("learnability", "--masks", str(tmp_path / "no.npy"), "--dimension", "3", "--quiet")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"invlearn: {tmp_path / 'no.npy'} does not exist\n"


def test_the_installed_command_runs() -> None:
    script = Path(sys.executable).with_name("invlearn")
    if not os.access(script, os.X_OK):
        pytest.skip("the package is not installed with its console script")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"invlearn {invlearn.__version__}\n"
