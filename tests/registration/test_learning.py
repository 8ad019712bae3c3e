"""The loss against its formula, the samples, and a network that learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from invlearn.registration import exponential, gradient_energy, lncc, warp
from invlearn.registration.learning import Objective, Pairs, RegistrationTask, Singles, train_winet
from invlearn.registration.metrics import dice
from invlearn.registration.synthesis import Synthesis, smooth_noise
from invlearn.registration.winet import WiNet
from invlearn.training import Settings

SHAPE = (16, 16, 16)


def texture(seed: int) -> Tensor:
    x = smooth_noise((1, *SHAPE), Generator().manual_seed(seed), 6.0)[0]
    return (x - x.min()) / (x.max() - x.min())


def network(seed: int = 0, **options) -> WiNet:
    torch.manual_seed(seed)
    made = WiNet(**{"width": 2, **options})
    with torch.no_grad():
        for head in made.heads:
            head.weight.mul_(150)
    return made


def pair() -> dict[str, Tensor]:
    return {"moving": texture(0)[None], "fixed": texture(1)[None]}


def loss_of(task: RegistrationTask, batch: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    with torch.no_grad():
        return task(batch, Generator().manual_seed(seed))


@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_the_loss_of_a_pair_is_its_formula(diffeomorphic: bool) -> None:
    made, batch = network(diffeomorphic=diffeomorphic), pair()
    found = loss_of(RegistrationTask(made, Objective(2.0, 0.3, radius=2)), batch)
    with torch.no_grad():
        v = made.output(batch["moving"], batch["fixed"])
        field = exponential(v) if diffeomorphic else v
        alike = lncc(batch["fixed"], warp(batch["moving"], field), 2).mean()
        rough = gradient_energy(v).mean()
    assert float(found["loss"]) == pytest.approx(float(0.3 * rough - 2 * alike), rel=1e-5)
    assert float(found["lncc"]) == pytest.approx(float(alike), rel=1e-5)
    assert float(found["roughness"]) == pytest.approx(float(rough), rel=1e-5)


def test_the_symmetric_loss_is_the_mean_of_both_directions() -> None:
    made, batch = network(), pair()
    found = loss_of(RegistrationTask(made, Objective(symmetric=True)), batch)
    with torch.no_grad():
        v = made.output(batch["moving"], batch["fixed"])
        there = lncc(batch["fixed"], warp(batch["moving"], exponential(v))).mean()
        back = lncc(batch["moving"], warp(batch["fixed"], exponential(-v))).mean()
    assert float(found["lncc"]) == pytest.approx(float(there + back) / 2, rel=1e-5)
    assert abs(float(there - back)) > 1e-3


def test_supervision_compares_with_the_known_velocity_inside_the_body() -> None:
    made = network()
    task = RegistrationTask(made, Objective(similarity=0.0, smoothness=0.0, supervision=2.0))
    image = texture(0) * (torch.arange(16) < 10)
    batch = task.synthetic({"image": image[None]}, Generator().manual_seed(4))
    found = loss_of(task, {"image": image[None]}, seed=4)
    with torch.no_grad():
        wrong = (made.output(batch["moving"], batch["fixed"]) - batch["velocity"]).square().sum(1)
    body = batch["fixed_target"] > 0.05
    assert 0 < float(body.float().mean()) < 0.9
    assert float(found["loss"]) == pytest.approx(2 * float(wrong[body].mean()), rel=1e-4)
    assert set(found) == {"loss", "error", "roughness"}


def test_the_similarity_of_synthetic_pairs_is_that_of_their_targets() -> None:
    made = network()
    task = RegistrationTask(made, Objective(), Synthesis(noise=0.3))
    batch = task.synthetic({"image": texture(0)[None]}, Generator().manual_seed(4))
    with torch.no_grad():
        field = made(batch["moving"], batch["fixed"])
        expected = lncc(batch["fixed_target"], warp(batch["moving_target"], field)).mean()
    found = loss_of(task, {"image": texture(0)[None]}, seed=4)
    assert float(found["lncc"]) == pytest.approx(float(expected), rel=1e-5)


def test_validation_of_labelled_pairs_is_their_dice() -> None:
    made, batch = network(), pair()
    batch |= {f"{name}_labels": (2 * batch[name]).round().long() for name in ("moving", "fixed")}
    task = RegistrationTask(made)
    assert "dice" not in loss_of(task.train(), batch)
    found = loss_of(task.eval(), batch)
    warped = warp(batch["moving_labels"][0], made(batch["moving"], batch["fixed"])[0].detach(), "labels")
    values = list(dice(batch["fixed_labels"][0], warped).values())
    assert float(found["loss"]) == pytest.approx(1 - sum(values) / len(values), rel=1e-5)


def test_a_symmetric_loss_needs_a_velocity() -> None:
    for chosen in (Objective(symmetric=True), Objective(supervision=1.0)):
        with pytest.raises(ValueError, match="diffeomorphic"):
            RegistrationTask(network(diffeomorphic=False), chosen)


def test_supervision_needs_synthetic_pairs() -> None:
    task = RegistrationTask(network(), Objective(supervision=1.0))
    with pytest.raises(ValueError, match="synthetic pairs"):
        loss_of(task.train(), pair())
    assert "error" not in loss_of(task.eval(), pair())


@pytest.mark.parametrize(
    "options",
    [{"smoothness": -1.0}, {"similarity": -1.0}, {"supervision": -1.0}, {"similarity": 0.0}, {"radius": 0}],
)
def test_refused_objectives(options: dict) -> None:
    with pytest.raises(ValueError, match="Objective"):
        Objective(**options)


# --- samples ---


def test_all_ordered_pairs_with_their_labels() -> None:
    volumes = [{"image": texture(k), "labels": torch.full(SHAPE, k)} for k in range(3)]
    pairs = Pairs(volumes)
    assert sorted(pairs.pairs) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for sample, (i, j) in zip((pairs[k] for k in range(len(pairs))), pairs.pairs, strict=True):
        assert torch.equal(sample["moving"], volumes[i]["image"])
        assert torch.equal(sample["fixed_labels"], volumes[j]["labels"])
    chosen = Pairs(volumes, [(2, 0)])
    assert len(chosen) == 1
    assert torch.equal(chosen[0]["moving"], volumes[2]["image"])


def test_one_volume_makes_no_pair() -> None:
    with pytest.raises(ValueError, match=r"1 volume makes no pair.*synthetic"):
        Pairs([{"image": texture(0)}])


def test_singles_repeat() -> None:
    singles = Singles([{"image": texture(k)} for k in range(2)], repeats=3)
    assert len(singles) == 6
    assert torch.equal(singles[4]["image"], texture(0))
    chosen = Singles(singles.volumes, 2, [1])
    assert len(chosen) == 2
    assert torch.equal(chosen[1]["image"], texture(1))
    with pytest.raises(ValueError, match="at least once"):
        Singles([], repeats=0)


# --- training ---

SETTINGS = Settings(batch_size=1, learning_rate=3e-3, accelerator="cpu", progress=False)


def test_a_network_learns_known_translations() -> None:
    """Two volumes that are the same but for a shift of one voxel: the field becomes that shift."""
    still = texture(0)
    volumes = [
        {"image": still},
        {"image": warp(still, torch.tensor([1.0, 0, 0])[:, None, None, None].expand(3, *SHAPE))},
    ]
    made = WiNet(width=4)
    data = Pairs(volumes, [(0, 1)])
    first, last = (
        train_winet(
            made, data, epochs=n, objective=Objective(smoothness=0.1, radius=2), settings=SETTINGS
        ).history[-1]["train/lncc"]
        for n in (1, 60)
    )
    assert last > first + 0.5 * (1 - first)
    shift = made(*(x["image"] for x in volumes)).detach()[:, 4:-4, 4:-4, 4:-4].mean((1, 2, 3))
    assert float(shift[0]) == pytest.approx(1.0, abs=0.35)
    assert float(shift[1:].abs().max()) < 0.35


def test_synthetic_training_repeats_itself_and_resumes(tmp_path: Path) -> None:
    volumes = [{"image": texture(k)} for k in range(2)]

    def run(epochs: int, folder: Path, resume: bool = False) -> dict[str, Tensor]:
        made = network()
        settings = dataclasses.replace(SETTINGS, folder=folder, resume=resume)
        train_winet(
            made,
            Singles(volumes),
            epochs=epochs,
            objective=Objective(supervision=1.0),
            val=Singles(volumes[:1]),
            settings=settings,
        )
        return made.state_dict()

    whole = run(2, tmp_path / "whole")
    run(1, tmp_path / "part")
    resumed = run(2, tmp_path / "part", resume=True)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_mixed_precision_trains() -> None:
    settings = dataclasses.replace(SETTINGS, precision="bf16-mixed")
    result = train_winet(
        network(), Pairs([{"image": texture(k)} for k in range(2)]), epochs=1, settings=settings
    )
    assert -1 < result.history[0]["train/loss"] < 10
