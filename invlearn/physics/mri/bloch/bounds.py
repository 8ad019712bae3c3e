"""The least standard deviations that a sequence allows: Cramér–Rao bounds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.mri.bloch.simulate import TOLERANCE, PulseSequence, Values, simulate_all


def crb(
    sequence: PulseSequence,
    t1: Values,
    t2: Values,
    b1: Values | None = None,
    b0: Values | None = None,
    *,
    unknown_b1: bool = False,
    tolerance: float = TOLERANCE,
) -> Values:
    """Least standard deviation of unbiased estimates from one voxel's fully sampled frames.

    The voxel gives M0 e^{iφ} s(T1, T2) plus noise, Gaussian with standard deviation σ in the real and in
    the imaginary part of every frame. M0, φ, T1 and T2 are unknown. The bounds are the roots of the
    diagonal of (Re JᴴJ)⁻¹ with J the derivatives of the signal. For pulses about one axis, where the
    signal has one phase, they are those of a real signal with noise σ per frame.

    Parameters
    ----------
    sequence
        A `FingerprintSequence` or `TurboSpinEcho`.
    t1, t2, b1, b0
        As for `simulate`.
    unknown_b1
        Whether B1 is estimated too; otherwise it is known.
    tolerance
        As for `simulate`.

    Returns
    -------
    bounds
        `(*shape, 3)` or, with unknown B1, `(*shape, 4)`: of M0, T1 (s), T2 (s), B1, for σ = M0 = 1;
        float64. T1, T2 and B1 scale with σ / M0, M0 with σ. Infinite where the sequence does not tell.
    """
    bounds = _bounds(
        sequence, (t1, t2, b1, b0), tolerance, ("t1", "t2", "b1") if unknown_b1 else ("t1", "t2")
    )
    return bounds.numpy() if isinstance(t1, np.ndarray) else bounds


def _bounds(
    sequence: PulseSequence, parameters: tuple[object, ...], tolerance: float, names: tuple[str, ...]
) -> Tensor:
    double = tuple(None if v is None else as_tensor(v, "crb").to(torch.float64) for v in parameters)
    signal, slopes = simulate_all(sequence, double, tolerance, None, names)
    # M0, the parameters, and the phase: it counts, and is not reported
    jacobian = torch.cat([signal[None], slopes, 1j * signal[None]]).movedim(0, -2)
    return deviations(torch.view_as_real(jacobian).flatten(-2))[..., :-1]


def deviations(jacobian: Tensor) -> Tensor:
    """Roots of the diagonal of (J Jᵀ)⁻¹ for `(..., parameters, samples)`; infinite for a singular one."""
    scale = jacobian.norm(dim=-1, keepdim=True)  # parameters differ by orders of magnitude
    safe = torch.where(scale > 0, scale, 1.0)
    _, r = torch.linalg.qr((jacobian / safe).transpose(-1, -2))
    diagonal = r.diagonal(dim1=-2, dim2=-1).abs().amin(-1)
    known = (diagonal > 1e-12) & (scale > 0).all(-2)[..., 0]
    eye = torch.eye(r.shape[-1], dtype=r.dtype)
    inverse = torch.linalg.solve_triangular(torch.where(known[..., None, None], r, eye), eye, upper=True)
    return torch.where(known[..., None], inverse.norm(dim=-1) / safe[..., 0], torch.inf)
