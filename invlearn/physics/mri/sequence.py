"""Pulse sequences as trains of frames: flip angle, phase, repetition and echo time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from invlearn.io.arrays import inspect, read_array
from invlearn.io.tables import Row, read_table

Kind = Literal["fisp", "bssfp"]
CSV_HEADER = ("flip_angle_deg", "phase_deg", "tr_s", "te_s")

_LOBE = 200  # frames in a lobe of the default train


@dataclass(frozen=True, eq=False)
class PulseProgramme:
    """What a simulator plays: per frame a pulse, a delay to the echo, a delay to the next pulse.

    Attributes
    ----------
    flip_angle, phase
        Angle of each pulse and the angle of its axis from x, `(frames,)` in rad.
    tr, te
        Pulse to next pulse and pulse to echo, `(frames,)` in s.
    dephasing
        How often a gradient dephases by one cycle across the voxel before the echo, and after it
        (0 or 1 each).
    inversion_time
        From the inversion to the first pulse, in s; None plays none.
    inversion_efficiency
        The inversion takes Mz to (1 - 2 efficiency) Mz and spoils the rest.
    excitation
        Flip angle (rad), phase (rad) and the delay (s) that ends in a dephasing, of a pulse before
        the first frame; None plays none.
    slice_profile
        Flip-angle factors and their weights, over which the signal is averaged.
    """

    flip_angle: np.ndarray
    phase: np.ndarray
    tr: np.ndarray
    te: np.ndarray
    dephasing: tuple[int, int] = (0, 1)
    inversion_time: float | None = None
    inversion_efficiency: float = 1.0
    excitation: tuple[float, float, float] | None = None
    slice_profile: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    def _key(self) -> tuple[object, ...]:
        values = (getattr(self, f.name) for f in fields(self))
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PulseProgramme) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def frames(self) -> int:
        """Number of echoes."""
        return len(self.flip_angle)

    @property
    def axis(self) -> float | None:
        """The phase (rad) of the axis that all pulses share, in either sense; None when they do not."""
        phases = self.phase if self.excitation is None else np.append(self.phase, self.excitation[1])
        shared = bool(np.all(np.abs(np.sin(phases - self.phase[0])) < 1e-9))
        return float(self.phase[0]) if shared else None


@dataclass(frozen=True, eq=False)
class FingerprintSequence:
    """A train of pulses with one readout each, for magnetic resonance fingerprinting.

    Every frame is: pulse, echo after `te`, next pulse after `tr`. Raw rotating frame: a pulse of
    phase φ turns the magnetisation right-handed about the axis (cos φ, sin φ, 0).

    Parameters
    ----------
    flip_angle, phase
        `(frames,)` in rad. Flip angles are not negative: turn the phase by π instead.
    tr, te
        `(frames,)` in s, 0 <= te < tr.
    inversion_time
        From an inversion pulse to the first pulse, in s; None plays no inversion.
    kind
        `"fisp"`: the gradients of a frame dephase by one cycle across the voxel, after the echo.
        `"bssfp"`: all gradients are balanced.
    inversion_efficiency
        The inversion takes Mz to (1 - 2 efficiency) Mz; 1 is perfect, 0.5 a saturation.
    slice_profile
        `(points, 2)`: factors on the flip angles across the slice, and their weights (normalised to
        sum 1). The signal is the weighted mean. None is one ideal slice.

    Raises
    ------
    ValueError
        Arrays of different lengths or none, NaN, negative angles or times, te >= tr, an unknown kind.

    References
    ----------
    Ma et al., Nature 495:187 (2013), doi:10.1038/nature11971. FISP: Jiang et al., Magn. Reson. Med.
    74:1621 (2015), doi:10.1002/mrm.25559.
    """

    flip_angle: np.ndarray
    phase: np.ndarray
    tr: np.ndarray
    te: np.ndarray
    inversion_time: float | None = None
    kind: str = "fisp"
    inversion_efficiency: float = 1.0
    slice_profile: np.ndarray | None = None

    _TRAINS: ClassVar[tuple[str, ...]] = ("flip_angle", "phase", "tr", "te")

    def __post_init__(self) -> None:
        who = type(self).__name__
        for name in self._TRAINS:
            object.__setattr__(self, name, frozen_train(getattr(self, name), f"{who}: {name}"))
        lengths = {name: len(getattr(self, name)) for name in self._TRAINS}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise ValueError(f"{who} needs one entry a frame in every train, got lengths {listed}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"{who}: kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        _check_frames(self, who)
        check_inversion(self.inversion_time, self.inversion_efficiency, who)
        object.__setattr__(self, "slice_profile", as_slice_profile(self.slice_profile, who))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FingerprintSequence) and self.programme() == other.programme()

    def __hash__(self) -> int:
        return hash(self.programme())

    def __repr__(self) -> str:
        inversion = "" if self.inversion_time is None else f", inversion {1e3 * self.inversion_time:g} ms"
        return f"FingerprintSequence({self.kind}, {self.frames} frames, {self.duration:.2f} s{inversion})"

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.flip_angle)

    @property
    def duration(self) -> float:
        """From the inversion (or first pulse) to the end of the last frame, in s."""
        return float(self.tr.sum()) + (self.inversion_time or 0.0)

    @property
    def real(self) -> bool:
        """Whether all pulses share one axis, so that the signal has one phase throughout."""
        return self.programme().axis is not None

    def truncated(self, frames: int) -> FingerprintSequence:
        """The first `frames` frames.

        Raises
        ------
        ValueError
            More frames than there are, or fewer than one.
        """
        if not 1 <= frames <= self.frames:
            raise ValueError(f"truncated: the sequence has 1 to {self.frames} frames to keep, got {frames}")
        return replace(self, **{name: getattr(self, name)[:frames] for name in self._TRAINS})

    def programme(self) -> PulseProgramme:
        """What the simulator plays."""
        return PulseProgramme(
            **{name: getattr(self, name) for name in self._TRAINS},
            dephasing=(0, 1) if self.kind == "fisp" else (0, 0),
            inversion_time=self.inversion_time,
            inversion_efficiency=self.inversion_efficiency,
            slice_profile=profile_pairs(self.slice_profile),
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields, arrays as lists; units as in the class."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FingerprintSequence:
        """The inverse of `to_dict`."""
        arrays: dict[str, Any] = {k: np.asarray(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arrays)

    @classmethod
    def default(cls, frames: int = 1000) -> FingerprintSequence:
        """A smooth FISP train after an inversion: half-sine lobes of flip angle, slowly varying TR.

        Lobe l (of 200 frames; five, then again) peaks at 30° + 40° sin²(π (l + 1/2) / 5), so at 70° in
        the middle. TR varies between 11.9 and 14.3 ms, TE = 1.908 ms, the inversion lies 18 ms before
        the first pulse. 1000 frames last 13.1 s.
        """
        if frames < 1:
            raise ValueError(f"FingerprintSequence.default needs at least one frame, got {frames}")
        n = np.arange(frames)
        peak = 30 + 40 * np.sin(np.pi * (n // _LOBE % 5 + 0.5) / 5) ** 2
        flip = np.radians(peak * np.sin(np.pi * (n % _LOBE + 0.5) / _LOBE))
        tr = 1e-3 * (13.1 - 0.85 * np.cos(2 * np.pi * n / 137) + 0.38 * np.sin(2 * np.pi * n / 61))
        return cls(flip, np.zeros(frames), tr, np.full(frames, 1.908e-3), inversion_time=0.018)

    @classmethod
    def from_csv(
        cls, path: str | Path, inversion_time: float | None = None, kind: str = "fisp"
    ) -> FingerprintSequence:
        """Read a table with the header `flip_angle_deg,phase_deg,tr_s,te_s` and a row a frame.

        Parameters
        ----------
        path
            A CSV file; degrees and seconds.
        inversion_time, kind
            As in the class: the table does not hold them.

        Raises
        ------
        ValueError
            Another header, no rows, or a bad row, with its line number.
        FileNotFoundError
            No such file.
        """
        path = Path(path)
        rows = _read_rows(path)
        flip, phase, tr, te = np.array(rows).T
        return cls(np.radians(flip), np.radians(phase), tr, te, inversion_time=inversion_time, kind=kind)

    def to_csv(self, path: str | Path) -> None:
        """Write the table that `from_csv` reads (without inversion time, kind and slice profile)."""
        columns = (np.degrees(self.flip_angle), np.degrees(self.phase), self.tr, self.te)
        lines = [
            ",".join(CSV_HEADER),
            *(",".join(f"{v:.17g}" for v in row) for row in zip(*columns, strict=True)),
        ]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def from_mat(
        cls,
        path: str | Path,
        inversion_time: float | None = None,
        kind: str = "fisp",
        names: Sequence[str] = ("FA_all", "TR_all", "TE_all"),
    ) -> FingerprintSequence:
        """Read a MATLAB file (v5) with flip angles in degrees, TR and TE in s; all pulses about x.

        Parameters
        ----------
        path
            The file.
        inversion_time, kind
            As in the class: the file does not hold them.
        names
            Names of the three variables: flip angle, TR, TE.

        Raises
        ------
        ValueError
            Not a MATLAB v5 file, or a variable that is not in it.
        FileNotFoundError
            No such file.
        """
        held = inspect(path)
        if len(names) != 3 or set(names) - set(held):
            raise ValueError(
                f"{path}: names must be three of its variables, got {list(names)}; it holds {', '.join(held)}"
            )
        flip, tr, te = (read_array(path, [name]).ravel() for name in names)
        for name, train in zip(names, (flip, tr, te), strict=True):
            if train.dtype.kind == "c":
                raise ValueError(f"{path}: {name} is complex, where angles and times are real")
        return cls(np.radians(flip), np.zeros(len(flip)), tr, te, inversion_time=inversion_time, kind=kind)


def frozen_train(values: object, who: str) -> np.ndarray:
    """A read-only float64 copy of a 1-D train of finite numbers."""
    train = np.array(values, dtype=np.float64)
    if train.ndim != 1 or train.size == 0:
        raise ValueError(f"{who} must be a train (frames,) of at least one frame, got shape {train.shape}")
    bad = np.flatnonzero(~np.isfinite(train))
    if bad.size:
        raise ValueError(f"{who} is not finite in frame {bad[0]} (of {bad.size} such frames)")
    train.flags.writeable = False
    return train


def check_inversion(time: float | None, efficiency: float, who: str) -> None:
    """Refuse a negative or NaN inversion time and an efficiency outside 0 to 1."""
    if time is not None and not (math.isfinite(time) and time >= 0):
        raise ValueError(f"{who}: inversion_time must be seconds >= 0 or None, got {time}")
    if not 0 <= efficiency <= 1:
        raise ValueError(f"{who}: inversion_efficiency must lie in 0 to 1, got {efficiency}")


def as_slice_profile(profile: object, who: str) -> np.ndarray | None:
    """Read-only `(points, 2)` factors and weights of sum 1."""
    if profile is None:
        return None
    pairs = np.array(profile, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"{who}: slice_profile must be (points, 2), factor and weight, got {pairs.shape}")
    if not np.isfinite(pairs).all() or (pairs < 0).any() or pairs[:, 1].sum() <= 0:
        raise ValueError(f"{who}: slice_profile needs finite factors and weights >= 0, some weight > 0")
    pairs[:, 1] /= pairs[:, 1].sum()
    pairs.flags.writeable = False
    return pairs


def profile_pairs(profile: np.ndarray | None) -> tuple[tuple[float, float], ...]:
    """The slice profile of a programme."""
    if profile is None:
        return ((1.0, 1.0),)
    return tuple((float(factor), float(weight)) for factor, weight in profile)


def _check_frames(sequence: FingerprintSequence, who: str) -> None:
    rules = (
        (sequence.flip_angle < 0, "a negative flip_angle; turn the phase by π instead"),
        (sequence.tr <= 0, "a tr that is not positive"),
        (sequence.te < 0, "a negative te"),
        (sequence.te >= sequence.tr, "te >= tr; the echo must come before the next pulse (both in s)"),
    )
    for broken, what in rules:
        if broken.any():
            raise ValueError(f"{who}: frame {int(np.argmax(broken))} has {what}")


def _read_rows(path: Path) -> list[list[float]]:
    table = read_table(path)
    if table.columns != CSV_HEADER:
        found = ",".join(table.columns)[:80] or "an empty file"
        raise ValueError(f"{path}, line 1: the header must be {','.join(CSV_HEADER)}, got {found!r}")
    if not table.rows:
        raise ValueError(f"{path}: no frames; each row after the header is one frame")
    return [_read_row(row) for row in table.rows]


def _read_row(row: Row) -> list[float]:
    values = []
    for name, cell in row.cells.items():
        try:
            values.append(float(cell))
        except ValueError:
            raise ValueError(f"{row.where}: {name} is not a number: {cell!r}") from None
    flip, _, tr, te = values
    came = ",".join(row.values)
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{row.where}: NaN or infinite values: {came}")
    if flip < 0 or tr <= 0 or te < 0 or te >= tr:
        raise ValueError(f"{row.where}: needs flip_angle_deg >= 0 and 0 <= te_s < tr_s, got {came}")
    return values
