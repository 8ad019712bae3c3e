"""What all commands share: options, settings, variable-length values, exclusive choices."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

if TYPE_CHECKING:
    import torch

    from invlearn.io.runs import Run


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Interrupts wait for the end of the block: libraries in C++ abort when one comes during their import."""
    caught: list[int] = []
    with _handled(_INTERRUPTS, lambda number, frame: caught.append(number)):
        yield
    if caught:
        raise KeyboardInterrupt


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """The polite signal to end counts as Ctrl-C, so that nothing is left behind."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,), interrupt):
        yield


@contextlib.contextmanager
def _handled(signals: Sequence[int], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Signals go to a handler, where that can be: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


FILE = click.Path(path_type=Path)


@dataclass(frozen=True)
class Settings:
    """The common options of one call.

    Attributes
    ----------
    line
        The command line.
    seed
        Seed of all randomness.
    device
        Name of the torch device.
    overwrite
        Whether files that exist may be replaced.
    quiet
        Whether progress and notes are left out.
    """

    line: str
    seed: int
    device: str
    overwrite: bool
    quiet: bool

    def note(self, text: str) -> None:
        """One line to stderr."""
        if not self.quiet:
            click.echo(f"invlearn: {text}", err=True)

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Say on stderr what is being done: a spinner on a terminal, a line elsewhere."""
        if self.quiet:
            yield
            return
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            with console.status(text):
                yield
        else:
            click.echo(f"{text} ...", err=True)
            yield

    def new_run(self) -> Run:
        """An empty run record with this command line, seed and device."""
        from invlearn.io.runs import Run

        return Run(self.line, self.seed, self.device)

    def torch_device(self) -> torch.device:
        """The device, tried out.

        Raises
        ------
        ValueError
            It does not exist here.
        """
        import torch

        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device).item()  # the meta device holds no numbers
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"--device {self.device} cannot be used here: {reason}") from error
        return device


class Sizes(click.ParamType):
    """Positive whole numbers: `64 64`, `64x64` or `64,64`."""

    name = "n..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        words = re.split(r"[x,\s]+", str(value))
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            self.fail(f"{value!r} are not positive whole numbers, such as 64 64", param, ctx)
        return tuple(map(int, words))


class Command(click.Command):
    """A command whose `Sizes` options take as many numbers as follow them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        variadic = {
            flag
            for param in self.params
            if isinstance(param, click.Option) and isinstance(param.type, Sizes)
            for flag in param.opts
        }
        joined: list[str] = []
        rest = list(args)
        while rest:
            joined.append(rest.pop(0))
            if joined[-1] == "--":
                break
            if joined[-1] in variadic:
                sizes = list(itertools.takewhile(re.compile(r"\d[\dx,]*").fullmatch, rest))
                del rest[: len(sizes)]
                joined += [" ".join(sizes)] if sizes else []
        return super().parse_args(ctx, joined + rest)


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--seed"],
            type=click.IntRange(min=0, max=2**32 - 1),
            default=0,
            show_default=True,
            help="Seed of all randomness.",
        ),
        click.Option(
            ["--device"], default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1, mps."
        ),
        click.Option(["--overwrite"], is_flag=True, help="Replace output files that exist."),
        click.Option(["--quiet"], is_flag=True, help="No progress and no notes."),
    ]


def new_command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the common options; the function gets them as `Settings`, first."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(seed: int, device: str, overwrite: bool, quiet: bool, **options: Any) -> Any:
            line = click.get_current_context().obj
            return function(Settings(line, seed, device, overwrite, quiet), **options)

        made = click.command(name, cls=Command, **attributes)(run)
        made.params.extend(_common_options())
        return made

    return decorate


def exactly_one(options: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """The one option of `names` that was given, and its value.

    Raises
    ------
    click.UsageError
        None or several were given.
    """
    given = [name for name in names if options[name] is not None]
    if len(given) == 1:
        return given[0], options[given[0]]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    came = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
    raise click.UsageError(f"give exactly one of {', '.join(flags)}; got {came}")
