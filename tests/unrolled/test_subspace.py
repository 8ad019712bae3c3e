"""Subspace images: exact cases, optimality conditions, and weights that know no scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps
from invlearn.unrolled import LocallyLowRank
from invlearn.unrolled import subspace as module
from invlearn.unrolled.subspace import Adjoint, LowRank, Method, Subspace, SubspaceProblem, method_by_name

SHAPE, RANK, FRAMES, COILS = (16, 12), 3, 20, 3


def silent(stage: str) -> None:
    pass


def images() -> Tensor:
    """Piecewise constant coefficients with smooth phase, zero at the border."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    label = ((abs(y - 7.5) < 6) & (abs(x - 5.5) < 4)).astype(int) + ((abs(y - 6) < 3) & (abs(x - 5) < 2))
    values = np.array([[0, 0, 0], [1, 0.3, -0.2], [0.6, -0.5, 0.1]])[label].transpose(2, 0, 1)
    return torch.from_numpy(values * np.exp(0.1j * x)).to(torch.complex64)


def basis() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(FRAMES, RANK, generator=generator)).Q


def problem(
    trajectory: Tensor, noise: float = 0.0, scale: float = 1.0, x: Tensor | None = None
) -> SubspaceProblem:
    """`trajectory` (samples, 2) is played in every frame."""
    samples = len(trajectory)
    frame = torch.arange(FRAMES).repeat_interleave(samples)
    maps = torch.from_numpy(birdcage_maps(COILS, SHAPE))
    operator = FingerprintOperator(trajectory.repeat(FRAMES, 1), frame, basis(), SHAPE, maps)
    y = operator(images() if x is None else x)
    generator = torch.Generator().manual_seed(1)
    y = scale * (y + noise * torch.randn(y.shape, dtype=y.dtype, generator=generator))
    density = samples / 1  # Σ |basis|² over the frames is 1 for every coefficient
    return SubspaceProblem(operator, y, trajectory.repeat(FRAMES, 1), density * maps.abs().square().sum(0))


