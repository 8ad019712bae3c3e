"""The learnability page says what the result says, for every kind of result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.reports.learnability import (
    HEADLINES,
    LearnabilityResult,
    bound_rows,
    facts,
    number,
    ranks,
    sections,
    summary,
    verdict_section,
)
from invlearn.reports.page import Gallery, Page, Plot, Table, Text, render


def bound(id: str, kind: str, holds: bool | None, applies: bool = True) -> Any:
    return SimpleNamespace(
        id=id, kind=kind, statement=f"statement of {id}", required=10.5, actual=12, margin=1.5,
        holds=holds, applies=applies, source="a source", note="a note",
    )  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A result made by hand, floor 3 left out."""

    verdict: str = "certified"
    reason: str = "the reason"
    n: int = 64
    m: tuple[int, ...] = (20, 20)
    operators: int = 2
    group: str | None = None
    dimension: int | None = 3
    bounds: tuple[Any, ...] = (bound("T1", "sufficient", True, applies=False), bound("N1", "necessary", True))
    certificate: Any = None
    warnings: tuple[str, ...] = ()
    shape: tuple[int, ...] = (8, 8)
    complex: bool = False
    coverage: Any = None
    coverage_basis: str | None = None
    unseen: Any = None
    unseen_what: str = ""
    spectrum: Any = None
    sweep: tuple[Any, ...] = ()
    dimension_estimate: Any = None
    ghost_test: Any = None
    completable: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"plan": {"minimal_m": 12, "minimal_operators": None, "something_new": 3.25}}


CERTIFICATE = SimpleNamespace(
    model="subspace", scope="almost every subspace", nullity=3, expected_nullity=3,
    gap=0.25, tolerance=1e-12, method="dense SVD",
)  # fmt: skip


def titles(result: Result) -> list[str]:
    return [section.title for section in sections(result)]


def blocks(result: Result, title: str) -> list[Any]:
    return list(next(s for s in sections(result) if s.title == title).blocks)


def test_a_handmade_result_is_a_result() -> None:
    assert isinstance(Result(), LearnabilityResult)


@pytest.mark.parametrize("verdict", sorted(HEADLINES))
def test_the_verdict_stands_first_in_words(verdict: str) -> None:
    section = sections(Result(verdict=verdict))[0]
    assert section.answer.lower().startswith(verdict)
    assert section.blocks[0] == Text("the reason")
    html = render(Page("p", sections(Result(verdict=verdict))))
    assert html.index(HEADLINES[verdict]) < html.index("<table")


def test_verdicts_differ_in_tone() -> None:
    assert verdict_section(Result(verdict="impossible")).tone == "bad"
    assert verdict_section(Result(verdict="undecided")).tone == "unsure"
    assert (
        verdict_section(Result(verdict="certified")).tone == verdict_section(Result(verdict="generic")).tone
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (12, "12"),
        (12345.0, "12,345"),
        (102.4, "102.4"),
        (-1126.62, "−1,126.6"),
        (4.827e-15, "4.83e-15"),
        (float("inf"), "inf"),
        (True, "yes"),
        ("all", "all"),
        ([1, 2], "1, 2"),
    ],
)
def test_numbers_as_text(value: Any, text: str) -> None:
    assert number(value) == text


def test_facts_name_the_setting() -> None:
    estimate = SimpleNamespace(value=3, low=2.2, high=4.5, by_method={"mle": 3.1})
    rows = dict(facts(Result(m=(20, 31), group="shifts", complex=True, dimension_estimate=estimate)))
    assert rows["signals"] == "8 × 8 = 64 complex numbers"
    assert dict(facts(Result(shape=(64,))))["signals"] == "64 numbers"
    assert rows["m, independent measurements of each"] == "20 to 31" == ranks((31, 20))
    assert rows["group"] == "shifts"
    assert rows["k, dimension of the signals"] == "3 (estimated, 2.2 to 4.5)"
    assert "k, dimension of the signals" not in dict(facts(Result(dimension=None)))


def test_bounds_that_apply_come_first_with_their_margin() -> None:
    (first, tone), (second, plain) = bound_rows(Result())
    assert first == ("N1", "statement of N1; a note", "necessary", "10.5", "12", "1.5", "holds")
    assert tone == "good"
    assert second[-1] == "not applicable"
    assert plain == ""


@pytest.mark.parametrize(
    ("kind", "holds", "result", "tone"),
    [("necessary", False, "fails", "bad"), ("sufficient", False, "fails", ""), ("necessary", None, "–", "")],
)
def test_a_failed_sufficient_condition_is_no_alarm(
    kind: str, holds: bool | None, result: str, tone: str
) -> None:
    ((cells, got),) = bound_rows(Result(bounds=(bound("X", kind, holds),)))
    assert (cells[-1], got) == (result, tone)


def test_warnings_are_shown() -> None:
    html = render(Page("p", sections(Result(warnings=("beware of the dog",)))))
    assert "beware of the dog" in html


def test_many_warnings_are_folded() -> None:
    blocks = verdict_section(Result(warnings=tuple(f"w{i}" for i in range(8)))).blocks
    assert list(blocks[-2].items) == ["w0", "w1", "w2", "w3", "w4"]
    assert blocks[-1].title == "3 more notes"


