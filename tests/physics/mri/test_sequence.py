"""Sequences: trains from files and formulas, what they refuse, what they tell the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.sequence import CSV_HEADER

HEADER = ",".join(CSV_HEADER)


def short(**changes):
    values = {
        "flip_angle": np.radians([10.0, 20, 30]),
        "phase": np.zeros(3),
        "tr": np.full(3, 0.012),
        "te": np.full(3, 0.002),
    }
    return FingerprintSequence(**(values | changes))


def test_default_train_has_the_statistics_of_a_published_one():
    sequence = FingerprintSequence.default()
    flip = np.degrees(sequence.flip_angle)
    assert sequence.frames == 1000
    assert sequence.kind == "fisp"
    assert sequence.inversion_time == 0.018
    assert 0 < flip.min() < 1
    assert 69 < flip.max() <= 70
    assert abs(flip.mean() - 29.4) < 3
    assert np.all((sequence.tr >= 0.01167) & (sequence.tr <= 0.01433))
    assert np.all(sequence.te == 1.908e-3)
    assert abs(sequence.duration - 13.13) < 0.1
    assert np.abs(np.diff(flip)).max() < 1.2
    assert np.abs(np.diff(sequence.tr)).max() < 1e-4
    assert FingerprintSequence.default(200) == sequence.truncated(200)


def test_axis():
    assert short().real
    assert short(phase=np.array([0.3, 0.3 + np.pi, 0.3 - np.pi])).real
    assert not short(phase=np.array([0, 0, 0.1])).real


def test_equal_only_when_everything_is():
    assert short() == short()
    assert hash(short()) == hash(short())
    others = [
        short(flip_angle=np.radians([10.0, 20, 31])),
        short(phase=np.full(3, 0.1)),
        short(tr=np.full(3, 0.013)),
        short(te=np.full(3, 0.003)),
        short(inversion_time=0.02),
        short(kind="bssfp"),
        short(inversion_efficiency=0.9),
        short(slice_profile=np.array([[1.0, 1], [0.5, 1]])),
    ]
    assert all(short() != other for other in others)
    assert len({short(), *others}) == 9
    assert short() != "sequence"


def test_as_dict_and_back():
    sequence = short(
        inversion_time=0.02, inversion_efficiency=0.95, slice_profile=np.array([[1.0, 3], [0.5, 1]])
    )
    assert FingerprintSequence.from_dict(sequence.to_dict()) == sequence
    assert sequence.to_dict()["slice_profile"] == [[1.0, 0.75], [0.5, 0.25]]
    assert FingerprintSequence.from_dict(short().to_dict()) == short()


def test_trains_do_not_change():
    flips = np.ones(3)
    sequence = short(flip_angle=flips)
    flips[0] = 2
    assert sequence.flip_angle[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        sequence.flip_angle[0] = 3


def test_csv_round_trip(tmp_path):
    sequence = FingerprintSequence.default(300)
    sequence.to_csv(tmp_path / "train.csv")
    again = FingerprintSequence.from_csv(tmp_path / "train.csv", inversion_time=0.018)
    for name in ("flip_angle", "phase", "tr", "te"):
        np.testing.assert_allclose(getattr(again, name), getattr(sequence, name), rtol=1e-15)
    assert FingerprintSequence.from_csv(tmp_path / "train.csv").inversion_time is None
    assert FingerprintSequence.from_csv(tmp_path / "train.csv", kind="bssfp").kind == "bssfp"


def test_csv_of_a_spreadsheet(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(
        "\ufeffflip_angle_deg, phase_deg ,tr_s,te_s\r\n 90,180 , 0.01,0.002\r\n\r\n45,0,1e-2,0\r\n".encode()
    )
    sequence = FingerprintSequence.from_csv(path)
    np.testing.assert_allclose(sequence.flip_angle, [np.pi / 2, np.pi / 4])
    np.testing.assert_allclose(sequence.phase, [np.pi, 0])
    np.testing.assert_allclose(sequence.te, [0.002, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must be flip_angle_deg,phase_deg,tr_s,te_s, got 'an empty file'"),
        ("fa,phase,tr,te\n10,0,0.01,0.002\n", "line 1: the header"),
        (f"{HEADER}\n", "no frames"),
        (f"{HEADER}\n10,0,0.01,0.002\n10,0,0.01\n", "line 3: 3 cells under 4"),
        (f"{HEADER}\n10,0,x,0.002\n", "line 2: tr_s is not a number: 'x'"),
        (f"{HEADER}\n10,0,0.01,0.002\n\n-10,0,0.01,0.002\n", "line 4: needs flip_angle_deg >= 0"),
        (f"{HEADER}\n10,nan,0.01,0.002\n", "line 2: NaN"),
        (f"{HEADER}\n10,0,0.01,0.01\n", "te_s < tr_s"),
        (f"{HEADER}\n10,0,-0.01,-0.02\n", "line 2: needs"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        FingerprintSequence.from_csv(path)


def test_csv_that_is_no_text(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="no CSV file"):
        FingerprintSequence.from_csv(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        FingerprintSequence.from_csv(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        FingerprintSequence.from_mat(tmp_path / "other.mat")


def test_matlab_file(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "train.mat"
    savemat(
        path, {"FA_all": [[90.0], [45]], "TR_all": [[0.01], [0.02]], "TE_all": [[0.001], [0.002]], "x": [1.0]}
    )
    sequence = FingerprintSequence.from_mat(path, inversion_time=0.01, kind="bssfp")
    np.testing.assert_allclose(sequence.flip_angle, [np.pi / 2, np.pi / 4])
    np.testing.assert_allclose(sequence.tr, [0.01, 0.02])
    np.testing.assert_allclose(sequence.te, [0.001, 0.002])
    assert (sequence.inversion_time, sequence.kind) == (0.01, "bssfp")
    savemat(path, {"flip": [90.0, 45], "tr": [0.01, 0.02], "te": [0.001, 0.002], "x": [1.0]})
    assert FingerprintSequence.from_mat(path, 0.01, "bssfp", names=("flip", "tr", "te")) == sequence
    with pytest.raises(ValueError, match=r"names must be three of its variables.*it holds flip, tr, te, x"):
        FingerprintSequence.from_mat(path)
    with pytest.raises(ValueError, match="lengths"):
        FingerprintSequence.from_mat(path, names=("flip", "tr", "x"))
    path.write_bytes(b"not a matlab file" * 20)
    with pytest.raises(ValueError, match=r"no \.mat file of version 5"):
        FingerprintSequence.from_mat(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tr": np.full(4, 0.01)}, "lengths flip_angle 3, phase 3, tr 4, te 3"),
        ({"flip_angle": np.zeros((3, 1))}, "must be a train"),
        ({"flip_angle": np.zeros(0)}, "at least one frame"),
        ({"flip_angle": np.array([0.1, -0.1, 0.1])}, "frame 1 has a negative flip_angle; turn the phase"),
        ({"phase": np.array([0, np.nan, 0])}, "phase is not finite in frame 1"),
        ({"tr": np.array([0.01, 0, 0.01])}, "frame 1 has a tr that is not positive"),
        ({"te": np.array([0.01, 0, -0.01])}, "frame 2 has a negative te"),
        ({"te": np.full(3, 0.012)}, "frame 0 has te >= tr"),
        ({"kind": "spgr"}, "kind must be one of fisp, bssfp, got 'spgr'"),
        ({"inversion_time": -0.1}, "inversion_time must be seconds >= 0"),
        ({"inversion_time": float("nan")}, "inversion_time must be seconds >= 0"),
        ({"inversion_efficiency": 1.1}, "inversion_efficiency must lie in 0 to 1"),
        ({"slice_profile": np.ones(3)}, "slice_profile must be"),
        ({"slice_profile": np.array([[1.0, 0]])}, "some weight > 0"),
        ({"slice_profile": np.array([[-1.0, 1]])}, "factors and weights >= 0"),
    ],
)
def test_bad_trains(changes, message):
    with pytest.raises(ValueError, match=message):
        short(**changes)


def test_bad_numbers_of_frames():
    for frames in (0, 4):
        with pytest.raises(ValueError, match="1 to 3 frames"):
            short().truncated(frames)
    with pytest.raises(ValueError, match="at least one frame"):
        FingerprintSequence.default(0)


def test_text_names_what_matters():
    assert repr(short(inversion_time=0.02)) == "FingerprintSequence(fisp, 3 frames, 0.06 s, inversion 20 ms)"
    assert "inversion" not in repr(short())


def test_published_train(data_folder):
    sequence = FingerprintSequence.from_mat(data_folder / "mrf" / "imr_TR_TE_FA.mat", inversion_time=0.018)
    assert sequence.frames == 1000
    assert abs(sequence.duration - 0.018 - 13.13) < 0.01
    assert abs(np.degrees(sequence.flip_angle.max()) - 70.01) < 1e-9
