from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri.fingerprint.refine import Region, amplitude, refine_points

TIMES = torch.linspace(0.05, 2.0, 12, dtype=torch.float64)


def decays(point):
    """A signal with closed derivatives: (1 - 2 exp(-t/T1)) exp(-t/T2) times a factor of B1."""
    t1, t2 = point[:, :1].exp(), point[:, 1:2].exp()
    b1 = point[:, 2:]
    recovery, decay = 1 - 2 * torch.exp(-TIMES / t1), torch.exp(-TIMES / t2)
    gain = 1 + b1 * TIMES
    slopes = [-2 * torch.exp(-TIMES / t1) * TIMES / t1 * decay * gain, recovery * decay * TIMES / t2 * gain]
    return recovery * decay * gain, torch.stack([*slopes, recovery * decay * TIMES], 1)


def region(n, b1=(1.0, 1.0)):
    low = torch.tensor([0.1, 0.01, b1[0]], dtype=torch.float64)
    high = torch.tensor([5.0, 2.0, b1[1]], dtype=torch.float64)
    low[:2], high[:2] = low[:2].log(), high[:2].log()
    return Region(low.expand(n, 3), high.expand(n, 3))


def truth(t1, t2, b1=1.0):
    return torch.tensor([[t1, t2, b1]], dtype=torch.float64).log() * torch.tensor([1.0, 1, 0]) + torch.tensor(
        [0, 0, b1]
    )


def data(point, scale=2 - 1j):
    return scale * decays(point)[0].to(torch.complex128)


@pytest.mark.parametrize("scale", [2 - 1j, 1e-6j, 1e6])
def test_finds_the_point(scale):
    exact = truth(0.9, 0.4)
    x = data(exact, scale)
    found = refine_points(decays, x, truth(1.2, 0.3), region(1), 30)
    assert_close(found, exact, atol=1e-9, rtol=0)
    assert_close(amplitude(decays(found)[0], x), torch.tensor([scale], dtype=torch.complex128))


def test_fits_b1_where_it_is_free_and_holds_it_where_not():
    exact = truth(0.9, 0.4, 0.8)
    free = refine_points(decays, data(exact), truth(1.1, 0.35, 1.0), region(1, (0.5, 1.5)), 50)
    assert_close(free, exact, atol=1e-6, rtol=0)
    held = refine_points(decays, data(exact), truth(1.1, 0.35, 1.0), region(1, (1.0, 1.0)), 50)
    assert float(held[0, 2]) == 1.0
    assert not torch.allclose(held, exact, atol=1e-2)


@pytest.mark.parametrize(
    ("t1", "t2"),
    [(9.0, 0.3), (0.6, 0.9), (3.0, 2.9), (0.5, 0.004)],
    ids=["T1 above", "T2 above T1", "T2 above", "T2 below"],
)
def test_stays_in_the_region_and_is_best_there(t1, t2):
    outside = truth(t1, t2)
    x = data(outside)
    walls = region(1)
    found = refine_points(decays, x, truth(0.8, 0.2), walls, 200)
    assert bool((found >= walls.low).all())
    assert bool((found <= walls.high).all())
    assert float(found[0, 1]) <= float(found[0, 0])

    def cost(point):
        atoms = decays(point)[0]
        return torch.linalg.vector_norm(x - amplitude(atoms, x)[:, None] * atoms, dim=1)

    g = torch.Generator().manual_seed(0)
    for spread in (1e-3, 0.03, 0.3):
        around = found + spread * torch.randn(500, 3, dtype=torch.float64, generator=g)
        others = cost(Region(walls.low.expand(500, 3), walls.high.expand(500, 3)).nearest(around))
        assert float(cost(found)[0]) <= float(others.min()) * (1 + 1e-6)


def test_residuals_never_increase():
    g = torch.Generator().manual_seed(1)
    n = 200
    x = torch.randn(n, len(TIMES), dtype=torch.complex128, generator=g)
    start = region(n).nearest(torch.randn(n, 3, dtype=torch.float64, generator=g))

    def cost(point):
        atoms = decays(point)[0]
        return torch.linalg.vector_norm(x - amplitude(atoms, x)[:, None] * atoms, dim=1)

    before = cost(start)
    for iterations in (1, 2, 4, 30):
        after = cost(refine_points(decays, x, start, region(n), iterations))
        assert bool((after <= before * (1 + 1e-14)).all())
        before = after
    assert bool((before < cost(start)).any())


def test_the_start_is_left_alone():
    start = truth(1.2, 0.3)
    kept = start.clone()
    refine_points(decays, data(truth(0.9, 0.4)), start, region(1), 5)
    assert torch.equal(start, kept)
