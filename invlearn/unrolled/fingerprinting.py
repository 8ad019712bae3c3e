"""T1, T2 and proton-density maps from a fingerprinting scan, in one call."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.scans import Scan
from invlearn.physics.mri import coils
from invlearn.physics.mri.fingerprint import Dictionary, FingerprintMatch, FingerprintOperator, Grid
from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.physics.solvers import Solution
from invlearn.unrolled.pgdnet import Estimate, Measured, PGDNet
from invlearn.unrolled.pgdnet_weights import load_pgdnet, require_sequence, weights_for
from invlearn.unrolled.pixelwise import amplitude, standard_errors
from invlearn.unrolled.subspace import Method, Progress, SubspaceProblem, method_by_name

DEFAULT_METHOD = "subspace"
_B1_STEP = 0.05
_COIL_GRID = 96  # largest grid on which coil maps are estimated; they are smooth
#: Share of the dictionary's energy in the subspace: what is left out must drown in the noise, in the
#: frames after the inversion too, where signals differ most.
_ENERGY = 0.99998


@dataclass(frozen=True, eq=False)
class FingerprintMaps:
    """Maps `(*image)` and how they were made; numpy arrays.

    Attributes
    ----------
    t1, t2
        In s; 0 where no coil sees anything.
    pd
        Complex proton density times receive phase, in the unit of the data; the coils' total
        sensitivity is in it when the coil maps were estimated.
    t1_sd, t2_sd, pd_sd
        Standard errors (s, s, and of \\|pd\\|) that the noise leaves in an estimate without
        regularisation and without folding; the smoothing by a prior is not in them.
    images
        Subspace coefficients `(K, *image)`, complex64.
    correlation
        How well a voxel's signal is one of the dictionary, 0 ... 1.
    coil_maps
        `(C, *image)`.
    sequence
        What was played.
    noise
        Standard deviation of the complex noise of a k-space sample, with whatever the model cannot
        explain, in the unit of the data.
    residual
        ‖y - Ax‖/‖y‖.
    converged, iterations, residuals
        Of the solver; its own measure of convergence step by step.
    settings
        Method and its settings, rank, number of atoms.
    """

    t1: np.ndarray
    t2: np.ndarray
    pd: np.ndarray
    t1_sd: np.ndarray
    t2_sd: np.ndarray
    pd_sd: np.ndarray
    images: np.ndarray
    correlation: np.ndarray
    coil_maps: np.ndarray
    sequence: FingerprintSequence
    noise: float
    residual: float
    converged: bool
    iterations: int
    residuals: tuple[float, ...]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; all but the arrays and the sequence."""
        names = ("noise", "residual", "converged", "iterations", "settings")
        return {name: getattr(self, name) for name in names} | {"residuals": list(self.residuals)}


def sequence_of(scan: Scan) -> FingerprintSequence:
    """The sequence as the scan's header tells it: pulses about one axis, FISP.

    Raises
    ------
    ValueError
        Flip angles, TR or TE are not in the scan.
    """
    missing = [name for name in ("flip_angle", "tr", "te") if getattr(scan, name) is None]
    if missing:
        raise ValueError(
            f"the scan does not say its {', '.join(missing)}; give the sequence (--sequence CSV with the "
            "header flip_angle_deg,phase_deg,tr_s,te_s and a row a frame)"
        )
    trains = (np.broadcast_to(getattr(scan, name), scan.frames) for name in ("flip_angle", "tr", "te"))
    flip, tr, te = trains
    return FingerprintSequence(flip, np.zeros(scan.frames), tr, te, inversion_time=scan.inversion_time)


