"""Stacks to learn from, which differ more than those of one microscope: as if from many laboratories.

`simulate` makes the samples that methods are compared on. Here the same neurons and detectors get wider
ranges, in themes that a network must not confuse: clean stacks whose dim twigs count, crowded ones whose
bright bodies and fibres do not, coarsely stored ones, and stacks without a neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from invlearn.io.voxels import checked_shape
from invlearn.neuro.synthesis.grow import with_spines
from invlearn.neuro.synthesis.microscope import Microscope, render, resampled
from invlearn.neuro.synthesis.simulate import (
    Forms,
    between,
    draw_microscope,
    draw_neighbours,
    draw_scene,
    draw_voxel_size,
)

_FLATTEST = 8.0  # slices are at most so many pixels apart
_FORMS = Forms(calibre=(0.4, 2.8), soma=(3.5, 24.0), thickest=14.0)
_EMPTY = 0.04  # of all stacks hold no neuron
_FAR = 1e6  # µm: out of sight


@dataclass(frozen=True)
class Finish:
    """What happens to a stack after it was taken.

    Attributes
    ----------
    gamma
        Exponent on the share of the largest grey level.
    flicker
        Standard deviation of the logarithm of brightness from slice to slice.
    hot
        Share of voxels that have a random value.
    median
        Whether every slice went through a median filter of 3 x 3.
    wipe
        Voxels around the neuron beyond which the stack was set to 0; infinite: it was not.
    spared
        Share of the largest grey level from which on (smoothed) something was left there nevertheless.

    Raises
    ------
    ValueError
        A number out of range.
    """

    gamma: float = 1.0
    flicker: float = 0.0
    hot: float = 0.0
    median: bool = False
    wipe: float = np.inf
    spared: float = np.inf

    def __post_init__(self) -> None:
        if not (
            self.gamma > 0 and self.flicker >= 0 and 0 <= self.hot <= 1 and min(self.wipe, self.spared) >= 0
        ):
            raise ValueError(
                "Finish: gamma is above 0, hot a share from 0 to 1, the other numbers not negative; got "
                f"{self}"
            )

    def __call__(self, stack: np.ndarray, mask: np.ndarray, generator: Generator) -> np.ndarray:
        """The stack as it is handed on.

        Parameters
        ----------
        stack
            (D, H, W), uint8, or uint16 with 12-bit values.
        mask
            (D, H, W), the voxels of the neuron.
        generator
            Of all randomness.
        """
        from scipy.ndimage import distance_transform_edt, gaussian_filter, median_filter

        top = 255 if stack.dtype == np.uint8 else 4095
        level = stack.astype(np.float32) / top
        if self.flicker:
            level *= np.exp(self.flicker * generator.standard_normal((len(level), 1, 1), dtype=np.float32))
        if self.gamma != 1:
            level **= np.float32(self.gamma)
        if np.isfinite(self.wipe) and mask.any():
            far = distance_transform_edt(~mask) > self.wipe
            level[far & (gaussian_filter(level, 1) < self.spared)] = 0
        if self.median:
            level = median_filter(level, (1, 3, 3))
        if self.hot:
            struck = generator.random(level.shape, dtype=np.float32) < self.hot
            level[struck] = generator.random(int(struck.sum()), dtype=np.float32)
        return np.clip(np.rint(level * top), 0, top).astype(stack.dtype)


def _clean(scope: Microscope, rng: Generator) -> Microscope:
    """Little noise and hardly a background: twigs of a few per cent of the brightness are seen, and count."""
    background = float(between(rng, 1e-3, 0.06))
    photons = float(between(rng, 80.0, 3000.0))
    labelling = replace(scope.labelling, dim=float(between(rng, 0.04, 0.5)), texture=rng.uniform(0.1, 0.6))
    clutter = replace(
        scope.clutter,
        background=background,
        blobs=int(rng.poisson(2)),
        neighbours=float(rng.uniform(0, 0.06)),
    )
    subtracted = rng.random() < 0.6
    detector = replace(
        scope.detector,
        photons=photons,
        read_noise=float(rng.uniform(0, 0.3) * np.sqrt(background * photons)),
        white=background + float(between(rng, 0.6, 5.0)),
        black=background * float(rng.uniform(0.5, 1.6)) if subtracted else 0.0,
        floor=background + float(between(rng, 0.02, 0.1)) if rng.random() < 0.25 else 0.0,
    )
    return replace(scope, labelling=labelling, clutter=clutter, detector=detector)


def _crowded(scope: Microscope, rng: Generator) -> Microscope:
    """Bodies brighter than the neuron, and fibres of others almost as bright but out of focus."""
    clutter = replace(
        scope.clutter,
        blobs=int(rng.poisson(rng.uniform(3, 30))),
        blob_brightness=float(between(rng, 0.4, 4.0)),
        neighbours=float(rng.uniform(0.15, 0.75)),
        unevenness=float(rng.uniform(0.3, 1.0)),
    )
    labelling = replace(scope.labelling, dim=max(scope.labelling.dim, 0.6))
    return replace(scope, labelling=labelling, clutter=clutter)


def _coarse(scope: Microscope, rng: Generator) -> Microscope:
    """A long point-spread function, and an exposure that leaves the neuron few of 256 grey levels."""
    z, y, x = scope.psf
    white = scope.clutter.background + float(between(rng, 3.0, 25.0))
    detector = replace(scope.detector, white=white, bits=8, black=0.0)
    return replace(scope, psf=(float(z * rng.uniform(1, 2.2)), y, x), detector=detector)


def _as_it_is(scope: Microscope, rng: Generator) -> Microscope:
    return scope


Theme = Callable[[Microscope, Generator], Microscope]
THEMES: dict[str, tuple[float, Theme]] = {
    "clean": (0.35, _clean),
    "crowded": (0.25, _crowded),
    "coarse": (0.2, _coarse),
    "plain": (0.2, _as_it_is),
}
"""Name to share of the stacks and what it does to a microscope."""


def draw_finish(theme: str, rng: Generator) -> Finish:
    """What a stack of a theme goes through; clean ones are mostly wiped, coarse ones mostly bent."""
    often = {"clean": 0.65, "coarse": 0.1}.get(theme, 0.05)
    bent = {"coarse": 0.8}.get(theme, 0.3)
    return Finish(
        gamma=between(rng, 0.5, 2.0) if rng.random() < bent else 1.0,
        flicker=float(rng.uniform(0, 0.2)) if rng.random() < 0.2 else 0.0,
        hot=between(rng, 1e-5, 2e-3) if rng.random() < 0.15 else 0.0,
        median=bool(rng.random() < 0.1),
        wipe=between(rng, 0.5, 6.0) if rng.random() < often else np.inf,
        spared=between(rng, 0.05, 1.0) if rng.random() < 0.5 else np.inf,
    )


def simulate_widely(shape: Sequence[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A stack and its truth for training: the neurons of `simulate`, under more conditions.

    Branches of 0.5 to 14 pixels' radius; slices up to eight pixels apart; and one of four themes. Clean: a
    background that is nearly or exactly 0, often wiped around the neuron, branches down to a few per cent of
    the brightness. Crowded: bright bodies and fibres that do not belong to the neuron. Coarse: few grey
    levels, bent by a gamma, a long point-spread function. Plain: as `simulate`. One in 25 holds no neuron.

    Parameters
    ----------
    shape
        (D, H, W).
    seed
        The same seed gives the same stack.

    Returns
    -------
    stack : numpy.ndarray
        (D, H, W), uint8, or uint16 with 12-bit values.
    mask : numpy.ndarray
        (D, H, W), bool.

    Raises
    ------
    ValueError
        No shape of a stack.
    """
    size, rng = checked_shape(shape), np.random.default_rng(seed)
    shares = np.array([share for share, _ in THEMES.values()])
    theme = str(rng.choice(list(THEMES), p=shares / shares.sum()))
    voxel_size = draw_voxel_size(rng, _FLATTEST)
    spacing, pixel = np.array(voxel_size), min(voxel_size)
    scope = draw_microscope(float(rng.random()), voxel_size, rng)
    scope = THEMES[theme][1](scope, rng)
    tree = resampled(draw_scene(size, spacing, None, rng, _FORMS), pixel)
    if rng.random() < 0.2:
        tree = with_spines(tree, rng.uniform(0.05, 0.25) / pixel, pixel * rng.uniform(1.0, 2.0), rng)
    others = draw_neighbours(size, spacing, 3.0 if theme == "crowded" else 1.0, rng)
    if rng.random() < _EMPTY:  # a fibre that could as well be a neuron would be no lesson
        tree, others = replace(tree, xyz=tree.xyz + _FAR), None
    stack, mask = render(tree, size, scope, rng, neighbours=others)
    return draw_finish(theme, rng)(stack, mask, rng), mask
