"""The order of the data, and samples that cannot be used.

Everything random follows from the seed and the place in the run (epoch, step, device), never from what
happened before: so a resumed run sees what an unbroken one would have seen, without stored states.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

Indices = list[int]


def number(seed: int, *place: int) -> int:
    """A seed of its own for every place in a run."""
    high, low = np.random.SeedSequence([seed, *place]).generate_state(2)
    return (int(high) << 31) ^ int(low)


def seed_all(seed: int) -> None:
    """Seed the generators that models and data sets may use unasked: torch, numpy, random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (data sets of others may use it)
    random.seed(seed)


def batches(indices: Sequence[int], size: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of an epoch: all indices in random order."""
    order = torch.randperm(len(indices), generator=Generator().manual_seed(number(seed, epoch)))
    return [[indices[i] for i in part.tolist()] for part in order.split(size)]


def shares(batch: Indices, devices: int, rank: int) -> Indices:
    """The part of a batch for one of several devices; all get equally many, a rest is left out."""
    return batch[: len(batch) // devices * devices][rank::devices]


def check_dataset(data: object, what: str) -> Dataset[Any]:
    """Refuse what cannot be read in any order, and what is empty.

    Raises
    ------
    TypeError
        No data set with a length and items by number.
    ValueError
        Nothing in it.
    """
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise TypeError(
            f"{what} must be a data set with len() and items by number, such as "
            f"torch.utils.data.TensorDataset(y); got {type(data).__name__}"
        )
    if len(data) == 0:
        raise ValueError(f"{what} is empty: there is nothing to learn from")
    return data  # type: ignore[return-value]


def _tensors(sample: Any) -> Iterator[Any]:
    if isinstance(sample, Tensor | np.ndarray | float | complex):
        yield sample
    elif isinstance(sample, Mapping):
        for value in sample.values():
            yield from _tensors(value)
    elif isinstance(sample, Sequence) and not isinstance(sample, str):
        for value in sample:
            yield from _tensors(value)


def is_finite(sample: Any) -> bool:
    """Whether no number of a sample is NaN or infinite."""
    return all(bool(torch.isfinite(torch.as_tensor(value)).all()) for value in _tensors(sample))


def usable(data: Dataset[Any]) -> tuple[Indices, Indices]:
    """The indices of good samples and of bad ones, by reading all of them."""
    good: Indices = []
    bad: Indices = []
    for i in range(len(data)):  # type: ignore[arg-type]
        (good if is_finite(data[i]) else bad).append(i)
    return good, bad


class _Numbered(Dataset[tuple[int, Any]]):
    """Samples that know their number, so that a bad one can be named."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __getitem__(self, i: int) -> tuple[int, Any]:
        return i, self.data[i]


class Collate:
    """Samples to a batch of tensors, unless one has NaN or infinite entries."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, samples: Sequence[tuple[int, Any]]) -> Any:
        try:
            batch = default_collate([sample for _, sample in samples])
        except (RuntimeError, TypeError) as error:
            numbers = ", ".join(str(i) for i, _ in samples[:4])
            raise ValueError(
                f"samples {numbers}, ... of {self.what} do not make one batch ({error}); give all of them "
                "one shape and type, or train with batch_size=1"
            ) from error
        if not is_finite(batch):
            bad = next(i for i, sample in samples if not is_finite(sample))
            raise ValueError(
                f"sample {bad} of {self.what} has NaN or infinite entries; mend or remove it, or train with "
                'bad_samples="skip"'
            )
        return batch


def loader(
    data: Dataset[Any], parts: Iterable[Indices], what: str, workers: int, seed: int
) -> DataLoader[Any]:
    """Read the given batches one after the other."""
    return DataLoader(
        _Numbered(data),
        batch_sampler=list(parts),
        collate_fn=Collate(what),
        num_workers=workers,
        generator=Generator().manual_seed(seed),
    )