def reconstruct_fingerprints(
    scan: Scan,
    method: str | Method | PGDNet = DEFAULT_METHOD,
    *,
    weights: str | os.PathLike[str] | None = None,
    sequence: FingerprintSequence | None = None,
    dictionary: Dictionary | None = None,
    rank: int | None = None,
    coil_maps: np.ndarray | Tensor | None = None,
    b1: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = lambda stage: None,
) -> FingerprintMaps:
    """T1, T2 and PD maps, with standard errors, from multi-coil k-space.

    A dictionary is simulated and compressed, coil maps are estimated from the middle of k-space, the
    subspace images are reconstructed, and every voxel is matched and refined between the atoms.

    Parameters
    ----------
    scan
        From `read_scan` or `simulate_scan`.
    method
        `"subspace"` (edge-preserving conjugate gradients, the most accurate), `"llr"` (locally low
        rank), `"adjoint"` (density-compensated, the quickest), `"pgdnet"` (learned), or a `Method` or
        `PGDNet` of one's own. PGD-Net sees no more virtual coils than it takes to hold 99.95 % of the energy.
    weights
        File of `"pgdnet"`; by default those of the package for this sequence.
    sequence
        What was played; by default what the scan says, with all pulses about one axis.
    dictionary
        Of this sequence; built by default. PGD-Net takes none.
    rank
        Dimension of the subspace when the dictionary is built; by default 99.998 % of the energy. PGD-Net
        brings its own.
    coil_maps
        `(C, *image)`; estimated by default.
    b1
        Actual over nominal flip angle, `(*image)`; where it is not positive it counts as 1.
    device
        Where to compute.
    progress
        Called with what is being done.

    Returns
    -------
    FingerprintMaps

    Raises
    ------
    ValueError
        No trajectory, a sequence or dictionary of another length, rank above the frames, coil or B1
        maps of another shape or with NaN, more memory than there is; weights for another sequence or rank,
        none for this one, weights or a dictionary that the method does not use.
    FileNotFoundError
        No such weights.

    Examples
    --------
    >>> maps = reconstruct_fingerprints(read_scan("scan.h5"))  # doctest: +SKIP
    >>> maps.t1, maps.t1_sd                                     # doctest: +SKIP
    """
    if scan.trajectory is None:
        raise ValueError("the scan has no trajectory; give one (--trajectory F), (kx, ky) in cycles a pixel")
    if not scan.kspace.any():
        raise ValueError("k-space is zero everywhere; there is nothing to reconstruct")
    sequence = _sequence(scan, sequence, dictionary)
    field = None if b1 is None else _b1_map(b1, scan.shape)
    given = None if coil_maps is None else _coil_maps(coil_maps, scan)
    way: _Way
    if isinstance(method, PGDNet) or method == "pgdnet":
        if dictionary is not None:
            raise ValueError("PGD-Net takes no dictionary; leave it out")
        way = _Learned.choose(method, weights, sequence, rank)
    elif weights is not None:
        raise ValueError("weights are for the method pgdnet; leave them out, or take that method")
    else:
        solver = method_by_name(method) if isinstance(method, str) else method
        if dictionary is None:
            progress("simulating the dictionary")
            energy = _ENERGY if rank is None else None
            dictionary = Dictionary.build(sequence, _grid(field), rank=rank, energy=energy)
        way = _Matched(solver, dictionary)
    device = torch.device(device)
    # a real basis has real transfer functions, of half the work and memory
    basis = way.basis.to(torch.complex64 if way.basis.is_complex() else torch.float32)
    _require_memory(scan, basis.shape[1])
    kspace, virtual = _virtual_coils(scan.kspace, way.coil_loss)
    if virtual is not None:
        scan = replace(scan, kspace=kspace)
        given = None if given is None else torch.tensordot(virtual, given, 1)
    if given is None:
        progress("estimating coil maps")
    maps = estimated_coil_maps(scan, basis) if given is None else given
    problem = subspace_problem(scan, basis, maps, device, eps=way.eps)
    found, match = way.solve(problem, field, progress)
    x = found.value
    kept = {name: getattr(match, name).cpu().numpy() for name in _MATCHED}
    return FingerprintMaps(
        **kept,
        images=x.cpu().numpy(),
        coil_maps=(maps if virtual is None else torch.tensordot(virtual.mH, maps, 1)).numpy(),
        sequence=sequence,
        noise=problem.noise(x),
        residual=math.sqrt(problem.misfit(x) / problem.energy),
        converged=found.converged,
        iterations=found.iterations,
        residuals=found.residuals,
        settings={**way.settings(), "coil_maps": "estimated" if given is None else "given"},
    )


