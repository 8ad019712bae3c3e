"""From a mask or a probability to rooted trees in micrometres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from invlearn.io.swc import DENDRITE, SOMA, Tree
from invlearn.io.voxels import VoxelSize
from invlearn.neuro.bridges import find_bridges, with_bridges
from invlearn.neuro.centre import recentred
from invlearn.neuro.foreground import Foreground, Volume, gather
from invlearn.neuro.forest import Forest, open_loops, prune, root_at_ends, smooth
from invlearn.neuro.skeleton import Skeleton, thin
from invlearn.neuro.soma import Soma, find_somas, given_soma

_BRIDGE, _SMALLEST = 8.0, 16.0  # defaults, in the cube root of a voxel's volume


def trace(
    volume: Any,
    voxel_size: VoxelSize = (1.0, 1.0, 1.0),
    *,
    threshold: float | int = 0.5,
    soma: str | Sequence[float | int] | None = "auto",
    bridge: float | int | None = None,
    spur: float | int = 1.5,
    smallest: float | int | None = None,
) -> Tree:
    """Trace the neurons in a mask: rooted, without cycles, with radii, in micrometres.

    Parameters
    ----------
    volume
        (D, H, W): a mask (bool; integers count as foreground if not 0) or a probability (float); an array, a
        tensor, or anything with a shape and slices, such as a `Stack`.
    voxel_size
        (z, y, x), µm.
    threshold
        Probability from which on a voxel is foreground.
    soma
        "auto" looks for balls of three times the radius of typical branches, None for none; or one voxel
        (z, y, x).
    bridge
        The longest gap to bridge in the dark, µm; gaps in half-light may be longer. 0 for none; without, 8
        times the cube root of a voxel's volume.
    spur
        Side branches shorter than this many radii of the branch that they leave, plus a voxel, go.
    smallest
        A separate tree has at least this much cable, µm, weighted by how far p lies above the threshold:
        from 0 there to 1 at twice the threshold, or at 1. In a mask all counts. The longest stays in any
        case. Without, 16 times that cube root.

    Returns
    -------
    Tree
        In µm: x = column · dx, y = row · dy, z = slice · dz. Every soma is the root of a tree, of type 1, all
        other nodes of type 3; trees without a soma begin at their thickest end.

    Raises
    ------
    ValueError
        No volume of probabilities or of a mask, nothing in it, a voxel size or a setting out of range.

    Notes
    -----
    Cavities of the mask are filled, then it is thinned (Lee, Kashyap and Chu 1994,
    doi:10.1006/cgip.1994.1042). Radii are distances to the surface of the filled mask. Gaps are bridged by
    the least dark path, the least dark gaps first. Loops are opened by the maximum spanning tree of
    probability times radius. Then spurs go, nodes move to the middle of their branch, paths are smoothed
    below the size of a voxel, and roots are chosen.
    """
    for name, value in {"bridge": bridge, "spur": spur, "smallest": smallest}.items():
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"trace: {name} is at least 0 and finite, got {value}")
    source = Volume(volume, threshold)
    foreground = gather(source, voxel_size).filled()
    pitch = float(np.cbrt(foreground.voxel_size.prod()))
    skeleton = thin(foreground)
    somas = _somas(skeleton, foreground, soma)
    longest = _BRIDGE * pitch if bridge is None else bridge
    if longest > 0:
        skeleton = with_bridges(skeleton, find_bridges(skeleton, source, longest), somas)
    forest = open_loops(skeleton, somas)
    forest = prune(forest, spur, float(np.linalg.norm(foreground.voxel_size)))
    forest = _without_small(forest, threshold, _SMALLEST * pitch if smallest is None else smallest)
    return _finished(forest, foreground)


def _somas(
    skeleton: Skeleton, foreground: Foreground, soma: str | Sequence[float | int] | None
) -> list[Soma]:
    if soma is None:
        return []
    if isinstance(soma, str):
        if soma != "auto":
            raise ValueError(f"soma is 'auto', None, or a voxel (z, y, x), got {soma!r}")
        return find_somas(skeleton, foreground)
    return [given_soma(skeleton, soma, foreground.shape)]


def _without_small(forest: Forest, threshold: float | int, least: float | int) -> Forest:
    """Trees with little cable and no soma removed; the longest stays."""
    tree = forest.root()
    above = np.clip((forest.certainty - threshold) / max(min(threshold, 1 - threshold), 1e-6), 0, 1)
    above[forest.certainty >= 1] = 1
    cable = np.bincount(tree, weights=forest.step * above, minlength=len(forest))
    stay = (cable >= least) | forest.soma
    stay[tree[np.argmax(cable[tree])]] = True
    return forest.take(stay[tree])


def _finished(forest: Forest, foreground: Foreground) -> Tree:
    """Roots, smooth paths and radii, and the axes of SWC."""
    ends, voxel_size = forest.degree <= 1, foreground.voxel_size
    passes = max(2, round(2 * float((voxel_size.max() / voxel_size.min()) ** 2)))
    radius = smooth(forest, forest.radius, 4, forest.soma)
    points = smooth(forest, recentred(forest, foreground), min(passes, 18), forest.soma | ends)
    least = 0.5 * float(voxel_size.min())
    forest = root_at_ends(replace(forest, points=points, radius=np.maximum(radius, least)))
    kind = np.where(forest.soma, SOMA, DENDRITE)
    return Tree(forest.points[:, ::-1], forest.radius, forest.parent, kind, "um").sorted()
