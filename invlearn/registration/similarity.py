"""How alike two volumes are: differentiable, over the last three axes, larger is more alike.

``lncc``, ``-mse``, mutual information, ``-mind``: the registration climbs any of them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from invlearn.registration import cpu

_FLAT = 3e-2  # of the image's variance: below it a window has no contrast to speak of


def box(x: Float[Tensor, "*batch D H W"], radius: int | Sequence[int]) -> Float[Tensor, "*batch D H W"]:
    """Sums over windows of ``2 radius + 1`` voxels an axis, cut at the border.

    Running sums: the same few operations a voxel whatever the radius.

    Parameters
    ----------
    x
        The volumes.
    radius
        In voxels, for all axes or for each.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    radii = (radius,) * 3 if isinstance(radius, int) else tuple(radius)
    if len(radii) != 3 or min(radii) < 0:
        raise ValueError(f"a window's radius is one number of voxels from 0, or three, got {radius}")
    if cpu.serves(x):
        flat = x.reshape(-1, *x.shape[-3:])
        return cpu.box(flat, radii, torch.empty_like(flat)).reshape(x.shape)
    for axis, r in zip((-3, -2, -1), radii, strict=True):
        n = x.shape[axis]
        total = torch.cumsum(x.to(torch.float64), axis)  # differences of long sums want the digits
        total = torch.cat([torch.zeros_like(total.narrow(axis, 0, 1)), total], axis)
        at = torch.arange(n, device=x.device)
        upper, lower = (at + r + 1).clamp(max=n), (at - r).clamp(min=0)
        x = (total.index_select(axis, upper) - total.index_select(axis, lower)).to(x.dtype)
    return x


def _checked(fixed: Tensor, moving: Tensor, who: str) -> None:
    if fixed.shape != moving.shape or fixed.ndim < 3:
        raise ValueError(
            f"{who} compares volumes (..., D, H, W) of one shape, got {tuple(fixed.shape)} and "
            f"{tuple(moving.shape)}; warp one onto the grid of the other first"
        )


def lncc(
    fixed: Float[Tensor, "*batch D H W"],
    moving: Float[Tensor, ...],
    radius: int | Sequence[int] = 4,
) -> Float[Tensor, "*batch"]:
    """Mean over all windows of the squared correlation: local normalised cross-correlation.

    ``cov(f, m)² / (var(f) var(m))`` in windows of ``2 radius + 1`` voxels an axis; blind to a change of
    brightness and contrast that varies slowly. Three hundredths of either volume's variance are added to its
    variances, and their geometric mean to the covariances: windows without contrast count as alike.

    Returns
    -------
    Tensor
        Between 0 and 1; 1 where either is locally an affine function of the other.

    References
    ----------
    Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal. 12,
    2008, doi:10.1016/j.media.2007.06.004.
    """
    _checked(fixed, moving, "lncc")
    f, m = centred(fixed), centred(moving)
    count = box(torch.ones_like(f[(0,) * (f.ndim - 3)]), radius)
    mf, mm, ff, mm2, fm = (box(x, radius) / count for x in (f, m, f * f, m * m, f * m))
    a, b = floor_of(fixed), floor_of(moving)
    vf, vm = (ff - mf * mf).clamp(min=0) + a, (mm2 - mm * mm).clamp(min=0) + b
    return ((fm - mf * mm + (a * b).sqrt()) ** 2 / (vf * vm)).mean((-3, -2, -1))


def centred(x: Float[Tensor, "*batch D H W"]) -> Float[Tensor, "*batch D H W"]:
    """Less its mean: differences of squares keep more digits."""
    return x - x.mean((-3, -2, -1), keepdim=True)


def floor_of(x: Float[Tensor, "*batch D H W"], share: float | None = None) -> Float[Tensor, "*batch 1 1 1"]:
    """The variance that is added to every window's: a small share of the image's own."""
    variance = x.detach().var((-3, -2, -1), correction=0, keepdim=True)
    return (_FLAT if share is None else share) * variance + torch.finfo(x.dtype).tiny


def mse(fixed: Float[Tensor, "*batch D H W"], moving: Float[Tensor, ...]) -> Float[Tensor, "*batch"]:
    """Mean squared difference (smaller is more alike)."""
    _checked(fixed, moving, "mse")
    return ((fixed - moving) ** 2).mean((-3, -2, -1))


def parzen(x: Float[Tensor, "*batch N"], bins: int) -> Float[Tensor, "*batch bins N"]:
    """Weights of samples in histogram bins over their range: cubic B-splines, summing to one."""
    low, high = x.detach().amin(-1, keepdim=True), x.detach().amax(-1, keepdim=True)
    position = (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny) * (bins - 3) + 1
    away = (position[..., None, :] - torch.arange(bins, dtype=x.dtype, device=x.device)[:, None]).abs()
    near = 2 / 3 - away**2 * (2 - away) / 2
    return torch.where(away < 1, near, (2 - away).clamp(min=0) ** 3 / 6)


def information(
    a: Float[Tensor, "*batch bins N"], b: Float[Tensor, "*batch bins N"]
) -> Float[Tensor, "*batch"]:
    """Mutual information in nats of two sets of Parzen weights of the same samples."""
    joint = a @ b.transpose(-1, -2) / a.shape[-1]
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    tiny = torch.finfo(a.dtype).tiny
    return (joint * ((joint + tiny) / (independent + tiny)).log()).sum((-1, -2))