def test_the_certificate_shows_scope_and_gap() -> None:
    result = Result(certificate=CERTIFICATE, spectrum=torch.tensor([0.0, 0.0, 0.0, 0.25, 1.0]))
    text, table, plot = blocks(result, "Certificate for these operators")
    assert "almost every subspace" in text.text
    assert table.rows[0] == ("3", "3", "0.25", "1e-12", "dense SVD")
    assert plot.source.startswith("data:image/svg+xml")
    ghosts = dataclasses.replace(result, ghost_test=SimpleNamespace(ghost_dimension=2, assignments=5))
    assert any("5 random mixed" in b.text for b in blocks(ghosts, "Certificate for these operators")[:3]
               if isinstance(b, Text))  # fmt: skip
    assert "Certificate for these operators" not in titles(Result())


@pytest.mark.parametrize(
    ("shape", "pictures", "wide"), [((64,), 2, True), ((8, 8), 2, False), ((4, 4, 4), 6, False)]
)
def test_unseen_directions_of_any_rank(shape: tuple[int, ...], pictures: int, wide: bool) -> None:
    unseen = torch.randn(2, *shape)
    result = Result(shape=shape, unseen=unseen, unseen_what="directions that no operator sees")
    text, gallery = blocks(result, "What stays invisible")
    assert text.text.startswith("Directions that no operator sees")
    assert len(gallery.pictures) == pictures
    assert gallery.wide is wide


def test_complex_directions_show_their_real_part() -> None:
    wave = torch.exp(2j * torch.pi * torch.arange(8) / 8).expand(1, 8, 8) / 8
    gallery = blocks(Result(unseen=wave, unseen_what="x", complex=True), "What stays invisible")[1]
    assert "real part" in gallery.scale.unit
    assert gallery.scale.high == pytest.approx(1 / 8)


def test_coverage_counts_and_histogram() -> None:
    coverage = torch.arange(64.0).reshape(8, 8) % 5
    text, gallery, plot = blocks(Result(coverage=coverage, coverage_basis="pixel"), "Coverage")
    assert text.text == "13 of 64 are seen by none of the operators."
    assert gallery.scale.high == 4.0
    assert isinstance(plot, Plot)
    seen = blocks(Result(coverage=coverage + 1, coverage_basis="pixel"), "Coverage")[0]
    assert seen.text == "Every entry is seen: the least seen by 1, the most by 5 operators."


def test_fourier_coverage_has_the_zero_frequency_in_the_middle() -> None:
    coverage = np.zeros((8, 8))
    coverage[0, 0] = 1
    centred = np.zeros((8, 8))
    centred[4, 4] = 1
    fourier = blocks(Result(coverage=torch.tensor(coverage), coverage_basis="fourier"), "Coverage")[1]
    pixel = blocks(Result(coverage=torch.tensor(centred), coverage_basis="pixel"), "Coverage")[1]
    assert fourier.pictures[0].source == pixel.pictures[0].source
    assert "zero frequency in the middle" in fourier.pictures[0].caption


def test_coverage_of_a_vector_and_under_a_group() -> None:
    result = Result(shape=(6,), group="shifts", coverage=torch.ones(6), coverage_basis="pixel")
    text, plot = blocks(result, "Coverage")
    assert "under the group" in text.text
    assert isinstance(plot, Plot)


@pytest.mark.parametrize(("shape", "kind"), [((8,), Plot), ((8, 8), Gallery)])
def test_completable_entries(shape: tuple[int, ...], kind: type) -> None:
    assert isinstance(
        blocks(Result(shape=shape, completable=torch.rand(shape)), "What can be completed")[1], kind
    )


def test_an_estimated_dimension_shows_its_sweep() -> None:
    estimate = SimpleNamespace(value=3, low=2.0, high=5.0, by_method={"mle": 3.25, "two_nn": 2.5})
    result = Result(
        dimension_estimate=estimate, sweep=((2, "certified"), (3, "certified"), (5, "impossible"))
    )
    _, table, plot = blocks(result, "Dimension of the signals")
    assert table.rows == [("mle", "3.25"), ("two_nn", "2.5")]
    assert plot.caption == "The verdict depends on the dimension within its interval."
    same = dataclasses.replace(result, sweep=((2, "certified"), (3, "certified")))
    assert "the same over" in blocks(same, "Dimension of the signals")[2].caption


def test_the_plan_leaves_out_what_is_unknown() -> None:
    (table,) = blocks(Result(), "What it would take")
    assert isinstance(table, Table)
    assert [value for _, value in table.rows] == ["12", "3.25"]
    assert table.rows[1][0] == "something new"


def test_a_summary_is_one_section_with_the_introduction_first() -> None:
    result = Result(certificate=CERTIFICATE, coverage=torch.ones(8, 8), coverage_basis="pixel")
    section = summary(result, "Can I?", [Text("what was measured")])
    assert section.title == "Can I?"
    assert section.answer == HEADLINES["certified"]
    assert section.blocks[0] == Text("what was measured")
    assert [block.title for block in section.blocks if block.kind == "fold"] == [
        "Conditions",
        "Certificate for these operators",
        "What it would take",
    ]
    assert [block.text for block in section.blocks if block.kind == "heading"] == ["Coverage"]


def test_sources_are_named_once() -> None:
    sources = blocks(Result(), "Conditions")[1]
    assert sources.items == ["T1, N1: a source"]


def test_unseen_single_entries_are_few() -> None:
    unseen = torch.eye(64).reshape(64, 8, 8)[:8]
    assert len(blocks(Result(unseen=unseen, unseen_what="x"), "What stays invisible")[1].pictures) == 4


def test_even_coverage_is_said_plainly() -> None:
    result = Result(coverage=torch.full((8, 8), 3.0), coverage_basis="pixel")
    assert blocks(result, "Coverage")[0].text == "Every entry is seen by 3 of the operators."
