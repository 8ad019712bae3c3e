"""The deformable stage: known deformations are found, nothing folds, kernels and torch agree."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.registration import Settings, jacobian_determinant, optimise, warp
from invlearn.registration import middle as middle_module
from invlearn.registration.fields import difference, exponential
from invlearn.registration.forces import LocalCorrelation, Squares, force_of
from invlearn.registration.harmonise import foreground
from invlearn.registration.metrics import sd_log_jacobian
from invlearn.registration.optimise import Stepper, unfold
from invlearn.registration.similarity import CLIMBED, box, lncc
from invlearn.registration.smoothing import halvings, shrink, shrink_mask, smooth

SHAPE = (40, 44, 36)


def texture(seed: int = 0, shape: tuple[int, ...] = SHAPE, sigma: float = 2.0) -> torch.Tensor:
    """A bounded object of random texture on a dark ground."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = 1 / (1 + np.exp(((at**2).sum(0) ** 0.5 - 0.75) * 30))
    return torch.from_numpy(((noise / noise.std() * 0.2 + 0.6) * inside).astype(np.float32))


def deformation(size: float, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    v = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 5) for _ in range(3)])
    return exponential(torch.from_numpy((v * size / np.abs(v).max()).astype(np.float32)))


def object_of(image: torch.Tensor) -> torch.Tensor:
    return image > 0.25


@pytest.mark.parametrize(
    ("similarity", "contrast", "least"),
    [
        ("lncc", lambda x: x, 3.0),
        ("lncc", lambda x: 2 * x.clamp(min=0) ** 0.6 + 1, 1.2),
        ("mse", lambda x: x, 3.4),
        ("mi", lambda x: -(x**2), 1.2),
        ("mind", lambda x: 1 - x, 1.5),
    ],
)
def test_a_known_deformation_is_recovered(similarity: str, contrast, least: float) -> None:
    moving, true = texture(), deformation(3.0)
    fixed = warp(moving, true)
    found = optimise(fixed, contrast(moving), similarity=similarity, iterations=(30, 30, 20))
    where = object_of(fixed)
    before = true.square().sum(0).sqrt()[where].mean()
    after = (found.field - true).square().sum(0).sqrt()[where].mean()
    assert after < before / least
    assert jacobian_determinant(found.field).min() > 0


def test_the_result_is_the_same_each_time_and_starts_at_rest_for_equal_volumes() -> None:
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    first, second = (optimise(fixed, moving, iterations=8).field for _ in range(2))
    assert torch.equal(first, second)
    assert optimise(fixed, fixed, iterations=8).field.abs().max() < 0.02


def test_kernels_and_torch_take_the_same_steps() -> None:
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    fast = optimise(fixed, moving, iterations=6)
    slow = optimise(fixed.double(), moving.double(), iterations=6)
    assert (fast.field - slow.field).abs().max() < 5e-3
    for (_, a), (_, b) in zip(fast.history, slow.history, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 10, 11), (3, 12, 13), (1, 14, 12)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
def test_forces_of_kernels_and_torch_agree(shape: tuple, spacing: tuple) -> None:
    f, w = texture(0, shape, 1.0), texture(1, shape, 1.0)
    radius = [2, 1, 2]
    fast, slow = torch.empty(4, *shape), torch.empty(4, *shape, dtype=torch.float64)
    a = LocalCorrelation(f, radius, spacing)(f, w, fast)
    b = LocalCorrelation(f.double(), radius, spacing)(f.double(), w.double(), slow)
    assert a == pytest.approx(b, rel=1e-3)
    assert (fast - slow).abs().max() < 3e-3 * slow.abs().max()


