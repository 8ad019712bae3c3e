"""The microscope: each setting does what it says, and the light adds up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from invlearn.io.swc import DENDRITE, Tree
from invlearn.neuro import swc_to_mask
from invlearn.neuro.synthesis import Clutter, Detector, Labelling, Microscope, render
from invlearn.neuro.synthesis.microscope import label_brightness, resampled

SHAPE = (24, 40, 60)
EVEN = Labelling(texture=0.0, dim=1.0)
CLEAR = Clutter(background=0.0, unevenness=0.0, grain=0.0)
SHARP = Detector(photons=1e6, read_noise=0.0, white=2.0, bits=16)
PLAIN = Microscope((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.0, EVEN, CLEAR, SHARP)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def line(*points: tuple[float, float, float], radius: float = 1.5) -> Tree:
    n = len(points)
    return Tree(np.array(points, float), np.full(n, radius), np.arange(-1, n - 1), np.full(n, DENDRITE), "um")


FIBRE = line((5, 20, 12), (55, 20, 12))


def taken(microscope: Microscope = PLAIN, seed: int = 0, tree: Tree = FIBRE, **options: Any) -> np.ndarray:
    return render(tree, SHAPE, microscope, rng(seed), **options)[0].astype(float)


def labelled(**changes: Any) -> np.ndarray:
    return taken(replace(PLAIN, labelling=replace(EVEN, **changes)))[12, 20, 8:53]


def cluttered(seed: int = 0, **changes: Any) -> np.ndarray:
    return taken(replace(PLAIN, clutter=replace(CLEAR, **changes)), seed)


def detected(**changes: Any) -> np.ndarray:
    return taken(replace(PLAIN, detector=replace(SHARP, **changes)))


def test_the_median_of_the_centre_line_is_one() -> None:
    stack = taken()
    assert np.median(stack[12, 20, 5:56]) == pytest.approx(4095 / 2, rel=0.01)
    assert stack[:, 0].max() == 0


def test_the_mask_is_the_tree() -> None:
    stack, mask = render(FIBRE, SHAPE, PLAIN, rng())
    np.testing.assert_array_equal(mask, swc_to_mask(FIBRE, SHAPE))
    assert (stack.dtype, mask.dtype, stack.shape) == (np.uint16, bool, SHAPE)


def test_the_point_spread_function_is_gaussian_with_its_widths() -> None:
    dot = line((30, 20, 12), radius=0.3)
    scope = replace(PLAIN, psf=(3.0, 2.0, 1.0), detector=replace(SHARP, white=1e3))
    light = render(dot, SHAPE, replace(scope, detector=replace(SHARP, white=1.05)), rng())[0].astype(float)
    for axis, sigma in enumerate((3.0, 2.0, 1.0)):
        profile = light.sum(axis=tuple({0, 1, 2} - {axis}))
        at = np.arange(len(profile))
        middle = (profile * at).sum() / profile.sum()
        spread = np.sqrt((profile * (at - middle) ** 2).sum() / profile.sum())
        assert middle == pytest.approx((12, 20, 30)[axis], abs=0.05)
        assert spread == pytest.approx(sigma, rel=0.06)


def test_widths_are_in_micrometres() -> None:
    wide = replace(PLAIN, voxel_size=(1.0, 0.5, 0.5), psf=(1.0, 1.0, 1.0))
    stack = taken(wide, tree=line((2.5, 10, 12), (27.5, 10, 12), radius=0.75))
    across = stack[12, :, 30] > stack[12, 20, 30] / 2
    along_z = stack[:, 20, 30] > stack[12, 20, 30] / 2
    assert across.sum() > 1.5 * along_z.sum()


def test_labelling_is_uneven_as_asked() -> None:
    even = labelled()
    assert even.std() < 0.01 * even.mean()
    assert labelled(texture=0.5).std() > 0.1 * even.mean()
    assert (
        np.abs(np.diff(labelled(texture=0.5, reach=1.0))).mean()
        > np.abs(np.diff(labelled(texture=0.5, reach=20.0))).mean()
    )
    assert labelled(beads=0.9).std() > 3 * labelled(beads=0.1).std() > 0
    broken = labelled(gaps=0.1, gap_length=5.0, gap_left=0.0)
    assert broken.min() < 0.1 * np.median(broken)
    assert labelled(gaps=0.1, gap_length=5.0, gap_left=0.6).min() > 0.4 * np.median(broken)
    assert (labelled(gaps=0.1, gap_length=1.0) < 0.5 * even).sum() < (broken < 0.5 * even).sum()


def test_whole_branches_are_dim() -> None:
    points = np.array([(0, 0, 0), (10, 0, 0), *[(20, 5 * k, 0) for k in range(12)]], float)
    parent = np.array([-1, 0, *[1] * 12])
    fork = resampled(Tree(points, np.ones(14), parent, np.full(14, DENDRITE)), 1.0)
    light = label_brightness(fork, replace(EVEN, dim=0.3), rng())
    ends = light[2:14]
    assert 0.29 < ends.min() < 0.6
    assert len(np.unique(ends)) == 12
    assert label_brightness(fork, EVEN, rng()).min() == 1


def test_a_gap_goes_on_along_the_branch() -> None:
    n = 400
    long = Tree(
        np.arange(n)[:, None] * np.array([1.0, 0, 0]), np.ones(n), np.arange(-1, n - 1), np.full(n, DENDRITE)
    )
    light = label_brightness(long, replace(EVEN, gaps=0.02, gap_length=8.0, gap_left=0.1), rng())
    dark = light < 0.5
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[False], dark, [False]]).astype(int))))[::2]
    assert 4 <= len(runs) <= 14
    assert 3 <= runs.mean() <= 16


def test_the_surroundings_shine_as_asked() -> None:
    assert np.median(cluttered(background=0.4)) == pytest.approx(0.4 * 4095 / 2, rel=0.02)
    flat, uneven = cluttered(background=0.4), cluttered(background=0.4, unevenness=0.8)
    far = np.s_[:, :8, :]
    assert uneven[far].std() > 5 * flat[far].std()
    assert cluttered(background=0.4, grain=0.3)[far].std() > 5 * flat[far].std()
    assert cluttered(blobs=6)[far].max() > 100 > taken()[far].max()
    assert (
        cluttered(blobs=6, blob_brightness=0.1)[far].max()
        < cluttered(blobs=6, blob_brightness=1.0)[far].max()
    )
    assert cluttered(halo=0.5)[12, 26, 30] > 2 * taken()[12, 26, 30]
    dimmed = taken(replace(PLAIN, attenuation=0.8, clutter=replace(CLEAR, background=0.5)))
    assert np.median(dimmed[-1]) == pytest.approx(0.2 * np.median(dimmed[0]), rel=0.1)


def test_neighbours_are_in_the_image_and_not_in_the_mask() -> None:
    other = line((5, 8, 12), (55, 8, 12))
    plain, bright = (
        taken(replace(PLAIN, clutter=replace(CLEAR, neighbours=n)), neighbours=other) for n in (0.0, 0.4)
    )
    assert plain[12, 8, 30] == 0
    assert bright[12, 8, 10:50].max() == pytest.approx(0.4 * bright[12, 20, 30], rel=0.1)
    assert not render(FIBRE, SHAPE, PLAIN, rng(), neighbours=other)[1][:, 8].any()
    across = bright[12, :14, 30] > bright[12, 8, 30] / 2
    assert across.sum() > (bright[12, 14:27, 30] > bright[12, 20, 30] / 2).sum()  # out of focus


def test_photons_are_counted() -> None:
    quiet, few = detected(photons=1e4), detected(photons=10.0)
    part = np.s_[12, 20, 10:50]
    noise = (few - quiet)[part] * 2 / 4095
    assert noise.std() == pytest.approx(np.sqrt(1 / 10), rel=0.3)
    many = detected(photons=100.0)
    assert ((many - quiet)[part] * 2 / 4095).std() == pytest.approx(0.1, rel=0.3)
    read = detected(photons=1e4, read_noise=500.0)
    assert read[0, 0].std() > 0
    assert ((read - quiet)[part] * 2 / 4095).std() == pytest.approx(0.05, rel=0.3)


def test_the_detector_blurs_saturates_cuts_and_rounds() -> None:
    noisy, smooth = detected(photons=10.0), detected(photons=10.0, smoothing=1.0)
    part = np.s_[12, 20, 10:50]
    assert np.abs(np.diff(smooth[part])).mean() < 0.5 * np.abs(np.diff(noisy[part])).mean()
    assert (detected(white=0.5)[part] == 4095).all()
    assert detected(white=4.0)[part].max() < 1.3 * 4095 / 4
    assert detected(black=0.5)[part].mean() == pytest.approx(4095 / 3, rel=0.05)
    cut, whole = detected(floor=0.3), detected()
    assert (cut[whole < 0.29 * 4095 / 2] == 0).all()
    np.testing.assert_array_equal(cut[whole > 0.31 * 4095 / 2], whole[whole > 0.31 * 4095 / 2])
    eight = render(FIBRE, SHAPE, replace(PLAIN, detector=replace(SHARP, bits=8)), rng())[0]
    assert eight.dtype == np.uint8
    assert np.median(eight[12, 20, 5:56]) in (127, 128)


def test_a_tree_that_is_not_in_the_stack_leaves_it_dark() -> None:
    stack, mask = render(line((500, 0, 0), (510, 0, 0)), SHAPE, PLAIN, rng())
    assert not stack.any()
    assert not mask.any()


def test_resampling_keeps_the_shape() -> None:
    xyz = np.array([(0, 0, 0), (10, 0, 0), (10, 7.3, 0), (12, -3, 4)], float)
    parent, kind = np.array([-1, 0, 1, 1]), np.array([1, 3, 3, 2])
    tree = Tree(xyz, np.array([4, 1, 0.5, 2.0]), parent, kind)
    fine = resampled(tree, 0.5)
    assert fine.length == pytest.approx(tree.length)
    child, parent = fine.edges.T
    assert np.linalg.norm(fine.xyz[child] - fine.xyz[parent], axis=1).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(fine.xyz[:4], tree.xyz)
    assert (len(fine.branch_points), len(fine.ends)) == (len(tree.branch_points), len(tree.ends))
    first = np.flatnonzero((fine.xyz[:, 1] == 0) & (fine.xyz[:, 2] == 0))
    np.testing.assert_allclose(fine.radius[first], 4 - 0.3 * fine.xyz[first, 0], atol=1e-9)
    assert set(fine.kind[(fine.xyz[:, 0] > 0) & (fine.xyz[:, 1] == 0)]) == {3}  # the soma is one node
    assert set(fine.kind[fine.xyz[:, 1] < 0]) == {2}
    assert len(resampled(tree, 100.0)) == 4


WRONG: dict[str, Any] = {
    "psf": lambda: Microscope(psf=(1.0, -1.0, 1.0)),
    "three positive": lambda: Microscope(voxel_size=(0.0, 1.0, 1.0)),
    "attenuation is a share": lambda: Microscope(attenuation=1.5),
    "texture is at least 0": lambda: Microscope(labelling=Labelling(texture=-1.0)),
    "beads is a share": lambda: Microscope(labelling=Labelling(beads=2.0)),
    "gap_left is a share": lambda: Microscope(labelling=Labelling(gap_left=2.0)),
    "halo is a share": lambda: Microscope(clutter=Clutter(halo=2.0)),
    "background is at least 0": lambda: Microscope(clutter=Clutter(background=-0.1)),
    "bits are 8 or 16": lambda: Microscope(detector=Detector(bits=12)),
    "photons are more than 0": lambda: Microscope(detector=Detector(photons=0.0)),
    "white is brighter": lambda: Microscope(detector=Detector(white=1.0, black=1.0)),
}


@pytest.mark.parametrize("message", WRONG)
def test_settings_out_of_range_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_settings_are_plain_values() -> None:
    found = PLAIN.to_dict()
    assert found["detector"]["photons"] == 1e6
    assert found["clutter"]["background"] == 0
