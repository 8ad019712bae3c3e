"""Sampling density of a trajectory, to be divided out of an adjoint transform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.nufft import NonUniformFFT

#: Weights need no more digits than the iteration gives them.
_EPS = 1e-4


@torch.no_grad()
def pipe_menon(
    trajectory: Tensor | np.ndarray,
    shape: Sequence[int],
    iterations: int = 20,
    *,
    backend: str | None = None,
) -> Tensor | np.ndarray:
    """Density compensation weights w, for which AᴴWA comes close to the identity.

    The fixed point of w ← w / (w * ψ): each sample counts less the more weight lies within one cycle per
    field of view. ψ(k) = prod_a N_a sinc²(N_a k_a), the transform of the field of view's autocorrelation, is
    positive and weighs errors within the field of view.

    Parameters
    ----------
    trajectory
        `(*T, M, d)` in cycles per pixel, each of the *T trajectories by itself.
    shape
        Shape of the image, `([D,] H, W)`.
    iterations
        Number of steps, from w = 1.
    backend
        As for `NonUniformFFT`.

    Returns
    -------
    `(*T, M)`, positive, of the trajectory's precision. On the full Cartesian grid w = 1 / number of pixels.

    Raises
    ------
    ValueError
        As `NonUniformFFT`; less than one iteration.

    References
    ----------
    J. G. Pipe, P. Menon, "Sampling density compensation in MRI: rationale and an iterative numerical
    solution", Magn. Reson. Med. 41 (1999), DOI 10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V.
    """
    if iterations < 1:
        raise ValueError(f"pipe_menon: iterations={iterations}; at least one is needed")
    transform = NonUniformFFT(trajectory, [2 * n for n in shape], eps=_EPS, backend=backend)
    points = transform.trajectory
    window = points.new_ones(())
    for axis, n in enumerate(shape):
        r = torch.arange(2 * n, dtype=points.dtype, device=points.device) - n
        window = window * (1 - r.abs() / n).reshape(-1, *[1] * (len(shape) - 1 - axis))
    weights = points.new_ones(points.shape[:-1])
    for _ in range(iterations):
        # real and positive but for the transform's own error
        weights = weights / transform(window * transform.adjoint(weights)).abs()
    return weights.cpu().numpy() if isinstance(trajectory, np.ndarray) else weights
