"""Common options and the two mechanisms click has not: variable-length values, exclusive choices."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click
import pytest
from click.testing import CliRunner

from invlearn.cli.options import FILE, Settings, Sizes, exactly_one, interrupts_held, new_command


@new_command("probe")
@click.option("--shape", type=Sizes())
@click.option("--flag", is_flag=True)
@click.option("--a", type=FILE)
@click.option("--b-c", type=int)
@click.argument("rest", nargs=-1)
def probe(settings: Settings, **options: object) -> None:
    """Print what came in."""
    click.echo(f"{options['shape']} {options['flag']} {options['rest']}")
    click.echo(f"{settings.seed} {settings.device} {settings.overwrite} {settings.quiet} {settings.line}")


@new_command("choice")
@click.option("--a", type=FILE)
@click.option("--b-c", type=int)
def choice(settings: Settings, **options: object) -> None:
    """Print which one was given."""
    click.echo(exactly_one(options, ("a", "b_c")))


def shape_line(*args: str) -> str:
    result = CliRunner().invoke(probe, list(args), obj="", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()[0]


@pytest.mark.parametrize(
    "args",
    [["--shape", "64", "32"], ["--shape", "64x32"], ["--shape", "64,32"], ["--shape", "64,", "32"],
     ["--shape=64x32"], ["--shape", "64 32"]],
)  # fmt: skip
def test_sizes_are_written_in_several_ways(args: list[str]) -> None:
    assert shape_line(*args) == "(64, 32) False ()"


def test_sizes_take_any_number_and_stop_at_what_is_no_number() -> None:
    assert shape_line("--shape", "7") == "(7,) False ()"
    assert shape_line("--shape", "4", "5", "6", "--flag") == "(4, 5, 6) True ()"
    assert shape_line("--shape", "4", "5", "file.npy") == "(4, 5) False ('file.npy',)"
    assert shape_line("--flag", "--", "--shape", "4") == "None True ('--shape', '4')"
    assert shape_line() == "None False ()"


@pytest.mark.parametrize(
    "args", [["--shape", "0", "4"], ["--shape", "a"], ["--shape", "4.5"], ["--shape", "-3"]]
)
def test_sizes_that_are_none(args: list[str]) -> None:
    result = CliRunner().invoke(probe, args, obj="")
    assert result.exit_code == 2
    assert "positive whole numbers, such as 64 64" in result.output


def test_common_options_come_as_settings() -> None:
    args = ["--seed", "7", "--device", "cuda:1", "--overwrite", "--quiet"]
    result = CliRunner().invoke(probe, args, obj="invlearn probe x")
    assert result.output.splitlines()[1] == "7 cuda:1 True True invlearn probe x"
    assert CliRunner().invoke(probe, [], obj="i").output.splitlines()[1] == "0 cpu False False i"
    for seed in ("-1", str(2**64)):
        assert CliRunner().invoke(probe, ["--seed", seed], obj="").exit_code == 2


@pytest.mark.parametrize(
    ("args", "text"),
    [([], "got none"), (["--a", "x", "--b-c", "3"], "got --a and --b-c")],
)
def test_none_or_several_of_a_choice(args: list[str], text: str) -> None:
    result = CliRunner().invoke(choice, args, obj="")
    assert result.exit_code == 2
    assert f"give exactly one of --a, --b-c; {text}" in result.output


def test_exactly_one() -> None:
    assert CliRunner().invoke(choice, ["--b-c", "3"], obj="").output == "('b_c', 3)\n"


def settings(**changes: object) -> Settings:
    fields = {"line": "invlearn x", "seed": 3, "device": "cpu", "overwrite": False, "quiet": False}
    return Settings(**(fields | changes))  # type: ignore[arg-type]


def test_notes_and_progress_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    settings().note("look")
    with settings().progress("working"):
        pass
    with settings(quiet=True).progress("silent"):
        settings(quiet=True).note("silent")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "invlearn: look\nworking ...\n"


def test_the_run_record_has_the_settings() -> None:
    record = settings().new_run().to_dict()
    assert (record["command"], record["seed"], record["device"]) == ("invlearn x", 3, "cpu")


def test_devices() -> None:
    assert settings().torch_device().type == "cpu"
    for name in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(ValueError, match=f"--device {name} cannot be used here"):
            settings(device=name).torch_device()


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C as a terminal has it: a background job is started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_waits_for_the_end_of_a_held_block() -> None:
    steps: list[str] = []

    def hold() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            steps.append("whole")

    with pytest.raises(KeyboardInterrupt):
        hold()
    assert steps == ["whole"]
    with interrupts_held():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_held_block_in_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: interrupts_held().__enter__()).result() is None
