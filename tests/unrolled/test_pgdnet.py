"""PGD-Net: with a silent CNN it is Wiener steps and matching; units, coils and sizes do not matter."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from invlearn.io import Scan
from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps
from invlearn.unrolled.fingerprinting import subspace_problem
from invlearn.unrolled.pgdnet import TRUST, Estimate, Measured, PGDNet
from invlearn.unrolled.pixelwise import ExactSignals, SignalNetwork
from invlearn.unrolled.subspace import SubspaceProblem
from invlearn.unrolled.wiener import Wiener

FRAMES, RANK = 60, 6


def problem_of(scan: Scan, network: PGDNet) -> SubspaceProblem:
    maps = torch.from_numpy(birdcage_maps(scan.coils, scan.shape))
    return subspace_problem(scan, network.basis.to(torch.complex64), maps, torch.device("cpu"))


@pytest.fixture(scope="module")
def problem(small_network: PGDNet, small: Any) -> SubspaceProblem:
    return problem_of(small.scan(), small_network)


@pytest.fixture(scope="module")
def measured(problem: SubspaceProblem) -> Measured:
    return Measured.of(problem)


@pytest.fixture(scope="module")
def taught(small_network: PGDNet) -> PGDNet:
    """With a CNN that says something, at random."""
    network = copy.deepcopy(small_network)
    torch.manual_seed(1)
    torch.nn.init.normal_(network.encoder.head.weight, std=0.02)
    return network


def run(network: PGDNet, scan: Measured, **options: Any) -> list[Estimate]:
    with torch.no_grad():
        return network(scan, **options)


Y, X = torch.meshgrid(*[(torch.arange(24) + 0.5) / 12 - 1] * 2, indexing="ij")
INSIDE = torch.hypot(X, Y) < 0.8


def test_the_normal_operator_and_the_noise(problem: SubspaceProblem, measured: Measured) -> None:
    x = torch.randn(RANK, 24, 24, dtype=torch.complex64)
    torch.testing.assert_close(measured.normal(x), problem.operator.normal(x), rtol=1e-4, atol=1e-3)
    assert measured.noise(x, measured.normal(x)) == pytest.approx(problem.noise(x), rel=1e-4)


def test_a_silent_cnn_leaves_steps_towards_the_data_and_matching(
    small_network: PGDNet, problem: SubspaceProblem, measured: Measured, small: Any
) -> None:
    found = run(small_network, measured, learned=False)
    wiener = Wiener(measured, small_network._covariance(torch.device("cpu")))
    start = small_network.first(measured)
    for t, estimate in enumerate(found):
        if t:
            x = found[t - 1].images
            variance = TRUST * (estimate.noise / float(start.scale)) ** 2
            residual = problem.back_projection - problem.operator.normal(x)
            s = x + wiener.correction(residual, variance, small_network.steps).images
        else:
            s = start.images
        torch.testing.assert_close(estimate.gradient, s, rtol=0, atol=2e-3 * float(s.abs().max()))
        match = small.dictionary.match(s, mask=INSIDE)
        for i, name in enumerate(("t1", "t2")):
            gap = (estimate.point[i].exp() / getattr(match, name) - 1).abs()[INSIDE]
            assert float(gap.median()) < 3e-3
        atoms = small_network.decoder(estimate.point.flatten(1).T).T.reshape(RANK, 24, 24)
        torch.testing.assert_close(estimate.images, atoms * estimate.density, rtol=1e-4, atol=1e-5)


def test_iterations_lower_the_error_and_explain_as_much(
    small_network: PGDNet, measured: Measured, small: Any
) -> None:
    found = run(small_network, measured)
    assert len(found) == 3
    noise = [estimate.noise for estimate in found]
    last = measured.noise(found[-1].images, measured.normal(found[-1].images))
    assert max(last, *noise) < 1.1 * noise[0]
    truth = torch.from_numpy(small.tissue().t1)[INSIDE]
    errors = [float((e.point[0].exp()[INSIDE] / truth - 1).abs().median()) for e in found]
    assert errors[-1] < errors[0]


def test_the_unit_of_the_data_does_not_matter(taught: PGDNet, measured: Measured) -> None:
    factor = 1e3 * complex(math.cos(1), math.sin(1))
    other = replace(measured, back_projection=factor * measured.back_projection, energy=1e6 * measured.energy)
    one, two = run(taught, measured)[-1], run(taught, other)[-1]
    torch.testing.assert_close(one.point[:, INSIDE], two.point[:, INSIDE], rtol=0, atol=0.02)
    torch.testing.assert_close(factor * one.density, two.density, rtol=0, atol=20)


def test_what_the_cnn_says_counts(taught: PGDNet, small_network: PGDNet, measured: Measured) -> None:
    gap = run(taught, measured)[-1].point - run(small_network, measured)[-1].point
    assert float(gap[:, INSIDE].abs().mean()) > 1e-3
    quiet = run(taught, measured, learned=False)[-1].point
    quiet = quiet - run(small_network, measured, learned=False)[-1].point
    assert float(quiet.abs().max()) < 1e-5


@pytest.mark.parametrize(("size", "coils"), [(32, 3), (20, 1)])
def test_any_matrix_and_number_of_coils(small_network: PGDNet, small: Any, size: int, coils: int) -> None:
    scan = Measured.of(problem_of(small.scan(size, coils), small_network))
    found = run(small_network, scan)[-1]
    truth = small.tissue(size)
    inside = torch.from_numpy(truth.inside)
    gap = (found.point[0].exp() / torch.from_numpy(truth.t1) - 1).abs()[inside]
    assert float(gap.median()) < 0.06


def test_without_coil_maps(small_network: PGDNet) -> None:
    trajectory = torch.rand(400, 2, dtype=torch.float64) - 0.5
    frame = torch.arange(400) % FRAMES
    operator = FingerprintOperator(trajectory, frame, small_network.basis.to(torch.complex64), (8, 8))
    kspace = torch.randn(1, 400, dtype=torch.complex64)
    one = Measured.of(SubspaceProblem(operator, kspace, trajectory, torch.ones(8, 8)))
    assert one.coil_maps.shape == (1, 8, 8)
    assert run(small_network, one)[-1].images.shape == (RANK, 8, 8)


def test_volumes_plane_by_plane(taught: PGDNet) -> None:
    trajectory = torch.rand(3000, 3, dtype=torch.float64) - 0.5
    frame = torch.arange(3000) % FRAMES
    operator = FingerprintOperator(trajectory, frame, taught.basis.to(torch.complex64), (4, 12, 8))
    kspace = operator(torch.randn(RANK, 4, 12, 8, dtype=torch.complex64))
    gain = torch.full((4, 12, 8), 50.0)
    found = run(taught, Measured.of(SubspaceProblem(operator, kspace, trajectory, gain)))
    assert found[-1].point.shape == (2, 4, 12, 8)
    assert bool(torch.isfinite(found[-1].point).all())


def test_every_setting_matters(small: Any, measured: Measured) -> None:
    def last(**options: Any) -> Tensor:
        return run(small.network(**options), measured)[-1].point[:, INSIDE]

    usual = last()
    for options in ({"iterations": 1}, {"start": 2}, {"steps": 1}):
        assert float((last(**options) - usual).abs().max()) > 1e-3, options
    shapes = [
        sum(p.numel() for p in small.network(**o).encoder.parameters())
        for o in ({}, {"width": 5}, {"levels": 3})
    ]
    assert len(set(shapes)) == 3


def test_detached_iterates_pass_no_gradient_back(taught: PGDNet, measured: Measured) -> None:
    network, gradients = copy.deepcopy(taught), []
    for detach in (False, True):
        network.zero_grad()
        found = network(measured, detach=detach)
        found[-1].point[:, INSIDE].sum().backward()
        gradients.append(network.encoder.head.weight.grad.clone())
        assert found[-1].gradient.requires_grad != detach
    assert bool(gradients[1].any())
    assert not torch.allclose(*gradients)


def test_a_start_that_is_known_is_taken(small_network: PGDNet, measured: Measured) -> None:
    start = small_network.first(measured)
    one, other = (run(small_network, scan) for scan in (measured, replace(measured, start=start)))
    torch.testing.assert_close(one[-1].images, other[-1].images)
    wrong = replace(measured, start=start._replace(images=0.5 * start.images))
    assert not torch.allclose(run(small_network, wrong)[0].images, one[0].images, rtol=0.1)


def test_a_b1_map_is_used(small_network: PGDNet, measured: Measured) -> None:
    found = [
        run(small_network, replace(measured, b1=field))[-1].point[:, INSIDE]
        for field in (None, torch.ones(24, 24), torch.full((24, 24), 0.95))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)
    assert float((found[2] - found[0]).abs().median()) > 5e-3


def test_the_digest_knows_sequence_and_basis(small_network: PGDNet, small: Any) -> None:
    assert small_network.digest() == small.network(width=5).digest()
    other = PGDNet(small.sequence, small.dictionary.basis[:, :4])
    assert other.digest() != small_network.digest()


def test_exact_signals_change_as_little_as_the_decoder_errs(
    taught: PGDNet, measured: Measured, small: Any
) -> None:
    exact = taught.with_exact_signals()
    assert isinstance(taught.decoder, SignalNetwork)
    assert isinstance(exact.decoder, ExactSignals)
    assert exact.inverse.network is exact.decoder
    one, other = (run(network, measured)[-1] for network in (taught, exact))
    gap = (one.point - other.point)[:, INSIDE].abs()
    assert 0 < float(gap.median()) < 2e-3
    exact.zero_grad()
    exact(measured)[-1].images.abs().square().sum().backward()  # exact derivatives too
    assert bool(exact.encoder.head.weight.grad.any())
    assert exact.fit_decoder() == 0


def test_the_decoder_matters(small_network: PGDNet, small: Any, measured: Measured) -> None:
    decoder = SignalNetwork(RANK, 30)
    coarse = PGDNet(small.sequence, small.dictionary.basis, small.dictionary.phase, decoder, iterations=3)
    assert coarse.fit_decoder(atoms=2000) > 2 * small_network.fit_decoder(atoms=2000)
    for wrong in (SignalNetwork(RANK - 1, 30), SignalNetwork(RANK, 30, complex=True)):
        with pytest.raises(ValueError, match=f"the decoder must give {RANK} real coefficients"):
            PGDNet(small.sequence, small.dictionary.basis, small.dictionary.phase, wrong)


def test_bad_input(small_network: PGDNet, small: Any) -> None:
    with pytest.raises(ValueError, match=r"the basis \(60, 6\) must be \(frames, K\) with the sequence's 50"):
        PGDNet(FingerprintSequence.default(50), small.dictionary.basis)
    for wrong in ({"iterations": 0}, {"start": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            PGDNet(small.sequence, small.dictionary.basis, **wrong)
    with pytest.raises(ValueError, match=r"runs from 0.5 to 0.5, the weights know 0.9 to 1.1"):
        small_network.require_b1(torch.full((2, 2), 0.5))
    small_network.require_b1(torch.full((2, 2), 1.05))
    small_network.require_b1(None)
