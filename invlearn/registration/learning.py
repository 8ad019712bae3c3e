"""Training WiNet: pairs of volumes or synthetic ones, and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.registration.fields import exponential, warp
from invlearn.registration.metrics import dice
from invlearn.registration.regularise import gradient_energy
from invlearn.registration.similarity import lncc
from invlearn.registration.synthesis import Synthesis
from invlearn.registration.winet import WiNet
from invlearn.training import Settings, TrainingResult, train

Sample = dict[str, Tensor]
_BODY = 0.05  # of the brightness; what is darker is background, and does not show where it went


@dataclass(frozen=True)
class Objective:
    """What is minimised: ``-similarity * lncc + smoothness * mean |∇v|² + supervision * mean |v - truth|²``.

    Attributes
    ----------
    similarity
        Of the local correlation; 0 does without it, and without the warp that it takes.
    smoothness
        Of the network's output, the velocity or displacement in voxels.
    radius
        Of the windows of the local correlation, in voxels.
    symmetric
        Compare in both directions, with exp(v) and exp(-v).
    supervision
        Of synthetic pairs, whose velocity is known; per square voxel, inside the body.

    Raises
    ------
    ValueError
        A negative weight, or no window.

    References
    ----------
    Balakrishnan et al., VoxelMorph: a learning framework for deformable medical image registration, IEEE
    Trans. Med. Imaging 38, 2019, doi:10.1109/TMI.2019.2897538.
    """

    similarity: float = 1.0
    smoothness: float = 1.0
    radius: int = 4
    symmetric: bool = False
    supervision: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.similarity, self.smoothness, self.supervision)
        if min(weights) < 0 or max(self.similarity, self.supervision) == 0:
            raise ValueError(
                "Objective: similarity, smoothness and supervision are not negative, and one of the first "
                f"and the last is not 0; got {weights}"
            )
        if self.radius < 1:
            raise ValueError(f"Objective: the radius is at least 1 voxel, got {self.radius}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


class RegistrationTask(nn.Module):
    """A network and its loss, as `invlearn.training.train` takes it.

    Parameters
    ----------
    network
        What is trained.
    objective
        The loss.
    synthesis
        Makes pairs of single volumes; needed for batches of them alone.

    Raises
    ------
    ValueError
        A symmetric objective or supervision of a network that is not diffeomorphic.
    """

    def __init__(
        self, network: WiNet, objective: Objective | None = None, synthesis: Synthesis | None = None
    ) -> None:
        super().__init__()
        self.network, self.objective = network, objective or Objective()
        self.synthesis = synthesis or Synthesis()
        if not network.diffeomorphic and (self.objective.symmetric or self.objective.supervision):
            raise ValueError(
                "a symmetric objective and supervision compare velocities: they need a diffeomorphic WiNet"
            )

    def forward(self, batch: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """The loss and its parts.

        Parameters
        ----------
        batch
            `moving`, `fixed` ``(B, D, H, W)``, or `image` to make such pairs of, and perhaps labels
            (`moving_labels`, `fixed_labels`; `labels` of `image`). In evaluation, pairs with labels give
            ``1 - Dice``.
        generator
            Of the synthetic pairs.
        """
        if "image" in batch:
            batch = self.synthetic(batch, generator)
        output = self.network.output(batch["moving"], batch["fixed"])
        if not self.training and "fixed_labels" in batch:
            return self._overlap(batch, output)
        return self._loss(batch, output)

    def synthetic(self, batch: Mapping[str, Tensor], generator: Generator) -> Sample:
        """A pair of each volume of a batch."""
        everyone = batch.get("labels", [None] * len(batch["image"]))
        with torch.autocast(batch["image"].device.type, enabled=False):
            pairs = [
                self.synthesis.pair(image, labels, generator)
                for image, labels in zip(batch["image"], everyone, strict=True)
            ]
        return {name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]}

    def _loss(self, batch: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
        chosen = self.objective
        rough = gradient_energy(output).mean()
        parts = {"roughness": rough.detach()}
        loss = chosen.smoothness * rough
        if chosen.similarity:
            alike = self._similarity(batch, output)
            parts["lncc"] = alike.detach()
            loss = loss - chosen.similarity * alike
        if chosen.supervision and "velocity" not in batch and (self.training or not chosen.similarity):
            raise ValueError("supervision needs synthetic pairs, whose velocity is known: give Singles")
        if chosen.supervision and "velocity" in batch:
            wrong = (output - batch["velocity"]).square().sum(-4)
            wrong = _mean_where(batch["fixed_target"] > _BODY, wrong)
            parts["error"] = wrong.detach()
            loss = loss + chosen.supervision * wrong
        return {"loss": loss, **parts}

    def _similarity(self, batch: Mapping[str, Tensor], output: Tensor) -> Tensor:
        moving = batch.get("moving_target", batch["moving"])
        fixed = batch.get("fixed_target", batch["fixed"])
        alike = lncc(fixed, warp(moving, self._field(output)), self.objective.radius).mean()
        if not self.objective.symmetric:
            return alike
        back = lncc(moving, warp(fixed, self._field(-output)), self.objective.radius).mean()
        return (alike + back) / 2

    def _field(self, output: Tensor) -> Tensor:
        return exponential(output) if self.network.diffeomorphic else output

    def _overlap(self, batch: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
        warped = warp(batch["moving_labels"], self._field(output), "labels")
        found = [
            value
            for fixed, moving in zip(batch["fixed_labels"], warped, strict=True)
            for value in dice(fixed, moving).values()
        ]
        mean = torch.tensor(found, dtype=torch.float64).nanmean().to(output)
        return {"loss": 1 - mean, "dice": mean}


def _mean_where(mask: Float[Tensor, "*batch"] | Tensor, values: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """The mean over the mask; 0 if it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