def mutual_information(
    fixed: Float[Tensor, "*batch D H W"], moving: Float[Tensor, ...], bins: int = 32
) -> Float[Tensor, "*batch"]:
    """Mutual information, in nats, by a Parzen histogram of cubic B-splines: for other contrasts too.

    ``Σ p(a, b) ln(p(a, b) / (p(a) p(b)))``.

    References
    ----------
    Mattes et al., PET-CT image registration in the chest using free-form deformations, IEEE Trans. Med.
    Imaging 22, 2003, doi:10.1109/TMI.2003.809072.
    """
    _checked(fixed, moving, "mutual_information")
    if bins < 4:
        raise ValueError(f"mutual information takes at least 4 bins, got {bins}")
    a, b = (parzen(x.flatten(-3), bins) for x in (fixed, moving))
    return information(a, b)


def _shift(x: Tensor, offset: tuple[int, int, int], distance: int) -> Tensor:
    """``x(p + distance offset)``, the nearest sample beyond the border."""
    for axis, by in zip((-3, -2, -1), offset, strict=True):
        if by:
            n = x.shape[axis]
            x = x.index_select(axis, (torch.arange(n, device=x.device) + distance * by).clamp(0, n - 1))
    return x


_Offset = tuple[int, int, int]


@functools.lru_cache(maxsize=1)
def _neighbour_pairs() -> tuple[tuple[_Offset, _Offset], ...]:
    """The twelve pairs of the six neighbours that touch one another: sqrt(2) apart."""
    six: list[_Offset] = (
        [(s, 0, 0) for s in (-1, 1)] + [(0, s, 0) for s in (-1, 1)] + [(0, 0, s) for s in (-1, 1)]
    )
    return tuple((a, b) for a, b in itertools.combinations(six, 2) if math.dist(a, b) < 1.5)


def mind_descriptor(
    x: Float[Tensor, "*batch D H W"], radius: int = 2, distance: int = 2
) -> Float[Tensor, "*batch 12 D H W"]:
    """Self-similarity context: how a voxel's neighbourhoods resemble one another, whatever the contrast.

    ``exp(-D_k(p) / V(p))`` for the twelve pairs of neighbours at `distance` that lie next to one another;
    D_k is the mean squared difference of the two patches of `radius`, V the mean of the D_k.

    References
    ----------
    Heinrich et al., Towards realtime multimodal fusion for image-guided interventions using
    self-similarities, MICCAI 2013, doi:10.1007/978-3-642-40811-3_24.
    """
    size = (2 * radius + 1) ** 3
    differences = []
    for a, b in _neighbour_pairs():
        apart = _shift(x, a, distance) - _shift(x, b, distance)
        differences.append(box(apart**2, radius) / size)
    d = torch.stack(differences, -4)
    d = d - d.amin(-4, keepdim=True)
    variance = d.mean(-4, keepdim=True)
    middle = variance.detach().mean((-3, -2, -1), keepdim=True)
    variance = torch.clamp(variance, min=1e-3 * middle, max=1e3 * middle)
    return torch.exp(-d / (variance + torch.finfo(x.dtype).tiny))


def mind(
    fixed: Float[Tensor, "*batch D H W"],
    moving: Float[Tensor, ...],
    radius: int = 2,
    distance: int = 2,
) -> Float[Tensor, "*batch"]:
    """Mean squared difference of the MIND-SSC descriptors (smaller is more alike)."""
    _checked(fixed, moving, "mind")
    a, b = mind_descriptor(fixed, radius, distance), mind_descriptor(moving, radius, distance)
    return ((a - b) ** 2).mean((-4, -3, -2, -1))


def seen(
    x: Float[Tensor, "*batch D H W"], mask: Bool[Tensor, "D H W"] | None
) -> Float[Tensor, "*batch D H W"]:
    """A volume within a mask, zero beyond: two such volumes differ in nothing out there; None: all of it."""
    return x if mask is None else torch.where(mask, x, 0.0)


def soft_dice(
    fixed: Float[Tensor, "*batch K D H W"], moving: Float[Tensor, ...]
) -> Float[Tensor, "*batch K"]:
    """``2 Σ a b / Σ (a + b)`` per channel of probabilities; 1 where both are empty."""
    _checked(fixed, moving, "soft_dice")
    both, either = (fixed * moving).sum((-3, -2, -1)), (fixed + moving).sum((-3, -2, -1))
    return torch.where(either > 0, 2 * both / either.clamp(min=torch.finfo(fixed.dtype).tiny), 1.0)


def one_hot(labels: Int[Tensor, "*batch D H W"], values: Sequence[int]) -> Float[Tensor, "*batch K D H W"]:
    """Indicators of the given labels, float32: what `soft_dice` compares."""
    return torch.stack([(labels == v).float() for v in values], -4)


#: Each to be climbed, (fixed, moving) -> one number a volume.
CLIMBED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lncc": lncc,
    "mse": lambda fixed, moving: -mse(fixed, moving),
    "mi": mutual_information,
    # the least patches: larger ones than the folds of a brain, on coarse grids above all, say little of them
    "mind": lambda fixed, moving: -mind(fixed, moving, radius=1, distance=1),
}


def check_name(similarity: str) -> None:
    """Refuse an unknown similarity.

    Raises
    ------
    ValueError
        Not one of lncc, mse, mi, mind.
    """
    if similarity not in CLIMBED:
        raise ValueError(f"the similarity is one of {', '.join(CLIMBED)}, got {similarity!r}")
