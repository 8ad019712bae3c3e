"""T1, T2 and proton density of every voxel from its coefficients, with standard errors.

A voxel's coefficients are x = ρ a(T1, T2, B1) + noise with a complex ρ. The best atom of the dictionary
maximises |<a, x>| / ‖a‖; from there a Gauss-Newton fit moves between the grid points. Standard errors are the
square roots of the diagonal of the inverse Fisher information σ⁻² Re(JᴴJ) of (|ρ|, arg ρ, T1, T2) at the
solution, σ the standard deviation of the real and of the imaginary part of the noise of each coefficient.

Ma et al., Nature 495 (2013) 187, doi:10.1038/nature11971 (matching).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.mri.fingerprint.interpolation import Interpolant
from invlearn.physics.mri.fingerprint.refine import Model, Region, amplitude, refine_points
from invlearn.physics.mri.fingerprint.search import AtomSearch
from invlearn.physics.space import as_numbers, as_zero_one, complex_dtype, real_dtype

if TYPE_CHECKING:
    from invlearn.physics.mri.fingerprint.dictionary import Dictionary

Refinement = Literal["interpolated", "exact"]
_CHUNK = 1 << 13  # voxels refined at a time
_ITERATIONS = 30
_COLUMNS = ("t1", "t2", "pd", "b1", "t1_sd", "t2_sd", "pd_sd", "correlation", "residual")


@dataclass(frozen=True, eq=False)
class FingerprintMatch:
    """Maps of `(*image)`, tensors or numpy arrays as the coefficients were; 0 outside `mask`.

    Attributes
    ----------
    t1, t2
        Seconds.
    pd
        Complex proton density times receive phase, in the unit of the data.
    b1
        Factor on the flip angle: given, fitted, or the dictionary's only one.
    t1_sd, t2_sd, pd_sd
        Standard errors: seconds, and of \\|pd\\| in the unit of the data. Infinite where the data does not
        determine the value; NaN where the noise was to be estimated and no degree of freedom is left.
    correlation
        |<a, x>| / (‖a‖ ‖x‖), between 0 and 1.
    residual
        ‖x - pd a‖ / ‖x‖.
    mask
        The voxels that were matched: inside the given mask, with a signal.
    """

    t1: Any
    t2: Any
    pd: Any
    b1: Any
    t1_sd: Any
    t2_sd: Any
    pd_sd: Any
    correlation: Any
    residual: Any
    mask: Any

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the number of voxels and the median of every map over them."""
        mask = np.asarray(self.mask)
        summary: dict[str, Any] = {"voxels": int(mask.sum())}
        for name in ("t1", "t2", "pd", "b1", "t1_sd", "t2_sd", "pd_sd", "correlation", "residual"):
            inside = np.abs(np.asarray(getattr(self, name))[mask])
            median = float(np.median(inside)) if inside.size else math.nan
            summary[f"median_{name}"] = median if math.isfinite(median) else None
        return summary


def _check_coefficients(dictionary: Dictionary, coefficients: Any) -> Tensor:
    x = as_numbers(coefficients, "match: the coefficients")
    if x.ndim < 2 or x.shape[0] != dictionary.rank:
        raise ValueError(
            f"match expects coefficients (K, *image) with K = {dictionary.rank}, the rank of the dictionary, "
            f"got {tuple(x.shape)}"
        )
    return x.to(complex_dtype(x.dtype))


def _over_image(value: Any, x: Tensor, name: str) -> Tensor:
    """A number or map as a flat float64 map, finite and positive where it must be."""
    if isinstance(value, int | float):
        value = torch.tensor(float(value), dtype=torch.float64)
    value = as_numbers(value, f"match: {name}").to(x.device, torch.float64)
    try:
        return value.expand(x.shape[1:]).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"match: {name} must be a number or a map {tuple(x.shape[1:])}, as the image, "
            f"got {tuple(value.shape)}"
        ) from None


def _check_mask(mask: Any, x: Tensor) -> Tensor:
    signal = x.flatten(1).abs().amax(0) > 0
    if mask is None:
        return signal
    mask = as_zero_one(mask, "match: mask").to(x.device)
    if mask.shape != x.shape[1:]:
        raise ValueError(f"match: mask must be {tuple(x.shape[1:])}, as the image, got {tuple(mask.shape)}")
    return mask.reshape(-1) & signal


