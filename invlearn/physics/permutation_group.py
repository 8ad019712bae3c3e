"""The group that given permutations generate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from invlearn.physics.group import Group, image_shape
from invlearn.physics.irreps import SPLIT_LIMIT, Irrep, components, regular_irreps, split_irreps
from invlearn.physics.linear.permutation import permutation_indices

_TABLE_LIMIT = 2**26  # indices in the table of all elements: 256 MB as int32


class Permutations(Group):
    """The group that given permutations generate; the table of all its elements is kept.

    Parameters
    ----------
    generators
        `(r, n)` or `(n,)` integers; a row p acts by ``(T x).flatten()[i] = x.flatten()[p[i]]``.
    shape
        Shape of the images, `n` entries; `(n,)` by default.
    order_limit
        Refuse groups with more elements.

    Raises
    ------
    TypeError
        Indices that are not integers.
    ValueError
        A row that is no permutation, rows of different lengths, a shape that does not fit, or a
        group above the limit.
    """

    name = "permutations"

    def __init__(
        self,
        generators: Tensor | np.ndarray | Sequence[Any],
        shape: Sequence[int] | None = None,
        order_limit: int = 20_000,
    ) -> None:
        rows, shape = _permutation_rows(generators, shape, "generator")
        n = rows.shape[1]
        limit = min(order_limit, max(_TABLE_LIMIT // n, 1))

        def admit(count: int, *_: object) -> None:
            if count > limit:
                raise ValueError(
                    f"the generators give more than {limit} elements ({limit * n * 4 / 2**20:.0f} MB); "
                    + ("raise order_limit, or " if limit == order_limit else "")
                    + "generate a smaller subgroup"
                )

        self._build(_table(_closure(rows, admit), n), rows, shape)

    @classmethod
    def from_elements(
        cls, table: Tensor | np.ndarray | Sequence[Any], shape: Sequence[int] | None = None
    ) -> Permutations:
        """The group whose elements are the rows of `table`, checked to be a group.

        Elements keep their numbers, but the identity becomes number 0 and those before it move up.

        Parameters
        ----------
        table
            `(order, n)` integers, one permutation a row.
        shape
            Shape of the images; `(n,)` by default.

        Raises
        ------
        ValueError
            No identity, a repeated row, or a product of two rows that is not among them.
        """
        rows, shape = _permutation_rows(table, shape, "element")
        seen: dict[bytes, int] = {}
        for number, row in enumerate(rows):
            first = seen.setdefault(row.tobytes(), number)
            if first != number:
                raise ValueError(f"element {number} repeats element {first}; give every element once")
        unit = seen.get(np.arange(rows.shape[1], dtype=np.int32).tobytes())
        if unit is None:
            raise ValueError(
                f"the {len(rows)} elements do not hold the identity, so they are no group; "
                "add it, or pass them as generators to Permutations(...)"
            )

        def admit(_: int, product: bytes, g: np.ndarray, h: np.ndarray) -> None:
            if product not in seen:
                raise ValueError(
                    f"the elements are not closed: the product of element {seen[g.tobytes()]} and element "
                    f"{seen[h.tobytes()]} is not among them; add it, or pass them as generators to "
                    "Permutations(...)"
                )

        chosen: list[int] = []
        reached: dict[bytes, int] = {rows[unit].tobytes(): 0}
        for row, number in seen.items():  # at most log2(order) of them enlarge the subgroup reached
            if row not in reached:
                chosen.append(number)
                reached = _closure(rows[chosen], admit)
        group = cls.__new__(cls)
        moved = np.concatenate([rows[unit : unit + 1], rows[:unit], rows[unit + 1 :]])
        group._build(moved, rows[chosen], shape)
        return group

    def _build(self, table: np.ndarray, generators: np.ndarray, shape: tuple[int, ...]) -> None:
        """Take over all elements, identity first, and a few of them that generate the rest."""
        order, n = table.shape
        # a few entries whose images tell all elements apart: products are found by them alone
        base: list[int] = []
        code = np.zeros(order, dtype=np.int64)
        while (alike := np.bincount(code)).max() > 1:
            first, second = np.flatnonzero(code == alike.argmax())[:2]
            base.append(int(np.flatnonzero(table[first] != table[second])[0]))
            code = np.unique(code * n + table[:, base[-1]], return_inverse=True)[1]
        self._table = table
        self._base = np.array(base, dtype=np.int64)
        self._numbers = {row.tobytes(): g for g, row in enumerate(table[:, self._base])}
        numbers = {self._numbers[row.tobytes()]: None for row in generators[:, self._base]}
        numbers.pop(0, None)
        moves = table[list(numbers)]
        abelian = all(np.array_equal(p[q], q[p]) for p in moves for q in moves)
        exponent = math.lcm(*(int(c) for p in moves for c in np.bincount(components(p[None], n))))
        super().__init__(shape, order, tuple(numbers), cyclic=abelian and exponent == order)

    def _move(self, x: Tensor, g: int) -> Tensor:
        batch = x.shape[: x.ndim - len(self.shape)]
        order = torch.from_numpy(self._table[g]).to(x.device)
        return x.reshape(*batch, self.size)[..., order].reshape(x.shape)

    def _compose(self, g: int, h: int) -> int:
        return self._numbers[self._table[h][self._table[g][self._base]].tobytes()]

    def _inverse(self, g: int) -> int:
        inverse = np.argsort(self._table[g]).astype(np.int32)
        return self._numbers[inverse[self._base].tobytes()]

    def fixed_points(self) -> Int[Tensor, " order"]:
        return torch.from_numpy((self._table == np.arange(self.size)).sum(1))

    def _decompose(self) -> tuple[Irrep, ...]:
        if min(self.size, self.order) > SPLIT_LIMIT:
            raise ValueError(
                f"{self!r} is too large to split into irreps: its order {self.order} or its {self.size} "
                f"entries must be at most {SPLIT_LIMIT}; use Shifts, Rotations90, Flips or Dihedral, which "
                "have closed forms, or a subgroup"
            )
        if self.size <= self.order:
            return split_irreps(self._table[list(self.generators)])
        images = self._table[:, self._base]
        cayley = np.array([[self._numbers[row.tobytes()] for row in p[images]] for p in self._table])
        return regular_irreps(cayley, self.generators, self.fixed_points())

    def __repr__(self) -> str:
        return f"Permutations of order {self.order} on {self.shape}"


def _permutation_rows(
    given: Tensor | np.ndarray | Sequence[Any], shape: Sequence[int] | None, what: str
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Checked permutations, `(r, n)` int32, and the shape that they act on."""
    if len(given) == 0:
        raise ValueError(f"Permutations needs at least one {what}, got none")
    listed = list(given) if np.ndim(given[0]) else [given]
    rows = [permutation_indices(row, f"{what} {number}") for number, row in enumerate(listed)]
    checked = (rows[0].numel(),) if shape is None else image_shape(shape, "Permutations")
    for number, row in enumerate(rows):
        if row.numel() != math.prod(checked):
            raise ValueError(
                f"{what} {number} permutes {row.numel()} entries, images of shape {checked} "
                f"have {math.prod(checked)}"
            )
    return torch.stack(rows).numpy().astype(np.int32), checked


def _closure(
    generators: np.ndarray, admit: Callable[[int, bytes, np.ndarray, np.ndarray], None]
) -> dict[bytes, int]:
    """All products of `(r, n)` permutations, in the order in which they were found.

    `admit(count, product, g, h)` may refuse the `count`-th element, found as g after h.
    """
    unit = np.arange(generators.shape[1], dtype=generators.dtype)
    found = {unit.tobytes(): 0}
    queue = [unit]
    for g in queue:
        for h in generators:
            product = h[g]
            key = product.tobytes()
            if key not in found:
                admit(len(found) + 1, key, g, h)
                found[key] = len(found)
                queue.append(np.frombuffer(key, dtype=product.dtype))  # shares memory with the key
    return found


def _table(found: dict[bytes, int], n: int) -> np.ndarray:
    return np.frombuffer(b"".join(found), dtype=np.int32).reshape(-1, n).copy()
