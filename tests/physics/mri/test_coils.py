"""Coil maps: simulated coils are found again; compression keeps the energy and the noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.linear.fourier import unitary_fft
from invlearn.physics.mri import NonCartesianMRI, coils, trajectories

N = 48
y, x = np.mgrid[:N, :N] - N // 2
OBJECT = (x / (0.4 * N)) ** 2 + (y / (0.35 * N)) ** 2 < 1
IMAGE = OBJECT * (1 + 0.3 * np.sin(x / 4) * np.cos(y / 5)) * np.exp(0.4j * np.sin(x / 9))


def birdcage(count: int = 6) -> np.ndarray:
    """Smooth maps around the image, of unit energy, written for this test."""
    angle = 2 * np.pi * np.arange(count)[:, None, None] / count
    dx, dy = x / N - 0.8 * np.cos(angle), y / N - 0.8 * np.sin(angle)
    maps = np.exp(1j * np.arctan2(dy, dx)) / np.hypot(dx, dy)
    return maps / np.linalg.norm(maps, axis=0)


MAPS = birdcage()
KSPACE = unitary_fft(torch.from_numpy(MAPS * IMAGE), (-2, -1), centered=True).numpy()


def misfit(found, where=OBJECT):
    """1 - |<found, true>|, 0 for equality up to a common phase, the largest in the object."""
    return float(1 - np.abs((np.conj(found) * MAPS).sum(0))[where].min())


def spiral_data(arms=16):
    trajectory = trajectories.spiral(arms, 400, (N, N)).flatten(0, 1)
    return NonCartesianMRI(trajectory, (N, N), MAPS)(IMAGE), trajectory


def estimates():
    kspace, trajectory = spiral_data()
    return {
        "espirit": coils.espirit(KSPACE),
        "adaptive": coils.adaptive_maps(MAPS * IMAGE),
        "espirit from spirals": coils.estimate_maps(kspace, trajectory, (N, N)),
        "adaptive from spirals": coils.estimate_maps(kspace, trajectory, (N, N), "adaptive"),
    }


@pytest.fixture(scope="module", name="found")
def found_maps():
    return estimates()


@pytest.mark.parametrize(
    ("name", "limit"),
    [("espirit", 1e-3), ("adaptive", 1e-3), ("espirit from spirals", 2e-3), ("adaptive from spirals", 1e-2)],
)
def test_simulated_coils_are_found_up_to_a_common_phase(found, name, limit):
    assert misfit(found[name]) < limit


@pytest.mark.parametrize("name", ["espirit", "adaptive", "espirit from spirals", "adaptive from spirals"])
def test_normalised_and_real_in_the_virtual_coil(found, name):
    maps = found[name]
    energy = (np.abs(maps) ** 2).sum(0)
    np.testing.assert_allclose(energy[energy > 0], 1, rtol=1e-5)
    np.testing.assert_allclose(energy[OBJECT], 1, rtol=1e-5)
    weights = np.linalg.svd(maps.reshape(len(maps), -1), full_matrices=False)[0][:, 0]
    virtual = np.tensordot(weights.conj(), maps, 1)
    phase = virtual[OBJECT] / np.abs(virtual[OBJECT])
    np.testing.assert_allclose(phase, phase[0], atol=1e-4)  # one constant: the sign of w is free


@pytest.mark.parametrize(("shape", "side", "kernel"), [((N, N), 16, 4), ((10, 9, 12), 9, 3), ((5, 7), 5, 4)])
def test_espirit_equals_sigpys(shape, side, kernel):
    from sigpy.mri.app import EspiritCalib

    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    places = rng.normal(size=(4, len(shape), *[1] * len(shape)))
    images = np.exp(-((grid - places) ** 2).sum(1) + 1j * (grid * places).sum(1))
    images *= (grid**2).sum(0) < 0.7
    kspace = unitary_fft(torch.from_numpy(images), tuple(range(-len(shape), 0)), centered=True).numpy()
    ours = coils.espirit(kspace, calibration=side, kernel=kernel, crop=0.0)
    theirs, eigenvalue = EspiritCalib(
        kspace, side, kernel_width=kernel, crop=0, max_iter=1000, output_eigenvalue=True, show_pbar=False
    ).run()
    eigenvalue = np.squeeze(eigenvalue.real)
    together = np.abs((ours.conj() * theirs).sum(0))
    np.testing.assert_allclose(together[eigenvalue > 0.9 * eigenvalue.max()], 1, atol=1e-5)
    for crop in (0.5 * float(eigenvalue.max()), 0.9 * float(eigenvalue.max())):
        kept = np.abs(coils.espirit(kspace, calibration=side, kernel=kernel, crop=crop)).sum(0) > 0
        assert (kept == (eigenvalue > crop)).mean() > 0.97


def test_espirit_is_zero_where_there_is_no_signal(found):
    assert (np.abs(found["espirit"]).sum(0) == 0).mean() > 0.2


def test_espirit_options_matter():
    base = coils.espirit(KSPACE)
    for option in ({"calibration": 12}, {"kernel": 4}, {"threshold": 0.1}):
        other = coils.espirit(KSPACE, **option)
        assert np.abs(other - base).max() > 1e-6
        assert misfit(other, OBJECT & other.any(0)) < 0.01
    assert (np.abs(coils.espirit(KSPACE, crop=0.999)) > 0).sum() < (np.abs(base) > 0).sum()


def test_adaptive_options_matter():
    noise = np.random.default_rng(0).standard_normal((2, 6, N, N))
    images = MAPS * IMAGE + 0.1 * (noise[0] + 1j * noise[1])
    # a larger box averages more noise, more iterations come closer to the eigenvector
    assert misfit(coils.adaptive_maps(images, size=9)) < misfit(coils.adaptive_maps(images, size=3))
    assert misfit(coils.adaptive_maps(images)) < misfit(coils.adaptive_maps(images, iterations=1))
    cut = coils.adaptive_maps(images, threshold=0.2)
    assert (np.abs(cut).sum(0) == 0).mean() > 0.2
    assert (np.abs(cut).sum(0) > 0)[N // 2, N // 2]
    assert (np.abs(coils.adaptive_maps(images)).sum(0) > 0).all()


def test_adaptive_is_the_eigenvector_of_the_local_covariance():
    # where all pixels of a box see the same coils, it is exact
    maps = np.array([3, 4j, -2])[:, None, None] / np.sqrt(29)
    found = coils.adaptive_maps(maps * IMAGE[None], iterations=1)
    aligned = np.abs((np.conj(found) * maps).sum(0))
    np.testing.assert_allclose(aligned[OBJECT], 1, rtol=1e-12)


def test_scaling_the_data_changes_nothing():
    for scale in (1e-6, 1e6j):
        assert_close(
            torch.from_numpy(coils.adaptive_maps(MAPS * IMAGE * scale)),
            torch.from_numpy(coils.adaptive_maps(MAPS * IMAGE)),
            rtol=1e-6,
            atol=1e-6,
        )


def test_volumes():
    z = np.linspace(0.9, 1.1, 10)[:, None, None]
    maps = np.stack([z + 0 * x, 1j * (2 - z) + 0 * x])
    maps = (maps / np.linalg.norm(maps, axis=0))[..., ::3, ::3]
    image = np.broadcast_to(IMAGE[::3, ::3], maps.shape[1:])
    inside = np.broadcast_to(OBJECT[::3, ::3], maps.shape[1:])
    kspace = unitary_fft(torch.from_numpy(maps * image), (-3, -2, -1), centered=True)
    for found in (coils.adaptive_maps(torch.from_numpy(maps * image)), coils.espirit(kspace, kernel=4)):
        assert isinstance(found, torch.Tensor)
        aligned = np.abs((np.conj(found.numpy()) * maps).sum(0))
        assert aligned[inside].min() > 0.98


def test_calibration_region_holds_cartesian_kspace():
    kspace, trajectory = spiral_data(48)
    region = coils.calibration_kspace(torch.from_numpy(kspace), trajectory, (N, N), 16).numpy()
    middle = slice(N // 2 - 8, N // 2 + 8)
    expected = KSPACE[:, middle, middle]
    found = region[:, middle, middle]
    scale = np.vdot(found, expected) / np.vdot(found, found)  # another number of pixels, another norm
    assert abs(scale.imag) < 0.01 * abs(scale)
    assert np.linalg.norm(scale * found - expected) < 0.05 * np.linalg.norm(expected)
    region[:, middle, middle] = 0
    assert not region.any()


def test_compression_keeps_energy_and_noise():
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((2, 500)) + 1j * rng.standard_normal((2, 500))
    mixing = rng.standard_normal((6, 2)) + 1j * rng.standard_normal((6, 2))
    data = (mixing @ sources).reshape(6, 20, 25)
    compressed, matrix = coils.compress(data, 2)
    assert compressed.shape == (2, 20, 25)
    np.testing.assert_allclose(np.linalg.norm(compressed), np.linalg.norm(data))
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.tensordot(matrix, data, 1), compressed)
    # the best two: no other pair of orthonormal rows keeps more of full-rank data
    full = rng.standard_normal((6, 500)) * np.arange(1, 7)[:, None] + 0j
    values = np.linalg.svd(full, compute_uv=False)
    kept = [np.linalg.norm(coils.compress(full, n)[0]) ** 2 for n in range(1, 7)]
    np.testing.assert_allclose(kept, np.cumsum(values**2))


def test_compressed_maps_describe_compressed_data():
    compressed, matrix = coils.compress(torch.from_numpy(KSPACE), 4)
    maps = torch.tensordot(matrix, torch.from_numpy(MAPS), 1)
    images = maps * torch.from_numpy(IMAGE)
    assert_close(unitary_fft(images, (-2, -1), centered=True), compressed)


def test_first_virtual_coils_do_not_depend_on_the_order_of_coils():
    one, other = (coils.compress(k, 3)[0] for k in (KSPACE, KSPACE[::-1]))
    np.testing.assert_allclose(np.abs(one), np.abs(other), atol=1e-9)


TRAJECTORY = trajectories.radial(30, 40).flatten(0, 1)
SPOKES = np.ones((2, 1200), complex)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coils.espirit(np.zeros((2, 8, 8))), "zero everywhere"),
        (lambda: coils.espirit(np.full((2, 8, 8), np.nan)), "NaN"),
        (lambda: coils.espirit(np.ones((8, 8))), r"must be \(C, y, x\) or \(C, z, y, x\)"),
        (lambda: coils.espirit(np.ones((0, 8, 8))), "at least one coil"),
        (lambda: coils.espirit(KSPACE, kernel=30), "kernel of 30 points needs a calibration region"),
        (lambda: coils.espirit(KSPACE, crop=2.0), "lower crop"),
        (lambda: coils.adaptive_maps(np.zeros((2, 8, 8))), "zero everywhere"),
        (lambda: coils.adaptive_maps(np.ones((2, 8, 8)), size=4), "odd number of pixels"),
        (lambda: coils.adaptive_maps(np.ones((2, 8, 8)), iterations=0), "iterations must be at least 1"),
        (lambda: coils.adaptive_maps(np.ones((2, 8, 8)), threshold=1.0), "threshold < 1"),
        (lambda: coils.compress(KSPACE, 7), "virtual coils, not 7"),
        (lambda: coils.compress(KSPACE, 0), "virtual coils, not 0"),
        (lambda: coils.compress(np.ones(4), 1), "virtual coils, not 1"),
        (lambda: coils.estimate_maps(SPOKES, TRAJECTORY, (40, 40), "grappa"), "method is"),
        (lambda: coils.estimate_maps(SPOKES[:, 1:], TRAJECTORY, (40, 40)), r"must be \(1199, 2\)"),
        (lambda: coils.estimate_maps(SPOKES, TRAJECTORY[:, :1], (40, 40)), r"must be \(1200, 2\)"),
        (lambda: coils.estimate_maps(SPOKES, TRAJECTORY, (400, 400)), "too few for a calibration region"),
        (lambda: coils.estimate_maps(SPOKES * np.nan, TRAJECTORY, (40, 40)), "NaN"),
        (lambda: coils.estimate_maps(SPOKES * 0, TRAJECTORY, (40, 40)), "zero everywhere"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_memory_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr(coils, "memory_limit", lambda: 10**6)
    with pytest.raises(ValueError, match=r"would need 4\.0 MB .* compress the coils"):
        coils.espirit(KSPACE)
