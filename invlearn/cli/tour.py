"""`invlearn tour`: every job on built-in samples, one HTML report."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from invlearn.cli.options import FILE, Settings, new_command

# Each module has ``exhibits(folder, settings, run)``: an iterator over the sections of the report,
# which may leave its inputs and results in the folder.
JOBS = (
    "invlearn.cli.tour_learnability",
    "invlearn.cli.tour_fingerprinting",
    "invlearn.cli.tour_registration",
    "invlearn.cli.tour_change",
    "invlearn.cli.tour_neurons",
)


@new_command("tour", short_help="Every job on built-in samples, one HTML report.")
@click.option("-o", "--output", type=FILE, default="tour", show_default=True, help="Folder to write.")
def command(settings: Settings, output: Path) -> None:
    """Show what invlearn does, on samples that come with its dependencies.

    Writes report.html, run.json and the inputs, so that every command in the report can be run
    again from inside the folder.
    """
    from invlearn.io.runs import output_folder, versions
    from invlearn.reports.page import Page, Section, write_page

    run = settings.new_run()
    with output_folder(output, run, overwrite=settings.overwrite, expected=("report.html", "inputs")) as work:
        sections: list[Section] = []
        for job in JOBS:
            sections.extend(importlib.import_module(job).exhibits(work, settings, run))
        page = Page(
            "A tour of invlearn",
            sections,
            lead="Questions of an imaging scientist, answered on real photographs and an average brain. "
            "Every command below runs again from inside the folder of this page.",
            command=run.command,
            versions=list(versions().items()),
        )
        write_page(work / "report.html", page)
    settings.note(f"open {output / 'report.html'}")
