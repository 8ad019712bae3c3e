"""The page is whole in itself, escapes what it is given, and shows every block."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from invlearn.reports.figures import Scale
from invlearn.reports.page import (
    Code,
    Fold,
    Gallery,
    Heading,
    Items,
    Page,
    Picture,
    Plot,
    Section,
    Table,
    Text,
    render,
    write_page,
)

DOT = "data:image/png;base64,iVBORw0KGgo="
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def everything() -> Page:
    blocks = [
        Text("a paragraph"),
        Heading("a heading"),
        Items(["first", "second"], "warning"),
        Code("invlearn tour", "a command"),
        Table(("name", "value", "result"), [("x", "1", "holds")], "a table", ["good"]),
        Plot(DOT, "what it shows", "a plot"),
        Gallery([Picture(DOT, "a picture")], "a gallery", Scale(-1.5, 2.0, "gray", "ms")),
        Fold("a fold", [Text("what is inside")]),
    ]
    return Page(
        "A page",
        [Section("First?", blocks, "Yes, it can.", "good"), Section("Second?", [], "No.", "bad")],
        "the lead",
        "invlearn something",
        [("torch", "2.13")],
    )


def test_every_block_is_shown() -> None:
    outline = Outline(render(everything()))
    for text in (
        "A page", "the lead", "First?", "Yes, it can.", "Second?", "No.", "a paragraph", "a heading",
        "first", "second", "invlearn tour", "a command", "name", "holds", "a table", "a plot",
        "a picture", "a gallery", "a fold", "what is inside", "-1.5", "2 ms", "invlearn something",
        "torch 2.13",
    ):  # fmt: skip
        assert text in outline.text, text


def test_the_answer_comes_before_the_evidence() -> None:
    html = render(everything())
    assert html.index("Yes, it can.") < html.index("a paragraph")


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = render(everything())
    outline = Outline(html)
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "iframe", "object"}
    for tag, attributes in outline.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert not re.search(r"https?:|@import|url\(", html)


def test_text_is_escaped() -> None:
    nasty = "<script>alert('&')</script>"
    page = Page(
        nasty, [Section(nasty, [Text(nasty), Table((nasty, "b"), [(nasty, "")])], nasty)], nasty, nasty
    )
    outline = Outline(render(page))
    assert "script" not in {tag for tag, _ in outline.tags}
    assert outline.text.count(nasty) >= 6


def test_images_have_words() -> None:
    images = [attributes for tag, attributes in Outline(render(everything())).tags if tag == "img"]
    assert len(images) == 2
    assert all(image["alt"] for image in images)


def test_cells_carry_their_column_for_narrow_screens() -> None:
    cells = [attributes for tag, attributes in Outline(render(everything())).tags if tag == "td"]
    assert [cell["data-label"] for cell in cells] == ["name", "value", "result"]
    assert "@media (max-width" in render(everything())


def test_several_answers_get_contents_with_working_links() -> None:
    tags = Outline(render(everything())).tags
    links = [a["href"] for tag, a in tags if tag == "a"]
    assert links == ["#part-1", "#part-2"]
    assert {f"#{a['id']}" for _, a in tags if a.get("id")} >= set(links)
    single = Page("One", [Section("Only?", [], "Yes.", "good")])
    assert not [tag for tag, _ in Outline(render(single)).tags if tag == "a"]


def test_a_row_must_fit_its_columns() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table(("a", "b"), [("x",)])


def test_the_file_is_utf8(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", Page("n ≥ k · α", []))
    assert "n ≥ k · α" in (tmp_path / "p.html").read_bytes().decode("utf-8")


def test_numbers_stay_on_a_line_with_their_units() -> None:
    answer = "0.8 % of 3 voxels within 2 mm in 3 seconds"
    html = render(Page("t", [Section("a", [Text("12 s")], answer), Section("b", [], "c")]))
    assert html.count("0.8\N{NO-BREAK SPACE}% of 3\N{NO-BREAK SPACE}voxels within 2\N{NO-BREAK SPACE}mm") == 2
    assert html.count("in 3 seconds") == 2
    assert "12\N{NO-BREAK SPACE}s" in html
