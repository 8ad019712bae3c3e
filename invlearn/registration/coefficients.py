"""Another deformable stage: a stationary velocity in wavelet coefficients, its scales switched on in turn.

The decoder of a wavelet registration network without the network: coefficients are fitted to one pair by
gradient descent, through the inverse transform and the exponential. The low-pass band alone moves first;
one scale of details after another joins it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invlearn.registration.fields import compose, exponential, resize, warp
from invlearn.registration.middle import undone
from invlearn.registration.optimise import Deformation, unfold
from invlearn.registration.regularise import gradient_energy
from invlearn.registration.similarity import CLIMBED, check_name, seen
from invlearn.registration.smoothing import shrink, shrink_mask
from invlearn.wavelets import filter_bank, wavedec, waverec

_STEPS = 40  # a stage
_SQUARINGS = 6


@dataclass(frozen=True)
class Coefficients:
    """The other parameterisation of the deformable stage: a stationary velocity in wavelet coefficients.

    Attributes
    ----------
    wavelet
        Any discrete wavelet of PyWavelets.
    scales
        Levels of the transform of the velocity; there is a stage more, the low-pass band alone first.
    smoothness
        Weight of the velocity's gradient energy against the similarity.
    rate
        Step length of Adam, in voxels of the half grid.
    """

    wavelet: str = "haar"
    scales: int = 3
    smoothness: float = 0.5
    rate: float = 0.1

    def __post_init__(self) -> None:
        filter_bank(self.wavelet)
        if self.scales < 1:
            raise ValueError(f"the velocity has at least one scale of wavelets, got {self.scales}")
        if self.smoothness < 0 or self.rate <= 0:
            raise ValueError(
                f"smoothness is not negative and the rate positive, got {self.smoothness} and {self.rate}"
            )


def optimise_coefficients(
    fixed: Float[Tensor, "D H W"],
    moving: Float[Tensor, "D H W"],
    *,
    similarity: str = "lncc",
    iterations: int | Sequence[int] | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    settings: Coefficients | None = None,
    initial: Float[Tensor, "3 D H W"] | None = None,
    mask: Bool[Tensor, "D H W"] | None = None,
) -> Deformation:
    """Fit the wavelet coefficients of a velocity whose flow makes the moving volume match the fixed one.

    The velocity lives on a grid half as fine as the volumes, as in WiNet.

    Parameters
    ----------
    fixed, moving
        Of one shape, finite.
    similarity
        `lncc`, `mse`, `mi` or `mind`.
    iterations
        Steps of Adam for each of the ``scales + 1`` stages: one number, or one a stage, coarse to fine; None
        takes 40.
    spacing
        Distance of voxels along the three axes, in any unit: roughness counts per length.
    settings
        None takes the defaults.
    initial
        A field in voxels to start from, such as a network's prediction.
    mask
        Where to compare, on the fixed grid; None: everywhere.

    Returns
    -------
    Deformation
        The field exp(v), after `initial`, and its inverse, free of folds; its history has an entry a stage.

    References
    ----------
    Cheng et al., WiNet: wavelet-based incremental learning for efficient medical image registration,
    MICCAI 2024, arXiv:2407.13426.
    """
    check_name(similarity)
    settings = settings or Coefficients()
    steps = _stages(iterations, settings.scales + 1)
    start = time.process_time(), time.perf_counter()
    if initial is not None:
        initial = initial.to(fixed)
        moving = warp(moving, initial)
    factors = [2 if n > 1 else 1 for n in fixed.shape]
    f, m = (shrink(x[None], factors)[0] for x in (fixed, moving))
    half_mask = None if mask is None else shrink_mask(mask, factors)
    least = min(spacing)
    apart = (spacing[0] / least, spacing[1] / least, spacing[2] / least)
    bands, history = _at_rest(f, settings), []
    climbed = CLIMBED[similarity]
    with torch.enable_grad():
        for stage, count in enumerate(steps):
            active = [x.requires_grad_() for scale in bands[: stage + 1] for x in scale.values()]
            descent = torch.optim.Adam(active, lr=settings.rate)
            values = []
            for _ in range(count):
                descent.zero_grad()
                v = _velocity(bands, settings.wavelet, f.shape)
                warped = warp(m, exponential(v, _SQUARINGS))
                alike = climbed(seen(f, half_mask), seen(warped, half_mask))
                (settings.smoothness * gradient_energy(v, apart) - alike).backward()
                descent.step()
                values.append(float(alike.detach()))
            history.append((tuple(f.shape), tuple(values)))
    with torch.no_grad():
        half = exponential(_velocity(bands, settings.wavelet, f.shape))
        d, h, w = (n * (2 if k > 1 else 1) for n, k in zip(f.shape, fixed.shape, strict=True))
        field = resize(half, (d, h, w))
        field = field[:, : fixed.shape[0], : fixed.shape[1], : fixed.shape[2]].contiguous()
        field = unfold(field if initial is None else compose(initial, field))
        back = unfold(undone(field))
    spent = time.process_time() - start[0], time.perf_counter() - start[1]
    return Deformation(field, back, tuple(history), False, None, *spent)


def _stages(iterations: int | Sequence[int] | None, stages: int) -> list[int]:
    """Steps of every stage."""
    if iterations is None or isinstance(iterations, int):
        steps = [_STEPS if iterations is None else iterations] * stages
    else:
        steps = list(iterations)
    if len(steps) != stages or min(steps) < 0:
        raise ValueError(f"{stages - 1} scales take {stages} numbers of steps from 0, got {iterations}")
    return steps


def _at_rest(like: Tensor, settings: Coefficients) -> list[dict[str, Tensor]]:
    """The bands of a velocity of zero, coarse to fine; sizes are padded to whole blocks."""
    block = 2**settings.scales
    sizes = [n + -n % block for n in like.shape]
    low, *details = wavedec(like.new_zeros((3, *sizes)), settings.wavelet, ndim=3, level=settings.scales)
    return [{"a": low}, *details]


def _velocity(bands: Sequence[dict[str, Tensor]], wavelet: str, shape: Sequence[int]) -> Tensor:
    d, h, w = shape
    return waverec([bands[0]["a"], *bands[1:]], wavelet, ndim=3)[:, :d, :h, :w]
