"""ISMRMRD files in and out: one acquisition is one readout, `idx.repetition` its frame.

The format: Inati et al., "ISMRM Raw data format: A proposed standard for MRI raw datasets",
Magn. Reson. Med. 77:411-421 (2017), doi 10.1002/mrm.26089.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.arrays import require_memory
from invlearn.io.damage import damage_named
from invlearn.io.hdf5 import open_hdf5, require_layout, require_room
from invlearn.io.ismrmrd_header import Header, xml_of
from invlearn.io.scans import Scan

_HEAD = (
    "flags",
    "number_of_samples",
    "active_channels",
    "discard_pre",
    "discard_post",
    "encoding_space_ref",
    "trajectory_dimensions",
    "idx",
)
_WHAT = "an ISMRMRD scan (.h5 or .mrd)"
_BLOCK = 512  # acquisitions read or written at a time
_LARGEST = 65_535  # samples of a readout, and repetitions: 16 bits in the file

# ACQ_IS_... flags (bit number + 1) of readouts that are no part of the image: noise measurement,
# parallel calibration alone, navigator, phase correction, feedback, dummy scan, surface coil
# correction, phase stabilisation.
_NOT_IMAGING = sum(1 << (flag - 1) for flag in (19, 20, 23, 24, 26, 27, 28, 29, 30, 31))


def read_scan(
    path: str | os.PathLike[str],
    *,
    trajectory: np.ndarray | None = None,
    shape: tuple[int, ...] | None = None,
    frames: int | None = None,
) -> Scan:
    """Read an ISMRMRD file, of whatever program.

    Noise, calibration, navigator and dummy readouts are left out, and so are the samples that the
    file marks to be discarded. Readouts keep the order of the file; `idx.repetition` is the frame.

    Parameters
    ----------
    path
        An ISMRMRD HDF5 file.
    trajectory
        Used in place of the file's, cycles per pixel: `(N, d)` for all samples in their order, or
        `(arms, samples, d)`. With one readout a frame, frame f takes arm f modulo the number of
        arms; with several, there is either an arm for each readout, in the order of the file, or
        `idx.kspace_encode_step_1` says which arm it is.
    shape
        The image, used in place of the encoded matrix of the header.
    frames
        Number of frames when it is known (the length of the sequence). It also decides whether
        repetitions count from 0 or from 1; without it the header's lists do, and last a look at
        the repetitions themselves: 1 … n without a gap is taken as counted from 1, with a warning.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not HDF5, truncated, HDF5 of something else, no readouts, no coils, differing coils,
        k-space and trajectory of different lengths, NaN samples, a trajectory outside ±0.5, more
        data than memory holds, several slices or contrasts, no matrix and no `shape`.

    Examples
    --------
    >>> scan = read_scan("scan.h5")          # doctest: +SKIP
    >>> scan.kspace.shape, scan.frames       # doctest: +SKIP
    ((8, 1000000), 1000)
    """
    path = Path(path)
    points = None if trajectory is None else np.asarray(trajectory, np.float64)
    with damage_named(path, then="copy or convert it again"), open_hdf5(path, _WHAT) as file:
        group = _find_group(file, path)
        readouts = _Readouts.find(group["data"], path)
        return _read(readouts, Header.parse(group, path), points, shape, frames)


def _find_group(file: Any, path: Path) -> Any:
    """The group that holds the acquisitions: "dataset", or the only one of another name."""
    import h5py

    def is_scan(group: Any) -> bool:
        data = group.get("data") if isinstance(group, h5py.Group) else None
        if not isinstance(data, h5py.Dataset) or not {"head", "traj", "data"} <= set(data.dtype.names or ()):
            return False
        return set(_HEAD) <= set(data.dtype["head"].names or ())

    found = [name for name in file if is_scan(file.get(name))]
    if "dataset" in found:
        return file["dataset"]
    if len(found) > 1:
        raise ValueError(f"{path} holds several scans ({', '.join(found)}) and none is named 'dataset'")
    if not found:
        there = ", ".join(list(file)[:5]) or "nothing"
        raise ValueError(
            f"{path} is HDF5, but no ISMRMRD scan: no group in it has acquisitions (it has {there})"
        )
    return file[found[0]]


def _blocks(data: Any) -> Iterator[np.ndarray]:
    # whole rows: HDF5 converts a selection of fields more slowly than it reads all of them
    for start in range(0, data.shape[-1], _BLOCK):
        yield data[..., start : start + _BLOCK].reshape(-1)


def _kept(heads: np.ndarray) -> np.ndarray:
    """Samples of each readout without those to be discarded at its ends."""
    return heads["number_of_samples"].astype(np.int64) - heads["discard_pre"] - heads["discard_post"]


@dataclass(frozen=True)
class _Readouts:
    """The imaging readouts of a file: `data` is its table, `used` says which rows they are."""

    path: Path
    data: Any
    used: np.ndarray
    heads: np.ndarray

    @staticmethod
    def find(data: Any, path: Path) -> _Readouts:
        """Look at all headers and leave out what is no part of the image."""
        count = math.prod(data.shape)
        if count == 0:
            raise ValueError(f"{path} has no acquisitions")
        require_layout(data.dtype, path)
        require_memory(count * data.dtype["head"].itemsize, f"{count} acquisitions", path)
        if data.compression is None and data.id.get_storage_size() < count * data.id.get_type().get_size():
            raise ValueError(
                f"{path} is truncated or damaged: it claims {count} acquisitions and does not hold as many"
            )
        heads = np.concatenate([block["head"] for block in _blocks(data)])
        used = ((heads["flags"] & np.uint64(_NOT_IMAGING)) == 0) & (_kept(heads) > 0)
        if not used.any():
            raise ValueError(f"{path} has {count} acquisitions, and no imaging samples in them")
        return _Readouts(path, data, used, heads[used])

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each readout."""
        return _kept(self.heads)

    @property
    def repetition(self) -> np.ndarray:
        """The repetition of each readout, as the file counts it."""
        return self.heads["idx"]["repetition"].astype(np.int64)

    def one(self, values: np.ndarray, what: str, way_out: str) -> int:
        """The value that all readouts have in common."""
        several = np.unique(values)
        if len(several) > 1:
            raise ValueError(
                f"{self.path}: its readouts have {what} from {several[0]} to {several[-1]}; {way_out}"
            )
        return int(several[0])

    def coils(self) -> int:
        """Number of coils; all readouts have the same."""
        coils = self.one(self.heads["active_channels"], "numbers of coils", "all must have the same")
        if coils == 0:
            raise ValueError(f"{self.path}: its readouts have zero coils (active_channels is 0)")
        return coils

    def require_one_image(self) -> None:
        """Refuse several slices, and contrasts within a frame: they are different images."""
        index = self.heads["idx"]
        self.one(index["slice"], "slices", "write one file for each")
        for counter in ("contrast", "phase", "set"):
            pairs = np.unique(np.stack([index["repetition"], index[counter]]), axis=1)
            if (np.diff(pairs[0]) == 0).any():
                raise ValueError(
                    f"{self.path}: readouts of one repetition differ in {counter}; a frame is one "
                    f"repetition, so write every {counter} as a repetition of its own"
                )

    def read(self, with_trajectory: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """K-space `(C, N)` and, where the file has one, the trajectory `(N, d)`."""
        axes = 0
        if with_trajectory:
            way_out = "all must have the same, or give a trajectory"
            axes = self.one(self.heads["trajectory_dimensions"], "trajectory dimensions", way_out)
        coils, total = self.coils(), int(self.lengths.sum())
        require_memory(coils * total * 8, f"k-space ({coils}, {total})", self.path)
        kspace = np.empty((coils, total), np.complex64)
        points = np.empty((total, axes), np.float32)
        at = 0
        for number, (row, head) in enumerate(zip(self._rows(), self.heads, strict=True)):
            samples = int(head["number_of_samples"])
            part = slice(int(head["discard_pre"]), samples - int(head["discard_post"]))
            end = at + part.stop - part.start
            values = self._values(number, row["data"], 2 * coils * samples, "k-space")
            kspace[:, at:end] = values.view(np.complex64).reshape(coils, samples)[:, part]
            if axes:
                values = self._values(number, row["traj"], axes * samples, "trajectory")
                points[at:end] = values.reshape(samples, axes)[part]
            at = end
        return kspace, points if axes else None

    def _rows(self) -> Iterator[np.void]:
        start = 0
        for block in _blocks(self.data):
            yield from block[self.used[start : start + len(block)]]
            start += len(block)

    def _values(self, number: int, values: Any, expected: int, what: str) -> np.ndarray:
        values = np.ascontiguousarray(values, np.float32).reshape(-1)
        if len(values) != expected:
            raise ValueError(
                f"{self.path}: readout {number} has {len(values)} {what} values where its header counts "
                f"{expected}; k-space and trajectory must both have the header's number of samples"
            )
        return values

    def arrange(self, trajectory: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """The points `(N, d)` of a trajectory `(arms, samples, d)` for these readouts."""
        arms, samples, _ = trajectory.shape
        if arms == 1 and samples == self.lengths.sum():  # one flat array of all points
            return trajectory[0]
        chosen = trajectory[self._arms(arms, frame)]
        if (self.lengths == samples).all():
            return chosen.reshape(-1, chosen.shape[-1])
        wrong = self.heads["number_of_samples"] != samples
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"{self.path}: the trajectory has {samples} samples an arm, readout {first} has "
                f"{self.lengths[first]}; k-space and trajectory must have the same length"
            )
        position = np.arange(samples)
        before, after = self.heads["discard_pre"][:, None], self.heads["discard_post"][:, None]
        return chosen[(position >= before) & (position < samples - after.astype(np.int64))]

    def _arms(self, arms: int, frame: np.ndarray) -> np.ndarray:
        """Which arm each readout takes."""
        step = self.heads["idx"]["kspace_encode_step_1"]
        if len(np.unique(frame)) == len(frame):
            return frame % arms
        if arms == len(frame):
            return np.arange(arms)
        if step.max() < arms and np.unique(np.stack([frame, step]), axis=1).shape[1] == len(frame):
            return step
        raise ValueError(
            f"{self.path}: {len(frame)} readouts and a trajectory of {arms} arms, and the file does not say "
            "(in kspace_encode_step_1) which readout takes which arm; give an arm for each readout"
        )


def _read(
    readouts: _Readouts,
    header: Header,
    trajectory: np.ndarray | None,
    shape: tuple[int, ...] | None,
    frames: int | None,
) -> Scan:
    path, lengths = readouts.path, readouts.lengths
    readouts.require_one_image()
    way_out = "write one file for each"
    space = header.space(readouts.one(readouts.heads["encoding_space_ref"], "encoding spaces", way_out))
    shape = space.shape if shape is None else shape
    if shape is None:
        raise ValueError(f"{path}: its header has no encoded matrix size; give shape=(H, W)")
    require_memory(readouts.coils() * math.prod(shape) * 8, f"{readouts.coils()} coil images {shape}", path)
    kspace, points = readouts.read(with_trajectory=trajectory is None)
    first, frames = _count_frames(path, readouts.repetition, header, frames)
    frame = readouts.repetition - first
    if trajectory is None:
        points = None if points is None else _without_empty_axis(path, points, len(shape))
    else:
        points = readouts.arrange(trajectory, frame) if trajectory.ndim == 3 else trajectory
    try:
        return Scan(
            kspace,
            points,
            np.repeat(frame, lengths),
            frames,
            shape,
            space.field_of_view if space.shape == tuple(shape) else None,
            space.slice_thickness if len(shape) == 2 else None,
            flip_angle=header.per_frame("flipAngle_deg", frames),
            tr=header.per_frame("TR", frames),
            te=header.per_frame("TE", frames),
            inversion_time=header.inversion_time(),
            readouts=lengths,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _without_empty_axis(path: Path, trajectory: np.ndarray, axes: int) -> np.ndarray:
    """Without further columns than the image has axes, where these hold nothing."""
    if trajectory.shape[1] < axes:
        raise ValueError(
            f"{path}: its trajectory has {trajectory.shape[1]} dimensions and its image {axes}; "
            "correct the matrix size, or give a trajectory"
        )
    if np.any(trajectory[:, axes:]):
        raise ValueError(
            f"{path}: its trajectory has {trajectory.shape[1]} dimensions and its image {axes}; correct the "
            "matrix size if it is a volume, or give the trajectory (kx, ky) if the last holds density weights"
        )
    return trajectory[:, :axes]


def _count_frames(path: Path, repetition: np.ndarray, header: Header, frames: int | None) -> tuple[int, int]:
    """What the repetitions count from (0 or 1), and the number of frames."""
    least, last = int(repetition.min()), int(repetition.max())
    known = header.frames if frames is None else frames
    limits = header.repetitions
    if known is not None:
        first = int(least >= 1 and last == known)
    elif limits is not None:
        first = int(least >= 1 and limits[0] == 1)
    else:
        first = int(least == 1 and len(np.unique(repetition)) == last)
        if first:
            warnings.warn(
                f"{path}: the repetitions run from 1 to {last}, so 1 is taken as the first frame; "
                "if the first frame is missing, give the number of frames",
                stacklevel=4,
            )
    found = last - first + 1
    if frames is not None and found > frames:
        raise ValueError(f"{path} has repetitions up to {last}, but the sequence has {frames} frames")
    if known is None or known < found:
        known = found if limits is None else max(found, limits[1] - first + 1)
    return first, known


def write_scan(path: str | os.PathLike[str], scan: Scan) -> None:
    """Write an ISMRMRD file: an acquisition a readout, the trajectory in it, the frame its repetition.

    Parameters
    ----------
    path
        The file to write; one that exists is replaced.
    scan
        What to write. It needs a trajectory and a field of view.

    Raises
    ------
    ValueError
        No trajectory or field of view, a readout that belongs to several frames, or more samples
        or repetitions than the 16 bits of the format count.
    OSError
        There is no room for it on the disk.
    """
    import h5py
    from ismrmrd.hdf5 import acquisition_dtype

    if scan.trajectory is None or scan.field_of_view is None:
        missing = "trajectory" if scan.trajectory is None else "field of view"
        raise ValueError(f"{path}: a scan is written with its {missing}, and this one has none")
    assert scan.readouts is not None
    if max(scan.readouts.max(), scan.frames - 1, *scan.shape, scan.coils) > _LARGEST:
        raise ValueError(
            f"{path}: ISMRMRD counts samples of a readout, frames, coils and pixels up to {_LARGEST}; "
            f"this scan has up to {scan.readouts.max()}, {scan.frames}, {scan.coils} and {max(scan.shape)}"
        )
    ends = np.cumsum(scan.readouts)
    starts = ends - scan.readouts
    if (scan.frame[starts] != scan.frame[ends - 1]).any():
        raise ValueError(f"{path}: a readout belongs to one frame; give readouts that do not cross frames")
    table = np.zeros(len(starts), acquisition_dtype)
    _fill_heads(table["head"], scan, starts)
    trajectory = scan.trajectory.astype(np.float32)
    require_room(Path(path), table.nbytes + 8 * scan.kspace.size + trajectory.nbytes)
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))[0] = xml_of(scan)
        data = group.create_dataset(
            "data", (len(table),), acquisition_dtype, maxshape=(None,), chunks=(min(len(table), 64),)
        )
        for first in range(0, len(table), _BLOCK):
            rows = table[first : first + _BLOCK]
            for row, start, end in zip(rows, starts[first:], ends[first:], strict=False):
                row["data"] = np.ascontiguousarray(scan.kspace[:, start:end]).view(np.float32).reshape(-1)
                row["traj"] = trajectory[start:end].reshape(-1)
            data[first : first + len(rows)] = rows
            rows["data"] = rows["traj"] = None  # written: let the copies go


def _fill_heads(heads: np.ndarray, scan: Scan, starts: np.ndarray) -> None:
    heads["version"] = 1
    heads["scan_counter"] = np.arange(len(heads))
    heads["number_of_samples"] = scan.readouts
    heads["available_channels"] = heads["active_channels"] = scan.coils
    heads["trajectory_dimensions"] = len(scan.shape)
    heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = np.eye(3, dtype=np.float32)
    frame = scan.frame[starts]
    heads["idx"]["repetition"] = frame
    order = np.argsort(frame, kind="stable")  # the readout's number within its frame
    first = np.searchsorted(frame[order], frame[order])
    heads["idx"]["kspace_encode_step_1"][order] = np.minimum(np.arange(len(frame)) - first, _LARGEST)
