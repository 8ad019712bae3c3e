from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from invlearn.identifiability import phase
from invlearn.identifiability.phase import (
    PhaseDiagram,
    learning_trial,
    phase_diagram,
    random_operators,
)

GRID = {"n": 12, "dimensions": [2], "ms": [3, 4, 5, 6, 7, 8], "operators": [2, 4], "trials": 2}


@pytest.fixture(scope="module")
def diagram() -> PhaseDiagram:
    return phase_diagram(**GRID, workers=1)  # type: ignore[arg-type]


def test_success_begins_at_the_subspace_threshold(diagram: PhaseDiagram) -> None:
    for j, m in enumerate(diagram.ms):
        for i, count in enumerate(diagram.operators):
            learned = m >= 2 + 10 / count
            assert diagram.success[0, j, i] == (1.0 if learned else 0.0), (m, count)
            assert (diagram.error[0, j, i] < 1e-3) == learned


def test_complex_operators_count_complex_numbers() -> None:
    errors = [learning_trial(12, 2, m, 4, operator="complex gaussian", seed=[3]) for m in (4, 5)]
    assert errors[0] > 1e-3 > errors[1]


def test_masks_are_not_gaussian() -> None:
    masks = random_operators("mask", 3, 4, 9, np.random.default_rng(0))
    assert masks.shape == (3, 4, 9)
    np.testing.assert_array_equal(masks.sum(axis=2), 1)
    assert masks.sum(axis=1).max() == 1
    # Where an entry is in no mask, nothing is learned, whatever the count of rows says.
    few = phase_diagram(12, [2], [7], [2], operator="mask", trials=4, workers=1)
    assert few.success[0, 0, 0] < 1.0
    assert few.operator == "mask"
    many = phase_diagram(12, [2], [7], [12], operator="mask", trials=4, workers=1)
    assert many.success[0, 0, 0] == 1.0


def test_neither_workers_nor_order_change_the_result(diagram: PhaseDiagram) -> None:
    shuffled = {**GRID, "ms": [8, 3, 6, 5, 4, 7], "operators": [4, 2]}
    assert phase_diagram(**shuffled, workers=2).to_dict() == diagram.to_dict()  # type: ignore[arg-type]


def test_seed_and_trials_count(diagram: PhaseDiagram) -> None:
    small = {**GRID, "ms": [5], "operators": [4]}
    one = phase_diagram(**small, workers=1)  # type: ignore[arg-type]
    assert phase_diagram(**small, workers=1, seed=1).error != one.error  # type: ignore[arg-type]
    fewer = phase_diagram(**{**small, "trials": 1}, workers=1)  # type: ignore[arg-type]
    assert fewer.trials == 1
    assert fewer.error != one.error


def test_an_interrupted_run_goes_on_to_the_same_result(
    tmp_path: Path, diagram: PhaseDiagram, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = phase._cell
    calls = []

    def dies(job: phase.Job) -> object:
        calls.append(job)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return cell(job)

    monkeypatch.setattr(phase, "_cell", dies)
    with pytest.raises(KeyboardInterrupt):
        phase_diagram(**GRID, workers=1, folder=tmp_path / "run")  # type: ignore[arg-type]
    file = tmp_path / "run" / "cells.jsonl"
    assert len(file.read_text().splitlines()) == 5  # settings and four cells
    file.write_text(file.read_text() + "[2, 7, 4, [1e-")  # killed in the middle of a line

    resumed = phase_diagram(**GRID, workers=1, folder=tmp_path / "run")  # type: ignore[arg-type]
    assert len(calls) == 5 + 12 - 4
    assert resumed.to_dict() == diagram.to_dict()
    again = phase_diagram(**GRID, workers=1, folder=str(tmp_path / "run"))  # type: ignore[arg-type]
    assert len(calls) == 13
    assert again.to_dict() == diagram.to_dict()


def test_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    small = {**GRID, "ms": [8], "operators": [4]}
    phase_diagram(**small, workers=1, folder=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds another experiment"):
        phase_diagram(**small, workers=1, seed=5, folder=tmp_path)  # type: ignore[arg-type]


def test_figure_draws_theory_over_the_map(diagram: PhaseDiagram) -> None:
    axes = diagram.figure().axes[0]
    assert axes.get_title() == "k = 2"
    lines = {line.get_label(): line for line in axes.lines}
    for label, at in (
        ("necessary: n/G", lambda g: 12 / g),
        ("one subspace: k + (n-k)/G", lambda g: 2 + 10 / g),
        ("any set: k + n/G", lambda g: 2 + 12 / g),
        ("recovery, any set: 2k", lambda g: 4 + 0 * g),
    ):
        g, m = np.asarray(lines[label].get_xdata()), np.asarray(lines[label].get_ydata())
        np.testing.assert_allclose(m, at(g))
    (mesh,) = axes.collections
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(6, 2), diagram.success[0])


def test_figure_of_several_dimensions_and_single_values() -> None:
    ones = np.ones((4, 1, 1))
    figure = PhaseDiagram(9, (1, 2, 3, 4), (5,), (3,), "mask", 1, 0, ones, ones).figure()
    panels = [a.get_title() for a in figure.axes if a.get_visible() and a.get_title()]
    assert panels == ["k = 1", "k = 2", "k = 3", "k = 4"]


def test_result_is_plain_json(diagram: PhaseDiagram) -> None:
    found = json.loads(json.dumps(diagram.to_dict()))
    assert found["ms"] == [3, 4, 5, 6, 7, 8]
    assert np.shape(found["success"]) == (1, 6, 2)
    assert all(math.isfinite(v) for v in np.ravel(found["error"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": [13]}, r"dimensions must be integers in 1 ... 12"),
        ({"dimensions": []}, r"dimensions must be integers in 1 ... 12"),
        ({"ms": [0]}, r"ms must be integers in 1 ... 12"),
        ({"ms": [13]}, r"ms must be integers in 1 ... 12"),
        ({"operators": [0]}, "operators must be integers of 1 or more"),
        ({"trials": 0}, "trials and workers must be 1 or more"),
        ({"workers": 0}, "trials and workers must be 1 or more"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        phase_diagram(**{**GRID, **change})
