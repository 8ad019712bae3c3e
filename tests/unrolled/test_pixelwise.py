"""The network of a voxel's signal against simulation, and its inverse against the dictionary's matching."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.bloch.bounds import deviations
from invlearn.physics.mri.fingerprint import Dictionary, Grid
from invlearn.unrolled.pixelwise import (
    ExactSignals,
    PixelwiseInverse,
    SignalNetwork,
    amplitude,
    simulated,
    standard_errors,
)

FRAMES, RANK = 60, 6


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    grid = Grid.logarithmic((0.1, 5.0), (0.01, 2.5), step=0.2)
    return Dictionary.build(FingerprintSequence.default(FRAMES), grid, rank=RANK)


@pytest.fixture(scope="module")
def fitted(dictionary: Dictionary) -> tuple[SignalNetwork, float]:
    network = SignalNetwork(RANK, 200, (0.9, 0.95, 1.0, 1.05))
    return network, network.fit(dictionary.sequence, dictionary.basis, dictionary.phase, atoms=3000)


def tissues(count: int, seed: int = 0) -> Tensor:
    """`(count, 2)` log T1, log T2."""
    g = torch.Generator().manual_seed(seed)
    t1 = math.log(0.4) + math.log(8) * torch.rand(count, generator=g)
    t2 = math.log(0.03) + math.log(10) * torch.rand(count, generator=g)
    return torch.stack([t1, torch.minimum(t1, t2)], 1)


def exact(dictionary: Dictionary, point: Tensor, b1: float) -> Tensor:
    signal = simulated(dictionary.sequence, point, b1) / dictionary.phase
    return signal.real @ dictionary.basis


def test_it_is_the_signal_to_a_thousandth(
    fitted: tuple[SignalNetwork, float], dictionary: Dictionary
) -> None:
    network, error = fitted
    assert error < 1e-3
    for b1 in (0.95, 1.0):
        point = tissues(50)
        truth = exact(dictionary, point, b1)
        gap = torch.linalg.vector_norm(network(point, torch.full((50,), b1)) - truth, dim=1)
        assert float((gap / torch.linalg.vector_norm(truth, dim=1)).max()) < 1e-3


def test_exact_signals_and_their_slopes(dictionary: Dictionary) -> None:
    signals = ExactSignals(dictionary.sequence, dictionary.basis, dictionary.phase)
    assert (signals.rank, signals.fitted) == (RANK, True)
    point = tissues(20).requires_grad_()
    b1 = torch.full((20,), 0.9)
    found, slopes = signals.with_slopes(point, b1)
    torch.testing.assert_close(found, exact(dictionary, point.detach(), 0.9).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(signals(point, b1), found)
    assert not torch.allclose(signals(point), found, rtol=1e-2)
    (along,) = torch.autograd.grad(signals(point, b1)[:, 1].sum(), point)
    torch.testing.assert_close(along, slopes[:, :, 1], rtol=1e-4, atol=1e-6)
    step = 1e-2
    for i in range(2):
        moved = [point.detach() + sign * step * torch.eye(2)[i] for sign in (1, -1)]
        difference = (signals(moved[0], b1) - signals(moved[1], b1)) / (2 * step)
        inside = point[:, 1] < point[:, 0] - 2 * step
        torch.testing.assert_close(slopes[inside, i], difference[inside], rtol=1e-2, atol=1e-3)


def test_between_its_b1_it_interpolates(fitted: tuple[SignalNetwork, float], dictionary: Dictionary) -> None:
    network, point = fitted[0], tissues(30)
    truth = exact(dictionary, point, 0.975)
    size = torch.linalg.vector_norm(truth, dim=1)
    between = torch.linalg.vector_norm(network(point, torch.full((30,), 0.975)) - truth, dim=1) / size
    without = torch.linalg.vector_norm(network(point) - truth, dim=1) / size
    assert float(between.max()) < 2e-3
    assert float(without.median()) > 5 * float(between.median())
    # the layer of B1 = 1 is what there is without a map
    torch.testing.assert_close(network(point), network(point, torch.ones(30)))
    alone = SignalNetwork(2, 4)
    alone.output.normal_()
    torch.testing.assert_close(alone(point), alone(point, torch.full((30,), 0.8)))


def test_slopes_are_derivatives(fitted: tuple[SignalNetwork, float]) -> None:
    network, point = fitted[0], tissues(7).double()
    b1 = torch.full((7,), 0.93, dtype=torch.float64)
    value, slopes = network.with_slopes(point, b1)
    torch.testing.assert_close(value, network(point, b1))
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-5
        central = (network(point + step, b1) - network(point - step, b1)) / 2e-5
        torch.testing.assert_close(slopes[:, i], central, rtol=1e-5, atol=1e-8)


def test_hidden_units_and_seed_matter(dictionary: Dictionary) -> None:
    errors = []
    for hidden in (10, 60):
        network = SignalNetwork(RANK, hidden)
        errors.append(network.fit(dictionary.sequence, dictionary.basis, dictionary.phase, atoms=900))
    assert errors[1] < 0.1 * errors[0]
    first, second = (SignalNetwork(2, 5, seed=seed).slope for seed in (0, 1))
    assert not torch.equal(first, second)


def test_complex_coefficients(dictionary: Dictionary) -> None:
    turned = dictionary.basis.to(torch.complex128) * torch.exp(1j * torch.arange(RANK, dtype=torch.float64))
    network, plain = SignalNetwork(RANK, 60, complex=True), SignalNetwork(RANK, 60)
    for one, basis in ((network, turned), (plain, dictionary.basis)):
        one.fit(dictionary.sequence, basis, dictionary.phase, atoms=900, seed=3)
    point = tissues(20)
    phases = torch.exp(-1j * torch.arange(RANK))
    torch.testing.assert_close(network(point), plain(point) * phases, rtol=1e-3, atol=1e-4)
    s = network(point) * 2j
    found = PixelwiseInverse(network)(s)
    torch.testing.assert_close(found.point, point, rtol=0, atol=5e-3)


def noisy(network: SignalNetwork, count: int, noise: float) -> tuple[Tensor, Tensor]:
    point = tissues(count, 1)
    g = torch.Generator().manual_seed(2)
    s = network(point) * torch.exp(2j * math.pi * torch.rand(count, 1, generator=g))
    size = torch.linalg.vector_norm(s, dim=1).mean() / math.sqrt(RANK)
    return point, s + noise * size * torch.randn(s.shape, dtype=s.dtype, generator=g)


def test_the_inverse_undoes_the_network(fitted: tuple[SignalNetwork, float]) -> None:
    point, s = noisy(fitted[0], 300, 0.0)
    found = PixelwiseInverse(fitted[0], steps=8)(s)
    gap = (found.point - point).abs()
    assert float(gap.median()) < 1e-3
    assert float(gap.quantile(0.95)) < 2e-2
    torch.testing.assert_close(found.atom, fitted[0](found.point), rtol=1e-4, atol=1e-5)
    rebuilt = found.density[:, None] * found.atom
    gaps = torch.linalg.vector_norm(rebuilt - s, dim=1) / torch.linalg.vector_norm(s, dim=1)
    assert float(gaps.median()) < 1e-3


def test_it_finds_what_matching_finds(fitted: tuple[SignalNetwork, float], dictionary: Dictionary) -> None:
    _, s = noisy(fitted[0], 300, 0.02)
    match = dictionary.match(s.T.reshape(RANK, 300, 1))
    found = PixelwiseInverse(fitted[0], steps=10)(s)
    for i, name in enumerate(("t1", "t2")):
        gap = (found.point[:, i].exp() / getattr(match, name)[:, 0] - 1).abs()
        assert float(gap.median()) < 2e-3
        assert float(gap.quantile(0.9)) < 2e-2


def test_steps_and_start_matter(fitted: tuple[SignalNetwork, float]) -> None:
    point, s = noisy(fitted[0], 200, 0.0)
    errors = [float((PixelwiseInverse(fitted[0], steps=n)(s).point - point).abs().mean()) for n in (1, 3, 8)]
    assert errors[2] < errors[1] < errors[0]
    near = PixelwiseInverse(fitted[0], steps=2)(s, start=point + 0.01).point
    assert float((near - point).abs().mean()) < errors[0]


def test_a_known_b1_is_used(fitted: tuple[SignalNetwork, float]) -> None:
    network, point = fitted[0], tissues(100)
    b1 = torch.full((100,), 0.92)
    s = network(point, b1).to(torch.complex64)
    inverse = PixelwiseInverse(network, steps=8)
    right, wrong = ((inverse(s, field).point - point).abs().median() for field in (b1, None))
    assert float(right) < 0.2 * float(wrong)


def test_gradients_follow_the_solution(fitted: tuple[SignalNetwork, float]) -> None:
    """Along directions that the signals can take the derivative is that of finite differences."""
    inverse, (point, s) = PixelwiseInverse(fitted[0], steps=12), noisy(fitted[0], 40, 0.0)
    moved = fitted[0](point + torch.tensor([0.004, -0.006])) * amplitude(fitted[0](point), s)[:, None]
    direction = moved - s
    s.requires_grad_()
    found = inverse(s)
    (gradient,) = torch.autograd.grad(found.point.sum(), s)
    predicted = float((gradient.conj() * direction).real.sum()) / 40
    assert predicted == pytest.approx(-0.002, rel=0.05)


def test_standard_errors_are_the_bounds(fitted: tuple[SignalNetwork, float]) -> None:
    network, point = fitted[0], tissues(25)
    density = 0.7 * torch.exp(1j * torch.linspace(0, 3, 25))
    atom, jacobian = network.with_slopes(point)
    found = standard_errors(point, density, atom, jacobian)
    turned = torch.exp(1j * density.angle())[:, None] * atom
    slopes = jacobian / point.exp()[..., None] * density[:, None, None]
    rows = torch.stack([turned, 1j * turned, slopes[:, 0], slopes[:, 1]], 1)
    bound = deviations(torch.view_as_real(rows).flatten(-2).double())
    torch.testing.assert_close(found.double(), bound[:, [2, 3, 0]], rtol=2e-2, atol=0)
    nothing = standard_errors(point, density, atom, torch.zeros_like(jacobian))
    assert bool(torch.isinf(nothing).all())


def test_to_dict_rebuilds_it(fitted: tuple[SignalNetwork, float]) -> None:
    made = fitted[0].to_dict()
    assert made == {"rank": RANK, "hidden": 200, "b1": [0.9, 0.95, 1.0, 1.05], "complex": False}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="rank and hidden must be at least 1"):
        SignalNetwork(0)
    with pytest.raises(ValueError, match="positive and increasing"):
        SignalNetwork(2, 4, (1.0, 0.9))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        PixelwiseInverse(SignalNetwork(2, 4), steps=0)


def test_voxels_without_number_are_no_trouble(fitted: tuple[SignalNetwork, float]) -> None:
    found = PixelwiseInverse(fitted[0])(torch.zeros(3, RANK, dtype=torch.complex64))
    assert bool(torch.isfinite(found.point).all())
    assert found.density.abs().max() == 0
    empty = PixelwiseInverse(fitted[0])(torch.zeros(0, RANK, dtype=torch.complex64))
    assert empty.point.shape == (0, 2)
    assert np.prod(empty.jacobian.shape) == 0
