"""How rough a field is: differentiable, over the last four axes, smaller is smoother."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Spacing = tuple[float, float, float]


def _forward(u: Tensor, axis: int, spacing: Spacing) -> Tensor:
    """Forward differences along axis 0, 1 or 2 of the volume, per unit of `spacing`."""
    return torch.diff(u, dim=axis - 3) / spacing[axis]


def _mean(x: Tensor) -> Tensor:
    """The mean over a field's axes; 0 where an axis was too short for a difference."""
    return x.mean((-4, -3, -2, -1)) if x[(0,) * (x.ndim - 4)].numel() else x.sum((-4, -3, -2, -1))


def gradient_energy(
    field: Float[Tensor, "*batch 3 D H W"], spacing: Spacing = (1.0, 1.0, 1.0)
) -> Float[Tensor, "*batch"]:
    """Mean squared forward difference of a field: ``mean |∇u|²`` over components, summed over axes.

    Parameters
    ----------
    field
        In any unit.
    spacing
        Distance of neighbouring voxels along the three axes.

    Returns
    -------
    Tensor
        One number a field; zero for a translation.
    """
    return torch.stack([_mean(_forward(field, axis, spacing) ** 2) for axis in range(3)]).sum(0)


def bending_energy(
    field: Float[Tensor, "*batch 3 D H W"], spacing: Spacing = (1.0, 1.0, 1.0)
) -> Float[Tensor, "*batch"]:
    """Mean squared second differences: ``Σ_ij mean (∂_i ∂_j u)²``, mixed ones counted twice.

    Parameters
    ----------
    field
        In any unit.
    spacing
        Distance of neighbouring voxels along the three axes.

    Returns
    -------
    Tensor
        One number a field; zero for an affine map.

    References
    ----------
    Rueckert et al., Nonrigid registration using free-form deformations, IEEE Trans. Med. Imaging 18,
    1999, doi:10.1109/42.796284.
    """
    total = []
    for i in range(3):
        first = _forward(field, i, spacing)
        for j in range(i, 3):
            total.append((1 if i == j else 2) * _mean(_forward(first, j, spacing) ** 2))
    return torch.stack(total).sum(0)
