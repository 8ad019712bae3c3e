"""Compressed signals between the points of the lattice, from values and exact derivatives on it.

In a cell of the (log T1, log T2) lattice the signal is the boolean sum of cubic Hermite interpolation
along one axis and linear interpolation along the other (a discretely blended Coons patch):

    f = H_s L_t + L_s H_t - L_s L_t,

which needs the values and the two first derivatives at the four corners alone, reproduces every cubic
polynomial and so errs by O(step⁴). Along B1, where signals of long trains oscillate, it is Lagrange
interpolation over the six nearest values: steps of 0.025 or less are needed.
Coons, Surfaces for computer-aided design of space forms, MIT Project MAC TR-41 (1967).
"""

from __future__ import annotations

import torch
from torch import Tensor

from invlearn.physics.mri.fingerprint.grid import Grid

_NEAREST_B1 = 6


def _linear(s: Tensor) -> tuple[Tensor, Tensor]:
    """Values `(n, 2)` and derivatives of the two linear basis functions on [0, 1]."""
    one = torch.ones_like(s)
    return torch.stack([1 - s, s], -1), torch.stack([-one, one], -1)


def _hermite(s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cubic basis functions of the end values and of the end slopes, each with its derivative."""
    value = s * s * (3 - 2 * s)
    slope = 6 * s * (1 - s)
    ends = torch.stack([1 - value, value], -1), torch.stack([-slope, slope], -1)
    slopes = (
        torch.stack([s * (1 - s) ** 2, s * s * (s - 1)], -1),
        torch.stack([(1 - s) * (1 - 3 * s), s * (3 * s - 2)], -1),
    )
    return *ends, *slopes


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, None] * b[:, None, :]).flatten(1)


def _patch(s: Tensor, t: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """Weights `(n, 3, 12)` in a cell of sides h, k: rows f, f_u, f_v, columns (corner, f f_u f_v)."""
    h, k = h[:, None], k[:, None]
    linear_s, d_linear_s = _linear(s)
    linear_t, d_linear_t = _linear(t)
    end_s, d_end_s, slope_s, d_slope_s = _hermite(s)
    end_t, d_end_t, slope_t, d_slope_t = _hermite(t)
    rows = []
    for along in ("f", "f_u", "f_v"):
        ls, es, gs = (
            (d_linear_s / h, d_end_s / h, d_slope_s) if along == "f_u" else (linear_s, end_s, h * slope_s)
        )
        lt, et, gt = (
            (d_linear_t / k, d_end_t / k, d_slope_t) if along == "f_v" else (linear_t, end_t, k * slope_t)
        )
        corners = _outer(es, lt) + _outer(ls, et) - _outer(ls, lt)
        rows.append(torch.stack([corners, _outer(gs, lt), _outer(ls, gt)], -1).flatten(1))
    return torch.stack(rows, 1)


def _lagrange(x: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the values at `nodes` `(n, S)` for the value and the derivative at `x` `(n,)`."""
    count = nodes.shape[1]
    values, derivatives = [], []
    for s in range(count):
        others = [r for r in range(count) if r != s]
        factors = {r: (x - nodes[:, r]) / (nodes[:, s] - nodes[:, r]) for r in others}
        value = torch.ones_like(x)
        derivative = torch.zeros_like(x)
        for r in others:
            derivative = derivative * factors[r] + value / (nodes[:, s] - nodes[:, r])
            value = value * factors[r]
        values.append(value)
        derivatives.append(derivative)
    return torch.stack(values, -1), torch.stack(derivatives, -1)


def _extrapolation(at: float, nodes: Tensor, slopes: bool) -> Tensor:
    """Weights `(2, n)` for the value and the slope at `at`, of the polynomial through given values.

    n is the number of nodes, or twice that: first of their values, then of their slopes.
    """
    scale = float((nodes - at).abs().max())  # powers of numbers up to 1: well conditioned for so few nodes
    x, power = (nodes - at) / scale, torch.arange(len(nodes) * (2 if slopes else 1), dtype=nodes.dtype)
    rows = x[:, None] ** power
    if slopes:
        rows = torch.cat([rows, power * x[:, None] ** (power - 1).clamp_min(0) / scale])
    weights = torch.linalg.inv(rows)
    return torch.stack([weights[0], weights[min(1, len(weights) - 1)] / scale])


def with_corners(grid: Grid, atoms: Tensor) -> Tensor:
    """From the points with T2 <= T1 to all corners of cells: `(B1, atoms, 3, K)` to `(B1, corners, 3, K)`.

    Beyond the diagonal nothing can be simulated: values are extrapolated along T1 from values and slopes at
    the three nearest points of the same T2, slopes by T2 from the four nearest (from fewer next to the
    largest T1, where a grid should not end at the T2 of interest).
    """
    corners, physical = grid.corners, grid.physical
    lattice = atoms.new_zeros(len(atoms), *physical.shape, *atoms.shape[2:])
    lattice[:, physical] = atoms
    log_t1 = grid.t1.log()
    for i, j in (corners & ~physical).nonzero().tolist():
        first, at = int(physical[:, j].to(torch.uint8).argmax()), float(log_t1[i])
        near, nearer = slice(first, first + 4), slice(first, first + 3)
        known = torch.cat([lattice[:, nearer, j, 0], lattice[:, nearer, j, 1]], 1)
        along_t1 = _extrapolation(at, log_t1[nearer], True).to(atoms.dtype)
        by_t2 = _extrapolation(at, log_t1[near], False).to(atoms.dtype)
        lattice[:, i, j, :2] = torch.einsum("ds,bsk->bdk", along_t1, known)
        lattice[:, i, j, 2] = torch.einsum("s,bsk->bk", by_t2[0], lattice[:, near, j, 2])
    return lattice[:, corners]


class Interpolant:
    """The compressed signal as a function of (log T1, log T2, B1).

    Parameters
    ----------
    grid
        The lattice.
    nodes
        `(B1 values, corners, 3, K)`: value, d/dlog T1 and d/dlog T2 at the corners of the cells, in
        the order of `grid.corners`.
    """

    def __init__(self, grid: Grid, nodes: Tensor) -> None:
        device = nodes.device
        self.u, self.v = grid.t1.log().to(device), grid.t2.log().to(device)
        self.b1 = grid.b1.to(device)
        corners = grid.corners.to(device)
        self.row = torch.full(corners.shape, -1, device=device)
        self.row[corners] = torch.arange(int(corners.sum()), device=device)
        self.nodes = nodes.flatten(2)  # the corner's 3 K numbers lie together
        self.rank = nodes.shape[-1]

    def __call__(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Signals `(n, K)` and derivatives `(n, 3, K)` at `(n, 3)` points (log T1, log T2, B1).

        Points lie within the lattice, T2 <= T1; the derivative along B1 is 0 where there is one B1.
        """
        u, v, b1 = point.unbind(-1)
        # T2 from the left and T1 from the right: the cell then holds a point with T2 < T1
        i = (torch.searchsorted(self.u, u.contiguous(), right=True) - 1).clamp(0, len(self.u) - 2)
        j = (torch.searchsorted(self.v, v.contiguous()) - 1).clamp(0, len(self.v) - 2)
        h, k = self.u[i + 1] - self.u[i], self.v[j + 1] - self.v[j]
        in_cell = _patch((u - self.u[i]) / h, (v - self.v[j]) / k, h, k)
        rows = torch.stack([self.row[i + a, j + b] for a in (0, 1) for b in (0, 1)], -1)

        count = min(_NEAREST_B1, len(self.b1))
        first = torch.searchsorted(self.b1, b1.contiguous()) - count // 2
        plane = first.clamp(0, len(self.b1) - count)[:, None] + torch.arange(count, device=u.device)
        along_b1, d_along_b1 = _lagrange(b1, self.b1[plane])

        data = self.nodes[plane[:, :, None], rows[:, None, :]]  # (n, S, 4, 3 K)
        data = data.reshape(len(u), count * 12, self.rank)
        weights = torch.cat(
            [
                along_b1[:, None, :, None] * in_cell[:, :, None, :],
                d_along_b1[:, None, :, None] * in_cell[:, :1, None, :],
            ],
            1,
        )
        found = torch.bmm(weights.flatten(2).to(data.dtype), data)
        return found[:, 0], found[:, 1:]
