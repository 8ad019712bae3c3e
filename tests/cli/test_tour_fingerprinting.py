"""The tour's fingerprinting section at small size: true commands, results left in the folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from invlearn.cli import main, tour, tour_fingerprinting
from invlearn.cli.tour_fingerprinting import TISSUES, brain, drawn, mixture
from invlearn.io.maps import TissueMaps
from invlearn.physics.mri.fingerprint import Grid
from invlearn.unrolled import fingerprinting


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tour of this job alone, on the drawn phantom."""
    out = tmp_path_factory.mktemp("tour") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "JOBS", ("invlearn.cli.tour_fingerprinting",))
        patch.setattr(tour_fingerprinting, "FRAMES", 60)
        patch.setattr(tour_fingerprinting, "SIZE", 32)
        patch.setattr(tour_fingerprinting, "brain", lambda: (drawn(), "a drawn phantom"))
        patch.setattr(
            fingerprinting, "_grid", lambda b1: Grid.logarithmic((0.5, 5.0), (0.04, 1.5), step=0.25)
        )
        result = CliRunner().invoke(main, ["tour", "-o", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_the_section_and_its_files(folder: Path) -> None:
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for words in ("Can one quick scan", "a drawn phantom", "Against the truth", "How sure are they?"):
        assert words in html
    assert (folder / "inputs" / "brain_scan.h5").exists()
    assert (folder / "brain" / "T2map.nii.gz").exists()
    found = json.loads((folder / "run.json").read_text())["metrics"]["fingerprinting"]
    assert found["t1"]["median_relative_error"] < 0.1
    assert f"{100 * found['t1']['median_relative_error']:.1f} % in T1" in html


def test_the_commands_shown_are_true(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    line = "invlearn mrf evaluate brain --truth inputs/brain_slice.npz"
    assert line in html
    assert "invlearn mrf simulate inputs/brain_slice.npz -o inputs/brain_scan.h5 --frames 60 --snr 30" in html
    result = CliRunner().invoke(main, [*shlex.split(line)[1:], "--json"])
    errors = json.loads(result.stdout)
    shown = json.loads(Path("run.json").read_text())["metrics"]["fingerprinting"]
    assert errors["t1"]["nrmse"] == pytest.approx(shown["t1"]["nrmse"], rel=1e-4)


def test_mixtures_are_between_their_parts() -> None:
    maps = mixture(np.stack([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 0.0]], [[0.0, 0.0, 0.2]]]))
    np.testing.assert_array_equal(maps["mask"], [[True, True, False]])
    grey, white = TISSUES[0], TISSUES[1]
    assert maps["t1"][0, 0] == pytest.approx(grey[0])
    assert maps["pd"][0, 1] == pytest.approx((grey[2] + white[2]) / 2)
    rate = (grey[2] / grey[1] + white[2] / white[1]) / (grey[2] + white[2])
    assert maps["t2"][0, 1] == pytest.approx(1 / rate)


def test_the_brain_is_that_of_nilearn_or_drawn(nilearn_installed: bool) -> None:
    fractions, origin = brain()
    assert ("152 brains (MNI152)" in origin) == nilearn_installed
    size = tour_fingerprinting.SIZE
    assert fractions.shape == (3, size, size)
    assert fractions.min() >= 0
    assert fractions.sum(0).max() < 1.01
    maps = TissueMaps(**mixture(fractions))
    assert 0.3 < maps.inside.mean() < 0.8
    assert np.median(maps.t1[maps.inside]) < 1.5
    partial = ((fractions > 0.1) & (fractions < 0.9)).any(0)
    assert partial[maps.inside].mean() > 0.1
