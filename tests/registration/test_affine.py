"""The affine stage recovers known maps of a structured phantom, whatever the grids and the contrast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from invlearn.registration.affine import Grid, agreement, align, matrix_of, rotation


def head(points: np.ndarray, inverted: bool = False) -> np.ndarray:
    """Brightness of an asymmetric phantom at points (..., 3) in mm: ellipsoids in an ellipsoid.

    Inverted, it ends where the rim has half its brightness: any wider, and it would be a larger head.
    """
    value = np.zeros(points.shape[:-1])
    shapes = [
        ((0, 0, 0), (70, 85, 60), 0.5),
        ((0, 5, 5), (60, 72, 50), 0.3),
        ((20, 30, 10), (15, 22, 12), -0.4),
        ((-25, -20, -5), (12, 25, 18), 0.5),
        ((5, -45, 20), (25, 10, 10), -0.3),
        ((30, 0, -25), (12, 12, 20), 0.4),
        ((-20, 35, 25), (9, 14, 9), 0.6),
    ]
    for centre, axes, height in shapes:
        r = np.sqrt((((points - centre) / axes) ** 2).sum(-1))
        value += height / (1 + np.exp((r - 1) * 25))
    return np.where(value > 0.25, 1.3 - value, 0) if inverted else value


def grid(shape: tuple[int, ...], affine: np.ndarray, world: np.ndarray, inverted: bool = False) -> Grid:
    """The phantom on a grid, moved so that `world` takes phantom points to points of this volume."""
    at = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(world)
    data = head(at @ back[:3, :3].T + back[:3, 3], inverted)
    noise = np.random.default_rng(0).normal(scale=0.02, size=shape)
    return Grid(torch.from_numpy(ndimage.gaussian_filter(data, 0.5) + noise).float(), affine)


def centred(shape: tuple[int, ...], spacing: tuple[float, ...], turn: np.ndarray | None = None) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world(
    degrees: tuple[float, ...], shift: tuple[float, ...], scale: np.ndarray | None = None
) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    if scale is not None:
        matrix[:3, :3] @= scale
    matrix[:3, 3] = shift
    return matrix


def error_mm(found: np.ndarray, true: np.ndarray) -> float:
    """Largest distance over the phantom between where two maps take it."""
    points = np.array(
        [(70, 0, 0), (-70, 0, 0), (0, 85, 0), (0, -85, 0), (0, 0, 60), (0, 0, -60), (0, 0, 0.0)]
    )
    return float(np.linalg.norm((points @ (found - true)[:3, :3].T + (found - true)[:3, 3]), axis=1).max())


FIXED_SHAPE, FIXED_SPACING = (52, 60, 46), (3.6, 3.6, 3.6)
FIXED = centred(FIXED_SHAPE, FIXED_SPACING)
TURNED = np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]])  # axes permuted and one mirrored


@pytest.mark.parametrize(
    ("degrees", "shift"), [((30, 0, 0), (0, 0, 0)), ((0, -30, 10), (20, -20, 10)), ((5, 8, -28), (30, 0, 0))]
)
def test_rigid_motions_of_thirty_degrees_and_millimetres_are_recovered(degrees: tuple, shift: tuple) -> None:
    true = world(degrees, shift)
    shape = (70, 50, 60)
    moving = grid(shape, centred(shape, (3.2, 4.5, 3.0), TURNED), true)
    found = align(grid(FIXED_SHAPE, FIXED, np.eye(4)), moving, "rigid")
    assert error_mm(found, true) < 1.5
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("inverted", [False, True])
def test_affine_maps_are_recovered_in_another_contrast(inverted: bool) -> None:
    true = world((8, -12, 5), (10, 4, -6), np.array([[1.1, 0.05, 0], [0, 0.9, 0], [0.03, 0, 1.05]]))
    moving = grid(FIXED_SHAPE, FIXED, true, inverted)
    fixed = grid(FIXED_SHAPE, FIXED, np.eye(4))
    found = align(fixed, moving, "affine")
    assert error_mm(found, true) < 2
    assert error_mm(align(fixed, moving, "rigid"), true) > 3  # a rotation alone cannot


def test_both_orders_find_the_same_map() -> None:
    true = world((8, -12, 5), (10, 4, -6), np.array([[1.1, 0.05, 0], [0, 0.9, 0], [0.03, 0, 1.05]]))
    shape = (70, 50, 60)
    fixed, moving = (
        grid(FIXED_SHAPE, FIXED, np.eye(4)),
        grid(shape, centred(shape, (3.2, 4.5, 3.0), TURNED), true, True),
    )
    found = align(fixed, moving, "affine")
    assert error_mm(np.linalg.inv(align(moving, fixed, "affine")), found) < 0.4


def test_volumes_whose_headers_lie_far_apart_are_brought_together() -> None:
    true = world((0, 0, 10), (400, -300, 250))
    far = FIXED.copy()
    far[:3, 3] += (400, -300, 250)
    found = align(grid(FIXED_SHAPE, FIXED, np.eye(4)), grid(FIXED_SHAPE, far, true), "rigid")
    assert error_mm(found, true) < 1.5


def test_a_volume_that_is_a_small_part_of_the_other_is_placed() -> None:
    """A slab of a seventh of the height counts as overlapping, though it covers little of the whole."""
    true = world((3, -2, 4), (4, -3, 2))
    slab = centred((52, 60, 7), FIXED_SPACING)
    moving = grid((52, 60, 7), slab, true)
    found = align(grid(FIXED_SHAPE, FIXED, np.eye(4)), moving, "rigid")
    assert error_mm(found, true) < error_mm(np.eye(4), true)


def test_none_is_the_identity_and_other_names_are_refused() -> None:
    fixed = grid(FIXED_SHAPE, FIXED, np.eye(4))
    np.testing.assert_array_equal(align(fixed, fixed, "none"), np.eye(4))
    with pytest.raises(ValueError, match="none, rigid, affine"):
        align(fixed, fixed, "similarity")


def test_rotations_are_those_of_scipy() -> None:
    vector = np.array([0.3, -0.5, 0.2])
    np.testing.assert_allclose(
        rotation(torch.from_numpy(vector)), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12
    )
    centre = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    matrix = matrix_of(torch.zeros(15, dtype=torch.float64), centre)
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-12)
    moved = matrix_of(torch.tensor([20.0, 0, 0, 1, 2, 3], dtype=torch.float64), centre)
    np.testing.assert_allclose(moved[:3, :3] @ centre + moved[:3, 3], centre + torch.tensor([1.0, 2, 3]))


def test_coarser_grids_stay_in_place() -> None:
    data = torch.arange(4 * 6 * 8, dtype=torch.float32).reshape(4, 6, 8)
    fine = Grid(data, centred((4, 6, 8), (1, 2, 2), TURNED))
    coarse = fine.coarsened(4.0)
    assert tuple(coarse.data.shape) == (1, 3, 4)
    np.testing.assert_allclose(coarse.middle(), fine.middle(), atol=1e-12)
    uniform = Grid(torch.zeros(4, 6, 8), fine.affine)
    np.testing.assert_allclose(uniform.centre_of_mass(), uniform.middle(), atol=1e-12)


def textured(seed: int, shape: tuple[int, int, int] = (48, 44, 40), millimetres: float = 2.0) -> Grid:
    """Random structure that fills the whole grid, under a shade from a corner: a crop within a body."""
    rng = np.random.default_rng(seed)
    data = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    shade = np.exp(-1.5 * np.linspace(0, 1, shape[seed % 3]))
    shade = shade.reshape([-1 if axis == seed % 3 else 1 for axis in range(3)])
    return Grid(torch.from_numpy((data / data.std() + 4) * shade).float(), centred(shape, (millimetres,) * 3))


@pytest.mark.parametrize(("model", "other"), [("rigid", 1), ("affine", 1), ("affine", 7)])
def test_without_anything_in_common_the_headers_are_believed(model: str, other: int) -> None:
    """Only the shades match where the volumes are turned or pushed apart: mutual information likes that."""
    np.testing.assert_array_equal(align(textured(0), textured(other), model), np.eye(4))


def test_agreement_counts_structure_and_overlap() -> None:
    fixed = textured(0)
    shaded = Grid(fixed.data * torch.linspace(1, 0.4, 44)[:, None], fixed.affine)
    inverted = Grid(fixed.data.amax() - fixed.data, fixed.affine)
    away = world((0, 0, 0), (24, 0, 0))  # a quarter of the length
    shifted = Grid(fixed.data, away @ fixed.affine)
    whole = agreement(fixed, fixed, np.eye(4))
    assert whole > 0.8
    assert agreement(fixed, shaded, np.eye(4)) > 0.75
    assert agreement(fixed, inverted, np.eye(4)) == pytest.approx(whole, rel=1e-4)
    assert agreement(fixed, shifted, away) == pytest.approx(whole, rel=1e-4)
    assert agreement(fixed, shifted, np.eye(4)) < 0.1
    half = Grid(fixed.data[:24], fixed.affine)  # reaches half of the fixed grid
    assert 0.3 * whole < agreement(fixed, half, np.eye(4)) < 0.7 * whole


def test_small_fields_of_view_are_aligned_as_large_ones_are() -> None:
    """A head of a sixth of the size, in millimetres, with everything else in proportion."""
    true = world((6, -4, 8), (10, 4, -6))
    small = np.diag([1 / 6, 1 / 6, 1 / 6, 1.0])
    grids = [grid(FIXED_SHAPE, FIXED, w) for w in (np.eye(4), true)]
    found = align(*(Grid(g.data, small @ g.affine) for g in grids), "rigid")
    assert error_mm(np.linalg.inv(small) @ found @ small, true) < 1.5


def test_agreement_within_a_part_does_not_see_the_rest() -> None:
    shape = (36, 40, 32)
    affine = centred(shape, (4.0, 4.0, 4.0))
    one = grid(shape, affine, np.eye(4))
    part = torch.zeros(shape, dtype=torch.bool)
    part[8:28, 10:30, 6:26] = True
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    other = Grid(torch.where(part, one.data, noise), affine)
    found = agreement(one, other, np.eye(4), part)
    # windows at its border do see a little
    assert found == pytest.approx(agreement(one, one, np.eye(4), part), abs=0.04)
    assert found > 1.5 * agreement(one, other, np.eye(4))


def test_the_size_of_an_object_is_in_cubic_millimetres() -> None:
    data = torch.zeros(30, 30, 30)
    data[5:25, 5:25, 5:25] = 1
    data[10:20, 10:20, 10:20] = 0  # a cavity
    assert Grid(data, np.diag([2.0, 2.0, 3.0, 1.0])).object_size() == pytest.approx(20**3 * 12)
