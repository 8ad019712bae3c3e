"""Drawn anatomy: values in their ranges, borders between them, everything from the generator."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from invlearn.physics.mri.fingerprint import anatomy
from invlearn.physics.mri.fingerprint.anatomy import (
    TISSUES,
    Tissue,
    deformed,
    head_labels,
    random_coils,
    receive_phase,
    smooth_field,
    tissue_maps,
)

SHAPE = (48, 64)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def borders(labels: np.ndarray) -> float:
    """Share of neighbours that differ."""
    return float(np.mean(labels[1:] != labels[:-1]))


def test_a_field_has_unit_variance_and_the_width_asked_for() -> None:
    narrow, wide = (smooth_field((80, 80), width, rng()) for width in (1.0, 4.0))
    for field in (narrow, wide):
        assert field.mean() == pytest.approx(0, abs=1e-9)
        assert field.std() == pytest.approx(1)
    # neighbours of a field smoothed by σ correlate by exp(-1/(4σ²))
    assert np.mean(wide[1:] * wide[:-1]) == pytest.approx(np.exp(-1 / 64), abs=0.02)
    assert np.mean(narrow[1:] * narrow[:-1]) == pytest.approx(np.exp(-1 / 4), abs=0.05)


def test_heads_come_from_the_generator_and_hold_known_labels() -> None:
    heads = [head_labels(SHAPE, rng(seed)) for seed in range(12)]
    np.testing.assert_array_equal(heads[0], head_labels(SHAPE, rng(0)))
    assert not np.array_equal(heads[0], heads[1])
    seen = set(np.unique(np.stack(heads)).tolist())
    assert seen <= {0, *TISSUES}
    assert {anatomy.FLUID, anatomy.GREY, anatomy.WHITE, anatomy.FAT} <= seen
    assert all(0.1 < np.mean(head > 0) <= 1 for head in heads)


def test_on_a_finer_grid_everything_is_as_wide_in_pixels_of_the_image() -> None:
    coarse = np.mean([borders(head_labels((64, 64), rng(seed))) for seed in range(20)])
    fine = np.mean([borders(head_labels((128, 128), rng(seed), pixel=0.5)) for seed in range(20)])
    assert fine < 0.8 * coarse


def test_values_lie_in_the_ranges_of_their_tissue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anatomy, "_ANYTHING", TISSUES[anatomy.WHITE])
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:40, 8:56] = anatomy.WHITE
    for seed in range(10):
        maps = tissue_maps(labels, rng(seed), finer=1)
        inner = ndimage.binary_erosion(labels > 0, iterations=4)
        tissue = TISSUES[anatomy.WHITE]
        for name, (low, high) in (("t1", tissue.t1), ("t2", tissue.t2), ("pd", tissue.pd)):
            assert 0.9 * low < np.median(getattr(maps, name)[inner]) < 1.1 * high
        assert (maps.t2 <= maps.t1).all()
        assert maps.b1 is None


def test_voxels_at_borders_hold_parts_of_both() -> None:
    made = {1: Tissue((0.5, 0.5), (0.05, 0.05), (1.0, 1.0)), 2: Tissue((2.0, 2.0), (0.5, 0.5), (0.5, 0.5))}
    labels = np.ones((48, 48), np.uint8)
    labels[:, 23:] = 2  # the border cuts a voxel of three fine columns into two and one
    found = []
    for seed in range(8):
        maps = tissue_maps(labels, rng(seed), finer=3, tissues=made)
        assert maps.shape == (16, 16)
        left, middle, right = (np.median(maps.t1[:, i]) for i in (2, 7, 13))
        if right > 3 * left:  # some people have other tissues
            assert left < middle < right
            found.append(middle / left)
    # (2·1·0.5 + 1·0.5·2)/(2·1 + 1·0.5) = 0.8, of 0.5
    assert len(found) > 4
    assert np.median(found) == pytest.approx(1.6, abs=0.2)


def test_some_people_have_tissues_that_no_table_knows() -> None:
    labels = np.full(SHAPE, anatomy.FLUID, np.uint8)
    t1 = [float(np.median(tissue_maps(labels, rng(seed), finer=1).t1)) for seed in range(40)]
    outside = np.mean(np.array(t1) < 2.0)
    assert 0 < outside < 0.4


def test_a_b1_map_when_asked_for() -> None:
    maps = tissue_maps(head_labels(SHAPE, rng()), rng(), finer=1, b1=True)
    assert maps.b1 is not None
    inside = maps.b1[maps.inside]
    assert 0.8 - 1e-9 <= inside.min() < inside.max() <= 1.2 + 1e-9


def test_deformation_keeps_labels_and_depends_on_its_strength() -> None:
    labels = head_labels(SHAPE, rng(3))
    first = deformed(labels, rng(1))
    np.testing.assert_array_equal(first, deformed(labels, rng(1)))
    assert first.shape == labels.shape
    assert set(np.unique(first)) <= set(np.unique(labels)) | {0}
    assert not np.array_equal(first, deformed(labels, rng(1), strength=0.0))


def test_phase_and_coils() -> None:
    phase = receive_phase(SHAPE, rng())
    np.testing.assert_allclose(abs(phase), 1, rtol=1e-5)
    assert abs(np.angle(phase[1:] / phase[:-1])).max() < 1.0
    maps = random_coils(5, SHAPE, rng())
    assert maps.shape == (5, *SHAPE)
    np.testing.assert_allclose((abs(maps) ** 2).sum(0), 1, rtol=1e-5)
    assert abs(maps[:, 1:] - maps[:, :-1]).max() < 0.2
    assert abs(maps - random_coils(5, SHAPE, rng(1))).max() > 0.1


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least 8 pixels a side"):
        head_labels((4, 40), rng())
    with pytest.raises(ValueError, match=r"at least 8 pixels a side, got \(8, 8, 8\)"):
        head_labels((8, 8, 8), rng())
    with pytest.raises(ValueError, match=r"no tissue is given for the labels \[77\]"):
        tissue_maps(np.full((8, 8), 77), rng())
    with pytest.raises(ValueError, match="all labels are 0"):
        tissue_maps(np.zeros((8, 8), int), rng())
    with pytest.raises(ValueError, match="multiples of finer = 2"):
        tissue_maps(np.ones((9, 8), int), rng())
    with pytest.raises(ValueError, match="t2 is a range of positive numbers"):
        Tissue((0.1, 1.0), (0.2, 0.1), (1.0, 1.0))
