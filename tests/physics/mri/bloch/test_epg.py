"""The phase graph against isochromat sums, published values and analytic limits."""

from __future__ import annotations

import importlib.util
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from invlearn.physics.mri import FingerprintSequence, TurboSpinEcho
from invlearn.physics.mri.bloch import simulate

spec = importlib.util.spec_from_file_location("isochromats", Path(__file__).with_name("isochromats.py"))
isochromats = importlib.util.module_from_spec(spec)
spec.loader.exec_module(isochromats)

FRAMES = 40
T1, T2 = np.array([0.8, 1.3, 4.0, 0.1]), np.array([0.07, 0.1, 1.8, 0.1])


def fisp(frames=FRAMES, axis=0.0, scatter=False, **changes):
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, frames) if scatter else axis + np.pi * rng.integers(0, 2, frames)
    values = {
        "flip_angle": rng.uniform(0, np.pi, frames),
        "phase": phase,
        "tr": rng.uniform(0.01, 0.02, frames),
        "te": rng.uniform(0.001, 0.009, frames),
        "inversion_time": 0.02,
    }
    return FingerprintSequence(**(values | changes))


def echo_train(frames=FRAMES, **changes):
    rng = np.random.default_rng(1)
    return TurboSpinEcho(rng.uniform(1, np.pi, frames), 0.012, **changes)


