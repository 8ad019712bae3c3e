"""Cubes to learn from, their variations, and that something is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from invlearn.neuro.learning import Cubes, Example, Fixed, SegmentationTask, Variation, train_waveunet
from invlearn.neuro.losses import Objective
from invlearn.neuro.waveunet import WaveUNet3D
from invlearn.training import Settings

SHAPE = (32, 64, 64)


def example(bars: int = 2, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Example:
    """Thin bars along x in noise."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(bars):
        z, y = rng.integers(2, shape[0] - 4), rng.integers(2, shape[1] - 4)
        mask[z : z + 3, y : y + 3, 4:-4] = True
    return Example((mask + 0.2 * rng.standard_normal(shape)).astype(np.float16), mask)


def test_a_stack_gives_its_cubes_and_three_times_as_many_with_neuron() -> None:
    cubes = Cubes([example()], (16, 32, 32))
    assert len(cubes) == 8 * (1 + 3)
    assert len(Cubes([example()], (16, 32, 32), rich=1.0)) == 16
    assert len(Cubes([example(), example(shape=(16, 32, 32))], (16, 32, 32))) == 9 * 4
    sample = cubes[0]
    assert sample["image"].shape == sample["mask"].shape == (16, 32, 32)
    assert sample["image"].dtype == sample["mask"].dtype == torch.float32


def test_rich_cubes_have_the_share_of_neuron_that_is_asked_for() -> None:
    sparse = Example(np.zeros((64, 128, 128), np.float32), np.zeros((64, 128, 128), bool))
    sparse.mask[10:12, 20:22, 30:40] = True
    whole = float(sparse.mask.mean())
    cubes = Cubes([sparse], (16, 32, 32))
    count = len(cubes) // 4
    torch.manual_seed(0)
    shares = [float(cubes[i]["mask"].mean()) for i in range(len(cubes))]
    assert min(shares[count:]) >= min(0.003, whole)
    assert np.mean(np.array(shares[:count]) > 0) < 0.2


def test_cubes_hold_what_stands_in_the_stack_and_are_drawn_anew() -> None:
    plain = example()
    numbered = Example(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), plain.mask)
    cubes = Cubes([numbered], (16, 16, 16))
    torch.manual_seed(0)
    first, second = cubes[40], cubes[40]
    torch.manual_seed(0)
    assert torch.equal(cubes[40]["image"], first["image"])
    assert not torch.equal(second["image"], first["image"])
    corner = np.unravel_index(int(first["image"][0, 0, 0]), SHAPE)
    part = tuple(slice(a, a + 16) for a in corner)
    assert np.array_equal(first["mask"].numpy(), plain.mask[part])


def test_small_stacks_are_mirrored_and_empty_ones_taken_as_they_are() -> None:
    small = Cubes([example(shape=(10, 20, 70))], (16, 32, 32))
    assert small[0]["image"].shape == small[len(small) - 1]["mask"].shape == (16, 32, 32)
    empty = Cubes([example(bars=0)], (16, 32, 32))
    assert not empty[len(empty) - 1]["mask"].any()


def test_cubes_that_cannot_be_are_refused() -> None:
    for options, message in (
        ({"cube": (16, 20, 16)}, "multiples of 16"),
        ({"rich": -1.0}, "not negative"),
        ({"examples": []}, "no stacks"),
    ):
        with pytest.raises(ValueError, match=message):
            Cubes(**{"examples": [example()], "cube": (16, 16, 16), **options})


def still() -> Variation:
    return Variation(0.0, 0.0, 0.0, 0.0)


def test_variation_keeps_image_and_mask_together() -> None:
    x = torch.randn(3, 8, 16, 16)
    for seed in range(8):
        image, mask = still()(x, x.clone(), torch.Generator().manual_seed(seed))
        assert torch.allclose(image, mask)
        assert torch.allclose(image.sort(-1).values.sum(), x.sum(), atol=1e-2)
    seen = {float(still()(x, x, torch.Generator().manual_seed(s))[0][0, 0, 0, 1]) for s in range(40)}
    assert len(seen) > 8  # of the 16 flips and exchanges


@pytest.mark.parametrize("name", ["contrast", "gamma", "offset", "noise"])
def test_each_variation_changes_the_image_and_not_the_mask(name: str) -> None:
    options = dict.fromkeys(("contrast", "gamma", "offset", "noise"), 0.0)
    x = torch.rand(2, 4, 8, 8)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    plain, mask = still()(x, x, generators[0])
    varied, same = Variation(**{**options, name: 0.3})(x, x, generators[1])
    assert torch.equal(mask, same)
    assert float((varied - plain).abs().max()) > 1e-3


def test_negative_variations_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Variation(noise=-0.1)


def test_validation_cubes_are_fixed_and_spread() -> None:
    cubes = Cubes([example(), example(seed=1)], (16, 32, 32))
    state = torch.get_rng_state()
    first, again, other = Fixed(cubes, 5), Fixed(cubes, 5), Fixed(cubes, 5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 5
    assert all(torch.equal(first[k]["image"], again[k]["image"]) for k in range(5))
    assert not torch.equal(first[1]["image"], other[1]["image"])


def settings(folder: Path | None = None, **options: object) -> Settings:
    return Settings(
        batch_size=2, learning_rate=1e-2, accelerator="cpu", folder=folder, progress=False, **options
    )


def test_training_learns_bars_in_noise_and_varies_only_while_training() -> None:
    torch.manual_seed(0)
    network = WaveUNet3D(width=3)
    cubes = Cubes([example()], (16, 32, 32), rich=1.0)
    result = train_waveunet(network, cubes, epochs=8, val=Fixed(cubes, 4), settings=settings())
    assert result.history[-1]["val/dice"] > 0.4
    assert result.history[-1]["train/dice"] > 4 * result.history[0]["train/dice"]
    task = SegmentationTask(network).eval()
    batch = {name: value[None] for name, value in cubes[0].items()}
    first, second = (task(batch, torch.Generator().manual_seed(s))["loss"] for s in range(2))
    assert torch.equal(first, second)


def test_objective_and_variation_reach_the_training() -> None:
    cubes = Fixed(Cubes([example()], (16, 32, 32), rich=1.0), 2)
    losses = []
    for options in ({}, {"objective": Objective(dice=0.1)}, {"variation": Variation(noise=0.9)}):
        torch.manual_seed(0)
        result = train_waveunet(WaveUNet3D(width=1), cubes, epochs=1, settings=settings(), **options)
        losses.append(result.history[0]["train/loss"])
    assert len(set(losses)) == 3


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    weights = []
    for epochs in ((2,), (1, 2)):
        torch.manual_seed(0)
        network = WaveUNet3D(width=1)
        folder = tmp_path / str(len(epochs))
        for count in epochs:
            cubes = Cubes([example()], (16, 32, 32), rich=0.0)
            train_waveunet(network, cubes, epochs=count, settings=settings(folder, resume=True))
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights)
