"""Signals, networks and measurements as evidence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from invlearn.identifiability import Generated, Measurements
from invlearn.identifiability.evidence import network_tangents, sample_tangents
from invlearn.identifiability.setting import Setting
from invlearn.physics import Dense, Mask, OperatorFamily


def gaussian(*shape: int, seed: int = 0, complex: bool = False) -> Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def projector(rows: Tensor) -> Tensor:
    return rows.T @ rows.conj()


SETTING = Setting(Mask(torch.ones(4, 5)))


def test_network_tangents_of_a_linear_network() -> None:
    a = gaussian(20, 3)
    q = torch.linalg.qr(a)[0]
    found = network_tangents(SETTING, Generated(lambda z: (a @ z).reshape(4, 5), 3), points=2, seed=0)
    assert len(found) == 2
    for u in found:
        assert u.shape == (3, 20)
        torch.testing.assert_close(projector(u), q @ q.T)


def test_network_tangents_of_a_curved_one_follow_the_seed() -> None:
    net = Generated(lambda z: torch.outer(z[:4].sin(), z[4:].cos()), 9)
    first, second = (network_tangents(SETTING, net, points=1, seed=s)[0] for s in (0, 1))
    assert first.shape == (8, 20)  # outer products of 4 and 5 numbers have dimension 8, not 9
    assert not torch.allclose(projector(first), projector(second))
    assert torch.equal(first, network_tangents(SETTING, net, points=1, seed=0)[0])


def test_network_in_single_precision() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 20), nn.Unflatten(0, (4, 5)))
    (u,) = network_tangents(SETTING, Generated(net, 4), points=1, seed=0)
    assert u.dtype == torch.float64
    assert u.shape == (2, 20)
    w = net[1].weight.detach().double()
    q = torch.linalg.qr(w)[0]
    torch.testing.assert_close(projector(u), q @ q.T, atol=1e-5, rtol=0)


def test_network_of_complex_signals() -> None:
    setting = Setting(Mask(torch.ones(6), complex=True))
    a = gaussian(6, 2, complex=True)
    (u,) = network_tangents(setting, Generated(lambda z: a @ z.to(a.dtype), 2), points=1, seed=0)
    assert u.is_complex()
    assert u.shape == (2, 6)
    torch.testing.assert_close(projector(u), a @ torch.linalg.pinv(a))


@pytest.mark.parametrize("output", [(20,), (5, 4), (3, 4, 5), (1, 4, 5)])
def test_network_of_another_space(output: tuple[int, ...]) -> None:
    net = Generated(lambda z: z.sum() * torch.ones(output, dtype=z.dtype), 2)
    with pytest.raises(ValueError, match=r"network"):
        network_tangents(SETTING, net, points=1, seed=0)


def circle(count: int, noise: float = 0.0) -> Tensor:
    t = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 * torch.pi
    plane = torch.linalg.qr(gaussian(20, 2))[0]
    return torch.stack([t.cos(), t.sin()], 1) @ plane.T + noise * gaussian(count, 20, seed=2)


def test_sample_tangents_of_a_circle() -> None:
    x = circle(2000)
    plane = torch.linalg.qr(gaussian(20, 2))[0]
    for u in sample_tangents(SETTING, x, 1, points=4, seed=0):
        assert u.shape == (1, 20)
        inside = projector(plane.T) @ u[0]
        torch.testing.assert_close(inside, u[0])
        # across the radius of one of the samples
        assert float((x @ u[0]).abs().min()) < 1e-2


def test_noise_widens_the_neighbourhoods() -> None:
    x = circle(2000, noise=0.02)

    def error(noise: float) -> float:
        plane = torch.linalg.qr(gaussian(20, 2))[0]
        found = sample_tangents(SETTING, x, 1, points=8, seed=0, noise=noise)
        return max(float(torch.linalg.vector_norm(u[0] - projector(plane.T) @ u[0])) for u in found)

    assert error(0.02) < 0.5 * error(0.0)


def test_tangents_have_at_most_the_dimension_of_the_samples() -> None:
    flat = gaussian(50, 2) @ gaussian(2, 20, seed=1)
    assert all(u.shape == (2, 20) for u in sample_tangents(SETTING, flat, 4, points=3, seed=0))
    with pytest.raises(ValueError, match="too few"):
        sample_tangents(SETTING, flat[:4], 4, points=3, seed=0)


FAMILY = Setting(OperatorFamily([Dense(gaussian(3, 6)), Dense(gaussian(4, 6))]))


def test_measurements_that_fit() -> None:
    found = Measurements(torch.zeros(5, 4), torch.tensor([0, 1, 1, 0, 1], dtype=torch.int32))
    assert found.operator_index is not None
    assert found.operator_index.dtype == torch.int64
    found.check_fits(FAMILY)
    alone = Measurements(torch.zeros(5, 4)).operator_index
    assert alone is not None
    assert alone.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("y", "index", "message"),
    [
        (torch.zeros(5), None, r"\(N, m\)"),
        (torch.zeros(0, 4), None, r"\(N, m\)"),
        (torch.full((5, 4), torch.nan), None, "NaN"),
        (torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64), "5 integers"),
        (torch.zeros(5, 4), torch.zeros(5), "5 integers"),
        (torch.zeros(5, 4), torch.zeros(5, dtype=torch.bool), "5 integers"),
    ],
)
def test_bad_measurements(y: Tensor, index: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measurements(y, index)


@pytest.mark.parametrize(
    ("y", "index", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 2]), "2 operators"),
        (torch.zeros(2, 4), torch.tensor([-1, 0]), "2 operators"),
        (torch.zeros(2, 5), torch.tensor([0, 1]), "5 numbers"),
    ],
)
def test_measurements_of_other_operators(y: Tensor, index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measurements(y, index).check_fits(FAMILY)
