"""From a graph of centre lines to rooted trees: loops opened, spurs pruned, roots chosen, paths smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from invlearn.io.swc import parents_first
from invlearn.neuro.skeleton import Skeleton
from invlearn.neuro.soma import Soma

_ALWAYS = 1e-9  # weight of an edge that the spanning tree takes for sure


@dataclass(frozen=True)
class Forest:
    """Rooted trees.

    Attributes
    ----------
    points
        (N, 3), µm, (z, y, x).
    radius
        (N,), µm.
    parent
        (N,), -1 for roots.
    certainty
        (N,), the probability, 1 in a mask.
    soma
        (N,), bool: the nodes that stand for a soma; all of them roots.
    """

    points: np.ndarray
    radius: np.ndarray
    parent: np.ndarray
    certainty: np.ndarray
    soma: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @property
    def order(self) -> np.ndarray:
        """The nodes, parents first."""
        return parents_first(self.parent)

    @property
    def degree(self) -> np.ndarray:
        """(N,): the number of children, and one for the parent."""
        inner = self.parent >= 0
        return np.bincount(self.parent[inner], minlength=len(self)) + inner

    @property
    def step(self) -> np.ndarray:
        """(N,): the distance to the parent, 0 for roots, µm."""
        away = np.linalg.norm(self.points - self.points[self.parent], axis=1)
        return np.where(self.parent >= 0, away, 0.0)

    def root(self) -> np.ndarray:
        """(N,): the root of each node's tree."""
        found = np.arange(len(self))
        for node in self.order:
            if self.parent[node] >= 0:
                found[node] = found[self.parent[node]]
        return found

    def take(self, kept: np.ndarray) -> Forest:
        """The nodes with `kept` (N,) true; one whose parent goes becomes a root."""
        place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        return Forest(
            self.points[kept],
            self.radius[kept],
            place[self.parent[kept]],
            self.certainty[kept],
            self.soma[kept],
        )


def open_loops(skeleton: Skeleton, somas: Sequence[Soma]) -> Forest:
    """The maximum spanning forest: every loop is opened where probability times radius is least.

    All nodes inside a soma become one, a root; where two somas are connected, the branch between them is cut
    at its least certain place too. The other parts get a first root at their thickest node.
    """
    count, many = len(skeleton), len(somas)
    place = np.arange(count)
    for number, soma in enumerate(somas):
        place[soma.holds(skeleton)] = count + number
    certainty = np.maximum(skeleton.certainty * skeleton.radius, 1e-6)
    start, end = skeleton.edges.T
    length = np.linalg.norm(skeleton.points[start] - skeleton.points[end], axis=1)
    weight = 1 / np.minimum(certainty[start], certainty[end]) + 1e-6 * length
    # a node above all roots: somas, and the thickest node of every part without one
    parts = skeleton.component
    order = np.argsort(skeleton.radius)
    thickest = np.empty(parts.max() + 1, dtype=np.int64)
    thickest[parts[order]] = order
    free = ~np.isin(np.arange(len(thickest)), parts[[soma.node for soma in somas]])
    roots = np.concatenate([count + np.arange(many), thickest[free]])
    above = count + many
    start = np.concatenate([place[start], np.full(len(roots), above)])
    end = np.concatenate([place[end], roots])
    weight = np.concatenate([weight, np.full(len(roots), _ALWAYS)])
    parent = _spanning_parents(start, end, weight, above)
    alive = np.append(place == np.arange(count), np.ones(many, dtype=bool))
    forest = Forest(
        np.concatenate([skeleton.points, *(soma.centre[None] for soma in somas)]),
        np.concatenate([skeleton.radius, [soma.radius for soma in somas]]),
        np.where(parent[:above] == above, -1, parent[:above]),
        np.append(skeleton.certainty, np.ones(many)),
        np.arange(above) >= count,
    )
    return forest.take(alive)


def _spanning_parents(start: np.ndarray, end: np.ndarray, weight: np.ndarray, root: int) -> np.ndarray:
    """Parents in the minimum spanning tree of a connected graph, seen from `root`, the last node."""
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort((weight, high, low))
    low, high, weight = low[order], high[order], weight[order]
    first = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0)) & (low != high)
    graph = coo_matrix((weight[first], (low[first], high[first])), shape=(root + 1, root + 1))
    tree = minimum_spanning_tree(graph.tocsr())
    return breadth_first_order(tree, root, directed=False)[1]


def prune(forest: Forest, spur: float | int, extra: float | int) -> Forest:
    """Side branches that do not reach out of the branch that they leave are removed.

    At every branch point, a branch whose longest path is shorter than ``spur * radius + extra`` goes, radius
    being that of the branch point; the longest one always stays, but for a soma, which may lose all.

    Parameters
    ----------
    forest
        Trees.
    spur
        In radii.
    extra
        µm.
    """
    parent, step, order = forest.parent.tolist(), forest.step.tolist(), forest.order.tolist()
    reach = [0.0] * len(forest)  # of the longest path from a node to an end below it
    favourite = [-1] * len(forest)
    for node in reversed(order):
        above = parent[node]
        if above >= 0 and (favourite[above] < 0 or reach[node] + step[node] > reach[above]):
            reach[above], favourite[above] = reach[node] + step[node], node
    kept = np.ones(len(forest), dtype=bool)
    for node in order:
        above = parent[node]
        if above < 0:
            continue
        short = reach[node] + step[node] < spur * forest.radius[above] + extra
        spare = favourite[above] != node or forest.soma[above]
        kept[node] = kept[above] and not (short and spare)
    return forest.take(kept)


def root_at_ends(forest: Forest) -> Forest:
    """Trees without a soma, rooted at their thickest end."""
    tree = forest.root()
    ends = np.flatnonzero(forest.degree <= 1)
    ends = ends[~forest.soma[tree[ends]]]
    ends = ends[np.argsort(forest.radius[ends], kind="stable")]
    thickest = dict(
        zip(tree[ends].tolist(), ends.tolist(), strict=True)
    )  # the last of each tree: the thickest
    parent = forest.parent.copy()
    for node in thickest.values():
        below = -1
        while node >= 0:
            parent[node], below, node = below, node, int(parent[node])
    return replace(forest, parent=parent)


def smooth(forest: Forest, values: np.ndarray, passes: int, fixed: np.ndarray) -> np.ndarray:
    """Values (N, ...) along the branches, averaged `passes` times: half a node, half its neighbours' mean.

    Parameters
    ----------
    forest
        The trees.
    values
        A row a node.
    passes
        Standard deviation of the whole: ``sqrt(passes / 2)`` nodes.
    fixed
        (N,), bool: nodes that keep their value.
    """
    child = np.flatnonzero(forest.parent >= 0)
    ones = np.ones(len(child))
    shape = (len(forest), len(forest))
    joined = coo_matrix((ones, (child, forest.parent[child])), shape=shape).tocsr()
    joined = joined + joined.T
    columns = values.reshape(len(forest), -1)
    many = np.maximum(forest.degree, 1)[:, None]
    moving = ~(fixed | (forest.degree == 0))[:, None]
    for _ in range(passes):
        columns = np.where(moving, 0.5 * columns + 0.5 * (joined @ columns) / many, columns)
    return columns.reshape(values.shape)