def both_slopes(pair: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
    """Along the axes, the derivative by a displacement in the second volume and its opposite in the first."""
    first, second = pair
    return [
        second.grad * difference(second.detach(), axis) - first.grad * difference(first.detach(), axis)
        for axis in range(3)
    ]


def test_the_force_of_local_correlation_is_its_gradient_in_both_volumes() -> None:
    f, w = texture(0).double(), texture(1).double()
    out = torch.empty(4, *SHAPE, dtype=torch.float64)
    value = LocalCorrelation(f, [3, 3, 3])(f, w, out)
    assert value == pytest.approx(float(lncc(f, w, 3)))
    pair = f.clone().requires_grad_(), w.clone().requires_grad_()
    lncc(*pair, 3).backward()
    slope = torch.stack(both_slopes(pair)) * f.numel()
    torch.testing.assert_close(out[:3], slope, atol=1e-9, rtol=1e-6)
    turned = torch.empty_like(out)
    LocalCorrelation(f, [3, 3, 3])(w, f, turned)
    torch.testing.assert_close(turned[:3], -out[:3])
    torch.testing.assert_close(turned[3], out[3])


@pytest.mark.parametrize(("name", "scale"), [("mse", 0.5), ("mi", None), ("mind", None)])
def test_other_forces_are_gradients_too(name: str, scale: float | None) -> None:
    """Up to the smoothing of those that are differentiated."""
    f, w = texture(0).double(), texture(1).double()
    out = torch.empty(4, *SHAPE, dtype=torch.float64)
    value = force_of(name, f, 4)(f, w, out)
    assert value == pytest.approx(float(CLIMBED[name](f, w)))
    pair = f.clone().requires_grad_(), w.clone().requires_grad_()
    CLIMBED[name](*pair).backward()
    slope = torch.stack(both_slopes(pair))
    slope = smooth(slope, [1.5] * 3) if scale is None else scale * f.numel() * slope
    torch.testing.assert_close(out[:3], slope, atol=1e-9, rtol=1e-5)


def ball() -> torch.Tensor:
    at = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    return at.square().sum(0) < 0.4


def test_within_a_mask_the_force_of_local_correlation_is_the_gradient_of_its_windows() -> None:
    """Against the definition: means over what a window and the mask share, windows around its voxels."""
    f, w, mask = texture(0).double(), texture(1).double(), ball()
    y, x = f.clone().requires_grad_(), w.clone().requires_grad_()
    m = mask.double()
    n = box(m, 3).clamp(min=1)
    mf, mx = box(m * y, 3) / n, box(m * x, 3) / n
    floors = [0.03 * v[mask].detach().var(correction=0) for v in (y, x)]
    vf = box(m * y**2, 3) / n - mf**2 + floors[0]
    vx = box(m * x**2, 3) / n - mx**2 + floors[1]
    covariance = box(m * y * x, 3) / n - mf * mx + (floors[0] * floors[1]).sqrt()
    wanted = (covariance**2 / (vf * vx))[mask].mean()
    wanted.backward()
    out = torch.empty(4, *SHAPE, dtype=torch.float64)
    value = LocalCorrelation(f, [3, 3, 3], mask=mask)(f, w, out)
    assert value == pytest.approx(float(wanted.detach()), rel=1e-6)
    slope = torch.stack(both_slopes((y, x))) * float(m.sum())
    torch.testing.assert_close(out[:3], slope, atol=1e-6, rtol=1e-4)
    assert not out[:, ~mask].any()
    fast = torch.empty(4, *SHAPE)
    single = LocalCorrelation(f.float(), [3, 3, 3], mask=mask)(f.float(), w.float(), fast)
    assert single == pytest.approx(value, rel=1e-3)
    assert (fast - out).abs().max() < 3e-3 * out.abs().max()


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mi", "mind"])
def test_what_lies_outside_the_mask_does_not_matter(similarity: str) -> None:
    fixed, moving, mask = texture(), warp(texture(), deformation(2.0)), ball()
    other = torch.where(mask, fixed, texture(5))
    fields = [
        optimise(x, moving, similarity=similarity, iterations=(0, 0, 0, 4), mask=m).field
        for x, m in ((fixed, mask), (other, mask), (fixed, None))
    ]
    assert fields[0].abs().max() > 0.1
    assert (fields[0] - fields[2]).abs().max() > 0.05
    # at the rim of the mask, gradients and what the middle sees reach a voxel or two beyond
    core = smooth(mask[None].float(), [2.0] * 3)[0] > 0.98
    assert (fields[0] - fields[1])[:, core].abs().mean() < 0.1 * fields[0][:, core].abs().mean()


def test_a_mask_on_coarse_grids_is_never_empty_and_bad_ones_are_refused() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[10:20, 10, 10:20] = True
    assert torch.equal(shrink_mask(mask, [1, 1, 1]), mask)
    thin = shrink_mask(mask, [4, 4, 4])
    assert thin.any()
    assert (shrink(mask[None].float(), [4, 4, 4])[0][thin] == 0.25).all()
    with pytest.raises(ValueError, match="fixed grid"):
        optimise(texture(), texture(1), mask=mask[1:])
    with pytest.raises(ValueError, match="holds nothing"):
        optimise(texture(), texture(1), mask=torch.zeros(SHAPE, dtype=torch.bool))


def test_forces_point_uphill() -> None:
    fixed, moving = texture(), warp(texture(), deformation(1.0))
    for name in CLIMBED:
        stepper = Stepper(SHAPE, fixed, (1.0, 1.0, 1.0), Settings())
        stepper(force_of(name, fixed, 4), fixed, moving)
        for pair in (
            (fixed, warp(moving, 0.3 * stepper.step)),
            (warp(fixed, -0.3 * stepper.step), moving),
            (warp(fixed, -0.2 * stepper.step), warp(moving, 0.2 * stepper.step)),
        ):
            assert CLIMBED[name](*pair) > CLIMBED[name](fixed, moving), name


def test_windows_are_looked_at_as_often_as_told() -> None:
    fixed, moving = texture(), warp(texture(), deformation(1.0))
    for dtype in (torch.float32, torch.float64):
        f, m = fixed.to(dtype), moving.to(dtype)
        always, seldom = LocalCorrelation(f, [4, 4, 4]), LocalCorrelation(f, [4, 4, 4], reuse=2)
        pulls = [[x.new_empty(4, *SHAPE) for x in (f, f)] for _ in range(3)]
        values = [(always(f, w, a), seldom(f, w, b)) for w, (a, b) in zip((m, f, m), pulls, strict=True)]
        assert values[0][0] == values[0][1] == values[1][1] < values[1][0]
        assert values[2][0] == values[2][1]
        same = [torch.equal(a, b) for a, b in pulls]
        assert same == [True, False, True]


def test_some_similarities_have_smoothing_of_their_own() -> None:
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    for name, alike in (("mi", False), ("mse", False), ("mind", True)):
        own = optimise(fixed, moving, similarity=name, iterations=4).field
        usual = optimise(fixed, moving, similarity=name, iterations=4, settings=Settings()).field
        assert torch.equal(own, usual) == alike, name
    with pytest.raises(ValueError, match="the similarity is one of"):
        optimise(fixed, moving, similarity="ncc")


def test_no_step_is_longer_than_allowed() -> None:
    fixed, moving = texture(), texture(1)
    for dtype in (torch.float32, torch.float64):
        stepper = Stepper(SHAPE, fixed.to(dtype), (1.0, 1.0, 2.0), Settings(damping=1e-3, largest_step=0.3))
        stepper(Squares((1.0, 1.0, 2.0)), fixed.to(dtype), moving.to(dtype))
        relative = stepper.step / torch.tensor([0.3, 0.3, 0.15]).reshape(3, 1, 1, 1)
        assert 0.5 < relative.square().sum(0).sqrt().max() <= 1.0001


def test_every_setting_matters() -> None:
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    usual = optimise(fixed, moving, iterations=6).field
    for change in (
        {"levels": 1}, {"radius": 1}, {"fluid": 2.0}, {"diffusion": 0.0}, {"damping": 3.0},
        {"coarsest_diffusion": 0.0}, {"momentum": 0.0},
        {"largest_step": 0.1}, {"tolerance": 0.9}, {"roughest": 0.02},
    ):  # fmt: skip
        steps = 30 if "tolerance" in change else 6
        other = optimise(fixed, moving, iterations=steps, settings=Settings(**change))
        assert not torch.equal(other.field, usual), change
    pair = [x.repeat_interleave(2, 0) for x in (fixed, moving)]  # the grid below has 40 voxels
    fields = [optimise(*pair, iterations=6, settings=Settings(coarse_diffusion=d)).field for d in (0.0, 1.2)]
    assert not torch.equal(*fields)
    for bad in (
        {"levels": 0}, {"radius": 0}, {"fluid": -1.0}, {"diffusion": -1.0}, {"damping": 0.0},
        {"largest_step": 1.0}, {"tolerance": -1.0}, {"roughest": 0.0},
        {"momentum": 1.0}, {"coarse_diffusion": -1.0}, {"coarsest_diffusion": -1.0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="got"):
            Settings(**bad)


def test_iterations_count_from_coarse_to_fine() -> None:
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    settings = Settings(tolerance=0.0)
    steps = [len(v) for _, v in optimise(fixed, moving, iterations=(5, 3), settings=settings).history]
    assert steps == [5, 3]
    assert [len(v) for _, v in optimise(fixed, moving, iterations=4, settings=settings).history] == [4, 4]
    none = optimise(fixed, moving, iterations=0)
    assert none.history == ()
    assert not none.field.any()
    with pytest.raises(ValueError, match="from 0"):
        optimise(fixed, moving, iterations=-1)
    with pytest.raises(ValueError, match="from 0"):
        optimise(fixed, moving, iterations=())


def test_an_initial_field_is_a_head_start() -> None:
    moving, true = texture(), deformation(5.0)
    fixed = warp(moving, true)
    started = optimise(fixed, moving, iterations=(0, 4), initial=true).field
    cold = optimise(fixed, moving, iterations=(0, 4)).field
    assert (started - true).abs().mean() < 0.2 * (cold - true).abs().mean()


def test_folds_are_removed_and_the_rest_is_kept() -> None:
    u = deformation(2.0)
    assert torch.equal(unfold(u), u)
    folded = u.clone()
    folded[0, 20, 20, 20] += 6
    folded[2, 10:12, 10:12, 10:12] -= 7
    assert jacobian_determinant(folded).min() < 0
    mended = unfold(folded)
    assert jacobian_determinant(mended).min() >= 0.01
    assert (mended - u).abs().max() < 3
    far = torch.zeros(SHAPE, dtype=torch.bool)
    far[-8:, -8:, -8:] = True
    assert torch.equal(mended[:, far], u[:, far])
    noise = 20 * torch.randn((3, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    assert jacobian_determinant(unfold(noise, rounds=2)).min() >= 0.01


def test_smoothing_is_scipy_with_the_same_reach() -> None:
    x = texture()
    ours = smooth(x[None], (1.0, 0.0, 2.0))[0]
    theirs = ndimage.gaussian_filter(x.numpy().astype(float), (1.0, 0, 2.0), mode="nearest", radius=(3, 0, 6))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(smooth(x[None].double(), (1.0, 0.0, 2.0))[0], theirs, atol=1e-6)
    same = x[None].clone()
    assert smooth(same, (1.0, 0.0, 2.0), same) is same
    torch.testing.assert_close(same[0], ours)


def test_pyramids_are_nearly_isotropic() -> None:
    assert halvings((64, 64, 64), (1.0, 1.0, 1.0), 3) == [[4, 4, 4], [2, 2, 2], [1, 1, 1]]
    assert halvings((64, 64, 32), (1.0, 1.0, 3.0), 3) == [[4, 4, 1], [2, 2, 1], [1, 1, 1]]
    assert halvings((64, 64, 3), (1.0, 1.0, 1.0), 4)[0][2] == 1
    assert halvings((10, 10, 10), (1.0, 1.0, 1.0), 4) == [[1, 1, 1]]
    x = torch.arange(5.0).reshape(1, 5, 1, 1)
    torch.testing.assert_close(shrink(x, (2, 1, 1)).flatten(), torch.tensor([0.5, 2.5, 4.0]))


@pytest.mark.parametrize("shape", [(3, 30, 30), (30, 3, 31), (1, 30, 30), (2, 2, 2)])
def test_thin_volumes_work(shape: tuple) -> None:
    moving = texture(0, shape)
    found = optimise(warp(moving, 0.5 * deformation(2.0, shape=shape)), moving, iterations=5)
    assert torch.isfinite(found.field).all()
    assert jacobian_determinant(found.field).min() > 0


def test_flat_background_is_left_alone() -> None:
    """A small object in a large volume gives what it gives in a small one."""
    fixed, moving = texture(), warp(texture(), deformation(2.0))
    pad = (20, 20, 20, 20, 20, 20)
    large = [torch.nn.functional.pad(x, pad) for x in (fixed, moving)]
    found = optimise(*large, iterations=10).field
    assert not found[:, :5].any()
    assert found[:, 30:50, 30:50, 30:50].abs().max() > 0.5
    assert jacobian_determinant(found).min() > 0


def test_a_pair_ends_as_rough_as_allowed_and_not_rougher() -> None:
    fixed, moving = texture(), warp(texture(), deformation(3.0))
    for limit in (0.07, 0.1):
        found = optimise(fixed, moving, settings=Settings(roughest=limit))
        assert found.converged
        assert 0.9 * limit < sd_log_jacobian(found.field, foreground(fixed)) < 1.1 * limit


def test_where_roughness_is_measured_does_not_depend_on_the_order() -> None:
    """Flat surroundings of one volume alone must not hide how rough the rest is."""
    moving = texture()
    fixed, lonely = warp(moving, deformation(3.0)), moving.clone()
    lonely[:, :, :8] += 0.4  # a slab that only this one has
    rough = [
        sd_log_jacobian(
            optimise(*both, settings=Settings(roughest=0.1)).field, foreground(fixed) & foreground(lonely)
        )
        for both in ((fixed, lonely), (lonely, fixed))
    ]
    assert rough[0] == pytest.approx(rough[1], rel=0.05)


def test_brightness_is_evened_out_again_on_every_finer_grid() -> None:
    moving, true = texture(), deformation(3.0)
    fixed = warp(moving, true)
    changed = moving.clamp(min=0) ** 0.7 * torch.linspace(0.5, 1.5, SHAPE[1])[:, None]
    where = object_of(fixed)
    errors = [
        float((optimise(fixed, changed, one_contrast=one).field - true)[:, where].abs().mean())
        for one in (False, True)
    ]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells memory by the Linux file system")
def test_memory_does_not_grow_with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (80, 80, 80)
    fixed, moving = texture(0, shape), texture(1, shape)
    used, sample = [], middle_module.sample_channels

    def watched(*given: torch.Tensor) -> torch.Tensor:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used.append(pages * os.sysconf("SC_PAGE_SIZE"))
        return sample(*given)

    monkeypatch.setattr(middle_module, "sample_channels", watched)
    optimise(fixed, moving, iterations=16, settings=Settings(levels=1, tolerance=0.0, roughest=10.0))
    assert len(used) == 34  # both volumes, once before the first of sixteen steps
    assert max(used[18:]) - max(used[8:18]) < 4 * fixed.numel()  # less than one volume in eight steps


def test_bad_volumes_are_named() -> None:
    with pytest.raises(ValueError, match="one grid"):
        optimise(texture(), texture(shape=(9, 9, 9)))
    with pytest.raises(ValueError, match="finite"):
        optimise(texture(), texture() * float("nan"))
