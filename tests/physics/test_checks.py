"""The checks pass what is right and catch what is not, whatever the size and the scale."""

from __future__ import annotations

import pytest
import torch

from invlearn.physics import Blur, Dense, Fourier, Mask, Space, check_adjoint, check_linear
from invlearn.physics.mri import CartesianMRI
from invlearn.physics.operator import LinearOperator


class Scripted(LinearOperator):
    """Forward and adjoint as given: for wrong ones."""

    def __init__(self, forward, adjoint, domain, codomain=None):
        super().__init__(domain, codomain or domain)
        self.script = forward, adjoint

    def _forward(self, x):
        return self.script[0](x)

    def _adjoint(self, y):
        return self.script[1](y)


@pytest.mark.parametrize("size", [10, 10_000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_error_is_the_relative_frobenius_error(size, scale):
    a = Scripted(lambda x: scale * x, lambda y: 1.1 * scale * y, Space((size,)))
    error = check_adjoint(a).error
    # ‖A - Bᴴ‖/‖B‖ = 0.1/1.1, estimated from eight probes
    assert 0.3 < error / (0.1 / 1.1) < 3
    assert not check_adjoint(a, dtype=torch.float32)
    assert check_adjoint(a, tolerance=0.5)


@pytest.mark.parametrize(
    "operator",
    [
        Scripted(lambda x: 1j * x, lambda y: 1j * y, Space((5,), True)),  # the conjugate forgotten
        Scripted(lambda x: x.roll(1, -1), lambda y: y.roll(1, -1), Space((5,))),
        Scripted(torch.fft.fft, torch.fft.ifft, Space((6,), True)),  # the scale forgotten
        Scripted(lambda x: x, lambda y: y * float("nan"), Space((4,))),
        Scripted(lambda x: x * 0, lambda y: y, Space((4,))),
    ],
)
def test_wrong_adjoints_are_caught(operator):
    for seed in range(5):
        result = check_adjoint(operator, seed=seed)
        assert not result
        assert result.to_dict()["passed"] is False


@pytest.mark.parametrize(
    "fn", [torch.abs, torch.square, lambda x: x + 1, lambda x: x.clamp_min(0), lambda x: x / x.norm()]
)
def test_nonlinear_maps_are_caught(fn):
    assert not check_linear(Scripted(fn, fn, Space((6,))))


def test_conjugation_is_not_complex_linear():
    space = Space((4,), True)
    assert not check_linear(Scripted(torch.conj, torch.conj, space))
    # but linear over the reals where a space is real
    real_part = Scripted(lambda x: x.real, lambda y: y.to(torch.complex128), space, Space((4,)))
    assert check_linear(real_part)
    assert check_adjoint(real_part)
    # and through one
    assert check_linear(real_part.H @ real_part)
    assert check_adjoint(Fourier((4,)) @ real_part.H)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_operators_pass(dtype):
    g = torch.Generator().manual_seed(0)
    for operator in (
        CartesianMRI(torch.rand(128, 96, generator=g) < 0.3),
        Blur(torch.rand(9, 9, generator=g), (100, 90), "replicate"),
        Dense(torch.randn(200, 400, generator=g)),
        1e-8 * Mask(torch.ones(64, 64)),
    ):
        assert check_adjoint(operator, dtype=dtype)
        assert check_linear(operator, dtype=dtype)


def test_result():
    result = check_adjoint(Mask(torch.ones(3)))
    assert result.to_dict() == {"name": "adjoint", "error": result.error, "tolerance": 1e-10, "passed": True}
    assert check_linear(Mask(torch.ones(3)), tolerance=0.25).tolerance == 0.25
    assert (
        check_adjoint(Mask(torch.ones(9)) * 1.1, seed=1).error
        != check_adjoint(Scripted(lambda x: x, lambda y: 2 * y, Space((9,))), seed=2).error
    )


@pytest.mark.parametrize("check", [check_adjoint, check_linear])
def test_half_precision_is_refused(check):
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.float16"):
        check(Mask(torch.ones(3)), dtype=torch.float16)


def test_probes_leave_global_randomness_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check_adjoint(Mask(torch.ones(3)))
    check_linear(Mask(torch.ones(3)))
    assert torch.equal(torch.rand(1), expected)
