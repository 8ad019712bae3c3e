"""Two fields that meet in the middle: what they see, how they move, and the maps between the two volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from invlearn.registration import jacobian_determinant, warp
from invlearn.registration.fields import compose, exponential
from invlearn.registration.metrics import inverse_consistency, sd_log_jacobian
from invlearn.registration.middle import Middle, carried, undone
from invlearn.registration.smoothing import smooth

SHAPE = (24, 28, 20)
STILL = (0.0, 0.0, 0.0)
INNER = (slice(3, -3),) * 3


def random_field(seed: int, size: float = 1.5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    noise = torch.randn((3, 8, 8, 8), generator=torch.Generator().manual_seed(seed))
    v = functional.interpolate(noise[None], SHAPE, mode="trilinear", align_corners=True)[0]
    v = smooth(v, [2.0] * 3)
    return (v * size / v.abs().max()).to(dtype)


def image(seed: int = 0) -> torch.Tensor:
    noise = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return smooth(noise, [2.0] * 3)[0]


def test_at_rest_the_middle_sees_the_volumes_as_they_are() -> None:
    f, m = image(0), image(1)
    middle = Middle.at_rest(f)
    for seen, given in zip(middle.look(f, m), (f, m), strict=True):
        torch.testing.assert_close(seen, given)
    for u in middle.joined():
        assert not u.any()
    assert middle.roughness(f > 0) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_go_as_far_ahead_as_back(dtype: torch.dtype) -> None:
    """Along one velocity, two small steps either way are the flow from one volume to the other."""
    v = random_field(0, 0.5, dtype)
    middle = Middle.at_rest(v[0])
    step = 0.5 * v
    for _ in range(2):
        middle.go(step, STILL)
    torch.testing.assert_close(step, 0.5 * v)  # given back as it came
    torch.testing.assert_close(middle.to_moving, compose(0.5 * v, 0.5 * v))
    torch.testing.assert_close(middle.to_fixed, compose(-0.5 * v, -0.5 * v))
    there, back = middle.joined()
    for u, w in ((there, 2 * v), (back, -2 * v)):
        torch.testing.assert_close(u[:, *INNER], exponential(w)[:, *INNER], atol=0.02, rtol=0)


def test_the_joined_maps_undo_one_another_and_take_volume_to_volume() -> None:
    middle = Middle(exponential(random_field(1)), exponential(random_field(2)))
    there, back = middle.joined()
    assert there.square().sum(0).sqrt().mean() > 0.5
    assert inverse_consistency(there, back) < 0.04
    assert inverse_consistency(back, there) < 0.04
    # what the middle sees of the moving volume, seen from the fixed one
    m = image(1)
    seen = middle.look(m, m)[1]
    other = warp(seen, undone(middle.to_fixed))
    torch.testing.assert_close(warp(m, there)[INNER], other[INNER], atol=0.05, rtol=0)


def test_turned_it_goes_from_the_moving_volume_to_the_fixed_one() -> None:
    middle = Middle(exponential(random_field(1)), exponential(random_field(2)))
    there, back = middle.joined()
    for found, wanted in zip(middle.turned(np.eye(4), SHAPE), (back, there), strict=True):
        torch.testing.assert_close(found[:, *INNER], wanted[:, *INNER], atol=0.01, rtol=0)
    matrix = np.diag([1.0, 1.25, -1.0, 1.0])  # another spacing, another direction, between the samples
    matrix[:3, 3] = 0.5, 0.5, SHAPE[2] - 1.5
    shape = (23, 22, 18)
    for found, wanted in zip(middle.turned(matrix, shape), (back, there), strict=True):
        assert found.shape == (3, *shape)
        torch.testing.assert_close(
            found[:, *INNER], carried(wanted, matrix, shape)[:, *INNER], atol=0.1, rtol=0
        )
    assert inverse_consistency(*middle.turned(matrix, shape)) < 0.04


def test_turning_does_not_smooth_as_interpolation_does() -> None:
    rough = torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(0))
    middle = Middle(torch.zeros(3, *SHAPE), smooth(0.8 * rough, [0.8] * 3))
    half = np.eye(4)
    half[:3, 3] = 0.5
    there, back = middle.joined()
    exact = middle.turned(half, SHAPE)
    spread = [sd_log_jacobian(u) for u in (there, exact[1], carried(there, half, SHAPE))]
    assert spread[2] < 0.85 * spread[0]
    assert inverse_consistency(*exact) < 0.5 * inverse_consistency(
        *(carried(u, half, SHAPE) for u in (back, there))
    )


def test_roughness_is_that_of_the_map_from_volume_to_volume() -> None:
    middle = Middle(exponential(random_field(1)), exponential(random_field(2)))
    everywhere = torch.ones(SHAPE, dtype=torch.bool)
    there, _ = middle.joined()
    assert middle.roughness(everywhere) == pytest.approx(sd_log_jacobian(there), rel=0.1)
    assert middle.roughness(image() > 0.1) != middle.roughness(everywhere)
    same = Middle(middle.to_moving, middle.to_moving)
    assert same.roughness(everywhere) == 0
    assert middle.roughness(~everywhere) == 0
    folded = middle.to_moving.clone()
    folded[0, 10] += 9
    assert jacobian_determinant(folded).min() < 0
    assert Middle(middle.to_fixed, folded).roughness(everywhere) > 2


def test_a_step_is_smoothed_and_can_be_shortened() -> None:
    v = random_field(3)
    plain, smoothed = (Middle.at_rest(v[0]) for _ in range(2))
    plain.go(v, STILL)
    smoothed.go(v, (1.0, 1.0, 1.0))
    torch.testing.assert_close(smoothed.to_moving, smooth(plain.to_moving, (1.0, 1.0, 1.0)))
    torch.testing.assert_close(smoothed.to_fixed, smooth(plain.to_fixed, (1.0, 1.0, 1.0)))
    before = plain.to_fixed.clone(), plain.to_moving.clone()
    plain.go(random_field(4), STILL)
    after = plain.to_fixed.clone(), plain.to_moving.clone()
    plain.shorten(0.25)
    for found, a, b in zip((plain.to_fixed, plain.to_moving), before, after, strict=True):
        torch.testing.assert_close(found, 0.75 * a + 0.25 * b)
    with pytest.raises(AssertionError):
        Middle.at_rest(v[0]).shorten(0.5)


def test_a_mask_is_seen_where_its_voxels_are() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[8:16, 8:16, 8:16] = True
    shifted = torch.zeros(3, *SHAPE)
    shifted[0] = 2.0
    middle = Middle(shifted, torch.zeros_like(shifted))
    assert torch.equal(middle.seen(mask), mask.roll(-2, 0))
    far = Middle(shifted + 50, torch.zeros_like(shifted))
    assert torch.equal(far.seen(mask), mask)  # rather than nothing at all


def test_what_undoes_a_field_is_exact_for_a_shift_and_close_for_a_flow() -> None:
    shift = torch.ones(3, *SHAPE)
    torch.testing.assert_close(undone(shift), -shift)
    u = exponential(random_field(5, 3.0))
    assert inverse_consistency(u, undone(u)) < 0.02
