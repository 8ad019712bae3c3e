"""Means over neighbours: of what looks alike, and of nothing else."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from invlearn.unrolled.neighbours import NonLocalMeans

ALL = torch.ones(9, 12, dtype=torch.bool)
NOISE = torch.full((1, 9, 12), 0.01)


def means(radius: int = 2, **parameters: Tensor) -> NonLocalMeans:
    """One value, one feature."""
    module = NonLocalMeans(1, 1, radius)
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(module, name).copy_(value)
    return module.requires_grad_(False)


def test_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 0.1 * torch.randn(2, 6, 7, generator=generator)
    features = torch.randn(6, 6, 7, generator=generator)
    seen = torch.rand(6, 7, generator=generator) < 0.8
    noise = 0.01 + 0.1 * torch.rand(2, 6, 7, generator=generator)
    module = NonLocalMeans(2, 3, 1)
    found = module(values, noise, features, seen)
    gains = module.log_gain.exp()
    for v, y, x in itertools.product(range(2), range(6), range(7)):
        total, weights = torch.zeros(()), torch.zeros(())
        for number, (i, j) in enumerate(itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1))):
            if 0 <= i < 6 and 0 <= j < 7 and seen[i, j]:
                unlike = (gains[v] * (values[:, i, j] - values[:, y, x]) / noise[v, y, x]).square().sum()
                unlike = (
                    unlike
                    + (features[3 * v : 3 * v + 3, i, j] - features[3 * v : 3 * v + 3, y, x]).square().sum()
                )
                weight = torch.exp(module.bias[v, number] - unlike)
                total, weights = total + weight * values[v, i, j], weights + weight
        wanted = total / weights if seen[y, x] else values[v, y, x]
        torch.testing.assert_close(found[v, y, x], wanted)


def test_a_mean_where_all_look_alike() -> None:
    """Without gain, bias and features: the mean over a window."""
    values = torch.randn(1, 9, 12)
    module = means(log_gain=torch.tensor(-math.inf), bias=torch.zeros(1, 25))
    found = module(values, NOISE, torch.zeros(1, 9, 12), ALL)
    wanted = values.unfold(1, 5, 1).unfold(2, 5, 1).mean((-1, -2))
    torch.testing.assert_close(found[:, 2:-2, 2:-2], wanted)


@pytest.mark.parametrize("by", ["value", "feature"])
def test_no_mean_over_an_edge(by: str) -> None:
    edge = (torch.arange(12) >= 6).float().expand(1, 9, 12)
    noise = 0.01 * torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0))
    values, features = (edge + noise, torch.zeros_like(edge)) if by == "value" else (noise, 9 * edge)
    found = means()(values, NOISE, features, ALL)
    step = edge if by == "value" else 0
    assert float((found - step).abs().max()) < float(noise.abs().max())
    assert float((found - step).std()) < 0.5 * float(noise.std())


def test_constants_stay_and_what_is_not_seen_is_left_alone() -> None:
    seen = ALL.clone()
    seen[:, :5] = False
    values = torch.where(seen, torch.tensor(2.0), torch.nan)[None]
    found = means()(torch.nan_to_num(values, nan=7.0), NOISE, torch.randn(1, 9, 12), seen)
    torch.testing.assert_close(found[0][seen], torch.full((int(seen.sum()),), 2.0))
    assert bool((found[0][~seen] == 7.0).all())


def test_volumes_are_averaged_in_their_planes() -> None:
    values, features = torch.randn(1, 3, 9, 12), torch.randn(1, 3, 9, 12)
    noise = 0.01 + torch.rand(1, 3, 9, 12)
    found = means()(values, noise, features, ALL.expand(3, -1, -1))
    one = means()(values[:, 1], noise[:, 1], features[:, 1], ALL)
    torch.testing.assert_close(found[:, 1], one)


def test_gradients() -> None:
    module = NonLocalMeans(2, 2, 1).double()
    given = [torch.randn(n, 4, 5, dtype=torch.float64, requires_grad=True) for n in (2, 2, 4)]
    given[1].data = 0.5 + given[1].data.abs()
    seen = torch.rand(4, 5) < 0.7
    assert torch.autograd.gradcheck(lambda v, n, f: module(v, n, f, seen), given)


def test_every_number_matters() -> None:
    assert NonLocalMeans(2, 3, 4).bias.shape == (2, 81)
    values = torch.randn(1, 9, 12)
    features = torch.randn(1, 9, 12)
    usual = means(1)(values, NOISE, features, ALL)
    assert not torch.allclose(means(3)(values, NOISE, features, ALL), usual)
    assert not torch.allclose(means(1)(values, 100 * NOISE, features, ALL), usual)
    for numbers in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            NonLocalMeans(*numbers)
