"""The order of the data follows from seed and epoch alone, and every sample comes once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.training.data import batches, is_finite, number, shares


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_has_every_sample_once(count: int, size: int, seed: int, epoch: int) -> None:
    indices = [3 * i for i in range(count)]
    parts = batches(indices, size, seed, epoch)
    assert sorted(i for part in parts for i in part) == indices
    assert all(len(part) == size for part in parts[:-1])
    assert parts == batches(indices, size, seed, epoch)


@given(st.integers(1, 20), st.integers(1, 5))
def test_devices_share_a_batch_evenly(count: int, devices: int) -> None:
    parts = [shares(list(range(count)), devices, rank) for rank in range(devices)]
    assert {len(part) for part in parts} == {count // devices}
    assert sorted(i for part in parts for i in part) == list(range(count // devices * devices))


def test_epochs_and_seeds_differ() -> None:
    orders = [batches(list(range(50)), 50, seed, epoch)[0] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_every_place_has_its_own_number() -> None:
    found = {number(0, a, b) for a in range(20) for b in range(20)} | {number(1, 0, 0)}
    assert len(found) == 401
    assert all(0 <= n < 2**63 for n in found)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_found_wherever_it_is(bad: float) -> None:
    assert is_finite((torch.ones(2), 3, {"a": np.ones(2), "name": "x"}))
    assert not is_finite((torch.ones(2), torch.tensor([1.0, bad])))
    assert not is_finite({"a": [np.array([bad])]})
    assert not is_finite((complex(0, bad), 1))
    assert not is_finite(torch.tensor([complex(0, bad)]))
