"""The deformable stage: a diffeomorphism built from many small ones, coarse to fine.

Both volumes are looked at from a grid in the middle (`middle`), which moves towards one as far as away from
the other: so neither is preferred, and what takes the one to the other is found with its inverse. In each
step, the force of the similarity (`forces`) is divided by its curvature, both averaged over a small
Gaussian neighbourhood ("fluid"), and bent so that no voxel moves more than a fraction of one: a small
invertible map. Steps have momentum, so that what many of them agree upon, the smooth part, is found first.
Both fields are composed with the step and smoothed a little ("diffusion"). No exponential, no backward pass:
one step costs some interpolations, running sums and smoothings.

References
----------
Vercauteren et al., Diffeomorphic demons, NeuroImage 45, 2009, doi:10.1016/j.neuroimage.2008.10.040.
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal. 12,
2008, doi:10.1016/j.media.2007.06.004.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invlearn.registration import cpu
from invlearn.registration.fields import compose, jacobian_determinant, resize, warp
from invlearn.registration.forces import ForceOf, force_of
from invlearn.registration.harmonise import foreground, harmonise
from invlearn.registration.middle import Middle, undone
from invlearn.registration.similarity import check_name
from invlearn.registration.smoothing import halvings, shrink, shrink_mask, smooth

#: Steps on the grids from the finest to coarser ones; the last counts for all that are coarser still.
_ITERATIONS = (28, 15, 40)
_COARSEST = 32  # voxels along the longest edge
_MARGIN = 10  # voxels around the rest, within which the field fades out
_ROOM = 0.85  # of the roughness allowed may be used up on coarse grids: the finest wants its share
_LOOK = 2  # steps between looks at the roughness on coarse grids
_PATIENCE = 10  # steps over which a level must gain something
_REUSE = 4  # steps with one look at the windows of local correlation, the most expensive part


@dataclass(frozen=True)
class Settings:
    """How the deformable stage moves.

    Attributes
    ----------
    levels
        Grids, each half as fine as the next; fewer for small volumes.
    radius
        Of the windows of local correlation, in voxels of each grid.
    fluid
        Standard deviation of the smoothing of every step, in voxels.
    diffusion
        Standard deviation of the smoothing of both fields after every step, in voxels of the finest grid.
    coarse_diffusion
        The same on coarser grids, in their voxels: large deformations are to be smooth.
    coarsest_diffusion
        The same on coarser grids of at most 32 voxels along every edge: a window of local correlation spans
        much of an object there, and says little of what differs within it.
    momentum
        Share of the step before that is added to a step.
    damping
        Added to the curvature, as a multiple of its mean: larger makes shorter steps where contrast is low.
    largest_step
        No voxel moves farther in one step, in voxels, before momentum; the other way in the other volume.
    tolerance
        A level ends when the similarity gained less than this share of its range in ten steps.
    roughest
        It ends, too, when the standard deviation of ln |J| over what is object in both volumes has reached
        this, as seen from the middle; seen from either volume, it is some twentieth less.
    """

    levels: int = 4
    radius: int = 4
    fluid: float = 0.6
    diffusion: float = 0.68
    coarse_diffusion: float = 1.2
    coarsest_diffusion: float = 1.5
    momentum: float = 0.5
    damping: float = 1.0
    largest_step: float = 0.5
    tolerance: float = 1e-3
    roughest: float = 0.355

    def __post_init__(self) -> None:
        if self.levels < 1 or self.radius < 1:
            raise ValueError(f"levels and radius are at least 1, got {self.levels} and {self.radius}")
        smoothing = (self.fluid, self.diffusion, self.coarse_diffusion, self.coarsest_diffusion)
        if min(*smoothing, self.tolerance) < 0 or self.damping <= 0:
            raise ValueError(
                "fluid, the diffusions and tolerance are not negative and damping is positive, got "
                f"{', '.join(map(str, smoothing))}, {self.tolerance} and {self.damping}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"the momentum is a share from 0 and below 1, got {self.momentum}")
        if self.roughest <= 0:
            raise ValueError(f"the roughest field allowed has a positive sd of ln |J|, got {self.roughest}")
        if not 0 < self.largest_step < 1:
            raise ValueError(f"the largest step lies between 0 and 1 voxel, got {self.largest_step}")


#: Of similarities whose force wants other smoothing than local correlation's: that of mutual information
#: comes from the whole volume, that of squares from one voxel.
DEFAULTS = {
    "mi": Settings(fluid=1.5, diffusion=0.8),
    "mse": Settings(coarse_diffusion=0.9, coarsest_diffusion=0.9),
}


@dataclass(frozen=True, eq=False)
class Deformation:
    """What the deformable stage found.

    Attributes
    ----------
    field
        ``(3, D, H, W)`` in voxels of the fixed grid, pull-back.
    inverse
        What undoes it, on the same grid.
    history
        For every grid, coarse to fine: its shape and the similarity at every step.
    converged
        Whether the finest grid gained less than the tolerance at the end.
    middle
        What the two were joined from, if they were and nothing has gone before.
    cpu_seconds
        Processor time of all threads; seconds is the time on the wall.
    """

    field: Float[Tensor, "3 D H W"]
    inverse: Float[Tensor, "3 D H W"]
    history: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]
    converged: bool
    middle: Middle | None = None
    cpu_seconds: float = 0.0
    seconds: float = 0.0


class Stepper:
    """Steps of one level: a force made into a small invertible displacement.

    Parameters
    ----------
    shape
        Of the level's grid.
    like
        Its dtype and device are used.
    spacing
        Relative distance of voxels along the three axes; the least is 1.
    settings
        See there.
    finest
        Whether this is the finest level.
    """

    def __init__(
        self,
        shape: Sequence[int],
        like: Tensor,
        spacing: Sequence[float],
        settings: Settings,
        finest: bool = True,
    ) -> None:
        self.settings = settings
        self.fluid = [settings.fluid / s for s in spacing]
        coarse = settings.coarsest_diffusion if max(shape) <= _COARSEST else settings.coarse_diffusion
        diffusion = settings.diffusion if finest else coarse
        self.diffusion = [diffusion / s for s in spacing]
        self.largest = [settings.largest_step / s for s in spacing]
        self.force = like.new_empty((4, *shape))
        self.step = like.new_zeros((3, *shape))
        self._damping = 0.0

    def __call__(
        self, force: ForceOf, fixed: Float[Tensor, "D H W"], moving: Float[Tensor, "D H W"]
    ) -> float:
        """The similarity; `self.step` becomes the displacement in the moving volume that raises it."""
        value = force(fixed, moving, self.force)
        curvature = self.force[3]
        if self._damping == 0:  # measured once a level: a fixed yardstick lets the steps die out
            self._damping = (
                self.settings.damping * float(curvature.sum()) / max(1, int((curvature > 0).sum()))
            )
        smooth(self.force, self.fluid, self.force)
        if self._damping == 0:  # nothing pulls anywhere
            self.step.zero_()
        elif cpu.serves(self.force):
            cpu.limited_step(self.force, self.step, self._damping, self.largest, self.settings.momentum)
        else:
            step = self.force[:3] / (self.force[3] + self._damping)
            limits = step.new_tensor(self.largest).reshape(3, 1, 1, 1)
            step /= (1 + (step / limits).square().sum(0)).sqrt()
            self.step.mul_(self.settings.momentum).add_(step)
        return value


def _settled(values: Sequence[float], tolerance: float) -> bool:
    """Whether the last steps gained next to nothing of what the level has gained in all."""
    if len(values) <= _PATIENCE:
        return False
    gain = max(values[-_PATIENCE:]) - max(values[:-_PATIENCE])
    return gain <= tolerance * max(max(values) - values[0], 1e-3 * abs(values[0]))


def _level(
    pair: tuple[Tensor, Tensor],
    middle: Middle,
    spacing: Sequence[float],
    steps: int,
    similarity: str,
    settings: Settings,
    finest: bool,
    mask: Tensor | None,
) -> tuple[list[float], bool]:
    """Climb on one grid: `middle` moves."""
    force = force_of(similarity, pair[0], settings.radius, spacing, _REUSE, mask)
    stepper = Stepper(pair[0].shape, pair[0], spacing, settings, finest)
    ours, theirs = map(foreground, middle.look(*pair))
    object_ = ours & theirs if bool((ours & theirs).any()) else ours | theirs
    if mask is not None:
        object_ &= mask
    values: list[float] = []
    roughest = settings.roughest * (1 if finest else _ROOM)
    rough = middle.roughness(object_)
    for k in range(steps):
        if rough >= roughest:
            return values, True
        values.append(stepper(force, *middle.look(*pair)))
        middle.go(stepper.step, stepper.diffusion)
        if finest or k % _LOOK == 1:
            before, rough = rough, middle.roughness(object_)
            if rough > roughest:  # the last step is cut, so that all pairs end equally rough
                middle.shorten((roughest - before) / (rough - before))
                return values, True
        if _settled(values, settings.tolerance):
            return values, True
    return values, False


def _steps(iterations: int | Sequence[int] | None, levels: int) -> list[int]:
    """Steps of every level, coarse to fine."""
    if iterations is None:
        known = list(_ITERATIONS)
    elif isinstance(iterations, int):
        known = [iterations]
    else:
        known = list(reversed(iterations))
    if not known or min(known) < 0:
        raise ValueError(f"iterations are numbers of steps from 0, coarse to fine, got {iterations}")
    return [known[min(k, len(known) - 1)] for k in range(levels)][::-1]


@torch.no_grad()
def optimise(
    fixed: Float[Tensor, "D H W"],
    moving: Float[Tensor, "d h w"],
    *,
    similarity: str = "lncc",
    iterations: int | Sequence[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    settings: Settings | None = None,
    initial: Float[Tensor, "3 D H W"] | None = None,
    one_contrast: bool = False,
    mask: Bool[Tensor, "_ _ _"] | None = None,
) -> Deformation:
    """Find the field that makes the moving volume match the fixed one, both on one grid.

    Parameters
    ----------
    fixed, moving
        Of one shape, finite; float32 on a processor takes the compiled kernels.
    similarity
        `lncc`, `mse`, `mi` or `mind`.
    iterations
        Steps at most: one number for every level, or one a level from coarse to fine (the first serves
        for coarser ones too); None takes the default of 40, 15 and 28.
    spacing
        Distance of voxels along the three axes, in any unit.
    settings
        How it moves; None takes the defaults, those of the similarity where it has its own (`DEFAULTS`).
    initial
        A field in voxels to start from, such as a network's prediction.
    one_contrast
        Whether the brightness of one volume is brought to that of the other (`harmonise`) on every grid but
        the first, by what is aligned so far.
    mask
        Where to compare, on the fixed grid; None: everywhere.

    Returns
    -------
    Deformation
        The field and its inverse, free of folds.

    Raises
    ------
    ValueError
        Volumes of two shapes or not finite; an unknown name; a mask of another shape, or of nothing.
    """
    check_name(similarity)
    settings = settings or DEFAULTS.get(similarity, Settings())
    if fixed.shape != moving.shape or fixed.ndim != 3:
        raise ValueError(
            f"optimise takes two volumes (D, H, W) on one grid, got {tuple(fixed.shape)} and "
            f"{tuple(moving.shape)}; register resamples volumes on different grids"
        )
    if not bool(torch.isfinite(fixed).all() and torch.isfinite(moving).all()):
        raise ValueError("optimise takes finite volumes; replace NaN and infinite voxels first")
    start = time.process_time(), time.perf_counter()
    if initial is not None:
        initial = initial.to(fixed)
        moving = warp(moving, initial)
    whole, window = fixed.shape, _window(fixed, moving)
    fixed, moving = fixed[window].contiguous(), moving[window].contiguous()
    mask = None if mask is None else _checked_mask(mask, whole)[window]
    if mask is not None and not bool(mask.any()):
        raise ValueError("the mask holds nothing of the two objects: give another one, or none")
    grids = halvings(fixed.shape, spacing, settings.levels)
    middle, last = Middle.at_rest(shrink(fixed[None], grids[0])[0]), grids[0]
    history, converged = [], False
    for factors, steps in zip(grids, _steps(iterations, len(grids)), strict=True):
        f, m = (shrink(x[None], factors)[0] for x in (fixed, moving))
        if last is not factors:
            middle = middle.changed(functools.partial(_finer, factors=last, target=factors, shape=f.shape))
            if one_contrast:
                here = [s * k for s, k in zip(spacing, factors, strict=True)]
                f, m = harmonise(f, m, here, (middle.to_fixed, middle.to_moving))
        last = factors
        if factors is grids[-1]:
            del fixed, moving  # their room is wanted
        if steps:
            apart, finest = _relative(spacing, factors, f.shape), factors is grids[-1]
            within = None if mask is None else middle.seen(shrink_mask(mask, factors))
            values, converged = _level((f, m), middle, apart, steps, similarity, settings, finest, within)
            history.append((tuple(f.shape), tuple(values)))
    middle = middle.changed(functools.partial(_embedded, window=window, shape=whole))
    field, back = middle.joined()
    if initial is not None:
        field, back = compose(initial, field), compose(back, undone(initial))
    return Deformation(
        unfold(field),
        unfold(back),
        tuple(history),
        converged,
        middle if initial is None else None,
        time.process_time() - start[0],
        time.perf_counter() - start[1],
    )


def _checked_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(
            f"the mask lies on the fixed grid, {tuple(shape)}, got {tuple(mask.shape)}; resample it first"
        )
    return mask


def _window(fixed: Tensor, moving: Tensor) -> tuple[slice, ...]:
    """The box beyond which both volumes are flat background, with a margin: nothing pulls out there."""
    busy = foreground(fixed) | foreground(moving)
    window = []
    for axis, n in enumerate(fixed.shape):
        at = busy.any((axis + 1) % 3, keepdim=True).any((axis + 2) % 3, keepdim=True).flatten().nonzero()
        low, high = (int(at.min()), int(at.max())) if len(at) else (0, n - 1)
        window.append(slice(max(0, low - _MARGIN), min(n, high + _MARGIN + 1)))
    return tuple(window)


def _embedded(u: Tensor, window: tuple[slice, ...], shape: Sequence[int]) -> Tensor:
    """The window's field in the whole grid, faded out within the margin."""
    for axis, (cut, n) in enumerate(zip(window, shape, strict=True)):
        size = cut.stop - cut.start
        at = torch.arange(size, dtype=u.dtype, device=u.device)
        fade = torch.ones_like(at)
        if cut.start > 0:
            fade = torch.minimum(fade, at / _MARGIN)
        if cut.stop < n:
            fade = torch.minimum(fade, (size - 1 - at) / _MARGIN)
        view = [1, 1, 1, 1]
        view[axis + 1] = size
        u = u * (fade**2 * (3 - 2 * fade)).reshape(view)
    whole = u.new_zeros((3, *shape))
    whole[(slice(None), *window)] = u
    return whole


