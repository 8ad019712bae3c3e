"""The lattice of T1, T2 and B1 on which a dictionary is simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.space import as_numbers

Values = Tensor | np.ndarray | Sequence[float]


def _axis(values: Values, name: str, at_least: int) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        values = np.asarray(values, dtype=float)
    axis = as_numbers(values, f"Grid: {name}").detach().to("cpu", torch.float64)
    if axis.ndim != 1 or len(axis) < at_least:
        raise ValueError(f"Grid: {name} must list at least {at_least} values, got shape {tuple(axis.shape)}")
    if float(axis[0]) <= 0 or not bool((axis.diff() > 0).all()):
        raise ValueError(f"Grid: {name} must be positive and increasing, got {axis[:4].tolist()} ...")
    return axis


class Grid:
    """T1, T2 and B1 values; their combinations with T2 <= T1 are a dictionary's atoms.

    Parameters
    ----------
    t1, t2
        In seconds, positive and increasing, at least two of each.
    b1
        Factors on the flip angle, positive and increasing; 1 alone by default. One value is taken
        as known, several as an axis to interpolate along.

    Raises
    ------
    ValueError
        Values that are not positive, increasing and finite, or T2 that no T1 reaches.
    """

    def __init__(self, t1: Values, t2: Values, b1: Values = (1.0,)) -> None:
        self.t1, self.t2, self.b1 = _axis(t1, "t1", 2), _axis(t2, "t2", 2), _axis(b1, "b1", 1)
        longest = float(self.t1[-1])
        if float(self.t2[-1]) > longest * (1 + 1e-12) or float(self.t2[0]) >= longest:
            raise ValueError(
                f"Grid: T2 runs from {float(self.t2[0]):g} to {float(self.t2[-1]):g} s, T1 only up to "
                f"{longest:g} s; T2 > T1 is no tissue: end T2 there, or are the two exchanged?"
            )

    @classmethod
    def logarithmic(
        cls,
        t1: tuple[float, float] = (0.1, 5.0),
        t2: tuple[float, float] = (0.01, 2.5),
        *,
        step: float = 0.06,
        b1: Values = (1.0,),
    ) -> Grid:
        """Values whose neighbours have one ratio.

        Parameters
        ----------
        t1, t2
            First and last value, seconds.
        step
            Neighbours differ by at most this fraction: ``log(1 + step)`` on the logarithmic axis. The
            default range has some 5,000 atoms at 0.06 and 20,000 at 0.029.
        b1
            As above.
        """
        if not 0 < step < 10:
            raise ValueError(f"Grid: step must be a fraction such as 0.05, got {step}")
        axes = []
        for name, limits in (("t1", t1), ("t2", t2)):
            low, high = limits
            if not 0 < low < high < math.inf:
                raise ValueError(f"Grid: {name} must run from a positive to a larger value, got {limits}")
            points = 1 + math.ceil(math.log(high / low) / math.log1p(step) - 1e-9)
            axes.append(
                torch.logspace(math.log(low), math.log(high), max(points, 2), math.e, dtype=torch.float64)
            )
        return cls(axes[0], axes[1], b1)

    @property
    def physical(self) -> Tensor:
        """`(n1, n2)` booleans: where T2 <= T1."""
        return self.t2 <= self.t1[:, None] * (1 + 1e-12)

    @property
    def corners(self) -> Tensor:
        """`(n1, n2)` booleans: the corners of all cells that have a point with T2 < T1 inside.

        They hold the physical points, and those just beyond the diagonal.
        """
        cells = self.t2[:-1].log() < self.t1[1:, None].log()
        corners = self.physical.clone()
        for i in (0, 1):
            for j in (0, 1):
                corners[i : i + cells.shape[0], j : j + cells.shape[1]] |= cells
        return corners

    @property
    def size(self) -> int:
        """Number of atoms: of combinations with T2 <= T1, times the number of B1 values."""
        return int(self.physical.sum()) * len(self.b1)

    def __repr__(self) -> str:
        ranges = (
            f"{name}={float(axis[0]):g}..{float(axis[-1]):g} ({len(axis)})"
            for name, axis in (("t1", self.t1), ("t2", self.t2), ("b1", self.b1))
        )
        return f"Grid({', '.join(ranges)}, {self.size} atoms)"
