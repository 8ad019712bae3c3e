"""Learning from maps and from k-space alone: losses against their definition, and that they fall."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from invlearn.training import Settings
from invlearn.unrolled import pgdnet_training as module
from invlearn.unrolled.pgdnet import Estimate, PGDNet
from invlearn.unrolled.pgdnet_pool import Pool, measured
from invlearn.unrolled.pgdnet_training import KspaceLoss, MapLoss, loss_card, new_pgdnet, train_pgdnet
from invlearn.unrolled.pixelwise import SignalNetwork

PLAIN = Settings(batch_size=1, progress=False, learning_rate=1e-2)


def batch(pool: Path, i: int = 0) -> dict[str, Tensor]:
    return {name: value[None] for name, value in Pool(pool)[i].items()}


def test_the_truth_has_no_loss(small_network: PGDNet, small_pool: Path) -> None:
    truth = module.truth_of(small_network, batch(small_pool))
    found = Estimate(truth.point, truth.density, truth.images, truth.images, 0.0)
    assert float(MapLoss().of(found, truth)["loss"]) < 1e-5


def test_the_loss_of_maps_counts_what_it_says(small_network: PGDNet, small_pool: Path) -> None:
    truth = module.truth_of(small_network, batch(small_pool))
    point = truth.point.clone()
    point[0] += 0.1
    found = Estimate(point, truth.density + 0.2 * truth.scale, truth.images, truth.images, 0.0)
    row = MapLoss(t1=2.0, pd=3.0).of(found, truth)
    assert float(row["t1"]) == pytest.approx(0.1, abs=0.005)
    assert float(row["t2"]) == pytest.approx(0, abs=1e-6)
    assert float(row["pd"]) == pytest.approx(0.2, rel=1e-4)
    assert float(row["loss"]) == pytest.approx(2 * 0.0951 + 3 * 0.2, abs=1e-3)
    halves = Estimate(truth.point, truth.density, 1.5 * truth.images, truth.images, 0.0)
    images = [float(MapLoss(images=w).of(halves, truth)["loss"]) for w in (0.0, 0.5, 1.0)]
    assert images[0] < 1e-5 < images[1] == pytest.approx(images[2] / 2, rel=1e-3)
    moved = truth.point.clone()
    moved[1] += 0.1
    other = Estimate(moved, truth.density, truth.images, truth.images, 0.0)
    assert float(MapLoss(t2=0.0).of(other, truth)["loss"]) < 1e-5


def test_air_has_no_tissue(small_network: PGDNet, small_pool: Path) -> None:
    truth = module.truth_of(small_network, batch(small_pool))
    point = truth.point.clone()
    point[:, truth.density == 0] += 1.0
    found = Estimate(point, truth.density, truth.images, truth.images, 0.0)
    assert float(MapLoss().of(found, truth)["loss"]) < 1e-5


def test_every_iterate_counts_the_last_most(
    small_network: PGDNet, small_pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = iter((1.0, 10.0, 100.0))
    monkeypatch.setattr(MapLoss, "of", lambda self, found, truth: {"loss": torch.tensor(next(weights))})
    found = MapLoss()(small_network, batch(small_pool), Generator())
    assert float(found["loss"]) == pytest.approx((1 + 20 + 300) / 6)


def test_a_robust_loss_bends_large_errors(small_network: PGDNet, small_pool: Path) -> None:
    one, only = batch(small_pool), {"pd": 0.0, "images": 0.0}
    with torch.no_grad():
        plain, bent, wide = (
            float(MapLoss(robust=e, **only)(small_network, one, Generator())["loss"])
            for e in (None, 0.01, 1000.0)
        )
    assert bent < 0.8 * plain
    assert wide == pytest.approx(plain, rel=1e-3)
    with pytest.raises(ValueError, match="robust is a positive error"):
        MapLoss(robust=0.0)


def test_a_relative_loss_counts_shares(small_network: PGDNet, small_pool: Path) -> None:
    """A tenth less error is worth the same where there is little and where there is much."""
    truth = module.truth_of(small_network, batch(small_pool))

    def loss(size: float, **options: float) -> float:
        point = truth.point + torch.tensor([size, 2 * size])[:, None, None]
        found = Estimate(
            point, truth.density + size * truth.scale, (1 + size) * truth.images, truth.images, 0.0
        )
        return float(MapLoss(relative=True, **options).of(found, truth)["loss"])

    assert loss(0.5) - loss(0.45) == pytest.approx(loss(0.1) - loss(0.09), rel=0.05)
    for name in ("t1", "t2", "pd", "images"):
        gap = loss(0.5, **{name: 5.0}) - loss(0.25, **{name: 5.0})
        usual = loss(0.5, **{name: 0.0}) - loss(0.25, **{name: 0.0})
        assert gap - usual == pytest.approx(5 * np.log(2), rel=0.05)


def test_the_loss_of_kspace_is_its_definition(small_network: PGDNet, small_pool: Path) -> None:
    one = batch(small_pool)
    with torch.no_grad():
        rows = [KspaceLoss(c)(small_network, one, Generator()) for c in (0.0, 0.5)]
        seen, kept = measured(one, 0), measured(one, 1)
        x = small_network(seen)[-1].images
    left = [
        s.noise(x, s.normal(x)) ** 2 * max(s.samples - x.numel(), s.samples // 2) / s.energy
        for s in (kept, seen)
    ]
    assert float(rows[0]["loss"]) == pytest.approx(left[0], rel=1e-3)
    assert float(rows[1]["loss"]) == pytest.approx(left[0] + 0.5 * left[1], rel=1e-3)
    # samples that were seen are explained better than those that were not
    assert left[1] < left[0]


@pytest.mark.parametrize("loss", [MapLoss(), MapLoss(detach=False), KspaceLoss()])
def test_training_lowers_the_loss_of_its_scan(
    small_network: PGDNet, small_pool: Path, loss: MapLoss | KspaceLoss
) -> None:
    network, pool = copy.deepcopy(small_network), torch.utils.data.Subset(Pool(small_pool), [0])
    torch.manual_seed(0)
    torch.nn.init.normal_(network.encoder.head.weight, std=0.03)  # something to unlearn
    result = train_pgdnet(network, pool, epochs=22, loss=loss, settings=PLAIN)
    history = [row["train/loss"] for row in result.history]
    assert history[-1] < 0.97 * history[0]
    torch.testing.assert_close(network.decoder.output, small_network.decoder.output)


def test_a_new_network(small: Any) -> None:
    network, about = new_pgdnet(
        small.sequence, rank=4, seed=3, decoder=SignalNetwork(4, 60), width=3, levels=1
    )
    assert (network.rank, network.unet.width) == (4, 3)
    assert about["decoder_error"] < 0.01
    assert 0 < about["energy_outside_the_subspace"] < 0.01
    weights = [
        new_pgdnet(small.sequence, rank=4, seed=seed, decoder=SignalNetwork(4, 60), width=3, levels=1)[0]
        .encoder.encoder[0][0]
        .weight
        for seed in (3, 4)
    ]
    torch.testing.assert_close(weights[0], network.encoder.encoder[0][0].weight)
    assert not torch.equal(weights[0], weights[1])


def test_cards() -> None:
    assert loss_card(KspaceLoss(0.2)) == {"kind": "KspaceLoss", "consistency": 0.2}
    assert loss_card(MapLoss())["t2"] == 1.0


def test_bad_input(small_network: PGDNet, small_pool: Path, small: Any) -> None:
    with pytest.raises(ValueError, match="one scan a step, set batch_size=1, got 4"):
        train_pgdnet(small_network, Pool(small_pool), epochs=1, settings=Settings(batch_size=4))
    with pytest.raises(ValueError, match=r"call network\.fit_decoder"):
        train_pgdnet(PGDNet(small.sequence, small.dictionary.basis), Pool(small_pool), epochs=1)
    one = {name: value[:, :1] if name == "energy" else value for name, value in batch(small_pool).items()}
    with pytest.raises(ValueError, match="needs a pool of scans in two parts"):
        KspaceLoss()(small_network, one, Generator())
    for kind, name in ((MapLoss, "t1"), (MapLoss, "images"), (KspaceLoss, "consistency")):
        with pytest.raises(ValueError, match=f"{name} is a weight, at least 0"):
            kind(**{name: -1.0})
