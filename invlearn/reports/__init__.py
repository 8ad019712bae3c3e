"""Figures and the self-contained HTML page; a job hands it its result object."""

from __future__ import annotations

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

__all__ = [
    "Code",
    "Fold",
    "Gallery",
    "Heading",
    "Items",
    "Page",
    "Picture",
    "Plot",
    "Section",
    "Table",
    "Text",
    "render",
    "write_page",
]
