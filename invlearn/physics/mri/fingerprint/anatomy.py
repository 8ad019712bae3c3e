"""Synthetic anatomy: tissue labels that were never in a scanner, and maps of T1, T2 and proton density.

Nothing here is a brain. A head is drawn from smooth random fields: an outline, a folded layer of constant
thickness around everything that holds fluid, ventricles, nuclei, lesions, and often skull and scalp.
Every tissue then gets values from the range that the literature gives for it at 1.5 to 3 T, which drift and
have some texture, and are averaged from a finer grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from invlearn.io.maps import TissueMaps

Range = tuple[float, float]
_SHORTEST_T2 = 0.01  # s


@dataclass(frozen=True)
class Tissue:
    """Ranges that a tissue's values are drawn from.

    Attributes
    ----------
    t1, t2
        In s; drawn uniformly in their logarithm.
    pd
        Relative to water.
    """

    t1: Range
    t2: Range
    pd: Range

    def __post_init__(self) -> None:
        for name in ("t1", "t2", "pd"):
            low, high = getattr(self, name)
            if not 0 < low <= high < np.inf:
                raise ValueError(f"Tissue: {name} is a range of positive numbers, got {low} to {high}")

    def draw(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """T1, T2 and density of one person; T2 is at most T1."""
        t1, t2 = (float(np.exp(rng.uniform(*np.log(span)))) for span in (self.t1, self.t2))
        return t1, min(t2, t1), float(rng.uniform(*self.pd))


AIR, FLUID, GREY, WHITE, FAT, MUSCLE, BONE, NUCLEUS, LESION = range(9)
#: The labels of `head_labels`, and what they may be made of. Air is 0; a lesion may be anything.
TISSUES: dict[int, Tissue] = {
    FLUID: Tissue((2.5, 4.8), (0.25, 2.3), (0.95, 1.05)),
    GREY: Tissue((0.9, 1.7), (0.065, 0.13), (0.72, 0.92)),
    WHITE: Tissue((0.5, 1.15), (0.045, 0.1), (0.55, 0.8)),
    FAT: Tissue((0.2, 0.45), (0.04, 0.16), (0.6, 1.0)),
    MUSCLE: Tissue((0.7, 1.6), (0.025, 0.07), (0.6, 0.95)),
    BONE: Tissue((0.2, 1.2), (0.01, 0.05), (0.02, 0.15)),
    NUCLEUS: Tissue((0.7, 1.5), (0.04, 0.1), (0.65, 0.85)),
    LESION: Tissue((0.3, 3.0), (0.03, 0.6), (0.5, 1.0)),
}
_ANYTHING = Tissue((0.15, 4.5), (0.015, 1.5), (0.2, 1.0))


def smooth_field(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> np.ndarray:
    """White noise smoothed by a Gaussian of standard deviation `width` pixels; mean 0 and variance 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="reflect")
    spread = field.std()
    return (field - field.mean()) / (spread if spread > 0 else 1.0)


