"""SigPy and DeepInverse: their operators here, ours there."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import sigpy.app
import sigpy.linop
import torch
from torch import nn

from invlearn.physics import (
    Blur,
    Fourier,
    cg,
    check_adjoint,
    from_deepinv,
    from_sigpy,
    stack,
    to_deepinv,
    to_sigpy,
)
from invlearn.physics.mri import CartesianMRI

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((3, 6, 7)) + 1j * RNG.standard_normal((3, 6, 7))
MASK = RNG.random((6, 7)) < 0.7


def sense() -> sigpy.linop.Linop:
    """Coil maps, unitary Fourier transform, mask: multi-coil MRI in SigPy."""
    coils = sigpy.linop.Multiply((6, 7), MAPS)
    fourier = sigpy.linop.FFT((3, 6, 7), axes=(-2, -1))
    return sigpy.linop.Multiply((3, 6, 7), MASK) * fourier * coils


def test_a_linop_is_our_operator_of_the_same_physics() -> None:
    theirs, ours = from_sigpy(sense()), CartesianMRI(MASK, MAPS)
    x = ours.domain.random(2, generator=torch.Generator().manual_seed(0))
    y = theirs(x)
    assert (theirs.domain, theirs.codomain) == (ours.domain, ours.codomain)
    torch.testing.assert_close(y, ours(x))
    torch.testing.assert_close(theirs.adjoint(y), ours.adjoint(y))


def test_there_and_back() -> None:
    linop = sense()
    again = to_sigpy(from_sigpy(linop))
    x = RNG.standard_normal((6, 7)) + 1j * RNG.standard_normal((6, 7))
    np.testing.assert_allclose(again(x), linop(x))
    np.testing.assert_allclose(again.H(linop(x)), linop.H(linop(x)))
    ours = Blur(torch.rand(3, 3, dtype=torch.float64), (6, 7))
    image = torch.rand(6, 7, dtype=torch.float64)
    torch.testing.assert_close(from_sigpy(to_sigpy(ours), complex=False)(image), ours(image))


def test_a_linop_of_real_images_has_the_adjoint_of_the_real_inner_product() -> None:
    theirs, ours = from_sigpy(sigpy.linop.FFT((5, 4)), complex=False), Fourier((5, 4), complex=False)
    assert (theirs.domain.complex, theirs.codomain.complex) == (False, True)
    y = theirs.codomain.random(generator=torch.Generator().manual_seed(0))
    back = theirs.adjoint(y)
    assert not back.is_complex()
    spectrum = np.fft.ifft2(np.fft.ifftshift(y.numpy()), norm="ortho")
    np.testing.assert_allclose(back.numpy(), np.fft.fftshift(spectrum).real, atol=1e-12)
    assert check_adjoint(theirs)
    assert theirs.codomain == ours.codomain


def test_our_solver_inverts_their_operator_and_gradients_pass() -> None:
    a = from_sigpy(sense())
    x = a.domain.random(generator=torch.Generator().manual_seed(0))
    solution = cg(a.H @ a, a.adjoint(a(x)), tolerance=1e-10, max_iterations=200)
    torch.testing.assert_close(solution.value, x, atol=1e-6, rtol=1e-6)
    x.requires_grad_(True)
    a(x).abs().square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * a.normal(x.detach()))


def test_what_is_no_linop_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a sigpy.linop.Linop, got ndarray"):
        from_sigpy(np.eye(3))
    wrong = sigpy.linop.Multiply((4,), np.ones(4))
    wrong.mult = np.ones((5,))
    with pytest.raises(ValueError, match=r"from_sigpy: .* fails on zeros of shape \(4,\)"):
        from_sigpy(wrong)


def test_to_sigpy() -> None:
    rng = np.random.default_rng(0)
    a = CartesianMRI(rng.random((6, 7)) < 0.7, rng.standard_normal((3, 6, 7)) + 1j)
    b = to_sigpy(a)
    x = a.domain.random(generator=torch.Generator().manual_seed(0)).numpy()
    y = b(x)
    np.testing.assert_allclose(y, a(x))
    np.testing.assert_allclose(b.H(y), a.adjoint(y))
    np.testing.assert_allclose(b.N(x), a.normal(x))
    assert (b.ishape, b.oshape) == ([6, 7], [3, 6, 7])
    solved = sigpy.app.LinearLeastSquares(b, y, max_iter=200, show_pbar=False).run()
    np.testing.assert_allclose(solved, x, atol=1e-5)


class Decimate(nn.Module):
    """A linear physics as DeepInverse has it, without DeepInverse."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))

    def A(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x[..., ::2]

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.gain * torch.stack([y, 0 * y], -1).flatten(-2)


def test_a_module_with_an_adjoint_is_an_operator() -> None:
    a = from_deepinv(Decimate(3.0), (1, 4, 6))
    assert a.codomain.shape == (1, 4, 3)
    assert check_adjoint(a)
    x = torch.rand(2, 5, 1, 4, 6)
    torch.testing.assert_close(a(x), 3 * x[..., ::2])
    assert list(a.state_dict()) == ["physics.gain"]
    assert from_deepinv(Decimate(1.0), (2, 6), complex=True).codomain.complex


def test_what_is_no_linear_physics_is_refused() -> None:
    with pytest.raises(TypeError, match="a module with A and A_adjoint, got Linear"):
        from_deepinv(nn.Linear(2, 2), (1, 2, 2))

    class Two(Decimate):
        def A(self, x):
            return [x, x]

    with pytest.raises(ValueError, match=r"measurements are list.*stack the operators"):
        from_deepinv(Two(1.0), (1, 4, 6))

    class Fails(Decimate):
        def A(self, x):
            return x @ torch.ones(3, 3)

    with pytest.raises(ValueError, match=r"fails on one image R\[1, 4, 6\]: mat1 and mat2"):
        from_deepinv(Fails(1.0), (1, 4, 6))


@pytest.fixture(scope="module")
def deepinv() -> ModuleType:
    """DeepInverse, where it is installed and imports beside this torch (it needs torchvision)."""
    try:
        import deepinv
        import deepinv.physics
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"deepinv does not import: {error}")
    return deepinv


