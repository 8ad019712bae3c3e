"""Neuron tracings in SWC files: rooted trees of spheres joined by frusta.

A line a node: id, type, x, y, z, radius, id of the parent (-1: a root). x runs along the columns of the
stack, y along its rows (downwards), z along its slices; the centre of the first voxel is at 0.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.atomic import replacing
from invlearn.io.voxels import VoxelSize, checked_voxel_size

UNITS = ("um", "nm", "voxel", "unknown")
SOMA, AXON, DENDRITE = 1, 2, 3
_MEANINGS = {"u": "um", "µ": "um", "μ": "um", "m": "um", "n": "nm", "v": "voxel", "p": "voxel"}
_UNIT = re.compile(
    r"(?:\bunits?\b\W{0,4}|\bin\s+)(um|µm|μm|microns?|micromet\w+|nm|nanomet\w+|voxels?|pixels?)\b",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[\s,;]+")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_COLUMNS = ("id", "type", "x", "y", "z", "radius", "parent")


@dataclass(frozen=True, eq=False)
class Tree:
    """One or several rooted trees.

    Attributes
    ----------
    xyz
        (N, 3), float64, in `unit`.
    radius
        (N,), float64, in `unit`.
    parent
        (N,), the index of each node's parent in this order, -1 for a root.
    kind
        (N,), the types of SWC: 0 undefined, 1 soma, 2 axon, 3 dendrite, 4 apical dendrite, ...
    unit
        "um", "nm", "voxel" (columns, rows and slices of some stack) or "unknown".

    Raises
    ------
    ValueError
        Arrays that do not fit each other, no node, numbers that are not finite, negative radii, parents that
        do not exist, a cycle, or another unit.
    """

    xyz: np.ndarray
    radius: np.ndarray
    parent: np.ndarray
    kind: np.ndarray
    unit: str = "um"

    def __post_init__(self) -> None:
        xyz = np.ascontiguousarray(self.xyz, dtype=np.float64)
        if xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
            raise ValueError(f"a tree has nodes (N, 3) with N at least 1, got the shape {xyz.shape}")
        columns = {"radius": np.float64, "parent": np.int64, "kind": np.int64}
        for name, dtype in columns.items():
            values = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            if values.shape != (len(xyz),):
                raise ValueError(
                    f"a tree of {len(xyz)} nodes has as many entries in {name}, got {values.shape}"
                )
            object.__setattr__(self, name, values)
        object.__setattr__(self, "xyz", xyz)
        if not np.isfinite(xyz).all() or not np.isfinite(self.radius).all():
            raise ValueError("coordinates and radii of a tree are finite; NaN or infinity came")
        if (self.radius < 0).any():
            raise ValueError(f"radii of a tree are at least 0, got {self.radius.min():g}")
        if self.unit not in UNITS:
            raise ValueError(f"the unit of a tree is one of {', '.join(UNITS)}, got {self.unit!r}")
        if (self.parent < -1).any() or (self.parent >= len(xyz)).any():
            raise ValueError(f"parents of a tree of {len(xyz)} nodes are -1 to {len(xyz) - 1}")
        loop = find_cycle(self.parent)
        if loop is not None:
            raise ValueError(
                f"node {loop} of the tree is its own ancestor: cut the cycle at one of its nodes"
            )

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def roots(self) -> np.ndarray:
        """Indices of the roots."""
        return np.flatnonzero(self.parent < 0)

    @property
    def edges(self) -> np.ndarray:
        """(E, 2): each node that has a parent, and its parent."""
        child = np.flatnonzero(self.parent >= 0)
        return np.stack([child, self.parent[child]], axis=1)

    @property
    def length(self) -> float:
        """Sum of all edges, in `unit`."""
        child, parent = self.edges.T
        return float(np.linalg.norm(self.xyz[child] - self.xyz[parent], axis=1).sum())

    @property
    def children(self) -> np.ndarray:
        """(N,): the number of children of each node."""
        return np.bincount(self.parent[self.parent >= 0], minlength=len(self))

    @property
    def branch_points(self) -> np.ndarray:
        """Indices of the nodes with two or more children, roots with three or more."""
        return np.flatnonzero(self.children >= np.where(self.parent < 0, 3, 2))

    @property
    def ends(self) -> np.ndarray:
        """Indices of the nodes at one edge only: those without a child, and roots with one."""
        return np.flatnonzero(self.children + (self.parent >= 0) == 1)

    def components(self) -> np.ndarray:
        """(N,): the number of the tree that each node is in, in the order of `roots`."""
        label = np.full(len(self), -1)
        label[self.roots] = np.arange(len(self.roots))
        for node in parents_first(self.parent):
            if self.parent[node] >= 0:
                label[node] = label[self.parent[node]]
        return label

    def sorted(self) -> Tree:
        """The same with every parent before its children, each tree in one piece and depth first."""
        return self.take(parents_first(self.parent))

    def take(self, nodes: Sequence[int] | np.ndarray) -> Tree:
        """Some nodes, in this order; one whose parent is not among them becomes a root."""
        nodes = np.asarray(nodes, dtype=np.int64)
        place = np.full(len(self) + 1, -1)
        place[nodes] = np.arange(len(nodes))
        place[-1] = -1  # the parent of a root
        return Tree(
            self.xyz[nodes], self.radius[nodes], place[self.parent[nodes]], self.kind[nodes], self.unit
        )

    def scaled(self, factor: VoxelSize, unit: str) -> Tree:
        """Coordinates times `factor`, (x, y, z); radii times the geometric mean of its x and y."""
        factor = np.asarray(factor, dtype=np.float64)
        if factor.shape != (3,) or not (factor > 0).all() or not np.isfinite(factor).all():
            raise ValueError(f"a tree is scaled by three positive numbers (x, y, z), got {factor.tolist()}")
        return replace(
            self, xyz=self.xyz * factor, radius=self.radius * np.sqrt(factor[0] * factor[1]), unit=unit
        )

    def in_um(self, voxel_size: VoxelSize | None = None) -> Tree:
        """In micrometres; the format's convention, micrometres, holds for an unknown unit.

        Parameters
        ----------
        voxel_size
            (z, y, x), µm: needed if the unit is the voxel.

        Raises
        ------
        ValueError
            The unit is the voxel and its size is not given.
        """
        if self.unit == "nm":
            return self.scaled((1e-3, 1e-3, 1e-3), "um")
        if self.unit != "voxel":
            return replace(self, unit="um")
        if voxel_size is None:
            raise ValueError(
                "the tree is in voxels, whose size is not known: give the voxel size (z y x, µm)"
            )
        return self.scaled(checked_voxel_size(voxel_size)[::-1], "um")

    def zyx(self, voxel_size: VoxelSize = (1.0, 1.0, 1.0)) -> np.ndarray:
        """(N, 3): coordinates in voxels (z, y, x); `voxel_size` (z, y, x) in µm does not count in voxels."""
        if self.unit == "voxel":
            return np.ascontiguousarray(self.xyz[:, ::-1])
        return self.in_um().xyz[:, ::-1] / checked_voxel_size(voxel_size)

    def flipped_y(self, last: float) -> Tree:
        """y counted from the other end: ``last - y``, `last` the y of the last row, in `unit`."""
        return replace(self, xyz=self.xyz * (1, -1, 1) + (0, last, 0))

    def to_dict(self) -> dict[str, Any]:
        """How much of what is in it."""
        return {
            "nodes": len(self),
            "trees": len(self.roots),
            "branch_points": len(self.branch_points),
            "ends": len(self.ends),
            "length": self.length,
            "unit": self.unit,
        }


def joined(trees: Sequence[Tree]) -> Tree:
    """Several trees as one forest.

    Raises
    ------
    ValueError
        None, or trees of different units.
    """
    units = {tree.unit for tree in trees}
    if len(units) != 1:
        raise ValueError(f"trees that are joined have one unit, got {', '.join(sorted(units)) or 'no tree'}")
    starts = np.cumsum([0, *map(len, trees)])
    parent = [np.where(t.parent < 0, -1, t.parent + s) for t, s in zip(trees, starts, strict=False)]
    return Tree(
        np.concatenate([t.xyz for t in trees]),
        np.concatenate([t.radius for t in trees]),
        np.concatenate(parent),
        np.concatenate([t.kind for t in trees]),
        units.pop(),
    )


def parents_first(parent: np.ndarray) -> np.ndarray:
    """Indices in an order with parents before children, each tree in one piece, depth first."""
    order = np.argsort(parent, kind="stable")
    first = np.searchsorted(parent[order], np.arange(-1, len(parent)))
    last = np.append(first[1:], len(parent))
    found, waiting = [], list(order[first[0] : last[0]][::-1])
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(order[first[node + 1] : last[node + 1]][::-1])
    return np.array(found, dtype=np.int64)


def find_cycle(parent: np.ndarray) -> int | None:
    """A node that is its own ancestor; None if there is none."""
    above = np.append(np.where(parent < 0, len(parent), parent), len(parent))  # the last: above all roots
    for _ in range(len(parent).bit_length()):  # twice as far up each time
        above = above[above]
    looping = np.flatnonzero(above[:-1] < len(parent))
    return int(above[looping[0]]) if len(looping) else None  # so far up it is in the cycle, not below it


def _text(path: Path) -> str:
    """The file as text."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is no text file, and so no SWC")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _rows(path: Path, text: str, strict: bool) -> Iterator[tuple[int, list[float]]]:
    """Line number and seven numbers of each node."""
    seen = False
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        words = line.split() if strict else _words(line)
        try:
            values = [float(word) for word in words[:7]]
        except ValueError:
            if not seen and not strict and not any(word[:1].isdigit() for word in words):
                continue  # a line with the names of the columns
            raise ValueError(
                f"{path}, line {number}: {line!r} are not the numbers {', '.join(_COLUMNS)}"
            ) from None
        if len(values) < 7 or (strict and len(words) != 7):
            raise ValueError(
                f"{path}, line {number}: {len(words)} numbers, where a node has {', '.join(_COLUMNS)}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{path}, line {number}: {line!r} has a number that is not finite")
        if any(values[i] != int(values[i]) for i in (0, 1, 6)):
            raise ValueError(f"{path}, line {number}: id, type and parent are whole numbers, got {line!r}")
        if values[0] < 0:
            raise ValueError(f"{path}, line {number}: the id {words[0]} is negative; number nodes from 1")
        seen = True
        yield number, values


