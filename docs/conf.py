"""Sphinx: the pages of this folder, and the reference from the docstrings. `make docs` builds it."""

from __future__ import annotations

import re
from typing import Any

import invlearn

project = "invlearn"
author = "The invlearn developers"
copyright = "The invlearn developers, Apache-2.0"
release = version = invlearn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns: list[str] = []
suppress_warnings = ["ref.python"]  # a word such as `shape` may name several attributes: then it is code
html_theme = "furo"
html_title = f"invlearn {release}"

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

# A name in single backticks is looked up among the objects, and shown as code where there is none.
default_role = "py:obj"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


# What keeps its meaning: code, examples, and emphasis of words.
KEPT = re.compile(r"(``.*?``|`[^`]*`|>>>.*|(?<![\w*(])\*[a-z][^*`/()=]*[a-z]\*(?![\w*]))")


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings are read in the source too: |x| is an absolute value there, *n many axes, [1] a source.

    To reStructuredText they would be a substitution, an emphasis that never ends, and one label for all.
    """
    text = re.sub(r"^(\s*)\.\. \[(\d+)\] ", r"\1\2. ", "\n".join(lines), flags=re.M)
    text = re.sub(r"^((?:\w+, )+\w+)\n((?:[ ]+.*\n?)+)", _one_each, text, flags=re.M)
    parts = [part if k % 2 else _escaped(part) for k, part in enumerate(KEPT.split(text))]
    lines[:] = "".join(parts).split("\n")


def _one_each(found: re.Match[str]) -> str:
    """`a, b` with one description, which only parameters may have: a description for each."""
    return "".join(f"{name}\n{found[2]}" for name in found[1].split(", "))


def _escaped(text: str) -> str:
    text = re.sub(r"(?<!\\)(\||\*(?!\s)|_(?=\W|$))", r"\\\1", text)
    return re.sub(r"\[(\d+)\]\\_", r"[\1]", text)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_text, priority=400)
