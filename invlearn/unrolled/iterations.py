"""One step of a proximal algorithm for min_x ½‖Ax - y‖² + R(x): the part of a network that one can swap.

An iteration has a start, a step and an answer. Its state is a tuple of tensors; it keeps nothing
itself. `step` is the step size in units of 1/‖A‖², 1 by default; the proximal operator is called
as ``prox(x, step/‖A‖²)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invlearn.unrolled.data_term import DataTerm
from invlearn.unrolled.proximal import Step

State = tuple[Tensor, ...]
Prox = Callable[[Tensor, Step], Tensor]


class Iteration(ABC):
    """A proximal algorithm, one step at a time."""

    def start(self, data: DataTerm, x: Tensor) -> State:
        """The state before the first step, at the image `x`."""
        return (x,)

    @abstractmethod
    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        """The state after step number `k` = 0, 1, ...

        Parameters
        ----------
        state
            From `start` or the step before.
        data
            The data term.
        prox
            Proximal operator of R, or what has learned to stand for it.
        step
            Step size in units of 1/‖A‖².
        k
            Number of the step.
        """

    def image(self, state: State) -> Tensor:
        """The answer: by default the output of the last proximal operator."""
        return state[0]


@dataclass(frozen=True)
class PGD(Iteration):
    """Proximal gradient descent, x ← prox(x - τ Aᴴ(Ax - y), τ); converges for steps below 2.

    References
    ----------
    Combettes and Wajs, Multiscale Model. Simul. 4 (2005) 1168, doi:10.1137/050626090.
    """

    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        (x,) = state
        t = step / data.scale
        return (prox(x - t * data.gradient(x), t),)


@dataclass(frozen=True)
class FISTA(Iteration):
    """Accelerated proximal gradient descent; converges for steps up to 1.

    x' = prox(z - τ Aᴴ(Az - y), τ), then z ← x' + k/(k + 3) (x' - x): the values come within a constant
    over k² of the least one. (With k/(k + 1 + a), a > 2, the iterates are known to converge too; a = 2
    here, as in the method's first form.)

    References
    ----------
    Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009) 183, doi:10.1137/080716542; Chambolle and Dossal,
    J. Optim. Theory Appl. 166 (2015) 968, doi:10.1007/s10957-015-0746-4.
    """

    def start(self, data: DataTerm, x: Tensor) -> State:
        return (x, x)

    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        x, z = state
        t = step / data.scale
        new = prox(z - t * data.gradient(z), t)
        return (new, new + k / (k + 3) * (new - x))


@dataclass(frozen=True)
class HQS(Iteration):
    """Half-quadratic splitting: x = argmin f(x) + ‖x - z‖²/(2τ), then z ← prox(x, τ).

    Converges to a minimiser of f(x) + ‖x - z‖²/(2τ) + R(z) over both; that problem tends to
    min f + R as τ tends to 0.

    Parameters
    ----------
    data_last
        Whether the answer is x instead of z, by one more data step after the last proximal operator: then a
        learned prior cannot change what the measurements say.
    tolerance
        Of the conjugate gradients in the data steps, as in `invlearn.physics.cg`; networks learn with loose
        ones too, and sooner.

    References
    ----------
    Geman and Yang, IEEE Trans. Image Process. 4 (1995) 932, doi:10.1109/83.392335; with the data step last:
    Aggarwal, Mani and Jacob, IEEE Trans. Med. Imaging 38 (2019) 394, doi:10.1109/TMI.2018.2865356.
    """

    data_last: bool = False
    tolerance: float | None = None

    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        (z,) = state
        t = step / data.scale
        if self.tolerance is not None:
            data = replace(data, tolerance=self.tolerance)
        if not self.data_last:
            return (prox(data.prox(z, t), t),)
        x = data.prox(z, t) if k == 0 else z
        return (data.prox(prox(x, t), t),)


@dataclass(frozen=True)
class ADMM(Iteration):
    """Alternating direction method of multipliers, with the scaled multiplier u; converges for any step.

    x = argmin f(x) + ‖x - z + u‖²/(2τ), then z ← prox(x + u, τ), u ← u + x - z.

    References
    ----------
    Boyd, Parikh, Chu, Peleato and Eckstein, Found. Trends Mach. Learn. 3 (2011) 1, doi:10.1561/2200000016.
    """

    def start(self, data: DataTerm, x: Tensor) -> State:
        return (x, torch.zeros_like(x))

    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        z, u = state
        t = step / data.scale
        x = data.prox(z - u, t)
        new = prox(x + u, t)
        return (new, u + x - new)


@dataclass(frozen=True)
class PDHG(Iteration):
    """Primal-dual hybrid gradients with the dual variable u in the space of the measurements.

    x' = prox(x - τAᴴu, τ), u ← (u + σ(A(2x' - x) - y))/(1 + σ), with τ = step/‖A‖² and σ = 1/step,
    so that στ‖A‖² = 1: converges for any step, without solving a system.

    References
    ----------
    Chambolle and Pock, J. Math. Imaging Vis. 40 (2011) 120, doi:10.1007/s10851-010-0251-1.
    """

    def start(self, data: DataTerm, x: Tensor) -> State:
        return (x, torch.zeros_like(data.measurement))

    def advance(self, state: State, data: DataTerm, prox: Prox, step: Step, k: int) -> State:
        x, u = state
        a, t, sigma = data.operator, step / data.scale, 1 / step
        new = prox(x - t * a.adjoint(u), t)
        return (new, (u + sigma * (a(2 * new - x) - data.measurement)) / (1 + sigma))


#: The iterations by their names in model cards.
ITERATIONS: dict[str, Iteration] = {
    "pgd": PGD(),
    "fista": FISTA(),
    "hqs": HQS(),
    "admm": ADMM(),
    "pdhg": PDHG(),
}


def iteration_by_name(name: str) -> Iteration:
    """The iteration called `name`: pgd, fista, hqs, admm or pdhg.

    Raises
    ------
    ValueError
        No such iteration.
    """
    if name not in ITERATIONS:
        raise ValueError(f"no iteration {name!r}; there are {', '.join(ITERATIONS)}")
    return ITERATIONS[name]
