"""Training of PGD-Net's encoder on what it meets, without going through the iterations in every step.

With `MapLoss(detach=True)` an iterate is a constant to those after it: what the encoder is given in every
iteration is an example by itself. Most of a training step's time goes into making these examples (steps
towards the data, inversion of every voxel). So in rounds: go through all scans once, with the network as it
is then, and keep what the encoder met; learn from that for some epochs; begin again. Each round meets what
the network of the round before has made (S. Ross, G. Gordon, D. Bagnell, AISTATS 2011, arXiv:1011.0686).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.training import Settings, TrainingResult, train
from invlearn.unrolled.pgdnet import PGDNet, Scene
from invlearn.unrolled.pgdnet_pool import Pool, measured, turned
from invlearn.unrolled.pgdnet_training import MapLoss, one_by_one, truth_of

_TRUTH = ("t1", "t2", "pd")


class Encounters(Dataset[dict[str, Tensor]]):
    """What the encoder of a network meets in the scans of a pool, and the truth; kept in memory.

    Parameters
    ----------
    network
        As it is now: later changes of it change nothing here.
    pool
        The scans; of a pool that is turned, encounters are turned whenever they are read.
    """

    def __init__(self, network: PGDNet, pool: Pool) -> None:
        self.network = copy.deepcopy(network).eval()
        self.pool, self.turned = Pool(pool.folder), pool.turned
        self._met: dict[int, list[dict[str, Tensor]]] = {}

    def __len__(self) -> int:
        return len(self.pool) * self.network.iterations

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        scan, iteration = divmod(i, self.network.iterations)
        if scan not in self._met:
            self._met[scan] = self._meet(scan)
        found = self._met[scan][iteration]
        return turned(found, int(torch.randint(8, ()))) if self.turned else found

    def _meet(self, scan: int) -> list[dict[str, Tensor]]:
        item = self.pool[scan]
        truth = {name: item[name] for name in _TRUTH}
        device = self.network.basis.device
        batch = {name: value[None].to(device) for name, value in item.items()}
        scenes = self.network.scenes(measured(batch))
        share = torch.arange(1, len(scenes) + 1) / len(scenes)  # as in MapLoss, the last ones count most
        rows = []
        for scene, weight in zip(scenes, share, strict=True):
            given = {n: v.cpu() for n, v in scene._asdict().items() if v is not None}
            rows.append(given | truth | {"weight": weight})
        return rows


class _Encoding(nn.Module):
    def __init__(self, network: PGDNet, loss: MapLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        scene = Scene(**{name: batch[name][0] for name in Scene._fields if name in batch})
        row = self.loss.of(self.network.encode(scene), truth_of(self.network, batch))
        return {n: v.detach() for n, v in row.items()} | {"loss": row["loss"] * batch["weight"][0]}


def train_in_rounds(
    network: PGDNet,
    data: Pool,
    *,
    rounds: int,
    epochs: int,
    loss: MapLoss,
    val: Pool | None = None,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train the encoder in rounds; for the same number of updates in a fraction of the time.

    Parameters
    ----------
    network
        Changed in place.
    data
        A pool.
    rounds, epochs
        How often to go through the iterations, and how often to learn from what was met there. The learning
        rate falls from round to round in a straight line, and within a round as the settings have it.
    loss
        From maps, with `detach`.
    val
        Another pool. After a round the weights of its best epoch on these scans are kept.
    settings
        Of the trainer; batches are of one. Rounds have folders of their own in its folder.

    Returns
    -------
    TrainingResult
        Of all rounds, with epochs and steps counted through; the best epoch is that of the last round.

    Raises
    ------
    ValueError
        Rounds below 1, a loss without `detach`, larger batches, a decoder that was not fitted, and as
        `train`.
    """
    settings = one_by_one("train_in_rounds", network, settings)
    if rounds < 1:
        raise ValueError(f"train_in_rounds needs at least one round, got {rounds}")
    if not loss.detach:
        raise ValueError("train_in_rounds: iterates are constants here, which MapLoss(detach=False) denies")
    history: list[dict[str, int | float]] = []
    best = 0
    for number in range(rounds):
        of_round = replace(
            settings,
            learning_rate=settings.learning_rate * (1 - number / rounds),
            seed=settings.seed + number,
            folder=None if settings.folder is None else Path(settings.folder) / f"round_{number:02}",
        )
        result = train(
            _Encoding(network, loss),
            Encounters(network, data),
            epochs=epochs,
            val=None if val is None else Encounters(network, val),
            settings=of_round,
        )
        steps = int(history[-1]["step"]) if history else 0
        best = len(history) + result.best_epoch
        for row in result.history:
            place = {"round": number + 1, "epoch": len(history) + 1, "step": steps + row["step"]}
            history.append({**place, **{n: v for n, v in row.items() if n not in place}})
    return replace(result, history=tuple(history), best_epoch=best)


@torch.no_grad()
def mean_errors(network: PGDNet, pool: Pool, loss: MapLoss) -> dict[str, float]:
    """The loss and its parts over the scans of a pool, of all iterations afresh.

    Parameters
    ----------
    network
        On the processor.
    pool
        Scans with their truth.
    loss
        What to measure.
    """
    sums: dict[str, float] = {}
    for i in range(len(pool)):
        batch = {name: value[None] for name, value in pool[i].items()}
        for name, value in loss(network, batch, Generator()).items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(pool)
    return sums
