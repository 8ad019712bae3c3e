"""Bloch simulation as a layer of a torch network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from invlearn.physics.mri.bloch.simulate import TOLERANCE, PulseSequence, simulate_all


class BlochLayer(nn.Module):
    """Signals of tissues, differentiable in T1, T2 and B1 by the exact derivatives of the simulation.

    Parameters
    ----------
    sequence
        A `FingerprintSequence` or `TurboSpinEcho`.
    tolerance, states
        As for `simulate`.
    """

    def __init__(
        self, sequence: PulseSequence, tolerance: float = TOLERANCE, states: int | None = None
    ) -> None:
        super().__init__()
        self.sequence = sequence
        self.tolerance = tolerance
        self.states = states

    def extra_repr(self) -> str:
        return f"{self.sequence!r}, tolerance={self.tolerance:g}, states={self.states}"

    def forward(self, t1: Tensor, t2: Tensor, b1: Tensor | None = None) -> Tensor:
        """Mx + iMy at every echo for M0 = 1, `(*shape, frames)`.

        Parameters
        ----------
        t1, t2
            In s; shapes that broadcast together.
        b1
            Factor on the flip angles; None is 1.

        Raises
        ------
        ValueError, TypeError
            As `simulate`.
        """
        given = {"t1": t1, "t2": t2} | ({} if b1 is None else {"b1": b1})
        values = torch.broadcast_tensors(*given.values())
        signal: Tensor = _Simulation.apply(self, tuple(given), *values)
        return signal


class _Simulation(torch.autograd.Function):
    """The simulation and, when they are wanted, its derivatives in one go."""

    @staticmethod
    def forward(ctx: Any, layer: BlochLayer, names: tuple[str, ...], *values: Tensor) -> Tensor:
        wanted = tuple(name for name, needed in zip(names, ctx.needs_input_grad[2:], strict=True) if needed)
        given = dict(zip(names, values, strict=True))
        parameters = (given["t1"], given["t2"], given.get("b1"), None)
        signal, slopes = simulate_all(layer.sequence, parameters, layer.tolerance, layer.states, wanted)
        ctx.wanted, ctx.names = wanted, names
        ctx.save_for_backward(slopes)
        return signal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (slopes,) = ctx.saved_tensors
        along = dict(zip(ctx.wanted, (gradient.conj() * slopes).real.sum(-1), strict=True))
        return (None, None, *(along.get(name) for name in ctx.names))
