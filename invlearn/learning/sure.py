"""Losses for noisy measurements: unbiased estimates of the risk, from the noise law or without its level.

With h(y) = A f(y, A), u = A x the clean measurement and m its number of entries, each estimates ‖h(y) -
u‖²/m. Divergences are estimated with one random probe a step, by a forward difference of h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invlearn.learning.losses import EquivariantImaging, unit_probe
from invlearn.learning.objective import Batch, Loss, Objective, mean_square
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.noise import GaussianNoise, Noise, PoissonGaussianNoise, PoissonNoise

#: Length of a finite difference over the root mean square of the measurements.
_STEP = 1e-2


def _step(step: float | None, y: Tensor) -> Tensor:
    length = _STEP * mean_square(y).sqrt() if step is None else torch.as_tensor(step)
    return length.clamp(min=torch.finfo(y.real.dtype).tiny).to(y.device, y.real.dtype)


def divergence(batch: Batch, step: float | None, weight: Tensor | float = 1.0) -> Tensor:
    """One probe's estimate of Σ_i w_i (∂Re h_i/∂Re y_i + ∂Im h_i/∂Im y_i)/(m c), a mean over the batch.

    c is the number of real parts of an entry, 1 or 2. The estimate is Re⟨b, w ⊙ (h(y + τb) - h(y))⟩/(m τ)
    with E b bᴴ = 1 (and E b bᵀ = 0 for complex data): for a complex linear h = H, Re tr(diag(w) H)/m.
    """
    b = unit_probe(batch.y, batch.generator)
    tau = _step(step, batch.y)
    change = _h(batch, batch.y + tau * b) - batch.A(batch.x1)
    return (weight * (b.conj() * change).real).mean() / tau


def second_derivatives(batch: Batch, step: float | None, weight: Tensor) -> Tensor:
    """One probe's estimate of Σ_i w_i ∂²h_i/∂y_i² / m for real data, a mean over the batch.

    Σ_i b_i w_i (h(y + τb) + h(y - τb) - 2h(y))_i/τ², b taking two values so that E b = 0, E b² = 1, E b³ = 1.
    """
    root = math.sqrt(5)
    high = torch.rand(batch.y.shape, generator=batch.generator, device=batch.generator.device)
    golden = torch.tensor((1 + root) / 2, dtype=batch.y.dtype, device=batch.y.device)
    b = torch.where(high.to(batch.y.device) < (root - 1) / (2 * root), golden, 1 - golden)
    tau = _step(step, batch.y)
    bend = _h(batch, batch.y + tau * b) + _h(batch, batch.y - tau * b) - 2 * batch.A(batch.x1)
    return (b * weight * bend).mean() / tau**2


def _h(batch: Batch, y: Tensor) -> Tensor:
    return batch.A(batch.reconstruct(y, batch.A))


@dataclass(frozen=True)
class SURE(Loss):
    r"""Stein's unbiased risk estimate for a known noise law.

    With v(y) = `noise.variance(y)`: sd² (Gaussian), gain·y (Poisson), gain·y + sd² (both),

        ‖h(y) - y‖²/m - Σ v_i(y)/m + (2/m) Σ v_i(y) ∂h_i/∂y_i   [ - (gain/m) Σ (gain·y_i + 2 sd²) ∂²h_i/∂y_i²
        ].

    For Gaussian noise, real or complex, its expectation is the risk E‖h(y) - u‖²/m exactly (for complex data
    2 ∂h_i/∂y_i stands for ∂Re h_i/∂Re y_i + ∂Im h_i/∂Im y_i, and sd² = E|n_i|²). With counts the first-order
    formula neglects terms in gain²; with `second_order` those in gain³, exact for h of degree two.

    Attributes
    ----------
    noise
        `GaussianNoise`, `PoissonNoise` or `PoissonGaussianNoise`, on every entry of the measurement.
    second_order
        Whether to add the term with second derivatives (two more passes; only with counts).
    step
        Length τ of the finite differences, unit of y; None for 1 % of the root mean square of the batch.

    Raises
    ------
    ValueError
        Another noise, a step that is not positive, a second order without counts.

    Notes
    -----
    Derivation. For counts, E[u_i h_i(y)] = E[(y_i - n_i) h_i(y - gain e_i)], n the Gaussian part, and
    E[n_i φ(y)] = sd² E[∂_i φ]. Expanding in the gain,
    E[u_i h_i] = E[y_i h_i - v_i ∂_i h_i + (gain²/2) y_i ∂_i² h_i + gain sd² ∂_i² h_i + ...]; minus twice that
    gives the formula: the second-order term is *subtracted*.

    References
    ----------
    C. Stein, Ann. Statist. 9 (1981) 1135, doi:10.1214/aos/1176345632; random probes: S. Ramani, T. Blu, M.
    Unser, IEEE TIP 17 (2008) 1540, doi:10.1109/TIP.2008.2001404; counts and Gaussian noise: Y. Le Montagner,
    E. Angelini, J.-C. Olivo-Marin, IEEE TIP 23 (2014) 1255, doi:10.1109/TIP.2014.2300821.
    """

    noise: Noise
    second_order: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.noise, GaussianNoise | PoissonNoise):
            raise ValueError(
                f"SURE knows GaussianNoise, PoissonNoise and PoissonGaussianNoise, got {self.noise!r}"
            )
        if self.second_order and not isinstance(self.noise, PoissonNoise):
            raise ValueError("SURE: Gaussian noise has no second-order term, the formula is exact without it")
        _check_step(self.step, "SURE")

    def __call__(self, batch: Batch) -> Tensor:
        y = batch.y
        variance = self.noise.variance(y)
        risk = mean_square(batch.A(batch.x1) - y) - variance.mean()
        risk = risk + 2 * divergence(batch, self.step, variance)
        if self.second_order and isinstance(self.noise, PoissonNoise):
            sd = self.noise.sd if isinstance(self.noise, PoissonGaussianNoise) else 0.0
            weight = self.noise.gain * y + 2 * sd**2
            risk = risk - self.noise.gain * second_derivatives(batch, self.step, weight)
        return risk

    def check(self, operators: OperatorFamily) -> None:
        if isinstance(self.noise, PoissonNoise) and any(A.codomain.complex for A in operators):
            raise ValueError(
                f"SURE: counts are real, but the operators measure complex numbers ({self.noise})"
            )


@dataclass(frozen=True)
class UNSURE(Loss):
    """Gaussian noise of unknown level: max_η min_f E ‖h(y) - y‖²/m + (2η/m) Σ ∂h_i/∂y_i.

    η is the Lagrange multiplier of the constraint that the expected divergence is zero, and is learned along
    by ascent, as η = start² exp(rate·s) with one number s; it goes no further up than the mean power of the
    measurements, which no noise exceeds. Its solution for denoising is η = (E‖∇log p(y)‖²/m)⁻¹, which is at
    least the noise variance. Complex data as for `SURE`.

    Attributes
    ----------
    start
        A first guess of the noise's standard deviation, unit of y.
    rate
        How much faster log η moves than a weight of the network. The network must keep up: 10 suits
        convolutions and a learning rate that falls (`schedule="cosine"`); a model whose weights have far to
        go, such as a matrix, wants 1 or less, and a level that grows beyond reason asks for less.
    step
        As for `SURE`.

    Raises
    ------
    ValueError
        A start, rate or step that is not positive.

    References
    ----------
    J. Tachella, M. Davies, L. Jacques, "UNSURE: self-supervised learning with unknown noise level and Stein's
    unbiased risk estimate", ICLR 2025, arXiv:2409.01985.
    """

    start: float
    rate: float = 10.0
    step: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("rate", self.rate)):
            if not 0 < value < math.inf:
                raise ValueError(f"UNSURE: {name} must be positive and finite, got {value}")
        _check_step(self.step, "UNSURE")

    @property
    def initial(self) -> dict[str, float]:
        return {"UNSURE": 0.0}

    def level(self, s: Tensor) -> Tensor:
        """η for the learned number s; unit of y, squared."""
        return self.start**2 * torch.exp(self.rate * s)

    def __call__(self, batch: Batch) -> Tensor:
        eta, most = self.level(batch.learned["UNSURE"]), mean_square(batch.y)
        slope = divergence(batch, self.step)
        value = eta.detach().clamp(max=most)
        if float(eta.detach()) > float(most) and float(slope.detach()) > 0:
            eta = eta.detach()  # no further up
        # the value of η, the opposite gradient: descent becomes ascent
        ascent = (eta.detach() - eta) * slope.detach()
        return mean_square(batch.A(batch.x1) - batch.y) + 2 * (value * slope + ascent)


def robust_equivariant_imaging(noise: Noise, group: Group, weight: float = 1.0) -> Objective:
    """Robust equivariant imaging: `SURE` of the measurements + weight · `EquivariantImaging` with noise.

    Parameters
    ----------
    noise
        Of the measurements, and put on the virtual ones.
    group
        Acts on the operators' domain.
    weight
        Of the equivariance, against the risk.

    References
    ----------
    D. Chen, J. Tachella, M. Davies, "Robust equivariant imaging: a fully unsupervised framework for learning
    to image from noisy and partial measurements", CVPR 2022, arXiv:2111.12855.
    """
    return SURE(noise) + weight * EquivariantImaging(group, noise)


def _check_step(step: float | None, who: str) -> None:
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"{who}: the step of the finite differences must be positive, got {step}")
