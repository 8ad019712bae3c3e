"""The documentation is true: its Python blocks run, its commands work, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from invlearn.cli import main
from invlearn.identifiability import Generated
from invlearn.physics import Dense, OperatorFamily
from invlearn.physics.groups import Shifts
from invlearn.wavelets import dwt

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(p.relative_to(ROOT)) for p in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def sample_names() -> dict[str, Any]:
    """What a page may take as given: the reader's own operators and data."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 8, 8, generator=generator) < 0.5
    family = OperatorFamily.from_masks(masks)
    basis = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    examples = torch.einsum("nk,kij->nij", coefficients, basis)
    operator_index = torch.arange(400) % 12
    maps = torch.randn(2, 8, 8, generator=generator, dtype=torch.complex128)
    return {
        "family": family,
        "operator": Dense(torch.randn(64, 256, generator=generator, dtype=torch.float64), shape=(16, 16)),
        "basis": basis,
        "examples": examples,
        "y": family(examples, operator_index),
        "operator_index": operator_index,
        "decoder": lambda z: (z[:4, None] * torch.ones(4, 16, dtype=z.dtype)).reshape(8, 8) + z.sum(),
        "masks": masks[:12],
        "coil_maps": maps,
        "image": torch.rand(1, 3, 32, 32, generator=generator),
        "volume": torch.rand(1, 1, 16, 16, 16, generator=generator),
        "x": torch.rand(1, 1, 16, 16, 16, generator=generator),
        "dwt": dwt,
        "Shifts": Shifts,
        "Generated": Generated,
        "torch": torch,
        "np": np,
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = sample_names()
    for language, block in re.findall(r"^```(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
        elif page != README:  # whose commands have a test of their own
            commands_work(block)


def commands_work(block: str) -> dict[str, str]:
    """Run the lines that begin with a prompt; what each said."""
    output = {}
    for line in re.findall(r"^\$ invlearn (.*)$", block, re.M):
        result = CliRunner().invoke(main, shlex.split(line))
        assert result.exit_code == 0, result.output
        output[line] = result.output.lower()
    return output


def test_the_readme_commands_work_after_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(README, "python"):
        exec(block, names)
    output = commands_work(README.read_text(encoding="utf-8"))
    assert output
    (question,) = (line for line in output if line.startswith("learnability"))
    assert "certified" in output[question]
    np.save("masks.npy", np.load("masks.npy")[:4])
    assert "impossible" in CliRunner().invoke(main, shlex.split(question)).output.lower()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
