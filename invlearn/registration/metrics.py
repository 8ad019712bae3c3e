"""How good a registration is: overlap and distance of labels, landmarks, regularity, consistency.

Fields are in voxels, ``(3, D, H, W)``; distances come out in millimetres through `spacing`, the distance of
neighbouring voxels along the three axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy import ndimage
from torch import Tensor

from invlearn.registration.fields import compose, jacobian_determinant

Array = np.ndarray | Tensor
Spacing = tuple[float, float, float]


def _numpy(x: Array) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def _pair(fixed: Array, moving: Array, who: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = _numpy(fixed), _numpy(moving)
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(
            f"{who} compares two label maps (D, H, W) on one grid, got {a.shape} and {b.shape}; warp the "
            "moving labels onto the fixed grid first"
        )
    for x in (a, b):
        if x.dtype.kind not in "iub":
            raise TypeError(f"{who}: labels are integers, got {x.dtype}; round and convert them")
    return a, b


def _labels(a: np.ndarray, b: np.ndarray, labels: Sequence[int] | None) -> list[int]:
    if labels is not None:
        return [int(k) for k in labels]
    return [int(k) for k in np.union1d(np.unique(a), np.unique(b)) if k != 0]


def dice(fixed: Array, moving: Array, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Overlap of each label, ``2 |A ∩ B| / (|A| + |B|)``.

    Parameters
    ----------
    fixed, moving
        Integer label maps (D, H, W) on one grid.
    labels
        Which to compare; None takes all that occur in either but 0.

    Returns
    -------
    dict
        Label to Dice; a label that occurs in neither has NaN.

    Raises
    ------
    ValueError
        Other shapes.
    TypeError
        Not integers.
    """
    a, b = _pair(fixed, moving, "dice")
    values, place = np.unique(np.concatenate([a.ravel(), b.ravel()]), return_inverse=True)
    pa, pb = place[: a.size], place[a.size :]
    counts = (np.bincount(p, minlength=len(values)) for p in (pa, pb, pa[pa == pb]))
    na, nb, both = ({int(v): int(n) for v, n in zip(values, c, strict=True)} for c in counts)
    result = {}
    for k in _labels(a, b, labels):
        total = na.get(k, 0) + nb.get(k, 0)
        result[k] = 2 * both[k] / total if total else float("nan")
    return result


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the object with a face towards the outside."""
    return mask & ~ndimage.binary_erosion(mask)


def hd95(
    fixed: Array, moving: Array, spacing: Spacing, labels: Sequence[int] | None = None
) -> dict[int, float]:
    """Distance of each label's surfaces that 95 % of their voxels stay below, in mm.

    The larger of the 95th percentiles of the distances from either surface to the other.

    Parameters
    ----------
    fixed, moving
        Integer label maps (D, H, W) on one grid.
    spacing
        In mm.
    labels
        Which to compare; None takes all that occur in either but 0.

    Returns
    -------
    dict
        Label to mm; NaN where one of the two lacks the label.
    """
    a, b = _pair(fixed, moving, "hd95")
    result = {}
    for k in _labels(a, b, labels):
        x, y = a == k, b == k
        if not (x.any() and y.any()):
            result[k] = float("nan")
            continue
        box = ndimage.find_objects((x | y).astype(np.uint8))[0]  # distances beyond it are not asked for
        x, y = np.pad(x[box], 1), np.pad(y[box], 1)
        sx, sy = _surface(x), _surface(y)
        to_y = ndimage.distance_transform_edt(~sy, sampling=spacing)[sx]
        to_x = ndimage.distance_transform_edt(~sx, sampling=spacing)[sy]
        result[k] = float(max(np.percentile(to_y, 95), np.percentile(to_x, 95)))
    return result


def target_registration_error(points: np.ndarray, targets: np.ndarray) -> Float[np.ndarray, N]:
    """Distance of mapped landmarks from where they belong, in the unit of the points (mm).

    Raises
    ------
    ValueError
        The shapes are not both (N, 3).
    """
    points, targets = np.asarray(points, float), np.asarray(targets, float)
    if points.shape != targets.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"landmarks are two arrays (N, 3), got {points.shape} and {targets.shape}")
    return np.linalg.norm(points - targets, axis=1)


def folding_percent(field: Shaped[Tensor, "3 D H W"]) -> float:
    """Share of voxels whose Jacobian determinant is not positive, in percent."""
    determinant = jacobian_determinant(field)
    return 100 * float((determinant <= 0).float().mean()) if determinant.numel() else 0.0


def sd_log_jacobian(field: Shaped[Tensor, "3 D H W"], mask: Shaped[Tensor, "D H W"] | None = None) -> float:
    """Standard deviation of ``ln |J|`` over the voxels (of `mask`): how unevenly volume changes.

    Determinants below 1e-9 count as 1e-9, so that a fold makes it large.
    """
    logarithm = jacobian_determinant(field).clamp(min=1e-9).log()
    values = logarithm if mask is None else logarithm[mask]
    return float(values.double().std(correction=0)) if values.numel() else 0.0


def inverse_consistency(
    forward: Shaped[Tensor, "3 D H W"],
    backward: Shaped[Tensor, "3 D H W"],
    spacing: Spacing = (1.0, 1.0, 1.0),
    mask: Shaped[Tensor, "D H W"] | None = None,
) -> float:
    """Mean length of ``backward(p) + forward(p + backward(p))``, in mm: zero if they undo one another.

    Parameters
    ----------
    forward, backward
        Fields in voxels of one grid.
    spacing
        In mm; with the default the result is in voxels.
    mask
        Where to average; None: everywhere.
    """
    rest = compose(forward, backward)
    scale = torch.tensor(spacing, dtype=rest.dtype, device=rest.device).reshape(3, 1, 1, 1)
    length = (rest * scale).square().sum(0).sqrt()
    return float((length if mask is None else length[mask]).double().mean())
