"""`invlearn learnability`: can a reconstruction be learned from these measurements alone?"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from invlearn.cli.app import ANSWERED_NO
from invlearn.cli.options import FILE, Settings, Sizes, exactly_one, interrupts_held, new_command

OPERATORS = ("masks", "matrices", "kspace_masks")
KNOWLEDGE = ("dimension", "signals", "measurements")
GROUPS = ("shifts", "rotations90", "flips", "dihedral")
OUTPUTS = ("report.html", "report.json")


@dataclass(frozen=True)
class Question:
    """What one call of the command asks.

    Attributes
    ----------
    operators
        The option that names the operators, of `OPERATORS`, and its file.
    knowledge
        What is known of the signals, of `KNOWLEDGE`: their dimension, or a file.
    group
        Name of the group that the signal set is invariant under.
    shape
        Shape of one signal, where the file does not say it.
    noise
        Standard deviation of the noise, in the unit of the signals or measurements.
    """

    operators: tuple[str, Path]
    knowledge: tuple[str, Any]
    group: str | None = None
    shape: tuple[int, ...] | None = None
    noise: float | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Question:
        """Check that the options fit together.

        Raises
        ------
        click.UsageError
            Not exactly one source of operators and one of knowledge, or a noise that is not finite.
        """
        operators, knowledge = exactly_one(options, OPERATORS), exactly_one(options, KNOWLEDGE)
        noise = options["noise"]
        if noise is not None and not math.isfinite(noise):
            raise click.UsageError(
                f"--noise must be a finite number, got {noise}", click.get_current_context()
            )
        return cls(operators, knowledge, options["group"], options["shape"], noise)

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return [value for _, value in (self.operators, self.knowledge) if isinstance(value, Path)]

    def read(self) -> tuple[Any, dict[str, Any]]:
        """The operators as a family, and the arguments of `check` that say what is known."""
        import torch

        from invlearn import io
        from invlearn.identifiability import Measurements

        family = self._family()
        kind, value = self.knowledge
        if kind == "dimension":
            return family, {"dimension": value}
        if kind == "signals":
            return family, {"signals": torch.from_numpy(io.read_signals(value, family.domain.shape))}
        y, index = io.read_measurements(value, len(family))
        return family, {"signals": Measurements(torch.from_numpy(y), torch.from_numpy(index))}

    def _family(self) -> Any:
        import torch

        from invlearn import io
        from invlearn.physics import OperatorFamily

        kind, path = self.operators
        if kind == "matrices":
            return OperatorFamily.from_matrices(torch.from_numpy(io.read_matrices(path)), self.shape)
        names = ("masks", "mask") if kind == "masks" else ("kspace_masks", "masks", "mask")
        masks = torch.from_numpy(io.read_masks(path, self.shape, names))
        if kind == "masks":
            return OperatorFamily.from_masks(masks)
        return OperatorFamily.from_kspace_masks(masks)

    def answer(self, settings: Settings) -> Any:
        """The `Report` of the check."""
        from invlearn import io

        for path in self.files:
            io.inspect(path)  # a wrong file is found before torch is imported
        with interrupts_held():
            from invlearn.identifiability import check
            from invlearn.physics.groups import group_by_name

        device = settings.torch_device()
        family, known = self.read()
        if family.domain.ndim == 1 and self.operators[0] != "matrices" and self.shape is None:
            settings.note(
                f"read as {len(family)} masks of a signal with {family.domain.size} entries; "
                "for one mask of that shape add --shape"
            )
        group = None if self.group is None else group_by_name(self.group, family.domain.shape)
        operators = family[0] if len(family) == 1 else family
        return check(operators, group=group, noise=self.noise, seed=settings.seed, device=device, **known)


def print_report(report: Any, quiet: bool) -> None:
    """The answer for a person: verdict first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from invlearn.reports.learnability import HEADLINES, TONES, bound_rows, facts, number

    console = Console(highlight=False)
    color = {"good": "green", "bad": "red", "unsure": "yellow"}[TONES[report.verdict]]
    console.print(Text(HEADLINES[report.verdict], style=f"bold {color}"))
    console.print(Text(report.reason))
    if quiet:
        return
    console.print()
    for name, value in facts(report):
        console.print(Text(f"{name}: ", style="dim") + Text(value))
    console.print()
    rows = bound_rows(report)
    for kind in ("necessary", "sufficient"):
        table = Table(box=None, pad_edge=False, title=f"{kind} conditions", title_justify="left")
        for column in ("result", "id", "has", "needs", "condition"):
            table.add_column(column, justify="right" if column in ("has", "needs") else "left")
        for (name, condition, its_kind, required, actual, _, result), tone in rows:
            if its_kind == kind:
                style = {"good": "green", "bad": "red"}.get(tone, "")
                table.add_row(Text(result, style=style), *map(Text, (name, actual, required, condition)))
        console.print(table)
        console.print()
    if report.certificate is not None:
        console.print(Text(f"certificate ({report.certificate.model}): {report.certificate.scope}"))
    plan = report.plan
    if plan.minimal_m is not None:
        console.print(Text(f"general operators in this number would need m = {number(plan.minimal_m)}"))
    if plan.minimal_operators is not None:
        console.print(Text(f"general operators of this m: {number(plan.minimal_operators)} would do"))


