"""Gaps in the labelling, bridged along the least dark path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from invlearn.neuro.foreground import Volume
from invlearn.neuro.skeleton import Skeleton
from invlearn.neuro.soma import Soma

_BRIGHT = 0.05  # a bright µm counts as this many dark ones
_STRETCH = 3.0  # a bridge through half-light is at most this many times as long as one in the dark
_PARTNERS = 3  # parts of the skeleton that one end is tried with
_MARGIN = 3  # voxels around both ends where a path is looked for


@dataclass(frozen=True)
class Bridge:
    """A path between two nodes.

    Attributes
    ----------
    ends
        The two nodes.
    voxels
        (K, 3): the path between them.
    certainty
        (K,): the probability on the path.
    cost
        Its darkness, µm.
    """

    ends: tuple[int, int]
    voxels: np.ndarray
    certainty: np.ndarray
    cost: float


def _partners(skeleton: Skeleton, reach: float) -> Iterator[tuple[int, int, float]]:
    """End nodes, the nearest node of another part, and the distance as the direction of the end stretches it.

    Straight ahead counts once, to the side twice, backwards three times.
    """
    points, component, radius = skeleton.points, skeleton.component, skeleton.radius
    search = cKDTree(points)
    ends = np.flatnonzero(skeleton.degree <= 1)
    for end, near in zip(ends, search.query_ball_point(points[ends], reach), strict=True):
        around = np.array(near)
        gap = np.linalg.norm(points[around] - points[end], axis=1)
        own = component[around] == component[end]
        behind = around[own & (gap <= 2 * radius[end] + 3 * skeleton.voxel_size.max())]
        ahead = points[end] - points[behind].mean(axis=0)
        order = np.argsort(gap[~own], kind="stable")
        others = around[~own][order]
        _, first = np.unique(component[others], return_index=True)
        for k in np.sort(first)[:_PARTNERS]:
            way = points[others[k]] - points[end]
            straight = way @ ahead / max(np.linalg.norm(way) * np.linalg.norm(ahead), 1e-12)
            yield int(end), int(others[k]), float(2 - straight) if len(behind) > 1 else 1.5


def _path(
    volume: Volume, start: np.ndarray, end: np.ndarray, voxel_size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The least dark path between two voxels, the certainty on it, and its darkness in µm."""
    from skimage.graph import MCP_Geometric

    low = np.maximum(np.minimum(start, end) - _MARGIN, 0)
    high = np.minimum(np.maximum(start, end) + _MARGIN + 1, volume.shape)
    light = volume.read(low, high)
    dark = np.clip(1 - light / volume.threshold, 0, 1)
    search = MCP_Geometric(_BRIGHT + (1 - _BRIGHT) * dark, sampling=tuple(voxel_size))
    costs, _ = search.find_costs([tuple(start - low)], [tuple(end - low)])
    path = np.array(search.traceback(tuple(end - low)))
    return path[1:-1] + low, light[tuple(path[1:-1].T)], float(costs[tuple(end - low)])


def find_bridges(skeleton: Skeleton, volume: Volume, longest: float | int) -> list[Bridge]:
    """Bridges from ends of the skeleton to other parts of it, the least dark first.

    The darkness of a path is the integral of ``0.05 + 0.95 max(0, 1 - p / threshold)`` over its length: in a
    mask, the length. It counts up to three times if the path does not go on in the direction of the end.

    Parameters
    ----------
    skeleton
        Centre lines.
    volume
        The probability, also where it is below the threshold.
    longest
        Darkness at most, µm.
    """
    found = []
    for start, end, factor in _partners(skeleton, _STRETCH * longest):
        gap = np.linalg.norm(skeleton.points[end] - skeleton.points[start])
        if _BRIGHT * gap * factor > longest:
            continue
        voxels, certainty, dark = _path(
            volume, skeleton.voxels[start], skeleton.voxels[end], skeleton.voxel_size
        )
        if dark * factor <= longest:
            found.append(Bridge((start, end), voxels, certainty, dark * factor))
    return sorted(found, key=lambda bridge: bridge.cost)


def with_bridges(skeleton: Skeleton, bridges: Sequence[Bridge], somas: Sequence[Soma]) -> Skeleton:
    """A skeleton joined by bridges: each joins two parts, and no two parts with a soma each."""
    parts = np.arange(skeleton.component.max() + 1)
    has_soma = np.isin(parts, skeleton.component[[soma.node for soma in somas]])

    def part(node: int) -> int:
        label = skeleton.component[node]
        while parts[label] != label:
            parts[label] = parts[parts[label]]
            label = parts[label]
        return int(label)

    voxels, radius, certainty, edges = (
        [x] for x in (skeleton.voxels, skeleton.radius, skeleton.certainty, skeleton.edges)
    )
    count = len(skeleton)
    for bridge in bridges:
        a, b = map(part, bridge.ends)
        if a == b or (has_soma[a] and has_soma[b]):
            continue
        parts[b], has_soma[a] = a, has_soma[a] or has_soma[b]
        between = np.arange(count, count + len(bridge.voxels))
        chain = np.concatenate([[bridge.ends[0]], between, [bridge.ends[1]]])
        ends = skeleton.radius[list(bridge.ends)]
        voxels.append(bridge.voxels)
        radius.append(np.linspace(ends[0], ends[1], len(between) + 2)[1:-1])
        certainty.append(bridge.certainty)
        edges.append(np.stack([chain[:-1], chain[1:]], axis=1))
        count += len(between)
    return replace(
        skeleton,
        voxels=np.concatenate(voxels),
        radius=np.concatenate(radius),
        certainty=np.concatenate(certainty),
        edges=np.concatenate(edges),
    )
