"""What segmentation networks minimise: weighted cross-entropy, Dice, and clDice for the centre lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_SMOOTH = 1.0  # voxel, so that empty masks have a loss and a gradient


@dataclass(frozen=True)
class Objective:
    """``cross_entropy * CE + dice * (1 - Dice) + cldice * (1 - clDice)``.

    Attributes
    ----------
    cross_entropy
        Weight of the mean cross-entropy, in which a voxel of class c counts `class_weights[c]` times.
    class_weights
        Of background and neuron.
    dice
        Weight of the soft Dice loss, over the whole batch at once: cubes without a neuron do not upset it.
    cldice
        Weight of the loss of the centre lines; takes about a third more time.
    skeleton_steps
        Erosions of the soft skeleton: the radius in voxels of what clDice sees as a line.

    Raises
    ------
    ValueError
        A negative weight, all of them zero, or no erosion.

    References
    ----------
    Milletari, Navab, Ahmadi, V-Net, 3DV 2016, arXiv:1606.04797 (Dice). Shit et al., clDice: a novel
    topology-preserving loss function for tubular structure segmentation, CVPR 2021, arXiv:2003.07311.
    """

    cross_entropy: float = 1.0
    class_weights: tuple[float, float] = (1.0, 5.0)
    dice: float = 1.0
    cldice: float = 0.0
    skeleton_steps: int = 4

    def __post_init__(self) -> None:
        parts = (self.cross_entropy, self.dice, self.cldice)
        if min(*parts, *self.class_weights) < 0 or max(parts) == 0 or max(self.class_weights) == 0:
            raise ValueError(
                "Objective: weights are not negative, and one of cross_entropy, dice and cldice is above 0; "
                f"got {parts} and class weights {self.class_weights}"
            )
        if self.skeleton_steps < 1:
            raise ValueError(f"Objective: skeleton_steps is at least 1, got {self.skeleton_steps}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "class_weights": list(self.class_weights)}

    def __call__(
        self, logits: Float[Tensor, "B 2 D H W"], mask: Float[Tensor, "B D H W"]
    ) -> dict[str, Tensor]:
        """The loss, and its parts for a log.

        Parameters
        ----------
        logits
            Of background and neuron.
        mask
            1 where the neuron is, 0 elsewhere.
        """
        score = logits[:, 1] - logits[:, 0]
        probability = torch.sigmoid(score)
        overlap = dice(probability, mask)
        parts = {"dice": overlap.detach()}
        loss = self.dice * (1 - overlap)
        if self.cross_entropy:
            background, neuron = self.class_weights
            weight = background + (neuron - background) * mask
            entropy = functional.binary_cross_entropy_with_logits(score, mask, weight)
            parts["cross_entropy"] = entropy.detach()
            loss = loss + self.cross_entropy * entropy
        if self.cldice:
            lines = centre_line_dice(probability, mask, self.skeleton_steps)
            parts["cldice"] = lines.detach()
            loss = loss + self.cldice * (1 - lines)
        return {"loss": loss, **parts}


def dice(probability: Float[Tensor, "*any"], mask: Float[Tensor, "*any"]) -> Float[Tensor, ""]:
    """Soft Dice coefficient, ``(2 Σ p m + 1) / (Σ p + Σ m + 1)``."""
    both = (probability * mask).sum()
    return (2 * both + _SMOOTH) / (probability.sum() + mask.sum() + _SMOOTH)


def centre_line_dice(
    probability: Float[Tensor, "B D H W"], mask: Float[Tensor, "B D H W"], steps: int
) -> Float[Tensor, ""]:
    """clDice: how much of each soft skeleton lies in the other's mask; 1 is perfect."""
    found, truth = soft_skeleton(probability, steps), soft_skeleton(mask, steps)
    precision = ((found * mask).sum() + _SMOOTH) / (found.sum() + _SMOOTH)
    recall = ((truth * probability).sum() + _SMOOTH) / (truth.sum() + _SMOOTH)
    return 2 * precision * recall / (precision + recall)


def soft_skeleton(x: Float[Tensor, "B D H W"], steps: int) -> Float[Tensor, "B D H W"]:
    """What repeated openings take away: ridges of `x`, differentiable.

    Parameters
    ----------
    x
        Between 0 and 1.
    steps
        Erosions; tubes up to this radius, in voxels, become lines.
    """
    x = x.unsqueeze(1)
    skeleton = functional.relu(x - _dilated(_eroded(x)))
    for _ in range(steps):
        x = _eroded(x)
        rest = functional.relu(x - _dilated(_eroded(x)))
        skeleton = skeleton + functional.relu(rest - skeleton * rest)
    return skeleton.squeeze(1)


def _eroded(x: Tensor) -> Tensor:
    """The smallest value along each of the three axes."""
    across = [
        -functional.max_pool3d(-x, size, 1, tuple(n // 2 for n in size))
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    ]
    return torch.minimum(torch.minimum(across[0], across[1]), across[2])


def _dilated(x: Tensor) -> Tensor:
    return functional.max_pool3d(x, 3, 1, 1)
