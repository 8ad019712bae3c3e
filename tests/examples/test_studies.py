"""Images and figures of merit of the studies of learned reconstruction."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

STUDIES = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "studies.py"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_psnr_of_a_known_error() -> None:
    truth = torch.zeros(2, 4, 4)
    truth[0, 0, 0], truth[1, 0, 0] = 1, 2
    assert STUDIES["psnr"](truth + 0.1, truth) == pytest.approx(20 + 10 * 0.30103, abs=1e-4)  # 20 and 26 dB
    turned = torch.polar(truth + 0.1, torch.ones_like(truth))
    assert STUDIES["psnr"](turned, truth) == pytest.approx(STUDIES["psnr"](truth + 0.1, truth), abs=1e-4)
    close, far = truth + 0.1, truth + 0.5
    assert STUDIES["best"]({1.0: far, 2.0: close}, truth)[0] == 2.0


def test_deformed_images_differ_and_stay_images() -> None:
    images = STUDIES["ellipses"](4, (20, 16), generator())
    moved = STUDIES["deformed"](images, generator(1))
    assert moved.shape == images.shape
    assert ((moved >= 0) & (moved <= 1.3)).all()
    assert (moved - images).square().mean() > 1e-3
    assert not torch.equal(moved, STUDIES["deformed"](images, generator(2)))
    assert torch.equal(moved, STUDIES["deformed"](images, generator(1)))


def test_heads_of_different_people(data_folder: Path) -> None:
    train, test = STUDIES["heads"](data_folder, (80, 64), 3.0, (6, 3), generator())
    assert train.shape == (6, 80, 64)
    assert test.shape == (3, 80, 64)
    for images in (train, test):
        assert 0.3 < float(images[images > 0.1].mean()) < 0.8
        assert images[:, 0].max() < 0.3  # the head lies inside


def test_without_data_there_are_ellipses() -> None:
    train, test = STUDIES["heads"](None, (20, 16), 3.0, (2, 1), generator())
    assert train.shape == (2, 20, 16)
    assert test.shape == (1, 20, 16)
    assert test.max() == pytest.approx(1, abs=1e-6)
