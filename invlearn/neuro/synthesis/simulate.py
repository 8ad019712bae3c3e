"""Endless neurons under a microscope, with exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from invlearn.io.swc import SOMA, Tree, joined
from invlearn.io.voxels import VoxelSize, checked_shape, checked_voxel_size
from invlearn.neuro.synthesis.grow import SPINE, grow, with_spines
from invlearn.neuro.synthesis.microscope import Clutter, Detector, Labelling, Microscope, render, resampled

NOISE = {"low": 0.15, "medium": 0.5, "high": 0.85}
_FLATTEST = 4.0  # slices are at most so many pixels apart
_MOSTLY = 0.5  # of its nodes lie in the stack
KINDS = {"neuron": 0.3, "dendrites": 0.2, "projection": 0.25, "axon": 0.1, "branch": 0.15}


@dataclass(frozen=True)
class Forms:
    """How large the parts of random neurons are, in pixels.

    Attributes
    ----------
    calibre
        Radius of the tips, from and to.
    soma
        Radius of somas, from and to.
    thickest
        Radius that no branch exceeds.
    """

    calibre: tuple[float, float] = (0.55, 1.8)
    soma: tuple[float, float] = (3.5, 14.0)
    thickest: float = 6.0


@dataclass(frozen=True, eq=False)
class Sample:
    """A simulated stack and what is in it.

    Attributes
    ----------
    stack
        (D, H, W), uint8 or uint16.
    mask
        (D, H, W), bool: the voxels of the neuron.
    tree
        Its centre lines and radii, µm; the part inside the stack.
    voxel_size
        (z, y, x), µm.
    seed
        That it was made with.
    noise
        From 0 to 1.
    microscope
        That it was taken with.
    """

    stack: np.ndarray
    mask: np.ndarray
    tree: Tree
    voxel_size: tuple[float, float, float]
    seed: int
    noise: float
    microscope: Microscope

    def to_dict(self) -> dict[str, Any]:
        """What it is, without the arrays."""
        return {
            "shape": list(self.stack.shape),
            "dtype": str(self.stack.dtype),
            "voxel_size": list(self.voxel_size),
            "seed": self.seed,
            "noise": self.noise,
            "foreground": float(self.mask.mean()),
            "tree": self.tree.to_dict(),
            "microscope": self.microscope.to_dict(),
        }


def between(rng: Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_voxel_size(rng: Generator, flattest: float = _FLATTEST) -> tuple[float, float, float]:
    """(z, y, x), µm: slices as far apart as pixels, or up to `flattest` times as far."""
    pixel = between(rng, 0.15, 0.6)
    slices = 1.0 if rng.random() < 0.4 else rng.uniform(1.0, flattest)
    return float(pixel * slices), pixel, pixel


def draw_microscope(noise: float, voxel_size: tuple[float, float, float], rng: Generator) -> Microscope:
    """A microscope for a level of noise from 0 to 1: fewer photons, more gaps, dimness and clutter.

    Settings are drawn around those of the level, so that no two samples look alike.
    """
    pixel, slices = voxel_size[2], voxel_size[0]
    lateral = pixel * rng.uniform(0.5, 1.5)
    axial = min(lateral * rng.uniform(1.2, 3.5), 3.0 * slices)
    often = rng.random() < 0.25 + 0.6 * noise
    labelling = Labelling(
        texture=rng.uniform(0.1, 0.3) + 0.35 * noise,
        reach=pixel * between(rng, 4.0, 20.0),
        dim=float(np.clip(1 - noise * rng.uniform(0.5, 1.0), 0.25, 1)),
        gaps=float(often * noise * rng.uniform(0.01, 0.05) / pixel),
        gap_length=pixel * rng.uniform(2.0, 6.0),
        gap_left=rng.uniform(0.0, 0.25),
        beads=float((rng.random() < 0.35) * rng.uniform(0.3, 0.9)),
    )
    background = float(between(rng, 0.3, 1.6) * (0.02 + 0.55 * noise**1.5))
    clutter = Clutter(
        background=background,
        unevenness=rng.uniform(0.1, 0.9),
        grain=rng.uniform(0.0, 0.25),
        blobs=int(rng.poisson(1 + 14 * noise * rng.random())),
        blob_brightness=rng.uniform(0.2, 0.5) + 0.8 * noise * rng.random(),
        neighbours=float(rng.uniform(0.1, 0.2) + 0.2 * noise * rng.random()),
        halo=float((rng.random() < 0.5) * rng.uniform(0.0, 0.3)),
    )
    photons = float(300 * (4 / 300) ** noise * between(rng, 0.6, 1.6))
    blurred = rng.uniform(0.4, 0.8) if rng.random() < 0.3 else 0.0
    spread = np.sqrt(background / photons) / (1 + 3 * blurred)
    detector = Detector(
        photons=photons,
        read_noise=float(rng.uniform(0, 0.3) * np.sqrt(photons)),
        smoothing=float(blurred),
        white=float(background + between(rng, 1.0, 4.5)),
        black=float(rng.uniform(-0.3, 0.9) * background) if rng.random() < 0.5 else 0.0,
        floor=float(background + rng.uniform(0.1, 0.3) + spread) if rng.random() < 0.22 else 0.0,
        bits=int(rng.choice([8, 8, 8, 16])),
    )
    detector = replace(detector, black=max(detector.black, 0.0))
    return Microscope(
        voxel_size,
        (float(axial), float(lateral), float(lateral)),
        float(rng.uniform(0, 0.5)),
        labelling,
        clutter,
        detector,
    )


def draw_scene(
    shape: tuple[int, int, int],
    voxel_size: np.ndarray,
    neurons: int | None,
    rng: Generator,
    forms: Forms | None = None,
) -> Tree:
    """Some neurons, one to three if it is not said, in a box about as large as the stack."""
    forms = forms or Forms()
    pixel = voxel_size.min()
    box = np.array(shape) * voxel_size
    trees = []
    drawn = int(rng.choice([1, 1, 1, 1, 2, 3]))
    for _ in range(drawn if neurons is None else neurons):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        calibre = (
            pixel * between(rng, *forms.calibre) * (2.0 if kind == "branch" and rng.random() < 0.5 else 1.0)
        )
        soma = None if rng.random() < 0.2 else float(max(pixel * between(rng, *forms.soma), 2.5 * calibre))
        share = rng.uniform(0.6, 1.0, size=3) if rng.random() < 0.6 else rng.uniform(0.9, 1.3, size=3)
        extent = box * share
        tree = grow(
            kind, extent=tuple(extent), calibre=float(calibre), soma=soma, step=float(pixel), generator=rng
        )
        shift = (box - extent) * rng.uniform(0, 1, size=3)
        branches = np.clip(tree.radius, 0.5 * pixel, forms.thickest * pixel)
        radius = np.where(tree.kind == SOMA, tree.radius, branches)
        trees.append(replace(tree, xyz=tree.xyz + shift[::-1], radius=radius))
    found = joined(trees)
    inside = ((found.xyz >= 0) & (found.xyz < box[::-1])).all(axis=1).mean()
    return found if inside > _MOSTLY else draw_scene(shape, voxel_size, neurons, rng, forms)


def _fitted(
    tree: Tree, shape: tuple[int, int, int], voxel_size: np.ndarray | None
) -> tuple[Tree, np.ndarray]:
    """A given tree, in µm, in the middle of the stack; and the voxel size, fitting if none is given."""
    tree = tree.in_um(voxel_size)
    low, high = tree.xyz.min(axis=0)[::-1], tree.xyz.max(axis=0)[::-1]
    if voxel_size is None:
        depth, height, width = (high - low) / np.maximum(np.array(shape) - 6, 1)
        pixel = max(height, width, depth / _FLATTEST, 1e-3)
        voxel_size = np.array([max(depth, pixel), pixel, pixel])
    centre = (np.array(shape) - 1) / 2 * voxel_size
    return replace(tree, xyz=tree.xyz + (centre - (low + high) / 2)[::-1]), voxel_size


def clipped(tree: Tree, shape: Sequence[int], voxel_size: VoxelSize) -> Tree:
    """The nodes inside a stack; a branch that comes in again is a tree of its own.

    Raises
    ------
    ValueError
        None is.
    """
    at = tree.zyx(voxel_size)
    inside = ((at >= -0.5) & (at <= np.asarray(shape) - 0.5)).all(axis=1)
    if not inside.any():
        raise ValueError(
            f"no node of the tree lies in the stack {tuple(shape)} of voxels {tuple(voxel_size)} µm"
        )
    return tree.take(np.flatnonzero(inside))


def checked_noise(noise: str | float) -> float:
    """From 0 to 1.

    Raises
    ------
    ValueError
        Another name, or a number out of range.
    """
    if isinstance(noise, str):
        if noise not in NOISE:
            raise ValueError(f"noise is {', '.join(NOISE)}, or a number from 0 to 1, got {noise!r}")
        return NOISE[noise]
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {', '.join(NOISE)}, or a number from 0 to 1, got {noise}")
    return float(noise)


def simulate(
    shape: Sequence[int] = (64, 192, 192),
    *,
    seed: int,
    noise: str | float | None = None,
    neurons: int | None = None,
    tree: Tree | None = None,
    voxel_size: VoxelSize | None = None,
) -> Sample:
    """A stack of one or a few neurons, and its exact truth.

    Everything varies with the seed: form, thickness, somas, spines, voxel size, point-spread function,
    brightness, gaps, beads, background, autofluorescence, fibres of other cells, photons, saturation, 8 or 12
    bits, stacks whose background was set to zero.

    Parameters
    ----------
    shape
        (D, H, W).
    seed
        The same seed gives the same sample.
    noise
        "low", "medium", "high" (0.15, 0.5, 0.85), or a number from 0 to 1: how few photons, how dim, broken
        and cluttered; without, drawn from 0 to 1.
    neurons
        How many; without, one to three, mostly one.
    tree
        To render instead of random ones: put into the middle of the stack.
    voxel_size
        (z, y, x), µm. Without, drawn; for a given tree, so that it fits, slices up to four pixels apart.

    Returns
    -------
    Sample
        The mask holds the spines, the tree does not, as a tracing would not.

    Raises
    ------
    ValueError
        A shape, a noise, a number of neurons or a voxel size out of range.
    """
    if neurons is not None and neurons < 1:
        raise ValueError(f"a sample has at least one neuron, got {neurons}")
    size, rng = checked_shape(shape), np.random.default_rng(seed)
    level = float(rng.random()) if noise is None else checked_noise(noise)
    spacing = None if voxel_size is None else checked_voxel_size(voxel_size)
    if tree is None:
        spacing = np.array(draw_voxel_size(rng)) if spacing is None else spacing
        tree = draw_scene(size, spacing, neurons, rng)
    else:
        tree, spacing = _fitted(tree, size, spacing)
    dz, dy, dx = map(float, spacing)
    scope = draw_microscope(level, (dz, dy, dx), rng)
    pixel = float(spacing.min())
    drawn = resampled(tree, pixel)
    if rng.random() < 0.2:
        drawn = with_spines(drawn, rng.uniform(0.05, 0.25) / pixel, pixel * rng.uniform(1.0, 2.0), rng)
    stack, mask = render(
        drawn, size, scope, rng, neighbours=draw_neighbours(size, spacing, 0.4 + 2.5 * level, rng)
    )
    kept = clipped(drawn.take(np.flatnonzero(drawn.kind != SPINE)), size, spacing)
    return Sample(stack, mask, kept, (dz, dy, dx), seed, level, scope)


def draw_neighbours(
    shape: tuple[int, int, int], voxel_size: np.ndarray, mean: float, rng: Generator
) -> Tree | None:
    """Fibres of other cells that pass through, so many on average."""
    count = int(rng.poisson(mean))
    pixel = float(voxel_size.min())
    extent = tuple(np.array(shape) * voxel_size)
    fibres = [
        grow(
            str(rng.choice(["axon", "branch"])),
            extent=extent,
            calibre=pixel * between(rng, 0.5, 1.5),
            soma=None,
            step=pixel,
            generator=rng,
        )
        for _ in range(count)
    ]
    return joined(fibres) if fibres else None
