"""The number of states: proof and measurement against the full graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.physics.mri import FingerprintSequence, TurboSpinEcho
from invlearn.physics.mri.bloch import simulate
from invlearn.physics.mri.bloch.engine import Engine
from invlearn.physics.mri.bloch.states import exact_states, ladder, measured_states, proven_states

TISSUES = np.array([[0.8, 1.3, 4.0], [0.07, 0.1, 1.8], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])


def play(programme, atoms, keep, names=()):
    """The graph with a number of orders for each atom; compiled once for all of them."""
    states = exact_states(programme)
    return Engine(programme, names=names).play(torch.tensor(atoms), states, torch.as_tensor(keep))


def test_exact_number_of_states():
    for frames in (2, 5):
        flips = np.full(frames, 2.0)
        fisp = FingerprintSequence(flips, 0 * flips, 0 * flips + 0.01, 0 * flips + 0.001)
        for sequence in (fisp, TurboSpinEcho(flips, 0.01)):
            programme = sequence.programme()
            exact = exact_states(programme)
            more = Engine(programme).play(torch.tensor(TISSUES), exact + 3)
            torch.testing.assert_close(
                Engine(programme).play(torch.tensor(TISSUES), exact), more, atol=1e-15, rtol=0
            )
            if exact > 1 and sequence is fisp:  # and one less is too few
                fewer = Engine(programme).play(torch.tensor(TISSUES), exact - 1)
                assert float((fewer - more).abs().max()) > 1e-3
        assert exact_states(fisp.programme()) == (frames + 1) // 2


def test_balanced_sequences_need_one_order():
    sequence = FingerprintSequence(np.ones(9), np.zeros(9), np.full(9, 0.01), np.full(9, 0.001), kind="bssfp")
    assert exact_states(sequence.programme()) == 1
    assert proven_states(sequence.programme(), *TISSUES[:2], 1e-6).tolist() == [1, 1, 1]


def test_ladder_ends_with_the_exact_number():
    assert ladder(500).tolist() == [8, 16, 32, 64, 128, 256, 500]
    assert ladder(5).tolist() == [5]


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), tolerance=st.sampled_from([1e-2, 1e-4, 1e-7]), echo_train=st.booleans())
def test_the_proof_holds_for_any_pulses(seed, tolerance, echo_train):
    rng = np.random.default_rng(seed)
    frames = 60
    flips = rng.uniform(0, np.pi, frames) * rng.choice([0.1, 1.0])
    if echo_train:
        programme = TurboSpinEcho(flips, 0.02).programme()
    else:
        tr = rng.uniform(0.01, 0.02, frames)
        phases = rng.choice([0, np.pi], frames)
        programme = FingerprintSequence(flips, phases, tr, tr / 3, inversion_time=0.01).programme()
    t1 = rng.uniform(0.05, 1, 8)
    t2 = t1 * rng.uniform(0.02, 0.9, 8)
    atoms = np.stack([t1, t2, np.ones(8), np.zeros(8)])
    states = proven_states(programme, t1, t2, tolerance)
    full = play(programme, atoms, np.full(8, exact_states(programme)))
    error = (play(programme, atoms, states) - full).abs().amax((0, 2)).numpy()
    assert np.all(error <= tolerance)


def test_the_proof_asks_for_fewer_with_less_accuracy_and_shorter_t2():
    programme = FingerprintSequence.default().programme()
    counts = [proven_states(programme, np.array([1.0]), np.array([0.1]), t)[0] for t in (1e-2, 1e-4, 1e-8)]
    assert counts == sorted(set(counts))
    counts = proven_states(programme, np.full(3, 1.0), np.array([0.02, 0.1, 0.2]), 1e-6).tolist()
    assert counts == sorted(set(counts))
    assert counts[-1] < 500


@pytest.mark.parametrize(("tolerance", "names"), [(1e-3, ()), (1e-6, ()), (1e-5, ("t1", "t2", "b1"))])
def test_measured_numbers_are_enough_between_the_points_of_measurement(tolerance, names):
    programme = FingerprintSequence.default(500).programme()
    exact = exact_states(programme)
    rng = np.random.default_rng(0)
    count = 13
    t2 = np.append(np.exp(rng.uniform(np.log(0.01), np.log(0.6), count)), TISSUES[1])
    t1 = np.append(np.maximum(np.exp(rng.uniform(np.log(0.1), np.log(4), count)), t2[:count]), TISSUES[0])
    atoms = np.stack([t1, t2, np.append(rng.uniform(0.7, 1.3, count), np.ones(3)), np.zeros(16)])
    states = measured_states(programme, atoms, tolerance, names)
    assert set(states) <= set(ladder(exact).tolist())
    full = play(programme, atoms, np.full(16, exact), names)
    error = (play(programme, atoms, states, names) - full).abs().amax(2)
    for row, name in zip(error[1:], names, strict=True):
        row *= torch.tensor(atoms[["t1", "t2", "b1"].index(name)])
    assert float(error.max()) <= tolerance
    if tolerance == 1e-3:
        assert np.median(states) <= 64  # and not all that there are


def test_measuring_saves_states():
    programme = FingerprintSequence.default().programme()
    proven = proven_states(programme, TISSUES[0, :2], TISSUES[1, :2], 1e-6)
    assert np.all(measured_states(programme, TISSUES[:, :2], 1e-6, ()) <= 0.8 * proven)


def test_too_few_states_are_refused():
    sequence, t1, t2 = FingerprintSequence.default(200), np.array([0.8, 4.0]), np.array([0.07, 1.8])
    with pytest.raises(
        ValueError, match=r"20 states are too few for the tolerance 1e-06: .* t2 1.8 s may need"
    ):
        simulate(sequence, t1, t2, states=20)
    with pytest.raises(ValueError, match="states must be at least 1, got 0"):
        simulate(sequence, t1, t2, states=0)
    few = simulate(sequence, t1, t2, states=20, tolerance=0.1)
    enough = simulate(sequence, t1, t2)
    assert 1e-6 < abs(few - enough).max() < 0.1
    np.testing.assert_allclose(simulate(sequence, t1, t2, states=1000), enough, atol=1e-6)
