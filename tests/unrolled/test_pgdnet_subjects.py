"""Subjects: drawn, from maps, from labels; different each time, and what they are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from invlearn.io.maps import TissueMaps
from invlearn.physics.mri.fingerprint.anatomy import Tissue
from invlearn.unrolled.pgdnet_subjects import find_maps, of_labels, of_maps, one_of, synthetic


def test_a_share_of_b1_maps() -> None:
    rng = np.random.default_rng(1)
    found = [synthetic(share)(rng, (24, 24)).b1 is None for share in (0.0, 1.0)]
    assert found == [True, False]


def tissue(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).uniform(0.5, 1, shape)
    return {"t1": values, "t2": 0.1 * values, "pd": values}


def test_pieces_of_given_maps(tmp_path: Path) -> None:
    np.savez(tmp_path / "plane.npz", **tissue((40, 30)), b1=np.full((40, 30), 0.9))
    np.savez(tmp_path / "volume.npz", **tissue((5, 12, 50)))
    (tmp_path / "notes.txt").write_text("nothing")
    paths = find_maps(tmp_path)
    assert [p.name for p in paths] == ["plane.npz", "volume.npz"]
    rng = np.random.default_rng(2)
    for path, with_b1 in zip(paths, (True, False), strict=True):
        maps = [of_maps([path])(rng, (24, 24)) for _ in range(6)]
        assert all(isinstance(m, TissueMaps) and m.shape == (24, 24) for m in maps)
        assert all((m.b1 is not None) == with_b1 for m in maps)
        assert len({float(m.t1.sum()) for m in maps}) == 6
        ratio = [np.median((m.t1 / np.where(m.inside, m.pd, 1))[m.inside]) for m in maps]
        assert 0.85 < min(ratio) < max(ratio) < 1.17


def test_people_of_one_label_volume() -> None:
    labels = np.zeros((4, 40, 44), np.uint8)
    labels[1:3, 5:35, 5:40] = 1
    labels[1:3, 12:25, 10:30] = 2
    tissues = {1: Tissue((1.0, 1.0), (0.1, 0.1), (1.0, 1.0)), 2: Tissue((3.0, 3.0), (0.5, 0.5), (1.0, 1.0))}
    rng = np.random.default_rng(3)
    maps = [of_labels(labels, tissues, b1=1.0)(rng, (24, 24)) for _ in range(5)]
    assert len({float(m.t1.sum()) for m in maps}) == 5
    assert all(m.shape == (24, 24) and m.b1 is not None for m in maps)
    assert any(m.t1.max() > 2.5 for m in maps)
    kinds = [one_of(of_labels(labels, tissues), synthetic(1.0))(rng, (24, 24)).b1 is None for _ in range(12)]
    assert 0 < sum(kinds) < 12
    with pytest.raises(ValueError, match="not all 0"):
        of_labels(np.zeros((2, 8, 8), int), tissues)


def test_folders_without_maps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no maps: nothing to learn from; put \.npz files"):
        find_maps(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder; give one with maps"):
        find_maps(tmp_path / "none")
