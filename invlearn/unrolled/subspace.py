"""Subspace images from fingerprinting k-space: three ways to invert one linear model.

The unknown x `(K, *image)` holds the coefficients of every voxel's signal in the subspace of a dictionary,
and y = A x + n is the k-space of all frames and coils. A coefficient of a voxel is seen with the gain
g = d Σ_c |s_c|², the diagonal of AᴴA (s_c the coil maps; d the mean over the coefficients of Σ |basis|² over
all samples). Noise of standard deviation σ (of the complex samples) leaves σ/√g in it where nothing
folds. Regularisation is measured in these units, so that its weights know neither the scale of the data
nor their number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invlearn.physics.linear import FiniteDifference, FromFunction
from invlearn.physics.mri.density import pipe_menon
from invlearn.physics.mri.fingerprint import FingerprintOperator
from invlearn.physics.operator import LinearOperator
from invlearn.physics.solvers import Solution, cg
from invlearn.physics.space import Space
from invlearn.unrolled.data_term import DataTerm
from invlearn.unrolled.iterations import FISTA
from invlearn.unrolled.lowrank import LocallyLowRank
from invlearn.unrolled.preconditioner import Circulant

Progress = Callable[[str], None]

_FIRST_TOLERANCE, _FIRST_ITERATIONS = 3e-3, 40  # of the least-squares start
_LATER_TOLERANCE = 1e-4
_ROUNDING = 1e-8  # of ‖y‖²: noise below it drowns in single precision
_AS_NOISY = 1.1  # times the noise that least squares leave: the data are explained


@dataclass(frozen=True, eq=False)
class SubspaceProblem:
    """The data of one scan and their model.

    Attributes
    ----------
    operator
        A.
    kspace
        y, `(C, N)`, complex64.
    trajectory
        `(N, d)` in cycles a pixel.
    gain
        g of every voxel, `(*image)`.
    """

    operator: FingerprintOperator
    kspace: Tensor
    trajectory: Tensor
    gain: Tensor

    @cached_property
    def back_projection(self) -> Tensor:
        """Aᴴy."""
        return self.operator.adjoint(self.kspace)

    @cached_property
    def circulant(self) -> Circulant:
        """What is near AᴴA and easily inverted."""
        operator = self.operator
        return Circulant(operator.transfer(torch.float32), operator.coil_maps, operator.domain.shape[1:])

    @cached_property
    def energy(self) -> float:
        """‖y‖²."""
        return float(torch.linalg.vector_norm(torch.view_as_real(self.kspace), dtype=torch.float64) ** 2)

    def misfit(self, x: Tensor) -> float:
        """‖Ax - y‖², from AᴴA and Aᴴy; that of the images asked for last is known."""
        known = self.__dict__.get("_known")
        if known is not None and known[0] is x and known[1] == x._version:
            return known[2]
        gap = self.operator.normal(x) - 2 * self.back_projection
        # in double precision: the misfit is a small difference of large numbers
        cross = torch.sum(x.real.double() * gap.real + x.imag.double() * gap.imag)
        found = max(self.energy + float(cross), 0.0)
        self.__dict__["_known"] = x, x._version, found
        return found

    def noise(self, x: Tensor) -> float:
        """σ: what `x` leaves unexplained, over the degrees of freedom that are left.

        It counts as noise whatever the model cannot say, such as signals outside the subspace.
        """
        freedom = max(self.kspace.numel() - x.numel(), self.kspace.numel() // 2)
        return math.sqrt(max(self.misfit(x), _ROUNDING * self.energy) / freedom)

    def solved(self, x: Tensor, sigma: float, settled: bool) -> bool:
        """Whether `x` is an answer: its last step was small, or it leaves no more than noise `sigma`.

        Raises
        ------
        RuntimeError
            It is not finite, or explains the data worse than zero does.
        """
        finite = bool(torch.isfinite(torch.view_as_real(x)).all())
        if not finite or not self.misfit(x) <= 1.01 * self.energy:
            raise RuntimeError(
                "the iteration diverged: its images explain the data worse than none; "
                "look at the scale of the coil maps and of single samples, or take the method adjoint"
            )
        return settled or self.noise(x) <= _AS_NOISY * sigma

    def scale(self, x: Tensor) -> float:
        """√g where the object is: the mean gain weighted by |x|²."""
        weight = x.abs().square().sum(0)
        return math.sqrt(float((weight * self.gain).sum() / weight.sum().clamp_min(1e-30)))


class Method(ABC):
    """One way to find x."""

    @abstractmethod
    def solve(self, problem: SubspaceProblem, progress: Progress) -> Solution[Tensor]:
        """The images, and how the iteration went."""

    def to_dict(self) -> dict[str, Any]:
        """Name and settings."""
        name = next(name for name, kind in METHODS.items() if isinstance(self, kind))
        return {"method": name, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Adjoint(Method):
    """The density-compensated adjoint: quick, and no inverse; what was not sampled stays missing.

    x = Aᴴ(w y) divided by the coils' total sensitivity, with Pipe and Menon's weights w over all frames,
    scaled to explain the data best.

    Attributes
    ----------
    iterations
        Of the weights.

    References
    ----------
    McGivney et al., IEEE Trans. Med. Imaging 33 (2014) 2311, doi:10.1109/TMI.2014.2337321.
    """

    iterations: int = 20

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"Adjoint: iterations must be at least 1, got {self.iterations}")

    def solve(self, problem: SubspaceProblem, progress: Progress) -> Solution[Tensor]:
        progress("density compensation")
        operator = problem.operator
        shape = operator.domain.shape[1:]
        weights = torch.as_tensor(pipe_menon(problem.trajectory, shape, iterations=self.iterations))
        x = operator.adjoint(problem.kspace * weights.to(problem.kspace.device, torch.float32))
        seen = problem.gain > 1e-3 * problem.gain.max()
        x = torch.where(seen, x / torch.where(seen, problem.gain, 1), 0)
        image = operator.normal(x)
        fit = torch.sum(x.conj() * problem.back_projection) / torch.sum(x.conj() * image).real
        return Solution(x * fit, True, 0, ())


@dataclass(frozen=True)
class Subspace(Method):
    """Least squares by conjugate gradients, with an edge-preserving penalty.

    ½‖Ax - y‖² + weight σ √g Σ_r √(‖∇x(r)‖² + ε²), the gradient taken over all coefficients together and
    ε = σ/√g, is minimised by lagged diffusivity: each pass solves the quadratic problem with the weights
    1/√(‖∇x‖² + ε²) of the pass before, beginning with plain least squares stopped early.

    Attributes
    ----------
    weight
        0 leaves plain conjugate gradients.
    passes
        Quadratic problems after the first, at most; fewer when the images change by less than
        `tolerance` from one to the next.
    iterations
        Conjugate-gradient steps of a pass, at most.
    tolerance
        On the relative change of the images.

    References
    ----------
    The steps are preconditioned by the circulant matrix nearest to AᴴA.
    Lagged diffusivity: Vogel and Oman, SIAM J. Sci. Comput. 17 (1996) 227, doi:10.1137/0917016.
    Subspace reconstruction: Assländer et al., Magn. Reson. Med. 79 (2018) 83, doi:10.1002/mrm.26639.
    """

    weight: float = 1.0
    passes: int = 10
    iterations: int = 60
    tolerance: float = 0.003

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"Subspace: the weight must be at least 0 and finite, got {self.weight}")
        if self.passes < 0 or self.iterations < 1 or not self.tolerance > 0:
            raise ValueError(
                "Subspace: passes are at least 0, iterations at least 1 and the tolerance positive, got "
                f"{self.passes}, {self.iterations}, {self.tolerance}"
            )

    def solve(self, problem: SubspaceProblem, progress: Progress) -> Solution[Tensor]:
        first = least_squares(problem, progress)
        if self.weight == 0 or self.passes == 0:
            return first
        operator, x = problem.operator, first.value
        gradient = FiniteDifference(x.shape, axes=range(1 - x.ndim, 0), complex=True)
        sigma, root = problem.noise(x), problem.scale(x)
        residuals, change = list(first.residuals), math.inf
        for number in range(self.passes):
            progress(f"edge-preserving pass {number + 1} of at most {self.passes}")
            size = gradient(x).abs().square().sum((0, 1), keepdim=True)
            weights = self.weight * sigma * root / (size + (sigma / root) ** 2).sqrt()
            system = operator.H @ operator + gradient.H @ _times(weights, gradient.codomain) @ gradient
            found = cg(
                system,
                problem.back_projection,
                x,
                preconditioner=problem.circulant.inverse(float(weights.mean())),
                tolerance=_LATER_TOLERANCE,
                max_iterations=self.iterations,
                partial=True,
            )
            change = float(torch.linalg.vector_norm(found.value - x) / torch.linalg.vector_norm(found.value))
            x = found.value
            residuals += found.residuals[1:]
            if change <= self.tolerance:
                break
        done = problem.solved(x, sigma, change <= self.tolerance)
        return Solution(x, done, len(residuals) - 1, tuple(residuals))


def _times(weights: Tensor, space: Space) -> LinearOperator:
    return FromFunction(lambda x: weights * x, space, space)


def least_squares(problem: SubspaceProblem, progress: Progress) -> Solution[Tensor]:
    """Conjugate gradients stopped early, on purpose: where they begin to fit the noise."""
    progress("least squares")
    found = cg(
        problem.operator.H @ problem.operator,
        problem.back_projection,
        preconditioner=problem.circulant.inverse(),
        tolerance=_FIRST_TOLERANCE,
        max_iterations=_FIRST_ITERATIONS,
        partial=True,
    )
    done = problem.solved(found.value, math.inf, found.converged)
    return Solution(found.value, done, found.iterations, found.residuals)


@dataclass(frozen=True)
class LowRank(Method):
    """Locally low-rank images by accelerated proximal gradients, from the least-squares start.

    ½‖Ax - y‖² + λ Σ_b ‖x_b‖_* over blocks b, x_b the matrix `(K, pixels)`; λ = weight σ √g (√K + √pixels):
    with weight 1 a block of pure noise is removed.

    Attributes
    ----------
    weight
        See above.
    patch
        Side of the blocks in pixels.
    shifts
        Tilings that are averaged in every step.
    iterations
        Steps, at most.
    tolerance
        On the relative change of the images in a step; convergence.

    References
    ----------
    Zhang, Pauly and Levesque, Magn. Reson. Med. 73 (2015) 655, doi:10.1002/mrm.25161.
    """

    weight: float = 1.0
    patch: int = 8
    shifts: int = 2
    iterations: int = 120
    tolerance: float = 5e-4

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf or not self.tolerance > 0:
            raise ValueError(
                "LowRank: the weight is at least 0 and the tolerance positive, got "
                f"{self.weight}, {self.tolerance}"
            )
        if not 1 <= self.shifts <= self.patch or self.iterations < 1:
            raise ValueError(
                "LowRank: shifts lie between 1 and the patch's side, iterations are at least 1, got "
                f"{self.shifts}, {self.patch}, {self.iterations}"
            )

    def solve(self, problem: SubspaceProblem, progress: Progress) -> Solution[Tensor]:
        x = least_squares(problem, progress).value
        axes, sigma = x.ndim - 1, problem.noise(x)
        unit = sigma * problem.scale(x) * (math.sqrt(len(x)) + self.patch ** (axes / 2))
        prior = LocallyLowRank(self.weight * unit, (self.patch,) * axes, self.shifts)
        progress(f"locally low rank, at most {self.iterations} steps")
        data = _ByConvolution(problem.operator, problem.kspace)
        algorithm, history = FISTA(), []
        state = algorithm.start(data, x)
        for k in range(self.iterations):
            before = x
            state = algorithm.advance(state, data, prior.prox, 1.0, k)
            x = algorithm.image(state)
            size = torch.linalg.vector_norm(x).clamp_min(torch.finfo(torch.float32).tiny)
            history.append(float(torch.linalg.vector_norm(x - before) / size))
            if history[-1] <= self.tolerance:
                break
        done = problem.solved(x, sigma, history[-1] <= self.tolerance)
        return Solution(x, done, len(history), tuple(history))


class _ByConvolution(DataTerm):
    """The data term with AᴴA as a convolution: no sample is visited again."""

    @cached_property
    def _projected(self) -> Tensor:
        return self.back_projection

    def gradient(self, x: Tensor) -> Tensor:
        return self.operator.normal(x) - self._projected


METHODS: dict[str, type[Method]] = {"adjoint": Adjoint, "subspace": Subspace, "llr": LowRank}


def method_by_name(name: str) -> Method:
    """The method with its default settings.

    Raises
    ------
    ValueError
        No such method.
    """
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]()
