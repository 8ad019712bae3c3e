"""The tour's registration section at small size: a true error, true commands, results left in the folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from invlearn.cli import main, tour, tour_registration
from invlearn.cli.tour_registration import bent, brain, drawn, errors, smooth_field
from invlearn.io import Volume, read_volume
from invlearn.io.itk import points_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tour of this job alone, on a small drawn phantom."""
    out = tmp_path_factory.mktemp("tour") / "out"
    small = drawn((36, 44, 36))
    affine = small.affine.copy()
    affine[:3] *= 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "JOBS", ("invlearn.cli.tour_registration",))
        patch.setattr(tour_registration, "brain", lambda: (Volume(small.data, affine), "a drawn phantom"))
        result = CliRunner().invoke(main, ["tour", "-o", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_the_section_and_its_files(folder: Path) -> None:
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Where did every point",
        "A drawn phantom",
        "Checkerboard",
        "How space was bent",
        "95 % below",
    ):
        assert words in html
    for name in (
        "warped.nii.gz",
        "forward_field.nii.gz",
        "inverse_field.nii.gz",
        "metrics.json",
        "report.html",
    ):
        assert (folder / "brought_back" / name).exists()
    found = json.loads((folder / "run.json").read_text())["metrics"]["registration"]
    error = found["error_mm"]
    assert error["mean"] < 0.4 * error["before"]
    assert f"Found to {error['mean']:.2f} mm on average, from {error['before']:.1f} mm" in html
    assert found["folding_percent"] == 0


def test_the_commands_shown_are_true(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    html = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    again = "invlearn register inputs/brain.nii.gz inputs/bent_brain.nii.gz -o brought_back_again"
    there = (
        "invlearn warp inputs/brain.nii.gz --transform brought_back --inverse -o brain_where_it_went.nii.gz"
    )
    for line in (again, there):
        assert line in html
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    first, second = (
        read_volume(Path(f) / "warped.nii.gz").data for f in ("brought_back", "brought_back_again")
    )
    np.testing.assert_allclose(first, second, atol=1e-3 * np.ptp(first))


def test_the_truth_is_true() -> None:
    """A registration that says the truth has no error; one that says nothing has all of it."""
    fixed = drawn((30, 32, 30))
    moving, truth = bent(fixed, 0)
    assert moving.data.dtype == np.int16
    grid = points_of(fixed.affine, fixed.shape)

    class Said:
        def __init__(self, field: np.ndarray) -> None:
            self.moving, self._field = moving, field

        def inverse_field(self) -> np.ndarray:
            return self._field

    before, after = errors(Said(truth), truth, fixed)
    assert after.max() < 1e-3
    np.testing.assert_allclose(errors(Said(0 * truth), truth, fixed)[1], before)
    assert before.mean() > 3
    # a fixed point and its partner have one brightness: the moving image is the fixed one, looked up
    others, _ = bent(fixed, 1)
    assert np.abs(others.data - moving.data.astype(int)).mean() > 10
    assert grid.shape == truth.shape


def test_fields_are_smooth_bounded_and_end_at_the_border() -> None:
    u = smooth_field((24, 26, 22), 2.0, 3)
    lengths = np.sqrt((u**2).sum(0))
    assert lengths.max() == pytest.approx(tour_registration.LARGEST)
    assert np.abs(u[:, 0]).max() == np.abs(u[..., -1]).max() == 0
    assert np.abs(np.diff(u, axis=1)).max() < 2.0  # less than a voxel a voxel: no folds
    np.testing.assert_array_equal(u, smooth_field((24, 26, 22), 2.0, 3))
    assert not np.array_equal(u, smooth_field((24, 26, 22), 2.0, 4))


def test_the_brain_is_that_of_nilearn_or_drawn(nilearn_installed: bool) -> None:
    volume, origin = brain()
    assert ("152 brains (MNI152)" in origin) == nilearn_installed
    np.testing.assert_allclose(volume.spacing, tour_registration.VOXEL)
    assert volume.data.dtype == np.float32
    assert 0.9 < volume.data.max() <= 1.001
    assert 0.1 < (volume.data > 0.2).mean() < 0.6
