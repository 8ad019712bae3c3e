"""Cramér–Rao bounds: a published train's table, a closed form, and an estimator that attains them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invlearn.physics.mri import FingerprintSequence, TurboSpinEcho
from invlearn.physics.mri.bloch import crb, simulate

T1, T2 = np.array([0.8, 1.3, 4.0]), np.array([0.07, 0.1, 1.8])
# std(T) / T in units of σ / M0: WM T1, T2, GM T1, T2, CSF T1, T2, by an independent program
TABLE = {
    200: [1.18, 5.6, 0.99, 6.3, 3.1, 22],
    500: [1.13, 1.94, 0.99, 2.0, 0.48, 7.2],
    1000: [1.09, 1.45, 0.97, 1.50, 0.39, 3.0],
}


def relative(sequence, **options):
    bounds = crb(sequence, T1, T2, **options)
    return np.stack([bounds[:, 1] / T1, bounds[:, 2] / T2], 1).ravel()


@pytest.mark.parametrize("frames", TABLE)
def test_table_of_a_published_train(data_folder, frames):
    sequence = FingerprintSequence.from_mat(data_folder / "mrf" / "imr_TR_TE_FA.mat", inversion_time=0.018)
    np.testing.assert_allclose(relative(sequence.truncated(frames)), TABLE[frames], rtol=0.03)


def test_the_default_train_is_as_good_as_the_published_one():
    found = relative(FingerprintSequence.default())
    assert np.all(found < 1.1 * np.array(TABLE[1000]))


def test_two_spin_echoes_have_a_closed_form():
    """M0 exp(-t_n / T2) at two times, and T1 that leaves no trace."""
    spacing, t2 = 0.04, 0.08
    sequence = TurboSpinEcho(np.full(2, np.pi), spacing)
    bounds = crb(sequence, np.array([1.0]), np.array([t2]))
    assert np.isinf(bounds).all()  # T1 cannot be told, so neither can the others from (Re JᴴJ)⁻¹
    inverted = TurboSpinEcho(np.full(2, np.pi), spacing, inversion_time=0.3)
    assert np.isinf(crb(inverted, np.array([1.0]), np.array([t2]))).all()  # two echoes, three unknowns


def test_unknown_b1_and_its_value_count():
    sequence = FingerprintSequence.default(200)
    known = crb(sequence, T1, T2)
    unknown = crb(sequence, T1, T2, unknown_b1=True)
    assert (known.shape, unknown.shape) == ((3, 3), (3, 4))
    assert np.all(unknown[:, :3] >= known)
    assert np.all(unknown[:2, 2] > 1.1 * known[:2, 2])
    assert abs(crb(sequence, T1, T2, b1=np.full(3, 0.8)) / known - 1).max() > 0.05
    assert isinstance(crb(sequence, torch.tensor(T1), torch.tensor(T2)), torch.Tensor)
    phases = FingerprintSequence(sequence.flip_angle, np.arange(200.0) ** 2, sequence.tr, sequence.te, 0.018)
    assert abs(crb(phases, T1, T2, b0=np.full(3, 20.0)) / crb(phases, T1, T2) - 1).max() > 1e-3


def test_tolerance_counts_where_states_are_measured():
    sequence = FingerprintSequence.default(60)
    t1, t2 = np.linspace(1, 3, 256), np.linspace(0.1, 0.9, 256)
    loose, tight = (crb(sequence, t1, t2, tolerance=tolerance) for tolerance in (1e-1, 1e-9))
    assert 1e-6 < abs(loose / tight - 1).max() < 1


def test_least_squares_attains_the_bound():
    """Linearised fits of noisy signals scatter as the bound says."""
    sequence, t1, t2, sigma = FingerprintSequence.default(300), T1[:1], T2[:1], 1e-5
    signal, slopes = simulate(sequence, t1, t2, derivatives=("t1", "t2"))
    rng = np.random.default_rng(0)
    noise = sigma * (rng.standard_normal((4000, 300)) + 1j * rng.standard_normal((4000, 300)))
    # unknown M0, phase, T1, T2
    jacobian = np.concatenate([signal, 1j * signal, slopes[:, 0]]).T
    system = np.concatenate([jacobian.real, jacobian.imag])
    estimates = np.linalg.lstsq(system, np.concatenate([noise.real, noise.imag], 1).T, rcond=None)[0]
    found = estimates[[0, 2, 3]].std(1) / sigma
    np.testing.assert_allclose(found, crb(sequence, t1, t2)[0], rtol=0.05)
