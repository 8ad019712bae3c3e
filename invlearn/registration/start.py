"""Registration that starts from a network's prediction."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from invlearn.io.nifti import Volume
from invlearn.registration.coefficients import Coefficients
from invlearn.registration.fields import resize
from invlearn.registration.optimise import Settings
from invlearn.registration.pair import Registrable, Registration, register
from invlearn.registration.winet import WiNet


def _to_ras(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """For x, y and z: the axis of the volume that runs nearest to it, and which of the three to flip."""
    from nibabel.orientations import io_orientation

    orientation = io_orientation(affine)
    axes = [int(a) for a in np.argsort(orientation[:, 0])]
    return axes, [k for k, a in enumerate(axes) if orientation[a, 1] < 0]


def _sampled(x: Float[Tensor, "D H W"], shape: Sequence[int]) -> Float[Tensor, "d h w"]:
    """On another grid over the same extent; averaged where that is coarser."""
    averaged = [min(n, m) for n, m in zip(x.shape, shape, strict=True)]
    coarse = functional.interpolate(x[None, None], averaged, mode="area")
    return functional.interpolate(coarse, list(shape), mode="trilinear", align_corners=False)[0, 0]


@torch.no_grad()
def predict(
    network: WiNet, fixed: Volume, moving: Volume, device: str | torch.device = "cpu"
) -> Float[Tensor, "3 D H W"]:
    """The field that a network predicts, whatever the orientation and the voxels of the volumes.

    The network sees them along x, y and z of RAS, in voxels of the size that it was trained on.

    Parameters
    ----------
    network
        See `WiNet`.
    fixed, moving
        On one grid, affinely aligned.
    device
        Where to compute.

    Returns
    -------
    Tensor
        In voxels of the grid of `fixed`, pull-back.

    Raises
    ------
    ValueError
        Different grids.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"a network takes volumes on one grid, got {fixed.shape} and {moving.shape}")
    axes, flips = _to_ras(fixed.affine)
    network = network.to(device)

    def seen(volume: Volume) -> Tensor:
        data = torch.from_numpy(np.nan_to_num(volume.data.astype(np.float32), posinf=0, neginf=0)).to(device)
        return data.permute(axes).flip(flips)

    m, f = seen(moving), seen(fixed)
    along = [fixed.spacing[a] for a in axes]
    size = network.spacing
    shape = (
        f.shape
        if size is None
        else [max(1, round(n * s / size)) for n, s in zip(f.shape, along, strict=True)]
    )
    field = network(_sampled(m, shape), _sampled(f, shape))
    field = resize(field, (f.shape[0], f.shape[1], f.shape[2]))
    signs = field.new_tensor([-1.0 if k in flips else 1.0 for k in range(3)]).reshape(3, 1, 1, 1)
    order = [axes.index(a) for a in range(3)]
    back = (signs * field).flip([1 + k for k in flips])[order]
    return back.permute(0, *(1 + k for k in order)).contiguous()


def register_from(
    network: WiNet | None,
    fixed: Registrable,
    moving: Registrable,
    *,
    affine: str = "affine",
    similarity: str = "lncc",
    iterations: int | None = None,
    settings: Settings | Coefficients | None = None,
    symmetric: bool = True,
    device: str | torch.device = "cpu",
) -> Registration:
    """`register`, its deformable stage started from what a network predicts after the affine stage.

    Parameters
    ----------
    network
        None starts from no deformation.
    fixed, moving, affine, similarity, iterations, settings, symmetric, device
        See `register`; with 0 iterations the prediction is the result.

    Returns
    -------
    Registration
        Its times include the prediction.
    """
    if network is None:
        return register(
            fixed,
            moving,
            affine=affine,
            similarity=similarity,
            iterations=iterations,
            settings=settings,
            symmetric=symmetric,
            device=device,
        )
    aligned = register(fixed, moving, affine=affine, similarity=similarity, iterations=0, device=device)
    clock = time.process_time(), time.perf_counter()
    start = predict(network, aligned.fixed, aligned.warped, device)
    spent = time.process_time() - clock[0], time.perf_counter() - clock[1]
    result = register(
        aligned.fixed,
        aligned.moving,
        affine=aligned.affine,
        similarity=similarity,
        iterations=iterations,
        settings=settings,
        initial=start,
        device=device,
    )
    return dataclasses.replace(
        result,
        cpu_seconds=result.cpu_seconds + aligned.cpu_seconds + spent[0],
        seconds=result.seconds + aligned.seconds + spent[1],
    )
