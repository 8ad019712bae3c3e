from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics.mri.fingerprint.search import AtomSearch, scores


def brute_force(atoms, x):
    """|<d, x>| of unit atoms, in double precision."""
    atoms = atoms.to(torch.complex128)
    atoms = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    return (x.to(torch.complex128) @ atoms.mH).abs()


def curve(count, rank, complex, g):
    """Atoms along a smooth surface, as fingerprints are."""
    t, s = torch.rand(2, count, dtype=torch.float64, generator=g)
    parts = [torch.cos(3 * k * t + k) * torch.exp(-k * s) for k in range(rank)]
    atoms = torch.stack(parts, 1) * (0.1 + t[:, None])
    return atoms * torch.exp(1j * torch.arange(rank) * s[:, None]) if complex else atoms


@given(
    count=st.integers(1, 400),
    rank=st.integers(1, 7),
    group=st.integers(1, 64),
    noise=st.sampled_from([0.0, 0.05, 100.0]),
    complex=st.booleans(),
    single=st.booleans(),
)
def test_finds_what_brute_force_finds(count, rank, group, noise, complex, single):
    g = torch.Generator().manual_seed(count)
    atoms = curve(count, rank, complex, g)
    x = atoms[torch.randint(count, (60,), generator=g)] * torch.randn(
        60, 1, dtype=torch.complex128, generator=g
    )
    x = x + noise * torch.randn(60, rank, dtype=torch.complex128, generator=g)
    if single:
        atoms, x = atoms.to(torch.complex64 if complex else torch.float32), x.to(torch.complex64)
    found = brute_force(atoms, x)
    index = AtomSearch(atoms, group)(x)
    assert_close(found.gather(1, index[:, None])[:, 0], found.amax(1), atol=0, rtol=2e-6 if single else 1e-12)


def test_few_products_are_needed_for_fingerprints(dictionary):
    x = dictionary.atoms.to(torch.complex64)
    search = AtomSearch(dictionary.atoms.float(), 16)
    index = search(x)
    assert search.evaluated < 0.35 * len(x) ** 2
    assert (index == torch.arange(len(x))).float().mean() > 0.99
    fewer = AtomSearch(dictionary.atoms.float(), 10**6)
    fewer(x)
    assert fewer.evaluated >= len(x) ** 2  # one group: brute force


@pytest.mark.parametrize("complex", [False, True])
def test_scores_are_squared_inner_products(complex):
    g = torch.Generator().manual_seed(1)
    atoms = curve(9, 4, complex, g)
    x = torch.randn(5, 4, dtype=torch.complex128, generator=g)
    expected = torch.einsum("nk,pk->np", x, atoms.to(x.dtype).conj()).abs() ** 2
    assert_close(scores(atoms, x), expected)


def test_a_vector_without_signal_and_no_vectors():
    atoms = curve(50, 3, False, torch.Generator().manual_seed(2))
    assert AtomSearch(atoms)(torch.zeros(2, 3, dtype=torch.complex128)).shape == (2,)
    assert AtomSearch(atoms)(torch.zeros(0, 3, dtype=torch.complex128)).shape == (0,)


def test_many_vectors_are_taken_in_parts(monkeypatch):
    g = torch.Generator().manual_seed(3)
    atoms, x = curve(200, 4, False, g), torch.randn(300, 4, dtype=torch.complex128, generator=g)
    whole = AtomSearch(atoms, 8)(x)
    monkeypatch.setattr("invlearn.physics.mri.fingerprint.search._SCORES", 1000)
    assert torch.equal(AtomSearch(atoms, 8)(x), whole)
