"""A dictionary of fingerprints, compressed into the subspace that its signals span."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.physics.mri.fingerprint.grid import Grid
from invlearn.physics.mri.fingerprint.interpolation import Interpolant, with_corners
from invlearn.physics.mri.fingerprint.matching import FingerprintMatch, match
from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.physics.space import as_numbers, complex_dtype

_FORMAT = "invlearn fingerprint dictionary"
_VERSION = 1
_ARRAYS = ("t1", "t2", "b1", "basis", "nodes", "phase", "energy")
_ENERGY = 0.9999
_CHUNK_BYTES = 1 << 27


def _common_phase(signals: Tensor) -> complex:
    """The p with signals = p · real, for signals that share one phase; of p and -p the upper one."""
    angle = complex(signals.square().sum()) ** 0.5
    phase = angle / abs(angle)
    return -phase if phase.imag < -1e-9 or (abs(phase.imag) <= 1e-9 and phase.real < 0) else phase


def _simulate(sequence: FingerprintSequence, grid: Grid, dtype: torch.dtype) -> tuple[Tensor, complex]:
    """Signals and derivatives by log T1, log T2 of all atoms, `(B1, atoms, 3, frames)`; and their phase.

    Real where the sequence is: divided by the phase that they share.
    """
    from invlearn.physics.mri.bloch import simulate

    i, j = grid.physical.nonzero().T
    t1 = grid.t1[i].to(dtype)
    t2 = torch.minimum(grid.t2[j].to(dtype), t1)
    kept = dtype if sequence.real else complex_dtype(dtype)
    found = torch.empty(len(grid.b1), len(i), 3, sequence.frames, dtype=kept)
    phase: complex | None = None if sequence.real else 1 + 0j
    # neighbours need about as many states
    for rows in torch.argsort(1 / t1 - 1 / t2).split(_chunk(sequence)):
        by_log = torch.stack([torch.ones_like(t1[rows]), t1[rows], t2[rows]])[:, :, None]
        for plane, b1 in enumerate(grid.b1.to(dtype)):
            signals, slopes = cast(
                tuple[Tensor, Tensor],
                simulate(sequence, t1[rows], t2[rows], b1.expand(len(rows)), derivatives=("t1", "t2")),
            )
            phase = _common_phase(signals[0]) if phase is None else phase
            raw = torch.cat([signals[None], slopes]) * by_log / phase
            found[plane, rows] = (raw.real if sequence.real else raw).transpose(0, 1)
    return found, phase or 1 + 0j


def _chunk(sequence: FingerprintSequence) -> int:
    return max(64, _CHUNK_BYTES // (sequence.frames * 3 * 16))


def _subspace(signals: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the energy `(F,)` and directions `(F, F)` of the unit-norm rows, largest first."""
    frames = signals.shape[-1]
    double = torch.complex128 if signals.is_complex() else torch.float64
    gram = torch.zeros(frames, frames, dtype=double)
    for part in signals.reshape(-1, frames).split(4096):
        atoms = part.to(double)
        atoms = atoms / torch.linalg.vector_norm(atoms, dim=-1, keepdim=True)
        gram += atoms.T @ atoms.conj()
    values, vectors = torch.linalg.eigh(gram)
    values = values.flip(0).clamp_min(0)
    return values / values.sum(), vectors.flip(1)


def _compress(signals: Tensor, basis: Tensor) -> Tensor:
    """Coefficients in double precision, plane by plane."""
    return torch.stack([plane.to(basis.dtype) @ basis.conj() for plane in signals])


def _choose_rank(shares: Tensor, rank: int | None, energy: float | None) -> int:
    if rank is not None:
        return rank
    reached = shares.cumsum(0) >= (_ENERGY if energy is None else energy)
    return int(reached.to(torch.uint8).argmax()) + 1 if bool(reached.any()) else len(shares)


