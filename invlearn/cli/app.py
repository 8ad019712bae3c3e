"""The `invlearn` command: sub-commands imported when they are run, errors as one line, exit codes."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from typing import Any

import click

import invlearn
from invlearn.cli.options import termination_interrupts

COMMANDS = {
    "learnability": "invlearn.cli.learnability",
    "mrf": "invlearn.cli.fingerprinting",
    "register": "invlearn.cli.registration",
    "warp": "invlearn.cli.warp",
    "registration": "invlearn.cli.registration_training",
    "segment": "invlearn.cli.segment",
    "trace": "invlearn.cli.trace",
    "neuron": "invlearn.cli.neurons",
    "tour": "invlearn.cli.tour",
}

FAILED, BAD_INPUT, ANSWERED_NO, INTERRUPTED = 1, 2, 3, 130

_BAD_INPUT = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and one line for an error."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return BAD_INPUT, f"{error.ctx.command_path}: {error.format_message()} (see --help)"
    if isinstance(error, click.ClickException):
        return BAD_INPUT, f"invlearn: {error.format_message()}"
    if isinstance(error, OSError) and error.filename is not None:
        what = f"{error.strerror}: {error.filename}"
    else:
        what = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        what = f"out of memory ({what})"
    return (BAD_INPUT if isinstance(error, _BAD_INPUT) else FAILED), f"invlearn: {what}"


class App(click.Group):
    """The top-level group. A sub-command's module is imported when it is needed.

    `INVLEARN_TRACEBACK=1` in the environment shows the traceback behind an error line.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        return None if module is None else importlib.import_module(module).command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        # The command line as typed, for run records.
        extra["obj"] = shlex.join(["invlearn", *args])
        return super().make_context(info_name, args, parent, **extra)

    def main(self, *args: Any, **extra: Any) -> Any:
        # Threads that spin while they wait slow each other down on a machine shared with others.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        extra["standalone_mode"] = False  # errors come here instead of being printed by click
        extra["prog_name"] = "invlearn"
        try:
            with termination_interrupts():
                code = super().main(*args, **extra)
        except (KeyboardInterrupt, click.Abort):
            click.echo("invlearn: interrupted, nothing was written", err=True)
            code = INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = BAD_INPUT
        except Exception as error:
            if os.environ.get("INVLEARN_TRACEBACK"):
                raise
            code, line = _explain(error)
            click.echo(" ".join(line.split()), err=True)
        sys.exit(code if isinstance(code, int) else 0)


main = App(
    "invlearn",
    help="Inverse problems and scientific imaging: from what can be learned to what was reconstructed.",
    epilog="Exit codes: 0 done, 1 failed or did not converge, 2 usage or bad input, "
    "3 answered 'no' under --strict, 130 interrupted.",
    no_args_is_help=True,
)
main = click.version_option(invlearn.__version__, message="%(prog)s %(version)s")(main)
