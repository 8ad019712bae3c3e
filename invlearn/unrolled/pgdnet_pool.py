"""Simulated scans to train PGD-Net on: written once to a folder, read scan by scan.

Groups of scans share a matrix and a trajectory, so that the K × K transfer functions are computed once for
each group. Every scan has its own anatomy, coils, receive phase and noise, goes through the same simulation
and the same estimation of coil maps as any other, and is kept as what PGD-Net needs of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from invlearn.io.runs import write_json
from invlearn.physics.mri import trajectories
from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.physics.mri.fingerprint.anatomy import random_coils, receive_phase
from invlearn.physics.mri.fingerprint.simulate import simulate_scan
from invlearn.unrolled.fingerprinting import estimated_coil_maps, subspace_problem
from invlearn.unrolled.pgdnet import Measured, PGDNet, Start
from invlearn.unrolled.pgdnet_subjects import Anatomy

Progress = Callable[[int, int], None]

_ABOUT = "pool.json"
_SPLIT = 0.6  # of the samples for the network, where the rest is to test it


@dataclass(frozen=True)
class Variety:
    """What scans are drawn from.

    Attributes
    ----------
    sizes
        Sides of the matrix, in pixels.
    turns
        Matrix over interleaves of a spiral, from, to (drawn uniformly in its logarithm): how much of k-space
        one arm covers.
    radial
        Share of groups with spokes instead of spiral arms.
    coils
        Their number, from, to.
    snr
        In dB, from, to.
    b1
        Share of scans with a known B1 map.
    """

    sizes: tuple[int, ...] = (64, 80, 96, 112)
    turns: tuple[float, float] = (1.2, 5.0)
    radial: float = 0.15
    coils: tuple[int, int] = (4, 10)
    snr: tuple[float, float] = (18.0, 45.0)
    b1: float = 0.2

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 16:
            raise ValueError(f"Variety: sizes are at least 16 pixels, got {self.sizes}")
        for name in ("turns", "coils", "snr"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"Variety: {name} runs from a positive to a larger number, got {low}, {high}"
                )
        for name in ("radial", "b1"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Variety: {name} is a share, 0 to 1, got {getattr(self, name)}")

    def draw_trajectory(self, size: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """`(arms, samples, 2)`, an arm a frame."""
        if rng.random() < self.radial:
            return trajectories.radial(frames, int(size * rng.uniform(1, 2)), golden_angle=True).numpy()
        turns = math.exp(rng.uniform(*np.log(self.turns)))
        samples = int(size * math.pi / 4 * turns * rng.uniform(1.0, 1.8)) + size // 2
        density = (1.0, 1.0) if rng.random() < 0.7 else (rng.uniform(1, 1.6), rng.uniform(0.5, 1))
        return trajectories.spiral(
            frames,
            samples,
            (size, size),
            density=density,
            interleaves=max(1, round(size / turns)),
            golden_angle=bool(rng.random() < 0.8),
        ).numpy()


def write_pool(
    folder: str | os.PathLike[str],
    network: PGDNet,
    anatomy: Anatomy,
    scans: int,
    *,
    variety: Variety = Variety(),
    groups: int | None = None,
    split: bool = False,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> Pool:
    """Simulate scans for a network's sequence and basis; goes on where an interrupted call ended.

    Parameters
    ----------
    folder
        Where to write; some megabytes a scan and a group.
    network
        Its sequence, basis and decoder are used, and its number of first steps; not the CNN.
    anatomy
        Who is scanned, see `pgdnet_subjects`.
    scans, groups
        How many; a group for every 24 scans by default.
    variety
        What to draw matrix, trajectory, coils and noise from.
    split
        Keep the samples in two parts, at random: a network that sees one is tested on the other.
    seed
        Of everything. Another seed is another pool.
    progress
        Called with scans done and their number.

    Raises
    ------
    ValueError
        Fewer scans than 1, a folder with another pool.
    """
    if scans < 1:
        raise ValueError(f"write_pool: needs at least one scan, got {scans}")
    groups = math.ceil(scans / 24) if groups is None else groups
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "scans": scans,
        "groups": groups,
        "split": split,
        "seed": seed,
        "variety": json.loads(json.dumps(asdict(variety))),
        "basis": network.digest(),
        "start": network.start,
    }
    known = folder / _ABOUT
    if known.exists() and json.loads(known.read_text(encoding="utf-8")) != about:
        raise ValueError(
            f"{folder} holds another pool of scans, see {known}; give another folder or remove it"
        )
    write_json(known, about)
    for group in range(groups):
        numbers = [i for i in range(scans) if i % groups == group]
        if all(_file(folder, i).exists() for i in numbers):
            continue
        source = _Group(network, variety, split, np.random.default_rng([seed, 0, group]))
        if not (kernels := folder / f"group_{group:03}.npz").exists():
            _save(kernels, source.kernels())
        with np.load(kernels) as archive:
            kernel = torch.from_numpy(archive["kernel"])
        for i in numbers:
            if not _file(folder, i).exists():
                scan = source.scan(anatomy, np.random.default_rng([seed, 1, i]))
                item = {name: torch.from_numpy(value) for name, value in scan.items()} | {"kernel": kernel}
                _save(_file(folder, i), scan | _starts(network, item))
            progress(sum(1 for _ in folder.glob("scan_*.npz")), scans)
    return Pool(folder)


class _Group:
    """A matrix and a trajectory, and scans with them."""

    def __init__(self, network: PGDNet, variety: Variety, split: bool, rng: np.random.Generator) -> None:
        self.network, self.variety = network, variety
        size = int(rng.choice(variety.sizes))
        self.shape = (size, size)
        self.arms = variety.draw_trajectory(size, network.sequence.frames, rng)
        samples = self.arms.shape[0] * self.arms.shape[1]
        first = rng.random(samples) < _SPLIT
        self.parts = [
            torch.from_numpy(p.astype(np.float32)) for p in ((first, ~first) if split else (first | True,))
        ]

    def _operator(self, part: Tensor, maps: Tensor | None) -> FingerprintOperator:
        frames, samples = self.arms.shape[:2]
        return FingerprintOperator(
            torch.from_numpy(self.arms.reshape(-1, 2)),
            torch.arange(frames).repeat_interleave(samples),
            self.network.basis,
            self.shape,
            maps,
            weights=part,
            eps=1e-4,
        )

    def kernels(self) -> dict[str, np.ndarray]:
        found = [self._operator(part, None).transfer(torch.float32) for part in self.parts]
        return {"kernel": torch.stack(found).numpy()}

    def scan(self, anatomy: Anatomy, rng: np.random.Generator) -> dict[str, np.ndarray]:
        truth = anatomy(rng, self.shape)
        low, high = self.variety.coils
        maps = random_coils(int(rng.integers(low, high + 1)), self.shape, rng) * receive_phase(
            self.shape, rng
        )
        data = simulate_scan(
            truth,
            self.network.sequence,
            self.arms,
            coils=maps,
            snr=float(rng.uniform(*self.variety.snr)),
            seed=int(rng.integers(2**31)),
        )
        found = estimated_coil_maps(data, self.network.basis.to(torch.complex64))
        problem = subspace_problem(data, self.network.basis.to(torch.complex64), found, torch.device("cpu"))
        seen = self.parts if len(self.parts) > 1 else [torch.ones(data.samples)]
        parts = [problem.kspace * part for part in seen]
        # as the estimated maps and the decoder, which leaves the common phase out, have it
        pd = truth.pd * (np.conj(found.numpy()) * maps).sum(0) * self.network.phase
        kept = {
            "back_projection": torch.stack(
                [self._operator(p, found).adjoint(y) for p, y in zip(self.parts, parts, strict=True)]
            ).numpy(),
            "coil_maps": found.numpy(),
            "gain": np.stack([(problem.gain * p.mean()).numpy() for p in seen]),
            "energy": np.array([float(y.abs().double().square().sum()) for y in parts]),
            "samples": np.array([int(p.sum()) * data.coils for p in seen]),
            "t1": truth.t1.astype(np.float32),
            "t2": truth.t2.astype(np.float32),
            "pd": pd.astype(np.complex64),
        }
        return kept if truth.b1 is None else {**kept, "b1": truth.b1.astype(np.float32)}


def _starts(network: PGDNet, item: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What the network begins with, for all samples or for each part."""
    batch = {name: value[None] for name, value in item.items()}
    parts = len(item["energy"])
    found = [network.first(measured(batch, part if parts > 1 else None)) for part in range(parts)]
    return {
        "start_images": torch.stack([start.images for start in found]).numpy(),
        "start_noise": np.array([start.noise for start in found]),
        "start_scale": np.array([float(start.scale) for start in found]),
    }


