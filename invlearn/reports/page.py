"""The self-contained HTML page: sections of blocks, no scripts, nothing fetched from elsewhere."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from invlearn.reports.figures import Scale

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|ms|mm|µm|dB|voxels?)(?!\w))")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Items:
    """A list; `tone` is `"plain"` or `"warning"`."""

    kind: ClassVar[str] = "items"
    items: Sequence[str]
    tone: str = "plain"


@dataclass(frozen=True)
class Code:
    """A command or snippet that can be copied."""

    kind: ClassVar[str] = "code"
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under column names; on a narrow screen each row becomes a card.

    Attributes
    ----------
    columns
        Column names, with units.
    rows
        Cells as text, as many in a row as there are columns.
    caption
        What the table says.
    tones
        For each row `"good"`, `"bad"` or `""`; empty for none.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    tones: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns: {row}")


@dataclass(frozen=True)
class Plot:
    """One figure; `alt` says in words what it shows."""

    kind: ClassVar[str] = "plot"
    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """One image of a gallery."""

    source: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Images side by side; `scale`, when given, is the colour scale they share.

    `wide` is for small plots, which need more room than pictures.
    """

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    caption: str = ""
    scale: Scale | None = None
    wide: bool = False


@dataclass(frozen=True)
class Fold:
    """Blocks behind a title that opens on a click."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Block]


Block = Text | Heading | Items | Code | Table | Plot | Gallery | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    title
        Its heading; a question where there is one.
    blocks
        What it holds, in order.
    answer
        The answer in words, shown first and large; empty for none.
    tone
        Colour of the answer: `"good"`, `"bad"`, `"unsure"` or `""`.
    """

    title: str
    blocks: Sequence[Block]
    answer: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes
    ----------
    title
        Heading and window title.
    sections
        The sections, in order.
    lead
        A paragraph under the heading.
    command
        The command that made the page.
    versions
        Package versions, for the footer.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    command: str = ""
    versions: Sequence[tuple[str, str]] = ()


def with_units(text: str) -> str:
    """Numbers stay on one line with their units."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    source = importlib.resources.files("invlearn.reports").joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["with_units"] = with_units
    return environment.from_string(source)


def render(page: Page) -> str:
    """The page as HTML text."""
    from markupsafe import Markup

    css = importlib.resources.files("invlearn.reports").joinpath("page.css").read_text("utf-8")
    return _template().render(page=page, css=Markup(css))


def write_page(path: Path, page: Page) -> None:
    """Write the page as one HTML file (UTF-8)."""
    path.write_text(render(page), encoding="utf-8")
