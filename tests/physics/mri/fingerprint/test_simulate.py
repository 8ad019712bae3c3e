"""A simulated scan against the exact transform, an independent Bloch simulation, and its stated SNR."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invlearn.io.maps import TissueMaps
from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.fingerprint import simulate as module
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps, simulate_scan

FOREIGN = runpy.run_path(str(Path(__file__).parents[4] / "examples" / "foreign_scan.py"))
SHAPE = (6, 8)
FRAMES = 12


def tissue(shape: tuple[int, ...] = SHAPE, **extra: Any) -> TissueMaps:
    rng = np.random.default_rng(1)
    pd = rng.random(shape) * (rng.random(shape) > 0.3)
    return TissueMaps(0.4 + rng.random(shape), 0.03 + 0.1 * rng.random(shape), pd, **extra)


def sequence(kind: str = "fisp") -> FingerprintSequence:
    flip, tr, te = FOREIGN["train"](FRAMES)
    return FingerprintSequence(
        np.radians(flip), np.zeros(FRAMES), tr, te, inversion_time=FOREIGN["INVERSION_TIME"], kind=kind
    )


def arms(count: int = 5, samples: int = 7, axes: int = 2) -> np.ndarray:
    return np.random.default_rng(2).uniform(-0.5, 0.5, (count, samples, axes))


def exact(images: np.ndarray, maps: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """Samples (C, frames, samples) by the sum over pixels, r from the pixel N // 2."""
    axes = [np.arange(n) - n // 2 for n in images.shape[1:]]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], -1).reshape(-1, images.ndim - 1)
    phases = np.exp(-2j * np.pi * trajectory @ grid.T)
    return np.einsum("fmr,cr,fr->cfm", phases, maps.reshape(len(maps), -1), images.reshape(len(images), -1))


def images_of(maps: TissueMaps) -> np.ndarray:
    signal = FOREIGN["fingerprints"](*FOREIGN["train"](FRAMES), maps.t1[maps.inside], maps.t2[maps.inside])
    images = np.zeros((FRAMES, *maps.shape), complex)
    images[:, maps.inside] = (signal * maps.pd[maps.inside][:, None]).T
    return images


def test_kspace_is_the_exact_transform_of_an_independent_simulation() -> None:
    maps, trajectory = tissue(), arms()
    scan = simulate_scan(maps, sequence(), trajectory, coils=3)
    played = trajectory[np.arange(FRAMES) % 5]
    expected = exact(images_of(maps), birdcage_maps(3, SHAPE), played)
    np.testing.assert_allclose(scan.kspace.reshape(expected.shape), expected, atol=3e-6 * abs(expected).max())
    np.testing.assert_array_equal(scan.trajectory.reshape(played.shape), played)
    np.testing.assert_array_equal(scan.frame.reshape(FRAMES, 7), np.arange(FRAMES)[:, None].repeat(7, 1))
    assert (scan.frames, scan.shape, scan.coils) == (FRAMES, SHAPE, 3)


def test_the_scan_carries_its_sequence_and_field_of_view() -> None:
    scan = simulate_scan(tissue(voxel_size=(2.0, 1.5)), sequence(), arms())
    flip, tr, te = FOREIGN["train"](FRAMES)
    np.testing.assert_allclose(np.degrees(scan.flip_angle), flip)
    np.testing.assert_allclose(scan.tr, tr)
    np.testing.assert_allclose(scan.te, te)
    assert scan.inversion_time == FOREIGN["INVERSION_TIME"]
    np.testing.assert_allclose(scan.field_of_view, (0.012, 0.012))


def test_flip_angles_are_left_out_where_phases_would_be_needed() -> None:
    alternating = dataclasses.replace(sequence(), phase=np.pi * (np.arange(FRAMES) % 2))
    turned = dataclasses.replace(sequence(), phase=np.full(FRAMES, 0.7))
    for other in (alternating, sequence("bssfp")):
        assert simulate_scan(tissue(), other, arms()).flip_angle is None
    np.testing.assert_array_equal(simulate_scan(tissue(), turned, arms()).flip_angle, turned.flip_angle)


def test_volumes() -> None:
    maps = tissue((4, 6, 8))
    scan = simulate_scan(maps, sequence(), arms(axes=3), coils=2)
    expected = exact(images_of(maps), birdcage_maps(2, (4, 6, 8)), arms(axes=3)[np.arange(FRAMES) % 5])
    np.testing.assert_allclose(scan.kspace.reshape(expected.shape), expected, atol=3e-6 * abs(expected).max())


def test_a_finer_object_is_the_same_object() -> None:
    """Blocks of equal fine pixels are the coarse image seen through the aperture of its pixels."""
    coarse, ones = tissue((7, 9)), np.ones((2, 2))
    fine = TissueMaps(*(np.kron(getattr(coarse, name), ones) for name in ("t1", "t2", "pd")))
    flat, trajectory = np.ones((1, 7, 9), np.complex64), arms()
    whole = simulate_scan(coarse, sequence(), trajectory, coils=flat).kspace
    sampled = simulate_scan(
        fine, sequence(), trajectory, shape=(7, 9), coils=np.kron(flat, ones[None]).astype(np.complex64)
    )
    aperture = np.cos(np.pi * trajectory / 2).prod(-1)[np.arange(FRAMES) % 5].reshape(-1)
    assert sampled.shape == (7, 9)
    np.testing.assert_allclose(sampled.kspace, whole * aperture, atol=3e-6 * abs(whole).max())
    with pytest.raises(ValueError, match="finer by whole factors"):
        simulate_scan(fine, sequence(), trajectory, shape=(4, 9))


def test_noise_has_the_stated_power_and_comes_from_the_seed() -> None:
    trajectory = arms(5, 400)
    clean = simulate_scan(tissue(), sequence(), trajectory).kspace
    noisy = simulate_scan(tissue(), sequence(), trajectory, snr=20.0, seed=3).kspace
    noise = noisy - clean
    rms = [np.sqrt(np.mean(abs(part) ** 2)) for part in (clean, noise)]
    assert 20 * np.log10(rms[0] / rms[1]) == pytest.approx(20, abs=0.1)
    assert np.var(noise.real) == pytest.approx(np.var(noise.imag), rel=0.03)
    again = simulate_scan(tissue(), sequence(), trajectory, snr=20.0, seed=3).kspace
    np.testing.assert_array_equal(noisy, again)
    assert not np.array_equal(noisy, simulate_scan(tissue(), sequence(), trajectory, snr=20.0, seed=4).kspace)


def test_off_resonance_turns_the_signal_at_the_echo() -> None:
    plain = simulate_scan(tissue(), sequence(), arms())
    turned = simulate_scan(tissue(b0=np.full(SHAPE, 40.0)), sequence(), arms())
    phase = np.exp(2j * np.pi * 40 * sequence().te).repeat(7)
    np.testing.assert_allclose(turned.kspace, plain.kspace * phase, atol=3e-6 * abs(plain.kspace).max())


def test_off_resonance_enters_the_dynamics_of_bssfp() -> None:
    plain = simulate_scan(tissue(), sequence("bssfp"), arms()).kspace
    turned = simulate_scan(tissue(b0=np.full(SHAPE, 30.0)), sequence("bssfp"), arms()).kspace
    phase = np.exp(2j * np.pi * 30 * sequence().te).repeat(7)
    assert np.linalg.norm(turned - plain * phase) > 0.1 * np.linalg.norm(plain)


def test_b1_scales_the_flip_angles() -> None:
    scaled = simulate_scan(tissue(b1=np.full(SHAPE, 0.8)), sequence(), arms()).kspace
    weaker = dataclasses.replace(sequence(), flip_angle=0.8 * sequence().flip_angle)
    expected = simulate_scan(tissue(), weaker, arms()).kspace
    np.testing.assert_allclose(scaled, expected, atol=3e-6 * abs(expected).max())


def test_equal_voxels_are_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    original = module.simulate

    def counting(sequence: Any, t1: Any, *rest: Any, **options: Any) -> Any:
        counts.append(len(t1))
        return original(sequence, t1, *rest, **options)

    monkeypatch.setattr(module, "simulate", counting)
    simulate_scan(TissueMaps(np.full(SHAPE, 1.0), np.full(SHAPE, 0.1), np.ones(SHAPE)), sequence(), arms())
    assert counts == [1]


def test_progress_counts_the_frames() -> None:
    told: list[tuple[int, int]] = []
    simulate_scan(tissue(), sequence(), arms(), progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (FRAMES, FRAMES)


def test_coil_maps_are_smooth_and_the_same_on_every_grid() -> None:
    maps = birdcage_maps(8, (32, 32))
    np.testing.assert_allclose((abs(maps) ** 2).sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.angle(maps[:, 15:17, 15:17].mean((1, 2))), 0, atol=0.02)
    for axis in (1, 2):
        assert abs(np.diff(maps, axis=axis)).max() < 0.15
    fine = birdcage_maps(8, (96, 96))[:, 1::3, 1::3]
    np.testing.assert_allclose(fine, maps, atol=1e-6)
    assert np.linalg.matrix_rank(maps.reshape(8, -1)) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectory": arms()[0]}, r"\(arms, samples, 2\)"),
        ({"trajectory": arms(axes=3)}, r"\(arms, samples, 2\)"),
        ({"trajectory": 3 * arms()}, "cycles a pixel"),
        ({"trajectory": np.full((1, 4, 2), np.nan)}, "cycles a pixel"),
        ({"coils": 0}, "at least one coil"),
        ({"coils": np.ones((0, *SHAPE))}, r"coil maps are \(C, 6, 8\)"),
        ({"coils": np.ones((2, 4, 4))}, r"coil maps are \(C, 6, 8\)"),
        ({"snr": float("inf")}, "snr is a finite number"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments = {"trajectory": arms()} | change
    with pytest.raises(ValueError, match=message):
        simulate_scan(tissue(), sequence(), **arguments)


def test_scans_larger_than_memory_are_refused_with_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_limit", lambda: 10**6)
    with pytest.raises(
        ValueError, match=r"would need 1\d\d\.\d MB of memory \(\d+ voxels, 8 coils, 12 frames of 7"
    ):
        simulate_scan(tissue(), sequence(), arms())