def _file(folder: Path, number: int) -> Path:
    return folder / f"scan_{number:05}.npz"


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez(scratch, **arrays)  # type: ignore[arg-type]
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


class Pool(Dataset[dict[str, Tensor]]):
    """The scans of a folder that `write_pool` wrote.

    Parameters
    ----------
    folder
        Where.
    turned
        Whether each scan is flipped and transposed at random (with its trajectory) whenever it is read.

    Raises
    ------
    FileNotFoundError
        No pool there.
    """

    def __init__(self, folder: str | os.PathLike[str], *, turned: bool = False) -> None:
        self.folder, self.turned = Path(folder), turned
        about = self.folder / _ABOUT
        if not about.is_file():
            raise FileNotFoundError(f"{self.folder} holds no pool of scans")
        self.about: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
        self._kernels: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return int(self.about["scans"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        with np.load(_file(self.folder, i)) as archive:
            found = {name: torch.from_numpy(archive[name]) for name in archive.files}
        group = i % self.about["groups"]
        if group not in self._kernels:
            with np.load(self.folder / f"group_{group:03}.npz") as archive:
                self._kernels[group] = torch.from_numpy(archive["kernel"])
        found["kernel"] = self._kernels[group]
        return turned(found, int(torch.randint(8, ()))) if self.turned else found


_NUMBERS = ("energy", "samples", "start_noise", "start_scale")


def turned(item: dict[str, Tensor], which: int) -> dict[str, Tensor]:
    """Images `(..., H, W)` and k-space, one of eight ways; numbers as they are.

    Parameters
    ----------
    item
        Of a pool, or of what its scans become.
    which
        0 to 7: a bit for each flip, one for the transposition.
    """
    found = {}
    for name, value in item.items():
        if name not in _NUMBERS and value.ndim > 1:
            for bit, axis in ((1, -2), (2, -1)):
                if which & bit:
                    value = value.flip(axis)
                    value = value.roll(1, axis) if name == "kernel" else value  # zero frequency first
            value = value.transpose(-1, -2) if which & 4 else value
        found[name] = value
    return found


def measured(batch: dict[str, Tensor], part: int | None = None) -> Measured:
    """A scan of a pool, as a batch of one; of its samples one part, or all."""

    def chosen(name: str) -> Tensor:
        return batch[name][0].sum(0) if part is None else batch[name][0, part]

    return Measured(
        chosen("kernel"),
        batch["coil_maps"][0],
        chosen("back_projection"),
        chosen("gain"),
        float(chosen("energy")),
        int(chosen("samples")),
        batch["b1"][0] if "b1" in batch else None,
        _start(batch, part),
    )


def _start(batch: dict[str, Tensor], part: int | None) -> Start | None:
    """The one that was kept for these samples."""
    if "start_images" not in batch:
        return None
    if part is None and batch["energy"].shape[-1] > 1:
        return None
    at = part or 0
    scale = batch["start_scale"][0, at].to(torch.float32)
    return Start(batch["start_images"][0, at], float(batch["start_noise"][0, at]), scale)