class _Way(ABC):
    """From data to images and maps."""

    basis: Tensor
    eps: float  # of the non-uniform transform
    coil_loss: float  # share of the energy that virtual coils may leave out; 0 to keep all coils

    @abstractmethod
    def solve(
        self, problem: SubspaceProblem, b1: np.ndarray | None, progress: Progress
    ) -> tuple[Solution[Tensor], FingerprintMatch]:
        """The subspace images, and the maps that they show."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values."""


class _Matched(_Way):
    """Images by a solver, maps by matching them to a dictionary."""

    eps, coil_loss = 1e-6, 0.0

    def __init__(self, solver: Method, dictionary: Dictionary) -> None:
        self.solver, self.dictionary = solver, dictionary
        self.basis = dictionary.basis

    def solve(
        self, problem: SubspaceProblem, b1: np.ndarray | None, progress: Progress
    ) -> tuple[Solution[Tensor], FingerprintMatch]:
        found = self.solver.solve(problem, progress)
        progress("matching")
        sd = _coefficient_sd(problem, problem.noise(found.value))
        return found, self.dictionary.match(found.value, b1, noise=sd, mask=_seen(problem))

    def settings(self) -> dict[str, Any]:
        return {
            **self.solver.to_dict(),
            "rank": self.dictionary.rank,
            "atoms": len(self.dictionary.atoms),
        }


class _Learned(_Way):
    """Maps by PGD-Net, and the images that they make."""

    eps = 1e-4  # well below the noise
    coil_loss = 5e-4

    def __init__(self, network: PGDNet, name: str) -> None:
        self.network, self.name = network, name
        self.basis = network.basis

    @classmethod
    def choose(
        cls,
        method: str | Method | PGDNet,
        weights: str | os.PathLike[str] | None,
        sequence: FingerprintSequence,
        rank: int | None,
    ) -> _Learned:
        """The network that is given, that of a file, or the one of the package for this sequence."""
        if isinstance(method, PGDNet):
            if weights is not None:
                raise ValueError("give a PGDNet or a file of weights, not both")
            network, name = method, "given"
        elif weights is not None:
            network, name = load_pgdnet(weights), os.fspath(weights)
        else:
            network, name = weights_for(sequence), "of invlearn"
        require_sequence(
            network, sequence, rank, "these weights" if name == "given" else f"the weights {name}"
        )
        return cls(network, name)

    def solve(
        self, problem: SubspaceProblem, b1: np.ndarray | None, progress: Progress
    ) -> tuple[Solution[Tensor], FingerprintMatch]:
        progress("PGD-Net")
        network = self.network.to(problem.gain.device).eval()
        field = None if b1 is None else torch.from_numpy(b1).to(problem.gain)
        scan = Measured.of(problem, field)
        network.require_b1(field)
        with torch.no_grad():
            iterates = network(scan)
        last = iterates[-1]
        noise, seen = problem.noise(last.images), _seen(problem)
        problem.solved(last.images, noise, True)
        sd = _coefficient_sd(problem, noise)
        match = _as_match(network, last, sd, seen, field)
        residuals = tuple(i.noise / math.sqrt(problem.energy / scan.samples) for i in iterates)
        return Solution(last.images, True, len(iterates), residuals), match

    def settings(self) -> dict[str, Any]:
        return {
            "method": "pgdnet",
            "iterations": self.network.iterations,
            "rank": self.network.rank,
            "weights": self.name,
        }


def _seen(problem: SubspaceProblem) -> Tensor:
    """Where a coil sees anything."""
    return problem.gain > 1e-6 * problem.gain.max()


