"""Proximal operators: what a regulariser does inside an iteration.

A regulariser R is a small frozen object with ``value(x)`` = R(x) and

    prox(x, step) = argmin_u ½‖u - x‖² + step R(u),

for real or complex tensors with leading batch dimensions; a batch has the sum of the values of its
elements, so that its proximal operator is that of each element. `step` is a number or a
0-dimensional tensor (learned, say), and gradients pass through.

References
----------
Parikh and Boyd, Proximal algorithms, Found. Trends Optim. 1 (2014) 127, doi:10.1561/2400000003.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from invlearn.physics.linear import FiniteDifference, Wavelet
from invlearn.physics.solvers import Solution, report
from invlearn.wavelets import max_level

Step = float | Tensor


class Regulariser(ABC):
    """A function with a known proximal operator."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """R(x), summed over the batch; real, 0-dimensional."""

    @abstractmethod
    def prox(self, x: Tensor, step: Step) -> Tensor:
        """argmin_u ½‖u - x‖² + step R(u); the shape and dtype of `x`."""


def check_weight(weight: float, who: str) -> None:
    """Refuse a weight that is negative or not finite."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"{who}: the weight must be at least 0 and finite, got {weight}")


def check_axes(x: Tensor, needed: int, who: str, axes: str) -> None:
    """Refuse a tensor with too few axes; `axes` says which ones are needed."""
    if x.ndim < needed:
        raise ValueError(f"{who} acts on (*batch, {axes}), got {tuple(x.shape)}")


def number(step: Step) -> float:
    """The value of a step, whatever gradient it carries."""
    return float(step.detach()) if isinstance(step, Tensor) else step


def shrink(x: Tensor, size: Tensor, threshold: Step) -> Tensor:
    """Make `x` shorter by `threshold`, `size` being its length: x max(size - threshold, 0)/size."""
    return x * (F.relu(size - threshold) / torch.where(size > 0, size, torch.ones_like(size)))


def cycle_spin(
    call: Callable[[Tensor], Tensor], x: Tensor, offsets: Iterable[int], axes: tuple[int, ...]
) -> Tensor:
    """The mean of `call` over copies of `x` shifted by each offset along all of `axes`, shifted back."""
    moved = [
        call(x.roll([-o] * len(axes), axes)).roll([o] * len(axes), axes) if o else call(x) for o in offsets
    ]
    return moved[0] if len(moved) == 1 else torch.stack(moved).mean(0)


@dataclass(frozen=True)
class Zero(Regulariser):
    """R = 0: no prior, the proximal operator is the identity."""

    def value(self, x: Tensor) -> Tensor:
        return x.real.new_zeros(())

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return x