SEQUENCES = {
    "fisp": fisp(),
    "fisp about another axis": fisp(axis=0.7),
    "fisp, any phases": fisp(scatter=True),
    "fisp without inversion": fisp(inversion_time=None),
    "fisp, imperfect inversion": fisp(inversion_efficiency=0.9),
    "fisp, slice profile": fisp(slice_profile=np.array([[1.0, 2], [0.7, 1], [0.2, 1]])),
    "bssfp": fisp(kind="bssfp", scatter=True),
    "bssfp about one axis": fisp(kind="bssfp"),
    "turbo spin echo": echo_train(),
    "turbo spin echo about x": echo_train(phase=np.zeros(FRAMES), excitation_phase=math.pi),
    "turbo spin echo, inversion": echo_train(
        excitation_angle=1.2,
        excitation_phase=0.3,
        phase=np.linspace(0, 3, FRAMES),
        inversion_time=0.1,
        inversion_efficiency=0.8,
        slice_profile=np.array([[1.0, 2], [0.7, 1]]),
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_equals_the_isochromat_sum(name):
    sequence, b1 = SEQUENCES[name], np.array([1.0, 0.8, 1.2, 1.0])
    found = simulate(sequence, T1, T2, b1)
    for signal, *tissue in zip(found, T1, T2, b1, strict=True):
        expected = isochromats.isochromat_sum(sequence.programme(), *tissue)
        np.testing.assert_allclose(signal, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["fisp", "bssfp", "turbo spin echo"])
def test_off_resonance_equals_the_isochromat_sum(name):
    sequence, b0 = SEQUENCES[name], np.array([0.0, 20.0, -35.0, 80.0])
    found = simulate(sequence, T1, T2, b0=b0)
    for signal, t1, t2, f in zip(found, T1, T2, b0, strict=True):
        expected = isochromats.isochromat_sum(sequence.programme(), t1, t2, b0=f)
        np.testing.assert_allclose(signal, expected, atol=1e-12)


def test_a_whole_train_equals_the_isochromat_sum():
    sequence = FingerprintSequence.default()
    found = simulate(sequence, T1[:3], T2[:3])
    for signal, t1, t2 in zip(found, T1, T2, strict=False):
        expected = isochromats.isochromat_sum(sequence.programme(), t1, t2, count=1001)
        np.testing.assert_allclose(signal, expected, atol=1e-12)


def test_every_parameter_of_a_train_changes_the_signal():
    t1, t2 = T1[:1], T2[:1]
    base = simulate(SEQUENCES["fisp"], t1, t2)
    for name in ("flip_angle", "phase", "tr", "te"):
        values = getattr(SEQUENCES["fisp"], name).copy()
        values[10] *= 1.01
        changed = abs(simulate(fisp(**{name: values}), t1, t2) - base)[0]
        assert changed[:10].max() < 1e-14, name
        assert changed[10:].max() > 1e-5, name
    names = [
        "fisp without inversion",
        "fisp, imperfect inversion",
        "fisp, slice profile",
        "bssfp about one axis",
    ]
    for name in names:
        assert abs(simulate(SEQUENCES[name], t1, t2) - base).max() > 1e-3, name
    assert abs(simulate(fisp(inversion_time=0.03), t1, t2) - base).max() > 1e-3


def test_every_parameter_of_an_echo_train_changes_the_signal():
    t1, t2 = T1[:1], T2[:1]
    base = simulate(echo_train(), t1, t2)
    flips = echo_train().flip_angle * 0.99
    changed = [
        TurboSpinEcho(flips, 0.012),
        TurboSpinEcho(echo_train().flip_angle, 0.013),
        echo_train(phase=np.full(FRAMES, 1.5)),
        echo_train(excitation_angle=1.5),
        echo_train(excitation_phase=0.1),
        echo_train(inversion_time=0.1),
        echo_train(slice_profile=np.array([[0.9, 1.0]])),
    ]
    for sequence in changed:
        assert abs(simulate(sequence, t1, t2) - base).max() > 1e-4, sequence
    half = echo_train(inversion_time=0.1, inversion_efficiency=0.5)
    assert abs(simulate(half, t1, t2) - simulate(changed[5], t1, t2)).max() > 1e-2


# Analytic limits


def constant(flip, tr, te, frames, phase=None, **kind):
    phases = np.zeros(frames) if phase is None else phase
    return FingerprintSequence(
        np.full(frames, flip), phases, np.full(frames, tr), np.full(frames, te), **kind
    )


def test_a_pulse_about_x_turns_z_to_minus_y():
    signal = simulate(constant(np.pi / 2, 1.0, 0.0, 1), T1, T2)
    np.testing.assert_allclose(signal, np.full((4, 1), -1j), atol=1e-15)


def test_inversion_recovery():
    for ti in (0.01, 0.5, 3.0):
        signal = simulate(constant(np.pi / 2, 1.0, 0.0, 1, inversion_time=ti), T1, T2)
        np.testing.assert_allclose(signal[:, 0], -1j * (1 - 2 * np.exp(-ti / T1)), atol=1e-14)


def test_spin_echo_and_cpmg():
    spacing, echoes = 0.01, 12
    signal = simulate(TurboSpinEcho(np.full(echoes, np.pi), spacing), T1, T2)
    decay = np.exp(-spacing * np.arange(1, echoes + 1) / T2[:, None])
    np.testing.assert_allclose(signal, -1j * decay, atol=1e-14)
    # about the axis of the excitation (Carr and Purcell) every other echo is turned over
    signal = simulate(TurboSpinEcho(np.full(echoes, np.pi), spacing, phase=np.zeros(echoes)), T1, T2)
    np.testing.assert_allclose(signal, -1j * decay * (-1.0) ** np.arange(1, echoes + 1), atol=1e-14)


def test_spoiled_steady_state_is_ernst():
    # T2 far below TR: nothing transverse is left
    t1, t2, tr, flip = np.array([0.5, 1.0]), np.array([1e-3, 1e-3]), 0.05, 0.4
    signal = simulate(constant(flip, tr, 0.0, 200), t1, t2)[:, -1]
    e1 = np.exp(-tr / t1)
    np.testing.assert_allclose(signal, -1j * np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip)), atol=1e-10)


