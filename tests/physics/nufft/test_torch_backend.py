"""The transform in torch alone; its accuracy is tested with the operator, against the direct sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.nufft import NonUniformFFT, torch_backend
from invlearn.physics.nufft import transform as transform_module
from invlearn.physics.nufft.torch_backend import TorchBackend
from invlearn.physics.nufft.transform import transform


def numbers(*size, dtype=torch.complex128):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_width_grows_with_the_accuracy():
    widths = [TorchBackend((8, 8), eps).width for eps in (1e-1, 1e-3, 1e-6, 1e-9, 1e-12)]
    assert widths == sorted(set(widths))


def test_points_on_the_border_of_kspace(direct, error):
    edge = torch.tensor([-0.5, 0.5, -0.5 + 1e-9, 0.5 - 1e-9, 0.0], dtype=torch.float64)
    k = torch.cartesian_prod(edge, edge)
    x = numbers(6, 7)
    assert error(NonUniformFFT(k, (6, 7), eps=1e-9, backend="torch")(x), direct(k, x, (6, 7))) < 1e-9


def test_interpolation_and_spreading_are_transposes(points):
    backend = TorchBackend((4, 5), 1e-2)
    gridding = backend._prepare(points(6, 2), torch.complex128)
    size = int(np.prod(backend.grid))
    there = gridding.gather @ torch.eye(size, dtype=torch.float64)
    back = gridding.spread @ torch.eye(6, dtype=torch.float64)
    assert there.shape == (6, size)
    assert torch.equal(there.T, back)


def test_the_answer_does_not_depend_on_the_chunk(points, monkeypatch):
    k, x = points(30, 2), numbers(5, 6, 7)
    backend = TorchBackend((6, 7), 1e-6)
    whole = transform(x, k, backend, False), transform(transform(x, k, backend, False), k, backend, True)
    monkeypatch.setitem(torch_backend._CHUNK, "cpu", 2 * 12 * 14 * 16)
    assert backend._steps(x) == 2
    assert_close(transform(x, k, backend, False), whole[0])
    assert_close(transform(whole[0], k, backend, True), whole[1])


def test_too_many_samples_are_refused_with_the_size(points, monkeypatch):
    monkeypatch.setattr(torch_backend, "memory_limit", lambda: 1_000_000)
    transform = NonUniformFFT(points(1000, 2), (6, 7), eps=1e-6, backend="torch")
    with pytest.raises(
        ValueError, match=r"1000 samples with 64 neighbours each take 2\.0 MB, more than half"
    ):
        transform(numbers(6, 7))


def test_many_trajectories_are_prepared_one_by_one_where_all_would_fill_memory(points, monkeypatch):
    k, x = points(5, 30, 2), numbers(2, 5, 6, 7)
    backend = TorchBackend((6, 7), 1e-6)
    monkeypatch.setattr(transform_module, "memory_limit", lambda: 4 * 5 * backend._footprint(30, x.dtype) - 1)
    y = transform(x, k, backend, False)
    assert backend._prepared is None
    monkeypatch.undo()
    assert torch.equal(transform(x, k, backend, False), y)
    assert backend._prepared is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_on_the_device(dtype, points, direct, direct_adjoint, error):
    k, x, y = points(300, 2), numbers(3, 30, 27, dtype=dtype), numbers(3, 300, dtype=dtype)
    for eps in (1e-2, 1e-5):
        there = NonUniformFFT(k, (30, 27), eps=eps, backend="torch").to("cuda")
        exact = direct(k, x.to(torch.complex128), (30, 27))
        assert error(there(x.cuda()).cpu(), exact) < eps
        exact = direct_adjoint(k, y.to(torch.complex128), (30, 27))
        assert error(there.adjoint(y.cuda()).cpu(), exact) < eps
        assert error(there.normal(x.cuda()), there.adjoint(there(x.cuda()))) < 3 * eps
