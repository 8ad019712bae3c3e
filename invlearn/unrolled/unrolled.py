"""Unrolled networks: a fixed number of steps of a proximal algorithm, its parts learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from invlearn.io.tensors import as_tensor
from invlearn.physics.linear.radon import fbp
from invlearn.physics.operator import LinearOperator
from invlearn.unrolled.data_term import DataTerm
from invlearn.unrolled.iterations import ADMM, FISTA, HQS, PDHG, PGD, Iteration, Prox, State
from invlearn.unrolled.networks import Learned, Network
from invlearn.unrolled.proximal import Regulariser, Step

Start = Callable[[Tensor, LinearOperator], Tensor]

#: Starts that go by a name. "adjoint" is Aᴴy/‖A‖².
STARTS: dict[str, Start | None] = {"zero": None, "adjoint": None, "fbp": fbp}


class Unrolled(nn.Module):
    """`depth` steps of an iteration for min ½‖Ax - y‖² + R(x): ``x = model(y, A)`` for any operator A.

    Each step has a step size that starts safely, as a fraction of 1/‖A‖², and is learned from there
    (it stays positive). Before training a network with a `Learned` prior is the algorithm without prior.

    Parameters
    ----------
    iteration
        The algorithm.
    prior
        What stands for the proximal operator: a `Learned`; any module from images to images; or a
        `Regulariser`, of which a factor to the weight is learned, one a step.
    depth
        Number of steps.
    tied
        Whether all steps share one prior; the step sizes are one a step in any case.
    step
        Step size at first, in units of 1/‖A‖².
    start
        Where the iteration starts: `"zero"`, `"adjoint"` (Aᴴy/‖A‖²), `"fbp"` (for `Radon2D`), or a function
        of (y, A).
    norm
        An upper bound of ‖A‖ for all operators that the model will meet; by default computed for each
        operator and kept with it. Give it where operators are made anew at every call.
    checkpoint
        Whether to keep only the state between the steps for the gradient, and compute the rest again:
        the same gradient, with memory for one step, at the price of one more forward pass.
    seed
        Of the first weights of a `Learned` prior.

    Raises
    ------
    ValueError
        A depth below 1, a step or norm that is not positive, an unknown start; on a call, checkpoints with
        an operator that has its adjoint from `torch.func` (`FromFunction`).
    TypeError
        An iteration or prior of another kind.

    References
    ----------
    Gregor and LeCun, ICML 2010, 399 (learned iterations); Monga, Li and Eldar, IEEE Signal Process.
    Mag. 38 (2021) 18, arXiv:1912.10557; Chen, Xu, Zhang and Guestrin, arXiv:1604.06174 (checkpoints).
    """

    def __init__(
        self,
        iteration: Iteration,
        prior: Learned | nn.Module | Regulariser,
        depth: int = 8,
        *,
        tied: bool = False,
        step: float = 1.0,
        start: str | Start = "zero",
        norm: float | None = None,
        checkpoint: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(iteration, Iteration):
            raise TypeError(f"Unrolled: the iteration is an object such as PGD(), got {iteration!r}")
        if isinstance(prior, Network):
            raise TypeError(f"Unrolled: a network becomes a prior by Learned({prior!r})")
        if not isinstance(prior, nn.Module | Regulariser):
            raise TypeError(
                f"Unrolled: the prior is a Learned(...), another torch.nn.Module, or a regulariser such as "
                f"L1(0.1), got {prior!r}"
            )
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"Unrolled: depth must be at least 1, got {depth!r}; it counts whole steps")
        if not step > 0:
            raise ValueError(f"Unrolled: the step must be positive, got {step}")
        if norm is not None and not norm > 0:
            raise ValueError(f"Unrolled: the norm must be positive, got {norm}")
        if isinstance(start, str) and start not in STARTS:
            raise ValueError(
                f"Unrolled: no start {start!r}; there are {', '.join(STARTS)}, or give a function"
            )
        self.iteration, self.depth, self.tied = iteration, depth, tied
        self.start, self.norm, self.checkpoint = start, norm, checkpoint
        self.log_steps = nn.Parameter(torch.full((depth,), math.log(step)))
        self.regulariser = prior if isinstance(prior, Regulariser) else None
        self.priors = nn.ModuleList()
        if isinstance(prior, Regulariser):
            self.log_strengths = nn.Parameter(torch.zeros(depth))
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                fresh = prior.fresh if isinstance(prior, Learned) else lambda: copy.deepcopy(prior)
                self.priors.extend(fresh() for _ in range(1 if tied else depth))

    @property
    def steps(self) -> Tensor:
        """Step sizes now, in units of 1/‖A‖², `(depth,)`."""
        return self.log_steps.exp()

    def _prox(self, k: int) -> Prox:
        if self.regulariser is None:
            prior = self.priors[0 if self.tied else k]
            return lambda x, step: prior(x)
        regulariser, strength = self.regulariser, self.log_strengths[k].exp()
        return lambda x, step: regulariser.prox(x, strength * step)

    def _first(self, data: DataTerm) -> Tensor:
        if self.start == "zero":
            return data.zero()
        if self.start == "adjoint":
            return data.back_projection / data.scale
        start = STARTS[self.start] if isinstance(self.start, str) else self.start
        assert start is not None
        return start(data.measurement, data.operator)

    @overload
    def __call__(self, y: Tensor, operator: LinearOperator) -> Tensor: ...
    @overload
    def __call__(self, y: np.ndarray, operator: LinearOperator) -> np.ndarray: ...
    def __call__(self, y: Any, operator: LinearOperator) -> Any:
        """The reconstruction `(*batch, *domain)` of `(*batch, *codomain)`."""
        return super().__call__(y, operator)

    def forward(self, y: Any, operator: LinearOperator) -> Any:
        if isinstance(y, np.ndarray):
            with torch.no_grad():
                return self(as_tensor(y, "a measurement").to(self.log_steps.device), operator).cpu().numpy()
        data = DataTerm(operator, y, self.norm)
        state = self.iteration.start(data, self._first(data))
        for k in range(self.depth):
            state = self._advance(state, data, self.log_steps[k].exp(), k)
        return self.iteration.image(state)

    def _advance(self, state: State, data: DataTerm, step: Step, k: int) -> State:
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self.iteration.advance(state, data, self._prox(k), step, k)

        def again(*parts: Tensor) -> State:
            return self.iteration.advance(parts, data, self._prox(k), step, k)

        try:
            return recompute(again, *state, use_reentrant=False)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            raise ValueError(
                f"Unrolled: checkpoint=True does not work with {data.operator.label}: an adjoint by "
                "torch.func, as that of FromFunction, cannot be computed again; take checkpoint=False"
            ) from error

    def extra_repr(self) -> str:
        prior = "" if self.regulariser is None else f", {self.regulariser}"
        return f"{type(self.iteration).__name__}, depth={self.depth}, tied={self.tied}{prior}"


class UnrolledPGD(Unrolled):
    """Unrolled proximal gradient descent; arguments as in `Unrolled`, without the iteration."""

    def __init__(self, prior: Learned | nn.Module | Regulariser, depth: int = 8, **settings: Any) -> None:
        super().__init__(PGD(), prior, depth, **settings)


class UnrolledFISTA(Unrolled):
    """Unrolled accelerated proximal gradient descent; arguments as in `Unrolled`, without the iteration."""

    def __init__(self, prior: Learned | nn.Module | Regulariser, depth: int = 8, **settings: Any) -> None:
        super().__init__(FISTA(), prior, depth, **settings)


class UnrolledHQS(Unrolled):
    """Unrolled half-quadratic splitting; arguments as in `Unrolled`, without the iteration."""

    def __init__(self, prior: Learned | nn.Module | Regulariser, depth: int = 8, **settings: Any) -> None:
        super().__init__(HQS(), prior, depth, **settings)


class UnrolledADMM(Unrolled):
    """Unrolled ADMM; arguments as in `Unrolled`, without the iteration."""

    def __init__(self, prior: Learned | nn.Module | Regulariser, depth: int = 8, **settings: Any) -> None:
        super().__init__(ADMM(), prior, depth, **settings)


class UnrolledPDHG(Unrolled):
    """Unrolled primal-dual hybrid gradients; arguments as in `Unrolled`, without the iteration."""

    def __init__(self, prior: Learned | nn.Module | Regulariser, depth: int = 8, **settings: Any) -> None:
        super().__init__(PDHG(), prior, depth, **settings)
