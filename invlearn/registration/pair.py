"""Register one volume to another: affine, then a diffeomorphism, with its inverse."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from invlearn.io.itk import voxels_to_millimetres
from invlearn.io.nifti import Volume, check_affine, read_volume
from invlearn.io.tensors import as_tensor
from invlearn.registration import affine as affine_stage
from invlearn.registration import metrics
from invlearn.registration.coefficients import Coefficients, optimise_coefficients
from invlearn.registration.fields import jacobian_determinant, linear_field, warp
from invlearn.registration.harmonise import balance_, harmonise, part, solid
from invlearn.registration.interpolation import inside
from invlearn.registration.middle import carried, undone
from invlearn.registration.optimise import Deformation, Settings, optimise, unfold
from invlearn.registration.similarity import CLIMBED, check_name, seen

#: Similarities that suppose one kind of contrast, which is evened out first.
_ONE_CONTRAST = ("lncc", "mse")
#: Grids are alike whose spacings and edges differ by no more than this share.
_ALIKE = 0.25
#: Of the gain between volumes that are affinely aligned only: what bends more may be anatomy.
_FIRST_DEGREES = (1, 2)
#: What is said of a pair.
_PART = "one object is a part of the other (a brain and a head?): they are compared where both are"
_NO_BETTER = "the deformable stage found nothing better than where it started, and was left out"
#: What a similarity gains must be more.
_ROUNDING = 1e-6
_log = logging.getLogger(__name__)

Registrable = str | os.PathLike[str] | Volume | tuple[Any, Any] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Registration:
    """Two volumes brought together.

    Attributes
    ----------
    fixed, moving
        What was registered.
    warped
        The moving volume on the fixed grid.
    affine
        (4, 4), mm, RAS: the world map of the affine stage, from fixed to moving points.
    deformation
        ``(3, D, H, W)`` in fixed voxels: the deformable part, ``p + u(p)`` before the affine.
    inverse_deformation
        What undoes it, on the same grid.
    history
        For every grid, coarse to fine: its shape and the similarity at every step.
    similarity
        The name of the similarity, and its value before and after, of what was compared.
    folding_percent
        Share of voxels where the deformation folds.
    sd_log_jacobian
        Standard deviation of ln |J| over all voxels.
    inverse_consistency_mm
        Mean distance of a point from where the deformation and its inverse take it.
    converged
        Whether the finest grid had settled.
    seconds, cpu_seconds
        Of the optimisation (affine, deformation and inverse), on the wall and of all threads.
    notes
        What was assumed or mended, one line each.
    """

    fixed: Volume
    moving: Volume
    warped: Volume
    affine: np.ndarray
    deformation: Float[Tensor, "3 D H W"]
    inverse_deformation: Float[Tensor, "3 D H W"]
    history: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]
    similarity: tuple[str, float, float]
    folding_percent: float
    sd_log_jacobian: float
    inverse_consistency_mm: float
    converged: bool
    seconds: float
    cpu_seconds: float
    notes: tuple[str, ...] = ()

    def forward_field(self) -> Float[np.ndarray, "3 D H W"]:
        """On the fixed grid, mm, RAS: from fixed points to moving points, the affine included."""
        field = self.voxel_field().cpu().numpy()
        return voxels_to_millimetres(field, self.fixed.affine, self.moving.affine)

    def inverse_field(self) -> Float[np.ndarray, "3 d h w"]:
        """On the moving grid, mm, RAS: from moving points to fixed points, the affine included."""
        back = np.linalg.inv(self.fixed.affine) @ np.linalg.inv(self.affine) @ self.moving.affine
        start = linear_field(back, self.moving.shape, self.inverse_deformation)
        rest = warp(self.inverse_deformation, start)
        return voxels_to_millimetres((start + rest).cpu().numpy(), self.moving.affine, self.fixed.affine)

    def voxel_field(self) -> Float[Tensor, "3 D H W"]:
        """On the fixed grid, in voxels of the moving one: what `fields.warp` takes, the affine included."""
        there = np.linalg.inv(self.moving.affine) @ self.affine @ self.fixed.affine
        return mapped(self.deformation, there)

    def warp(self, moving: Volume, mode: str = "linear") -> Volume:
        """Another channel or label map on the moving grid, brought onto the fixed grid; zero outside."""
        if moving.shape != self.moving.shape or not np.allclose(moving.affine, self.moving.affine, atol=1e-3):
            raise ValueError(
                f"a volume of shape {moving.shape} lies on another grid than the moving volume, "
                f"{self.moving.shape}, or at another place; resample it first"
            )
        data = torch.from_numpy(np.ascontiguousarray(moving.data))
        result = warp(data, self.voxel_field().cpu(), mode, outside=0.0)
        return self.fixed.like(result.numpy())

    def jacobian(self) -> Float[np.ndarray, "D H W"]:
        """The determinant of the deformable part on the fixed grid."""
        return jacobian_determinant(self.deformation).cpu().numpy()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; all but the volumes and fields."""
        name, before, after = self.similarity
        return {
            "similarity": {"name": name, "before": before, "after": after},
            "affine": self.affine.tolist(),
            "folding_percent": self.folding_percent,
            "sd_log_jacobian": self.sd_log_jacobian,
            "inverse_consistency_mm": self.inverse_consistency_mm,
            "converged": self.converged,
            "history": [{"shape": list(shape), "similarity": list(values)} for shape, values in self.history],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "notes": list(self.notes),
        }


