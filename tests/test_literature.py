"""The page on the literature names what is there, and only papers that the code or a guide cites."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "literature.md"
TEXT = PAGE.read_text(encoding="utf-8")
PAPER = r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,9}/[^\s\])(,;]+"


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    home, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(home), last) or bool(importlib.import_module(name))
    except ImportError:
        return False


def test_names_exist() -> None:
    names = set(re.findall(r"`(invlearn(?:\.\w+)+)`", TEXT))
    assert len(names) > 30
    assert [name for name in sorted(names) if not exists(name)] == []


def test_papers_are_cited_elsewhere_too() -> None:
    sources = [*(ROOT / "invlearn").rglob("*.py"), *(p for p in (ROOT / "docs").rglob("*.md") if p != PAGE)]
    elsewhere = " ".join(path.read_text(encoding="utf-8") for path in sources).replace("arXiv ", "arXiv:")
    papers = set(re.findall(PAPER, TEXT))
    assert len(papers) > 30
    assert [paper for paper in sorted(papers) if paper.rstrip(".") not in elsewhere] == []


def test_links_lead_to_the_paper_that_they_name() -> None:
    links = re.findall(r"\[(arXiv|doi):([^\]]+)\]\(https://(arxiv\.org/abs|doi\.org)/([^)]+)\)", TEXT)
    assert len(links) > 30
    for kind, number, site, target in links:
        assert number == target
        assert site == {"arXiv": "arxiv.org/abs", "doi": "doi.org"}[kind]