def _words(line: str) -> list[str]:
    """The columns between blanks, commas, semicolons; where blanks and semicolons do, a comma is a point."""
    words = [word for word in re.split(r"[\s;]+", line) if word]
    if len(words) >= len(_COLUMNS) and any(_DECIMAL_COMMA.fullmatch(word) for word in words):
        return [word.replace(",", ".") for word in words]
    return _SEPARATORS.split(line.strip(",; \t"))


def _unit(text: str) -> str:
    """What the comments say of the unit."""
    for line in text.splitlines():
        found = _UNIT.search(line) if line.lstrip().startswith("#") else None
        if found:
            word = found.group(1).lower()
            return "nm" if word.startswith("n") else _MEANINGS[word[0]]
    return "unknown"


def _parents(path: Path, ids: np.ndarray, above: np.ndarray, lines: np.ndarray, strict: bool) -> np.ndarray:
    """Indices of the parents, -1 for roots."""
    order = np.argsort(ids, kind="stable")
    double = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(double):
        first, second = order[double[0]], order[double[0] + 1]
        raise ValueError(
            f"{path}, line {lines[second]}: the id {ids[second]} was already given in line {lines[first]}; "
            "give every node its own"
        )
    place = np.minimum(np.searchsorted(ids[order], above), len(ids) - 1)
    found = ids[order][place] == above
    missing = np.flatnonzero(~found & (above >= 0))
    if len(missing):
        k = missing[0]
        say = f"{path}, line {lines[k]}: node {ids[k]} has the parent {above[k]}, which does not exist"
        if strict:
            raise ValueError(f"{say}; give -1 for a root")
        warnings.warn(f"{say}; {len(missing)} such node(s) became roots", stacklevel=3)
    return np.where(found & (above >= 0), order[place], -1)


