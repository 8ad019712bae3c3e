"""A fluorescence microscope: how a tree becomes a stack of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from invlearn.io.swc import SOMA, Tree, parents_first
from invlearn.io.voxels import checked_shape, checked_voxel_size
from invlearn.neuro.rasterise import paint, swc_to_mask
from invlearn.neuro.synthesis.grow import drift

_OUT_OF_FOCUS = 1.6  # times the width of the point-spread function
_TYPICAL = 35.0  # percentile of brightness on the centre line: dense arbours shine more than single fibres
_NODES = (3, 4, 4)  # of what varies smoothly across the stack
_FEW = 25.0  # photons; above, the count of photons is as good as normal


@dataclass(frozen=True)
class Labelling:
    """How evenly the fluorophore fills the neuron.

    Attributes
    ----------
    texture
        Standard deviation of the logarithm of brightness along a branch.
    reach
        Distance over which it varies, µm.
    dim
        Whole sub-trees are this dim at most: their brightness is drawn from here to 1.
    gaps
        Gaps per µm of cable.
    gap_length
        Mean length of a gap, µm.
    gap_left
        Brightness left inside a gap, as a share.
    beads
        How much of the brightness is in beads: 0 even, towards 1 beads alone.
    """

    texture: float = 0.3
    reach: float = 4.0
    dim: float = 0.5
    gaps: float = 0.0
    gap_length: float = 1.0
    gap_left: float = 0.1
    beads: float = 0.0


@dataclass(frozen=True)
class Clutter:
    """What shines beside the neuron; 1 is the typical brightness of the neuron's centre line.

    Attributes
    ----------
    background
        Mean level.
    unevenness
        How much of the background varies across the field, and how much of the illumination.
    grain
        Standard deviation of fine structure, as a share of the background.
    blobs
        Number of autofluorescent bodies.
    blob_brightness
        Of the brightest.
    neighbours
        Brightness of the brightest parts of the fibres of other cells that are passed to `render`.
    halo
        Share of the light that is scattered widely.
    """

    background: float = 0.1
    unevenness: float = 0.3
    grain: float = 0.1
    blobs: int = 0
    blob_brightness: float = 0.5
    neighbours: float = 0.3
    halo: float = 0.0


@dataclass(frozen=True)
class Detector:
    """From light to numbers.

    Attributes
    ----------
    photons
        Counted in a voxel where the neuron has its typical brightness.
    read_noise
        Standard deviation, in photons.
    smoothing
        Standard deviation of a blur after detection, in voxels, as processed stacks have.
    white
        Brightness that reaches the largest grey level; what is above saturates.
    black
        Brightness that becomes 0; what is below is lost.
    floor
        Brightness below which the stack was set to 0 afterwards; 0: it was not.
    bits
        8 or 16 a voxel; 16 holds 12-bit values.
    """

    photons: float = 100.0
    read_noise: float = 1.0
    smoothing: float = 0.0
    white: float = 3.0
    black: float = 0.0
    floor: float = 0.0
    bits: int = 8


@dataclass(frozen=True)
class Microscope:
    """All that makes a stack from a tree.

    Attributes
    ----------
    voxel_size
        (z, y, x), µm.
    psf
        Standard deviations of the point-spread function (z, y, x), µm.
    attenuation
        Share of the light that is lost from the first slice to the last.
    labelling, clutter, detector
        Of the neuron, its surroundings, and the camera.

    Raises
    ------
    ValueError
        A number out of its range.
    """

    voxel_size: tuple[float, float, float] = (1.0, 0.4, 0.4)
    psf: tuple[float, float, float] = (1.0, 0.4, 0.4)
    attenuation: float = 0.0
    labelling: Labelling = field(default_factory=Labelling)
    clutter: Clutter = field(default_factory=Clutter)
    detector: Detector = field(default_factory=Detector)

    def __post_init__(self) -> None:
        checked_voxel_size(self.voxel_size)
        if len(self.psf) != 3 or not all(0 <= s < np.inf for s in self.psf):
            raise ValueError(f"Microscope: psf is three standard deviations (z, y, x) in µm, got {self.psf}")
        for part in (self.labelling, self.clutter, self.detector):
            for name, value in asdict(part).items():
                if not 0 <= value < np.inf:
                    raise ValueError(f"{type(part).__name__}: {name} is at least 0 and finite, got {value}")
        for name, share in {
            "attenuation": self.attenuation,
            "beads": self.labelling.beads,
            "gap_left": self.labelling.gap_left,
            "halo": self.clutter.halo,
        }.items():
            if not 0 <= share <= 1:
                raise ValueError(f"Microscope: {name} is a share from 0 to 1, got {share}")
        if self.detector.bits not in (8, 16):
            raise ValueError(f"Detector: bits are 8 or 16, got {self.detector.bits}")
        if not self.detector.photons > 0 or not self.detector.white > self.detector.black:
            raise ValueError("Detector: photons are more than 0, and white is brighter than black")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


def resampled(tree: Tree, step: float) -> Tree:
    """The same tree with nodes on its edges, at most a step apart (in its unit)."""
    child, parent = tree.edges.T
    length = np.linalg.norm(tree.xyz[child] - tree.xyz[parent], axis=1)
    extra = np.maximum(np.ceil(length / step).astype(np.int64) - 1, 0)
    edge = np.repeat(np.arange(len(child)), extra)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(extra) - extra, extra) + 1  # from the parent on
    t = (number / (extra[edge] + 1))[:, None]
    a, b = parent[edge], child[edge]
    index = len(tree) + np.arange(len(edge))
    above = tree.parent.copy()
    split = extra > 0
    above[child[split]] = len(tree) + np.cumsum(extra)[split] - 1
    kind = np.where(tree.kind[b] == SOMA, tree.kind[a], tree.kind[b])  # a soma is one node
    return Tree(
        np.concatenate([tree.xyz, tree.xyz[a] + t * (tree.xyz[b] - tree.xyz[a])]),
        np.concatenate([tree.radius, tree.radius[a] + t[:, 0] * (tree.radius[b] - tree.radius[a])]),
        np.concatenate([above, np.where(number == 1, a, index - 1)]),
        np.concatenate([tree.kind, kind]),
        tree.unit,
    )


def label_brightness(tree: Tree, labelling: Labelling, generator: Generator) -> np.ndarray:
    """(N,): how brightly each node is labelled, about 1 where it is well labelled.

    The tree is in µm, its nodes close together.
    """
    light = np.exp(labelling.texture * drift(tree, labelling.reach, generator))
    light = np.clip(light, 0.25, 4.0)
    child, parent = tree.edges.T
    length = np.zeros(len(tree))
    length[child] = np.linalg.norm(tree.xyz[child] - tree.xyz[parent], axis=1)
    fork = tree.children[np.maximum(tree.parent, 0)] > 1
    fresh = np.where(fork & (tree.parent >= 0), generator.uniform(labelling.dim, 1.0, len(tree)), 1.0)
    starts = generator.random(len(tree)) < labelling.gaps * length
    sizes = np.where(starts, generator.uniform(0.4, 1.6, len(tree)) * labelling.gap_length, 0.0)
    branch, gap = np.ones(len(tree)), np.zeros(len(tree))
    for node in parents_first(tree.parent):
        above = tree.parent[node]
        if above >= 0:
            # a side branch may be dim, and then its own are no brighter than twice that
            branch[node] = fresh[node] * max(branch[above], 0.5) if fresh[node] < 1 else branch[above]
            gap[node] = max(gap[above] - length[node], sizes[node])
    light *= branch
    if labelling.beads:
        pearls = np.clip(0.5 + drift(tree, 0.6 * labelling.reach, generator), 0, 1.5)
        light *= 1 - labelling.beads + labelling.beads * pearls
    light[(gap > 0) & (tree.kind != SOMA)] *= labelling.gap_left
    return light


def _smooth_field(shape: tuple[int, int, int], generator: Generator) -> np.ndarray:
    """Between 0 and 1, varying over about a third of the stack, float32: linear between random nodes."""
    field = generator.random(_NODES).astype(np.float32)
    for axis, count in enumerate(shape):
        nodes = field.shape[axis]
        at = np.linspace(0, nodes - 1, count)[:, None]
        weight = np.maximum(1 - np.abs(at - np.arange(nodes)), 0)
        field = np.moveaxis(np.tensordot(weight.astype(np.float32), field, (1, axis)), 0, axis)
    return field


def _blur(volume: np.ndarray, sigma: Sequence[float] | np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(volume, sigma, mode="nearest", truncate=3.0)


def _add_blobs(
    volume: np.ndarray, count: int, brightness: float, finest: np.ndarray, generator: Generator
) -> None:
    """Ellipsoids with soft surfaces, of all sizes."""
    shape = np.array(volume.shape)
    for _ in range(count):
        centre = generator.uniform(0, shape)
        sigma = np.exp(generator.uniform(np.log(1.0), np.log(9.0))) * generator.uniform(0.6, 1.6, 3) * finest
        low = np.maximum(np.floor(centre - 3 * sigma), 0).astype(int)
        high = np.minimum(np.ceil(centre + 3 * sigma) + 1, shape).astype(int)
        axes = [
            np.exp(-0.5 * ((np.arange(a, b) - c) / s) ** 2)
            for a, b, c, s in zip(low, high, centre, sigma, strict=True)
        ]
        body = axes[0][:, None, None] * axes[1][:, None] * axes[2]
        level = brightness * generator.uniform(0.15, 1.0) * np.clip(2.0 * body, 0, 1)
        volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += level.astype(np.float32)


def _light(
    tree: Tree,
    shape: tuple[int, int, int],
    scope: Microscope,
    generator: Generator,
    percentile: float = _TYPICAL,
) -> np.ndarray:
    """The blurred image of a tree, 1 at a percentile of its centre line."""
    finest = min(scope.voxel_size)
    fine = resampled(tree, finest)
    label = label_brightness(fine, scope.labelling, generator)
    size = fine.radius / finest
    label *= size**2 / (size**2 + 1 / 12)  # a soft edge half a voxel wide holds more than a thin fibre has
    volume = np.zeros(shape, dtype=np.float32)
    paint(volume, fine, scope.voxel_size, bright=label, soft=1.0, margin=0.5)
    volume = _blur(volume, np.divide(scope.psf, scope.voxel_size))
    if scope.clutter.halo:
        wide = 4 * np.divide(scope.psf, scope.voxel_size) + 1
        volume += scope.clutter.halo * (_blur(volume, wide) - volume)
    at = np.rint(fine.zyx(scope.voxel_size)).astype(int)
    inside = ((at >= 0) & (at < shape)).all(axis=1) & (fine.kind != SOMA)
    seen = volume[tuple(at[inside].T)] if inside.any() else volume[volume > 0]
    level = float(np.percentile(seen, percentile)) if len(seen) else 0.0
    return volume / level if level > 0 else volume


def _detect(light: np.ndarray, detector: Detector, generator: Generator) -> np.ndarray:
    """Grey levels of an amount of light."""
    expected = light * np.float32(detector.photons)
    few = expected < _FEW
    counted = expected + np.sqrt(expected) * generator.standard_normal(light.shape, dtype=np.float32)
    counted[few] = generator.poisson(expected[few])
    if detector.read_noise:
        counted += np.float32(detector.read_noise) * generator.standard_normal(light.shape, dtype=np.float32)
    if detector.smoothing:
        counted = _blur(counted, (detector.smoothing,) * 3)
    bright = counted / np.float32(detector.photons)
    top = 255 if detector.bits == 8 else 4095
    level = (bright - detector.black) / (detector.white - detector.black)
    if detector.floor:
        level[bright < detector.floor] = 0
    dtype = np.uint8 if detector.bits == 8 else np.uint16
    return np.clip(np.rint(level * top), 0, top).astype(dtype)


def render(
    tree: Tree,
    shape: Sequence[int],
    microscope: Microscope,
    generator: Generator,
    *,
    neighbours: Tree | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The stack that a microscope takes of a tree, and the voxels that belong to the tree.

    Labelled tubes, blurred, on an uneven background with autofluorescence and the fibres of others, then
    counted photon by photon.

    Parameters
    ----------
    tree
        In µm.
    shape
        (D, H, W).
    microscope
        Its settings.
    generator
        Of all randomness.
    neighbours
        Fibres of other cells, dimmer and out of focus: in the image, not in the truth.

    Returns
    -------
    stack : numpy.ndarray
        (D, H, W), uint8, or uint16 with 12-bit values.
    mask : numpy.ndarray
        (D, H, W), bool: `swc_to_mask` of the tree.

    Raises
    ------
    ValueError
        No shape of a stack.
    """
    size = checked_shape(shape)
    clutter = microscope.clutter
    light = _light(tree, size, microscope, generator)
    if neighbours is not None and clutter.neighbours:
        z, y, x = (_OUT_OF_FOCUS * s for s in microscope.psf)
        out_of_focus = replace(microscope, psf=(z, y, x), clutter=Clutter(halo=0.0))
        light += np.float32(clutter.neighbours) * _light(neighbours, size, out_of_focus, generator, 95.0)
    finest = min(microscope.voxel_size) / np.asarray(microscope.voxel_size)
    _add_blobs(light, clutter.blobs, clutter.blob_brightness, finest, generator)
    uneven = _smooth_field(size, generator)
    around = clutter.background * (1 + clutter.unevenness * (2 * uneven - 1))
    if clutter.grain and clutter.background:
        grain = _blur(generator.standard_normal(size, dtype=np.float32), 1.5 * finest)
        around *= np.maximum(1 + clutter.grain * grain / grain.std(), 0)
    light += around
    if clutter.unevenness:
        light *= 1 - 0.5 * min(clutter.unevenness, 1.0) * _smooth_field(size, generator)
    depth = np.linspace(1, 1 - microscope.attenuation, size[0], dtype=np.float32)
    light *= depth[:, None, None]
    stack = _detect(light.astype(np.float32), microscope.detector, generator)
    return stack, swc_to_mask(tree, size, microscope.voxel_size)
