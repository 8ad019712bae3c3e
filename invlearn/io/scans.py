"""Magnetic resonance raw data in memory: k-space with its trajectory, frame by frame.

Trajectories are in cycles per pixel, (kx, ky[, kz]), where x runs along the columns and the signal
at k is Σ_r ρ(r) e^(-2πi k·r) with r in pixels counted from the pixel N//2; images are `(H, W)` or
`(D, H, W)`. Times are in seconds, angles in radians, lengths in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np


@dataclass(frozen=True, eq=False)
class Scan:
    """Multi-coil k-space with its trajectory: all readouts of all frames, one after another.

    Attributes
    ----------
    kspace
        Samples `(C, N)`, complex64.
    trajectory
        Where they lie, `(N, d)` float64 in cycles per pixel, or None when the file does not say.
    frame
        The frame of every sample, `(N,)` integers in 0 … frames - 1.
    frames
        Number of frames (pulses of the sequence); frames without samples are allowed.
    shape
        The image, `(H, W)` or `(D, H, W)` pixels.
    field_of_view
        Its extent in metres, in the order of `shape`, or None when unknown.
    slice_thickness
        Thickness of a two-dimensional image in metres, or None when unknown.
    flip_angle, tr, te
        Nominal flip angles (rad), repetition and echo times (s): `(frames,)`, or `(1,)` for one
        value for all, or None when unknown.
    inversion_time
        Inversion time (s), or None when there is no inversion or it is unknown.
    readouts
        Number of samples of each readout, in the order of the samples; found from `frame` when it
        is not given (one readout for each run of equal frames).

    Raises
    ------
    ValueError
        Lengths that do not agree, no coils, NaN or infinite samples, a trajectory outside
        ±0.5 cycles per pixel, frames out of range.
    """

    kspace: np.ndarray
    trajectory: np.ndarray | None
    frame: np.ndarray
    frames: int
    shape: tuple[int, ...]
    field_of_view: tuple[float, ...] | None = None
    slice_thickness: float | None = None
    flip_angle: np.ndarray | None = None
    tr: np.ndarray | None = None
    te: np.ndarray | None = None
    inversion_time: float | None = None
    readouts: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        put("kspace", np.ascontiguousarray(self.kspace, np.complex64))
        put("frame", np.asarray(self.frame, np.int64))
        put("shape", tuple(int(s) for s in self.shape))
        if self.kspace.ndim != 2 or 0 in self.kspace.shape:
            raise ValueError(
                f"k-space must be (coils, samples) with at least one of each, got {self.kspace.shape}"
            )
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"a scan's image is (H, W) or (D, H, W), got {self.shape}")
        self._check_frames()
        put("readouts", self._checked_readouts())
        self._check_kspace()
        if self.trajectory is not None:
            put("trajectory", self._checked_trajectory(np.asarray(self.trajectory, np.float64)))
        if self.field_of_view is not None:
            put("field_of_view", tuple(float(f) for f in self.field_of_view))
            if len(self.field_of_view) != len(self.shape) or not min(self.field_of_view) > 0:
                raise ValueError(
                    f"the field of view needs {len(self.shape)} positive lengths in metres, "
                    f"in the order of the shape {self.shape}; got {self.field_of_view}"
                )
        for name in ("flip_angle", "tr", "te"):
            if getattr(self, name) is not None:
                put(name, self._checked_timing(name))

    @property
    def coils(self) -> int:
        """Number of receive channels C."""
        return self.kspace.shape[0]

    @property
    def samples(self) -> int:
        """Number of samples N of one channel."""
        return self.kspace.shape[1]

    @property
    def readout(self) -> np.ndarray:
        """The index of the readout of every sample, `(N,)`."""
        assert self.readouts is not None
        return np.repeat(np.arange(len(self.readouts)), self.readouts)

    def _check_frames(self) -> None:
        if self.frame.shape != (self.samples,):
            raise ValueError(f"frame must be ({self.samples},), one for each sample; got {self.frame.shape}")
        if self.frame.min() < 0 or self.frame.max() >= self.frames:
            raise ValueError(
                f"the frame indices run from {self.frame.min()} to {self.frame.max()}, "
                f"but there are {self.frames} frames (0 to {self.frames - 1})"
            )

    def _checked_readouts(self) -> np.ndarray:
        if self.readouts is None:
            edges = np.flatnonzero(np.diff(self.frame)) + 1
            return np.diff([0, *edges, self.samples])
        readouts = np.asarray(self.readouts, np.int64)
        if readouts.ndim != 1 or readouts.sum() != self.samples or readouts.min() < 1:
            raise ValueError(
                f"the readouts have {int(readouts.sum())} samples together, k-space {self.samples} a coil"
            )
        return readouts

    def _check_kspace(self) -> None:
        bad = ~np.isfinite(self.kspace).all(0)
        if bad.any():
            first = int(self.readout[bad.argmax()])
            raise ValueError(
                f"k-space has {int(bad.sum())} samples that are NaN or infinite, the first in readout "
                f"{first} (frame {int(self.frame[bad.argmax()])}); remove or repeat these readouts"
            )

    def _checked_trajectory(self, trajectory: np.ndarray) -> np.ndarray:
        if trajectory.shape != (self.samples, len(self.shape)):
            raise ValueError(
                f"k-space has {self.samples} samples a coil and the image {len(self.shape)} axes, so the "
                f"trajectory must be ({self.samples}, {len(self.shape)}); got {trajectory.shape}"
            )
        require_cycles_per_pixel(trajectory, "the trajectory", self.shape, self.field_of_view)
        return trajectory

    def _checked_timing(self, name: str) -> np.ndarray:
        values = np.atleast_1d(np.asarray(getattr(self, name), np.float64))
        if values.shape not in ((1,), (self.frames,)):
            raise ValueError(
                f"{name} needs one value, or one for each of {self.frames} frames; got {values.shape}"
            )
        if not np.isfinite(values).all() or (name != "flip_angle" and values.min() < 0):
            raise ValueError(f"{name} has negative, NaN or infinite values")
        return values


def require_cycles_per_pixel(
    trajectory: np.ndarray,
    who: str,
    shape: tuple[int, ...] | None = None,
    field_of_view: tuple[float, ...] | None = None,
) -> None:
    """Refuse a trajectory that is not in cycles per pixel, with the unit it probably has.

    Parameters
    ----------
    trajectory
        `(..., d)`, ordered (kx, ky[, kz]).
    who
        What it is called in the message.
    shape, field_of_view
        The image and its extent (m), in the order of the image's axes, to recognise other units.

    Raises
    ------
    ValueError
        NaN or infinite entries, or an entry beyond ±0.5 by more than rounding (1e-5).
    """
    if not np.isfinite(trajectory).all():
        bad = int((~np.isfinite(trajectory)).any(-1).sum())
        raise ValueError(f"{who} has {bad} points that are NaN or infinite")
    extreme = float(np.abs(trajectory).max(initial=0.0))
    if extreme <= 0.5 + 1e-5:
        return
    raise ValueError(
        f"{who} lies outside the field of view: it reaches {extreme:.6g}, but cycles per pixel end "
        f"at ±0.5; {_probable_unit(trajectory, shape, field_of_view)}"
    )


def _probable_unit(
    trajectory: np.ndarray, shape: tuple[int, ...] | None, field_of_view: tuple[float, ...] | None
) -> str:
    axes = trajectory.shape[-1]
    largest = np.abs(trajectory).reshape(-1, axes).max(0) / 1.001

    def fits(*ends: float) -> bool:
        return bool((largest <= ends[::-1][:axes]).all())

    if fits(*[math.pi] * axes):
        return "is it in radians per pixel? then divide it by 2π"
    if shape is None:
        return "is it in cycles per field of view (divide by the matrix size) or 1/m (times the pixel size)?"
    if fits(*(s / 2 for s in shape)):
        return "is it in cycles per field of view? then divide it by the matrix size"
    if field_of_view is None or fits(*(s / f / 2 for s, f in zip(shape, field_of_view, strict=True))):
        return "is it in 1/m? then multiply it by the pixel size in metres"
    return "check its unit and the matrix size"