def test_balanced_steady_state():
    # alternating pulses on resonance, in the middle of TR: Freeman and Hill
    t1, t2, tr, flip, frames = np.array([0.2, 0.3]), np.array([0.05, 0.15]), 0.006, 0.9, 1000
    phase = np.pi * (np.arange(frames) % 2)
    signal = simulate(constant(flip, tr, tr / 2, frames, phase, kind="bssfp"), t1, t2)[:, -1]
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    expected = np.sin(flip) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2) * np.exp(-tr / 2 / t2)
    np.testing.assert_allclose(abs(signal), expected, atol=1e-9)


# Published values


def test_snapmrf_values():
    """Six digits of the README of snapMRF; they are 30°, TE 5 ms, TR 10 ms, and a spin echo at 50 ms."""
    t1, t2 = np.array([1.0]), np.array([0.1])
    signal = simulate(constant(np.radians(30), 0.010, 0.005, 3), t1, t2)
    np.testing.assert_allclose(abs(signal[0]), [0.475615, 0.412528, 0.335848], atol=6e-7)
    echo = simulate(TurboSpinEcho(np.array([np.pi]), 0.05), t1, t2)
    np.testing.assert_allclose(abs(echo[0]), [0.606531], atol=6e-7)


def read_ra(path):
    """A RawArray file: https://github.com/davidssmith/ra, as far as float32 and complex64."""
    raw = path.read_bytes()
    _, kind, size, _, ndim = struct.unpack("<5Q", raw[8:48])
    shape = struct.unpack(f"<{ndim}Q", raw[48 : 48 + 8 * ndim])
    dtype = {(4, 8): np.complex64, (3, 4): np.float32}[kind, size]
    return np.frombuffer(raw[48 + 8 * ndim :], dtype).reshape(shape[::-1])


def test_snapmrf_dictionary(data_folder):
    """109 atoms by another program.

    Nominal flip angle, TR and inversion time are not in its files; a fit gives 60.0000°, 16.0000 ms and
    40.0000 ms. (The longer TR of its table is not in its atoms: fitted with a factor, that is 3e-6.)
    """
    folder = data_folder / "mrf"
    atoms, parameters = read_ra(folder / "snapmrf_atoms_mrf.ra"), read_ra(folder / "snapmrf_params_mrf.ra")
    fraction, phase = np.loadtxt(folder / "snapmrf_MRF001.csv", delimiter=",", skiprows=1)[:100, :2].T
    sequence = FingerprintSequence(
        fraction * np.radians(60),
        np.radians(phase),
        np.full(100, 0.016),
        np.full(100, 0.001),
        inversion_time=0.04,
    )
    t1, t2 = 1e-3 * parameters[:, :2].astype(np.float64).T
    found = simulate(sequence, t1, t2)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, atoms, atol=2e-7)


def truncated_error(sequence, t1, t2, states):
    """Relative error in norm, as in the published table."""
    full = simulate(sequence, np.array([t1]), np.array([t2]))
    part = simulate(sequence, np.array([t1]), np.array([t2]), states=states, tolerance=1.0)
    return np.linalg.norm(part - full) / np.linalg.norm(full)


@pytest.mark.parametrize(
    ("t1", "t2", "states", "error"),
    [(0.8, 0.07, 20, 3e-6), (1.3, 0.1, 20, 4e-5), (4.0, 1.8, 20, 2.2e-2), (4.0, 1.8, 100, 1.1e-3)],
)
def test_errors_of_truncation_on_a_published_train(data_folder, t1, t2, states, error):
    sequence = FingerprintSequence.from_mat(data_folder / "mrf" / "imr_TR_TE_FA.mat", inversion_time=0.018)
    assert truncated_error(sequence, t1, t2, states) == pytest.approx(error, rel=0.3)


def test_single_precision():
    sequence = FingerprintSequence.default(300)
    t1, t2 = torch.tensor(T1), torch.tensor(T2)
    double = simulate(sequence, t1, t2)
    single = simulate(sequence, t1.float(), t2.float())
    assert (single.dtype, double.dtype) == (torch.complex64, torch.complex128)
    assert float((single - double).norm(dim=1).div(double.norm(dim=1)).max()) < 1e-6