def read_swc(path: str | os.PathLike[str], *, strict: bool = False) -> Tree:
    """Read an SWC file.

    Parameters
    ----------
    path
        The file.
    strict
        Take the format by its word: seven columns between blanks, parents that exist and stand before their
        children, no negative radius. Otherwise tabs, commas and semicolons, decimal commas, further columns,
        a line of column names, and ids in any order are read too; a parent that does not exist makes a root
        and a negative radius becomes 0, each with a warning.

    Returns
    -------
    Tree
        In the order of the file. Its unit is what a comment says (``# unit um``, "in microns", ...), else
        "unknown".

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No text, no node, a line that is no node, an id given twice, or a cycle; with the number of the line.
    """
    path = Path(path)
    text = _text(path)
    rows = list(_rows(path, text, strict))
    if not rows:
        raise ValueError(f"{path} has no nodes")
    lines = np.array([number for number, _ in rows])
    table = np.array([values for _, values in rows])
    ids, above = table[:, 0].astype(np.int64), table[:, 6].astype(np.int64)
    parent = _parents(path, ids, above, lines, strict)
    loop = find_cycle(parent)
    if loop is not None:
        raise ValueError(
            f"{path}, line {lines[loop]}: node {ids[loop]} is its own ancestor; give -1 as the parent of one "
            "node of that cycle"
        )
    late = np.flatnonzero(parent > np.arange(len(parent)))
    negative = np.flatnonzero(table[:, 5] < 0)
    if strict and len(late):
        k = late[0]
        raise ValueError(f"{path}, line {lines[k]}: the parent {above[k]} stands below; sort the nodes")
    if len(negative):
        say = f"{path}, line {lines[negative[0]]}: the radius {table[negative[0], 5]:g} is negative"
        if strict:
            raise ValueError(say)
        warnings.warn(f"{say}; {len(negative)} such radii became 0", stacklevel=2)
    kind = table[:, 1].astype(np.int64)
    return Tree(table[:, 2:5], np.maximum(table[:, 5], 0), parent, kind, _unit(text))


def write_swc(path: str | os.PathLike[str], tree: Tree, *, comment: str = "") -> None:
    """Write a tree: ids from 1 without gaps, parents before their children, the unit in the header.

    Parameters
    ----------
    path
        The file; one that exists is replaced when all is written.
    tree
        Coordinates are written to five decimals.
    comment
        Lines for the header.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    OSError
        It cannot be written; then nothing is left of it.
    """
    tree = tree.sorted()
    header = [*comment.splitlines(), f"unit {tree.unit}", " ".join(_COLUMNS)]
    lines = [f"# {line}" for line in header]
    parent = np.where(tree.parent < 0, -1, tree.parent + 1)
    for k, ((x, y, z), radius) in enumerate(zip(tree.xyz, tree.radius, strict=True)):
        lines.append(f"{k + 1} {tree.kind[k]} {x:.5f} {y:.5f} {z:.5f} {radius:.5f} {parent[k]}")
    with replacing(path) as place:
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")
