"""The operators that a learner effectively has: every A_i, or every A_i T_g under a group.

`Setting` answers the questions about them that need no signal model: ranks, duplicates, what the
whole set sees. Where AᴴA is diagonal in a known basis (masks, single-coil Fourier, circular blur)
the answers are exact counts.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.checks import check_adjoint
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.irreps import components
from invlearn.physics.linear.dense import Dense
from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space

#: Largest signal for which matrices are formed.
DENSE_LIMIT = 1500
_PROBES = 8


class Precision(NamedTuple):
    """Relative sizes of singular values that can be trusted.

    `rank` and `zero`: below, one counts as zero, in a single operator and in a stack; `borderline`:
    below, one that is not zero cannot be told from zero safely.
    """

    rank: float
    zero: float
    borderline: float


_DOUBLE = Precision(rank=1e-11, zero=1e-12, borderline=1e-8)
#: Operators stored in single precision are known to about 1e-7 of their size.
_SINGLE = Precision(rank=1e-6, zero=1e-6, borderline=1e-5)


class Element(NamedTuple):
    """One effective operator A_i T_g: indices of the operator and of the group element."""

    operator: int
    group: int


class Setting:
    """Operators, and the group under which the signal set is invariant.

    Everything here has to do with null spaces, so each operator is scaled to ‖A_i‖_F² of about n: units
    that differ from operator to operator do not matter.

    Parameters
    ----------
    operators
        A family, or one operator.
    group
        Acts on the operators' domain; None for the trivial group.

    Raises
    ------
    ValueError
        A zero operator, an operator with NaN outputs or a wrong adjoint (the dot test runs first
        and names it), a group that does not act on the domain.
    """

    def __init__(self, operators: OperatorFamily | LinearOperator, group: Group | None = None) -> None:
        if isinstance(operators, LinearOperator):
            operators = OperatorFamily([operators])
        if not isinstance(operators, OperatorFamily):
            raise TypeError(
                f"expected an OperatorFamily or a LinearOperator, got {type(operators).__name__}; "
                "a nonlinear operator is checked through operator.linearize(x)"
            )
        if group is not None:
            if not isinstance(group, Group):
                raise TypeError(
                    f"group= is a Group, such as Shifts({operators.domain.shape}), "
                    f"got {type(group).__name__} {group!r}"
                )
            group.check_domain(operators.domain)
            if not group.exact:
                raise ValueError(
                    f"{group!r} interpolates and is a group only approximately, which proves nothing; check "
                    f"with Rotations90({group.shape}), whose verdict holds for the quarter turns alone"
                )
        self.family = operators
        self.group = group
        self._matrices: dict[int, Tensor] = {}
        self._verify()

    def _verify(self) -> None:
        probe = self.domain.random(_PROBES, generator=_generator(0)).to(self.device)
        self._scales: list[float] = []
        for g, op in enumerate(self.family):
            image = op(probe)
            if not bool(torch.isfinite(image).all()):
                raise ValueError(f"operator {g} ({op.label}) gives NaN or infinite values")
            largest = float(image.abs().max())
            if largest and not 1e-100 < largest < 1e100:
                raise ValueError(
                    f"operator {g} ({op.label}) gives values of size {largest:.0e}, whose squares leave the "
                    "range of floating-point numbers; scale it to a size nearer 1"
                )
            dot = check_adjoint(op)
            if not dot:
                raise ValueError(
                    f"operator {g} ({op.label}) has a wrong adjoint: the dot test is off by "
                    f"{dot.error:.1e} (tolerance {dot.tolerance:.0e}); correct its adjoint first"
                )
            if not bool((image != 0).any()):
                raise ValueError(f"operator {g} ({op.label}) is zero: it measures nothing; remove it")
            # E‖A x‖² = ‖A‖_F²
            self._scales.append(float((self.n / op.codomain.norm(image).square().mean()).sqrt()))

    @property
    def domain(self) -> Space:
        """The space of the signals."""
        return self.family.domain

    @property
    def device(self) -> torch.device:
        """Where the operators live."""
        return self.family[0].device

    @property
    def n(self) -> int:
        """Dimension of the signals, in scalars of their field."""
        return self.domain.size

    @cached_property
    def precision(self) -> Precision:
        """What can be told from zero, by the dtype in which the operators are stored."""
        tensors = [*self.family.buffers(), *self.family.parameters()]
        single = any(t.dtype in (torch.float32, torch.complex64) for t in tensors)
        return _SINGLE if single else _DOUBLE

    @cached_property
    def mode_gain(self) -> Tensor | None:
        """Under all cyclic shifts: ‖A f‖ at every Fourier mode f, `(n,)`; else None.

        Σ_g (A T_g)ᴴ A T_g is then diagonal in the Fourier basis with the entries n ‖A f‖², whatever A is.
        Estimated as the mean of |⟨A f, z⟩|² = |(F Aᴴ z)(f)|² over random z: zero exactly where A f is, with
        probability one.
        """
        if self.group is None or self.group.name != "shifts" or self.group.order != self.n:
            return None
        generator = _generator(5)
        power = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        for op, scale in zip(self.family, self._scales, strict=True):
            z = op.codomain.random(_PROBES, generator=generator).to(self.device)
            spread = scale * self.fourier(self.domain.flatten(op.adjoint(z)))
            power += spread.abs().square().mean(0)
        return power.sqrt()

    @property
    def order(self) -> int:
        """Order of the group; 1 without."""
        return 1 if self.group is None else self.group.order

    @property
    def count(self) -> int:
        """Number of effective operators A_i T_g."""
        return len(self.family) * self.order

    def elements(self, count: int | None = None, seed: int = 0) -> list[Element]:
        """All effective operators, or `count` of them drawn without replacement."""
        if count is None or count >= self.count:
            return [Element(i, g) for g in range(self.order) for i in range(len(self.family))]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(self.count, generator=generator)[:count].sort().values.tolist()
        return [Element(j % len(self.family), j // len(self.family)) for j in drawn]

    def permutation(self, element: Element) -> Tensor | None:
        """The group's permutation of the flattened signal, None for the identity."""
        if self.group is None or element.group == 0:
            return None
        return self.group.permutation(element.group).to(self.device)

    def move(self, x: Tensor, element: Element) -> Tensor:
        """T_g x for flattened signals `(*batch, n)`."""
        perm = self.permutation(element)
        return x if perm is None else x[..., perm]

    def _move_back(self, x: Tensor, perm: Tensor | None) -> Tensor:
        """T_gᴴ x for flattened signals, or rows times T_g; None for the identity."""
        return x if perm is None else torch.empty_like(x).index_copy_(-1, perm, x)

    def apply(self, x: Tensor, element: Element) -> Tensor:
        """A_i T_g x for flattened signals: `(*batch, n)` to `(*batch, m_i)`; complex outputs of a
        real domain as real pairs, so that inner products are the domain's."""
        op = self.family[element.operator]
        y = self._scales[element.operator] * op.codomain.flatten(
            op(self.domain.unflatten(self.move(x, element)))
        )
        if op.codomain.complex and not self.domain.complex:
            y = torch.view_as_real(y).flatten(-2)
        return y

    def adjoint(self, y: Tensor, element: Element) -> Tensor:
        """The adjoint of `apply`."""
        op = self.family[element.operator]
        if op.codomain.complex and not self.domain.complex:
            y = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
        x = self._scales[element.operator] * self.domain.flatten(op.adjoint(op.codomain.unflatten(y)))
        return self._move_back(x, self.permutation(element))

    def normal(self, x: Tensor, element: Element) -> Tensor:
        """T_gᴴ A_iᴴ A_i T_g x for flattened signals, by the operator's fastest form."""
        op = self.family[element.operator]
        x = self.domain.flatten(op.normal(self.domain.unflatten(self.move(x, element))))
        x = self._scales[element.operator] ** 2 * x
        return self._move_back(x, self.permutation(element))

    def _matrix(self, i: int) -> Tensor:
        if i not in self._matrices:
            a = self._scales[i] * self.family[i].to_dense(torch.float64)
            real_rows = a.is_complex() and not self.domain.complex
            self._matrices[i] = torch.stack([a.real, a.imag], 1).flatten(0, 1) if real_rows else a
        return self._matrices[i]

    def matrix(self, element: Element) -> Tensor:
        """The matrix of A_i T_g, `(rows, n)`; complex rows of a real domain as two real rows."""
        return self._move_back(self._matrix(element.operator), self.permutation(element))

    @cached_property
    def spectra(self) -> tuple[Spectrum | None, ...]:
        """`LinearOperator.spectrum` of each operator."""
        return tuple(op.spectrum() for op in self.family)

    @cached_property
    def basis(self) -> str | None:
        """The basis in which every A_iᴴA_i is diagonal and the group a permutation, or None."""
        bases = {None if s is None else s.basis for s in self.spectra}
        if len(bases) > 1 or None in bases:
            return None
        basis = str(bases.pop())
        if basis == "fourier" and self.group is not None:
            moves = [self.group.fourier_permutation(g) for g in self.group.generators]
            if any(move is None for move in moves):
                return None
        return basis

    @cached_property
    def _diagonals(self) -> list[Tensor]:
        out = []
        for spectrum in self.spectra:
            assert spectrum is not None
            v = spectrum.values.reshape(-1).to(self.device, torch.float64)
            v = v / v.max()
            out.append(torch.where(v > self.precision.rank**2, v, 0.0))
        return out

    def _basis_permutation(self, g: int) -> Tensor:
        assert self.group is not None
        move = self.group.fourier_permutation(g) if self.basis == "fourier" else self.group.permutation(g)
        assert move is not None
        return move

    def diagonal(self, element: Element) -> Tensor:
        """Eigenvalues `(n,)` of (A_i T_g)ᴴ A_i T_g in `basis`, the largest scaled to 1."""
        v = self._diagonals[element.operator]
        if self.group is None or element.group == 0:
            return v
        return self._move_back(v, self._basis_permutation(element.group).to(v.device))

    def coordinates(self, x: Tensor) -> Tensor:
        """Flattened signals `(*batch, n)` in `basis`."""
        return self.fourier(x) if self.basis == "fourier" else x

    def signals(self, c: Tensor) -> Tensor:
        """The inverse of `coordinates`, real where the domain is."""
        if self.basis != "fourier":
            return c
        x = self.inverse_fourier(c)
        return x if self.domain.complex else x.real

    def fourier(self, x: Tensor) -> Tensor:
        """Unitary Fourier coefficients of flattened signals `(*batch, n)`, zero frequency first."""
        axes = tuple(range(-self.domain.ndim, 0))
        return self.domain.flatten(torch.fft.fftn(self.domain.unflatten(x), dim=axes, norm="ortho"))

    def inverse_fourier(self, c: Tensor) -> Tensor:
        """The inverse of `fourier`, complex."""
        axes = tuple(range(-self.domain.ndim, 0))
        return self.domain.flatten(torch.fft.ifftn(self.domain.unflatten(c), dim=axes, norm="ortho"))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of each operator: size of its codomain, in scalars of the domain's field."""
        double = [2 if op.codomain.complex and not self.domain.complex else 1 for op in self.family]
        return tuple(op.codomain.size * d for op, d in zip(self.family, double, strict=True))

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Rank of each operator; an upper bound for those in `rank_unknown`."""
        return tuple(
            min(self.rows[i], self.n) if i in self.rank_unknown else self._rank(i)
            for i in range(len(self.family))
        )

    @cached_property
    def rank_unknown(self) -> frozenset[int]:
        """Operators too large, and without a structure, for their rank to be computed."""
        if self.basis is not None or self.n <= DENSE_LIMIT:
            return frozenset()
        return frozenset(
            i
            for i, op in enumerate(self.family)
            if self.spectra[i] is None and not (isinstance(op, Dense) and min(op.matrix.shape) <= 4096)
        )

    def _rank(self, i: int) -> int:
        spectrum = self.spectra[i]
        if spectrum is not None:
            return int((spectrum.values > self.precision.rank**2 * spectrum.values.max()).sum())
        return matrix_rank(self._matrix(i), self.precision.rank)

    @cached_property
    def duplicates(self) -> tuple[tuple[int, int], ...]:
        """Pairs (i, j), i < j, with one row space: j measures nothing that i does not.

        Decided by projecting one random vector on each row space (equal with probability one only
        if the spaces are); operators of unknown rank, and those that see everything, are left out.
        """
        probe = torch.randn(self.n, dtype=self.domain.dtype(torch.float64), generator=_generator(7))
        probe = probe.to(self.device)
        # Row spaces of operators in single precision are known to about 1e-7.
        near = max(1e-7, 100 * self.precision.rank)
        signatures, kept = torch.empty(len(self.family), 8, dtype=torch.float64), list[int]()
        pairs = []
        for i in range(len(self.family)):
            if i in self.rank_unknown or (self.basis is None and self.n > DENSE_LIMIT):
                continue
            if self.ranks[i] == self.n:
                continue
            signature = self._signature(i, probe)
            same = (signatures[: len(kept)] - signature).abs().amax(1) < near
            if bool(same.any()):
                pairs.append((kept[int(same.int().argmax())], i))
            else:
                signatures[len(kept)] = signature
                kept.append(i)
        return tuple(pairs)

    def _signature(self, i: int, probe: Tensor) -> Tensor:
        """Eight numbers that tell row spaces apart."""
        if self.basis is not None:
            projected = torch.where(self._diagonals[i] > 0, probe, 0)
        else:
            rows = self.row_space(i)
            projected = rows.mH @ (rows @ probe)
        weights = torch.randn(4, self.n, dtype=projected.dtype, generator=_generator(8)).to(self.device)
        return torch.view_as_real((weights @ projected).to(torch.complex128)).flatten().cpu() / self.n**0.5

    def row_space(self, i: int) -> Tensor:
        """Orthonormal rows of the matrix of A_i, `(rank, n)`."""
        _, s, vh = torch.linalg.svd(self._matrix(i), full_matrices=False)
        return vh[s > self.precision.rank * s[0]]

    @property
    def effective(self) -> int:
        """Number of operators with different row spaces."""
        return len(self.family) - len(self.duplicates)

    @cached_property
    def distinct_ranks(self) -> tuple[int, ...]:
        """Ranks without the duplicates."""
        repeated = {j for _, j in self.duplicates}
        return tuple(r for i, r in enumerate(self.ranks) if i not in repeated)

    @cached_property
    def coverage(self) -> Tensor | None:
        """How many effective operators see each entry of `basis`, shape of the domain; None without."""
        if self.basis is None:
            return None
        seen = torch.stack([(d > 0).double() for d in self._diagonals]).sum(0)
        if self.group is not None:
            orbits = self._orbits()
            size = torch.bincount(orbits)
            total = torch.bincount(orbits, weights=seen.cpu(), minlength=len(size))
            seen = (total * self.order / size)[orbits].to(self.device)
        return seen.reshape(self.domain.shape)

    def _orbits(self) -> Tensor:
        """Label of each basis entry's orbit, `(n,)`."""
        assert self.group is not None
        moves = [self._basis_permutation(g).cpu().numpy() for g in self.group.generators]
        stacked = np.stack(moves) if moves else np.empty((0, self.n), dtype=np.int64)
        return torch.from_numpy(components(stacked, self.n)).long()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix_rank(a: Tensor, tolerance: float) -> int:
    """Numerical rank at a relative tolerance, by SVD unless a Cholesky factor settles it sooner."""
    wide = a if a.shape[0] <= a.shape[1] else a.mH
    factor, info = torch.linalg.cholesky_ex(wide @ wide.mH)
    if int(info) == 0:
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        # cond(A) = cond(L) <= |L|_F |L^-1|_F: far from the tolerance the Gram matrix is a witness.
        if float(torch.linalg.norm(factor) * torch.linalg.norm(inverse)) < 1e5:
            return int(wide.shape[0])
    s = torch.linalg.svdvals(wide)
    return int((s > tolerance * s[0]).sum())