def _coefficient_sd(problem: SubspaceProblem, noise: float) -> Tensor:
    """Of the real part of a coefficient, hence the 2; infinite where no coil sees anything."""
    return noise / (2 * problem.gain).clamp_min(torch.finfo(torch.float32).tiny).sqrt()


def _as_match(
    network: PGDNet, found: Estimate, sd: Tensor, seen: Tensor, b1: Tensor | None
) -> FingerprintMatch:
    """The maps of an iterate with their standard errors; 0 where nothing is seen."""
    factors = None if b1 is None else b1[seen]
    atom, jacobian = network.decoder.with_slopes(found.point[:, seen].T, factors)
    rho, s = found.density[seen], found.gradient[:, seen].T
    errors = standard_errors(found.point[:, seen].T, rho, atom, jacobian) * sd[seen][:, None]
    left = torch.linalg.vector_norm(s - amplitude(atom, s)[:, None] * atom, dim=1)
    residual = left / torch.linalg.vector_norm(s, dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    values = {
        "t1": found.point[0, seen].exp(),
        "t2": found.point[1, seen].exp(),
        "pd": rho / network.phase,
        "b1": torch.ones_like(left) if factors is None else factors,
        "t1_sd": errors[:, 0],
        "t2_sd": errors[:, 1],
        "pd_sd": errors[:, 2],
        "correlation": (1 - residual.square()).clamp_min(0).sqrt(),
        "residual": residual,
    }
    maps = {}
    for name, value in values.items():
        maps[name] = torch.zeros(seen.shape, dtype=value.dtype, device=value.device)
        maps[name][seen] = value
    return FingerprintMatch(**maps, mask=seen)


_MATCHED = ("t1", "t2", "pd", "t1_sd", "t2_sd", "pd_sd", "correlation")


def _sequence(
    scan: Scan, sequence: FingerprintSequence | None, dictionary: Dictionary | None
) -> FingerprintSequence:
    if dictionary is not None:
        sequence = dictionary.sequence
    elif sequence is None:
        return sequence_of(scan)
    if sequence.frames != scan.frames:
        raise ValueError(
            f"the sequence has {sequence.frames} frames, the scan {scan.frames}; give the sequence of this "
            "scan, a row a frame"
        )
    return sequence


def _grid(b1: np.ndarray | None) -> Grid:
    if b1 is None:
        return Grid.logarithmic()
    low, high = float(b1.min()), float(b1.max())
    points = 2 + math.ceil((high - low) / _B1_STEP)
    return Grid.logarithmic(b1=np.linspace(low * (1 - 1e-6), high * (1 + 1e-6), points))


def _b1_map(b1: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    field = np.asarray(b1, np.float64)
    if field.shape != shape:
        raise ValueError(f"the B1 map must have the image's shape {shape}, got {field.shape}")
    if not np.isfinite(field).all():
        raise ValueError("the B1 map has NaN or infinite entries; set them to 1")
    field = np.where(field > 0, field, 1.0)
    if not 0.1 <= float(field.max()) <= 5:
        raise ValueError(
            f"the B1 map reaches {field.max():.3g}; it is a factor on the flip angle, about 1 "
            "(percent: divide by 100)"
        )
    return field


def _coil_maps(maps: np.ndarray | Tensor, scan: Scan) -> Tensor:
    found = torch.as_tensor(np.asarray(maps), dtype=torch.complex64)
    if tuple(found.shape) != (scan.coils, *scan.shape):
        raise ValueError(
            f"coil maps must be {(scan.coils, *scan.shape)} for this scan, got {tuple(found.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(found)).all()):
        raise ValueError("the coil maps have NaN or infinite entries; set them to 0")
    if not bool(found.any()):
        raise ValueError("the coil maps are zero everywhere")
    return found


def _virtual_coils(kspace: np.ndarray, loss: float) -> tuple[np.ndarray, Tensor | None]:
    """The fewest virtual coils that leave out at most a share of the energy, and their matrix `(n, C)`.

    The coils themselves, and no matrix, where that takes all.
    """
    if not loss or len(kspace) == 1:
        return kspace, None
    virtual, matrix = coils.compress(torch.from_numpy(kspace), len(kspace))
    energy = torch.linalg.vector_norm(virtual, dim=1).double().square()
    n = 1 + int((energy.flip(0).cumsum(0).flip(0)[1:] > loss * energy.sum()).sum())
    return (virtual[:n].numpy(), matrix[:n]) if n < len(kspace) else (kspace, None)


def estimated_coil_maps(scan: Scan, basis: Tensor) -> Tensor:
    """Coil maps `(C, *image)` from an image of all frames: the samples' first direction of the subspace."""
    if scan.coils == 1:
        return torch.ones(1, *scan.shape, dtype=torch.complex64)
    first = torch.from_numpy(scan.kspace * basis[:, 0].numpy().conj()[scan.frame])
    grid = tuple(math.ceil(n / math.ceil(n / _COIL_GRID)) for n in scan.shape)
    ratio = torch.tensor([n / g for n, g in zip(scan.shape, grid, strict=True)][::-1], dtype=torch.float64)
    middle = coils.calibration_kspace(first, torch.from_numpy(scan.trajectory) * ratio, grid)
    # Maps everywhere: a voxel that they leave out folds into the others.
    maps = coils.espirit(middle, crop=0.0)
    for axis, n in enumerate(scan.shape, start=1):
        maps = _resampled(maps, axis, n)
    length = torch.linalg.vector_norm(maps, dim=0)
    return (maps / torch.where(length == 0, 1, length)).to(torch.complex64)


def _resampled(maps: Tensor, axis: int, size: int) -> Tensor:
    """Linear interpolation of what is smooth and periodic, to `size` pixels of the same field of view."""
    n = maps.shape[axis]
    if n == size:
        return maps
    place = (torch.arange(size, dtype=torch.float64) - size // 2) * n / size + n // 2
    lower = place.floor()
    weight = (place - lower).reshape(-1, *[1] * (maps.ndim - 1 - axis)).to(maps.dtype)
    before, after = (maps.index_select(axis, (lower.long() + step) % n) for step in (0, 1))
    return before * (1 - weight) + after * weight


def subspace_problem(
    scan: Scan, basis: Tensor, maps: Tensor, device: torch.device, *, eps: float = 1e-6
) -> SubspaceProblem:
    """The data of a scan with their model in the subspace `(frames, K)`."""
    trajectory, frame = torch.from_numpy(scan.trajectory), torch.from_numpy(scan.frame)
    operator = FingerprintOperator(trajectory, frame, basis, scan.shape, maps, eps=eps).to(device)
    played = torch.bincount(frame, minlength=scan.frames)
    density = float((played[:, None] * basis.abs().square()).sum() / basis.shape[1])
    gain = density * maps.abs().square().sum(0)
    return SubspaceProblem(operator, torch.from_numpy(scan.kspace).to(device), trajectory, gain.to(device))


def _require_memory(scan: Scan, rank: int) -> None:
    pixels, item = math.prod(scan.shape), 8
    kernel = rank * (rank + 1) // 2 * 2 ** len(scan.shape) * pixels * item
    work = 6 * rank * 2 ** len(scan.shape) * pixels * item  # padded images of one coil, and their transforms
    preconditioner = 4 * rank**2 * pixels * item
    images = (12 * rank + 2 * scan.coils) * pixels * item
    needed = 2 * kernel + work + preconditioner + images + 3 * scan.kspace.nbytes
    if needed > memory_limit():
        raise ValueError(
            f"reconstructing {' × '.join(map(str, scan.shape))} voxels at rank {rank} with {scan.coils} "
            f"coils would need {format_bytes(needed)} of memory, more than the "
            f"{format_bytes(memory_limit())} there is; use a smaller matrix or rank"
        )
