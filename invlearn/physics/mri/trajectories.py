"""Where k-space is sampled: spirals, spokes, stacks of them, and trajectories from files.

A trajectory is `(arms, samples, d)` in cycles per pixel, -0.5 … 0.5, ordered (kx, ky[, kz]): x
runs along the columns of the image (its last axis), y along the rows, z along the slices. The
Nyquist distance between samples is then one over the number of pixels along that axis.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invlearn.io import read_array, read_scan
from invlearn.io.scans import require_cycles_per_pixel

GOLDEN = (1 + math.sqrt(5)) / 2
_ARRAYS = ("trajectory", "traj", "ktraj", "kspace_trajectory", "k")


def _positive(value: int, what: str, least: int = 1) -> int:
    if value < least:
        raise ValueError(f"a trajectory needs at least {least} {what}, got {value}")
    return int(value)


def spiral(
    arms: int,
    samples: int,
    shape: tuple[int, ...],
    *,
    density: float | tuple[float, float] = 1.0,
    interleaves: int | None = None,
    golden_angle: bool = False,
) -> Float[Tensor, "arms samples 2"]:
    """Spiral arms from the middle of k-space to its edge, of constant or variable density.

    With N the larger side of the image in pixels, `interleaves` arms together lie 1/(F(r) N) apart
    at the radius r, so that they meet Nyquist for the fraction F of the field of view; F goes
    linearly from the middle to the edge. This fixes the angle along an arm,
    dθ/dr = 2π N F(r) / interleaves. Samples are at equal distances along the arm (a gradient of
    constant strength).

    Parameters
    ----------
    arms
        Number of arms.
    samples
        Samples of an arm; the first at k = 0, the last at |k| = 0.5.
    shape
        The image, `(H, W)` pixels.
    density
        F, or the pair (F in the middle, F at the edge); 1 is an Archimedean spiral that all
        interleaves together sample fully, 0.5 has half the turns and folds twofold.
    interleaves
        How many arms together have this density; `arms` when not given. For fingerprinting, where
        one arm is played a frame: `arms` = frames, `interleaves` = 48, for example.
    golden_angle
        Turn each arm by 2π/φ = 222.49° from the one before, instead of by 2π/`interleaves`.

    Returns
    -------
    Tensor
        `(arms, samples, 2)`, float64, cycles per pixel.

    Raises
    ------
    ValueError
        No arms, fewer than two samples, a shape that is not two-dimensional, a density that is
        not positive.

    References
    ----------
    Glover, "Simple analytic spiral k-space algorithm", Magn. Reson. Med. 42:412-415 (1999).
    """
    _positive(arms, "arms")
    _positive(samples, "samples an arm", 2)
    interleaves = arms if interleaves is None else _positive(interleaves, "interleaves")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"a spiral needs the image (H, W), got {shape}; use stack_of for volumes")
    middle, edge = density if isinstance(density, tuple) else (density, density)
    if not (0 < middle < math.inf and 0 < edge < math.inf):
        raise ValueError(f"a spiral's density is a positive part of the field of view, got {density}")
    turns = 2 * math.pi * max(shape) / interleaves
    fine = np.linspace(0, 0.5, 64 * samples)
    slope = turns * (middle + 2 * (edge - middle) * fine)  # dθ/dr
    speed = np.hypot(1, fine * slope)  # arc length per radius
    arc = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(fine))])
    r = torch.from_numpy(np.interp(np.linspace(0, arc[-1], samples), arc, fine))
    theta = turns * (middle * r + (edge - middle) * r**2)
    step = 1 / GOLDEN if golden_angle else 1 / interleaves
    angle = theta + _turns(arms, step)[:, None]
    return r[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def _turns(count: int, step: float) -> Tensor:
    """The angles of `count` rotations by `step` turns each, radians; exact for many of them."""
    return 2 * math.pi * (torch.arange(count, dtype=torch.float64) * step % 1)


def radial(
    arms: int, samples: int, dimensions: int = 2, *, golden_angle: bool = False
) -> Float[Tensor, "arms samples d"]:
    """Straight spokes through the middle of k-space, from one side to the other.

    Parameters
    ----------
    arms
        Number of spokes. N of them with N pixels a side leave the edge of k-space undersampled by
        π/2 in two dimensions.
    samples
        Samples of a spoke, at (j - samples//2) / samples for j = 0, 1, ...
    dimensions
        2, or 3 for spokes over a sphere ("koosh ball").
    golden_angle
        In 2-D, each spoke turned by 180°/φ = 111.25° from the one before instead of by 180°/`arms`.
        In 3-D, the two-dimensional golden means, so that any run of spokes covers the sphere,
        instead of a spherical Fibonacci lattice of `arms` points.

    Returns
    -------
    Tensor
        `(arms, samples, dimensions)`, float64, cycles per pixel.

    Raises
    ------
    ValueError
        No arms, fewer than two samples, dimensions other than 2 and 3.

    References
    ----------
    Winkelmann et al., "An optimal radial profile order based on the golden ratio for time-resolved
    MRI", IEEE Trans. Med. Imaging 26:68-76 (2007). Chan et al., "Temporal stability of adaptive 3D
    radial MRI using multidimensional golden means", Magn. Reson. Med. 61:354-363 (2009).
    """
    _positive(arms, "arms")
    _positive(samples, "samples an arm", 2)
    if dimensions not in (2, 3):
        raise ValueError(f"spokes have 2 or 3 dimensions, got {dimensions}")
    position = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    number = torch.arange(arms, dtype=torch.float64)
    if dimensions == 2:
        angle = _turns(arms, 1 / GOLDEN if golden_angle else 1 / arms) / 2
        direction = torch.stack([angle.cos(), angle.sin()], -1)
    else:
        # the two-dimensional golden means are b² and b for the root b of b³ + b = 1
        first, second = 0.46557123187676813, 0.6823278038280194
        height = number * first % 1 if golden_angle else (number + 0.5) / arms
        azimuth = _turns(arms, second if golden_angle else 1 / GOLDEN)
        across = (1 - height**2).sqrt()
        direction = torch.stack([across * azimuth.cos(), across * azimuth.sin(), height], -1)
    return position[:, None] * direction[:, None, :]


def stack_of(
    trajectory: Float[Tensor, "arms samples 2"], partitions: int
) -> Float[Tensor, "stacked samples 3"]:
    """The arms of a two-dimensional trajectory in every partition: a stack of spirals or stars.

    Parameters
    ----------
    trajectory
        `(arms, samples, 2)`.
    partitions
        Number P of partitions; the p-th lies at kz = (p - P//2) / P.

    Returns
    -------
    Tensor
        `(P * arms, samples, 3)`, all arms of one partition one after another.

    Raises
    ------
    ValueError
        No partitions, or a trajectory that is not two-dimensional.
    """
    _positive(partitions, "partitions")
    if trajectory.ndim != 3 or trajectory.shape[-1] != 2:
        raise ValueError(f"a stack is made of a trajectory (arms, samples, 2), got {tuple(trajectory.shape)}")
    kz = (torch.arange(partitions).to(trajectory) - partitions // 2) / partitions
    kz = kz[:, None, None, None].expand(partitions, *trajectory.shape[:2], 1)
    return torch.cat([trajectory.expand(partitions, *trajectory.shape), kz], -1).flatten(0, 1)


def read_trajectory(path: str | os.PathLike[str]) -> Float[Tensor, "arms samples d"]:
    """A trajectory from a NumPy, MATLAB (version 5) or ISMRMRD file.

    Understood are real arrays whose last or, failing that, first axis has the length d = 2 or 3,
    and complex arrays kx + i ky. The two other axes are arms and samples in either order: along
    the samples |k| changes, from one arm to the next it hardly does. A single other axis is one
    arm. A third column of nothing but zeros is dropped. In an `.npz` or `.mat` file the array is
    named trajectory, traj, ktraj, kspace_trajectory or k, or is the only one.

    Parameters
    ----------
    path
        An `.npy`, `.npz`, `.mat`, `.h5` or `.mrd` file; an ISMRMRD file has a readout an arm.

    Returns
    -------
    Tensor
        `(arms, samples, d)`, float64, cycles per pixel.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Another layout, or one in which arms and samples cannot be told apart; entries beyond
        ±0.5; NaN.
    """
    path = Path(path)
    if path.suffix.lower() in (".h5", ".hdf5", ".mrd"):
        points = _of_scan(path)
    else:
        points = _to_layout(read_array(path, _ARRAYS), str(path))
    require_cycles_per_pixel(points, str(path))
    return torch.from_numpy(points)


def _of_scan(path: Path) -> np.ndarray:
    scan = read_scan(path)
    if scan.trajectory is None:
        raise ValueError(f"{path} has no trajectory in its acquisitions")
    assert scan.readouts is not None
    if len(lengths := np.unique(scan.readouts)) > 1:
        raise ValueError(
            f"{path}: its readouts have from {lengths[0]} to {lengths[-1]} samples, so they are no "
            "(arms, samples, d) trajectory; use read_scan(path).trajectory"
        )
    return scan.trajectory.reshape(len(scan.readouts), -1, scan.trajectory.shape[-1])


def _to_layout(array: np.ndarray, who: str) -> np.ndarray:
    """`(arms, samples, d)` from the layouts that `read_trajectory` understands."""
    if np.iscomplexobj(array):
        points = np.stack([array.real, array.imag], -1)
    elif array.ndim >= 2 and array.shape[-1] in (2, 3):
        points = array
    elif array.ndim >= 2 and array.shape[0] in (2, 3):
        points = np.moveaxis(array, 0, -1)
    else:
        raise ValueError(
            f"{who}: a trajectory is real with 2 or 3 coordinates on its last (or first) axis, or complex "
            f"(kx + i ky), but this has the shape {array.shape}; save (arms, samples, 2)"
        )
    points = points.astype(np.float64)
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3:
        raise ValueError(f"{who}: a trajectory is (arms, samples, d), but this has the shape {array.shape}")
    if points.shape[-1] == 3 and not points[..., 2].any():
        points = points[..., :2]
    return np.ascontiguousarray(_arms_first(points, who))


def _arms_first(points: np.ndarray, who: str) -> np.ndarray:
    if 1 in points.shape[:2]:
        return points if points.shape[0] == 1 else points.swapaxes(0, 1)
    # the in-plane radius too: the arms of a stack of spirals differ in kz
    spreads = [_spread(points), _spread(points[..., :2])]
    over_arms, over_samples = max(spreads, key=lambda pair: max(pair) / (min(pair) + 1e-12))
    if max(over_arms, over_samples) < 3 * min(over_arms, over_samples):
        raise ValueError(
            f"{who}: which of the axes {points.shape[:2]} are the arms and which the samples cannot be "
            f"told, because |k| changes along both; save the points as one flat array "
            f"({points.shape[0] * points.shape[1]}, {points.shape[-1]}) in the order of the samples"
        )
    return points if over_samples > over_arms else points.swapaxes(0, 1)


def _spread(points: np.ndarray) -> tuple[float, float]:
    """How much |k| changes along the first and along the second axis."""
    radius = np.linalg.norm(points, axis=-1)
    return float(radius.std(0).mean()), float(radius.std(1).mean())
