"""The signal of a voxel as a small network, and its inverse: T1, T2 and density from coefficients.

The network is a(θ) = V tanh(W θ + b) + c with θ = (log T1, log T2) scaled to [-1, 1]: one hidden layer,
pixel by pixel, as in PGD-Net. Here the hidden layer stays as it is drawn and the output layer is fitted to
exact simulations by least squares, in seconds and without a choice of learning rates; with the smooth
activation it is more accurate than single precision needs, and its derivatives come for free. For other flip
angles there is an output layer for each of several B1, with Lagrange interpolation between them.

Its inverse minimises ‖s - ρ a(θ)‖ over θ and the complex ρ: the best of some hundred points, then damped
Gauss-Newton steps with ρ eliminated.

D. Chen, M. Davies, M. Golbabaee, "Compressive MR fingerprinting reconstruction with neural proximal gradient
iterations", MICCAI 2020, arXiv:2006.15271.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invlearn.physics.mri.bloch import BlochLayer
from invlearn.physics.mri.sequence import FingerprintSequence

#: T1 and T2 (s) that the network is fitted for; estimates stay inside.
T1_RANGE, T2_RANGE = (0.08, 5.5), (0.008, 3.0)
_ANY_B1 = (0.2, 2.0)  # least and largest that an exact simulation is asked for
_NEAREST_B1 = 4  # output layers that are interpolated
_SPREAD = 2.0  # of the hidden layer's slopes
_RIDGE = 1e-10
_START = (14, 18)  # values of log T1 and log T2 from which the inverse starts
_LONGEST = 0.5  # step of a logarithm
_TINY = 1e-30
_BLOCK = 1 << 14  # voxels at a time


class Fitted(NamedTuple):
    """What the inverse finds in every voxel.

    Attributes
    ----------
    point
        `(n, 2)`: log T1, log T2.
    density
        ρ, `(n,)`, complex.
    atom
        a(θ), `(n, K)`.
    jacobian
        ∂a/∂θ, `(n, 2, K)`.
    """

    point: Tensor
    density: Tensor
    atom: Tensor
    jacobian: Tensor


def _limits() -> Tensor:
    return torch.tensor([[math.log(v) for v in span] for span in (T1_RANGE, T2_RANGE)], dtype=torch.float64)


class SignalNetwork(nn.Module):
    """Coefficients of the signal at M0 = 1 as a function of T1, T2 (and B1).

    Parameters
    ----------
    rank
        K, the number of coefficients.
    hidden
        Units of the hidden layer.
    b1
        Factors on the flip angle with an output layer of their own, increasing.
    complex
        Whether the coefficients are complex (pulses about several axes).
    seed
        Of the hidden layer.

    Raises
    ------
    ValueError
        Counts below 1, B1 values that are not positive and increasing.
    """

    slope: Tensor
    offset: Tensor
    output: Tensor
    b1: Tensor
    limits: Tensor

    def __init__(
        self,
        rank: int,
        hidden: int = 128,
        b1: tuple[float, ...] = (1.0,),
        *,
        complex: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rank < 1 or hidden < 1:
            raise ValueError(f"SignalNetwork: rank and hidden must be at least 1, got {rank} and {hidden}")
        factors = torch.tensor(b1, dtype=torch.float64)
        if len(b1) < 1 or not bool((factors > 0).all()) or not bool((factors.diff() > 0).all()):
            raise ValueError(f"SignalNetwork: b1 must be positive and increasing, got {b1}")
        g = torch.Generator().manual_seed(seed)
        slope = _SPREAD * torch.randn(hidden, 2, generator=g, dtype=torch.float64)
        knots = 2 * torch.rand(hidden, 2, generator=g, dtype=torch.float64) - 1
        dtype = torch.complex64 if complex else torch.float32
        self.register_buffer("slope", slope.float())
        self.register_buffer("offset", -(slope * knots).sum(1).float())
        self.register_buffer("output", torch.zeros(len(b1), hidden + 1, rank, dtype=dtype))
        self.register_buffer("b1", factors.float())
        self.register_buffer("limits", _limits().float())

    @property
    def rank(self) -> int:
        """K."""
        return self.output.shape[-1]

    @property
    def fitted(self) -> bool:
        """Whether it knows signals."""
        return bool(self.output.any())

    def to_dict(self) -> dict[str, Any]:
        """All that rebuilds it but its numbers."""
        return {
            "rank": self.rank,
            "hidden": self.slope.shape[0],
            "b1": [round(float(v), 6) for v in self.b1],
            "complex": self.output.is_complex(),
        }

    def _features(self, point: Tensor) -> Tensor:
        """tanh(W θ + b) and a one, `(n, hidden + 1)`, at `(n, 2)` (log T1, log T2)."""
        low, high = self.limits.to(point.dtype).T
        scaled = 2 * (point - low) / (high - low) - 1
        hidden = torch.tanh(torch.addmm(self.offset.to(point.dtype), scaled, self.slope.to(point.dtype).T))
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)

    def _mix(self, features: Tensor, b1: Tensor | None) -> Tensor:
        """The output layer `(n, K)`, interpolated along B1 where there is a map."""
        planes = self.output.to(_like(self.output, features))
        if b1 is None or len(planes) == 1:
            at_one = int((self.b1 - 1).abs().argmin())
            return features.to(planes.dtype) @ planes[at_one]
        count = min(_NEAREST_B1, len(planes))
        first = (torch.searchsorted(self.b1, b1.contiguous()) - count // 2).clamp(0, len(planes) - count)
        out = torch.zeros(len(features), self.rank, dtype=planes.dtype, device=features.device)
        places = first[:, None] + torch.arange(count, device=first.device)
        weights = _lagrange(b1.to(features.dtype), self.b1.to(features.dtype)[places])
        for plane in places.unique().tolist():
            rows, column = (places == plane).nonzero().T
            part = features[rows].to(planes.dtype) @ planes[plane]
            out = out.index_add(0, rows, part * weights[rows, column][:, None])
        return out

    def forward(self, point: Tensor, b1: Tensor | None = None) -> Tensor:
        """Coefficients `(n, K)` at `(n, 2)` points (log T1, log T2), and B1 `(n,)` (1 without it)."""
        return self._mix(self._features(point), b1)

    def with_slopes(self, point: Tensor, b1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same, and its derivatives by log T1 and log T2, `(n, 2, K)`."""
        features = self._features(point)
        low, high = self.limits.to(point.dtype).T
        scale = 2 * self.slope.to(point.dtype) / (high - low)  # (hidden, 2)
        bend = 1 - features[:, :-1] ** 2
        zero = torch.zeros_like(features[:, :1])
        slopes = [self._mix(torch.cat([bend * scale[:, i], zero], 1), b1) for i in range(2)]
        return self._mix(features, b1), torch.stack(slopes, 1)

    def fit(
        self,
        sequence: FingerprintSequence,
        basis: Tensor,
        phase: complex,
        *,
        atoms: int = 12000,
        seed: int = 1,
    ) -> float:
        """Fit the output layers to exact simulations.

        Parameters
        ----------
        sequence
            What is played.
        basis, phase
            `(frames, K)` and the common phase, as in `Dictionary`.
        atoms
            Simulated tissues for every B1, drawn over the range with T2 <= T1; a tenth is held back.
        seed
            Of the draw.

        Returns
        -------
        float
            Root mean square over the tissues held back of ‖network - exact‖ / ‖exact‖, the worst of the B1.
        """
        point = _random_points(atoms, seed)
        kept = len(point) - len(point) // 10
        # the hidden layer as it will be used: its rounding is fitted away
        features = self._features(point.float()).double()
        worst = 0.0
        for plane, b1 in enumerate(self.b1.double().tolist()):
            exact = simulated(sequence, point, b1) / phase @ basis.to(torch.complex128).conj()
            exact = exact if self.output.is_complex() else exact.real
            length = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
            rows = features[:kept] / length[:kept]
            gram = rows.T @ rows + _RIDGE * kept * torch.eye(rows.shape[1], dtype=torch.float64)
            solution = torch.linalg.solve(
                gram.to(exact.dtype), rows.T.to(exact.dtype) @ (exact / length)[:kept]
            )
            self.output[plane] = solution.to(self.output.dtype)
            error = (features[kept:].to(exact.dtype) @ solution - exact[kept:]) / length[kept:]
            worst = max(worst, float(error.abs().square().sum(1).mean().sqrt()))
        return worst


