"""Losses against independent ones and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from monai.losses.cldice import soft_skel
from torch.nn import functional

from invlearn.neuro.losses import Objective, centre_line_dice, dice, soft_skeleton


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 8, 12, 12, generator=generator)
    return logits, (torch.rand(2, 8, 12, 12, generator=generator) < 0.2).float()


def test_dice_of_monai() -> None:
    logits, mask = pair()
    p = logits.softmax(1)[:, 1]
    reference = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)(p[:, None], mask[:, None])
    assert float(dice(p, mask)) == pytest.approx(1 - float(reference), abs=1e-6)


def test_weighted_cross_entropy_of_torch() -> None:
    logits, mask = pair()
    found = Objective(class_weights=(0.5, 3.0), dice=0.0)(logits, mask)["loss"]
    reference = functional.cross_entropy(logits, mask.long(), torch.tensor([0.5, 3.0]), reduction="none")
    assert float(found) == pytest.approx(float(reference.mean()), rel=1e-5)


def test_the_skeleton_of_monai_and_the_formula_of_cldice() -> None:
    logits, mask = pair()
    p = logits.softmax(1)[:, 1]
    found, truth = (soft_skel(x[:, None], 3)[:, 0] for x in (p, mask))
    assert torch.allclose(soft_skeleton(p, 3), found, atol=1e-6)
    precision = ((found * mask).sum() + 1) / (found.sum() + 1)
    recall = ((truth * p).sum() + 1) / (truth.sum() + 1)
    expected = 2 / (1 / precision + 1 / recall)
    assert float(centre_line_dice(p, mask, 3)) == pytest.approx(float(expected), rel=1e-5)


def test_the_skeleton_of_a_tube_is_its_axis() -> None:
    z, y, _ = np.meshgrid(np.arange(15) - 7, np.arange(15) - 7, np.arange(30), indexing="ij")
    tube = torch.from_numpy((z**2 + y**2 <= 16).astype(np.float32))
    found = soft_skeleton(tube[None], 5)[0]
    middle = found[:, :, 10:20]
    assert bool((middle[7, 7] == 1).all())
    assert float(middle.sum()) <= 0.3 * float(tube[:, :, 10:20].sum())
    assert float(soft_skeleton(tube[None], 1)[0, :, :, 10:20].sum()) == 0  # too few erosions to get there


def test_a_perfect_answer_costs_nothing_and_the_opposite_much() -> None:
    mask = torch.zeros(1, 8, 16, 16)
    mask[:, 3:5, 7:9, 2:14] = 1
    sure = 30 * (2 * mask - 1)
    logits = torch.stack([-sure, sure], 1)
    objective = Objective(cldice=1.0)
    assert float(objective(logits, mask)["loss"]) < 1e-3
    assert float(objective(-logits, mask)["loss"]) > 2


def test_empty_masks_have_a_loss_and_a_gradient() -> None:
    logits, mask = pair()
    logits.requires_grad_()
    loss = Objective(cldice=0.5)(logits, 0 * mask)["loss"]
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert float(logits.grad.abs().max()) > 0


@pytest.mark.parametrize(
    "options",
    [{"cross_entropy": 2.0}, {"class_weights": (1.0, 9.0)}, {"dice": 0.3}, {"cldice": 0.5}],
    ids=str,
)
def test_each_weight_matters(options: dict) -> None:
    assert float(Objective(**options)(*pair())["loss"]) != pytest.approx(float(Objective()(*pair())["loss"]))


def test_the_erosions_of_cldice_matter() -> None:
    losses = {float(Objective(cldice=1.0, skeleton_steps=n)(*pair())["loss"]) for n in (1, 4)}
    assert len(losses) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"dice": -1.0},
        {"dice": 0.0, "cross_entropy": 0.0},
        {"class_weights": (0.0, 0.0)},
        {"skeleton_steps": 0},
    ],
)
def test_losses_that_cannot_be_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="Objective"):
        Objective(**options)


def test_parts_are_logged_and_plain() -> None:
    assert set(Objective(cldice=1.0)(*pair())) == {"loss", "dice", "cross_entropy", "cldice"}
    assert Objective().to_dict()["class_weights"] == [1.0, 5.0]
