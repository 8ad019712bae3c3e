"""ISMRMRD files: written by the bare `ismrmrd` package, by this library, and damaged ones."""

from __future__ import annotations

import time
import warnings
from dataclasses import fields, replace
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.io import Scan, read_scan, write_scan

HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <experimentalConditions><H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>6</x><y>8</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>180</x><y>240</y><z>5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>99</x><y>99</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>{limits}</encodingLimits>
    <trajectory>spiral</trajectory>
  </encoding>
  <sequenceParameters>{sequence}</sequenceParameters>
</ismrmrdHeader>"""


def header(sequence: str = "", z: int = 1, limits: str = "") -> str:
    return HEADER.format(sequence=sequence, z=z, limits=limits)


def tags(name: str, values) -> str:
    return "".join(f"<{name}>{value}</{name}>" for value in values)


RNG = np.random.default_rng(0)


def readout(repetition: int, samples: int = 5, coils: int = 2, axes: int = 2, **head) -> ismrmrd.Acquisition:
    data = (RNG.standard_normal((coils, samples)) + 1j * RNG.standard_normal((coils, samples))).astype("c8")
    trajectory = RNG.uniform(-0.5, 0.5, (samples, axes)).astype("f4")
    acquisition = ismrmrd.Acquisition.from_array(data, trajectory, **head)
    acquisition.idx.repetition = repetition
    return acquisition


def write(path: Path, acquisitions, xml: str | None = header(), group: str = "dataset") -> Path:
    """As another program does it: nothing of this library in here."""
    with ismrmrd.Dataset(str(path), group) as dataset:
        if xml is not None:
            dataset.write_xml_header(xml.encode())
        for acquisition in acquisitions:
            dataset.append_acquisition(acquisition)
    return path


def joined(acquisitions):
    """K-space and trajectory that the readouts hold together."""
    return (
        np.concatenate([a.data for a in acquisitions], axis=1),
        np.concatenate([a.traj for a in acquisitions]),
    )


def test_a_file_of_another_program(tmp_path):
    noise = readout(0, samples=40, axes=0)
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    imaging = [readout(2), readout(0, samples=7), readout(0), readout(1)]
    lists = (
        tags("TR", [12, 13, 14]) + tags("TE", [2]) + tags("TI", [18]) + tags("flipAngle_deg", [10, 20, 30])
    )
    scan = read_scan(write(tmp_path / "a.h5", [noise, *imaging], header(lists)))
    kspace, trajectory = joined(imaging)
    np.testing.assert_array_equal(scan.kspace, kspace)
    np.testing.assert_array_equal(scan.trajectory, trajectory)
    assert scan.frame.tolist() == [2] * 5 + [0] * 12 + [1] * 5
    assert scan.frames == 3
    assert scan.readouts.tolist() == [5, 7, 5, 5]
    assert scan.shape == (8, 6)
    np.testing.assert_allclose(scan.field_of_view, (0.24, 0.18))
    np.testing.assert_allclose(scan.slice_thickness, 0.005)
    np.testing.assert_allclose(scan.flip_angle, np.deg2rad([10, 20, 30]))
    np.testing.assert_allclose(scan.tr, [0.012, 0.013, 0.014])
    np.testing.assert_allclose(scan.te, [0.002])
    np.testing.assert_allclose(scan.inversion_time, 0.018)


@pytest.mark.parametrize(
    "flag",
    [
        ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
        ismrmrd.ACQ_IS_NAVIGATION_DATA,
        ismrmrd.ACQ_IS_PHASECORR_DATA,
        ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ],
)
def test_what_is_no_image_is_left_out(tmp_path, flag):
    other, image = readout(0), readout(0)
    other.set_flag(flag)
    image.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    scan = read_scan(write(tmp_path / "a.h5", [other, image]))
    np.testing.assert_array_equal(scan.kspace, image.data)


def test_discarded_samples(tmp_path):
    first, second = readout(0, 9, discard_pre=2, discard_post=1), readout(1, 9)
    scan = read_scan(write(tmp_path / "a.h5", [first, second]))
    np.testing.assert_array_equal(scan.kspace, np.concatenate([first.data[:, 2:8], second.data], axis=1))
    np.testing.assert_array_equal(scan.trajectory, np.concatenate([first.traj[2:8], second.traj]))
    assert scan.readouts.tolist() == [6, 9]
    # a trajectory of all samples that were acquired loses the same ones
    arms = np.stack([first.traj, second.traj]).astype(float)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.h5", trajectory=arms).trajectory, scan.trajectory)


def test_third_column(tmp_path):
    flat = readout(0, axes=3)
    flat.traj[:, 2] = 0
    scan = read_scan(write(tmp_path / "flat.h5", [flat]))
    np.testing.assert_array_equal(scan.trajectory, flat.traj[:, :2])
    path = write(tmp_path / "weights.h5", [readout(0, axes=3)])
    with pytest.raises(ValueError, match=r"3 dimensions and its image 2.*density weights"):
        read_scan(path)
    assert read_scan(path, trajectory=np.zeros((5, 2))).trajectory.shape == (5, 2)
    volume = readout(0, axes=3)
    scan = read_scan(write(tmp_path / "volume.h5", [volume], header(z=4)))
    assert scan.shape == (4, 8, 6)
    np.testing.assert_allclose(scan.field_of_view, (0.005, 0.24, 0.18))
    assert scan.slice_thickness is None
    np.testing.assert_array_equal(scan.trajectory, volume.traj)
    with pytest.raises(ValueError, match="2 dimensions and its image 3"):
        read_scan(write(tmp_path / "short.h5", [readout(0)], header(z=4)))


def test_no_trajectory(tmp_path):
    path = write(tmp_path / "a.h5", [readout(f, axes=0) for f in range(2)])
    assert read_scan(path).trajectory is None
    arms = RNG.uniform(-0.5, 0.5, (2, 5, 2))
    for form in (arms, arms.reshape(-1, 2), arms.reshape(1, -1, 2)):
        np.testing.assert_array_equal(read_scan(path, trajectory=form).trajectory, arms.reshape(-1, 2))
    with pytest.raises(ValueError, match=r"trajectory must be \(10, 2\); got \(9, 2\)"):
        read_scan(path, trajectory=arms.reshape(-1, 2)[1:])
    with pytest.raises(ValueError, match="4 samples an arm, readout 0 has 5"):
        read_scan(path, trajectory=arms[:, :4])


def test_which_readout_takes_which_arm(tmp_path):
    arms = np.arange(3.0)[:, None, None] / 10 + np.zeros((3, 5, 2))
    taken = lambda path: (10 * read_scan(path, trajectory=arms).trajectory[::5, 0]).round().tolist()  # noqa: E731
    by_frame = [readout(f, axes=0) for f in (4, 0, 1, 3, 2)]
    assert taken(write(tmp_path / "frame.h5", by_frame)) == [1, 0, 1, 0, 2]
    by_step = [readout(f, axes=0) for f in (0, 0, 1, 1)]
    for acquisition, step in zip(by_step, (2, 0, 1, 2), strict=True):
        acquisition.idx.kspace_encode_step_1 = step
    assert taken(write(tmp_path / "step.h5", by_step)) == [2, 0, 1, 2]
    in_order = [readout(f, axes=0) for f in (0, 0, 1)]
    assert taken(write(tmp_path / "order.h5", in_order)) == [0, 1, 2]
    with pytest.raises(ValueError, match="which readout takes which arm"):
        taken(write(tmp_path / "unknown.h5", [readout(0, axes=0) for _ in range(4)]))


def test_counting_of_frames(tmp_path):
    one = write(tmp_path / "one.h5", [readout(r) for r in (3, 1, 2)])
    with pytest.warns(UserWarning, match="1 to 3, so 1 is taken as the first frame"):
        scan = read_scan(one)
    assert (scan.frame[::5].tolist(), scan.frames) == ([2, 0, 1], 3)
    # the length of the sequence decides: here the first of four frames is missing
    scan = read_scan(one, frames=4)
    assert (scan.frame[::5].tolist(), scan.frames) == ([3, 1, 2], 4)
    scan = read_scan(one, frames=3)
    assert (scan.frame[::5].tolist(), scan.frames) == ([2, 0, 1], 3)
    lists = header(tags("flipAngle_deg", [1, 2, 3, 4]))
    scan = read_scan(write(tmp_path / "list.h5", [readout(r) for r in (3, 1, 2)], lists))
    assert (scan.frame[::5].tolist(), scan.frames) == ([3, 1, 2], 4)
    gap = read_scan(write(tmp_path / "gap.h5", [readout(r) for r in (1, 4)]))
    assert (gap.frame[::5].tolist(), gap.frames) == ([1, 4], 5)
    with pytest.raises(ValueError, match="repetitions up to 3, but the sequence has 2 frames"):
        read_scan(one, frames=2)


def test_encoding_limits_count_frames(tmp_path):
    limit = "<repetition><minimum>{}</minimum><maximum>{}</maximum><center>0</center></repetition>".format
    scan = read_scan(write(tmp_path / "zero.h5", [readout(1)], header(limits=limit(0, 6))))
    assert (scan.frame[0], scan.frames) == (1, 7)
    scan = read_scan(write(tmp_path / "one.h5", [readout(1), readout(3)], header(limits=limit(1, 3))))
    assert (scan.frame[::5].tolist(), scan.frames) == ([0, 2], 3)


def test_lists_of_another_length_are_not_used(tmp_path):
    path = write(tmp_path / "a.h5", [readout(f) for f in range(4)], header(tags("TE", [1, 2])))
    with pytest.warns(UserWarning, match="lists 2 TE for 4 frames"):
        assert read_scan(path).te is None
    path = write(tmp_path / "b.h5", [readout(0)], header(tags("TI", [18, 30])))
    with pytest.warns(UserWarning, match="2 inversion times"):
        assert read_scan(path).inversion_time is None
    path = write(tmp_path / "c.h5", [readout(0)], header(tags("TI", [0]) + tags("TR", [0])))
    assert (read_scan(path).inversion_time, read_scan(path).tr) == (None, None)


def test_missing_parts_of_the_header(tmp_path):
    bare = write(tmp_path / "none.h5", [readout(0)], xml=None)
    with pytest.raises(ValueError, match="no encoded matrix size; give shape"):
        read_scan(bare)
    scan = read_scan(bare, shape=(8, 6))
    assert (scan.shape, scan.field_of_view, scan.flip_angle) == ((8, 6), None, None)
    for xml in ("<ismrmrdHeader/>", "<ismrmrdHeader><encoding/></ismrmrdHeader>"):
        with pytest.raises(ValueError, match="no encoded matrix size"):
            read_scan(write(tmp_path / f"{len(xml)}.h5", [readout(0)], xml))
    # no name space, no z, no field of view: enough
    xml = (
        "<ismrmrdHeader><encoding><encodedSpace><matrixSize><x>6</x><y>8</y></matrixSize></encodedSpace>"
        "</encoding></ismrmrdHeader>"
    )
    scan = read_scan(write(tmp_path / "little.h5", [readout(0)], xml))
    assert (scan.shape, scan.field_of_view) == ((8, 6), None)
    with pytest.raises(ValueError, match="XML header is damaged"):
        read_scan(write(tmp_path / "cut.h5", [readout(0)], header()[:300]))
    with pytest.raises(ValueError, match="is no number"):
        read_scan(write(tmp_path / "word.h5", [readout(0)], header(tags("TR", ["long"]))))


def test_group_of_any_name(tmp_path):
    path = write(tmp_path / "a.h5", [readout(0)], group="scan_1")
    assert read_scan(path).samples == 5
    write(path, [readout(0, samples=6)], group="scan_2")
    with pytest.raises(ValueError, match=r"several scans \(scan_1, scan_2\) and none is named 'dataset'"):
        read_scan(path)
    write(path, [readout(0, samples=7)])
    assert read_scan(path).samples == 7


def test_not_a_scan(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_scan(tmp_path / "nothing.h5")
    with pytest.raises(ValueError, match="is a folder"):
        read_scan(tmp_path)
    (tmp_path / "text.h5").write_text("not this")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        read_scan(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["dataset/data"] = np.zeros(3)
    with pytest.raises(ValueError, match="no ISMRMRD scan"):
        read_scan(tmp_path / "foreign.h5")
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["dataset/data"] = np.zeros(3, [("head", "i4"), ("data", "f4")])
    with pytest.raises(ValueError, match="no ISMRMRD scan"):
        read_scan(tmp_path / "head.h5")
    with pytest.raises(ValueError, match="no ISMRMRD scan"):
        read_scan(write(tmp_path / "empty.h5", []))


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_truncated(tmp_path, part):
    path = write(tmp_path / "a.h5", [readout(f, samples=50) for f in range(40)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_scan(path)


def test_bytes_overwritten_never_crash(tmp_path):
    path = write(tmp_path / "a.h5", [readout(f, samples=50) for f in range(10)])
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(12):
        broken = whole.copy()
        start = int(rng.integers(8, len(whole) - 64))
        broken[start : start + 64] = rng.bytes(64)
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_scan(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017


def test_readouts_that_do_not_fit_together(tmp_path):
    cases = {
        "no imaging samples": [readout(0, discard_pre=5)],
        "numbers of coils from 2 to 3": [readout(0), readout(1, coils=3)],
        "zero coils": [readout(0, coils=0)],
        "trajectory dimensions from 0 to 2": [readout(0), readout(1, axes=0)],
    }
    for number, (message, acquisitions) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=message):
            read_scan(write(tmp_path / f"{number}.h5", acquisitions))
    for counter in ("contrast", "set", "phase"):
        pair = [readout(0), readout(0)]
        setattr(pair[1].idx, counter, 1)
        path = write(tmp_path / f"{counter}.h5", pair)
        with pytest.raises(ValueError, match=f"one repetition differ in {counter}"):
            read_scan(path)
    pair = [readout(0), readout(1)]
    pair[1].idx.contrast = 1  # told apart by the repetition as well
    assert read_scan(write(tmp_path / "echoes.h5", pair)).frames == 2
    pair[1].idx.slice = 1
    with pytest.raises(ValueError, match="slices from 0 to 1; write one file for each"):
        read_scan(write(tmp_path / "slices.h5", pair))


@pytest.mark.parametrize(("field", "what"), [("data", "k-space"), ("traj", "trajectory")])
def test_lengths_that_the_header_denies(tmp_path, field, what):
    path = write(tmp_path / "a.h5", [readout(0), readout(1)])
    with h5py.File(path, "r+") as file:
        row = file["dataset/data"][1]
        row[field] = row[field][:-2]
        file["dataset/data"][1] = row
    with pytest.raises(ValueError, match=f"readout 1 has .* {what} values where its header counts"):
        read_scan(path)


def test_samples_and_points_that_are_no_good(tmp_path):
    bad = readout(1)
    bad.data[0, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 samples that are NaN .* readout 1 \(frame 1\)"):
        read_scan(write(tmp_path / "nan.h5", [readout(0), bad]))
    far = readout(0)
    far.traj[:] *= 2 * np.pi
    with pytest.raises(ValueError, match=r"outside the field of view.*radians per pixel"):
        read_scan(write(tmp_path / "far.h5", [far]))


def test_sizes_are_refused_before_memory_is_asked_for(tmp_path):
    xml = header(z=60_000).replace("<x>6</x>", "<x>60000</x>").replace("<y>8</y>", "<y>60000</y>")
    path = write(tmp_path / "matrix.h5", [readout(0, axes=3)], xml)
    with pytest.raises(ValueError, match=r"2 coil images \(60000, 60000, 60000\) would need 3.5 PB"):
        read_scan(path)
    with h5py.File(write(tmp_path / "rows.h5", [readout(0)]), "r+") as file:
        file["dataset/data"].resize((2**40,))
    with pytest.raises(ValueError, match="1099511627776 acquisitions would need"):
        read_scan(tmp_path / "rows.h5")


def make_scan(frames: int = 6, samples: int = 5, axes: int = 2) -> Scan:
    rng = np.random.default_rng(0)
    total = frames * samples
    shape = (4, 8, 6)[-axes:]
    return Scan(
        kspace=(rng.standard_normal((3, total)) + 1j * rng.standard_normal((3, total))).astype("c8"),
        trajectory=rng.uniform(-0.5, 0.5, (total, axes)).astype("f4").astype("f8"),
        frame=np.repeat(rng.permutation(frames), samples),
        frames=frames,
        shape=shape,
        field_of_view=tuple(0.03 * s for s in shape),
        slice_thickness=0.004 if axes == 2 else None,
        flip_angle=rng.uniform(0, 1, frames),
        tr=rng.uniform(0.01, 0.02, frames),
        te=np.array([0.0025]),
        inversion_time=0.018,
    )


@pytest.mark.parametrize("axes", [2, 3])
def test_round_trip(tmp_path, axes):
    scan = make_scan(axes=axes)
    write_scan(tmp_path / "a.h5", scan)
    back = read_scan(tmp_path / "a.h5")
    for field in fields(Scan):
        expected, found = getattr(scan, field.name), getattr(back, field.name)
        if expected is None:
            assert found is None
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=field.name)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=8))
def test_round_trip_of_any_order_of_frames(tmp_path_factory, readouts):
    lengths = np.array([n for _, n in readouts])
    frame = np.repeat([f for f, _ in readouts], lengths)
    rng = np.random.default_rng(0)
    total = int(lengths.sum())
    kspace = rng.standard_normal((1, total)).astype("c8")
    scan = Scan(kspace, np.zeros((total, 2)), frame, 6, (4, 4), (0.1, 0.1), readouts=lengths)
    path = tmp_path_factory.mktemp("scan") / "a.h5"
    write_scan(path, scan)
    back = read_scan(path)
    assert back.frame.tolist() == frame.tolist()
    assert back.readouts.tolist() == lengths.tolist()
    assert back.frames == 6
    assert (back.flip_angle, back.tr, back.te, back.inversion_time, back.slice_thickness) == (None,) * 5


def test_what_is_written_the_bare_package_reads(tmp_path):
    scan = make_scan()
    write_scan(tmp_path / "a.h5", scan)
    with ismrmrd.Dataset(str(tmp_path / "a.h5"), mode="r") as dataset:
        xml = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
        acquisitions = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
    space = xml.encoding[0].encodedSpace
    assert (space.matrixSize.x, space.matrixSize.y, space.matrixSize.z) == (6, 8, 1)
    np.testing.assert_allclose([space.fieldOfView_mm.x, space.fieldOfView_mm.y], [180, 240])
    np.testing.assert_allclose(np.deg2rad(xml.sequenceParameters.flipAngle_deg), scan.flip_angle)
    np.testing.assert_allclose(xml.sequenceParameters.TI, [18])
    kspace, trajectory = joined(acquisitions)
    np.testing.assert_array_equal(kspace, scan.kspace)
    np.testing.assert_array_equal(trajectory, scan.trajectory)
    assert [a.idx.repetition for a in acquisitions] == scan.frame[::5].tolist()


def test_what_cannot_be_written(tmp_path):
    scan = make_scan()
    for change, message in (
        ({"trajectory": None}, "with its trajectory"),
        ({"field_of_view": None}, "with its field of view"),
        ({"readouts": np.array([30])}, "a readout belongs to one frame"),
        ({"readouts": np.array([4, 26])}, "a readout belongs to one frame"),
    ):
        with pytest.raises(ValueError, match=message):
            write_scan(tmp_path / "a.h5", replace(scan, **change))
    assert not (tmp_path / "a.h5").exists()
    long = Scan(np.zeros((1, 70_000)), np.zeros((70_000, 2)), np.zeros(70_000, int), 1, (4, 4), (0.1, 0.1))
    with pytest.raises(ValueError, match="up to 65535; this scan has up to 70000"):
        write_scan(tmp_path / "a.h5", long)
    with pytest.raises(OSError, match="No such file"):
        write_scan(tmp_path / "nowhere" / "a.h5", scan)


def test_thousands_of_readouts_take_no_time(tmp_path):
    frames, samples = 6000, 20
    total = frames * samples
    scan = Scan(
        np.ones((2, total)),
        np.zeros((total, 2)),
        np.repeat(np.arange(frames), samples),
        frames,
        (8, 8),
        (1.0, 1.0),
    )
    start = time.process_time()
    write_scan(tmp_path / "a.h5", scan)
    read_scan(tmp_path / "a.h5")
    assert time.process_time() - start < 5  # one acquisition at a time through `ismrmrd` needs a minute
