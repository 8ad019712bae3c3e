"""Reconstruction by a proximal algorithm run until it has converged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.physics.operator import LinearOperator
from invlearn.physics.solvers import Solution, default_tolerance, report
from invlearn.unrolled.data_term import DataTerm
from invlearn.unrolled.iterations import FISTA, Iteration, State
from invlearn.unrolled.proximal import Regulariser


@dataclass(frozen=True)
class Variational:
    """argmin_x ½‖Ax - y‖² + R(x) by an iteration run to convergence: ``x = Variational(L1(0.1))(y, A)``.

    Parameters
    ----------
    regulariser
        R.
    iteration
        The algorithm; `FISTA()` by default. `HQS` solves a nearby problem, see there.
    step
        Step size in units of 1/‖A‖²; for PGD below 2, for FISTA at most 1, for the others any.
    tolerance
        On the change of the state in one step relative to its size, the largest of the batch; by
        default 1e-4 in single and 1e-8 in double precision.
    max_iterations
        Steps allowed.
    norm
        An upper bound of ‖A‖; computed by default.

    Raises
    ------
    ValueError
        A step, tolerance or number of iterations out of range; data with NaN or infinite entries.
    """

    regulariser: Regulariser
    iteration: Iteration = FISTA()  # noqa: RUF009 (frozen, without fields)
    step: float = 1.0
    tolerance: float | None = None
    max_iterations: int = 1000
    norm: float | None = None

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"Variational: the step must be positive, got {self.step}")
        if self.max_iterations < 1:
            raise ValueError(f"Variational: max_iterations must be at least 1, got {self.max_iterations}")

    def __call__(self, y: Any, operator: LinearOperator) -> Any:
        """The reconstruction of `(*batch, *codomain)`, as a tensor, or a numpy array for one."""
        return self.solve(y, operator).value

    @torch.no_grad()
    def solve(self, y: Any, operator: LinearOperator, x0: Tensor | None = None) -> Solution[Any]:
        """The same with how it went: `residuals` are the relative changes of the state, step by step.

        Parameters
        ----------
        y
            `(*batch, *codomain)`, tensor or numpy array.
        operator
            A.
        x0
            `(*batch, *domain)` to start from; zero by default.
        """
        if isinstance(y, np.ndarray):
            found = self.solve(as_tensor(y, "a measurement").to(operator.device), operator, x0)
            return Solution(found.value.cpu().numpy(), found.converged, found.iterations, found.residuals)
        if not bool(torch.isfinite(y).all()):
            raise ValueError(f"the measurement of {operator.label} has NaN or infinite entries")
        tolerance = default_tolerance(self.tolerance, y)
        # systems inside a step are solved ten times more exactly than the answer
        data = DataTerm(operator, y, self.norm, tolerance=tolerance / 10)
        start = data.zero() if x0 is None else operator.domain.check(x0, "x0").to(data.zero())
        state = self.iteration.start(data, start)
        history: list[float] = []
        for k in range(self.max_iterations):
            new = self.iteration.advance(state, data, self.regulariser.prox, self.step, k)
            history.append(_change(state, new, operator.codomain.batch_shape(y)))
            state = new
            if history[-1] <= tolerance:
                break
        value = self.iteration.image(state)
        done = history[-1] <= tolerance
        who = f"Variational with {type(self.iteration).__name__}"
        return report(who, Solution(value, done, len(history), tuple(history)), tolerance)


def _change(old: State, new: State, batch: tuple[int, ...]) -> float:
    """max over the parts of the state and the batch of ‖new - old‖/‖new‖."""
    worst = 0.0
    for a, b in zip(old, new, strict=True):
        axes = tuple(range(len(batch), b.ndim))
        size = torch.linalg.vector_norm(b, dim=axes)
        change = torch.linalg.vector_norm(b - a, dim=axes)
        relative = torch.where(change == 0, change, change / size.clamp_min(torch.finfo(size.dtype).tiny))
        worst = max(worst, float(relative.max()) if relative.numel() else 0.0)
    return worst