def _finer(u: Tensor, factors: Sequence[int], target: Sequence[int], shape: Sequence[int]) -> Tensor:
    """A coarse grid's field on a finer one; the last coarse blocks may reach beyond it."""
    whole = [n * f // t for n, f, t in zip(u.shape[1:], factors, target, strict=True)]
    d, h, w = shape
    return resize(u, (whole[0], whole[1], whole[2]))[:, :d, :h, :w].contiguous()


def _relative(spacing: Sequence[float], factors: Sequence[int], shape: Sequence[int]) -> list[float]:
    """Distances of voxels in units of the smallest along an axis that has several voxels."""
    here = [s * k for s, k in zip(spacing, factors, strict=True)]
    several = [h for h, n in zip(here, shape, strict=True) if n > 1]
    return [max(1.0, h / min(several or here)) for h in here]


def unfold(u: Float[Tensor, "3 D H W"], least: float = 0.01, rounds: int = 50) -> Float[Tensor, "3 D H W"]:
    """Smooth a field where its Jacobian determinant is below `least`, until it is nowhere.

    Small invertible steps hardly ever fold; where interpolation and smoothing together have, the
    neighbourhood is blended with its Gaussian average, wider every time.

    Parameters
    ----------
    u
        In voxels.
    least
        What the determinant shall exceed.
    rounds
        Afterwards the whole field is smoothed until it holds.

    Returns
    -------
    Tensor
        The field itself where nothing folds.
    """
    for k in range(rounds):
        bad = jacobian_determinant(u) < least
        if not bad.any():
            return u
        reach = 1.0 + 0.5 * k
        weight = smooth(bad[None].to(u.dtype), (reach,) * 3)
        weight = (weight / weight[0][bad].min()).clamp(max=1)
        u = u + weight * (smooth(u, (reach,) * 3) - u)
    while bool((jacobian_determinant(u) < least).any()):
        u = smooth(0.9 * u, (2.0,) * 3)
    return u
