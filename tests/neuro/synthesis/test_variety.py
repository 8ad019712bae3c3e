"""Stacks for training: the same for a seed, true, and more varied than `simulate` makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from invlearn.neuro.normalise import estimate
from invlearn.neuro.synthesis import simulate_widely, variety
from invlearn.neuro.synthesis.microscope import Microscope
from invlearn.neuro.synthesis.variety import THEMES, Finish, draw_finish

SHAPE = (24, 64, 72)


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    return [simulate_widely(SHAPE, seed=seed) for seed in range(48)]


def test_a_seed_is_a_stack(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for again, before in zip(simulate_widely(SHAPE, seed=3), samples[3], strict=True):
        np.testing.assert_array_equal(again, before)
    assert not np.array_equal(samples[3][1], samples[4][1])


def test_they_vary(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert {stack.dtype for stack, _ in samples} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    assert all(stack.shape == mask.shape == SHAPE for stack, mask in samples)
    black = [(stack == 0).mean() for stack, _ in samples]
    assert max(black) > 0.97  # wiped
    assert min(black) < 1e-3
    levels = [len(np.unique(stack)) for stack, _ in samples if stack.dtype == np.uint8]
    assert min(levels) < 40
    assert max(levels) > 150
    thick = [ndimage.distance_transform_edt(mask).max() for _, mask in samples if mask.any()]
    assert min(thick) < 2.5
    assert max(thick) > 8
    assert any(not mask.any() for _, mask in samples)
    assert sum(mask.any() for _, mask in samples) > 40


def test_neurons_are_where_the_stack_is_bright(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    better = []
    for stack, mask in samples:
        if mask.any() and np.ptp(stack):
            y = ndimage.gaussian_filter(estimate(stack)(stack), 1)
            better.append(np.median(y[mask]) > np.percentile(y[~mask], 75))
    assert np.mean(better) > 0.9


@pytest.mark.parametrize("theme", THEMES)
def test_a_theme_is_what_it_says(theme: str) -> None:
    rng = np.random.default_rng(0)
    made = [THEMES[theme][1](Microscope(), rng) for _ in range(60)]
    clutter, detector = [m.clutter for m in made], [m.detector for m in made]
    dim = [m.labelling.dim for m in made]
    assert (min(dim) < 0.1) == (theme == "clean")
    assert (max(c.background for c in clutter) < 0.1 and theme == "clean") or theme != "clean"
    assert (np.mean([c.blobs for c in clutter]) > 8) == (theme == "crowded")
    assert (max(c.neighbours for c in clutter) > 0.6) == (theme == "crowded")
    assert (max(d.white for d in detector) > 10) == (theme == "coarse")
    finishes = [draw_finish(theme, rng) for _ in range(200)]
    assert (np.mean([np.isfinite(f.wipe) for f in finishes]) > 0.5) == (theme == "clean")
    assert (np.mean([f.gamma != 1 for f in finishes]) > 0.5) == (theme == "coarse")


def line() -> tuple[np.ndarray, np.ndarray]:
    """A bright line and a body beside it, on grey."""
    mask = np.zeros((8, 24, 24), bool)
    mask[4, 12] = True
    stack = np.full(mask.shape, 40, np.uint8)
    stack[mask] = 200
    stack[2:6, 2:6, 2:6] = 160
    return stack, mask


def test_every_step_of_the_finish_does_its_part() -> None:
    stack, mask = line()
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Finish()(stack, mask, rng), stack)
    bent = Finish(gamma=2.0)(stack, mask, rng)
    assert bent[0, 0, 0] == round(255 * (40 / 255) ** 2)
    flickering = Finish(flicker=0.1)(stack, mask, rng)
    assert 0.03 < np.log(flickering[:, 20, 20] / 40).std() < 0.3
    assert (flickering[:, 20] == flickering[:, 20, :1]).all()  # whole slices
    hot = Finish(hot=0.05)(stack, mask, rng)
    assert 0.03 < (hot != stack).mean() < 0.06
    single = stack.copy()
    single[4, 18, 18] = 255
    assert Finish(median=True)(single, mask, rng)[4, 18, 18] == 40
    wiped = Finish(wipe=1.0)(stack, mask, rng)
    np.testing.assert_array_equal(wiped > 0, ndimage.distance_transform_edt(~mask) <= 1)
    spared = Finish(wipe=1.0, spared=0.4)(stack, mask, rng)
    assert spared[4, 4, 4] == 160  # the body is bright
    assert spared[0, 20, 20] == 0
    nothing = Finish(wipe=1.0)(stack, np.zeros_like(mask), rng)
    np.testing.assert_array_equal(nothing, stack)  # without a neuron there is nothing to wipe around
    wide = Finish(gamma=1.5)(stack.astype(np.uint16) * 16, mask, rng)
    assert wide.dtype == np.uint16
    assert wide.max() > 255


def test_bad_numbers_are_refused() -> None:
    for wrong in ({"gamma": 0.0}, {"hot": 1.5}, {"flicker": -1.0}, {"wipe": -1.0}, {"spared": -0.1}):
        with pytest.raises(ValueError, match="gamma is above 0, hot a share"):
            replace(Finish(), **wrong)
    with pytest.raises(ValueError, match="three positive whole"):
        simulate_widely((4, 4), seed=0)


def test_empty_stacks_have_no_fibres(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could be a neuron and is none would be no lesson."""
    monkeypatch.setattr(variety, "_EMPTY", 1.0)
    seen = []
    whole = variety.render
    monkeypatch.setattr(variety, "render", lambda *a, **k: seen.append(k["neighbours"]) or whole(*a, **k))
    assert not any(simulate_widely(SHAPE, seed=seed)[1].any() for seed in range(6))
    assert seen == [None] * 6