@dataclass(frozen=True)
class L1(Regulariser):
    """R(x) = weight Σ |x_i|: soft thresholding; a complex entry keeps its phase.

    Parameters
    ----------
    weight
        At least 0, in the unit of 1/x times the unit of the data term.

    Raises
    ------
    ValueError
        A negative or infinite weight.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight, "L1")

    def value(self, x: Tensor) -> Tensor:
        return self.weight * x.abs().sum()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return shrink(x, x.abs(), self.weight * step)


@dataclass(frozen=True)
class GroupL1(Regulariser):
    """R(x) = weight Σ_g ‖x_g‖₂, a group being the entries along `axis`: they vanish together.

    Parameters
    ----------
    weight
        At least 0.
    axis
        Axes of one group, negative (counted from the last); -3 joins the channels of `(C, H, W)`.

    Raises
    ------
    ValueError
        A negative weight, no axis, or one that is not negative.
    """

    weight: float = 1.0
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        check_weight(self.weight, "GroupL1")
        if not self._axes or max(self._axes) >= 0:
            raise ValueError(f"GroupL1: axes are counted from the last, -1, -2, ..., got {self.axis}")

    @property
    def _axes(self) -> tuple[int, ...]:
        return (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)

    def _norms(self, x: Tensor) -> Tensor:
        check_axes(x, -min(self._axes), "GroupL1", f"{-min(self._axes)} axes")
        return torch.linalg.vector_norm(x, dim=self._axes, keepdim=True)

    def value(self, x: Tensor) -> Tensor:
        return self.weight * self._norms(x).sum()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return shrink(x, self._norms(x), self.weight * step)


@dataclass(frozen=True)
class Box(Regulariser):
    """R(x) = 0 where lower <= x <= upper, infinite elsewhere: clipping. By default x >= 0.

    Parameters
    ----------
    lower, upper
        Bounds of real data, infinite for none.

    Raises
    ------
    ValueError
        Bounds in the wrong order, or complex data.
    """

    lower: float = 0.0
    upper: float = math.inf

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise ValueError(f"Box: lower must not be above upper, got {self.lower} and {self.upper}")

    def value(self, x: Tensor) -> Tensor:
        inside = (self.prox(x, 1.0) == x).all()
        return torch.where(inside, x.new_zeros(()), x.new_full((), math.inf))

    def prox(self, x: Tensor, step: Step) -> Tensor:
        if x.is_complex():
            raise ValueError("Box: complex numbers have no order; pass a real part, or use another prior")
        return x.clamp(self.lower, self.upper)


@dataclass(frozen=True)
class TotalVariation(Regulariser):
    """R(x) = weight Σ_i ‖(∇x)_i‖₂: isotropic total variation of the last `ndim` axes.

    ∇ are forward differences, zero at the far border. The proximal operator has no closed form: the
    dual problem is solved by accelerated projected gradients until the duality gap, which bounds
    ½‖u - prox‖² for the current u, is small enough.

    Parameters
    ----------
    weight
        At least 0.
    ndim
        Number of trailing axes, 2 or 3 (1 for signals).
    tolerance
        Bound on ‖u - prox‖/‖x‖; by default 1e-3 in single, 1e-5 in double precision.
    max_iterations
        Steps allowed; a proximal operator that needs more is logged as not converged.

    Raises
    ------
    ValueError
        A negative weight, an `ndim` outside 1 to 3, a tolerance outside 0 to 1, no iterations.

    References
    ----------
    Rudin, Osher and Fatemi, Physica D 60 (1992) 259, doi:10.1016/0167-2789(92)90242-F;
    Beck and Teboulle, IEEE Trans. Image Process. 18 (2009) 2419, doi:10.1109/TIP.2009.2028250;
    O'Donoghue and Candès, Found. Comput. Math. 15 (2015) 715, doi:10.1007/s10208-013-9150-3 (restarts).
    """

    weight: float = 1.0
    ndim: int = 2
    tolerance: float | None = None
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        check_weight(self.weight, "TotalVariation")
        if self.ndim not in (1, 2, 3):
            raise ValueError(f"TotalVariation: ndim must be 1, 2 or 3, got {self.ndim}")
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ValueError(f"TotalVariation: the tolerance lies between 0 and 1, got {self.tolerance}")
        if self.max_iterations < 1:
            raise ValueError(f"TotalVariation: max_iterations must be at least 1, got {self.max_iterations}")

    def _gradient(self, x: Tensor) -> FiniteDifference:
        check_axes(x, self.ndim, "TotalVariation", f"{self.ndim} image axes")
        return FiniteDifference(x.shape[-self.ndim :], complex=x.is_complex())

    def _lengths(self, gradient: Tensor) -> Tensor:
        return torch.linalg.vector_norm(gradient, dim=-self.ndim - 1, keepdim=True)

    def value(self, x: Tensor) -> Tensor:
        return self.weight * self._lengths(self._gradient(x)(x)).sum()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        t = self.weight * step
        if number(t) == 0:
            return x
        nabla = self._gradient(x)
        single = x.dtype in (torch.float32, torch.complex64)
        tolerance = self.tolerance or (1e-3 if single else 1e-5)
        scale = nabla.domain.norm(x).clamp_min(torch.finfo(x.dtype).tiny)
        p = q = torch.zeros_like(nabla(x))  # dual fields, entries at most 1; u = x - t ∇ᴴp
        momentum, residuals = 1.0, []
        for k in range(self.max_iterations):
            ascent = q + nabla(x - t * nabla.adjoint(q)) / (4 * self.ndim * t)  # ‖∇‖² <= 4 ndim
            new = ascent / self._lengths(ascent).clamp_min(1)
            if float(torch.real((q - new).conj() * (new - p)).sum().detach()) > 0:
                momentum = 1.0  # the momentum points uphill: start it anew
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            q = new + (momentum - 1) / following * (new - p)
            p, momentum = new, following
            if k % 10 == 9 or k == self.max_iterations - 1:
                gap = self._gap(nabla, x - t * nabla.adjoint(p), p) * t
                residuals.append(float(((2 * gap.clamp_min(0)).sqrt() / scale).max().detach()))
                if residuals[-1] <= tolerance:
                    break
        u = x - t * nabla.adjoint(p)
        done = residuals[-1] <= tolerance
        return report("TotalVariation.prox", Solution(u, done, k + 1, tuple(residuals)), tolerance).value

    def _gap(self, nabla: FiniteDifference, u: Tensor, p: Tensor) -> Tensor:
        gradient = nabla(u)
        axes = tuple(range(-self.ndim - 1, 0))
        return self._lengths(gradient).sum(axes) - torch.real(p.conj() * gradient).sum(axes)


@lru_cache(maxsize=32)
def _wavelet(shape: tuple[int, ...], wavelet: str, level: int | None, complex: bool) -> Wavelet:
    """The transform over all axes of `shape`, refused unless it is unitary and does something."""
    if level is None:
        halvings = min((n & -n).bit_length() - 1 for n in shape)
        level = min(halvings, max_level(shape, wavelet))
    transform = Wavelet(shape, wavelet, level, complex=complex)
    if not (transform.unitary and level > 0):
        raise ValueError(
            f"WaveletShrinkage is exact for unitary transforms only, and {wavelet!r} with {level} levels on "
            f"{shape} is not one: use an orthogonal wavelet (haar, db4, sym4) on sizes divisible by "
            f"{2 ** max(level, 1)}; crop or pad the image"
        )
    return transform


@dataclass(frozen=True)
class WaveletShrinkage(Regulariser):
    """R(x) = weight Σ |(Wx)_i|, W a unitary wavelet transform of the last `ndim` axes.

    Parameters
    ----------
    weight
        At least 0.
    wavelet
        Name of an orthogonal wavelet.
    level
        Number of levels; by default the deepest that stays unitary on the given sizes.
    ndim
        Number of trailing axes, 1 to 3.
    shifts
        Number of diagonal shifts 0, 1, ... over which the proximal operator is averaged (cycle spinning).
        With more than one it is the proximal operator of the proximal average of the shifted
        regularisers, of which `value` is an upper bound.
    approximation
        Whether the coarsest approximation is shrunk too.

    Raises
    ------
    ValueError
        A negative weight, no shift, a wavelet or sizes that make no unitary transform.

    References
    ----------
    Donoho, IEEE Trans. Inform. Theory 41 (1995) 613, doi:10.1109/18.382009; Bauschke, Goebel, Lucet
    and Wang, SIAM J. Optim. 19 (2008) 766, doi:10.1137/070687542 (the proximal average).
    """

    weight: float = 1.0
    wavelet: str = "db4"
    level: int | None = None
    ndim: int = 2
    shifts: int = 1
    approximation: bool = False

    def __post_init__(self) -> None:
        check_weight(self.weight, "WaveletShrinkage")
        if self.ndim not in (1, 2, 3):
            raise ValueError(f"WaveletShrinkage: ndim must be 1, 2 or 3, got {self.ndim}")
        if self.shifts < 1:
            raise ValueError(f"WaveletShrinkage: shifts must be at least 1, got {self.shifts}")

    def _coefficients(self, x: Tensor) -> tuple[Wavelet, Tensor, Tensor]:
        """The transform, coefficients left alone, coefficients shrunk."""
        check_axes(x, self.ndim, "WaveletShrinkage", f"{self.ndim} image axes")
        transform = _wavelet(tuple(x.shape[-self.ndim :]), self.wavelet, self.level, x.is_complex())
        y = transform(x)
        kept = 0 if self.approximation else math.prod(transform.split(y)[0].shape[-self.ndim :])
        return transform, y[..., :kept], y[..., kept:]

    def value(self, x: Tensor) -> Tensor:
        axes = tuple(range(-self.ndim, 0))
        shifted = [x.roll([-o] * self.ndim, axes) for o in range(self.shifts)]
        return self.weight * torch.stack([self._coefficients(s)[2].abs().sum() for s in shifted]).mean()

    def prox(self, x: Tensor, step: Step) -> Tensor:
        return cycle_spin(lambda s: self._shrink(s, step), x, range(self.shifts), tuple(range(-self.ndim, 0)))

    def _shrink(self, x: Tensor, step: Step) -> Tensor:
        transform, kept, rest = self._coefficients(x)
        shrunk = shrink(rest, rest.abs(), self.weight * step)
        return transform.adjoint(torch.cat([kept, shrunk], -1))
