"""From a programme and tensors to the compiled scan and back, without copies of the tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.mri.sequence import PulseProgramme

PARAMETERS = ("t1", "t2", "b1", "b0")


@dataclass(frozen=True)
class Engine:
    """One programme, played for blocks of atoms.

    Attributes
    ----------
    programme
        The pulses.
    off_resonance
        Whether B0 counts; the recursion is complex then.
    names
        Parameters to differentiate by.
    """

    programme: PulseProgramme
    off_resonance: bool = False
    names: tuple[str, ...] = ()

    @property
    def axis(self) -> float | None:
        """Phase (rad) of the frame in which everything is real; None when nothing is."""
        return None if self.off_resonance else self.programme.axis

    @property
    def factor(self) -> complex:
        """What turns the scan's output into Mx + iMy."""
        return -1j * complex(math.cos(self.axis or 0.0), math.sin(self.axis or 0.0))

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """`frames` and `start` of `epg.echoes`, float64."""
        p, axis = self.programme, self.axis
        phase = p.phase - (axis or 0.0)
        rows = [p.flip_angle, p.tr, p.te, np.cos(phase)]
        rows = [*rows, np.sin(phase)] if axis is None else [*rows[:3], np.sign(rows[3])]
        flip, excitation_phase, delay = p.excitation or (0.0, 0.0, 0.0)
        turned = excitation_phase - (axis or 0.0)
        inversion = (0.0, 0.0) if p.inversion_time is None else (p.inversion_time, 2 * p.inversion_efficiency)
        return np.stack(rows), np.array([*inversion, flip, math.cos(turned), math.sin(turned), delay])

    def play(self, atoms: Tensor, states: int, keep: Tensor | None = None) -> Tensor:
        """Output of the scan averaged over the slice, and its derivatives.

        Parameters
        ----------
        atoms
            `(4, atoms)`: T1, T2 (s), B1, B0 (Hz), float32 or float64, on the CPU.
        states
            Orders kept.
        keep
            `(atoms,)`: orders kept of each atom, up to `states`.

        Returns
        -------
        output
            `(1 + names, atoms, frames)`; times `factor` it is Mx + iMy and its derivatives.
        """
        import jax

        from invlearn.physics.mri.bloch.epg import echoes

        dtype = str(atoms.dtype).removeprefix("torch.")
        total: Tensor | None = None
        with jax.enable_x64(atoms.dtype == torch.float64):
            frames, start = (jax.numpy.asarray(table.astype(dtype)) for table in self.tables())
            kept = None if keep is None else jax.dlpack.from_dlpack(keep.to(atoms.dtype))
            for factor, weight in self.programme.slice_profile:
                scaled = torch.stack([atoms[0], atoms[1], factor * atoms[2], atoms[3]])
                signal, slopes = echoes(
                    frames,
                    start,
                    jax.dlpack.from_dlpack(scaled),
                    kept,
                    states=states,
                    dephasing=self.programme.dephasing,
                    derivatives=self.names,
                )
                part = torch.from_dlpack(signal)[None]
                if self.names:
                    chain = torch.tensor(
                        [factor if n == "b1" else 1.0 for n in self.names], dtype=atoms.dtype
                    )
                    part = torch.cat([part, torch.from_dlpack(slopes) * chain[:, None, None]])
                total = weight * part if total is None else total.add(part, alpha=weight)
        assert total is not None
        return total.transpose(1, 2)