def _coordinates(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distance from a random centre in units of a random ellipse, and the shorter half axis in pixels."""
    axes = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    size, angle = min(shape), rng.uniform(0, np.pi)
    half = size * rng.uniform(0.3, 0.52), size * rng.uniform(0.3, 0.52)
    y, x = (a - n / 2 + rng.uniform(-0.06, 0.06) * n for a, n in zip(axes, shape, strict=True))
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    bumps = 1 + rng.uniform(0.01, 0.06) * smooth_field(shape, 0.15 * size, rng)
    return np.hypot(along / half[0], across / half[1]) * bumps, np.asarray(min(half))


def head_labels(shape: tuple[int, ...], rng: np.random.Generator, *, pixel: float = 1.0) -> np.ndarray:
    """Labels `(H, W)` of a random head, or of an object without any likeness, one time in six.

    Parameters
    ----------
    shape
        Pixels.
    rng
        All randomness.
    pixel
        Length of a pixel in units of the image's pixels, 0.5 for a grid twice as fine: so wide are layers
        and folds.

    Raises
    ------
    ValueError
        Fewer than 8 pixels a side, another number of axes.
    """
    if len(shape) != 2 or min(shape) < 8:
        raise ValueError(f"head_labels draws (H, W) of at least 8 pixels a side, got {shape}")
    radius, half = _coordinates(shape, rng)
    if rng.random() < 1 / 6:
        return _patches(radius < 1, rng, pixel)
    labels = np.zeros(shape, np.uint8)
    skull_stripped = rng.random() < 0.5
    rim = 0.0 if skull_stripped else rng.uniform(0.08, 0.22)
    if not skull_stripped:
        scalp, bone = radius < 1, radius < 1 - 0.5 * rim * rng.uniform(0.7, 1.3)
        labels[scalp] = FAT
        meat = scalp & (smooth_field(shape, 3 / pixel, rng) > rng.uniform(-0.5, 1.5))
        labels[meat] = MUSCLE
        labels[bone] = BONE
    inside = radius < 1 - rim
    _brain(labels, inside, (1 - radius) * half * pixel, rng, pixel)
    return labels


def _brain(
    labels: np.ndarray, inside: np.ndarray, depth: np.ndarray, rng: np.random.Generator, pixel: float
) -> None:
    """Fluid, a folded layer of grey matter around it, white matter, ventricles, nuclei, lesions."""
    shape = labels.shape
    folds = smooth_field(shape, rng.uniform(2.0, 5.0) / pixel, rng)
    reach = rng.uniform(8, 30)  # so deep do the folds go, in pixels of the image
    furrow = np.abs(folds) < rng.uniform(0.05, 0.35) * np.clip(1.2 - depth / reach, 0, 1)
    shell = depth - depth[inside].min() if inside.any() else depth
    fluid = inside & (furrow | (shell < rng.uniform(0, 3)))
    middle = depth > np.quantile(depth[inside], rng.uniform(0.6, 0.9)) if inside.any() else inside
    fluid |= middle & (smooth_field(shape, rng.uniform(3, 7) / pixel, rng) > rng.uniform(0.6, 2.0))
    outside = ~inside | fluid
    thickness = rng.uniform(1.6, 4.5) * (1 + 0.2 * smooth_field(shape, 8 / pixel, rng))
    near = ndimage.distance_transform_edt(~outside) * pixel
    labels[inside] = WHITE
    labels[inside & (near < thickness)] = GREY
    # ventricles have no grey matter around them
    wall = middle & (near < thickness) & (rng.random() < 0.8)
    labels[inside & wall] = WHITE
    nuclei = middle & (smooth_field(shape, rng.uniform(2.5, 6) / pixel, rng) > rng.uniform(0.7, 2))
    labels[inside & nuclei] = NUCLEUS
    labels[inside & fluid] = FLUID
    if rng.random() < 0.5:
        spots = smooth_field(shape, rng.uniform(1.2, 5) / pixel, rng) > rng.uniform(1.8, 3)
        labels[inside & spots & (labels == WHITE)] = LESION


def _patches(inside: np.ndarray, rng: np.random.Generator, pixel: float) -> np.ndarray:
    """Random patches of all labels."""
    labels = np.zeros(inside.shape, np.uint8)
    for label in rng.permutation(list(TISSUES)):
        width = rng.uniform(1.5, 9) / pixel
        labels[smooth_field(inside.shape, width, rng) > rng.uniform(-0.3, 1)] = label
    return np.where(inside, labels, 0)


def deformed(labels: np.ndarray, rng: np.random.Generator, *, strength: float = 0.04) -> np.ndarray:
    """Labels after a random flip, turn, change of size, and smooth warp by `strength` of the image's side."""
    shape = np.array(labels.shape)
    angle, size = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.2, 0.2))
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn[:, ::-1]
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    warp = [smooth_field(labels.shape, 0.12 * min(shape), rng) for _ in shape]
    places = np.einsum("ij,jhw->ihw", turn, grid) + strength * min(shape) * np.stack(warp)
    centre = ((shape - 1) / 2)[:, None, None]
    return ndimage.map_coordinates(labels, places + centre, order=0, mode="constant", cval=0)


