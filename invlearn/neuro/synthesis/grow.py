"""Random neurons: dendrites that save cable, wandering axons with boutons, somas, spines, single branches.

Coordinates are (x, y, z) in µm inside a box that begins at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from invlearn.io.swc import AXON, DENDRITE, SOMA, Tree, parents_first

SPINE = 7  # a type that the format leaves to the user
_UNDEFINED = 0


@dataclass
class Sketch:
    """A tree under construction: nodes are added along paths."""

    step: float
    xyz: list[np.ndarray] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)

    def node(self, xyz: np.ndarray, radius: float, parent: int, kind: int) -> int:
        """Add one; its index."""
        self.xyz.append(np.asarray(xyz, dtype=np.float64))
        self.radius.append(float(radius))
        self.parent.append(parent)
        self.kind.append(kind)
        return len(self.xyz) - 1

    def path(self, points: np.ndarray, radius: float, parent: int, kind: int) -> int:
        """Add nodes along a curve, the first one's parent given; the index of the last."""
        for point in points:
            parent = self.node(point, radius, parent, kind)
        return parent

    def tree(self) -> Tree:
        """What was built."""
        return Tree(
            np.array(self.xyz), np.array(self.radius), np.array(self.parent), np.array(self.kind), "um"
        )


def spanning_tree(points: np.ndarray, balance: float) -> np.ndarray:
    """The parent of each point in a tree that grows from the first one and saves cable and conduction time.

    The next point joined, and the point of the tree it is joined to, are those with the least
    ``distance + balance · path length to the root``.

    Parameters
    ----------
    points
        (N, 3).
    balance
        0: the minimum spanning tree; 1: almost a star.

    Returns
    -------
    numpy.ndarray
        (N,), -1 for the first.

    References
    ----------
    H. Cuntz, F. Forstner, A. Borst, M. Häusser, One rule to grow them all, PLoS Computational Biology 6
    (2010), e1000877, doi:10.1371/journal.pcbi.1000877.
    """
    n = len(points)
    parent, cost, away = np.full(n, -1), np.full(n, np.inf), np.zeros(n)
    outside = np.ones(n, dtype=bool)
    joined = 0
    for _ in range(n):
        outside[joined] = False
        if parent[joined] >= 0:
            away[joined] = away[parent[joined]] + np.linalg.norm(points[joined] - points[parent[joined]])
        offer = np.linalg.norm(points - points[joined], axis=1) + balance * away[joined]
        better = outside & (offer < cost)
        cost[better], parent[better] = offer[better], joined
        joined = int(np.argmin(np.where(outside, cost, np.inf)))
    return parent


def wander(start: np.ndarray, end: np.ndarray, step: float, wiggle: float, rng: Generator) -> np.ndarray:
    """Points after `start` up to `end`, a step apart, on a smooth detour of about wiggle x distance."""
    distance = float(np.linalg.norm(end - start))
    n = max(int(np.ceil(distance / step)), 1)
    t = np.arange(1, n + 1)[:, None] / n
    waves = np.arange(1, 6)
    bend = np.sin(np.pi * t * waves) @ (rng.normal(size=(5, 3)) / waves[:, None] ** 1.5)
    return start + t * (end - start) + wiggle * distance * 0.5 * bend


def spline(knots: np.ndarray, step: float) -> np.ndarray:
    """Points a step apart on a smooth curve through the knots."""
    from scipy.interpolate import CubicSpline

    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    return CubicSpline(along, knots)(np.linspace(0, along[-1], max(int(along[-1] / step), 2)))


def _add_arbour(
    sketch: Sketch, root: int, targets: np.ndarray, balance: float, wiggle: float, kind: int, rng: Generator
) -> None:
    """Branches from a node to the targets."""
    points = np.concatenate([sketch.xyz[root][None], targets])
    parent = spanning_tree(points, balance)
    node = {0: root}
    for k in parents_first(parent)[1:]:
        above = int(parent[k])
        node[int(k)] = sketch.path(
            wander(points[above], points[k], sketch.step, wiggle, rng), 0.0, node[above], kind
        )


def _add_walk(
    sketch: Sketch, root: int, extent: np.ndarray, length: float, kind: int, rng: Generator
) -> None:
    """A branch that keeps its direction for a while, turns back at the walls, and forks now and then."""
    stiff = rng.uniform(0.08, 0.3)
    forks = rng.uniform(0.3, 4.0) / length
    heading = extent / 2 - sketch.xyz[root] + rng.normal(size=3) * extent / 4
    waiting = [(root, heading / (np.linalg.norm(heading) + 1e-9), length)]
    while waiting:
        node, heading, left = waiting.pop()
        while left > 0:
            inward = np.where(sketch.xyz[node] < 0.06 * extent, 1.0, 0.0) - (sketch.xyz[node] > 0.94 * extent)
            heading = heading + stiff * np.sqrt(sketch.step) * rng.normal(size=3) + 0.25 * inward
            heading /= np.linalg.norm(heading)
            node = sketch.node(sketch.xyz[node] + sketch.step * heading, 0.0, node, kind)
            left -= sketch.step
            if rng.random() < forks * sketch.step and len(sketch.xyz) < 20_000:
                waiting.append(
                    (
                        node,
                        np.cross(heading, rng.normal(size=3)) + 0.7 * heading,
                        left * rng.uniform(0.3, 0.8),
                    )
                )