def mapped(u: Float[Tensor, "3 D H W"], matrix: np.ndarray) -> Float[Tensor, "3 D H W"]:
    """The displacement of ``p -> matrix (p + u(p))``: first the field, then the matrix."""
    linear = torch.as_tensor(matrix[:3, :3], dtype=torch.float64).to(u)
    return linear_field(matrix, u.shape[1:], u) + torch.einsum("ij,jdhw->idhw", linear, u)


def as_volume(given: Registrable, name: str) -> Volume:
    """A file, a volume, an array with its affine, or an array alone (1 mm voxels), as a volume."""
    if isinstance(given, Volume):
        volume = given
    elif isinstance(given, str | os.PathLike):
        volume = read_volume(given)
    elif isinstance(given, tuple):
        if len(given) != 2:
            raise ValueError(f"the {name} volume is a pair (array, affine), got {len(given)} things")
        volume = Volume(_array(given[0], name), np.asarray(given[1], dtype=np.float64))
    else:
        volume = Volume(_array(given, name), np.eye(4), note="no affine was given: voxels of 1 mm")
    if volume.data.ndim != 3:
        raise ValueError(
            f"the {name} volume has {volume.data.ndim} dimensions, {volume.data.shape}, where 3 are needed; "
            "pick one volume or stack the slices"
        )
    if volume.data.dtype.kind not in "iufb":
        raise TypeError(f"the {name} volume is real numbers, got {volume.data.dtype}; take its magnitude")
    return volume


def _array(x: object, name: str) -> np.ndarray:
    return as_tensor(x, f"the {name} volume").detach().cpu().numpy()


