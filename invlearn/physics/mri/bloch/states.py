"""How many orders of the phase graph a tolerance needs."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.mri.bloch.engine import PARAMETERS, Engine
from invlearn.physics.mri.sequence import PulseProgramme

_T2_STEP = math.sqrt(2.0)
_MARGIN = 0.25  # of the tolerance: for what lies between the points of measurement
_B1_STEP = 0.1
_LANES = 8  # tissues in one run


def exact_states(programme: PulseProgramme) -> int:
    """A number of orders beyond which nothing returns before the last echo."""
    shifts = sum(programme.dephasing) * programme.frames - programme.dephasing[1]
    return (shifts + (programme.excitation is not None)) // 2 + 1


def ladder(exact: int) -> np.ndarray:
    """Numbers of states that are compiled: 8, 16, 32, ... and the exact one."""
    return np.array([*(8 << level for level in range(40) if 8 << level < exact), exact])


def proven_states(programme: PulseProgramme, t1: np.ndarray, t2: np.ndarray, tolerance: float) -> np.ndarray:
    """Orders that keep every echo within `tolerance` of the full graph, whatever the flip angles.

    Pulses keep the energy Σ|F_k|² + |Z_k|², and each shift of order costs at least exp(-τ/T2), τ the
    shortest delay that ends in one. With order k weighted by ρ^k, ρ = exp(τ/T2 - τ/T1), a frame still
    is a contraction by exp(-TR/T1). So what is cut off beyond order K is below ρ^-K, and what of it
    would have come back to order 0 is below ρ^-K of that. Over all frames that cut something off, the
    error is at most ρ^(-2K) · cuts a frame · min(frames, 1 / (1 - exp(-TR/T1))).

    Parameters
    ----------
    programme
        The pulses.
    t1, t2
        In s, of one shape, t2 <= t1.
    tolerance
        Largest error of an echo, in units of M0.

    Returns
    -------
    states
        Integers, at least 1 and at most `exact_states`.
    """
    exact = exact_states(programme)
    if exact == 1:
        return np.ones(t1.shape, dtype=np.int64)
    echo, rest = programme.te, programme.tr - programme.te
    delays = np.minimum(echo, rest) if programme.dephasing[0] else programme.tr
    if programme.excitation is not None:
        delays = np.append(delays, programme.excitation[2])
    cuts = sum(programme.dephasing) * np.minimum(programme.frames, -1 / np.expm1(-programme.tr.min() / t1))
    rate = 2 * delays.min() * (1 / t2 - 1 / t1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 where nothing decays faster: all of them
        needed = np.log(np.maximum(cuts / tolerance, 1.0)) / rate
    return np.clip(np.ceil(np.fmin(needed, exact)), 1, exact).astype(np.int64)


def measured_states(
    programme: PulseProgramme, atoms: np.ndarray, tolerance: float, names: tuple[str, ...]
) -> np.ndarray:
    """Orders that a measurement with this programme finds enough, mostly far fewer than the proven ones.

    At T2 in steps of √2 up to the largest asked for, two T1 and up to three B1 across the range
    asked for, the truncated graphs are compared with the full one in float64. An atom takes what the
    next T2 above it (and all below) needs for a quarter of the tolerance.

    Parameters
    ----------
    programme
        The pulses.
    atoms
        `(4, atoms)`: T1, T2 (s), B1, B0 (Hz), no B0 different from 0.
    tolerance
        Largest error of an echo in units of M0; of a derivative by p, times p.
    names
        The derivatives that count.

    Returns
    -------
    states
        `(atoms,)`, rungs of the `ladder`.
    """
    t1, t2, b1, _ = atoms
    first, last = (math.floor(math.log(t2.min(), _T2_STEP)), math.ceil(math.log(t2.max(), _T2_STEP)))
    steps = tuple(range(first, last + 1))
    # rounded outwards, so that what was measured serves again
    highest_t1 = _T2_STEP ** math.ceil(math.log(t1.max(), _T2_STEP))
    ranges = (
        highest_t1,
        math.floor(b1.min() / _B1_STEP + 1e-9) * _B1_STEP,
        math.ceil(b1.max() / _B1_STEP - 1e-9) * _B1_STEP,
    )
    table = np.array(_measure(programme, tolerance, names, steps, ranges))
    above = np.ceil(np.log(t2) / math.log(_T2_STEP) - 1e-9).astype(np.int64) - first
    return table[np.clip(above, 0, len(table) - 1)]


@lru_cache(maxsize=32)
def _measure(
    programme: PulseProgramme,
    tolerance: float,
    names: tuple[str, ...],
    steps: tuple[int, ...],
    ranges: tuple[float, float, float],
) -> tuple[int, ...]:
    """Orders for T2 = √2^step, one number a step, never falling."""
    rungs = ladder(exact_states(programme))
    points = _points(steps, *ranges)  # (4, steps, tissues)
    lanes = torch.from_numpy(np.repeat(points.reshape(4, -1), len(rungs), axis=1))
    keep = torch.from_numpy(np.tile(rungs, points[0].size))
    engine = Engine(programme, names=names)
    error = torch.cat(
        [
            _errors(engine, part, kept, len(rungs))
            for part, kept in zip(
                lanes.split(_LANES * len(rungs), 1), keep.split(_LANES * len(rungs)), strict=True
            )
        ]
    ).unflatten(0, (len(steps), -1))  # (steps, tissues, rungs)
    enough = (error.amax(1) <= _MARGIN * tolerance).numpy()  # of the last rung the error is 0
    return tuple(np.maximum.accumulate(rungs[enough.argmax(1)]).tolist())


def _errors(engine: Engine, lanes: Tensor, keep: Tensor, rungs: int) -> Tensor:
    """Largest error of tissues at each rung, `(tissues, rungs)`; of a derivative by p, times p."""
    full = _LANES * rungs - lanes.shape[1]  # one size is compiled
    padded = torch.cat([lanes, lanes[:, :1].expand(-1, full)], 1)
    kept = torch.cat([keep, keep[:1].expand(full)])
    signals = engine.play(padded, int(keep.max()), kept)[:, : lanes.shape[1]].unflatten(1, (-1, rungs))
    error = (signals - signals[:, :, -1:]).abs().amax(-1)
    for i, name in enumerate(engine.names, start=1):
        error[i] *= lanes[PARAMETERS.index(name)].unflatten(0, (-1, rungs))
    return error.amax(0)


def _points(steps: tuple[int, ...], highest_t1: float, low: float, high: float) -> np.ndarray:
    """T1, T2, B1, B0 where truncation is measured, `(4, steps, tissues)`."""
    t2 = _T2_STEP ** np.array(steps, dtype=np.float64)
    ratio = np.maximum(1.0, highest_t1 / t2)
    grid = [
        np.stack([t2 * ratio**power, t2, np.full_like(t2, b1), np.zeros_like(t2)])
        for power in (0.5, 1.0)
        for b1 in np.unique([low, (low + high) / 2, high])
    ]
    return np.stack(grid, axis=-1)