def tissue_maps(
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    finer: int = 2,
    tissues: Mapping[int, Tissue] | None = None,
    texture: float = 0.03,
    b1: bool = False,
) -> TissueMaps:
    """Maps of one person with this anatomy.

    Parameters
    ----------
    labels
        `(H, W)` integers, 0 where there is nothing.
    rng
        All randomness.
    finer
        The labels' grid is so many times finer than the maps': voxels at borders hold parts of several
        tissues. Their T1 and T2 are the means by proton density.
    tissues
        What the labels are made of; `TISSUES` by default.
    texture
        Largest relative spread of T1, T2 and density from voxel to voxel in a tissue; half of the maps have
        none, a quarter a third of it.
    b1
        Whether flip angles vary over the image, by 0.8 to 1.2.

    Raises
    ------
    ValueError
        A label without a tissue, sides that are no multiples of `finer`, no label but 0.
    """
    known = TISSUES if tissues is None else tissues
    found = set(np.unique(labels).tolist()) - {0}
    if found - set(known):
        raise ValueError(f"tissue_maps: no tissue is given for the labels {sorted(found - set(known))}")
    if not found:
        raise ValueError("tissue_maps: all labels are 0; there is nothing to scan")
    if labels.ndim != 2 or any(n % finer for n in labels.shape):
        raise ValueError(f"tissue_maps: labels are (H, W), multiples of finer = {finer}; got {labels.shape}")
    table = np.zeros((3, max(found) + 1))
    freedom = rng.random()  # some people have tissues that no table knows
    for label in found:
        tissue = _ANYTHING if freedom < 0.15 else known[label]
        table[:, label] = tissue.draw(rng)
    t1, t2, pd = table[:, labels]
    drift, grain = (
        rng.uniform(0, 0.08, 3),
        rng.choice([0, 0, texture / 3, texture], 3) * rng.uniform(0.3, 1, 3),
    )
    values = []
    for values_of, low, fine in zip((t1, t2, pd), drift, grain, strict=True):
        field = low * smooth_field(labels.shape, 0.15 * min(labels.shape), rng)
        field += fine * smooth_field(labels.shape, finer * rng.uniform(0.6, 2), rng)
        values.append(values_of * np.exp(np.clip(field, -0.5, 0.5)))
    t1, t2, pd = values
    blur = finer * rng.choice([0, 1]) * rng.uniform(0.2, 0.8)
    mean = [_block_mean(ndimage.gaussian_filter(v, blur), finer) for v in (pd * t1, pd * t2, pd)]
    weight = np.where(mean[2] > 0, mean[2], 1)
    t1, t2, pd = mean[0] / weight, mean[1] / weight, mean[2]
    t2 = np.clip(t2, _SHORTEST_T2, t1)
    field = 1 + 0.08 * np.clip(smooth_field(pd.shape, 0.2 * min(pd.shape), rng), -2.5, 2.5) if b1 else None
    return TissueMaps(t1, t2, pd, mask=pd > 0.02, b1=field)


def _block_mean(values: np.ndarray, size: int) -> np.ndarray:
    h, w = (n // size for n in values.shape)
    return values.reshape(h, size, w, size).mean((1, 3))


def receive_phase(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """exp(iφ) `(H, W)`, complex64: a smooth random phase of up to a few turns over the image."""
    field = smooth_field(shape, rng.uniform(0.15, 0.4) * min(shape), rng)
    ramp = sum(
        rng.uniform(-1, 1) * axis
        for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    )
    turns = rng.uniform(0, 1.2) * field + rng.uniform(0, np.pi) * ramp + rng.uniform(0, 2 * np.pi)
    return np.exp(1j * turns).astype(np.complex64)


def random_coils(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Sensitivities `(count, H, W)`, complex64, of loops at random places around the image.

    A loop at p, of the size w, sees exp(iφ) (d_x + i d_y)/(w² + |d|²), d the distance from p; all are
    divided by their root sum of squares.
    """
    y, x = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in shape), indexing="ij", sparse=True)
    start = rng.uniform(0, 2 * np.pi)
    angle = start + 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    distance = rng.uniform(1.15, 1.8) * rng.uniform(0.9, 1.1, count)
    width = rng.uniform(0.2, 0.6)
    dx = x - (distance * np.cos(angle)).reshape(-1, 1, 1)
    dy = y - (distance * np.sin(angle)).reshape(-1, 1, 1)
    turn = np.exp(1j * rng.uniform(0, 2 * np.pi, count)).reshape(-1, 1, 1)
    maps = turn * (dx + 1j * dy) / (width**2 + dx**2 + dy**2)
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)
