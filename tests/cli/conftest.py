"""What several jobs' tests of the command line share."""

from __future__ import annotations

import builtins
from typing import Any

import pytest


@pytest.fixture(params=[True, False])
def nilearn_installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With nilearn, and as if it were not installed."""
    if request.param:
        pytest.importorskip("nilearn")
        return True
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("nilearn"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    return False