def _prepared(volume: Volume, name: str, device: torch.device) -> tuple[Tensor, list[str]]:
    """Finite float32 samples between 0 and about 1, and what had to be mended."""
    notes = [f"{name}: {volume.note}"] if volume.note else []
    x = torch.from_numpy(np.array(volume.data, np.float64, order="C"))
    good = torch.isfinite(x)
    if not bool(good.all()):
        bad = int((~good).sum())
        if bad == x.numel():
            raise ValueError(f"the {name} volume has no finite voxel; look at how it was made")
        notes.append(f"{name}: {bad} voxels are NaN or infinite, and count as the smallest value")
        x = torch.where(good, x, x[good].min())
    values = x.flatten()[:: max(1, x.numel() // 200_000)].sort().values
    low, high = float(values[int(0.002 * (len(values) - 1))]), float(values[int(0.998 * (len(values) - 1))])
    if not high > low:
        low, high = float(x.min()), float(x.max())
    if not high > low:
        raise ValueError(f"the {name} volume is constant ({low:g}): there is nothing to match")
    # a few voxels of extreme brightness would otherwise leave no contrast for the rest
    x = ((x - low) / (high - low)).clamp(-0.5, 2)
    return x.to(torch.float32).to(device), notes


def register(
    fixed: Registrable,
    moving: Registrable,
    *,
    affine: str | np.ndarray = "affine",
    similarity: str = "lncc",
    iterations: int | Sequence[int] | None = None,
    settings: Settings | Coefficients | None = None,
    initial: Float[Tensor, "3 D H W"] | None = None,
    symmetric: bool = True,
    device: str | torch.device = "cpu",
) -> Registration:
    """Bring a moving volume onto a fixed one: rigid or affine, then diffeomorphic.

    Parameters
    ----------
    fixed, moving
        Files (`.nii`, `.nii.gz`), `Volume` objects, pairs (array, affine), or arrays or tensors
        ``(D, H, W)`` alone, whose voxels then count as 1 mm. Any orientation, spacing and size.
    affine
        `none`, `rigid`, `affine`, or a (4, 4) world map in mm, RAS, from fixed to moving points.
    similarity
        Of the deformable stage: `lncc`, `mse` (equal contrast), `mi` or `mind` (other contrast).
    iterations
        Steps at most: one number for every grid, or one a grid from coarse to fine; 0 stops after the
        affine stage. None takes the defaults.
    settings
        The parameterisation of the deformable stage and how it moves: `Settings`, many small maps composed;
        or `Coefficients`, a stationary velocity in wavelet coefficients. None takes the former.
    initial
        A field ``(3, D, H, W)`` in voxels of the fixed grid to start from, such as `WiNet`'s prediction.
    symmetric
        Whether ``register(b, a)`` is to be the inverse of ``register(a, b)``, on grids that are alike
        (spacings and edges within a quarter): the smaller object is the reference then, whatever their
        order. If not, and where an `initial` field is given, the fixed one is.
    device
        Where to compute.

    Returns
    -------
    Registration
        The warped volume, the fields of both directions, and how good they are.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        Files that are missing or damaged; not three-dimensional or not real; constant volumes; singular
        affines; volumes that do not overlap; an unknown name.
    """
    check_name(similarity)
    f, m = as_volume(fixed, "fixed"), as_volume(moving, "moving")
    device = torch.device(device)
    (x, notes), (y, more) = _prepared(f, "fixed", device), _prepared(m, "moving", device)
    start, affine = _checked_initial(initial, f.shape), _checked_map(affine)
    climb = _stage(settings, similarity, iterations)
    _compile()
    clock = time.process_time(), time.perf_counter()
    sides = (f, x), (m, y)
    turned = symmetric and start is None and _other_way_round(*sides)
    del x, y
    if turned:
        sides, affine = sides[::-1], affine if isinstance(affine, str) else np.linalg.inv(affine)
    matrix, found, values, said = _together(sides, affine, climb, start)
    if turned:
        onto, matrix = np.linalg.inv(m.affine) @ np.linalg.inv(matrix) @ f.affine, np.linalg.inv(matrix)
        there, back = (
            (carried(u, onto, f.shape) for u in (found.inverse, found.field))
            if found.middle is None
            else found.middle.turned(onto, f.shape)
        )
        found = dataclasses.replace(found, field=unfold(there), inverse=unfold(back))
        del there, back
    found = dataclasses.replace(found, middle=None)  # its room is wanted
    spent = time.process_time() - clock[0], time.perf_counter() - clock[1]
    if isinstance(affine, str) and affine != "none" and np.array_equal(matrix, np.eye(4)):
        notes.append("nothing was found that is clearly better than where the headers put the two volumes")
    return _result((f, m), matrix, found, (similarity, *values), spent, (*notes, *more, *said))


def _other_way_round(fixed: tuple[Volume, Tensor], moving: tuple[Volume, Tensor]) -> bool:
    """Whether the second is the reference, so that the order of a pair does not matter.

    The smaller object is: all of it has a partner, and its size does not depend on its contrast. Where both
    have one size, or nothing tells them from a background, the brighter volume. On grids that are not alike,
    the first always is.
    """
    measures = [_measures(v) for v, _ in (fixed, moving)]
    if np.abs(np.log(measures[0] / measures[1])).max() >= np.log(1 + _ALIKE):
        return False
    sizes = [affine_stage.Grid(x, v.affine).object_size() for v, x in (fixed, moving)]
    ours, theirs = (
        (size if min(sizes) > 0 else 0.0, -float(x.double().mean()))
        for size, (_, x) in zip(sizes, (fixed, moving), strict=True)
    )
    return theirs < ours


def _measures(volume: Volume) -> np.ndarray:
    """Spacings and edges in mm, whatever the order of the axes."""
    spacing = np.array(volume.spacing)
    return np.r_[np.sort(spacing), np.sort(spacing * volume.shape)]


def _together(
    sides: tuple[tuple[Volume, Tensor], ...],
    affine: str | np.ndarray,
    climb: functools.partial[Deformation],
    start_from: Tensor | None,
) -> tuple[np.ndarray, Deformation, tuple[float, float], list[str]]:
    """The world map, the field on the grid of the first volume, the similarity before and after, notes."""
    (f, x), (m, y) = sides
    matrix = _world_map(affine, x, y, f, m)
    onto = np.linalg.inv(m.affine) @ matrix @ f.affine
    start = linear_field(onto, f.shape, x)
    _require_overlap(start, m.shape)
    begun, mask = brought(y, onto, f.shape), _compared(sides, matrix, start)
    del start, y
    if climb.keywords["similarity"] in _ONE_CONTRAST:
        x, begun = harmonise(x, begun, f.spacing, degrees=_FIRST_DEGREES)
        balance_(x, f.spacing, begun)
    climb = functools.partial(climb, spacing=f.spacing)
    return matrix, *_deformed(x, begun, mask, climb, start_from)


def brought(y: Float[Tensor, "d h w"], matrix: np.ndarray, shape: Sequence[int]) -> Float[Tensor, "D H W"]:
    """A volume on another grid, whose voxels q are at ``p = matrix q``, by cubic splines within its range.

    Linear weights would blur the one volume and not the other, and what is blurred seems to have shrunk.
    """
    if tuple(shape) == tuple(y.shape) and np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9):
        return y
    found = ndimage.affine_transform(
        y.cpu().numpy(), matrix[:3, :3], matrix[:3, 3], tuple(shape), np.float32, order=3, mode="nearest"
    )
    return torch.from_numpy(found).to(y).clamp_(y.min(), y.max())


def _compared(sides: tuple[tuple[Volume, Tensor], ...], matrix: np.ndarray, start: Tensor) -> Tensor | None:
    """Where to compare two aligned volumes: everywhere; if one object is a part of the other, where both are.

    What the other has besides has no partner: a skull would be pulled out of a brain without one.
    """
    (f, x), (m, y) = sides
    sizes = [affine_stage.Grid(data, v.affine).object_size() for v, data in sides]
    if not part(sizes[0], sizes[1] / abs(np.linalg.det(matrix[:3, :3]))):
        return None
    ours, theirs = solid(x, f.spacing), solid(y, m.spacing)
    if ours is None or theirs is None:
        return None
    both = ours & (warp(theirs.to(x), start, outside=0.0) > 0.5)
    return both if bool(both.any()) else None


def _deformed(
    x: Tensor,
    begun: Tensor,
    mask: Tensor | None,
    climb: functools.partial[Deformation],
    start_from: Tensor | None,
) -> tuple[Deformation, tuple[float, float], list[str]]:
    """The deformable stage between aligned volumes; the similarity before and after, and notes."""
    similarity = CLIMBED[climb.keywords["similarity"]]

    @torch.no_grad()
    def alike(field: Tensor | None) -> float:
        return float(similarity(seen(x, mask), seen(begun if field is None else warp(begun, field), mask)))

    start = None if start_from is None else start_from.to(x)
    if mask is not None and start is not None:
        mask = warp(mask.to(x), start) > 0.5
    found = climb(x, begun, initial=start, mask=mask)
    notes = [] if mask is None else [_PART]
    before, after = alike(None), alike(found.field)
    rest = torch.zeros_like(found.field) if start is None else unfold(start)
    if (least := before if start is None else alike(rest)) > after - _ROUNDING * abs(after):
        found, after = dataclasses.replace(found, field=rest, inverse=undone(rest), middle=None), least
        notes.append(_NO_BETTER)
    return found, (before, after), notes


def _stage(
    settings: Settings | Coefficients | None,
    similarity: str,
    iterations: int | Sequence[int] | None,
) -> functools.partial[Deformation]:
    """The deformable stage in the parameterisation that the settings are for."""
    options: dict[str, Any] = {"similarity": similarity, "iterations": iterations}
    if isinstance(settings, Coefficients):
        return functools.partial(optimise_coefficients, settings=settings, **options)
    return functools.partial(optimise, settings=settings, one_contrast=similarity in _ONE_CONTRAST, **options)


def _compile() -> None:
    """Load the kernels, or compile them once a machine, before the clock starts."""
    from invlearn.registration import loops, points

    _log.debug("kernels of %s and %s are ready", loops.__name__, points.__name__)


def _checked_map(affine: str | np.ndarray) -> str | np.ndarray:
    """The name of an affine stage, or a map that is one."""
    if isinstance(affine, str):
        return affine
    matrix = np.array(affine, dtype=np.float64)
    check_affine(matrix, "the affine map that was given")
    return matrix


def _world_map(affine: str | np.ndarray, x: Tensor, y: Tensor, f: Volume, m: Volume) -> np.ndarray:
    """The affine stage, or the map that was given."""
    if not isinstance(affine, str):
        return affine
    return affine_stage.align(affine_stage.Grid(x, f.affine), affine_stage.Grid(y, m.affine), affine)


def _require_overlap(start: Tensor, shape: Sequence[int]) -> None:
    if not bool(inside(start, torch.Size(shape)).any()):
        raise ValueError(
            "the two volumes do not overlap in space; look at their affines, or let the affine stage bring "
            "them together (affine='rigid' or 'affine')"
        )


def _checked_initial(initial: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    if initial is not None and tuple(initial.shape) != (3, *shape):
        raise ValueError(
            f"the initial field is (3, {', '.join(map(str, shape))}) in voxels of the fixed grid, got "
            f"{tuple(initial.shape)}"
        )
    return initial


def _result(
    volumes: tuple[Volume, Volume],
    matrix: np.ndarray,
    found: Deformation,
    similarity: tuple[str, float, float],
    spent: tuple[float, float],
    notes: Sequence[str],
) -> Registration:
    fixed, moving = volumes
    folding = metrics.folding_percent(found.field)
    if folding:
        _log.warning("%.2g %% of the voxels fold", folding)
    partial = Registration(
        fixed=fixed,
        moving=moving,
        warped=fixed,
        affine=matrix,
        deformation=found.field,
        inverse_deformation=found.inverse,
        history=found.history,
        similarity=similarity,
        folding_percent=folding,
        sd_log_jacobian=metrics.sd_log_jacobian(found.field),
        inverse_consistency_mm=metrics.inverse_consistency(found.field, found.inverse, fixed.spacing),
        converged=found.converged,
        cpu_seconds=spent[0],
        seconds=spent[1],
        notes=tuple(notes),
    )
    return dataclasses.replace(partial, warped=partial.warp(moving))