class ExactSignals(nn.Module):
    """The same coefficients from exact Bloch simulations, as slow as these are.

    Nothing is fitted, so that a network on it shows what `SignalNetwork` costs in accuracy. Derivatives are
    those of the simulation.

    Parameters
    ----------
    sequence
        What is played.
    basis, phase
        `(frames, K)` and the common phase, as in `Dictionary`.
    """

    basis: Tensor
    b1: Tensor
    limits: Tensor

    def __init__(self, sequence: FingerprintSequence, basis: Tensor, phase: complex = 1.0) -> None:
        super().__init__()
        self.layer, self.phase = BlochLayer(sequence), complex(phase)
        dtype = torch.complex64 if basis.is_complex() else torch.float32
        self.register_buffer("basis", basis.to(dtype), persistent=False)
        self.register_buffer("b1", torch.tensor(_ANY_B1), persistent=False)
        self.register_buffer("limits", _limits().float(), persistent=False)

    @property
    def rank(self) -> int:
        """K."""
        return self.basis.shape[1]

    @property
    def fitted(self) -> bool:
        """Always: there is nothing to fit."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """All that rebuilds it but its numbers."""
        return {"kind": type(self).__name__, "rank": self.rank, "complex": self.basis.is_complex()}

    def _coefficients(self, signal: Tensor) -> Tensor:
        basis = self.basis.to(signal.dtype)
        found = signal / self.phase @ basis.conj()
        return found if self.basis.is_complex() else found.real

    def forward(self, point: Tensor, b1: Tensor | None = None) -> Tensor:
        """Coefficients `(n, K)` at `(n, 2)` points (log T1, log T2), and B1 `(n,)` (1 without it)."""
        t1, t2 = _times(point)
        return self._coefficients(self.layer(t1, t2, b1))

    def with_slopes(self, point: Tensor, b1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same, and its derivatives by log T1 and log T2, `(n, 2, K)`."""
        from invlearn.physics.mri.bloch import simulate

        t1, t2 = _times(point.detach())
        signal, slopes = simulate(self.layer.sequence, t1, t2, b1, derivatives=("t1", "t2"))
        slopes = slopes * torch.stack([t1, t2])[..., None]
        return self._coefficients(signal), self._coefficients(slopes).movedim(0, 1)


