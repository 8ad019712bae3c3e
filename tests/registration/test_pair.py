"""`register` as a whole: known maps on other grids, every kind of input, and what is refused."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from invlearn.io import Volume, write_volume
from invlearn.io.itk import points_of, write_affine, write_field
from invlearn.registration import Settings, Transform, metrics, optimise, pair, register, warp
from invlearn.registration.fields import exponential, linear_field
from invlearn.registration.harmonise import foreground, ground, noise, part, solid

affine_module = importlib.import_module("invlearn.registration.affine")
SHAPE = (40, 44, 36)
QUICK = 12


def centred(shape: tuple[int, ...], spacing: tuple[float, ...], turn: np.ndarray | None = None) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def scene(points: np.ndarray) -> np.ndarray:
    """A bounded object with blobs, at points (..., 3) in mm."""
    r = np.sqrt(((points / (50, 58, 44)) ** 2).sum(-1))
    value = 0.5 / (1 + np.exp((r - 1) * 20))
    rng = np.random.default_rng(0)
    for _ in range(25):
        centre, size = rng.uniform(-30, 30, 3), rng.uniform(5, 10)
        value += (
            rng.choice([-0.25, 0.3]) * np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / size**2) * (r < 1.2)
        )
    return np.maximum(value, 0).astype(np.float32)


def volume(shape: tuple[int, ...], affine: np.ndarray, world: np.ndarray | None = None) -> Volume:
    """The scene, moved by `world`, on a grid."""
    at = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(np.eye(4) if world is None else world)
    return Volume(scene(at @ back[:3, :3].T + back[:3, 3]), affine)


FIXED = volume(SHAPE, centred(SHAPE, (3.2, 3.2, 3.2)))
TURN = (
    np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]])
    @ Rotation.from_euler("xyz", (4, -3, 6), degrees=True).as_matrix()
)


def bent(moving: Volume, size: float) -> tuple[Volume, torch.Tensor]:
    """The volume under a known smooth deformation of so many voxels."""
    rng = np.random.default_rng(1)
    v = np.stack([ndimage.gaussian_filter(rng.normal(size=moving.shape), 5) for _ in range(3)])
    u = exponential(torch.from_numpy((v * size / np.abs(v).max()).astype(np.float32)))
    return moving.like(warp(torch.from_numpy(moving.data), u).numpy()), u


@pytest.fixture(scope="module")
def across_grids():
    """Fixed and moving with other spacing, orientation and position, and the result."""
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", (10, -15, 12), degrees=True).as_matrix() * 1.05
    world[:3, 3] = 15, -12, 9
    shape = (46, 34, 60)
    moving = volume(shape, centred(shape, (2.8, 4.0, 2.4), TURN), world)
    fixed, _ = bent(FIXED, 1.5)
    return fixed, moving, register(fixed, moving, iterations=QUICK)


def test_volumes_on_other_grids_come_together(across_grids) -> None:
    fixed, _, result = across_grids
    correlation = np.corrcoef(result.warped.data.ravel(), fixed.data.ravel())[0, 1]
    assert correlation > 0.98
    assert result.warped.shape == fixed.shape
    np.testing.assert_array_equal(result.warped.affine, fixed.affine)
    assert result.folding_percent == 0
    assert 0 < result.sd_log_jacobian < 0.35
    assert result.inverse_consistency_mm < 0.1 * 3.2
    assert result.similarity[2] > result.similarity[1]
    assert result.cpu_seconds > 0
    assert result.seconds > 0


def test_simpleitk_applies_both_fields_as_we_do(across_grids, tmp_path: Path) -> None:
    fixed, moving, result = across_grids
    write_volume(tmp_path / "moving.nii.gz", moving)
    write_volume(tmp_path / "fixed.nii.gz", fixed)
    write_field(tmp_path / "forward.nii.gz", result.forward_field(), fixed.affine)
    write_field(tmp_path / "inverse.nii.gz", result.inverse_field(), moving.affine)
    images = {name: sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("moving", "fixed")}

    def through(name: str, source: str, target: str) -> np.ndarray:
        field = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(field)
        return sitk.GetArrayFromImage(sitk.Resample(images[source], images[target], transform)).T

    theirs = through("forward", "moving", "fixed")
    away = np.abs(theirs - result.warped.data)
    # the faces of the moving grid are cut half a voxel apart by rounding of the field to float32
    assert np.quantile(away, 0.999) < 1e-3 * np.ptp(moving.data)
    back = through("inverse", "fixed", "moving")
    assert np.corrcoef(back.ravel(), moving.data.ravel())[0, 1] > 0.97


def test_the_affine_file_is_what_the_affine_stage_did(across_grids, tmp_path: Path) -> None:
    fixed, moving, result = across_grids
    write_affine(tmp_path / "affine.txt", result.affine)
    write_volume(tmp_path / "moving.nii.gz", moving)
    write_volume(tmp_path / "fixed.nii.gz", fixed)
    theirs = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "moving.nii.gz")),
        sitk.ReadImage(str(tmp_path / "fixed.nii.gz")),
        sitk.ReadTransform(str(tmp_path / "affine.txt")),
    )
    ours = register(fixed, moving, affine=result.affine, iterations=0).warped.data
    assert np.quantile(np.abs(sitk.GetArrayFromImage(theirs).T - ours), 0.999) < 1e-3 * np.ptp(moving.data)


def test_inputs_of_every_kind_give_the_same(tmp_path: Path) -> None:
    moving, _ = bent(FIXED, 1.5)
    for name, v in (("f", FIXED), ("m", moving)):
        write_volume(tmp_path / f"{name}.nii.gz", v)
    kinds = [
        (FIXED, moving),
        (tmp_path / "f.nii.gz", str(tmp_path / "m.nii.gz")),
        ((FIXED.data, FIXED.affine), (torch.from_numpy(moving.data), moving.affine)),
    ]
    results = [register(a, b, affine="none", iterations=3).deformation for a, b in kinds]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-4, rtol=0)
    bare = register(FIXED.data, torch.from_numpy(moving.data), affine="none", iterations=3)
    assert any("no affine" in note for note in bare.notes)
    assert bare.to_dict()["notes"]


def test_labels_and_other_channels_follow() -> None:
    moving, _ = bent(FIXED, 2.0)
    result = register(FIXED, moving, affine="none", iterations=QUICK)
    labels = [(v.data > 0.45).astype(np.int16) * 300 for v in (FIXED, moving)]
    carried = result.warp(moving.like(labels[1]), "labels")
    assert carried.data.dtype == np.int16
    assert set(np.unique(carried.data)) == {0, 300}
    after = metrics.dice(labels[0], carried.data)[300]
    assert after > 0.93
    assert after > metrics.dice(*labels)[300]
    for kind in (np.uint16, np.uint32):
        other = result.warp(moving.like(labels[1].astype(kind)), "labels").data
        assert other.dtype == kind
        np.testing.assert_array_equal(other, carried.data)
    with pytest.raises(ValueError, match="another grid"):
        result.warp(Volume(labels[1], np.eye(4)), "labels")


def test_each_similarity_and_model_runs_and_matters() -> None:
    moving, _ = bent(FIXED, 1.5)
    fields = [
        register(FIXED, moving, affine="none", similarity=s, iterations=3).deformation
        for s in ("lncc", "mse", "mi", "mind")
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(fields))
    rigid = register(FIXED, moving, affine="rigid", iterations=0)
    np.testing.assert_allclose(np.linalg.det(rigid.affine[:3, :3]), 1, atol=1e-6)
    assert not rigid.deformation.any()
    rough = register(FIXED, moving, affine="none", iterations=3, settings=Settings(diffusion=2.0))
    assert not torch.equal(rough.deformation, fields[0])


def test_an_initial_field_is_used() -> None:
    moving, _ = bent(FIXED, 2.0)
    first = register(FIXED, moving, affine="none", iterations=QUICK)
    again = register(FIXED, moving, affine="none", iterations=0, initial=first.deformation)
    torch.testing.assert_close(again.deformation, first.deformation, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="initial field"):
        register(FIXED, moving, initial=torch.zeros(3, 4, 4, 4))


def test_contrast_and_gain_change_the_field_less_for_being_evened_out(monkeypatch) -> None:
    """Gamma 0.6, a smooth gain of up to 35 % and 1 % noise on one image, against its plain registration.

    They are not without effect: 0.40 voxel on average where there is brightness, of a deformation of 0.53.
    """
    moving, _ = bent(FIXED, 2.0)
    rng = np.random.default_rng(3)
    gain = ndimage.gaussian_filter(rng.normal(size=SHAPE), 12)
    gain = np.exp(0.35 * gain / np.abs(gain).max())
    grain = 0.01 * np.random.default_rng(1).normal(size=SHAPE)
    changed = moving.like((moving.data**0.6 * gain + grain).clip(0).astype(np.float32))
    plain = register(FIXED, moving, affine="none").deformation

    def away() -> float:
        found = register(FIXED, changed, affine="none").deformation
        return float((found - plain).square().sum(0).sqrt()[torch.from_numpy(FIXED.data) > 0.1].mean())

    evened = away()
    monkeypatch.setattr(pair, "_ONE_CONTRAST", ())
    assert evened < 0.42
    assert evened < 0.75 * away()


@pytest.mark.parametrize("affine", ["none", "affine", "given"])
def test_both_orders_undo_one_another_on_grids_that_are_alike(affine: str) -> None:
    moving, _ = bent(FIXED, 2.0)
    cut = Volume(moving.data[1:-2], moving.affine @ translation(1, 0, 0))  # not quite the same grid
    shift = translation(0, 1.5, 0)
    maps = (shift, np.linalg.inv(shift)) if affine == "given" else (affine, affine)
    there, back = (
        register(*both, affine=world, iterations=QUICK)
        for both, world in zip(((FIXED, cut), (cut, FIXED)), maps, strict=True)
    )
    grid = points_of(FIXED.affine, SHAPE)[:, FIXED.data > 0.1].T
    away = Transform(there.forward_field(), FIXED.affine).points(grid)
    home = Transform(back.forward_field(), cut.affine).points(away)
    assert np.linalg.norm(away - grid, axis=1).mean() > 0.2 * 3.2  # there was something to do
    assert np.linalg.norm(home - grid, axis=1).mean() < 0.05 * 3.2
    for result, target in ((there, FIXED), (back, cut)):
        assert np.corrcoef(result.warped.data.ravel(), target.data.ravel())[0, 1] > 0.98
        assert result.folding_percent == 0
        assert result.inverse_consistency_mm < 0.05 * 3.2
    np.testing.assert_allclose(there.affine @ back.affine, np.eye(4), atol=1e-9)
    assert there.similarity == back.similarity


def test_a_volume_is_brought_to_another_grid_by_cubic_splines() -> None:
    rng = np.random.default_rng(4)
    volume = torch.from_numpy(rng.random((12, 14, 11), dtype=np.float32))
    assert pair.brought(volume, np.eye(4), (12, 14, 11)) is volume
    matrix = translation(0.4, -1.3, 2.0)
    matrix[:3, :3] += rng.normal(scale=0.02, size=(3, 3))
    shape = (7, 8, 6)
    found = pair.brought(volume, matrix @ translation(2, 3, 1), shape)
    field = linear_field(matrix @ translation(2, 3, 1), shape, volume)
    expected = warp(volume, field, "cubic").clamp(volume.min(), volume.max())
    inner = (slice(None), *[slice(1, -1)] * 2)  # at the border the samples are mirrored in other ways
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=2e-2)
    assert float((found - warp(volume, field)).abs().mean()) > 10 * float((found - expected).abs().mean())


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_smaller_object_is_the_reference_whatever_its_contrast(power: float) -> None:
    larger = volume(SHAPE, FIXED.affine, np.diag([1.1, 1.1, 1.1, 1.0]))
    small, large = FIXED.like(FIXED.data**power), larger

    def turned(*both: Volume) -> bool:
        return pair._other_way_round(*((v, torch.from_numpy(np.ascontiguousarray(v.data))) for v in both))

    assert turned(large, small)
    assert not turned(small, large)
    assert not turned(large, Volume(small.data[:20], small.affine))  # on another grid
    bright = small.like(small.data * 2)  # of one size: the brighter
    assert turned(small, bright)
    assert not turned(bright, small)


@pytest.mark.parametrize("data", [FIXED.data, 2 + FIXED.data**0.5, 1 - FIXED.data])
def test_a_volume_and_itself_stay_where_they_are(data: np.ndarray) -> None:
    one = FIXED.like(data)
    found = register(one, one, affine="none")
    assert not found.deformation.any()
    assert not found.inverse_deformation.any()
    assert np.abs(register(one, one).forward_field()).max() < 1  # mm; voxels of 3.2 mm


def test_volumes_that_object_fills_come_together() -> None:
    moving = volume(SHAPE, centred(SHAPE, (1.5, 1.5, 1.5)))
    fixed, true = bent(moving, 3.0)
    assert float(foreground(torch.from_numpy(moving.data)).float().mean()) == 1
    found = register(fixed, moving.like(2 * moving.data**0.8), affine="none").deformation
    inner = (slice(None), *(slice(5, -5),) * 3)
    before, after = (u[inner].square().sum(0).sqrt().mean() for u in (true, found - true))
    assert after < 0.6 * before


def test_without_symmetry_the_fixed_volume_is_the_reference() -> None:
    moving, _ = bent(FIXED, 2.0)
    pairs = (FIXED, moving), (moving, FIXED)
    usual, one_sided = (
        [register(*both, affine="none", iterations=QUICK, symmetric=chosen).deformation for both in pairs]
        for chosen in (True, False)
    )
    assert sorted(torch.equal(a, b) for a, b in zip(usual, one_sided, strict=True)) == [False, True]


def translation(*voxels: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_odd_values_are_mended_and_noted() -> None:
    moving, _ = bent(FIXED, 1.5)
    plain = register(FIXED, moving, affine="none", iterations=3)
    holes = moving.data.copy()
    holes[0, :3, 0] = np.nan, np.inf, -np.inf
    mended = register(FIXED, moving.like(holes), affine="none", iterations=3)
    assert any("3 voxels are NaN" in note for note in mended.notes)
    assert (mended.deformation - plain.deformation).abs().max() < 0.1
    assert torch.isfinite(mended.deformation).all()
    spike = moving.data.astype(np.float64) * 1e30
    spike[20, 20, 18] = 1e38
    huge = register(FIXED, moving.like(spike), affine="none", iterations=3)
    assert (huge.deformation - plain.deformation).abs().mean() < 0.05


def test_sform_notes_reach_the_result(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(FIXED.data, FIXED.affine)
    other = FIXED.affine.copy()
    other[0, 3] += 9
    image.set_sform(FIXED.affine, 1)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "f.nii")
    result = register(tmp_path / "f.nii", FIXED, affine="none", iterations=0)
    assert any("sform was used" in note for note in result.notes)


@pytest.mark.parametrize("shape", [(3, 40, 44), (40, 3, 44)])
def test_thin_volumes_register(shape: tuple) -> None:
    thin = volume(shape, centred(shape, (3.0, 3.0, 3.0)))
    moving, _ = bent(thin, 0.5)
    result = register(thin, moving, affine="rigid", iterations=3)
    assert np.isfinite(result.warped.data).all()
    assert result.folding_percent == 0


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        register(tmp_path / "none.nii", FIXED)
    with pytest.raises(ValueError, match="4 dimensions"):
        register((np.zeros((4, 4, 4, 2)), np.eye(4)), FIXED)
    with pytest.raises(ValueError, match="2 dimensions"):
        register(FIXED, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="constant"):
        register(FIXED, np.ones(SHAPE))
    with pytest.raises(ValueError, match="no finite voxel"):
        register(FIXED, np.full(SHAPE, np.nan))
    with pytest.raises(ValueError, match="singular"):
        register((FIXED.data, np.diag([1.0, 1, 0, 1])), FIXED)
    with pytest.raises(TypeError, match="real numbers"):
        register(FIXED.data.astype(np.complex64), FIXED)
    with pytest.raises(ValueError, match="lncc, mse, mi, mind"):
        register(FIXED, FIXED, similarity="ncc")
    with pytest.raises(ValueError, match="none, rigid, affine"):
        register(FIXED, FIXED, affine="full")
    with pytest.raises(ValueError, match="singular"):
        register(FIXED, FIXED, affine=np.zeros((4, 4)) + np.diag([0, 0, 0, 1.0]))
    far = FIXED.affine.copy()
    far[:3, 3] += 1000
    with pytest.raises(ValueError, match="do not overlap"):
        register(FIXED, Volume(FIXED.data, far), affine="none")


@pytest.mark.parametrize("rectified", [False, True])
def test_noise_of_the_background_is_not_object(rectified: bool) -> None:
    f = torch.from_numpy(FIXED.data)
    grain = 0.03 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    noisy = (f + grain).clamp(min=0) if rectified else f + grain
    assert noise(noisy) == pytest.approx(0.03, rel=0.15)
    assert noise(f) < 0.002
    assert foreground(noisy)[f < 0.005].float().mean() < 0.003
    assert foreground(noisy)[f > 0.3].all()
    loud = f + 4 * (noisy - f)  # still noise, and no tissue that fills the volume
    assert foreground(loud)[f < 0.005].float().mean() < 0.1
    assert abs(ground(loud)) < 0.1


def in_brain(points: np.ndarray) -> np.ndarray:
    """The scene without its soft rim, as stripped brains are."""
    r = np.sqrt(((points / (50, 58, 44)) ** 2).sum(-1))
    return np.where(r < 1.04, scene(points), 0).astype(np.float32)


def with_skull(points: np.ndarray) -> np.ndarray:
    """That brain in a bright shell, a dark gap between, and a jaw below: twice as large and more."""
    x, y, z = np.moveaxis(points, -1, 0)
    r = np.sqrt(((points / (50, 58, 44)) ** 2).sum(-1))
    shell = 0.9 * ((r > 1.2) & (r < 1.4))
    jaw = 0.6 * ((x / 28) ** 6 + ((y - 40) / 16) ** 6 + ((z + 58) / 14) ** 6 < 1)
    return np.maximum(in_brain(points), np.maximum(shell, jaw)).astype(np.float32)


HEAD_SHAPE = (52, 56, 56)


def seen_at(affine: np.ndarray, shape: tuple[int, ...], what, world: np.ndarray) -> Volume:
    """An object that `world` has moved, on a grid; averaged over each voxel, as scanners do."""
    fine = [np.linspace(-1 / 3, 1 / 3, 3)] * 3
    total = np.zeros(shape, np.float32)
    back = np.linalg.inv(world)
    for offset in np.stack(np.meshgrid(*fine, indexing="ij"), -1).reshape(-1, 3):
        at = (np.moveaxis(np.indices(shape), 0, -1) + offset) @ affine[:3, :3].T + affine[:3, 3]
        total += what(at @ back[:3, :3].T + back[:3, 3])
    return Volume(total / 27, affine)


@pytest.fixture(scope="module")
def brain_and_head() -> tuple[Volume, Volume, np.ndarray]:
    """A bent brain, the same one in a head elsewhere, and the world map between them but for the bend."""
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", (4, -6, 5), degrees=True).as_matrix() * 0.97
    world[:3, 3] = 7, -9, 6
    affine = centred(HEAD_SHAPE, (3.2, 3.2, 3.2))
    brain, _ = bent(seen_at(FIXED.affine, SHAPE, in_brain, np.eye(4)), 1.5)
    return brain, seen_at(affine, HEAD_SHAPE, with_skull, world), world


def error_in_brain(result, world: np.ndarray, forward: bool) -> float:
    """Mean distance in mm of points of the unbent brain in the head from where they belong."""
    points = points_of(FIXED.affine, SHAPE)[:, FIXED.data > 0.1].T
    there = points @ world[:3, :3].T + world[:3, 3]
    _, u = bent(FIXED, 1.5)  # brain(p) = scene(p + u)
    field, affine = (
        (result.forward_field(), result.fixed.affine)
        if forward
        else (result.inverse_field(), result.moving.affine)
    )
    moved = points + 3.2 * u.numpy()[:, FIXED.data > 0.1].T
    found = Transform(field, affine).points(points)
    wanted = moved @ world[:3, :3].T + world[:3, 3]
    assert np.linalg.norm(there - wanted, axis=1).mean() > 1.0  # the bend says something
    return float(np.linalg.norm(found - wanted, axis=1).mean())


@pytest.mark.parametrize("swapped", [False, True])
def test_a_brain_finds_its_place_in_a_head(brain_and_head, swapped: bool, monkeypatch) -> None:
    brain, head, world = brain_and_head
    volumes = (head, brain) if swapped else (brain, head)
    result = register(*volumes)
    found = error_in_brain(result, world, not swapped)
    assert any("part of the other" in note for note in result.notes)
    aligned = error_in_brain(register(*volumes, iterations=0), world, not swapped)
    assert found < 1.05
    assert found < 0.85 * aligned
    assert result.folding_percent == 0
    for module in (pair, affine_module):
        monkeypatch.setattr(module, "part", lambda *sizes: False)
    blind = register(*volumes)
    assert error_in_brain(blind, world, not swapped) > 1.4 * found
    assert not any("part of the other" in note for note in blind.notes)


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind"])
def test_what_only_one_of_two_objects_has_pulls_nowhere(similarity: str) -> None:
    """A head and its own brain: nothing moves, but where the shell is looked at."""
    affine = centred(HEAD_SHAPE, (3.2, 3.2, 3.2))
    head, brain = (seen_at(affine, HEAD_SHAPE, what, np.eye(4)) for what in (with_skull, in_brain))
    where = torch.from_numpy(brain.data > 0.1)
    told = register(brain, head, affine="none", similarity=similarity, iterations=6).deformation
    volumes = (torch.from_numpy(x.data).float() for x in (brain, head))
    blind = optimise(*volumes, similarity=similarity, iterations=6).field
    moved = [float(u.square().sum(0).sqrt()[where].mean()) for u in (told, blind)]
    assert moved[0] < 0.5 * moved[1]


def test_ordinary_pairs_are_compared_everywhere() -> None:
    moving, _ = bent(FIXED, 2.0)
    assert not any("part of" in note for note in register(FIXED, moving, iterations=2).notes)
    assert not part(1.0, 1.3)
    assert part(1.0, 1.5)
    assert part(1.5, 1.0)
    assert not part(0.0, 1.0)


def test_a_solid_has_no_cavities_and_is_found_on_a_coarse_grid() -> None:
    x = torch.zeros(24, 24, 24)
    x[4:20, 4:20, 4:20] = 1
    x[8:16, 8:16, 8:16] = 0
    wanted = torch.zeros(24, 24, 24, dtype=torch.bool)
    wanted[4:20, 4:20, 4:20] = True
    assert torch.equal(solid(x), wanted)
    large = x.repeat_interleave(9, 0).repeat_interleave(9, 1).repeat_interleave(9, 2)[:, :-1]
    found = solid(large, (1.0, 1.0, 1.0))
    assert found.shape == large.shape
    whole = wanted.repeat_interleave(9, 0).repeat_interleave(9, 1).repeat_interleave(9, 2)[:, :-1]
    assert (found != whole).float().mean() < 0.05
    cropped = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert solid(cropped) is None  # nothing that it could be told from


def test_a_deformation_that_makes_it_worse_is_left_out() -> None:
    grain = 0.03 * np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    noisy = FIXED.like(FIXED.data + grain)  # where it is, it is best
    wild = Settings(momentum=0.99, largest_step=0.9, fluid=0.0, diffusion=0.0, damping=1e-3, roughest=9.0)
    result = register(FIXED, noisy, affine="none", similarity="mi", iterations=(0, 0, 0, 20), settings=wild)
    assert any("nothing better" in note for note in result.notes)
    assert not result.deformation.any()
    assert result.similarity[2] == result.similarity[1]
