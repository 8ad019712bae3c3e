"""Operators side by side: stacked on one domain, or each on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator, OfSeveral, Spectrum, is_flat, same_space
from invlearn.physics.space import Space


class _Blocks(OfSeveral):
    """Operators side by side; equal spaces are stacked along a new first axis, others flattened."""

    @staticmethod
    def _joint(spaces: Sequence[Space]) -> Space:
        cplx = spaces[0].complex
        if any(s.complex != cplx for s in spaces):
            raise ValueError(
                "cannot join real and complex spaces "
                f"({', '.join(map(str, spaces))}); build all operators with the same complex= setting"
            )
        if all(s.shape == spaces[0].shape for s in spaces):
            return Space((len(spaces), *spaces[0].shape), cplx)
        return Space((sum(s.size for s in spaces),), cplx)

    @staticmethod
    def _join(joint: Space, spaces: Sequence[Space], parts: Sequence[Tensor]) -> Tensor:
        return joint.unflatten(torch.cat([s.flatten(p) for s, p in zip(spaces, parts, strict=True)], -1))

    @staticmethod
    def _split(joint: Space, spaces: Sequence[Space], x: Tensor) -> list[Tensor]:
        parts = joint.flatten(x).split([s.size for s in spaces], dim=-1)
        return [s.unflatten(p) for s, p in zip(spaces, parts, strict=True)]


class Stack(_Blocks):
    """x to (A_1 x, ..., A_G x); made by `stack`."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        first = operators[0]
        for op in operators[1:]:
            same_space(
                "cannot stack",
                f"the domain of {first.label}",
                first.domain,
                f"that of {op.label}",
                op.domain,
            )
        super().__init__(first.domain, self._joint([op.codomain for op in operators]), operators)

    def _forward(self, x: Tensor) -> Tensor:
        return self._join(
            self.codomain, [op.codomain for op in self.operators], [op._forward(x) for op in self.operators]
        )

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = self._split(self.codomain, [op.codomain for op in self.operators], y)
        return torch.stack([op._adjoint(p) for op, p in zip(self.operators, parts, strict=True)]).sum(0)

    def _normal(self, x: Tensor) -> Tensor:
        return torch.stack([op._normal(x) for op in self.operators]).sum(0)

    def _spectrum(self) -> Spectrum | None:
        spectra = [s for op in self.operators if (s := op.spectrum()) is not None]
        bases = {s.basis for s in spectra if not is_flat(s)}
        if len(spectra) < len(self.operators) or len(bases) > 1:
            return None
        values = torch.stack([s.values.to(self.device) for s in spectra]).sum(0)
        return Spectrum(bases.pop() if bases else spectra[0].basis, values)


class BlockDiagonal(_Blocks):
    """(x_1, ..., x_G) to (A_1 x_1, ..., A_G x_G); made by `block_diagonal`."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        super().__init__(
            self._joint([op.domain for op in operators]),
            self._joint([op.codomain for op in operators]),
            operators,
        )

    def _forward(self, x: Tensor) -> Tensor:
        parts = self._split(self.domain, [op.domain for op in self.operators], x)
        outs = [op._forward(p) for op, p in zip(self.operators, parts, strict=True)]
        return self._join(self.codomain, [op.codomain for op in self.operators], outs)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = self._split(self.codomain, [op.codomain for op in self.operators], y)
        outs = [op._adjoint(p) for op, p in zip(self.operators, parts, strict=True)]
        return self._join(self.domain, [op.domain for op in self.operators], outs)

    def _normal(self, x: Tensor) -> Tensor:
        domains = [op.domain for op in self.operators]
        parts = self._split(self.domain, domains, x)
        outs = [op._normal(p) for op, p in zip(self.operators, parts, strict=True)]
        return self._join(self.domain, domains, outs)

    def _spectrum(self) -> Spectrum | None:
        spectra = [s for op in self.operators if (s := op.spectrum()) is not None]
        # a Fourier transform over the joint axes is not the blocks' own
        if len(spectra) < len(self.operators) or any(
            s.basis == "fourier" and not is_flat(s) for s in spectra
        ):
            return None
        values = torch.cat([s.values.flatten().to(self.device) for s in spectra])
        return Spectrum("pixel", self.domain.unflatten(values))


def _listed(operators: Sequence[LinearOperator], what: str) -> Sequence[LinearOperator]:
    operators = list(operators)
    if not operators:
        raise ValueError(f"{what} needs at least one operator")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise TypeError(f"{what} takes linear operators, got {type(op).__name__}")
    return operators


def stack(operators: Sequence[LinearOperator]) -> LinearOperator:
    """x to (A_1 x, ..., A_G x), one domain.

    The codomain has a new first axis of length G when all codomains have one shape; otherwise it
    is flat, the outputs one after another.
    """
    return Stack(_listed(operators, "stack"))


def block_diagonal(operators: Sequence[LinearOperator]) -> LinearOperator:
    """(x_1, ..., x_G) to (A_1 x_1, ..., A_G x_G); spaces are joined as in `stack`."""
    return BlockDiagonal(_listed(operators, "block_diagonal"))
