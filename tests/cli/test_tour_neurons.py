"""The tour's neuron section at small size: true numbers, true commands, results left in the folder."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import invlearn.neuro
from invlearn.cli import main, tour, tour_neurons
from invlearn.io.stacks import open_stack
from invlearn.io.swc import read_swc
from invlearn.neuro import compare, overlap
from invlearn.neuro.segmentation import Segmentation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tour of this job alone, on a small stack with little noise."""
    out = tmp_path_factory.mktemp("tour") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "JOBS", ("invlearn.cli.tour_neurons",))
        patch.setattr(tour_neurons, "SHAPE", (32, 96, 96))
        patch.setattr(tour_neurons, "NOISE", 0.3)
        result = CliRunner().invoke(main, ["tour", "-o", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_the_section_and_its_numbers(folder: Path) -> None:
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for words in ("Where are the neurons", "against the truth", "orange alone was missed", "The mask"):
        assert words in html
    for name in ("neurons.tif", "neurons_mask.tif", "neurons.swc"):
        assert (folder / "inputs" / name).exists()
    stack = open_stack(folder / "inputs" / "neurons.tif")
    assert stack.shape == (32, 96, 96)
    truth, found = read_swc(folder / "inputs" / "neurons.swc"), read_swc(folder / "neurons" / "neuron.swc")
    numbers = json.loads((folder / "run.json").read_text())["metrics"]["neurons"]
    again = compare(found, truth, voxel_size=stack.voxel_size).to_dict()
    for key in ("esa", "precision", "recall", "pds"):
        assert numbers["tracing"][key] == pytest.approx(again[key], abs=2e-3)
    mask, true = (open_stack(folder / f).array() for f in ("neurons/mask.tif", "inputs/neurons_mask.tif"))
    assert numbers["mask"]["f1"] == pytest.approx(overlap(mask, true).f1)
    assert f"{100 * numbers['tracing']['recall']:.0f} % of" in html
    assert numbers["tracing"]["f1"] > 0.5


def test_the_commands_shown_are_true(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    html = unescape((folder / "report.html").read_text())
    lines = re.findall(r"<code>(invlearn (?:neuron|segment) [^<]*)</code>", html)
    assert [line.split()[1] for line in lines] == ["neuron", "segment", "neuron"]
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    for name in ("stack", "mask"):
        there = "neurons" if name == "stack" else "neurons_mask"
        np.testing.assert_array_equal(
            open_stack(f"simulated/{name}.tif").array(), open_stack(f"inputs/{there}.tif").array()
        )
    np.testing.assert_array_equal(
        open_stack("neurons_again/mask.tif").array(), open_stack("neurons/mask.tif").array()
    )
    assert Path("neurons_again/neuron.swc").read_text() == Path("neurons/neuron.swc").read_text()
    numbers = json.loads(Path("run.json").read_text())["metrics"]["neurons"]["tracing"]
    assert f"{numbers['esa']:.2f}" in result.stdout


def test_nothing_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = invlearn.neuro.segment

    def blind(*args: Any, **options: Any) -> Segmentation:
        found = real(*args, **options)
        return dataclasses.replace(found, tree=None, foreground=0)

    monkeypatch.setattr(invlearn.neuro, "segment", blind)
    monkeypatch.setattr(tour, "JOBS", ("invlearn.cli.tour_neurons",))
    monkeypatch.setattr(tour_neurons, "SHAPE", (16, 48, 48))
    result = CliRunner().invoke(main, ["tour", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "Not in this one" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["metrics"]["neurons"]["tracing"] is None
