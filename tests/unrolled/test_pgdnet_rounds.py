"""Training on what the encoder meets."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from invlearn.training import Settings
from invlearn.unrolled.pgdnet import PGDNet, Scene
from invlearn.unrolled.pgdnet_pool import Pool, measured
from invlearn.unrolled.pgdnet_rounds import Encounters, mean_errors, train_in_rounds
from invlearn.unrolled.pgdnet_training import MapLoss, truth_of

PLAIN = Settings(batch_size=1, progress=False, learning_rate=3e-3)
LOSS = MapLoss()


def test_scenes_are_those_of_the_iterations(small_network: PGDNet, small_pool: Path) -> None:
    batch = {name: value[None] for name, value in Pool(small_pool)[0].items()}
    scan = measured(batch)
    with torch.no_grad():
        found = small_network(scan)
    scenes = small_network.scenes(scan)
    assert len(scenes) == len(found) == 3
    for scene, estimate in zip(scenes, found, strict=True):
        torch.testing.assert_close(small_network.encode(scene).point, estimate.point, rtol=0, atol=0)
    assert scenes[0].last_point is None
    torch.testing.assert_close(scenes[2].last_point, found[1].point, rtol=0, atol=0)


def test_an_epoch_of_encounters_has_the_loss_of_the_scans(small_network: PGDNet, small_pool: Path) -> None:
    """Σ_t w_t, w_t proportional to t: up to the factor that makes the weights' sum 1, the same number."""
    pool = Pool(small_pool)
    met = Encounters(small_network, pool)
    assert len(met) == 3 * len(pool)
    batch = {name: value[None] for name, value in pool[1].items()}
    wanted = float(LOSS(small_network, batch, Generator())["loss"].detach())
    result = train_in_rounds(
        copy.deepcopy(small_network),
        pool,
        rounds=1,
        epochs=1,
        loss=LOSS,
        settings=replace(PLAIN, learning_rate=1e-30),
    )
    every = [
        float(LOSS(small_network, {n: v[None] for n, v in pool[i].items()}, Generator())["loss"].detach())
        for i in range(len(pool))
    ]
    assert result.history[0]["train/loss"] == pytest.approx(sum(every) / len(every) * 2 / 3, rel=1e-4)
    rows = [met[3 + t] for t in range(3)]
    total = 0.0
    for row in rows:
        scene = Scene(**{name: row[name] for name in Scene._fields if name in row})
        one = {name: value[None] for name, value in row.items()}
        with torch.no_grad():
            total += float(
                row["weight"] * LOSS.of(small_network.encode(scene), truth_of(small_network, one))["loss"]
            )
    assert total / 2 == pytest.approx(wanted, rel=1e-4)


def test_encounters_know_the_network_as_it_was(small_network: PGDNet, small_pool: Path) -> None:
    network = copy.deepcopy(small_network)
    met, then = Encounters(network, Pool(small_pool)), Encounters(network, Pool(small_pool))
    before = met[2]["images"]
    with torch.no_grad():
        network.encoder.head.bias.add_(0.3)
    torch.testing.assert_close(then[2]["images"], before, rtol=0, atol=0)
    assert not torch.allclose(Encounters(network, Pool(small_pool))[2]["images"], before)


def test_turned_encounters_are_encounters(small_network: PGDNet, small_pool: Path) -> None:
    straight = Encounters(small_network, Pool(small_pool))[0]
    met = Encounters(small_network, Pool(small_pool, turned=True))
    sides = set()
    for seed in range(12):
        torch.manual_seed(seed)
        found = met[0]
        sides.add(found["point"][0].argmax().item())
        assert float(found["t1"].sum()) == pytest.approx(float(straight["t1"].sum()), rel=1e-5)
        assert found["noise"] == straight["noise"]
        where = found["t1"].argmax()
        torch.testing.assert_close(
            found["point"][0].flatten()[where], straight["point"][0].flatten()[straight["t1"].argmax()]
        )
    assert len(sides) > 4


def test_rounds_lower_the_errors(small_network: PGDNet, small_pool: Path) -> None:
    network, pool = copy.deepcopy(small_network), Pool(small_pool)
    before = mean_errors(network, pool, LOSS)
    result = train_in_rounds(network, pool, rounds=2, epochs=8, loss=LOSS, settings=PLAIN)
    assert [row["round"] for row in result.history] == [1] * 8 + [2] * 8
    assert [row["epoch"] for row in result.history] == list(range(1, 17))
    assert result.history[-1]["step"] == 16 * 3 * len(pool)
    assert result.best_epoch == 16
    rates = [row["learning_rate"] for row in result.history]
    assert rates[-1] == pytest.approx(rates[0] / 2)
    after = mean_errors(network, pool, LOSS)
    assert set(after) == {"loss", "t1", "t2", "pd", "images"}
    assert after["loss"] < 0.85 * before["loss"]


def test_an_interrupted_training_ends_the_same(
    small_network: PGDNet, small_pool: Path, tmp_path: Path
) -> None:
    def trained(place: str, resume: bool = False) -> PGDNet:
        network = copy.deepcopy(small_network)
        settings = replace(PLAIN, folder=tmp_path / place, resume=resume, checkpoint_steps=1)
        pool = Pool(small_pool, turned=True)
        train_in_rounds(network, pool, rounds=2, epochs=2, loss=LOSS, val=Pool(small_pool), settings=settings)
        return network

    whole = trained("a")
    trained("b")
    (tmp_path / "b" / "round_01" / "last.ckpt").unlink()
    again = trained("b", resume=True)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_bad_values(small_network: PGDNet, small_pool: Path) -> None:
    pool = Pool(small_pool)
    for change, words in (
        ({"rounds": 0}, "at least one round"),
        ({"loss": MapLoss(detach=False)}, "constants"),
        ({"settings": Settings(batch_size=2)}, "batch_size=1"),
    ):
        with pytest.raises(ValueError, match=words):
            train_in_rounds(small_network, pool, **{"rounds": 1, "epochs": 1, "loss": LOSS} | change)
    unfitted = PGDNet(small_network.sequence, small_network.basis)
    with pytest.raises(ValueError, match="fit_decoder"):
        train_in_rounds(unfitted, pool, rounds=1, epochs=1, loss=LOSS)
