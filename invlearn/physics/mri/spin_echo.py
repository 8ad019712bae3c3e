"""Spin echo and turbo spin echo: one excitation, a train of refocusing pulses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from invlearn.physics.mri.sequence import (
    PulseProgramme,
    as_slice_profile,
    check_inversion,
    frozen_train,
    profile_pairs,
)


@dataclass(frozen=True, eq=False)
class TurboSpinEcho:
    """An excitation and a train of refocusing pulses between equal crushers, one echo after each.

    The excitation is half an echo spacing before the first refocusing pulse, each echo half an echo
    spacing after its pulse. One refocusing pulse is a spin echo.

    Parameters
    ----------
    flip_angle
        Of the refocusing pulses, `(echoes,)` in rad, not negative.
    echo_spacing
        In s.
    phase
        Of the refocusing pulses, `(echoes,)` in rad; None is π/2 for all (Carr, Purcell, Meiboom and
        Gill).
    excitation_angle, excitation_phase
        In rad.
    inversion_time, inversion_efficiency, slice_profile
        As for `FingerprintSequence`; the inversion lies before the excitation.

    Raises
    ------
    ValueError
        No echoes, trains of different lengths, NaN, negative angles, a spacing that is not positive.

    References
    ----------
    Hennig, Concepts Magn. Reson. 3:125 (1991), doi:10.1002/cmr.1820030302.
    """

    flip_angle: np.ndarray
    echo_spacing: float
    phase: np.ndarray | None = None
    excitation_angle: float = math.pi / 2
    excitation_phase: float = 0.0
    inversion_time: float | None = None
    inversion_efficiency: float = 1.0
    slice_profile: np.ndarray | None = None

    def __post_init__(self) -> None:
        who = "TurboSpinEcho"
        flip = frozen_train(self.flip_angle, f"{who}: flip_angle")
        phase = np.full(len(flip), math.pi / 2) if self.phase is None else self.phase
        phase = frozen_train(phase, f"{who}: phase")
        if len(phase) != len(flip):
            raise ValueError(f"{who} needs one phase an echo, got {len(phase)} for {len(flip)} flip angles")
        if not (math.isfinite(self.echo_spacing) and self.echo_spacing > 0):
            raise ValueError(f"{who}: echo_spacing must be positive seconds, got {self.echo_spacing}")
        excitation = (self.excitation_angle, self.excitation_phase)
        if (flip < 0).any() or not all(map(math.isfinite, excitation)) or self.excitation_angle < 0:
            raise ValueError(
                f"{who}: flip angles must be finite and not negative; turn the phase by π instead"
            )
        check_inversion(self.inversion_time, self.inversion_efficiency, who)
        object.__setattr__(self, "flip_angle", flip)
        object.__setattr__(self, "phase", phase)
        object.__setattr__(self, "slice_profile", as_slice_profile(self.slice_profile, who))

    @property
    def frames(self) -> int:
        """Number of echoes."""
        return len(self.flip_angle)

    def programme(self) -> PulseProgramme:
        """What the simulator plays."""
        assert self.phase is not None
        return PulseProgramme(
            flip_angle=self.flip_angle,
            phase=self.phase,
            tr=np.full(self.frames, self.echo_spacing),
            te=np.full(self.frames, self.echo_spacing / 2),
            dephasing=(1, 1),
            inversion_time=self.inversion_time,
            inversion_efficiency=self.inversion_efficiency,
            excitation=(self.excitation_angle, self.excitation_phase, self.echo_spacing / 2),
            slice_profile=profile_pairs(self.slice_profile),
        )