def _inside(extent: np.ndarray, low: float, high: float, rng: Generator) -> np.ndarray:
    """A point between two shares of the box."""
    return extent * rng.uniform(low, high, size=3)


def _cloud(
    centre: np.ndarray, reach: np.ndarray, count: int, extent: np.ndarray, rng: Generator
) -> np.ndarray:
    """Points in an ellipsoid about a centre, in the box."""
    way = rng.normal(size=(count, 3))
    way *= (rng.random((count, 1)) ** (1 / 2.2)) / np.linalg.norm(way, axis=1, keepdims=True)
    return _mirrored(centre + way * reach, extent)


def _mirrored(points: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Points outside the box, mirrored at its walls into it: cut off, they would crowd on the walls."""
    inside = np.abs(np.mod(points / extent - 0.02, 2 * 0.96) - 0.96)  # a wave between 0 and 0.96
    return (0.98 - inside) * extent


def _shrunk(curve: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """A curve that leaves the box, made smaller about its middle until it does not."""
    centre = extent / 2
    reach = np.abs((curve - centre) / (0.47 * extent)).max(axis=0)
    return centre + (curve - centre) / np.maximum(reach, 1)


def _dendrites(sketch: Sketch, extent: np.ndarray, rng: Generator) -> None:
    """A soma in the middle of an arbour, all around it or to one side."""
    soma = _inside(extent, 0.3, 0.7, rng)
    root = sketch.node(soma, 0.0, -1, SOMA)
    reach = extent * rng.uniform(0.3, 0.6, size=3)
    centre = soma + rng.choice([0.0, 0.6]) * reach * rng.uniform(-1, 1, size=3)
    targets = _cloud(centre, reach, int(rng.integers(12, 70)), extent, rng)
    _add_arbour(sketch, root, targets, rng.uniform(0.15, 0.8), rng.uniform(0.05, 0.3), DENDRITE, rng)


def _axon(sketch: Sketch, extent: np.ndarray, rng: Generator) -> None:
    """A long thin branch without a soma."""
    root = sketch.node(_inside(extent, 0.05, 0.95, rng), 0.0, -1, AXON)
    _add_walk(sketch, root, extent, float(extent.max()) * rng.uniform(0.8, 2.0), AXON, rng)


def _neuron(sketch: Sketch, extent: np.ndarray, rng: Generator) -> None:
    """Dendrites around a soma, and an axon."""
    _dendrites(sketch, extent, rng)
    _add_walk(sketch, 0, extent, float(extent.max()) * rng.uniform(0.5, 1.5), AXON, rng)


def _projection(sketch: Sketch, extent: np.ndarray, rng: Generator) -> None:
    """A soma aside, one long neurite, and tufts along it, as in insects."""
    knots = np.stack([_inside(extent, 0.08, 0.92, rng) for _ in range(rng.integers(3, 7))])
    curve = _shrunk(spline(knots, sketch.step), extent)
    root = sketch.node(curve[0], 0.0, -1, SOMA)
    first = len(sketch.xyz)
    sketch.path(curve[1:], 0.0, root, DENDRITE)
    for share in rng.uniform(0.3, 1.0, size=rng.integers(1, 4)):
        at = min(first + int(share * (len(curve) - 2)), len(sketch.xyz) - 1)
        reach = extent * rng.uniform(0.06, 0.22)
        targets = _cloud(sketch.xyz[at], reach, int(rng.integers(4, 30)), extent, rng)
        _add_arbour(sketch, at, targets, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.35), AXON, rng)


def _branch(sketch: Sketch, extent: np.ndarray, rng: Generator) -> None:
    """A single unbranched curve: straight, waving, or a helix along any axis."""
    shape = rng.choice(["straight", "waves", "helix"])
    axis = int(rng.integers(3))
    t = np.linspace(0, 1, 2000)
    curve = np.empty((len(t), 3))
    curve[:, axis] = rng.uniform(0.04, 0.2) + t * rng.uniform(0.6, 0.76)
    turns, phase = rng.uniform(1.5, 5.5), rng.uniform(0, 2 * np.pi, size=2)
    if shape == "helix":
        phase[1] = phase[0] + np.pi / 2
    across, swing = (
        [k for k in range(3) if k != axis],
        0.0 if shape == "straight" else rng.uniform(0.08, 0.35),
    )
    for k, p in zip(across, phase, strict=True):
        slope = 0.0 if shape == "helix" else rng.uniform(-0.5, 0.5)
        curve[:, k] = 0.5 + slope * (t - 0.5) + swing * np.sin(2 * np.pi * turns * t + p)
    curve = _shrunk(curve * extent, extent)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(int(along[-1] / sketch.step), 2))
    points = np.stack([np.interp(at, along, curve[:, k]) for k in range(3)], axis=1)
    sketch.path(points, 0.0, -1, _UNDEFINED)


KINDS: dict[str, Callable[[Sketch, np.ndarray, Generator], None]] = {
    "neuron": _neuron,
    "dendrites": _dendrites,
    "axon": _axon,
    "projection": _projection,
    "branch": _branch,
}


def _radii(tree: Tree, calibre: float, step: float, rng: Generator) -> np.ndarray:
    """Thicker towards the root, by a rule like Rall's, slowly varying, with swellings on axons."""
    leaves = (tree.children == 0).astype(np.float64)
    order = parents_first(tree.parent)
    for node in order[::-1]:
        if tree.parent[node] >= 0:
            leaves[tree.parent[node]] += leaves[node]
    radius = calibre * np.minimum(leaves ** (1 / rng.uniform(1.6, 4.0)), rng.uniform(2.0, 5.0))
    radius *= np.exp(rng.uniform(0.05, 0.35) * drift(tree, 12 * step, rng))
    if rng.random() < 0.6:
        boutons = (tree.kind == AXON) & (rng.random(len(tree)) < step / rng.uniform(4, 12) / calibre)
        radius[boutons] *= rng.uniform(1.5, 3.0)
    return radius


def drift(tree: Tree, reach: float, rng: Generator) -> np.ndarray:
    """(N,): a random number at each node, standard normal, forgotten along the branches over `reach`."""
    value = rng.normal(size=len(tree))
    child, parent = tree.edges.T
    keep = np.zeros(len(tree))
    keep[child] = np.exp(-np.linalg.norm(tree.xyz[child] - tree.xyz[parent], axis=1) / reach)
    for node in parents_first(tree.parent):
        above = tree.parent[node]
        if above >= 0:
            value[node] = keep[node] * value[above] + np.sqrt(1 - keep[node] ** 2) * value[node]
    return value


def grow(
    kind: str = "neuron",
    *,
    extent: Sequence[float] = (60.0, 120.0, 120.0),
    calibre: float = 0.4,
    soma: float | None = 4.0,
    step: float = 0.5,
    generator: Generator,
) -> Tree:
    """A random neuron.

    Parameters
    ----------
    kind
        "dendrites" (a balanced spanning tree around a soma), "axon" (a wandering, forking branch), "neuron"
        (both), "projection" (a soma aside, a long neurite with tufts), or "branch" (a single curve).
    extent
        (z, y, x), µm: the box that it keeps to.
    calibre
        Radius of the tips, µm.
    soma
        Radius of the soma, µm, for the kinds that have one; None: no soma.
    step
        Distance of neighbouring nodes, µm.
    generator
        Of all randomness.

    Returns
    -------
    Tree
        In µm, one root, the soma if there is one.

    Raises
    ------
    ValueError
        Another kind, or a size that is not positive.

    References
    ----------
    See `spanning_tree` for the dendrites.
    """
    if kind not in KINDS:
        raise ValueError(f"a neuron to grow is one of {', '.join(KINDS)}, got {kind!r}")
    box = np.asarray(extent, dtype=np.float64)[::-1]
    sizes = [*box, calibre, step, *([] if soma is None else [soma])]
    if len(box) != 3 or not all(0 < size < np.inf for size in sizes):
        raise ValueError("grow: extent (z, y, x), calibre, step and soma are positive numbers of µm")
    sketch = Sketch(step)
    KINDS[kind](sketch, box, generator)
    plain = sketch.tree()
    radius = _radii(plain, calibre, step, generator)
    is_soma = plain.kind == SOMA
    if soma is not None:
        radius[is_soma] = soma
    kinds = np.where(is_soma & (soma is None), DENDRITE, plain.kind)
    return Tree(plain.xyz, radius, plain.parent, kinds, "um")


def with_spines(tree: Tree, density: float, length: float, generator: Generator) -> Tree:
    """The tree with spines, nodes of kind `SPINE`, on its dendrites.

    Parameters
    ----------
    tree
        In µm.
    density
        Spines per µm.
    length
        Mean distance of their heads from the surface, µm.
    generator
        Of all randomness.
    """
    child, parent = tree.edges.T
    on = child[(tree.kind[child] == DENDRITE) & (tree.kind[parent] == DENDRITE)]
    way = tree.xyz[on] - tree.xyz[tree.parent[on]]
    chosen = generator.random(len(on)) < density * np.linalg.norm(way, axis=1)
    on, way = on[chosen], way[chosen]
    out = np.cross(way, generator.normal(size=way.shape))
    out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-12
    reach = tree.radius[on] + length * generator.uniform(0.5, 1.5, size=len(on))
    return Tree(
        np.concatenate([tree.xyz, tree.xyz[on] + out * reach[:, None]]),
        np.concatenate([tree.radius, 0.35 * length * np.ones(len(on))]),
        np.concatenate([tree.parent, on]),
        np.concatenate([tree.kind, np.full(len(on), SPINE)]),
        tree.unit,
    )