@pytest.mark.filterwarnings("ignore")
def test_deepinv_physics_here(deepinv: ModuleType) -> None:
    mri = from_deepinv(deepinv.physics.MRI(mask=torch.ones(1, 1, 8, 8), img_size=(2, 8, 8)), (2, 8, 8))
    assert check_adjoint(mri, dtype=torch.float32)
    image = torch.randn(2, 8, 8)
    found = torch.complex(*mri(image))
    ours = Fourier((8, 8), centered=True)(torch.complex(*image))
    torch.testing.assert_close(found, ours, atol=1e-5, rtol=1e-5)
    inpainting = deepinv.physics.Inpainting((1, 8, 8), mask=0.5)
    both = stack([from_deepinv(inpainting, (1, 8, 8)), from_deepinv(inpainting, (1, 8, 8))])
    assert check_adjoint(both, dtype=torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_our_operators_there(deepinv: ModuleType) -> None:
    blur = Blur(torch.rand(3, 3, dtype=torch.float64), (8, 8))
    physics = to_deepinv(blur)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert float(physics.adjointness_test(x).abs()) < 1e-12
    torch.testing.assert_close(physics(x), blur(x))
    torch.testing.assert_close(physics.A_adjoint_A(x), blur.normal(x))
    norm = float(physics.compute_norm(x[:1], verbose=False, squared=False))
    spectrum = blur.spectrum()
    assert spectrum is not None
    assert norm == pytest.approx(math.sqrt(float(spectrum.values.max())), rel=1e-2)
    torch.testing.assert_close(from_deepinv(physics, (1, 8, 8))(x), blur(x))