#: What gives PGD-Net and its inverse the signal of a voxel.
Signals = SignalNetwork | ExactSignals


def _times(point: Tensor) -> Tensor:
    """T1 and T2 (s), `(2, n)`, T2 <= T1 after rounding too."""
    t1, t2 = point.exp().unbind(1)
    return torch.stack([t1, torch.minimum(t1, t2)])


def _random_points(count: int, seed: int) -> Tensor:
    """`(n, 2)` log T1, log T2 over the range, T2 <= T1; about two thirds of `count`."""
    g = torch.Generator().manual_seed(seed)
    low, high = _limits().T
    point = low + (high - low) * torch.rand(count, 2, generator=g, dtype=torch.float64)
    return point[point[:, 1] < point[:, 0]]


def simulated(sequence: FingerprintSequence, point: Tensor, b1: float) -> Tensor:
    """Signals `(n, frames)` complex128 at `(n, 2)` points (log T1, log T2)."""
    from invlearn.physics.mri.bloch import simulate

    t1, t2 = point.float().exp().T
    signal = simulate(sequence, t1, torch.minimum(t2, t1), torch.full_like(t1, b1))
    return signal.to(torch.complex128)


def _like(weights: Tensor, features: Tensor) -> torch.dtype:
    """The precision of the features, complex where the weights are."""
    if not weights.is_complex():
        return features.dtype
    return torch.complex128 if features.dtype == torch.float64 else torch.complex64


