"""The atom that is closest in direction to each of many coefficient vectors.

Brute force computes atoms × voxels products. Here the atoms are parted once into small groups of similar
direction. For unit vectors the angle between complex lines, θ(d, x) = arccos |<d, x>| / ‖x‖, is a metric
(Fubini-Study), so that for an atom d in a group with centre c and radius α

    θ(d, x) >= θ(c, x) - α:

a group whose bound is above the best angle found so far cannot hold the best atom, and is not looked at. The
answer is that of brute force, with few of its products. At most some ten arrays of 2²³ single-precision
numbers are in memory, whatever the numbers of atoms and voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROUP = 128  # atoms in a group, at most
_SCORES = 1 << 23  # scores in memory at a time: 32 MiB in single precision
_ROUNDING = 2e-6  # of a squared cosine in single precision


def scores(atoms: Tensor, x: Tensor) -> Tensor:
    """|<d, x>|² `(n, P)` for atoms d `(P, K)`, real or complex, and complex x `(n, K)`."""
    if atoms.is_complex():
        return torch.view_as_real(x @ atoms.mH).square().sum(-1)
    imaginary = x.imag @ atoms.T
    return (x.real @ atoms.T).square_().addcmul_(imaginary, imaginary)


def _halve(atoms: Tensor, rows: Tensor, size: int) -> list[Tensor]:
    """Split by the median along the direction of largest spread until no part is above `size`."""
    if len(rows) <= size:
        return [rows]
    part = atoms[rows]
    part = torch.view_as_real(part).flatten(1) if part.is_complex() else part
    part = part - part.mean(0)
    along = torch.linalg.eigh(part.T @ part)[1][:, -1]
    ranked = rows[torch.argsort(part @ along, stable=True)]
    middle = len(ranked) // 2
    return _halve(atoms, ranked[:middle], size) + _halve(atoms, ranked[middle:], size)


class AtomSearch:
    """Atoms made ready to be searched.

    Parameters
    ----------
    atoms
        `(P, K)`, real or complex, of any length but 0.
    group
        Largest number of atoms in a group.

    Attributes
    ----------
    evaluated
        Scores computed so far, of centres and atoms: brute force computes atoms × voxels.
    """

    def __init__(self, atoms: Tensor, group: int = _GROUP) -> None:
        atoms = atoms / torch.linalg.vector_norm(atoms, dim=-1, keepdim=True)
        # atoms and their negatives are the same line: turn all towards the strongest common direction
        common = torch.linalg.eigh(atoms.mT @ atoms.conj())[1][:, -1]
        turn = atoms @ common.conj()
        atoms = torch.where((turn.abs() > 0)[:, None], atoms * turn.conj().sgn()[:, None], atoms)
        groups = _halve(atoms, torch.arange(len(atoms), device=atoms.device), group)
        centres, angles = [], []
        for rows in groups:
            part = atoms[rows]
            centre = torch.linalg.eigh(part.mT @ part.conj())[1][:, -1]
            centres.append(centre)
            angles.append(torch.arccos((part @ centre.conj()).abs().clamp_max(1)).max())
        self.atoms = atoms
        self.groups = groups
        self.centres = torch.stack(centres).to(atoms.dtype)
        self.radius = torch.stack(angles)
        self.evaluated = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Index of the best atom `(n,)` for complex vectors `(n, K)`."""
        step = max(1, _SCORES // max(len(self.groups), _GROUP))
        found = [self._search(part) for part in x.split(step)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=x.device)

    def _search(self, x: Tensor) -> Tensor:
        x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        to_centres = scores(self.centres, x)
        self.evaluated += to_centres.numel()
        best = torch.full(x.shape[:1], -1.0, dtype=to_centres.dtype, device=x.device)
        index = torch.zeros(x.shape[:1], dtype=torch.long, device=x.device)

        nearest = to_centres.argmax(1)
        self._visit(x, torch.arange(len(x), device=x.device), nearest, best, index)
        # θ(c, x) <= θ + α in cosines, with θ rounded up
        cosine, sine = best.clamp(0, 1).sqrt(), (1 - best + _ROUNDING).clamp_min(0).sqrt()
        bound = torch.stack([cosine, -sine], 1) @ torch.stack([self.radius.cos(), self.radius.sin()])
        wanted = to_centres + _ROUNDING >= bound.clamp_min_(0).square_()
        wanted.scatter_(1, nearest[:, None], False)
        voxels, groups = wanted.nonzero().T
        self._visit(x, voxels, groups, best, index)
        return index

    def _visit(self, x: Tensor, voxels: Tensor, groups: Tensor, best: Tensor, index: Tensor) -> None:
        """Compare pairs of voxels and groups; brings `best` score and `index` of each voxel up to date."""
        voxels = voxels[torch.argsort(groups)]
        counts = torch.bincount(groups, minlength=len(self.groups)).tolist()
        for rows, who in zip(self.groups, voxels.split(counts), strict=True):
            if len(who) == 0:
                continue
            found = scores(self.atoms[rows], x[who])
            self.evaluated += found.numel()
            value, place = found.max(1)
            better = value > best[who]
            who = who[better]
            best[who] = value[better]
            index[who] = rows[place[better]]
