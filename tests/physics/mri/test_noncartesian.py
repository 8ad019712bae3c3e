"""Non-Cartesian MRI against the defining sum, the Cartesian operator, and SigPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics import Space, cg, check_adjoint
from invlearn.physics.mri import CartesianMRI, NonCartesianMRI, trajectories


def random_complex(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def points(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.5, 0.5, shape))


def direct(image, trajectory):
    """Σ_r image(r) e^(-2πi k·r) with r counted from the pixel N//2; x along the last axis."""
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in image.shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1).reshape(-1, image.ndim)
    return torch.exp(-2j * math.pi * (trajectory @ grid.T)) @ image.reshape(-1)


@pytest.mark.parametrize("shape", [(6, 9), (4, 5, 6)])
def test_is_the_defining_sum(shape):
    trajectory, maps, x = points(30, len(shape)), random_complex(3, *shape), random_complex(*shape, seed=1)
    a = NonCartesianMRI(trajectory, shape, maps, eps=1e-12)
    assert (a.domain, a.codomain) == (Space(shape, True), Space((3, 30), True))
    expected = torch.stack([direct(s * x, trajectory) for s in maps])
    assert_close(a(x), expected, rtol=1e-10, atol=1e-10)
    single = NonCartesianMRI(trajectory, shape, eps=1e-12)
    assert single.codomain == Space((30,), True)
    assert_close(single(x), direct(x, trajectory), rtol=1e-10, atol=1e-10)


def test_each_frame_has_its_trajectory_and_its_image():
    trajectory, maps, x = points(2, 3, 20, 2), random_complex(4, 6, 7), random_complex(2, 3, 6, 7, seed=1)
    a = NonCartesianMRI(trajectory, (6, 7), maps, eps=1e-12)
    assert (a.domain.shape, a.codomain.shape) == ((2, 3, 6, 7), (2, 3, 4, 20))
    y = a(x)
    for i in range(2):
        for j in range(3):
            frame = NonCartesianMRI(trajectory[i, j], (6, 7), maps, eps=1e-12)
            assert_close(y[i, j], frame(x[i, j]), rtol=1e-10, atol=1e-10)
    assert_close(a.normal(x), a.adjoint(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(8, 7), (4, 6, 5)])
def test_on_the_grid_it_is_the_cartesian_operator(shape):
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)
    maps, x = random_complex(2, *shape), random_complex(*shape, seed=1)
    a = NonCartesianMRI(grid.reshape(-1, len(shape)), shape, maps, eps=1e-12)
    cartesian = CartesianMRI(np.ones(shape), maps)
    expected = cartesian(x).flatten(1) * math.sqrt(math.prod(shape))
    assert_close(a(x), expected, rtol=1e-10, atol=1e-10)


def test_stack_of_spirals_is_a_spiral_in_every_partition():
    arms = trajectories.spiral(3, 30, (8, 8))
    stack = trajectories.stack_of(arms, 4).reshape(4, -1, 3)
    x = random_complex(4, 8, 8)
    a = NonCartesianMRI(stack.reshape(-1, 3), x.shape, eps=1e-12)
    # the transform over the partitions first: centred, without normalisation
    partitions = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, 0), dim=0), 0)
    slices = NonCartesianMRI(arms.reshape(-1, 2), (8, 8), eps=1e-12)(partitions)
    assert_close(a(x).reshape(4, -1), slices, rtol=1e-9, atol=1e-9)


def test_as_sigpy():
    import sigpy.linop

    shape, trajectory, maps = (16, 20), points(200, 2), random_complex(3, 16, 20)
    a = NonCartesianMRI(trajectory, shape, maps)
    coord = trajectory.flip(-1).numpy() * shape  # (y, x) in cycles per field of view
    oracle = sigpy.linop.NUFFT((3, *shape), coord, oversamp=2, width=8) * sigpy.linop.Multiply(
        shape, maps.numpy()
    )
    x = random_complex(*shape, seed=1).numpy()
    expected = oracle(x) * math.sqrt(math.prod(shape))
    assert np.linalg.norm(a(x) - expected) < 1e-4 * np.linalg.norm(expected)


def test_normal_is_exact_and_the_adjoint_its_own():
    trajectory = trajectories.spiral(5, 60, (12, 10), density=(1.0, 0.5)).flatten(0, 1)
    a = NonCartesianMRI(trajectory, (12, 10), random_complex(4, 12, 10))
    x = a.domain.random(2, generator=torch.Generator().manual_seed(0))
    normal, twice = a.normal(x), a.adjoint(a(x))
    assert float((normal - twice).norm() / twice.norm()) < 1e-6
    assert check_adjoint(a)


def test_eps_and_backend_matter():
    trajectory, x = points(300, 2), random_complex(16, 16)
    exact = direct(x, trajectory)
    error = {}
    for eps in (1e-2, 1e-9):
        y = NonCartesianMRI(trajectory, (16, 16), eps=eps)(x)
        error[eps] = float((y - exact).norm() / exact.norm())
    assert error[1e-9] < 1e-8 < error[1e-2] < 1e-1
    a = NonCartesianMRI(trajectory, (16, 16), backend="torch")
    assert "torch" in repr(a)
    assert float((a(x) - exact).norm() / exact.norm()) < 1e-5


def test_gradients_reach_image_and_maps_stay_their_own():
    maps = random_complex(2, 6, 6)
    a = NonCartesianMRI(points(20, 2), (6, 6), maps)
    x = random_complex(6, 6, seed=1).requires_grad_()
    before = a(x)
    before.abs().square().sum().backward()
    assert_close(x.grad, 2 * a.normal(x.detach()), rtol=1e-5, atol=1e-5)
    maps.zero_()
    assert_close(a(x), before)
    a.to(torch.float32)
    assert a.coil_maps.dtype == torch.complex64


def test_least_squares_recovers_the_image():
    trajectory = trajectories.radial(40, 32).flatten(0, 1)
    a = NonCartesianMRI(trajectory, (16, 16), random_complex(4, 16, 16))
    x = random_complex(16, 16, seed=1)
    found = cg(a.H @ a, a.adjoint(a(x)), tolerance=1e-8, max_iterations=300).value
    assert float((found - x).norm() / x.norm()) < 1e-4


@pytest.mark.parametrize(
    ("trajectory", "shape", "maps", "message"),
    [
        (points(5, 2), (4, 4), torch.zeros(2, 4, 4), "zero everywhere"),
        (points(5, 2), (4, 4), torch.full((2, 4, 4), float("nan")), "NaN"),
        (points(5, 2), (4, 4), torch.ones(2, 4, 5), r"\(C, 4, 4\)"),
        (points(5, 2), (4, 4), torch.ones(4, 4), r"\(C, 4, 4\)"),
        (points(5, 2), (4, 4), torch.ones(0, 4, 4), r"\(C, 4, 4\)"),
        (points(5, 3), (4, 4), None, "3 coordinates"),
        (points(5, 2) * 6, (4, 4), None, "outside"),
    ],
)
def test_bad_input(trajectory, shape, maps, message):
    with pytest.raises(ValueError, match=message):
        NonCartesianMRI(trajectory, shape, maps)


def test_half_precision_maps_are_refused():
    with pytest.raises(TypeError, match="float16"):
        NonCartesianMRI(points(5, 2), (4, 4), torch.ones(2, 4, 4, dtype=torch.float16))
