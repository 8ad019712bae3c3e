from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri import FingerprintOperator, NonCartesianMRI
from invlearn.physics.mri.fingerprint import operator as module
from invlearn.physics.nufft import NonUniformFFT

FRAMES, PER_FRAME, RANK, COILS = 6, 15, 3, 2


def problem(shape=(7, 10), complex=False, seed=0):
    """Trajectory, frame, basis and coil maps."""
    g = torch.Generator().manual_seed(seed)
    samples = FRAMES * PER_FRAME
    trajectory = torch.rand(samples, len(shape), dtype=torch.float64, generator=g) - 0.5
    frame = torch.arange(FRAMES).repeat_interleave(PER_FRAME)[torch.randperm(samples, generator=g)]
    basis = torch.randn(FRAMES, RANK, dtype=torch.complex128 if complex else torch.float64, generator=g)
    maps = torch.randn(COILS, *shape, dtype=torch.complex128, generator=g)
    return trajectory, frame, torch.linalg.qr(basis)[0], maps


def images(operator, seed=1):
    return operator.domain.random(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7, 10), (3, 5, 4)])
@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("coils", [False, True])
def test_is_the_transform_of_every_frames_image(shape, complex, coils):
    trajectory, frame, basis, maps = problem(shape, complex)
    maps = maps if coils else None
    a = FingerprintOperator(trajectory, frame, basis, shape, maps, eps=1e-12)
    x = images(a)
    expected = torch.zeros(a.codomain.shape, dtype=torch.complex128)
    for f in range(FRAMES):
        image = torch.einsum("k,k...->...", basis[f].to(x.dtype), x)
        mine = frame == f
        one_frame = NonCartesianMRI(trajectory[mine], shape, maps, eps=1e-12)
        expected[:, mine] = one_frame(image).reshape(-1, int(mine.sum()))
    assert_close(a(x), expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_toeplitz_normal_is_exact(complex, weighted):
    trajectory, frame, basis, maps = problem((16, 13), complex)
    weights = torch.rand(len(frame), dtype=torch.float64) if weighted else None
    exact = FingerprintOperator(trajectory, frame, basis, (16, 13), maps, weights=weights, eps=1e-13)
    x = images(exact)
    expected = exact.adjoint(exact(x))
    size = torch.linalg.vector_norm(expected)
    rough = FingerprintOperator(trajectory, frame, basis, (16, 13), maps, weights=weights, eps=1e-3)
    for a in (exact, rough):  # the transfer functions do not suffer from a rough transform
        assert float(torch.linalg.vector_norm(a.normal(x) - expected) / size) < 1e-6
    single = rough.normal(x.to(torch.complex64))
    assert single.dtype == torch.complex64
    assert float(torch.linalg.vector_norm(single - expected) / size) < 1e-6
    assert rough.transfer(torch.float32).is_complex() == complex


def test_accuracy_and_backend_matter():
    trajectory, frame, basis, maps = problem((24, 24))
    exact = FingerprintOperator(trajectory, frame, basis, (24, 24), maps, eps=1e-13)
    x = images(exact)
    errors = [
        float(
            (FingerprintOperator(trajectory, frame, basis, (24, 24), maps, eps=eps)(x) - exact(x)).abs().max()
        )
        for eps in (1e-2, 1e-6)
    ]
    assert errors[0] > 100 * errors[1] > 0
    other = FingerprintOperator(trajectory, frame, basis, (24, 24), maps, eps=1e-9, backend="torch")
    assert other.nufft._engine.name == "torch"
    assert_close(other(x), exact(x), atol=1e-6, rtol=1e-6)
    assert_close(other.normal(x), exact.normal(x), atol=1e-5, rtol=1e-6)


def test_weights_are_density_compensation():
    trajectory, frame, basis, maps = problem()
    weights = torch.rand(len(frame), dtype=torch.float64)
    plain = FingerprintOperator(trajectory, frame, basis, (7, 10), maps, eps=1e-12)
    weighted = FingerprintOperator(trajectory, frame, basis, (7, 10), maps, weights=weights, eps=1e-12)
    x = images(plain)
    assert_close(weighted(x), weights.sqrt() * plain(x))
    assert_close(weighted.normal(x), plain.adjoint(weights * plain(x)), atol=1e-9, rtol=1e-9)


def test_transfer_functions_are_made_once_and_anew_when_something_changes():
    trajectory, frame, basis, maps = problem()
    a = FingerprintOperator(trajectory, frame, basis, (7, 10), maps, eps=1e-12)
    x = images(a)
    first = a.normal(x)
    kernel = a.transfer(torch.float64)
    assert a.transfer(torch.float64) is kernel
    a.load_state_dict(FingerprintOperator(*problem(seed=3)[:3], (7, 10), maps, eps=1e-12).state_dict())
    assert not torch.allclose(a.normal(x), first)
    assert_close(a.normal(x), a.adjoint(a(x)), atol=1e-9, rtol=1e-9)


def test_transfer_functions_in_parts(monkeypatch):
    trajectory, frame, basis, maps = problem()
    a = FingerprintOperator(trajectory, frame, basis, (7, 10), maps, eps=1e-12)
    x = images(a)
    whole = a.normal(x)
    monkeypatch.setattr(module, "_PAIR_BYTES", 1)
    again = FingerprintOperator(trajectory, frame, basis, (7, 10), maps, eps=1e-12)
    assert_close(again.normal(x), whole)


def test_one_frame_and_one_coefficient_are_plain_mri():
    trajectory, *_, maps = problem()
    a = FingerprintOperator(
        trajectory, torch.zeros(len(trajectory), dtype=torch.int64), torch.ones(1, 1), (7, 10), maps
    )
    plain = NonCartesianMRI(trajectory, (7, 10), maps)
    x = images(a)
    assert_close(a(x), plain(x[0]))
    assert_close(a.normal(x)[0], plain.normal(x[0]))
    alone = FingerprintOperator(
        trajectory, torch.zeros(len(trajectory), dtype=torch.int32), torch.ones(1, 1), (7, 10)
    )
    assert_close(alone(x)[0], NonUniformFFT(trajectory, (7, 10))(x[0]))


def test_numpy_arguments_are_copied():
    trajectory, frame, basis, maps = (part.numpy() for part in problem())
    a = FingerprintOperator(trajectory, frame, basis, (7, 10), maps)
    x = images(a)
    expected = a(x)
    for part in (trajectory, frame, basis, maps):
        part[...] = 0
    assert torch.equal(a(x), expected)
    assert "6 frames" in repr(a)


TRAJECTORY, FRAME, BASIS, MAPS = problem()
NAN = math.nan


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"frame": FRAME[:-1]}, ValueError, r"frame must be \(90,\), one entry for each sample"),
        ({"frame": FRAME + 1}, ValueError, "frame runs from 1 to 6, the basis has rows for frames 0 to 5"),
        ({"frame": FRAME - 1}, ValueError, "frame runs from -1"),
        ({"frame": FRAME.double()}, TypeError, "integer frame"),
        ({"basis": BASIS[0]}, ValueError, r"basis must be \(frames, K\)"),
        ({"basis": BASIS.T}, ValueError, "basis must be"),
        ({"basis": BASIS * NAN}, ValueError, "basis has NaN"),
        ({"trajectory": TRAJECTORY * 3}, ValueError, r"outside -0.5 … 0.5"),
        ({"trajectory": TRAJECTORY * NAN}, ValueError, "NaN"),
        ({"trajectory": TRAJECTORY.reshape(6, 15, 2)}, ValueError, r"one trajectory \(N, d\)"),
        ({"shape": (7, 10, 4)}, ValueError, "axes"),
        ({"coil_maps": MAPS[:0]}, ValueError, "coil_maps must be"),
        ({"coil_maps": MAPS[:, :5]}, ValueError, "coil_maps must be"),
        ({"coil_maps": 0 * MAPS}, ValueError, "zero everywhere"),
        ({"coil_maps": NAN * MAPS}, ValueError, "NaN"),
        ({"weights": torch.ones(3)}, ValueError, r"weights must be \(90,\)"),
        ({"weights": -torch.ones(90)}, ValueError, "not negative"),
        ({"eps": 0.5}, ValueError, "eps=0.5"),
        ({"backend": "fast"}, ValueError, "no backend 'fast'"),
        ({"shape": (10**5, 10**5)}, ValueError, r"need [\d.,]+ TB"),
    ],
)
def test_bad_input(changes, error, message):
    arguments = {
        "trajectory": TRAJECTORY,
        "frame": FRAME,
        "basis": BASIS,
        "shape": (7, 10),
        "coil_maps": MAPS,
    }
    with pytest.raises(error, match=message):
        FingerprintOperator(**{**arguments, **changes})


def test_kspace_of_another_length_is_refused():
    a = FingerprintOperator(TRAJECTORY, FRAME, BASIS, (7, 10), MAPS)
    with pytest.raises(ValueError, match=r"expects \(\*batch, 2, 90\), got \(2, 89\)"):
        a.adjoint(np.ones((2, 89), dtype=complex))