class Singles(Dataset[Sample]):
    """Volumes one by one, for synthetic pairs.

    Parameters
    ----------
    volumes
        Each with `image` and perhaps `labels`, on one grid.
    repeats
        How often an epoch goes through them: every time gives other pairs.
    numbers
        Of the volumes to take; None takes all.

    Raises
    ------
    ValueError
        Fewer than one repeat.
    """

    def __init__(
        self, volumes: Sequence[Sample], repeats: int = 1, numbers: Sequence[int] | None = None
    ) -> None:
        if repeats < 1:
            raise ValueError(f"volumes are repeated at least once an epoch, got {repeats}")
        self.volumes, self.repeats = volumes, repeats
        self.numbers = list(range(len(volumes)) if numbers is None else numbers)

    def __len__(self) -> int:
        return self.repeats * len(self.numbers)

    def __getitem__(self, i: int) -> Sample:
        return dict(self.volumes[self.numbers[i % len(self.numbers)]])


class Pairs(Dataset[Sample]):
    """Ordered pairs of volumes.

    Parameters
    ----------
    volumes
        Each with `image` and perhaps `labels`, on one grid.
    pairs
        Numbers of the moving and the fixed volume; None takes every ordered pair of two.

    Raises
    ------
    ValueError
        No pair.
    """

    def __init__(self, volumes: Sequence[Sample], pairs: Sequence[tuple[int, int]] | None = None) -> None:
        if pairs is None:
            n = len(volumes)
            pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        if not pairs:
            raise ValueError(
                f"{len(volumes)} volume makes no pair: give two at least, or train on synthetic deformations"
            )
        self.volumes, self.pairs = volumes, list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Sample:
        sample: Sample = {}
        for name, k in zip(("moving", "fixed"), self.pairs[i], strict=True):
            found = self.volumes[k]
            sample[name] = found["image"]
            if "labels" in found:
                sample[f"{name}_labels"] = found["labels"]
        return sample


def train_winet(
    network: WiNet,
    data: Dataset[Sample],
    *,
    epochs: int,
    objective: Objective | None = None,
    synthesis: Synthesis | None = None,
    val: Dataset[Sample] | None = None,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train a network on `Pairs`, or on synthetic pairs of `Singles`.

    Parameters
    ----------
    network
        Holds the weights of the best epoch afterwards.
    data
        All volumes on one grid.
    epochs
        How often to go through the data.
    objective
        The loss; None takes the defaults.
    synthesis
        How pairs are made of `Singles`; None takes the defaults.
    val
        Held-back pairs: with labels the Dice chooses the best epoch, without them the loss.
    settings
        See `invlearn.training.Settings`; None takes batches of one and a learning rate of 3e-4.

    Returns
    -------
    TrainingResult
        What `invlearn.training.train` returns, and raises.
    """
    task = RegistrationTask(network, objective, synthesis)
    settings = settings or Settings(batch_size=1, learning_rate=3e-4)
    return train(task, data, epochs=epochs, val=val, settings=settings)