def write_report(folder: Path, report: Any, run: Any) -> None:
    """`report.html` and `report.json` in `folder`."""
    from invlearn.io.runs import versions, write_json
    from invlearn.reports.learnability import sections
    from invlearn.reports.page import Page, write_page

    page = Page("Learnability", sections(report), command=run.command, versions=list(versions().items()))
    write_page(folder / "report.html", page)
    write_json(folder / "report.json", report.to_dict())


@new_command("learnability", short_help="Can a reconstruction be learned from these measurements alone?")
@click.option("--masks", type=FILE, help="Masks (G, *image) of 0 and 1: .npy, .npz, .mat.")
@click.option("--matrices", type=FILE, help="Matrices (G, m, n).")
@click.option("--kspace-masks", type=FILE, help="K-space masks (G, *kspace), zero frequency in the middle.")
@click.option("--dimension", type=click.IntRange(min=1), metavar="K", help="Dimension of the signals.")
@click.option("--signals", type=FILE, help="Example signals (N, *image).")
@click.option("--measurements", type=FILE, help=".npz with y (N, m) and operator_index (N,), from 0.")
@click.option("--group", type=click.Choice(GROUPS), help="Symmetry of the set of signals.")
@click.option("--shape", type=Sizes(), help="Shape of one signal, as in: --shape 64 64.")
@click.option("--noise", type=click.FloatRange(min=0), metavar="SD", help="Standard deviation of the noise.")
@click.option("--strict", is_flag=True, help="Exit with 3 unless certified or generic.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and nothing else.")
@click.option(
    "--report", "folder", type=FILE, metavar="DIR", help="Write report.html, report.json, run.json."
)
def command(settings: Settings, strict: bool, as_json: bool, folder: Path | None, **options: Any) -> int:
    """Say whether a reconstruction can be learned from measurements alone, and prove it.

    Operators come from exactly one of --masks, --matrices, --kspace-masks; what is known of the
    signals from exactly one of --dimension, --signals, --measurements. A 2-D array of masks is G
    masks of a 1-D signal; for one 2-D mask add --shape.

    \b
    invlearn learnability --masks masks.npy --dimension 12
    invlearn learnability --matrices A.npy --group shifts --shape 16 16 --dimension 5
    invlearn learnability --kspace-masks lines.npy --measurements scans.npz --report out
    """
    from invlearn.io.runs import output_folder

    question = Question.from_options(options)
    run = settings.new_run()
    with contextlib.ExitStack() as outputs:
        if folder is not None:
            place = output_folder(folder, run, overwrite=settings.overwrite, expected=OUTPUTS)
            work = outputs.enter_context(place)
        with settings.progress("checking learnability"), run.timed("check"):
            report = question.answer(settings)
        if folder is not None:
            for path in question.files:
                run.add_input(path)
            run.metrics["verdict"] = report.verdict
            with run.timed("report"):
                write_report(work, report, run)
    for warning in report.warnings:
        settings.note(f"warning: {warning}")
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        print_report(report, settings.quiet)
    return ANSWERED_NO if strict and report.verdict not in ("certified", "generic") else 0
