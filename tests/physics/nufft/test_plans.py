"""Plans are made once and reused; cuFINUFFT is called as it documents."""

from __future__ import annotations

import sys
import types

import finufft
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.nufft import plans
from invlearn.physics.nufft.plans import CufinufftBackend, FinufftBackend
from invlearn.physics.nufft.transform import transform


def numbers(*size):
    return torch.randn(*size, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def made(monkeypatch):
    """Arguments of every plan made, and how often points were set."""
    log = types.SimpleNamespace(plans=[], points=0)

    class Plan(finufft.Plan):
        def __init__(self, *args, **kwargs):
            log.plans.append((args, kwargs))
            super().__init__(*args, **kwargs)

        def setpts(self, *args):
            log.points += 1
            super().setpts(*args)

    monkeypatch.setattr(finufft, "Plan", Plan)
    return log


def test_plans_are_reused(made, points):
    backend, k = FinufftBackend((6, 7), 1e-3), points(10, 2)
    for _ in range(3):
        y = transform(numbers(5, 6, 7), k, backend, False)
        transform(y, k, backend, True)
    assert len(made.plans) == 2
    assert made.points == 2
    k.mul_(0.5)
    transform(y, k, backend, True)
    assert len(made.plans) == 2
    assert made.points == 3


def test_several_trajectories_share_a_plan(made, points):
    backend, k = FinufftBackend((6, 7), 1e-3), points(4, 10, 2)
    transform(numbers(5, 4, 6, 7), k, backend, False)
    assert len(made.plans) == 1
    assert made.points == 4


def test_few_plans_are_kept(made, points):
    backend, k = FinufftBackend((6, 7), 1e-3), points(10, 2)
    first = [transform(numbers(n, 6, 7), k, backend, False) for n in range(1, 8)]
    assert len(backend._plans) == len(backend._loaded) == plans._PLANS
    assert len(made.plans) == 7
    assert torch.equal(first[0], transform(numbers(1, 6, 7), k, backend, False))


def test_threads_and_accuracy_reach_the_plan(made, points):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            transform(numbers(6, 7), points(10, 2), FinufftBackend((6, 7), 3e-3), False)
            assert made.plans[-1][1]["nthreads"] == threads
    finally:
        torch.set_num_threads(before)
    assert made.plans[-1][1]["eps"] < 3e-3


def test_both_directions_are_adjoint_to_rounding(points):
    backend, k = FinufftBackend((16, 15), 1e-1), points(100, 2)
    x, y = numbers(16, 15), numbers(100)
    left = torch.vdot(y, transform(x, k, backend, False))
    right = torch.vdot(transform(y, k, backend, True).flatten(), x.flatten())
    assert_close(left, right, rtol=1e-12, atol=0)


class FakePlan:
    """The interface of `cufinufft.Plan` (2.3 to 2.5), computed on the CPU."""

    def __init__(self, nufft_type, n_modes, n_trans=1, eps=1e-6, isign=None, dtype="complex64", **kwargs):
        assert set(kwargs) <= {"upsampfac", "gpu_device_id", "gpu_stream"}
        assert kwargs["gpu_stream"] == 77
        self.plan = finufft.Plan(nufft_type, n_modes, n_trans, eps, isign, dtype)

    def setpts(self, x, y=None, z=None, s=None, t=None, u=None):
        assert all(isinstance(v, torch.Tensor) and v.is_contiguous() for v in (x, y))
        self.kept = [v.numpy() for v in (x, y)]
        self.plan.setpts(*self.kept)

    def execute(self, data, out=None):
        assert data.is_contiguous()
        out.copy_(torch.from_numpy(self.plan.execute(data.numpy()).reshape(out.shape)))
        return out


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_cufinufft_is_called_as_it_documents(dtype, points, direct, direct_adjoint, error, monkeypatch):
    module = types.ModuleType("cufinufft")
    module.Plan = FakePlan
    monkeypatch.setitem(sys.modules, "cufinufft", module)
    stream = types.SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    backend, k = CufinufftBackend((6, 7), 1e-4), points(30, 2)
    x, y = numbers(3, 6, 7).to(dtype), numbers(3, 30).to(dtype)
    assert error(transform(x, k, backend, False), direct(k, x.to(torch.complex128), (6, 7))) < 1e-4
    assert error(transform(y, k, backend, True), direct_adjoint(k, y.to(torch.complex128), (6, 7))) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_cufinufft_on_the_device(dtype, points, direct, direct_adjoint, error):
    pytest.importorskip("cufinufft")
    k, x, y = points(300, 2), numbers(3, 30, 27).to(dtype), numbers(3, 300).to(dtype)
    for eps in (1e-2, 1e-4, 1e-6):
        backend = CufinufftBackend((30, 27), eps)
        there = transform(x.cuda(), k.cuda(), backend, False).cpu()
        back = transform(y.cuda(), k.cuda(), backend, True).cpu()
        assert error(there, direct(k, x.to(torch.complex128), (30, 27))) < eps
        assert error(back, direct_adjoint(k, y.to(torch.complex128), (30, 27))) < eps


def test_bare_library_agrees(points):
    k, x = points(50, 2), numbers(2, 6, 7)
    bare = finufft.nufft2d2(*(2 * np.pi * k.numpy().T[::-1]).copy(), x.numpy(), isign=-1, eps=1e-12)
    assert_close(transform(x, k, FinufftBackend((6, 7), 1e-12), False), torch.from_numpy(bare))