def _check_request(
    sequence: FingerprintSequence, grid: Grid, rank: int | None, energy: float | None, dtype: torch.dtype
) -> None:
    frames = sequence.frames
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Dictionary.build simulates in float32 or float64, got {dtype}")
    if rank is not None and energy is not None:
        raise ValueError("Dictionary.build takes rank or energy, not both")
    if rank is not None and not 1 <= rank <= frames:
        raise ValueError(f"Dictionary.build: rank {rank} is not between 1 and the sequence's {frames} frames")
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f"Dictionary.build: energy is a share between 0 and 1, such as 0.9999, got {energy}")
    item = dtype.itemsize * (1 if sequence.real else 2)
    needed = grid.size * 3 * frames * item + 6 * frames**2 * 8 + 6 * _CHUNK_BYTES
    if needed > memory_limit():
        raise ValueError(
            f"Dictionary.build: {grid.size} atoms of {frames} frames with their derivatives need "
            f"{format_bytes(needed)} of memory, more than the {format_bytes(memory_limit())} there is; "
            "take a larger step, or fewer B1 values"
        )


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Signals of a sequence over a grid of T1, T2 (and B1), as coefficients in a subspace.

    The signal of a voxel is ``pd · phase · basis @ atom(T1, T2, B1)``; its coefficients are
    ``basisᴴ signal``.

    Attributes
    ----------
    sequence
        What was simulated.
    grid
        Where.
    basis
        `(frames, K)`, orthonormal columns, float64, or complex128 where the pulses do not share an
        axis: the left singular vectors of the unit-norm atoms.
    nodes
        `(B1 values, corners, 3, K)`: coefficients of the signal at M0 = 1 and of its exact derivatives
        by log T1 and log T2, at the points of `grid.corners` (extrapolated where T2 > T1).
    phase
        The phase that all signals share (absorbed so that atoms and basis are real); 1 where complex.
    energy
        The share of the energy of the unit-norm atoms that the subspace keeps.

    References
    ----------
    McGivney et al., IEEE Trans. Med. Imaging 33 (2014) 2311, doi:10.1109/TMI.2014.2337321.
    """

    sequence: FingerprintSequence
    grid: Grid
    basis: Tensor
    nodes: Tensor
    phase: complex
    energy: float

    @classmethod
    def build(
        cls,
        sequence: FingerprintSequence,
        grid: Grid | None = None,
        *,
        rank: int | None = None,
        energy: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Dictionary:
        """Simulate and compress.

        Parameters
        ----------
        sequence
            The acquisition.
        grid
            ``Grid.logarithmic()`` by default: T1 0.1 to 5 s, T2 0.01 to 2.5 s, some 5,000 atoms.
        rank
            Dimension of the subspace, at most the number of frames.
        energy
            Or the share of energy that it must keep; 0.9999 by default.
        dtype
            Precision of the simulation, float32 or float64; the coefficients are float64.

        Raises
        ------
        ValueError
            Rank above the number of frames, rank and energy together, a grid that memory could not hold.
        TypeError
            Another dtype.
        """
        grid = Grid.logarithmic() if grid is None else grid
        _check_request(sequence, grid, rank, energy, dtype)
        signals, phase = _simulate(sequence, grid, dtype)
        shares, directions = _subspace(signals[:, :, 0])
        kept = _choose_rank(shares, rank, energy)
        basis = directions[:, :kept].contiguous()
        nodes = with_corners(grid, _compress(signals, basis))
        return cls(sequence, grid, basis, nodes, phase, float(shares[:kept].sum()))

    @property
    def rank(self) -> int:
        """Dimension K of the subspace."""
        return self.basis.shape[1]

    @cached_property
    def _inside(self) -> Tensor:
        """Rows of `nodes` with T2 <= T1."""
        return self.grid.physical[self.grid.corners].nonzero()[:, 0]

    @property
    def atoms(self) -> Tensor:
        """`(atoms, K)` coefficients at M0 = 1; B1 by B1, T1 by T1, T2 <= T1."""
        return self.nodes[:, self._inside, 0].flatten(0, 1)

    @cached_property
    def parameters(self) -> Tensor:
        """`(atoms, 3)`: T1 (s), T2 (s) and B1 of each atom."""
        i, j = self.grid.physical.nonzero().T
        t1, t2 = self.grid.t1[i], self.grid.t2[j]
        planes = [torch.stack([t1, t2, torch.full_like(t1, b1)], -1) for b1 in self.grid.b1.tolist()]
        return torch.cat(planes)

    def compress(self, signals: Tensor | np.ndarray) -> Any:
        """Coefficients `(..., K)` of signals `(..., frames)`: basisᴴ signal."""
        x = as_numbers(signals, "Dictionary.compress: the signals")
        if x.ndim < 1 or x.shape[-1] != self.sequence.frames:
            raise ValueError(
                f"Dictionary.compress expects signals (..., {self.sequence.frames}), got {tuple(x.shape)}"
            )
        dtype = complex_dtype(x.dtype) if self.basis.is_complex() else x.dtype
        found = x.to(dtype) @ self.basis.conj().to(x.device, dtype)
        return found.numpy() if isinstance(signals, np.ndarray) else found

    def interpolate(self, t1: Tensor, t2: Tensor, b1: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Coefficients at M0 = 1 between the grid points, and their derivatives.

        Parameters
        ----------
        t1, t2
            Seconds, of one shape, within the grid, T2 <= T1.
        b1
            Within the grid; its only value by default.

        Returns
        -------
        tuple
            `(*shape, K)`, without the common phase, and `(*shape, 3, K)`: by log T1, log T2 and B1.

        Raises
        ------
        ValueError
            Points outside the grid, or T2 > T1.
        """
        t1, t2 = torch.broadcast_tensors(t1, t2)
        if b1 is None:
            if len(self.grid.b1) > 1:
                raise ValueError("Dictionary.interpolate: the dictionary has a B1 axis; give b1")
            b1 = float(self.grid.b1[0])
        b1 = torch.as_tensor(b1, dtype=torch.float64).expand(t1.shape)
        for name, value in (("t1", t1), ("t2", t2), ("b1", b1)):
            axis = getattr(self.grid, name)
            if not bool(((value >= axis[0] * (1 - 1e-9)) & (value <= axis[-1] * (1 + 1e-9))).all()):
                raise ValueError(
                    f"Dictionary.interpolate: {name} lies outside the grid, "
                    f"{float(axis[0]):g} to {float(axis[-1]):g}"
                )
        if bool((t2 > t1 * (1 + 1e-9)).any()):
            raise ValueError("Dictionary.interpolate: T2 > T1; no tissue has that, are they exchanged?")
        points = torch.stack([t1.double().log(), t2.double().log(), b1], -1)
        points[..., 1] = torch.minimum(points[..., 1], points[..., 0])
        atoms, slopes = Interpolant(self.grid, self.nodes)(points.reshape(-1, 3))
        return atoms.reshape(*t1.shape, -1), slopes.reshape(*t1.shape, 3, -1)

    def match(
        self,
        coefficients: Tensor | np.ndarray,
        b1: Tensor | np.ndarray | float | None = None,
        refine: bool | str = True,
        noise: Tensor | np.ndarray | float | None = None,
        *,
        mask: Tensor | np.ndarray | None = None,
    ) -> FingerprintMatch:
        """T1, T2 and PD of every voxel, with standard errors; see `fingerprint.matching.match`."""
        return match(self, coefficients, b1, refine, noise, mask=mask)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` file: arrays, and the sequence as JSON. It appears whole or not at all.

        Raises
        ------
        ValueError
            Another suffix.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise ValueError(f"Dictionary.save writes .npz files, got {target}")
        about = {"format": _FORMAT, "version": _VERSION, "sequence": self.sequence.to_dict()}
        arrays = {
            "t1": self.grid.t1,
            "t2": self.grid.t2,
            "b1": self.grid.b1,
            "basis": self.basis,
            "nodes": self.nodes,
            "phase": torch.tensor(self.phase, dtype=torch.complex128),
            "energy": torch.tensor(self.energy, dtype=torch.float64),
        }
        scratch = target.with_name(f".{target.name}.{os.getpid()}.npz")
        try:
            content: dict[str, Any] = {name: values.numpy() for name, values in arrays.items()}
            np.savez(scratch, about=np.array(json.dumps(about)), **content)
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Dictionary:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            No such file.
        ValueError
            A truncated or damaged file, another kind of file, a newer version.
        """
        content = _read(Path(path))
        about = content.pop("about")
        try:
            trains = {k: np.array(v) if isinstance(v, list) else v for k, v in about["sequence"].items()}
            sequence = FingerprintSequence.from_dict(trains)
            grid = Grid(*(content[name] for name in ("t1", "t2", "b1")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}; build the dictionary again") from error
        basis, nodes = content["basis"], content["nodes"]
        expected = (len(grid.b1), int(grid.corners.sum()), 3, basis.shape[-1])
        if basis.shape[:-1] != (sequence.frames,) or nodes.shape != expected:
            raise ValueError(
                f"{path} is damaged: nodes {tuple(nodes.shape)} and basis {tuple(basis.shape)} do not fit "
                f"its grid and {sequence.frames} frames; build the dictionary again"
            )
        return cls(sequence, grid, basis, nodes, complex(content["phase"]), float(content["energy"]))


def _read(path: Path) -> dict[str, Any]:
    """The arrays of a file as tensors, and what it says about itself."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such dictionary file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is truncated or damaged, or no .npz file ({error})") from error
    try:
        about = json.loads(str(content["about"]))
        known = about["format"] == _FORMAT
    except (KeyError, TypeError, ValueError):
        known = False
    if not known or not set(_ARRAYS) <= set(content):
        raise ValueError(f"{path} holds no fingerprint dictionary; write one with Dictionary.save")
    if about["version"] != _VERSION:
        raise ValueError(
            f"{path} is a dictionary of version {about['version']}, this release reads {_VERSION}; "
            "build it again, or upgrade"
        )
    try:
        tensors = {name: as_numbers(content[name], f"{path}: {name}") for name in _ARRAYS}
    except TypeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return {"about": about, **tensors}