def _lagrange(x: Tensor, nodes: Tensor) -> Tensor:
    """Weights `(n, S)` of values at `nodes` `(n, S)` for the polynomial through them at `x` `(n,)`."""
    weights = torch.ones_like(nodes)
    for s in range(nodes.shape[1]):
        for r in range(nodes.shape[1]):
            if r != s:
                weights[:, s] = weights[:, s] * (x - nodes[:, r]) / (nodes[:, s] - nodes[:, r])
    return weights


def amplitude(atom: Tensor, s: Tensor) -> Tensor:
    """ρ = aᴴs / ‖a‖², `(n,)`."""
    return (atom.to(s.dtype).conj() * s).sum(-1) / atom.abs().square().sum(-1).clamp_min(_TINY)


class PixelwiseInverse(nn.Module):
    """T1, T2 and ρ of every voxel from its coefficients.

    Parameters
    ----------
    network
        a(θ).
    steps
        Gauss-Newton steps from the best of the starting points; from an estimate half as many.

    Raises
    ------
    ValueError
        Fewer than one step.
    """

    def __init__(self, network: Signals, steps: int = 5) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"PixelwiseInverse: steps must be at least 1, got {steps}")
        self.network, self.steps = network, steps

    def forward(self, s: Tensor, b1: Tensor | None = None, start: Tensor | None = None) -> Fitted:
        """Minimise ‖s - ρ a(θ)‖ for coefficients `(n, K)`, from `start` `(n, 2)` if it is given.

        θ and the derivatives are constants to automatic differentiation, except that θ follows s along the
        Gauss-Newton direction at the solution, which is its derivative up to the residual's curvature.
        """
        with torch.no_grad():
            parts = [
                self._solve(
                    s[rows].detach(), None if b1 is None else b1[rows], None if start is None else start[rows]
                )
                for rows in (slice(i, i + _BLOCK) for i in range(0, max(len(s), 1), _BLOCK))
            ]
            point, atom, jacobian = (torch.cat(part) for part in zip(*parts, strict=True))
        if s.requires_grad:
            density = amplitude(atom, s.detach())
            point = point + _gauss_newton(s - s.detach(), density, atom, jacobian, 1e-3)
            moved = atom + ((point - point.detach())[..., None] * jacobian).sum(1)
            return Fitted(point, amplitude(moved, s), moved, jacobian)
        return Fitted(point, amplitude(atom, s), atom, jacobian)

    def _solve(self, s: Tensor, b1: Tensor | None, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        point = self._best_start(s) if start is None else self._inside(start)
        steps = self.steps if start is None else (self.steps + 1) // 2
        atom, jacobian = self.network.with_slopes(point, b1)
        cost = _misfit(s, atom)
        damping = torch.full_like(cost, 1e-2)
        for _ in range(steps):
            density = amplitude(atom, s)
            move = _gauss_newton(s - density[:, None] * atom, density, atom, jacobian, damping)
            longest = move.abs().amax(1, keepdim=True).clamp_min(1e-12)
            trial = self._inside(point + move * (_LONGEST / longest).clamp_max(1))
            new_atom, new_jacobian = self.network.with_slopes(trial, b1)
            new_cost = _misfit(s, new_atom)
            better = new_cost <= cost
            point = torch.where(better[:, None], trial, point)
            atom = torch.where(better[:, None], new_atom, atom)
            jacobian = torch.where(better[:, None, None], new_jacobian, jacobian)
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, damping * 0.1, damping * 10)
        return point, atom, jacobian

    def _best_start(self, s: Tensor) -> Tensor:
        grid = torch.stack(
            torch.meshgrid(
                *(
                    torch.linspace(float(low), float(high), 2 * n + 1)[1::2]
                    for (low, high), n in zip(self.network.limits, _START, strict=True)
                ),
                indexing="ij",
            ),
            -1,
        ).reshape(-1, 2)
        grid = grid[grid[:, 1] < grid[:, 0]].to(s.device)
        atoms = self.network(grid)
        atoms = (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).to(s.dtype)
        return grid[(s @ atoms.mH).abs().argmax(1)]

    def _inside(self, point: Tensor) -> Tensor:
        low, high = self.network.limits.to(point).T
        point = torch.maximum(torch.minimum(point, high), low)
        return torch.stack([point[:, 0], torch.minimum(point[:, 1], point[:, 0])], 1)