def _known_b1(dictionary: Dictionary, b1: Any, x: Tensor, inside: Tensor) -> Tensor | None:
    """B1 of the voxels inside the mask, or None where it is to be fitted."""
    axis = dictionary.grid.b1.to(x.device)
    if b1 is None:
        return axis.expand(int(inside.sum())) if len(axis) == 1 else None
    if len(axis) == 1:
        raise ValueError(
            "match: a b1 map needs a dictionary with a B1 axis; build it with "
            "Grid.logarithmic(b1=[0.7, 0.8, ..., 1.3])"
        )
    known = _over_image(b1, x, "b1")[inside]
    if len(known) and not bool(((known >= axis[0]) & (known <= axis[-1])).all()):
        raise ValueError(
            f"match: b1 runs from {float(known.min()):g} to {float(known.max()):g} inside the mask, the "
            f"dictionary from {float(axis[0]):g} to {float(axis[-1]):g}; widen its grid or mask those voxels"
        )
    return known


def _search(dictionary: Dictionary, x: Tensor, b1: Tensor | None) -> Tensor:
    """Best atom `(n,)` of each voxel `(n, K)`: among those of the nearest B1 where it is known."""
    x = x.to(torch.complex64)
    dtype = torch.complex64 if dictionary.basis.is_complex() else torch.float32
    atoms = dictionary.atoms.to(x.device, dtype)
    planes = dictionary.grid.b1.to(x.device)
    if b1 is None or len(planes) == 1:
        return AtomSearch(atoms)(x)
    nearest = (b1[:, None] - planes).abs().argmin(1)
    best = torch.zeros_like(nearest)
    size = len(atoms) // len(planes)
    for plane in nearest.unique().tolist():
        voxels = nearest == plane
        start = plane * size
        best[voxels] = start + AtomSearch(atoms[start : start + size])(x[voxels])
    return best


def _exact(dictionary: Dictionary) -> Model:
    """The signal by simulation, where the interpolant takes it from the grid."""
    from invlearn.physics.mri.bloch import simulate

    basis = dictionary.basis.conj()
    names = ("t1", "t2", "b1") if len(dictionary.grid.b1) > 1 else ("t1", "t2")

    def model(point: Tensor) -> tuple[Tensor, Tensor]:
        t1 = point[:, 0].exp()
        t2, b1 = torch.minimum(point[:, 1].exp(), t1), point[:, 2]
        signals, slopes = cast(
            tuple[Tensor, Tensor], simulate(dictionary.sequence, t1, t2, b1, derivatives=names)
        )
        raw = torch.cat([signals[None], slopes]) / dictionary.phase
        atoms, *found = (raw if basis.is_complex() else raw.real).to(point.device) @ basis.to(point.device)
        by_b1 = found[2] if len(names) == 3 else torch.zeros_like(atoms)
        return atoms, torch.stack([found[0] * t1[:, None], found[1] * t2[:, None], by_b1], 1)

    return model


def _region(dictionary: Dictionary, b1: Tensor | None, count: int, device: torch.device) -> Region:
    grid = dictionary.grid
    ends = [
        torch.stack([grid.t1[end].log(), grid.t2[end].log(), grid.b1[end]])
        .to(device)
        .expand(count, 3)
        .clone()
        for end in (0, -1)
    ]
    if b1 is not None:
        for end in ends:
            end[:, 2] = b1
    return Region(*ends)


def _standard_errors(x: Tensor, model: Model, point: Tensor, fitted: int) -> tuple[Tensor, Tensor, Tensor]:
    """ρ `(n,)`, standard errors of |ρ|, T1 and T2 `(n, 3)` at σ = 1, and ‖x - ρ a‖² `(n,)`.

    `fitted` of the three nonlinear parameters were fitted.
    """
    atoms, slopes = model(point)
    rho = amplitude(atoms, x)
    turned = torch.sgn(rho)[:, None] * atoms
    columns = [turned, 1j * turned, *(rho[:, None] * slopes[:, i] for i in range(fitted))]
    jacobian = torch.stack(columns, -1)
    # columns of unit length: the inverse is then as good as the problem allows
    length = torch.linalg.vector_norm(jacobian, dim=1)
    jacobian = jacobian / length.clamp_min(torch.finfo(length.dtype).tiny)[:, None]
    inverse, info = torch.linalg.inv_ex(torch.real(jacobian.mH @ jacobian))
    variance = torch.diagonal(inverse, dim1=-2, dim2=-1)
    determined = (info == 0)[:, None] & (variance > 0) & (length > 0)
    sd = torch.where(determined, variance.abs().sqrt() / length, math.inf)
    sd = torch.stack([sd[:, 0], sd[:, 2] * point[:, 0].exp(), sd[:, 3] * point[:, 1].exp()], -1)
    return rho, sd, (x - rho[:, None] * atoms).abs().square().sum(-1)


def _check_refine(refine: bool | str) -> str | None:
    if isinstance(refine, str):
        if refine not in get_args(Refinement):
            raise ValueError(f"match: refine is True, False, 'interpolated' or 'exact', got {refine!r}")
        return refine
    return "interpolated" if refine else None


