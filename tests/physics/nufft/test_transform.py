"""Derivatives of the pair of transforms, and when a prepared trajectory is used again."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.nufft.plans import FinufftBackend
from invlearn.physics.nufft.torch_backend import TorchBackend
from invlearn.physics.nufft.transform import Snapshot, coordinates, fast_even_size, transform


class Counting(TorchBackend):
    prepared = 0

    def _prepare(self, trajectory, dtype):
        self.prepared += 1
        return super()._prepare(trajectory, dtype)


def numbers(*size, dtype=torch.complex128):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_a_trajectory_is_prepared_once(points):
    backend, k, x = Counting((6, 7), 1e-3), points(3, 10, 2), numbers(2, 3, 6, 7)
    for _ in range(3):
        y = transform(x, k, backend, False)
        transform(y, k.detach(), backend, True)
    assert backend.prepared == 3
    torch.func.vjp(lambda v: transform(v, k, backend, False), x)[1](y)
    assert backend.prepared == 3
    transform(x.to(torch.complex64), k, backend, False)  # other arithmetic
    assert backend.prepared == 6
    transform(x.to(torch.complex64), k.mul_(0.5), backend, False)
    assert backend.prepared == 9


def test_snapshot(points):
    k = points(4, 2)
    snapshot = Snapshot.of(k)
    assert snapshot.holds(k)
    assert snapshot.holds(k.detach())
    assert not snapshot.holds(k.clone())
    assert not snapshot.holds(k[:2])
    k.add_(1)
    assert not snapshot.holds(k)


def test_derivatives_over_functions(points):
    backend, k, x = FinufftBackend((4, 5), 1e-12), points(9, 2), numbers(4, 5)
    tangent = 0.1 * points(9, 2)

    def energy(k):
        return transform(x, k, backend, False).abs().square().sum()

    gradient = torch.func.grad(energy)(k)
    _, slope = torch.func.jvp(energy, (k,), (tangent,))
    assert_close(slope, (gradient * tangent).sum())
    step = 1e-5
    difference = (energy(k + step * tangent) - energy(k - step * tangent)) / (2 * step)
    assert_close(slope, difference, rtol=1e-6, atol=0)


def test_no_transform_is_made_for_a_derivative_that_nobody_asked_for(points, monkeypatch):
    calls = []
    apply = FinufftBackend.apply
    monkeypatch.setattr(FinufftBackend, "apply", lambda *args: calls.append(args[-1]) or apply(*args))
    backend, k, x = FinufftBackend((4, 5), 1e-6), points(9, 2), numbers(4, 5)
    torch.func.jvp(lambda v: transform(v, k, backend, False), (x,), (x,))
    assert calls == [False, False]
    transform(x, k.requires_grad_(), backend, False).abs().sum().backward()
    assert calls == [False] * 5  # x and y, no adjoint: the image asks for none


def test_single_precision_trajectory_and_data(points):
    k = points(9, 2).float().requires_grad_()
    x = numbers(2, 4, 5, dtype=torch.complex64)
    transform(x, k, FinufftBackend((4, 5), 1e-6), False).abs().sum().backward()
    assert k.grad.dtype == torch.float32
    assert k.grad.shape == k.shape


def test_the_data_is_not_kept_without_need(points):
    x = numbers(4, 5).requires_grad_()
    k = points(9, 2)
    backend = FinufftBackend((4, 5), 1e-6)
    kept = transform(x, k, backend, False).grad_fn.saved_tensors
    assert kept[0] is None
    assert transform(x, k.requires_grad_(), backend, False).grad_fn.saved_tensors[0] is not None


def test_precision_of_the_arithmetic():
    for kind, smallest in ((FinufftBackend, 1e-4), (TorchBackend, 3e-6)):
        assert kind((64, 64), smallest).arithmetic(torch.complex64) == torch.complex64
        assert kind((64, 64), smallest / 2).arithmetic(torch.complex64) == torch.complex128
        assert kind((64, 64), 0.1).arithmetic(torch.complex128) == torch.complex128
        assert kind((4096, 2), smallest).arithmetic(torch.complex64) == torch.complex128


def test_threads_may_share_an_operator(points):
    backend, k, x = FinufftBackend((16, 16), 1e-6), points(4, 200, 2), numbers(8, 4, 16, 16)
    expected = [transform(v, k, backend, False) for v in x]
    found = [None] * len(x)

    def work(i):
        found[i] = transform(x[i], k, backend, False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_data_on_another_device_is_refused(points):
    with pytest.raises(ValueError, match=r"trajectory is on cpu but the data on meta; move.*\.to\(device\)"):
        transform(numbers(4, 5).to("meta"), points(3, 2), TorchBackend((4, 5), 1e-3), False)


def test_coordinates():
    x, y = coordinates((2, 3), torch.zeros(1))
    assert x.tolist() == [-1, 0, 1]
    assert y.tolist() == [[-1], [0]]


@pytest.mark.parametrize(("least", "size"), [(1, 2), (2, 2), (22, 24), (26, 28), (362, 378), (512, 512)])
def test_fast_even_size(least, size):
    assert fast_even_size(least) == size
