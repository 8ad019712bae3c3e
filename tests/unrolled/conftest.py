"""A small PGD-Net and scans for it, shared by its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.io import Scan
from invlearn.io.maps import TissueMaps
from invlearn.physics.mri import FingerprintSequence, trajectories
from invlearn.physics.mri.fingerprint import Dictionary, Grid
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps, simulate_scan
from invlearn.unrolled.pgdnet import PGDNet
from invlearn.unrolled.pgdnet_pool import Variety, write_pool
from invlearn.unrolled.pgdnet_subjects import synthetic
from invlearn.unrolled.pixelwise import SignalNetwork

FRAMES, RANK = 60, 6


class Small:
    """Makes small things."""

    def __init__(self) -> None:
        grid = Grid.logarithmic((0.1, 5.0), (0.01, 2.5), step=0.2)
        self.sequence = FingerprintSequence.default(FRAMES)
        self.dictionary = Dictionary.build(self.sequence, grid, rank=RANK)

    def network(self, **options: Any) -> PGDNet:
        """Before training."""
        torch.manual_seed(0)
        settings = {"iterations": 3, "width": 4, "levels": 2} | options
        decoder = SignalNetwork(RANK, 150, (0.9, 1.0, 1.1))
        network = PGDNet(self.sequence, self.dictionary.basis, self.dictionary.phase, decoder, **settings)
        network.fit_decoder(atoms=2000)
        return network.eval()

    def tissue(self, size: int = 24) -> TissueMaps:
        """A disc in a disc."""
        y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
        label = (np.hypot(x, y) < 0.8).astype(int) + (np.hypot(x, y) < 0.5)
        t1 = np.array([0, 1.3, 0.8])[label] * (1 + 0.05 * x)
        t2 = np.array([0, 0.1, 0.07])[label] * (1 + 0.05 * y)
        return TissueMaps(t1, t2, np.array([0, 0.85, 0.7])[label])

    def scan(self, size: int = 24, coils: int = 4) -> Scan:
        """Of that, 40 dB."""
        shape = (size, size)
        arms = trajectories.spiral(FRAMES, 6 * size, shape, interleaves=size // 2, golden_angle=True)
        return simulate_scan(
            self.tissue(size), self.sequence, arms, coils=birdcage_maps(coils, shape), snr=40.0
        )


@pytest.fixture(scope="session")
def small() -> Small:
    return Small()


@pytest.fixture(scope="session")
def small_network(small: Small) -> PGDNet:
    """Tests that change it take a copy."""
    return small.network()


@pytest.fixture(scope="session")
def small_pool(small_network: PGDNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans in two parts, two groups."""
    folder = tmp_path_factory.mktemp("pool")
    variety = Variety(sizes=(24,), coils=(3, 4), snr=(35.0, 40.0))
    write_pool(folder, small_network, synthetic(0.5), 3, variety=variety, groups=2, split=True, seed=5)
    return folder
