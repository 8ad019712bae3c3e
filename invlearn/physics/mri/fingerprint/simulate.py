"""A fingerprinting scan from maps, without the inverse crime.

Every voxel has the signal of its own T1, T2 (and B1, B0), off any dictionary's grid; every frame is an
image of its own with its own non-uniform transform, so that no subspace enters; and the object may lie
on a finer grid than the images that will be reconstructed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.maps import TissueMaps
from invlearn.io.scans import Scan
from invlearn.physics.mri.bloch import simulate
from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.physics.nufft import NonUniformFFT

_ATOMS = 2048  # voxels simulated at a time
_BLOCK = 64 << 20  # bytes of coil images transformed at a time
_RADIUS = 1.5  # of the ring of coils; the field of view is 2 wide

Progress = Callable[[int, int], None]


def birdcage_maps(coils: int, shape: Sequence[int]) -> np.ndarray:
    """Smooth complex sensitivities of coils on a ring around the field of view.

    Parameters
    ----------
    coils
        Number of coils, evenly spaced in the plane of the last two axes.
    shape
        `(H, W)` or `(D, H, W)`. Positions are relative to the field of view, so that maps on two
        grids are samples of one function.

    Returns
    -------
    ndarray
        `(coils, *shape)`, complex64. A coil at r_c sees (x + iy)/(1/4 + |r - r_c|²), x and y its distance
        turned so that all coils agree in the middle, divided by the root sum of squares of all coils: maps
        that are estimated from the data have the sum 1 too, and leave the proton density as it is.

    Raises
    ------
    ValueError
        No coil.
    """
    if coils < 1:
        raise ValueError(f"a scan needs at least one coil, got {coils}")
    axes = [(2 * np.arange(size) + 1) / size - 1 for size in shape]
    *rest, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    angle = 2 * np.pi * np.arange(coils).reshape(-1, *[1] * len(shape)) / coils
    dx, dy = x - _RADIUS * np.cos(angle), y - _RADIUS * np.sin(angle)
    squared = dx**2 + dy**2 + sum(z**2 for z in rest)
    maps = -np.exp(-1j * angle) * (dx + 1j * dy) / (0.25 + squared)
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)


def simulate_scan(
    maps: TissueMaps,
    sequence: FingerprintSequence,
    trajectory: np.ndarray | Tensor,
    *,
    shape: Sequence[int] | None = None,
    coils: int | np.ndarray = 8,
    snr: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scan:
    """Multi-coil k-space of an object played through a sequence.

    Off-resonance turns the signal of each frame by 2π b0 TE; a bSSFP sequence also takes it into the
    dynamics. It is constant over a readout.

    Parameters
    ----------
    maps
        The object.
    sequence
        Its frames.
    trajectory
        `(arms, samples, d)`, (kx, ky[, kz]) in cycles a pixel of the image to reconstruct, -0.5 ... 0.5.
        Frame f plays arm f mod arms.
    shape
        Shape of that image, over the same field of view; by default that of the maps. A grid of maps
        finer by whole factors is averaged over each pixel.
    coils
        Their number (see `birdcage_maps`), or maps `(C, *maps.shape)`.
    snr
        20 log10(rms of the noise-free samples / rms of the complex noise), in dB; None adds no noise.
    seed
        Of the noise.
    progress
        Called with the frames done and their number.

    Returns
    -------
    Scan
        `(C, frames * samples)` complex64, with the sequence's times, and with its flip angles where all
        pulses of a FISP train have one phase; a scan cannot say more, so that other sequences must be given.

    Raises
    ------
    ValueError
        A trajectory or coil maps of another shape, coil maps without coils, an SNR that is not finite,
        maps that need more memory than there is.
    """
    shape = maps.shape if shape is None else tuple(int(s) for s in shape)
    arms = _check_trajectory(trajectory, len(shape))
    sensitivities = _coil_maps(coils, maps.shape)
    if snr is not None and not math.isfinite(snr):
        raise ValueError(f"snr is a finite number of dB, or None for no noise, got {snr}")
    factors, centre = _grids(maps.shape, shape)
    frames, samples = sequence.frames, arms.shape[1]
    _require_memory(maps, frames, len(sensitivities), samples)

    signal = _signals(maps, sequence)
    kspace = np.empty((len(sensitivities), frames, samples), np.complex64)
    step = max(1, _BLOCK // (8 * sensitivities.size))
    for start in range(0, frames, step):
        block = slice(start, min(start + step, frames))
        arm = arms[np.arange(block.start, block.stop) % len(arms)]
        samples_block = _acquire(signal[block], maps.inside, sensitivities, arm / factors)
        # The middle of the fine grid is not the middle of the pixel that k counts from.
        kspace[:, block] = samples_block * np.exp(-2j * np.pi * (arm @ centre)) / np.prod(factors)
        if progress is not None:
            progress(block.stop, frames)
    if snr is not None:
        kspace = _with_noise(kspace, snr, seed)
    assert maps.voxel_size is not None
    # A scan has no place for phases: without them its flip angles would be those of another sequence.
    told = sequence.kind == "fisp" and bool((sequence.phase == sequence.phase[0]).all())
    return Scan(
        kspace=kspace.reshape(len(sensitivities), -1),
        trajectory=arms[np.arange(frames) % len(arms)].reshape(-1, len(shape)),
        frame=np.repeat(np.arange(frames), samples),
        frames=frames,
        shape=shape,
        field_of_view=tuple(1e-3 * s * n for s, n in zip(maps.voxel_size, maps.shape, strict=True)),
        flip_angle=sequence.flip_angle if told else None,
        tr=sequence.tr,
        te=sequence.te,
        inversion_time=sequence.inversion_time,
    )


def _check_trajectory(trajectory: np.ndarray | Tensor, ndim: int) -> np.ndarray:
    arms = np.asarray(trajectory, np.float64)
    if arms.ndim != 3 or arms.shape[-1] != ndim or 0 in arms.shape:
        raise ValueError(
            f"simulate_scan: the trajectory is (arms, samples, {ndim}) for these maps, got {arms.shape}"
        )
    if not np.abs(arms).max() <= 0.5:
        raise ValueError(
            f"simulate_scan: the trajectory reaches {np.abs(arms).max():.3g} cycles a pixel; it must stay "
            "within -0.5 ... 0.5 (divide positions in 1/m by the matrix over the field of view)"
        )
    return arms


def _coil_maps(coils: int | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(coils, int):
        return birdcage_maps(coils, shape)
    maps = np.asarray(coils, np.complex64)
    if maps.shape[1:] != shape or not len(maps):
        raise ValueError(f"simulate_scan: coil maps are (C, {', '.join(map(str, shape))}), got {maps.shape}")
    return maps


def _grids(fine: Sequence[int], coarse: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Fine pixels a coarse one, as (x, y[, z]), and where the fine grid's zero lies, in coarse pixels."""
    if len(fine) != len(coarse) or any(f % c for f, c in zip(fine, coarse, strict=True)):
        raise ValueError(
            f"simulate_scan: the maps {tuple(fine)} must be finer by whole factors than the image "
            f"{tuple(coarse)}"
        )
    n, big = np.array(coarse[::-1]), np.array(fine[::-1])
    factor = big // n
    # Pixel i of the fine grid lies at (i + 1/2)/factor - 1/2 of the coarse one; each counts from N // 2.
    return factor, (big // 2 + 0.5) / factor - 0.5 - n // 2


def _require_memory(maps: TissueMaps, frames: int, coils: int, samples: int) -> None:
    voxels = int(maps.inside.sum())
    needed = 8 * frames * voxels + 3 * 8 * coils * frames * samples + 2 * _BLOCK
    if needed > memory_limit():
        raise ValueError(
            f"this scan would need {format_bytes(needed)} of memory ({voxels:,} voxels, {coils} coils, "
            f"{frames} frames of {samples} samples), more than the {format_bytes(memory_limit())} there is; "
            "use fewer frames, coils or voxels"
        )


def _signals(maps: TissueMaps, sequence: FingerprintSequence) -> np.ndarray:
    """Transverse magnetisation `(frames, voxels)` of the voxels inside; equal ones are simulated once."""
    inside = maps.inside
    dynamic = maps.b0 is not None and sequence.kind != "fisp"
    given = {"b1": maps.b1, "b0": maps.b0 if dynamic else None}
    columns = {"t1": maps.t1, "t2": maps.t2} | {k: v for k, v in given.items() if v is not None}
    distinct, which = np.unique(np.stack([v[inside] for v in columns.values()]), axis=1, return_inverse=True)
    atoms = np.empty((sequence.frames, distinct.shape[1]), np.complex64)
    for start in range(0, distinct.shape[1], _ATOMS):
        chunk = slice(start, start + _ATOMS)
        rows = dict(zip(columns, distinct[:, chunk].astype(np.float32), strict=True))
        atoms[:, chunk] = simulate(sequence, **rows).T
    signals = atoms[:, which.ravel()]
    signals *= maps.pd[inside].astype(np.float32)
    if maps.b0 is not None and not dynamic:
        turns = sequence.te[:, None] * maps.b0[inside]
        signals *= np.exp(2j * np.pi * turns).astype(np.complex64)
    return signals


def _acquire(
    signal: np.ndarray, inside: np.ndarray, sensitivities: np.ndarray, trajectory: np.ndarray
) -> np.ndarray:
    """Samples `(C, frames, samples)` of frames with `signal` `(frames, voxels)`, each on its own arm."""
    images = np.zeros((len(signal), *inside.shape), np.complex64)
    images[:, inside] = signal
    transform = NonUniformFFT(torch.from_numpy(trajectory), inside.shape, eps=1e-6)
    return transform(torch.from_numpy(sensitivities[:, None] * images)).numpy()


def _with_noise(kspace: np.ndarray, snr: float, seed: int) -> np.ndarray:
    power = np.mean(kspace.real.astype(np.float64) ** 2 + kspace.imag.astype(np.float64) ** 2)
    sigma = math.sqrt(power / 2) / 10 ** (snr / 20)  # of the real and of the imaginary part
    noise = np.random.default_rng(seed).standard_normal((*kspace.shape, 2), np.float32)
    return kspace + np.float32(sigma) * noise.view(np.complex64)[..., 0]
