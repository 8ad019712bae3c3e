"""Shape annotations are checked in the tests (and only there)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Small problems: several workers with several threads each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_hook = install_import_hook("invlearn", "beartype.beartype")
_hook.__enter__()

settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder named by INVLEARN_DATA; a test that needs it is skipped without."""
    folder = os.environ.get("INVLEARN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("INVLEARN_DATA does not name a folder with the data")
    return Path(folder)
