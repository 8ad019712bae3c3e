"""The agreement study at tiny size; that its committed results are whole and the page says what they say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from invlearn.identifiability.learn import LearnedSubspace

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "agreement.md"
RESULTS = ROOT / "benchmarks" / "results" / "agreement.json"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("agreement_study", ROOT / "examples" / "agreement_study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_tiny_study_writes_its_results(example, tmp_path, capsys):
    paths = ["--json", str(tmp_path / "new" / "a.json"), "--figure", str(tmp_path / "a.svg")]
    example.main(["--tiny", *paths, "--map", str(tmp_path / "map" / "m.svg")])
    assert "<svg" in (tmp_path / "map" / "m.svg").read_text()
    written = json.loads((tmp_path / "new" / "a.json").read_text())
    assert written["summary"]["settings"] == len(example.TINY)
    assert written["summary"]["contradictions"] == 0
    assert {row["kind"] for row in written["settings"]} == {s.kind for s in example.TINY}
    assert {row["verdict"] for row in written["settings"]} == {"certified", "undecided", "impossible"}
    for row in written["settings"]:
        assert row["agrees"] == (row["learned"] == (row["verdict"] in ("certified", "generic")))
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert example.HEADER in capsys.readouterr().out

    again = example.study(example.TINY[:2], 1)
    assert again["settings"] == written["settings"][:2]
    other = example.run(example.replace(example.TINY[1], seed=1), 1)
    assert other["errors"] != written["settings"][1]["errors"]


def test_grid_is_what_was_asked(example):
    grid = example.settings()
    assert len(grid) == len(set(grid)) >= 60
    assert {s.kind for s in grid} == set(example.MARKERS)
    assert all(1 <= s.k <= s.n and 1 <= s.m <= s.n for s in grid)


def test_margin_counts_different_operators(example):
    assert example.Setting("gaussian", 30, 3, 9, 5).margin == pytest.approx(0.6)
    assert example.Setting("repeated", 24, 2, 8, 8).margin == pytest.approx(0.5)


def test_group_copies_are_what_the_group_does(example):
    for setting in (example.Setting("shifts", 12, 1, 4, 4), example.Setting("rotations90", 9, 1, 4, 4)):
        group = example.group_of(setting)
        moves = example.moves_of(group)
        assert len(moves) == setting.count == group.order
        x = np.random.default_rng(0).standard_normal(group.shape)
        for h, move in enumerate(moves):
            np.testing.assert_array_equal(move @ x.ravel(), group(x, h).ravel())


def test_orbits_have_no_origin_but_other_subspaces_are_errors(example):
    setting = example.Setting("shifts", 12, 1, 6, 4)
    rng = np.random.default_rng(0)
    moves = example.moves_of(example.group_of(setting))
    matrix = rng.standard_normal((6, 12))
    basis = np.linalg.qr(rng.standard_normal((12, 1)))[0]
    held_out = rng.standard_normal((5, 1)) @ basis.T
    for found, right in ((basis, True), (moves[2] @ basis, True), (basis[::-1], False)):
        learned = LearnedSubspace(found, 0.0, True, 0, 1, (0.0,))
        assert (example.orbit_error(learned, matrix, moves, held_out) < 1e-9) is right


@pytest.mark.parametrize(
    ("kind", "verdict", "passed", "errors", "residuals", "explanation"),
    [
        ("gaussian", "impossible", False, [1e-9], [1e-12], "must not happen"),
        ("gaussian", "undecided", True, [1e-9], [1e-12], "mixture of copies"),
        ("gaussian", "undecided", False, [1e-9], [1e-12], "another one"),
        ("gaussian", "certified", True, [1.0, 1e-9], [1e-4, 1e-12], "local minimum in 1 of 2 trials"),
        ("gaussian", "certified", True, [1.0, 1.0], [1e-4, 1e-12], "must not happen"),
        ("one signal each", "certified", True, [1.0], [1e-12], "too few signals: 12 equations for the 20"),
        ("gaussian", "certified", True, [1e-9], [1e-12], ""),
        ("gaussian", "undecided", False, [1.0], [1e-12], ""),
    ],
)
def test_disagreements_are_explained(example, kind, verdict, passed, errors, residuals, explanation):
    class Certificate:
        pass

    class Report:
        certificate = Certificate()
        learnable = verdict in ("certified", "generic")

    Report.verdict = verdict
    Certificate.passed = passed
    row = {"errors": errors, "residuals": residuals, "learned": all(e < 1e-3 for e in errors)}
    found = example.explain(example.Setting(kind, 12, 2, 5, 4), row, Report)
    assert explanation in found
    assert bool(found) == bool(explanation)


def test_committed_results_are_whole_and_the_page_shows_them(example):
    results = json.loads(RESULTS.read_text())
    grid = json.loads(json.dumps([example.asdict(s) for s in example.settings()]))
    assert [{key: row[key] for key in grid[0]} for row in results["settings"]] == grid
    assert results["trials"] == example.TRIALS
    assert results["summary"] == example.summary(results["settings"])
    assert results["summary"]["settings"] >= 60
    assert results["summary"]["contradictions"] == 0
    page = PAGE.read_text()
    for line in example.tables(results).splitlines():
        assert line in page
    assert f"{results['summary']['agree']} of {results['summary']['settings']}" in page
    for figure in re.findall(r"\]\((figures/[^)]+)\)", page):
        assert (PAGE.parent / figure).is_file()


def test_committed_verdicts_are_those_of_today(example):
    rows = json.loads(RESULTS.read_text())["settings"]
    for row in rows[::9]:
        setting = example.Setting(*(row[key] for key in ("kind", "n", "k", "m", "count", "seed")))
        matrices = example.draw_operators(setting, np.random.default_rng(setting.key))
        assert example.ask(setting, matrices).verdict == row["verdict"], setting


def test_the_code_on_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
