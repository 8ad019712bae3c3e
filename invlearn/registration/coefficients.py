"""Another deformable stage: a stationary velocity in wavelet coefficients, its scales switched on in turn.

The decoder of a wavelet registration network without the network: coefficients are fitted to one pair by
gradient descent, through the inverse transform and the exponential. The low-pass band alone moves first;
one scale of details after another joins it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from invlearn.registration.fields import exponential, resize, warp
from invlearn.registration.optimise import Deformation, unfold
from invlearn.registration.regularise import gradient_energy
from invlearn.registration.similarity import CLIMBED, check_name
from invlearn.registration.smoothing import shrink
from invlearn.wavelets import wavedec, waverec

_STEPS = 40  # a scale
_SQUARINGS = 6


def optimise_coefficients(
    fixed: Float[Tensor, "D H W"],
    moving: Float[Tensor, "D H W"],
    *,
    similarity: str = "lncc",
    wavelet: str = "haar",
    scales: int = 3,
    iterations: int | Sequence[int] = _STEPS,
    smoothness: float = 0.5,
    rate: float = 0.1,
    initial: Float[Tensor, "3 d h w"] | None = None,
) -> Deformation:
    """Fit the wavelet coefficients of a velocity whose flow makes the moving volume match the fixed one.

    The velocity lives on a grid half as fine as the volumes, as in WiNet.

    Parameters
    ----------
    fixed, moving
        Of one shape, finite.
    similarity
        `lncc`, `mse`, `mi` or `mind`.
    wavelet
        Any discrete wavelet of PyWavelets.
    scales
        Levels of the transform of the velocity.
    iterations
        Steps of Adam for each of the ``scales + 1`` stages: one number, or one a stage, coarse to fine.
    smoothness
        Weight of the velocity's gradient energy against the similarity.
    rate
        Step length of Adam, in voxels of the half grid.
    initial
        A velocity ``(3, d, h, w)`` on the half grid (in its voxels) to start from, such as WiNet's.

    Returns
    -------
    Deformation
        The field exp(v) on the full grid, free of folds; its history has an entry a stage.

    References
    ----------
    Cheng et al., WiNet: wavelet-based incremental learning for efficient medical image registration,
    MICCAI 2024, arXiv:2407.13426.
    """
    check_name(similarity)
    stages = scales + 1
    steps = [iterations] * stages if isinstance(iterations, int) else list(iterations)
    if scales < 1 or len(steps) != stages or min(steps) < 0:
        raise ValueError(f"{scales} scales take {stages} numbers of steps from 0, got {iterations}")
    if smoothness < 0 or rate <= 0:
        raise ValueError(f"smoothness is not negative and the rate positive, got {smoothness} and {rate}")
    start = time.process_time(), time.perf_counter()
    f, m = (shrink(x[None], [2 if n > 1 else 1 for n in x.shape])[0] for x in (fixed, moving))
    v = f.new_zeros((3, *f.shape)) if initial is None else initial.to(f)
    if tuple(v.shape) != (3, *f.shape):
        raise ValueError(
            f"the initial velocity has the shape {tuple(v.shape)}, where {(3, *f.shape)} is needed"
        )
    block = 2**scales  # sizes are padded to whole blocks
    padding = [p for n in reversed(f.shape) for p in (0, -n % block)]
    low, *details = wavedec(torch.nn.functional.pad(v, padding), wavelet, ndim=3, level=scales)
    bands = [{"a": low}, *details]
    climbed, history = CLIMBED[similarity], []
    with torch.enable_grad():
        for stage, count in enumerate(steps):
            active = [x.requires_grad_() for scale in bands[: stage + 1] for x in scale.values()]
            descent = torch.optim.Adam(active, lr=rate)
            values = []
            for _ in range(count):
                descent.zero_grad()
                v = _velocity(bands, wavelet, f.shape)
                alike = climbed(f, warp(m, exponential(v, _SQUARINGS)))
                (smoothness * gradient_energy(v) - alike).backward()
                descent.step()
                values.append(float(alike.detach()))
            history.append((tuple(f.shape), tuple(values)))
    with torch.no_grad():
        half = exponential(_velocity(bands, wavelet, f.shape))
        d, h, w = (n * (2 if k > 1 else 1) for n, k in zip(f.shape, fixed.shape, strict=True))
        grown = resize(half, (d, h, w))
        field = unfold(grown[:, : fixed.shape[0], : fixed.shape[1], : fixed.shape[2]].contiguous())
    spent = time.process_time() - start[0], time.perf_counter() - start[1]
    return Deformation(field, tuple(history), False, *spent)


def _velocity(bands: Sequence[dict[str, Tensor]], wavelet: str, shape: Sequence[int]) -> Tensor:
    d, h, w = shape
    return waverec([bands[0]["a"], *bands[1:]], wavelet, ndim=3)[:, :d, :h, :w]