def _misfit(s: Tensor, atom: Tensor) -> Tensor:
    """‖s - ρ a‖² / ‖s‖² with the best ρ."""
    explained = (atom.to(s.dtype).conj() * s).sum(-1).abs().square() / atom.abs().square().sum(-1)
    energy = s.abs().square().sum(-1)
    return 1 - explained / energy.clamp_min(_TINY)


def _split(density: Tensor, atom: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """ρ ∂a/∂θ across the atom `(n, 2, K)`, and the share of ∂a/∂θ along it `(n, 2)`, which ρ can undo."""
    length = atom.abs().square().sum(-1).clamp_min(_TINY)
    along = (jacobian * atom.conj()[:, None]).sum(-1) / length[:, None]
    return along, (jacobian - along[..., None] * atom[:, None]) * density[:, None, None]


def _gauss_newton(
    residual: Tensor, density: Tensor, atom: Tensor, jacobian: Tensor, damping: Tensor | float
) -> Tensor:
    """The step of θ `(n, 2)` towards `residual` `(n, K)`; the amplitude follows."""
    _, across = _split(density, atom, jacobian)
    gradient = torch.real((across.conj() * residual[:, None]).sum(-1))
    a, b = (across[:, i].abs().square().sum(-1) for i in range(2))
    c = torch.real((across[:, 0].conj() * across[:, 1]).sum(-1))
    tiny = 1e-12 * (a + b) + _TINY
    a, b = a * (1 + damping) + tiny, b * (1 + damping) + tiny
    determinant = (a * b - c * c).clamp_min(1e-6 * _TINY)
    return (
        torch.stack([b * gradient[:, 0] - c * gradient[:, 1], a * gradient[:, 1] - c * gradient[:, 0]], 1)
        / (determinant[:, None])
    )


def standard_errors(point: Tensor, density: Tensor, atom: Tensor, jacobian: Tensor) -> Tensor:
    """Cramér-Rao bounds of T1 (s), T2 (s) and |ρ|, `(n, 3)`, for noise of standard deviation 1.

    Parameters
    ----------
    point, density, atom, jacobian
        As in `Fitted`. The noise is that of the real and of the imaginary part of a coefficient; ρ, T1 and T2
        are unknown.

    Returns
    -------
    Tensor
        Infinite where the coefficients do not tell.
    """
    along, across = _split(density, atom, jacobian)
    a, b = (across[:, i].abs().square().sum(-1) for i in range(2))
    c = torch.real((across[:, 0].conj() * across[:, 1]).sum(-1))
    determinant = a * b - c * c
    known = determinant > 1e-9 * a * b
    determinant = torch.where(known, determinant, 1.0)
    # |ρ| moves with θ by -|ρ| Re(along)
    u, v = along.real.unbind(1) if along.is_complex() else along.unbind(1)
    length = atom.abs().square().sum(-1).clamp_min(_TINY)
    moved = density.abs().square() * (b * u * u - 2 * c * u * v + a * v * v) / determinant
    t1, t2 = point.exp().unbind(1)
    variance = torch.stack([b * t1**2 / determinant, a * t2**2 / determinant, 1 / length + moved], 1)
    return torch.where(known[:, None], variance.clamp_min(0).sqrt(), torch.inf)
