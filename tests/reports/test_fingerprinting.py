"""The fingerprinting report from the result object alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from invlearn.reports.fingerprinting import (
    FingerprintResult,
    Truth,
    facts,
    object_mask,
    precision_rows,
    scatter,
    sections,
    summary,
)
from invlearn.reports.page import Fold, Gallery, Page, Plot, Text, render

SHAPE = (20, 24)


def result(shape: tuple[int, ...] = SHAPE, **changes: Any) -> Any:
    rng = np.random.default_rng(0)
    inside = np.zeros(shape, bool)
    inside[..., 4:16, 5:20] = True
    fields = {
        "t1": np.where(inside, 1.0 + 0.02 * rng.standard_normal(shape), 5.0),
        "t2": np.where(inside, 0.08 + 0.004 * rng.standard_normal(shape), 0.01),
        "pd": np.where(inside, 2.0, 0.001) * np.exp(0.3j),
        "t1_sd": np.full(shape, 0.02),
        "t2_sd": np.full(shape, 0.002),
        "pd_sd": np.full(shape, 0.02),
        "correlation": np.ones(shape),
        "sequence": SimpleNamespace(flip_angle=np.linspace(0, 1, 30)),
        "noise": 0.1,
        "residual": 0.03,
        "converged": True,
        "iterations": 2,
        "residuals": (1.0, 0.1, 0.01),
        "settings": {"method": "subspace", "rank": 6, "coil_maps": "estimated"},
    }
    return SimpleNamespace(**(fields | changes))


def truth(shape: tuple[int, ...] = SHAPE) -> Any:
    inside = np.zeros(shape, bool)
    inside[..., 4:16, 5:20] = True
    return SimpleNamespace(
        t1=np.where(inside, 1.0, 0), t2=np.where(inside, 0.08, 0), pd=np.where(inside, 1.0, 0), inside=inside
    )


def test_the_objects_are_what_the_report_asks_for() -> None:
    assert isinstance(result(), FingerprintResult)
    assert isinstance(truth(), Truth)


def test_the_object_is_where_the_density_is() -> None:
    np.testing.assert_array_equal(object_mask(result()), truth().inside)


def test_bounds_and_scatter_in_the_table() -> None:
    rows = {name: (bound, spread) for name, bound, spread in precision_rows(result())}
    assert set(rows) == {"T1", "T2", "PD"}
    assert float(rows["T1"][0].split()[0]) == pytest.approx(2.0, abs=0.05)
    assert float(rows["T1"][1].split()[0]) == pytest.approx(2.0, abs=0.4)
    assert float(rows["T2"][0].split()[0]) == pytest.approx(2.5, abs=0.1)
    assert float(rows["T2"][1].split()[0]) == pytest.approx(5.0, abs=1.0)
    assert rows["PD"] == ("1.00 %", "0.00 %")


def test_scatter_is_the_standard_deviation_of_noise() -> None:
    rng = np.random.default_rng(1)
    noise = 1 + 0.03 * rng.standard_normal((100, 100))
    assert scatter(noise, np.ones((100, 100), bool)) == pytest.approx(0.03, rel=0.05)
    assert np.isnan(scatter(noise, np.zeros((100, 100), bool)))


def test_the_page_has_maps_bounds_and_settings() -> None:
    parts = sections(result(), title="My scan")
    html = render(Page("Fingerprinting", parts))
    assert [part.title for part in parts] == ["My scan", "How sure are they?", "How they were made"]
    for words in (
        "T1",
        "T2",
        "PD",
        "ms",
        "unexplained part of k-space",
        "3.00 %",
        "Residual after each step",
    ):
        assert words in html
    scales = [block.scale for block in parts[0].blocks if isinstance(block, Gallery)]
    assert [scale.unit for scale in scales if scale] == ["s", "ms", "PD"]
    assert scales[0] is not None
    assert 1.0 < scales[0].high < 1.6  # background values do not stretch the scale
    assert len({scale.colors for scale in scales if scale}) == 3


def test_a_truth_adds_error_maps() -> None:
    parts = sections(result(), truth())
    assert [part.title for part in parts][1] == "Against the truth"
    table, gallery = parts[1].blocks
    t1 = table.rows[0]
    assert float(t1[1].split()[0]) == pytest.approx(1.35, abs=0.3)  # the median of 2 % noise
    assert float(t1[3]) == pytest.approx(1.0, abs=0.2)  # noise as large as the bound
    assert float(table.rows[1][3]) == pytest.approx(2.0, abs=0.4)
    assert gallery.scale.low == -gallery.scale.high


def test_volumes_are_shown_in_three_slices() -> None:
    shape = (8, *SHAPE)
    gallery = sections(result(shape), truth(shape))[0].blocks[0]
    assert len(gallery.pictures) == 3
    assert "axis 0, slice 4" in gallery.pictures[0].caption


def test_methods_without_steps_have_no_curve() -> None:
    adjoint = {"method": "adjoint", "rank": 6, "coil_maps": "given"}
    parts = sections(result(residuals=(), iterations=0, settings=adjoint))
    plots = [block for block in parts[-1].blocks if isinstance(block, Plot)]
    assert [plot.alt for plot in plots] == ["Flip angle of each frame"]


def test_a_failure_to_converge_is_told() -> None:
    assert dict(facts(result(converged=False)))["steps"] == "2 (not converged)"
    assert dict(facts(result()))["steps"] == "2"


def test_the_summary_folds_the_details_away() -> None:
    section = summary(result(), truth(), "How much?", [Text("So it went.")], "That much.")
    assert (section.title, section.answer, section.tone) == ("How much?", "That much.", "good")
    assert [block.title for block in section.blocks if isinstance(block, Fold)] == [
        "How sure are they?",
        "How they were made",
    ]
    assert section.blocks[0] == Text("So it went.")
