"""The tour's two visits: the change is known, and is found again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from invlearn.cli import main, tour, tour_change
from invlearn.cli.options import Settings
from invlearn.cli.tour_change import SIDE, VISITS, boxed, brain, change, drawn, moved, scanned, ventricles
from invlearn.cli.tour_fingerprinting import mixture

QUIET = Settings("invlearn tour", seed=0, device="cpu", overwrite=False, quiet=True)


def true_t1(fractions: np.ndarray, settings: Any, seed: int) -> np.ndarray:
    """What a perfect scan would give, with one percent of noise."""
    planes = [mixture(f.transpose(0, 2, 1).astype(np.float64)) for f in np.moveaxis(fractions, 3, 0)]
    t1 = np.stack([np.where(p["pd"] > 0.2, p["t1"], 0).T for p in planes], -1)
    return (t1 * (1 + 0.01 * np.random.default_rng(seed).normal(size=t1.shape))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tour") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "JOBS", ("invlearn.cli.tour_change",))
        patch.setattr(tour_change, "brain", lambda: (*drawn(), "a drawn phantom"))
        patch.setattr(tour_change, "scanned", true_t1)
        result = CliRunner().invoke(main, ["tour", "-o", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_the_growth_that_was_put_in_is_found(folder: Path) -> None:
    found = json.loads((folder / "run.json").read_text())["metrics"]["two visits"]
    change = found["ventricle_growth_percent"]
    assert change["true"] > 15
    assert change["found"] == pytest.approx(change["true"], rel=0.40)
    assert abs(change["rest"]) < 0.2 * change["true"]
    assert found["folding_percent"] == 0
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert f"The ventricles grew: {change['found']:+.0f} %" in html
    assert "second visit, registered" in html


def test_the_command_shown_is_true(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    line = "invlearn register visit_1/T1map.nii.gz visit_2/T1map.nii.gz -o change_again"
    line += " --affine rigid --similarity mse"
    assert line in (folder / "report.html").read_text()
    result = CliRunner().invoke(main, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    one, two = (json.loads((Path(f) / "metrics.json").read_text()) for f in ("change", "change_again"))
    assert one["sd_log_jacobian"] == pytest.approx(two["sd_log_jacobian"], rel=1e-3)
    assert all((folder / visit / "T1map.nii.gz").exists() for visit in VISITS)


def test_a_slice_is_scanned_and_found() -> None:
    fractions, _ = drawn()
    alone = np.zeros_like(fractions)
    middle = fractions.shape[3] // 2
    alone[..., middle] = fractions[..., middle]
    found, truth = scanned(alone, QUIET, 3), true_t1(alone, None, 0)
    assert not found[..., :middle].any()
    both = (found[..., middle] > 0) & (truth[..., middle] > 0)
    assert both.sum() > 0.9 * (truth[..., middle] > 0).sum()
    assert np.median(np.abs(found / np.where(truth > 0, truth, 1) - 1)[..., middle][both]) < 0.05


def test_the_later_brain_has_larger_ventricles_and_as_much_of_the_rest() -> None:
    fractions, affine = drawn()
    then = moved(fractions, affine, change(fractions, affine))
    assert ventricles(then).sum() > 1.15 * ventricles(fractions).sum()
    assert then[1].sum() < fractions[1].sum()
    assert then.sum() == pytest.approx(fractions.sum(), rel=0.02)
    assert np.abs(then - fractions).max() > 0.5


def test_the_brain_is_that_of_nilearn_or_drawn(nilearn_installed: bool) -> None:
    fractions, affine, origin = brain()
    assert ("152 brains (MNI152)" in origin) == nilearn_installed
    assert fractions.shape[:3] == (3, SIDE, SIDE)
    assert fractions.min() >= 0
    assert fractions.sum(0).max() <= 1.01
    np.testing.assert_allclose(np.diag(affine), [4, 4, 4, 1])
    assert ventricles(fractions).sum() > 100


def test_boxed_keeps_places() -> None:
    fractions, affine = drawn()
    moved, at = boxed(np.roll(fractions, 2, 1), affine)
    np.testing.assert_allclose(moved, fractions)
    np.testing.assert_allclose(at[:3, 3] - affine[:3, 3], [8, 0, 0])
