"""Flip angles that make the Cramér–Rao bounds small, by their gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.mri.bloch.engine import Engine
from invlearn.physics.mri.sequence import FingerprintSequence


@dataclass(frozen=True)
class Design:
    """What `design_flip_angles` found.

    Attributes
    ----------
    sequence
        The given sequence with other flip angles.
    objective
        The weighted mean of log(std(T) / T) before and after every iteration, the last one its best.
    converged
        Whether the optimiser stopped by itself.
    """

    sequence: FingerprintSequence
    objective: tuple[float, ...]
    converged: bool

    def to_dict(self) -> dict[str, Any]:
        """All fields, the sequence as its own `to_dict`."""
        return asdict(self) | {"sequence": self.sequence.to_dict()}


def design_flip_angles(
    sequence: FingerprintSequence,
    t1: Tensor | np.ndarray,
    t2: Tensor | np.ndarray,
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    largest: float = math.radians(70),
    knots: int = 40,
    states: int = 128,
    iterations: int = 60,
) -> Design:
    """Smooth flip angles with small bounds for some tissues, all else of the sequence unchanged.

    The flip angles are a cubic B-spline with coefficients in 0 … `largest`, hence within it. L-BFGS-B
    (SciPy) minimises the mean over tissues of w1 log(std(T1) / T1) + w2 log(std(T2) / T2), the bounds of
    `crb`; the gradient is exact, reverse mode through the derivatives of the simulation.

    Parameters
    ----------
    sequence
        The start; its flip angles are first approximated by the spline. Pulses about one axis.
    t1, t2
        Tissues, `(tissues,)` in s.
    weights
        w1 and w2, not negative.
    largest
        In rad.
    knots
        Coefficients of the spline, at least 4.
    states
        Orders kept while designing: the design needs no more accuracy than that; `crb` of the result
        does.
    iterations
        At most.

    Raises
    ------
    ValueError
        Pulses about several axes, fewer than 4 knots or more than frames, bad weights.

    References
    ----------
    Zhao et al., IEEE Trans. Med. Imaging 38:844 (2019), arXiv 1710.08062.
    """
    from scipy.optimize import minimize

    if not sequence.real:
        raise ValueError(
            "design_flip_angles takes a sequence whose pulses share one axis (phases equal modulo π)"
        )
    if not 4 <= knots <= sequence.frames:
        raise ValueError(f"design_flip_angles needs 4 to {sequence.frames} (frames) knots, got {knots}")
    if min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"design_flip_angles: weights must be >= 0, not both 0, got {weights}")
    tissues = torch.broadcast_tensors(*(as_tensor(t, "design_flip_angles").double() for t in (t1, t2)))
    basis = _spline(sequence.frames, knots)
    start = np.clip(np.linalg.lstsq(basis, sequence.flip_angle, rcond=None)[0], 0, largest)
    objective = _objective(sequence, basis, torch.stack(tissues).numpy(), weights, states)
    history = [objective(start)[0]]
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, largest)] * knots,
        callback=lambda intermediate_result: history.append(float(intermediate_result.fun)),
        options={"maxiter": iterations},
    )
    flips = np.clip(basis @ found.x, 0, largest)
    return Design(replace(sequence, flip_angle=flips), tuple(history), bool(found.success))


def _spline(frames: int, knots: int) -> np.ndarray:
    """Cubic B-splines over the train, `(frames, knots)`; rows sum to 1."""
    from scipy.interpolate import BSpline

    inner = np.linspace(0, frames - 1, knots - 2)
    padded = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
    return BSpline.design_matrix(np.arange(frames, dtype=np.float64), padded, 3).toarray()


def _objective(
    sequence: FingerprintSequence,
    basis: np.ndarray,
    tissues: np.ndarray,
    weights: tuple[float, float],
    states: int,
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Value and gradient for the spline's coefficients."""
    import jax

    from invlearn.physics.mri.bloch.objective import mean_log_bound

    engine = Engine(sequence.programme())
    factors, slice_weights = np.array(engine.programme.slice_profile).T
    grid = np.ones((len(factors), tissues.shape[1]))
    atoms = np.stack([grid * tissues[0], grid * tissues[1], grid * factors[:, None], 0 * grid])

    def call(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        with jax.enable_x64(True):
            value, gradient = mean_log_bound(
                coefficients,
                basis,
                *engine.tables(),
                atoms,
                slice_weights,
                np.array(weights),
                states=states,
                dephasing=engine.programme.dephasing,
            )
            return float(value), np.asarray(gradient)

    return call
