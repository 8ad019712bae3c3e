from __future__ import annotations

import numpy as np
import pytest
import pywt

from invlearn.wavelets import MODES, FilterBank, filter_bank
from invlearn.wavelets.filters import check_mode

DISCRETE = pywt.wavelist(kind="discrete")


@pytest.mark.parametrize("name", DISCRETE)
def test_every_discrete_wavelet_of_pywavelets(name: str) -> None:
    wavelet = pywt.Wavelet(name)
    bank = filter_bank(name)
    assert bank == filter_bank(wavelet) == filter_bank([list(f) for f in wavelet.filter_bank])
    assert bank.filters == tuple(map(tuple, wavelet.filter_bank))
    assert bank.name == name
    assert bank.length == wavelet.dec_len
    # the tables of PyWavelets are rounded: dmey's is the coarsest
    assert bank.reconstruction_error() < (1e-2 if name == "dmey" else 1e-6)


@pytest.mark.parametrize("name", ["haar", "db7", "sym4", "coif3", "bior1.1", "bior2.2", "rbio3.3"])
def test_orthogonal(name: str) -> None:
    # bior1.1 is the haar wavelet under another name
    assert filter_bank(name).orthogonal == (pywt.Wavelet(name).orthogonal or name == "bior1.1")


def test_a_bank_that_does_not_reconstruct() -> None:
    haar = filter_bank("haar")
    broken = FilterBank(haar.dec_lo, haar.dec_hi, haar.rec_lo, (0.7, -0.6))
    assert broken.reconstruction_error() > 0.05
    assert not broken.orthogonal
    scaled = FilterBank(*(tuple(2 * tap for tap in f) for f in haar.filters))
    assert scaled.reconstruction_error() == pytest.approx(6.0)
    assert not scaled.orthogonal


def test_odd_lengths_are_completed_as_pywavelets_does() -> None:
    taps = [[1.0, 2.0, 3.0]] * 4
    assert filter_bank(taps).filters == tuple(map(tuple, pywt.Wavelet("x", filter_bank=taps).filter_bank))


def test_arrays_as_taps() -> None:
    taps = [np.array(f) for f in pywt.Wavelet("db2").filter_bank]
    assert filter_bank(taps) == filter_bank("db2")


def test_names_do_not_matter_for_equality() -> None:
    assert filter_bank("haar") == filter_bank("db1")
    assert hash(filter_bank("haar")) == hash(filter_bank("db1"))


@pytest.mark.parametrize(
    ("wavelet", "message"),
    [
        ("harr", "unknown wavelet 'harr'; did you mean 'haar'"),
        ("db99", "did you mean 'db9'"),
        ("bior2.3", "did you mean 'bior"),
        ("zzz", "for example 'haar', 'db2', 'bior2.2'"),
        ("morl", "'morl' is continuous"),
        ("gaus1", "is continuous"),
        ("cmor1.5-1.0", "'cmor1.5-1.0' is continuous"),
        ("", "unknown wavelet ''; for example"),
        (pywt.ContinuousWavelet("mexh"), "'mexh' is continuous"),
        ([[1.0, 1.0]] * 3, "four filters .* got 3"),
        ([[1.0, 1.0]] * 3 + [[1.0]], r"one common, non-zero length; got \[2, 2, 2, 1\]"),
        ([[], [], [], []], r"got \[0, 0, 0, 0\]"),
    ],
)
def test_bad_wavelets(wavelet: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_bank(wavelet)


def test_bad_kind() -> None:
    with pytest.raises(TypeError, match="four sequences of taps; got int"):
        filter_bank(2)


def test_modes() -> None:
    assert [check_mode(mode) for mode in MODES] == list(MODES)
    with pytest.raises(
        ValueError, match=r"unknown mode 'symetric'; choose one of .*did you mean 'symmetric'"
    ):
        check_mode("symetric")
    with pytest.raises(ValueError, match="unknown mode 'smooth'; choose one of periodization, zero"):
        check_mode("smooth")