def _fit(
    dictionary: Dictionary, x: Tensor, b1: Tensor | None, how: str | None, sigma: Tensor | None
) -> Tensor:
    """Columns of `_COLUMNS` `(n, 9)`, complex128, of voxels `(n, K)` that have a signal."""
    start = dictionary.parameters.to(x.device)[_search(dictionary, x, b1)]
    start = torch.cat([start[:, :2].log(), (start[:, 2] if b1 is None else b1)[:, None]], 1)
    interpolant = Interpolant(dictionary.grid, dictionary.nodes.to(x.device))
    model = _exact(dictionary) if how == "exact" else interpolant
    fitted = 3 if b1 is None else 2
    freedom = 2 * dictionary.rank - 2 - fitted
    parts = []
    for first in range(0, len(x), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        # in units of the voxel's own length, whatever the unit of the data
        scale = torch.linalg.vector_norm(x[chunk], dim=-1)
        values, point = (x[chunk] / scale[:, None]).to(torch.complex128), start[chunk]
        if how is not None:
            known = None if b1 is None else b1[chunk]
            region = _region(dictionary, known, len(values), x.device)
            point = refine_points(model, values, region.nearest(point), region, _ITERATIONS)
        rho, sd, cost = _standard_errors(values, model, point, fitted)
        if sigma is None:
            noise = (cost / freedom).sqrt() if freedom > 0 else torch.full_like(cost, math.nan)
        else:
            noise = sigma[chunk] / scale
        sd = sd * noise[:, None]
        relative = cost.sqrt()
        parts.append(
            torch.stack(
                [
                    point[:, 0].exp(),
                    point[:, 1].exp(),
                    rho * scale,
                    point[:, 2],
                    sd[:, 1],
                    sd[:, 2],
                    sd[:, 0] * scale,
                    (1 - cost).clamp_min(0).sqrt(),
                    relative,
                ],
                -1,
            )
        )
    return torch.cat(parts) if parts else x.new_zeros(0, 9, dtype=torch.complex128)


def match(
    dictionary: Dictionary,
    coefficients: Tensor | np.ndarray,
    b1: Tensor | np.ndarray | float | None = None,
    refine: bool | str = True,
    noise: Tensor | np.ndarray | float | None = None,
    *,
    mask: Tensor | np.ndarray | None = None,
) -> FingerprintMatch:
    """T1, T2 and proton density of every voxel, with standard errors.

    Voxels are taken in chunks; beside the coefficients and the maps, memory is bounded by some 500 MB.

    Parameters
    ----------
    dictionary
        The signals.
    coefficients
        `(K, *image)`, complex (real is taken as complex): basisᴴ signal of every voxel.
    b1
        A known factor on the flip angle, a number or `(*image)`, for a dictionary with a B1 axis: voxels are
        matched at the nearest value and refined at their own. None fits it where there is an axis.
    refine
        True or `"interpolated"`: between the grid points on the interpolated dictionary. `"exact"`: by
        simulation of every voxel in every step, the same to well below the standard error, and slow. False:
        the best atom.
    noise
        Standard deviation of the real (and of the imaginary) part of the noise of each coefficient, a number
        or `(*image)`. None estimates it in every voxel from its residual, over 2K - 4 degrees of freedom (one
        less with a fitted B1).
    mask
        `(*image)`, 0 or 1: where to match.

    Returns
    -------
    FingerprintMatch
        Maps `(*image)` in the precision of the coefficients.

    Raises
    ------
    ValueError
        Shapes that do not fit, NaN or infinite coefficients, a negative noise, B1 outside the dictionary.
    TypeError
        Half precision, or not an array.
    """
    x = _check_coefficients(dictionary, coefficients)
    inside = _check_mask(mask, x)
    how = _check_refine(refine)
    known = _known_b1(dictionary, b1, x, inside)
    sigma = None
    if noise is not None:
        sigma = _over_image(noise, x, "noise")[inside]
        if bool((sigma < 0).any()):
            raise ValueError(f"match: noise is a standard deviation, got {float(sigma.min()):g}")
    with torch.no_grad():
        columns = _fit(dictionary, x.flatten(1).T[inside], known, how, sigma)
    maps: dict[str, Any] = {}
    for name, values in zip(_COLUMNS, columns.unbind(-1), strict=True):
        dtype = x.dtype if name == "pd" else real_dtype(x.dtype)
        whole = torch.zeros(inside.shape, dtype=dtype, device=x.device)
        whole[inside] = (values / dictionary.phase if name == "pd" else values.real).to(dtype)
        maps[name] = whole.reshape(x.shape[1:])
    maps["mask"] = inside.reshape(x.shape[1:])
    if isinstance(coefficients, np.ndarray):
        maps = {name: value.numpy() for name, value in maps.items()}
    return FingerprintMatch(**maps)
