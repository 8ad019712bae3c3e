"""Completion of low-rank matrices from a pattern."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from invlearn.identifiability import completion


def pattern(entries: int, seed: int, shape: tuple[int, int] = (20, 20)) -> torch.Tensor:
    seen = torch.zeros(shape[0] * shape[1], dtype=torch.bool)
    seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[:entries]] = True
    return seen.reshape(shape)


def one_thin_row(thin: int) -> torch.Tensor:
    """204 entries that complete; one row with only `thin` of them."""
    seen = pattern(204, 1)
    seen[0] = False
    seen[0, :thin] = True
    return seen


@pytest.mark.parametrize(("entries", "unique"), [(128, False), (204, True)])
def test_rank_of_the_reference(entries: int, unique: bool) -> None:
    found = completion(pattern(entries, 2), 3)
    assert found.target == 111
    assert found.entries == entries
    assert found.unique == unique == (found.rank == 111)
    assert bool(found.completable.all()) == unique


@pytest.mark.parametrize("entries", [128, 154])
def test_one_dimension_short(entries: int) -> None:
    """Enough entries in all, but one row with r - 1 of them: rank 110, whatever their number."""
    seen = one_thin_row(3)
    kept = seen.flatten().nonzero().squeeze(1)
    kept = kept[kept >= 20]
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    while int(seen.sum()) > entries + 1:
        candidate = seen.clone()
        candidate.view(-1)[kept[order[0]]] = False
        order = order[1:]
        if completion(candidate, 3).unique:
            seen = candidate
    assert completion(seen, 3).rank == 111
    short = seen.clone()
    short[0, 2] = False
    found = completion(short, 3)
    assert (found.entries, found.rank, found.unique) == (entries, 110, False)
    assert found.completable[1:].all()
    assert not found.completable[0, 2:].any()


def test_entries_against_a_second_completion() -> None:
    """Move along the null space of the Jacobian: the entries that stay are the completable ones."""
    seen = pattern(20, 9, (6, 7))
    rank = 2
    found = completion(seen, rank)
    assert 20 < int(found.completable.sum()) < 42
    generator = torch.Generator().manual_seed(9)
    u = torch.randn(6, rank, dtype=torch.float64, generator=generator)
    v = torch.randn(7, rank, dtype=torch.float64, generator=generator)

    def entries(p: torch.Tensor) -> torch.Tensor:
        return p[: 6 * rank].view(6, rank) @ p[6 * rank :].view(7, rank).T

    jacobian = torch.func.jacfwd(entries)(torch.cat([u.flatten(), v.flatten()]))
    _, s, vh = torch.linalg.svd(jacobian[seen])
    null = vh[int((s > 1e-9).sum()) :]
    assert int((s > 1e-9).sum()) == found.rank
    moves = (jacobian @ null.T).norm(dim=-1) > 1e-8
    assert torch.equal(~moves, found.completable)


def test_seed_does_not_matter_rank_does() -> None:
    seen = pattern(150, 5)
    assert completion(seen, 3, seed=0).rank == completion(seen, 3, seed=8).rank
    assert torch.equal(completion(seen, 2, seed=0).completable, completion(seen, 2, seed=8).completable)
    assert completion(seen, 2).target == 76
    assert completion(seen, 2).unique
    assert not completion(seen, 6).unique


def test_numpy_edges_and_dict() -> None:
    seen = np.asarray(pattern(204, 2))
    found = completion(seen, 3)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.to_dict()["unique"] is True
    assert found.to_dict()["completable_fraction"] == 1.0
    nothing = completion(np.zeros((3, 4), dtype=bool), 1)
    assert nothing.rank == 0
    assert not nothing.completable.any()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="boolean matrix"):
        completion(torch.ones(3, 3), 1)
    with pytest.raises(ValueError, match="boolean matrix"):
        completion(torch.ones(3, dtype=torch.bool), 1)
    for rank in (0, 4):
        with pytest.raises(ValueError, match="between 1 and 3"):
            completion(torch.ones(3, 5, dtype=torch.bool), rank)
