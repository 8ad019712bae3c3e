"""Bad trajectories, shapes, accuracies and backends, each with a message that helps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from invlearn.physics.nufft import NonUniformFFT
from invlearn.physics.nufft.validate import choose_backend

GOOD = torch.tensor([[0.1, 0.2], [-0.5, 0.5]])


@pytest.mark.parametrize(
    ("trajectory", "kind", "message"),
    [
        (GOOD * 2.5, ValueError, r"reaches 1\.25, outside -0\.5 … 0\.5 .*radians per pixel: divide by 2π"),
        (GOOD * 60, ValueError, r"reaches 30, outside.*cycles per field of view: divide by N"),
        (torch.tensor([[torch.nan, 0.0]]), ValueError, "NaN"),
        (torch.tensor([[torch.inf, 0.0]]), ValueError, "infinite"),
        (torch.zeros(0, 2), ValueError, r"\(0, 2\) has no samples"),
        (torch.zeros(3, 0, 2), ValueError, "no samples"),
        (torch.zeros(2), ValueError, r"\(\*trajectories, samples, d\).*got \(2,\)"),
        (torch.zeros(5, 4), ValueError, "d = 1, 2 or 3 last"),
        (torch.zeros(5, 2, dtype=torch.int64), TypeError, "int64.*cycles per pixel"),
        (torch.zeros(5, 2, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(5, 2, dtype=torch.float16), TypeError, "float16"),
        (np.zeros((5, 2), dtype=np.int32), TypeError, "int32"),
        ([[0.1, 0.2]], TypeError, "tensor or numpy array, got list"),
        (torch.zeros(5, 3), ValueError, r"\(6, 7\) has 2 axes.*3 coordinates"),
    ],
)
def test_bad_trajectories(trajectory, kind, message):
    with pytest.raises(kind, match=message) as caught:
        NonUniformFFT(trajectory, (6, 7))
    assert "\n" not in str(caught.value)
    assert "NonUniformFFT" in str(caught.value)


def test_rounding_beyond_the_border_is_no_error():
    NonUniformFFT(GOOD * (1 + 1e-6), (6, 7))
    with pytest.raises(ValueError, match="outside"):
        NonUniformFFT(GOOD * (1 + 1e-4), (6, 7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (6, 0)}, "must be positive"),
        ({"shape": (10**6, 10**6)}, r"need a grid of 64\.0 TB, more than the .* of memory"),
        ({"eps": 0.0}, "eps=0.0 .*1e-13 to 0.1"),
        ({"eps": 0.5}, "eps=0.5"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"backend": "fftw"}, "no backend 'fftw'; choose one of finufft, cufinufft, torch"),
        ({"backend": "cufinufft"}, "works on cuda tensors, the trajectory is on cpu"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        NonUniformFFT(GOOD, **{"shape": (6, 7), **options})
    assert "\n" not in str(caught.value)


def chosen(name, device):
    return choose_backend(name, torch.device(device), "here").name


def test_backend_by_device_and_name():
    assert chosen(None, "cpu") == "finufft"
    assert chosen(None, "meta") == "torch"
    assert chosen("torch", "cpu") == chosen("torch", "cuda") == "torch"


def test_backend_by_what_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    monkeypatch.setitem(sys.modules, "cufinufft", None)
    assert chosen(None, "cpu") == "torch"
    assert chosen(None, "cuda") == "torch"
    with pytest.raises(ValueError, match="here: backend 'finufft' cannot be imported; pip install finufft"):
        chosen("finufft", "cpu")
    with pytest.raises(ValueError, match="pip install cufinufft, or take 'torch'"):
        chosen("cufinufft", "cuda")
    monkeypatch.setitem(sys.modules, "cufinufft", sys)
    assert chosen(None, "cuda") == "cufinufft"


def test_an_operator_without_finufft_works(monkeypatch):
    x = torch.randn(6, 7, dtype=torch.complex128)
    expected = NonUniformFFT(GOOD, (6, 7), eps=1e-9)(x)
    monkeypatch.setitem(sys.modules, "finufft", None)
    torch.testing.assert_close(NonUniformFFT(GOOD, (6, 7), eps=1e-9)(x), expected)


def test_a_named_backend_refuses_another_device():
    with pytest.raises(ValueError, match="works on cpu tensors, the trajectory is on cuda"):
        chosen("finufft", "cuda")
