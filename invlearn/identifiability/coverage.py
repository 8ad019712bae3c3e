"""What the operators see together, whatever the signals are: the necessary condition N1 / N2."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from invlearn.identifiability.nullspace import NullSpace, fourier_signals, null_space
from invlearn.identifiability.setting import DENSE_LIMIT, Setting

_SHOWN = 64


@dataclass(frozen=True, eq=False)
class Coverage:
    """Rank of the stacked operators, and what stays invisible.

    Attributes
    ----------
    rank
        Of the stack of all effective operators; an upper bound where `settled` is False.
    unseen
        Orthonormal directions that none sees, `(j, n)`, at most 64.
    settled
        Whether the rank was decided (with probability 1 - 1e-9 for large unstructured operators).
    method
        How.
    note
        A caveat, empty if there is none.
    complete
        False where the search for unseen directions stopped early: the rank is an upper bound then.
    """

    rank: int
    unseen: Tensor = field(repr=False)
    settled: bool
    method: str
    note: str = ""
    complete: bool = True


def measure_coverage(setting: Setting, seed: int = 0) -> Coverage:
    """Rank of stack_e A_e over all effective operators A_e = A_i T_g.

    Exact counts for operators diagonal in a known basis. For all cyclic shifts the sum of A_eᴴA_e is
    diagonal in the Fourier basis, with ‖A f‖² at the mode f, whatever A is. Otherwise singular values,
    or Lanczos for large signals.
    """
    group = setting.group
    if setting.basis is not None:
        return _counted(setting)
    if setting.mode_gain is not None:
        return _shifted(setting, setting.mode_gain)
    result: NullSpace | None = None
    count = (
        setting.count if group is None else min(setting.count, max(32, 4 * setting.n // max(setting.ranks)))
    )
    while True:
        elements = setting.elements(count, seed)
        result = null_space(setting, elements, [], [-1] * len(elements))
        if result.nullity == 0 or count >= setting.count or setting.n > DENSE_LIMIT:
            break
        count = min(setting.count, 4 * count)
    settled = result.nullity > 0 or result.gap > 0
    complete = result.exact or result.gap > 0
    rank, note = setting.n - result.nullity, ""
    if not complete:
        rank = min(rank, sum(setting.ranks) * setting.order)  # there are no more rows
    if count < setting.count and result.nullity > 0:
        settled, note = False, f"only {count} of {setting.count} moved operators were examined"
    elif not settled:
        note = "the rank of the stacked operators was not settled: " + result.method
    elif result.borderline:
        note = (
            f"borderline: the smallest nonzero singular value of the stack is {result.gap:.1e} of the largest"
        )
    elif not complete:
        note = "the rank of the stacked operators is an upper bound: " + result.method
    return Coverage(rank, result.vectors, settled, result.method, note, complete)


def _counted(setting: Setting) -> Coverage:
    coverage = setting.coverage
    assert coverage is not None
    empty = (coverage.flatten() == 0).nonzero().squeeze(1)
    method = f"exact count in the {setting.basis} basis"
    return Coverage(setting.n - len(empty), _modes(setting, empty, str(setting.basis)), True, method)


def _shifted(setting: Setting, gain: Tensor) -> Coverage:
    empty = (gain <= 10 * setting.precision.rank * gain.max()).nonzero().squeeze(1)
    method = "Fourier modes under all cyclic shifts, random probes (probability one)"
    return Coverage(setting.n - len(empty), _modes(setting, empty, "fourier"), True, method)


def _modes(setting: Setting, empty: Tensor, basis: str) -> Tensor:
    """Basis vectors of the unseen entries as orthonormal signals `(j, n)`."""
    n, dtype = setting.n, setting.domain.dtype(torch.float64)
    empty = empty[:_SHOWN].cpu()
    unit = torch.zeros(len(empty), n, dtype=torch.complex128 if basis == "fourier" else dtype)
    unit[torch.arange(len(empty)), empty] = 1
    if basis == "fourier" and len(empty):
        unit = fourier_signals(setting, unit)
    return unit.to(setting.device)
