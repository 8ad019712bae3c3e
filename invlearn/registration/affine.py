"""The rigid and affine stage: mutual information of sampled points, coarse to fine, in millimetres.

A map takes fixed points to moving points in world coordinates: ``x -> A (x - c) + c + t`` with c the middle
of the fixed volume. It is found from where the headers put the volumes and from where their mass lies,
over a grid of rotations up to 30 degrees, and refined at points of both volumes alike, so that it does not
matter which is the fixed one. Mutual information alone can gain by pushing shaded or cropped volumes apart,
or by blowing one up until it is flat. So growth has a price and a limit, and what was found must also agree
by local correlation, nearly as well as where the headers put the volumes, the more so the more overlap it
gives up. An affine map that does not gives way to a rigid one, that to the headers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from jaxtyping import Float
from torch import Tensor

from invlearn.registration.fields import linear_field, warp
from invlearn.registration.harmonise import filled, part, solid
from invlearn.registration.interpolation import inside
from invlearn.registration.similarity import box, floor_of
from invlearn.registration.smoothing import shrink

MODELS = ("none", "rigid", "affine")
_BINS = 32
_ANGLES = np.deg2rad((-25.0, 0.0, 25.0))  # starts about every axis; what lies between is within reach
_COARSE_MM, _FINE_MM = 8.0, 3.0
_HEAD_MM = 160.0  # smaller volumes count as enlarged to it: the lengths here are those of a head
_POINTS, _TRIAL_POINTS = 30_000, 4_000
_KEPT = 4  # starts that are refined
_RADIUS = 50.0  # mm: a rotation of p / radius moves points of a head by about p
_LEAST_OVERLAP = 0.2  # share of the smaller volume that must lie in the other
_WINDOW = 4  # voxels of the fine grid: radius of the windows that judge what was found
_FLAT = 0.01  # of the variance: a window with less says nothing
_PER_LOSS = 0.5  # how much better it must be than the headers, per share of overlap that it gives up
_ALIKE = 0.98  # interpolation costs that much
_MOST_GROWTH = 1.6  # along any direction
_STIFFNESS = 0.05  # nats, of a map that doubles one direction: how dear it is to leave the rigid ones
_CHANCE = 0.12  # twelve free parameters bring volumes with nothing in common nearly that far


@dataclass(frozen=True, eq=False)
class Grid:
    """Samples at one resolution, and where they lie.

    Attributes
    ----------
    data
        ``(D, H, W)``, float32.
    affine
        (4, 4), from voxels to mm.
    """

    data: Float[Tensor, "D H W"]
    affine: np.ndarray

    def coarsened(self, millimetres: float) -> Grid:
        """Block means with voxels of about that size, at the same place."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        factors = [
            max(1, min(round(millimetres / s), n)) for s, n in zip(spacing, self.data.shape, strict=True)
        ]
        affine = self.affine @ np.diag([*factors, 1])
        affine[:3, 3] = self.affine[:3, :3] @ ((np.array(factors) - 1) / 2) + self.affine[:3, 3]
        return Grid(shrink(self.data[None], factors)[0], affine)

    def extent(self) -> float:
        """The longest edge, in mm."""
        return float((np.linalg.norm(self.affine[:3, :3], axis=0) * self.data.shape).max())

    def size(self) -> float:
        """What it fills, in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) * self.data.numel())

    def object_size(self) -> float:
        """What its object fills, cavities and all, in mm³; 0 if nothing tells it from a background."""
        return filled(self.data, np.linalg.norm(self.affine[:3, :3], axis=0).tolist()) * self.size()

    def scaled(self, factor: float) -> Grid:
        """The same samples so many times farther apart, and from the origin."""
        return Grid(self.data, np.diag([factor, factor, factor, 1.0]) @ self.affine)

    def middle(self) -> np.ndarray:
        """The middle of the grid, in mm."""
        half = (np.array(self.data.shape) - 1) / 2
        return self.affine[:3, :3] @ half + self.affine[:3, 3]

    def centre_of_mass(self) -> np.ndarray:
        """The mean place of what is brighter than the darkest, in mm."""
        mass = (self.data - self.data.amin()).double()
        total = float(mass.sum())
        if total <= 0:
            return self.middle()
        at = []
        for axis, n in enumerate(mass.shape):
            others = [a for a in range(3) if a != axis]
            at.append(float((mass.sum(others) * torch.arange(n, device=mass.device)).sum()) / total)
        return self.affine[:3, :3] @ np.array(at) + self.affine[:3, 3]


def rotation(vector: Float[Tensor, 3]) -> Float[Tensor, "3 3"]:
    """The rotation by ``|vector|`` radians about its direction."""
    x, y, z = vector
    o = torch.zeros_like(x)
    return torch.linalg.matrix_exp(
        torch.stack([torch.stack([o, -z, y]), torch.stack([z, o, -x]), torch.stack([-y, x, o])])
    )


def matrix_of(parameters: Tensor, centre: Tensor) -> Float[Tensor, "4 4"]:
    """The (4, 4) world matrix of 6 (rigid) or 15 (affine) parameters, all of the order of millimetres.

    Three of rotation and three of translation; for affine maps nine more, ``A = R (I + M)``.
    """
    linear = rotation(parameters[:3] / _RADIUS)
    if len(parameters) > 6:
        linear = linear @ (torch.eye(3, dtype=linear.dtype) + parameters[6:].reshape(3, 3) / _RADIUS)
    matrix = torch.eye(4, dtype=linear.dtype)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre + parameters[3:6]
    return matrix


class _Match:
    """Mutual information of two grids as a function of the world map between them."""

    def __init__(
        self, fixed: Grid, moving: Grid, points: int = _POINTS, within: Tensor | None = None
    ) -> None:
        voxels = np.indices(fixed.data.shape).reshape(3, -1).T
        if within is not None and bool(within.any()):
            voxels = voxels[within.cpu().numpy().ravel()]
        chosen = np.random.default_rng(0).permutation(len(voxels))[:points]  # a stride would miss columns
        voxels = voxels[np.sort(chosen)]
        self.points = voxels @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
        values = _unit(fixed.data.cpu().numpy())[tuple(voxels.T)]
        self.positions = (values * (_BINS - 3) + 1).astype(np.float32)
        self.volume = _unit(moving.data.cpu().numpy())
        self.from_world = np.linalg.inv(moving.affine)

    def __call__(self, world: np.ndarray) -> tuple[float, np.ndarray]:
        """The mutual information, and its derivative by the upper three rows of the map."""
        from invlearn.registration import points  # compiled on import

        matrix = np.ascontiguousarray((self.from_world @ world)[:3])
        slope = np.empty((3, 4))
        # every point counts, those outside at the border's value: no gain from pushing the volumes apart
        value = points.information(self.points, self.positions, self.volume, matrix, _BINS, slope)
        return value, self.from_world[:3, :3].T @ slope

    def overlap(self, world: np.ndarray) -> float:
        """Share of the points that fall into the moving volume."""
        matrix = self.from_world @ world
        at = self.points @ matrix[:3, :3].T + matrix[:3, 3]
        return float(((at >= -0.5) & (at <= np.array(self.volume.shape) - 0.5)).all(-1).mean())


def _unit(x: np.ndarray) -> np.ndarray:
    """From 0 to 1."""
    low, high = float(x.min()), float(x.max())
    return np.ascontiguousarray((x - low) / max(high - low, 1e-30), dtype=np.float32)


def _ways(fixed: Grid, moving: Grid, within: Tensor | None) -> list[_Match]:
    """There and back, so that it does not matter which is the fixed one; within a part of it only there."""
    there = _Match(fixed, moving, within=within)
    return [there, _Match(moving, fixed)] if within is None else [there]


def _climb(ways: Sequence[_Match], centre: Tensor, start: np.ndarray, steps: int) -> tuple[float, np.ndarray]:
    """Minus the mutual information, less what growth costs, where it is best near `start`; the parameters."""

    def value_and_slope(p: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            x = torch.from_numpy(p).requires_grad_()
            world = matrix_of(x, centre)
            linear = _STIFFNESS * (x[6:] / _RADIUS).square().sum()  # has the slope of what is lost
            lost = float(linear.detach())
            for match, through in zip(ways, (world, torch.linalg.inv(world)), strict=False):
                value, by_map = match(through.detach().numpy())
                lost -= value / len(ways)
                linear = linear - (through[:3] * torch.from_numpy(by_map)).sum() / len(ways)
            (slope,) = torch.autograd.grad(linear, x)
        return lost, slope.numpy()

    found = scipy.optimize.minimize(
        value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": 1e-7}
    )
    return float(found.fun), found.x


def agreement(fixed: Grid, moving: Grid, world: np.ndarray, within: Tensor | None = None) -> float:
    """Mean squared local correlation over the whole fixed grid; nothing where the moving one does not reach.

    Flat windows count as nothing, too. Blind to shading and to which tissue is brighter. With `within`, that
    part of the fixed grid is looked at alone.
    """
    u = linear_field(np.linalg.inv(moving.affine) @ world @ fixed.affine, fixed.data.shape, fixed.data)
    reached = inside(u, moving.data.shape).to(fixed.data.dtype)
    if within is not None:
        reached = reached * within
    f, m = fixed.data - fixed.data.mean(), warp(moving.data, u)
    m = m - m.mean()
    sums = box(torch.stack([reached * x for x in (torch.ones_like(f), f, m, f * f, m * m, f * m)]), _WINDOW)
    mf, mm, ff, mm2, fm = sums[1:] / sums[0].clamp(min=1)
    vf, vm = (
        (ff - mf * mf).clamp(min=0) + floor_of(f, _FLAT),
        (mm2 - mm * mm).clamp(min=0) + floor_of(m, _FLAT),
    )
    alike = reached * (fm - mf * mm) ** 2 / (vf * vm)
    return float((alike if within is None else alike[within]).mean())


def _starts(fixed: Grid, moving: Grid) -> list[np.ndarray]:
    """Rotations about the centres, with the shift of the headers and that of the centres of mass."""
    shifts = [np.zeros(3), moving.centre_of_mass() - fixed.centre_of_mass(), moving.middle() - fixed.middle()]
    starts: list[np.ndarray] = []
    for shift in shifts:
        if any(np.linalg.norm(shift - s[3:]) < 1 for s in starts):
            continue
        for angles in sorted(itertools.product(_ANGLES, repeat=3), key=lambda a: float(np.abs(a).sum())):
            starts.append(np.r_[np.array(angles) * _RADIUS, shift])
    return starts


def align(fixed: Grid, moving: Grid, model: str = "affine") -> np.ndarray:
    """The world map that takes fixed points to moving points.

    Parameters
    ----------
    fixed, moving
        The volumes and where they lie, on any grids.
    model
        `none`, `rigid` (6 parameters) or `affine` (12).

    Returns
    -------
    ndarray
        (4, 4), mm; the identity where nothing was found that is clearly better than the headers.

    Raises
    ------
    ValueError
        An unknown model, or volumes that do not overlap whatever is tried.

    References
    ----------
    Mattes et al., PET-CT image registration in the chest using free-form deformations, IEEE Trans. Med.
    Imaging 22, 2003, doi:10.1109/TMI.2003.809072.
    """
    if model not in MODELS:
        raise ValueError(f"the affine stage is one of {', '.join(MODELS)}, got {model!r}")
    if model == "none":
        return np.eye(4)
    scale = max(1.0, _HEAD_MM / min(fixed.extent(), moving.extent()))
    grids = fixed.scaled(scale), moving.scaled(scale)
    found = _aligned(*grids, model)
    sizes = [g.object_size() for g in grids]
    if part(*sizes):
        found = (
            _part_aligned(*grids, model, found)
            if sizes[0] < sizes[1]
            else np.linalg.inv(_part_aligned(*grids[::-1], model, np.linalg.inv(found)))
        )
    found[:3, 3] /= scale
    return found


def _part_aligned(fixed: Grid, moving: Grid, model: str, known: np.ndarray) -> np.ndarray:
    """The map of an object that is a part of the other: the better of one for it alone and a known one."""
    fine = fixed.coarsened(_FINE_MM), moving.coarsened(_FINE_MM)
    within = solid(fine[0].data)
    found = _aligned(fixed, moving, model, within=True)
    return max((known, found), key=lambda world: agreement(*fine, world, within))


def _aligned(fixed: Grid, moving: Grid, model: str, *, within: bool = False) -> np.ndarray:
    """The same of volumes that are at least as large as a head; `within` looks at the fixed object alone."""
    centre = torch.from_numpy(fixed.centre_of_mass())
    grids = fixed.coarsened(_COARSE_MM), moving.coarsened(_COARSE_MM)
    inner = solid(grids[0].data) if within else None
    rough = _Match(*grids, _TRIAL_POINTS, inner)
    most = min(1.0, moving.size() / fixed.size())  # of the fixed volume that the moving one can reach
    tried = []
    for start in _starts(*grids):
        world = matrix_of(torch.from_numpy(start), centre).numpy()
        if rough.overlap(world) >= most * _LEAST_OVERLAP:
            tried.append((-rough(world)[0], tuple(start)))
    if not tried:
        raise ValueError(
            "the two volumes do not overlap, not even with their centres laid upon one another; look at "
            "their voxel sizes and affines"
        )
    coarse = _ways(*grids, inner)
    best = min(
        (_climb(coarse, centre, np.array(s), 30) for _, s in sorted(tried)[:_KEPT]), key=lambda r: r[0]
    )[1]
    fine = fixed.coarsened(_FINE_MM), moving.coarsened(_FINE_MM)
    inner = solid(fine[0].data) if within else None
    exact, header = _ways(*fine, inner), np.eye(4)
    starts = [best]  # an affine map first; a rigid one where that is none to believe
    if model == "affine":
        starts.insert(0, _climb(coarse, centre, np.r_[best, np.zeros(9)], 40)[1])
    here, by_header = rough.overlap(header), agreement(*fine, header, inner)
    for start in starts:
        found = matrix_of(torch.from_numpy(_climb(exact, centre, start, 60)[1]), centre).numpy()
        if not _plausible(found):
            continue
        if here < most * _LEAST_OVERLAP:
            return found
        wanted = (_ALIKE + _PER_LOSS * max(here - rough.overlap(found), 0.0)) * by_header
        if agreement(*fine, found, inner) > max(wanted, most * _CHANCE):
            return found
    return header


def _plausible(world: np.ndarray) -> bool:
    """Whether no direction grows or shrinks more than things of one kind differ in size."""
    growth = np.linalg.svd(world[:3, :3], compute_uv=False)
    return bool(growth[0] <= _MOST_GROWTH and growth[-1] >= 1 / _MOST_GROWTH)