def cartesian() -> Tensor:
    y, x = torch.meshgrid(*[(torch.arange(n) - n // 2) / n for n in SHAPE], indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).double()


def scattered(count: int = 300) -> Tensor:
    points = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return points - 0.5


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize("method", [Adjoint(), Subspace(weight=0.0)])
def test_complete_cartesian_samples_give_the_images_back(method: Method) -> None:
    found = method.solve(problem(cartesian()), silent)
    assert relative(found.value, images()) < 1e-3
    assert found.converged


def test_gain_is_the_diagonal_of_the_normal_operator() -> None:
    p = problem(scattered())
    for voxel in ((1, 2, 3), (0, 9, 8)):
        unit = torch.zeros(RANK, *SHAPE, dtype=torch.complex64)
        unit[voxel] = 1
        assert p.operator.normal(unit)[voxel].real == pytest.approx(float(p.gain[voxel[1:]]), rel=1e-4)


def test_misfit_and_noise() -> None:
    p = problem(scattered(600), noise=0.5)
    x = images()
    direct = float(torch.linalg.vector_norm(p.operator(x) - p.kspace) ** 2)
    assert p.misfit(x) == pytest.approx(direct, rel=1e-4)
    fitted = dataclasses.replace(Subspace(), weight=0.0).solve(p, silent).value
    assert p.noise(fitted) == pytest.approx(0.5, rel=0.02)


def objective(p: SubspaceProblem, x: Tensor, weight: float, sigma: float, root: float) -> Tensor:
    """The function that `Subspace` minimises, written out."""
    residual = p.operator(x) - p.kspace
    dy = torch.diff(x, dim=1, append=x[:, -1:])
    dx = torch.diff(x, dim=2, append=x[:, :, -1:])
    size = (dx.abs().square() + dy.abs().square()).sum(0)
    return (
        residual.abs().square().sum() / 2 + weight * sigma * root * (size + (sigma / root) ** 2).sqrt().sum()
    )


def test_subspace_ends_where_its_objective_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LATER_TOLERANCE", 1e-6)
    p = problem(scattered(), noise=1.0)
    start = Subspace(weight=0.0).solve(p, silent).value
    sigma, root = p.noise(start), p.scale(start)
    found = Subspace(weight=2.0, passes=60, iterations=200, tolerance=1e-5).solve(p, silent)
    gradients = []
    for x in (start, found.value):
        x = x.clone().requires_grad_()
        value = objective(p, x, 2.0, sigma, root)
        (gradient,) = torch.autograd.grad(value, x)
        gradients.append((float(value.detach()), float(torch.linalg.vector_norm(gradient))))
    assert gradients[1][0] < gradients[0][0]
    assert gradients[1][1] < 0.02 * gradients[0][1]
    assert found.converged


def test_smoothing_keeps_the_edges_and_removes_the_noise() -> None:
    p = problem(scattered(), noise=3.0)
    plain = relative(Subspace(weight=0.0).solve(p, silent).value, images())
    smooth = relative(Subspace(weight=1.0).solve(p, silent).value, images())
    blocks = relative(LowRank(patch=4).solve(p, silent).value, images())
    assert smooth < 0.6 * plain
    assert blocks < 0.8 * plain


@pytest.mark.parametrize("method", [Adjoint(), Subspace(), LowRank(iterations=10, patch=4)])
def test_the_scale_of_the_data_does_not_matter(method: Method) -> None:
    one, thousand = (
        method.solve(problem(scattered(), noise=1.0, scale=scale), silent).value for scale in (1.0, 1000.0)
    )
    assert relative(thousand / 1000, one) < 2e-3


def test_weight_one_removes_blocks_of_pure_noise() -> None:
    p = problem(scattered(), noise=1.0, x=torch.zeros(RANK, *SHAPE, dtype=torch.complex64))
    noise = torch.linalg.vector_norm(Subspace(weight=0.0).solve(p, silent).value)
    assert torch.linalg.vector_norm(LowRank(patch=4).solve(p, silent).value) < 0.05 * noise
    assert torch.linalg.vector_norm(LowRank(patch=4, weight=0.1).solve(p, silent).value) > 0.3 * noise


def test_low_rank_lowers_its_objective() -> None:
    p = problem(scattered(), noise=2.0)
    start = Subspace(weight=0.0).solve(p, silent).value
    unit = p.noise(start) * p.scale(start) * (RANK**0.5 + 4)
    prior = LocallyLowRank(unit, (4, 4), 1)
    found = LowRank(patch=4, shifts=1, tolerance=1e-5, iterations=300).solve(p, silent).value
    values = [float(prior.value(x)) + p.misfit(x) / 2 for x in (start, found, 0.99 * found, 1.01 * found)]
    assert values[1] == min(values)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (Adjoint(), {"iterations": 1}),
        (Subspace(), {"weight": 0.3}),
        (Subspace(tolerance=1e-6), {"passes": 1}),
        (Subspace(passes=1), {"iterations": 1}),
        (Subspace(), {"tolerance": 1.0}),
        (LowRank(patch=4), {"weight": 0.3}),
        (LowRank(patch=4), {"patch": 6}),
        (LowRank(patch=4), {"shifts": 1}),
        (LowRank(patch=4), {"iterations": 2}),
        (LowRank(patch=4), {"tolerance": 0.5}),
    ],
)
def test_every_setting_matters(method: Method, change: dict[str, float]) -> None:
    p = problem(scattered(), noise=2.0)
    other = dataclasses.replace(method, **change)  # type: ignore[type-var]
    assert relative(other.solve(p, silent).value, method.solve(p, silent).value) > 1e-4
    assert other.to_dict() == method.to_dict() | change


def test_progress_is_told() -> None:
    told: list[str] = []
    Subspace(passes=2, tolerance=1e-9).solve(problem(scattered()), told.append)
    assert told == ["least squares", *(f"edge-preserving pass {n} of at most 2" for n in (1, 2))]


def test_data_without_noise_are_no_division_by_zero() -> None:
    p = problem(cartesian())
    for method in (Subspace(), LowRank(patch=4)):
        found = method.solve(p, silent)
        assert found.converged
        assert relative(found.value, images()) < 1e-2


def test_what_explains_the_data_as_well_as_least_squares_has_converged() -> None:
    found = Subspace(passes=1, tolerance=1e-12).solve(problem(scattered(), noise=0.5), silent)
    assert found.converged
    strong = Subspace(weight=300.0, passes=1, tolerance=1e-12).solve(problem(scattered(), noise=0.5), silent)
    assert not strong.converged


@pytest.mark.parametrize("factor", [float("nan"), 30.0])
def test_images_that_explain_nothing_are_no_result(factor: float) -> None:
    p = problem(scattered(), noise=0.5)
    with pytest.raises(RuntimeError, match="diverged"):
        p.solved(factor * images(), 1.0, True)


def test_nothing_is_logged_about_early_stops(caplog: pytest.LogCaptureFixture) -> None:
    Subspace(passes=2, iterations=1).solve(problem(scattered(), noise=0.5), silent)
    assert caplog.text == ""


def test_methods_have_names() -> None:
    for name, kind in module.METHODS.items():
        assert isinstance(method_by_name(name), kind)
        assert method_by_name(name).to_dict()["method"] == name
    with pytest.raises(ValueError, match="no method 'best'; there are adjoint, subspace, llr"):
        method_by_name("best")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Subspace, {"weight": -1.0}),
        (Subspace, {"weight": float("nan")}),
        (Subspace, {"passes": -1}),
        (Subspace, {"iterations": 0}),
        (Subspace, {"tolerance": 0.0}),
        (LowRank, {"weight": -1.0}),
        (LowRank, {"patch": 0}),
        (LowRank, {"shifts": 9}),
        (LowRank, {"iterations": 0}),
        (Adjoint, {"iterations": 0}),
    ],
)
def test_bad_settings(kind: type[Method], change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Subspace|LowRank|Adjoint"):
        kind(**change)
