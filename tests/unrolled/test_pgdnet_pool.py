"""Pools of scans: the same from the same seed, gone on with, true to the operator and to the maps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.unrolled import pgdnet_pool
from invlearn.unrolled.pgdnet import PGDNet
from invlearn.unrolled.pgdnet_pool import Pool, Variety, measured, write_pool
from invlearn.unrolled.pgdnet_subjects import synthetic

VARIETY = Variety(sizes=(24,), coils=(3, 4), snr=(35.0, 40.0))


def batch(pool: Pool, i: int) -> dict[str, Tensor]:
    return {name: value[None] for name, value in pool[i].items()}


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / name) as archive:
        return dict(archive)


def truth_images(network: PGDNet, item: dict[str, Tensor]) -> Tensor:
    inside = item["pd"].abs() > 0
    point = torch.stack([item["t1"], item["t2"]]).where(inside, torch.tensor(1.0)).log()
    b1 = item["b1"].flatten() if "b1" in item else None
    atoms = network.decoder(point.flatten(1).T, b1)
    return (atoms * item["pd"].flatten()[:, None]).T.reshape(network.rank, *inside.shape)


def test_the_maps_explain_the_scan(small_network: PGDNet, small_pool: Path) -> None:
    """Phase, coils, unit and B1 of the truth are those of the data: only noise and truncation are left."""
    pool = Pool(small_pool)
    assert len(pool) == 3
    for i in range(3):
        x, scan = truth_images(small_network, pool[i]), measured(batch(pool, i))
        image = scan.normal(x)
        left = scan.noise(x, image) / np.sqrt(scan.energy / scan.samples)
        assert left < 0.2  # with the error of the estimated coil maps
        fit = (x.conj() * scan.back_projection).sum() / (x.conj() * image).sum()
        assert abs(complex(fit) - 1) < 0.01


def test_two_parts_are_the_whole(small_pool: Path) -> None:
    item = batch(Pool(small_pool), 0)
    whole, parts = measured(item), [measured(item, i) for i in range(2)]
    assert sum(p.samples for p in parts) == whole.samples
    assert 0.5 < parts[0].samples / whole.samples < 0.7
    assert sum(p.energy for p in parts) == pytest.approx(whole.energy)
    x = torch.randn(6, 24, 24, dtype=torch.complex64)
    torch.testing.assert_close(sum(p.normal(x) for p in parts), whole.normal(x), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(sum(p.gain for p in parts), whole.gain)
    assert not torch.equal(parts[0].back_projection, parts[1].back_projection)


def test_the_gain_is_the_diagonal(small_network: PGDNet, small_pool: Path) -> None:
    scan = measured(batch(Pool(small_pool), 1))
    unit = torch.zeros(6, 24, 24, dtype=torch.complex64)
    unit[:, 11, 13] = 1
    diagonal = sum(
        float(scan.normal(unit * (torch.arange(6) == k)[:, None, None])[k, 11, 13].real) for k in range(6)
    )
    assert diagonal / 6 == pytest.approx(float(scan.gain[11, 13]), rel=0.02)


def test_it_goes_on_and_comes_from_the_seed(small_network: PGDNet, small_pool: Path, tmp_path: Path) -> None:
    whole = tmp_path / "pool"
    shutil.copytree(small_pool, whole)
    (whole / "scan_00001.npz").unlink()
    told: list[tuple[int, int]] = []
    write_pool(
        whole,
        small_network,
        synthetic(0.5),
        3,
        variety=VARIETY,
        groups=2,
        split=True,
        seed=5,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(3, 3)]
    for name in ("scan_00001.npz", "group_001.npz"):
        first, again = arrays(small_pool, name), arrays(whole, name)
        assert first.keys() == again.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], again[key])
    with pytest.raises(ValueError, match="holds another pool of scans"):
        write_pool(whole, small_network, synthetic(), 3, variety=VARIETY, groups=2, split=True, seed=6)
    one = write_pool(tmp_path / "other", small_network, synthetic(), 1, variety=VARIETY, seed=6)
    assert one[0]["energy"].shape == (1,)
    assert not np.array_equal(one[0]["t1"], Pool(small_pool)[0]["t1"])


def test_turned_scans_are_scans(small_pool: Path) -> None:
    """Image, coils and transfer functions turn together: AᴴA of the turned image is AᴴA x turned."""
    item = Pool(small_pool)[0]
    x = torch.randn(6, 24, 24, dtype=torch.complex64)
    straight = measured({n: v[None] for n, v in item.items()}).normal(x)
    seen = set()
    for which in range(8):
        turned = pgdnet_pool.turned({**item, "x": x, "normal": straight}, which)
        found = measured({n: v[None] for n, v in turned.items()}).normal(turned["x"])
        torch.testing.assert_close(found, turned["normal"], rtol=1e-3, atol=1e-2)
        seen.add(float(turned["t1"].flatten() @ torch.arange(576.0)))
    assert len(seen) == 8
    random = Pool(small_pool, turned=True)
    torch.manual_seed(0)
    assert len({float(random[0]["t1"].flatten() @ torch.arange(576.0)) for _ in range(12)}) > 3


def test_variety_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    spokes = Variety(radial=1.0).draw_trajectory(32, 40, rng)
    (x, y), (u, v) = spokes[:, 3].T, spokes[:, -1].T
    np.testing.assert_allclose(x * v, y * u, atol=1e-9)  # through the middle
    counts = []
    for turns in (1.2, 5.0):
        arms = Variety(radial=0.0, turns=(turns, turns)).draw_trajectory(32, 40, rng)
        assert arms.shape[0] == 40
        counts.append(arms.shape[1])
    assert counts[1] > 1.5 * counts[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ()}, "sizes are at least 16 pixels"),
        ({"turns": (5.0, 1.0)}, "turns runs from a positive to a larger number"),
        ({"radial": 1.5}, "radial is a share"),
    ],
)
def test_impossible_variety(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variety(**change)


def test_bad_input(small_network: PGDNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs at least one scan"):
        write_pool(tmp_path, small_network, synthetic(), 0)
    with pytest.raises(FileNotFoundError, match="holds no pool"):
        Pool(tmp_path)


def test_the_kernel_is_the_operators(small_network: PGDNet) -> None:
    group = pgdnet_pool._Group(small_network, VARIETY, False, np.random.default_rng(0))
    frames, samples = group.arms.shape[:2]
    operator = FingerprintOperator(
        group.arms.reshape(-1, 2), np.repeat(np.arange(frames), samples), small_network.basis, (24, 24)
    )
    found = torch.from_numpy(group.kernels()["kernel"][0])
    torch.testing.assert_close(found, operator.transfer(torch.float32), rtol=1e-4, atol=1e-2)
