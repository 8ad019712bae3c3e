"""Parallel-beam tomography: line integrals of an image, and filtered back-projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.linear.interop import Sparse
from invlearn.physics.operator import LinearOperator
from invlearn.physics.registry import register
from invlearn.physics.space import Space


class Radon2D(Sparse):
    """Line integrals of an image along parallel rays: `(H, W)` to `(angles, detectors)`.

    The ray of angle θ and detector coordinate s runs through the points with x cos θ + y sin θ = s,
    where x = column - (W-1)/2 points to the right and y = (H-1)/2 - row points up, both in pixels:
    at θ = 0 the columns are summed, and θ turns counter-clockwise. Detector d sits at
    s = (d - (detectors-1)/2) spacing. The image is zero outside.

    Parameters
    ----------
    shape
        `(H, W)` of the image.
    angles
        `(angles,)`, radians.
    detectors
        Number of detectors; by default as many as cover the diagonal.
    spacing
        Distance of the detectors in pixels.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        A shape that is not 2D, no angles, angles that are not finite or look like degrees, fewer
        than one detector, a spacing that is not positive.

    Notes
    -----
    Joseph's method: a ray is sampled once a row (or once a column where it runs flatter), by linear
    interpolation in that row, times the length of the ray in it. The matrix is kept sparse, with its
    transpose beside it: the adjoint is exact. It holds about 2 max(H, W) numbers a ray, 32 bytes each.

    References
    ----------
    Joseph, IEEE Trans. Med. Imaging 1 (1982) 192, doi:10.1109/TMI.1982.4307572.
    """

    def __init__(
        self,
        shape: Sequence[int],
        angles: Tensor | np.ndarray | Sequence[float],
        detectors: int | None = None,
        spacing: float = 1.0,
        complex: bool = False,
    ) -> None:
        domain = Space(tuple(shape), complex)
        if domain.ndim != 2:
            raise ValueError(f"Radon2D projects images (H, W), got the shape {domain.shape}")
        theta = _check_angles(angles)
        if not 0 < spacing < math.inf:
            raise ValueError(f"Radon2D: the spacing must be positive, got {spacing}")
        if detectors is None:
            detectors = math.ceil(math.hypot(*domain.shape) / spacing)
        if detectors < 1:
            raise ValueError(f"Radon2D needs at least one detector, got {detectors}")
        s = (np.arange(detectors) - (detectors - 1) / 2) * spacing
        super().__init__(
            _joseph(domain.shape[0], domain.shape[1], theta, s),
            domain,
            Space((len(theta), detectors), complex),
        )
        self.angles = tuple(theta.tolist())
        self.spacing = float(spacing)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.angles)} angles, spacing={self.spacing:g}"


def _check_angles(angles: Any) -> np.ndarray:
    theta = as_tensor(angles if isinstance(angles, Tensor) else np.asarray(angles), "the angles of Radon2D")
    array = theta.detach().cpu().to(torch.float64).numpy()
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"Radon2D: angles are a list of at least one number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("Radon2D: the angles have NaN or infinite entries")
    if np.abs(array).max() > 2 * np.pi + 1e-6:
        raise ValueError(
            f"Radon2D takes radians between -2π and 2π, got up to {np.abs(array).max():g}; "
            "convert degrees with np.deg2rad"
        )
    return array


def _joseph(height: int, width: int, theta: np.ndarray, s: np.ndarray) -> Any:
    """The sparse matrix `(angles · detectors, height · width)`."""
    import scipy.sparse

    x, y = np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height)
    rays = np.arange(len(theta) * len(s)).reshape(len(theta), len(s), 1)
    row, column, value = [], [], []
    steep = np.abs(np.cos(theta)) >= np.abs(np.sin(theta))
    for along_rows in (True, False):
        chosen = np.flatnonzero(steep == along_rows)
        cos, sin = np.cos(theta[chosen])[:, None, None], np.sin(theta[chosen])[:, None, None]
        if along_rows:  # once a row: at which column
            position = (s[:, None] - y * sin) / cos + (width - 1) / 2
            size, stride, offset, length = width, 1, np.arange(height) * width, 1 / np.abs(cos)
        else:  # once a column: at which row
            position = (height - 1) / 2 - (s[:, None] - x * cos) / sin
            size, stride, offset, length = height, width, np.arange(width), 1 / np.abs(sin)
        below = np.floor(position).astype(np.int64)
        for index, weight in ((below, below + 1 - position), (below + 1, position - below)):
            inside = (index >= 0) & (index < size) & (weight > 0)
            row.append(np.broadcast_to(rays[chosen], index.shape)[inside])
            column.append((index * stride + offset)[inside])
            value.append((weight * length)[inside])
    parts = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
    return scipy.sparse.coo_array(parts, shape=(len(theta) * len(s), height * width))


def fbp(sinogram: Tensor, operator: LinearOperator) -> Tensor:
    """Filtered back-projection: the inverse of the Radon transform, sampled.

    Parameters
    ----------
    sinogram
        `(*batch, angles, detectors)`, real or complex.
    operator
        The `Radon2D` that measured it. Each angle counts by its distance to its neighbours (modulo π).

    Returns
    -------
    Tensor
        `(*batch, H, W)`.

    Raises
    ------
    TypeError
        Another operator.

    Notes
    -----
    The ramp filter is the exact one of band-limited projections, h(0) = 1/4, h(n) = -1/(π n)² for odd
    n and 0 for even n; the projections are zero-padded, and interpolated linearly in between.

    References
    ----------
    Kak and Slaney, Principles of Computerized Tomographic Imaging, SIAM 2001, chapter 3,
    doi:10.1137/1.9780898719277.
    """
    if not isinstance(operator, Radon2D):
        raise TypeError(f"fbp inverts Radon2D operators, got {operator.label}")
    y = operator.codomain.check(sinogram, operator.label)
    detectors = y.shape[-1]
    n = torch.arange(-detectors + 1, detectors, device=y.device)
    ramp = torch.where(n % 2 == 1, -1 / (torch.pi * n).square(), 0.25 * (n == 0)).to(y.real.dtype)
    size = 3 * detectors
    product = torch.fft.fft(y, size) * torch.fft.fft(ramp, size)
    filtered = torch.fft.ifft(product)[..., detectors - 1 : 2 * detectors - 1] / operator.spacing
    filtered = filtered if y.is_complex() else filtered.real
    height, width = operator.domain.shape
    x = torch.arange(width, device=y.device, dtype=torch.float64) - (width - 1) / 2
    up = (height - 1) / 2 - torch.arange(height, device=y.device, dtype=torch.float64)[:, None]
    image = torch.zeros((*y.shape[:-2], height, width), dtype=y.dtype, device=y.device)
    for k, (angle, weight) in enumerate(zip(operator.angles, _angle_weights(operator.angles), strict=True)):
        s = (x * math.cos(angle) + up * math.sin(angle)) / operator.spacing + (detectors - 1) / 2
        below = s.floor()
        right = (s - below).to(y.real.dtype)
        profile = torch.nn.functional.pad(filtered[..., k, :], (1, 1))  # zero beyond the detectors
        index = (below.long() + 1).clamp(0, detectors)
        inside = ((below >= -1) & (below < detectors)).to(y.real.dtype)
        image = image + weight * inside * (
            (1 - right) * profile[..., index] + right * profile[..., index + 1]
        )
    return image


def _angle_weights(angles: Sequence[float]) -> list[float]:
    """Half the distance between the neighbours of each angle modulo π; they sum to π."""
    theta = np.mod(np.asarray(angles), np.pi)
    order = np.argsort(theta, kind="stable")
    ordered = theta[order]
    gaps = np.diff(np.concatenate([ordered, ordered[:1] + np.pi]))
    weights = np.empty(len(theta))
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights.tolist()


@register("radon/5 angles")
def _example(generator: torch.Generator) -> LinearOperator:
    return Radon2D((9, 12), [0.0, 0.4, 1.0, 2.2, -0.8])


@register("radon/complex, few wide detectors")
def _complex_example(generator: torch.Generator) -> LinearOperator:
    return Radon2D((8, 7), [0.0, math.pi / 2, -2.5], detectors=5, spacing=1.5, complex=True)
