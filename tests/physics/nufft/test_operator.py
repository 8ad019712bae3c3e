"""`NonUniformFFT` against the direct sum, and how it behaves as a module."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from invlearn.physics import cg, check_adjoint
from invlearn.physics.nufft import NonUniformFFT
from invlearn.physics.nufft import operator as module

BACKENDS = pytest.mark.parametrize("backend", ["finufft", "torch"])


def numbers(*size, seed=0, dtype=torch.complex128):
    return torch.randn(*size, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)).to(dtype)


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("shape", [(101,), (30, 27), (9, 10, 11)])
def test_accuracy_is_honoured(backend, dtype, eps, shape, points, direct, direct_adjoint, error):
    k = points(300, len(shape))
    transform = NonUniformFFT(k, shape, eps=eps, backend=backend)
    x, y = numbers(2, *shape, dtype=dtype), numbers(2, 300, seed=1, dtype=dtype)
    # what comes out in single precision cannot be better than its last digit
    bound = max(eps, 1e-7 if dtype == torch.complex64 else 0)
    forward = error(transform(x), direct(k, x.to(torch.complex128), shape))
    backward = error(transform.adjoint(y), direct_adjoint(k, y.to(torch.complex128), shape))
    assert forward <= bound
    assert backward <= bound
    assert transform(x).dtype == dtype
    if eps >= 1e-4 and len(shape) == 2:
        # eps is an argument that matters: accuracy not asked for is not paid for
        assert forward > eps / 1000


@BACKENDS
def test_accuracy_in_single_precision_at_the_size_of_an_image(backend, points, direct, direct_adjoint, error):
    # rounding of the coordinates grows with the image: 256 wide here
    shape, k = (4, 256), points(500, 2)
    x, y = numbers(*shape, dtype=torch.complex64), numbers(500, dtype=torch.complex64)
    exact = direct(k, x.to(torch.complex128), shape), direct_adjoint(k, y.to(torch.complex128), shape)
    for eps in (1e-4, 1e-5, 1e-6):
        transform = NonUniformFFT(k, shape, eps=eps, backend=backend)
        assert error(transform(x), exact[0]) <= eps
        assert error(transform.adjoint(y), exact[1]) <= eps


@BACKENDS
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    many=st.lists(st.integers(1, 3), max_size=2),
    batch=st.lists(st.integers(0, 3), max_size=2),
    samples=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_any_size_batch_and_number_of_trajectories(matrix, backend, sizes, many, batch, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    k = torch.rand(*many, samples, len(sizes), dtype=torch.float64, generator=generator) - 0.5
    transform = NonUniformFFT(k, sizes, eps=1e-10, backend=backend)
    x = transform.domain.random(*batch, generator=generator)
    expected = (matrix(k, sizes) @ x.flatten(-len(sizes))[..., None])[..., 0]
    assert_close(transform(x), expected, atol=1e-7, rtol=1e-7)
    assert_close(
        transform.normal(x),
        (matrix(k, sizes).mH @ expected[..., None])[..., 0].reshape(x.shape),
        atol=1e-6,
        rtol=1e-6,
    )


@BACKENDS
@pytest.mark.parametrize("shape", [(64,), (30, 27), (8, 9, 10)])
def test_an_image_with_all_its_energy_at_the_border(backend, shape, points, direct, error):
    # where the kernel's transform is smallest and aliasing the largest
    x = torch.zeros(shape, dtype=torch.complex128)
    x[(0,) * len(shape)], x[(-1,) * len(shape)] = 1, 1j
    k = points(200, len(shape))
    for eps in (1e-2, 1e-5, 1e-9):
        assert error(NonUniformFFT(k, shape, eps=eps, backend=backend)(x), direct(k, x, shape)) < 4 * eps


def test_convention():
    # a shift by one column is a phase in kx, the first coordinate; k = 0 sums the image
    k = torch.tensor([[0.1, 0.0], [0.0, 0.2], [0.0, 0.0], [0.5, -0.5]], dtype=torch.float64)
    transform = NonUniformFFT(k, (6, 8), eps=1e-12)
    x = torch.zeros(6, 8, dtype=torch.complex128)
    x[3, 5] = 2
    assert_close(transform(x), 2 * torch.exp(-2j * torch.pi * k[:, 0]))
    x = numbers(6, 8)
    assert_close(transform(x)[2], x.sum())
    # points of the grid: the centred Fourier transform, which the Cartesian operator has too
    n = 6
    grid = (torch.arange(n, dtype=torch.float64) - n // 2) / n
    ky, kx = torch.meshgrid(grid, grid, indexing="ij")
    transform = NonUniformFFT(torch.stack([kx, ky], -1).flatten(0, 1), (n, n), eps=1e-12)
    x = numbers(n, n)
    centred = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x)))
    assert_close(transform(x).reshape(n, n), centred)


@BACKENDS
@pytest.mark.parametrize("many", [(), (2,)])
def test_gradients_in_image_and_trajectory(backend, many, points):
    k = points(*many, 7, 2).requires_grad_()
    x = numbers(2, *many, 4, 5).requires_grad_()
    y = numbers(2, *many, 7, seed=1).requires_grad_()

    def forward(x, k):
        return NonUniformFFT(k, (4, 5), eps=1e-12, backend=backend)(x)

    def adjoint(y, k):
        return NonUniformFFT(k, (4, 5), eps=1e-12, backend=backend).adjoint(y)

    for call, v in ((forward, x), (adjoint, y)):
        assert torch.autograd.gradcheck(call, (v, k), check_forward_ad=True, atol=1e-4, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, (v, k), atol=1e-3, fast_mode=True)


def test_gradient_in_the_trajectory_is_that_of_the_direct_sum(points, direct, direct_adjoint):
    k, x, y = points(40, 3), numbers(3, 4, 5, 6), numbers(3, 40, seed=1)
    k.requires_grad_()
    transform = NonUniformFFT(k, (4, 5, 6), eps=1e-12)
    for ours, exact in (
        (transform(x), direct(k, x, (4, 5, 6))),
        (transform.adjoint(y), direct_adjoint(k, y, (4, 5, 6))),
        (transform.normal(x), direct_adjoint(k, direct(k, x, (4, 5, 6)), (4, 5, 6))),
    ):
        (mine,) = torch.autograd.grad(ours.abs().square().sum(), k)
        (expected,) = torch.autograd.grad(exact.abs().square().sum(), k)
        assert_close(mine, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_a_parameter_is_learned(points):
    # the trajectory that made the data is found again from one nearby
    wanted, x = points(12, 2) * 0.9, numbers(4, 6, 6)
    y = NonUniformFFT(wanted, (6, 6), eps=1e-9)(x)
    k = torch.nn.Parameter(wanted + 0.01 * points(12, 2))
    transform = NonUniformFFT(k, (6, 6), eps=1e-9)
    assert [p is k for p in transform.parameters()] == [True]
    optimizer = torch.optim.LBFGS([k], max_iter=40, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (transform(x) - y).abs().square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert_close(k.detach(), wanted, atol=1e-5, rtol=0)


def test_a_trajectory_written_to_is_noticed(points, direct, error):
    k = points(20, 2)
    transform = NonUniformFFT(k, (6, 7), eps=1e-9)
    x = numbers(6, 7)
    before = transform(x), transform.normal(x)
    k.zero_()  # the operator has its own copy
    assert torch.equal(transform(x), before[0])
    new = points(20, 2)
    with torch.no_grad():
        transform.trajectory.copy_(new)
    assert error(transform(x), direct(new, x, (6, 7))) < 1e-8
    assert error(transform.normal(x), transform.adjoint(transform(x))) < 1e-8
    transform.trajectory = points(20, 2)
    assert error(transform(x), direct(transform.trajectory, x, (6, 7))) < 1e-8


@BACKENDS
def test_copies_and_conversions(backend, points):
    transform = NonUniformFFT(points(2, 20, 2), (6, 7), eps=1e-9, backend=backend)
    x = numbers(3, 2, 6, 7)
    y, n = transform(x), transform.normal(x)
    for again in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(again(x), y)
        assert torch.equal(again.normal(x), n)
    single = copy.deepcopy(transform).to(torch.float32)
    assert single.trajectory.dtype == torch.float32
    assert_close(single(x), y, atol=1e-4, rtol=1e-4)
    assert repr(transform).endswith(f"eps=1e-09, backend='{backend}')")


def test_numpy_in_numpy_out(points):
    k = points(20, 2)
    transform = NonUniformFFT(k.numpy(), (6, 7), eps=1e-9)
    x = numbers(6, 7)
    assert isinstance(transform(x.numpy()), np.ndarray)
    np.testing.assert_array_equal(transform(x.numpy()), NonUniformFFT(k, (6, 7), eps=1e-9)(x).numpy())


def test_normal_falls_back_where_its_kernel_would_not_fit(points, monkeypatch):
    transform = NonUniformFFT(points(2, 20, 2), (6, 7), eps=1e-3)
    x = numbers(2, 6, 7)
    convolved = transform.normal(x)
    assert transform._kernel is not None
    plain = NonUniformFFT(points(2, 20, 2), (6, 7), eps=1e-3)
    plain.trajectory.copy_(transform.trajectory)
    monkeypatch.setattr(module, "memory_limit", lambda: 10_000)
    assert torch.equal(plain.normal(x), plain.adjoint(plain(x)))
    assert plain._kernel is None
    assert_close(plain.normal(x), convolved, rtol=1e-2, atol=1e-2 * float(convolved.abs().max()))


def test_normal_of_a_learned_trajectory(points, error):
    k = torch.nn.Parameter(points(20, 2))
    transform, x = NonUniformFFT(k, (6, 7), eps=1e-3), numbers(6, 7)
    with torch.no_grad():
        fast = transform.normal(x)
        assert transform._kernel is not None
    slow = transform.normal(x)
    assert slow.requires_grad
    assert 0 < error(fast, slow.detach()) < 3e-3


def test_solves(points):
    # more samples than pixels: the image comes back from them
    transform = NonUniformFFT(points(400, 2), (9, 8), eps=1e-9)
    x = numbers(9, 8)
    solution = cg(transform.H @ transform, transform.adjoint(transform(x)), tolerance=1e-10)
    assert solution.converged
    assert_close(solution.value, x, atol=1e-6, rtol=1e-6)
    assert check_adjoint(transform)
