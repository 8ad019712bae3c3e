"""Fields against scipy, analytic maps and group laws; the kernels against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from invlearn.registration.fields import (
    compose,
    exponential,
    inverse,
    jacobian_determinant,
    resize,
    warp,
)

SHAPE = (14, 17, 19)


def smooth_field(
    size: float, seed: int = 0, shape: tuple[int, ...] = SHAPE, sigma: float = 3.0
) -> torch.Tensor:
    """A random smooth field with that largest displacement, zero at the border."""
    rng = np.random.default_rng(seed)
    u = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), sigma) for _ in range(3)])
    for axis, n in enumerate(shape, 1):
        window = np.sin(np.pi * (np.arange(n) + 0.5) / n)
        u *= window.reshape([-1 if a == axis else 1 for a in range(4)])
    return torch.from_numpy(u * size / np.abs(u).max())


def random_image(seed: int = 1, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def sampled_by_scipy(image: torch.Tensor, u: torch.Tensor, order: int, mode: str = "nearest") -> np.ndarray:
    at = np.indices(u.shape[-3:]) + u.numpy()
    at = np.stack([np.clip(p, 0, n - 1) for p, n in zip(at, image.shape, strict=True)])
    return ndimage.map_coordinates(image.numpy(), at, order=order, mode=mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mode", "order", "borders"), [("linear", 1, "nearest"), ("cubic", 3, "mirror")])
def test_warp_is_scipy_interpolation(dtype: torch.dtype, mode: str, order: int, borders: str) -> None:
    u = 3 * smooth_field(2.0) + 4 * smooth_field(2.0, seed=5, sigma=0.5)
    image = random_image()
    mine = warp(image.to(dtype), u.to(dtype), mode)
    assert mine.dtype == dtype
    np.testing.assert_allclose(mine, sampled_by_scipy(image, u, order, borders), atol=2e-5)


def test_nearest_takes_the_nearest_sample_and_keeps_integers() -> None:
    u = smooth_field(4.0)
    image = torch.randint(0, 99, SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    mine = warp(image, u, "nearest")
    assert mine.dtype == torch.int16
    np.testing.assert_array_equal(mine, sampled_by_scipy(image, u, 0))


@given(seed=st.integers(0, 9), dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]))
def test_labels_are_the_argmax_of_their_warped_indicators(seed: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (6, 7, 8), generator=g).to(dtype) * 17
    u = 3 * torch.randn((3, 5, 6, 9), generator=g, dtype=torch.float64)
    known = labels.unique()
    one_hot = torch.stack([warp((labels == k).double(), u) for k in known])
    mine = warp(labels, u, "labels")
    assert mine.dtype == dtype
    margin = one_hot.topk(2, dim=0).values
    clear = margin[0] - margin[1] > 1e-9  # equal weights are decided by rounding there
    assert clear.float().mean() > 0.5
    assert torch.equal(mine[clear], known[one_hot.argmax(0)][clear])


def test_of_equal_labels_the_smallest_wins() -> None:
    labels = torch.tensor([7, 3]).reshape(2, 1, 1)
    u = torch.zeros(3, 1, 1, 1)
    u[0] = 0.5
    assert int(warp(labels, u, "labels")) == 3


def test_wide_label_numbers_stay_exact() -> None:
    labels = torch.full((3, 3, 3), 2**24 + 1, dtype=torch.int32)
    for mode in ("labels", "nearest"):
        assert int(warp(labels, torch.zeros(3, 3, 3, 3), mode)[1, 1, 1]) == 2**24 + 1


def test_outside_fills_beyond_half_a_voxel() -> None:
    image = torch.ones(4, 4, 4)
    u = torch.zeros(3, 4, 4, 4)
    u[2] = 0.4
    assert warp(image, u, outside=-5.0).min() == 1
    u[2] = 0.6
    filled = warp(image, u, outside=-5.0)
    assert (filled[..., -1] == -5).all()
    assert (filled[..., :-1] == 1).all()


@given(sizes=st.tuples(*[st.integers(1, 5)] * 3), mode=st.sampled_from(["linear", "cubic", "nearest"]))
def test_the_zero_field_changes_nothing_on_any_size(sizes: tuple[int, ...], mode: str) -> None:
    image = random_image(shape=sizes)
    for dtype in (torch.float32, torch.float64):
        out = warp(image.to(dtype), torch.zeros(3, *sizes, dtype=dtype), mode)
        torch.testing.assert_close(out, image.to(dtype), atol=1e-5, rtol=1e-5)


def test_batches_broadcast_and_numpy_comes_back() -> None:
    image, u = random_image().float(), torch.stack([smooth_field(2.0), smooth_field(3.0, 1)]).float()
    both = warp(image, u)
    assert both.shape == (2, *SHAPE)
    torch.testing.assert_close(both[1], warp(image, u[1]))
    assert isinstance(warp(image.numpy(), u.numpy()), np.ndarray)
    np.testing.assert_array_equal(warp(image.numpy(), u.numpy()), both)


@pytest.mark.parametrize("wrt", ["image", "field"])
def test_warp_can_be_differentiated(wrt: str) -> None:
    shape = (4, 5, 4)
    image, u = random_image(shape=shape), 0.2 + 0.3 * smooth_field(1.0, shape=shape, sigma=1)
    for mode in ("linear", "cubic"):
        if wrt == "image":
            assert torch.autograd.gradcheck(lambda x, m=mode: warp(x, u, m), image.requires_grad_())
        else:
            assert torch.autograd.gradcheck(lambda v, m=mode: warp(image, v, m), u.requires_grad_())


def test_kernels_and_torch_agree() -> None:
    image, u, v = random_image().float(), smooth_field(3.0).float(), smooth_field(2.0, 4).float()
    with torch.no_grad():
        fast = warp(image, u), compose(u, v), jacobian_determinant(u)
    slow = (
        warp(image, u.clone().requires_grad_()),
        compose(u.clone().requires_grad_(), v),
        jacobian_determinant(u.clone().requires_grad_()),
    )
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b.detach(), atol=1e-5, rtol=1e-4)


def test_fields_that_are_not_finite_read_nothing_beyond_the_image() -> None:
    u = torch.full((3, 5, 5, 5), math.nan)
    u[1], u[2] = math.inf, -1e30
    with torch.no_grad():
        assert bool(warp(torch.ones(4, 4, 4), u).eq(1).all())


def test_composition_warps_one_after_the_other() -> None:
    g = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in SHAPE], indexing="ij")
    image = g[0] + 2 * g[1] - g[2]  # linear: interpolation is exact
    u, v = smooth_field(1.5), smooth_field(2.0, 3)
    apart = warp(image, compose(u, v)) - warp(warp(image, u), v)
    assert apart[3:-3, 3:-3, 3:-3].abs().max() < 1e-9  # nearer to the border, some positions lie beyond it


def test_exponential_of_a_rotation_is_the_rotation() -> None:
    n, angle = 21, 0.5
    x = torch.arange(n, dtype=torch.float64) - n // 2
    gz, gy, gx = torch.meshgrid(x, x, x, indexing="ij")
    u = exponential(angle * torch.stack([torch.zeros_like(gz), -gx, gy]), steps=9)
    c, s = math.cos(angle), math.sin(angle)
    expected = torch.stack([torch.zeros_like(gz), (c - 1) * gy - s * gx, s * gy + (c - 1) * gx])
    inner = (gy**2 + gx**2) < 8**2  # beyond it the flow comes from outside the grid
    assert (u - expected)[:, inner].abs().max() < 2e-2
    coarse = exponential(angle * torch.stack([torch.zeros_like(gz), -gx, gy]), steps=2)
    assert (coarse - expected)[:, inner].abs().max() > (u - expected)[:, inner].abs().max()


def test_exponential_takes_as_many_steps_as_the_velocity_is_large() -> None:
    v = smooth_field(4.0)
    torch.testing.assert_close(exponential(v), exponential(v, steps=4))
    assert not torch.equal(exponential(v), exponential(v, steps=3))
    assert torch.equal(exponential(0 * v), 0 * v)
    torch.testing.assert_close(exponential(v * 0.05), v * 0.05)


def test_minus_the_velocity_gives_the_inverse() -> None:
    v = smooth_field(2.0)
    assert compose(exponential(v), exponential(-v)).abs().mean() < 0.02


@given(seed=st.integers(0, 20), size=st.floats(0.1, 2.5))
def test_inverse_undoes(seed: int, size: float) -> None:
    u = exponential(smooth_field(size, seed))
    x = inverse(u)
    assert compose(u, x).abs().max() <= 0.01
    assert compose(x, u).abs().mean() < 0.05  # the other side, to interpolation


def test_inverse_takes_its_tolerance_and_iterations() -> None:
    u = exponential(smooth_field(2.0))
    assert compose(u, inverse(u, tolerance=1e-6)).abs().max() <= 1e-6
    assert compose(u, inverse(u, iterations=1)).abs().max() > 0.01


def test_inverse_where_the_plain_iteration_diverges() -> None:
    """A strong stretch: ∇u = 2.5, beyond the 1 up to which x <- -u(p + x) contracts."""
    x = torch.arange(41, dtype=torch.float64)
    stretch = torch.where(
        (x - 20).abs() < 4, 2.5 * (x - 20), torch.sign(x - 20) * 10 * (1 - ((x - 20).abs() - 4) / 16)
    )
    u = torch.zeros(3, 41, 3, 3, dtype=torch.float64)
    u[0] = stretch[:, None, None]
    assert jacobian_determinant(u).min() > 0
    assert compose(u, inverse(u, iterations=200)).abs().max() <= 0.01


def test_jacobian_of_an_affine_map_is_its_determinant() -> None:
    a = torch.tensor([[0.1, 0.2, -0.1], [0.0, -0.2, 0.3], [0.1, 0.1, 0.05]], dtype=torch.float64)
    g = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in SHAPE], indexing="ij"))
    u = torch.einsum("ij,jdhw->idhw", a, g)
    expected = torch.linalg.det(torch.eye(3, dtype=torch.float64) + a)
    for v in (u, u.float()):
        assert (jacobian_determinant(v) - expected).abs().max() < 1e-4
    mm = u * torch.tensor([2.0, 1.0, 0.5]).reshape(3, 1, 1, 1)
    b = (
        torch.diag(torch.tensor([2.0, 1, 0.5], dtype=torch.float64))
        @ a
        @ torch.diag(1 / torch.tensor([2.0, 1, 0.5], dtype=torch.float64))
    )
    expected = torch.linalg.det(torch.eye(3, dtype=torch.float64) + b)
    assert (jacobian_determinant(mm, (2.0, 1.0, 0.5)) - expected).abs().max() < 1e-9


def test_a_fold_has_a_negative_determinant() -> None:
    u = torch.zeros(3, 8, 8, 8)
    u[0, 4] = -2.5
    assert jacobian_determinant(u).min() < 0
    assert jacobian_determinant(torch.zeros(3, 8, 8, 1)).eq(1).all()


def test_resize_keeps_the_map() -> None:
    g = torch.stack(
        torch.meshgrid(
            *[(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (16, 18, 20)], indexing="ij"
        )
    )
    field = torch.sin(2 * math.pi * g) * 2  # of relative position
    half = resize(field, (8, 9, 10))
    assert half.shape == (3, 8, 9, 10)
    back = resize(half, (16, 18, 20))
    assert (back - field).abs().mean() < 0.15
    assert half.abs().max() == pytest.approx(1.0, abs=0.1)


def test_bad_input_is_named() -> None:
    u = torch.zeros(3, 4, 4, 4)
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, D, H, W\)"):
        warp(torch.zeros(4, 4, 4), torch.zeros(2, 4, 4, 4))
    with pytest.raises(ValueError, match="image"):
        warp(torch.zeros(4, 4), u)
    with pytest.raises(ValueError, match="linear, nearest, cubic, labels"):
        warp(torch.zeros(4, 4, 4), u, "quintic")
    with pytest.raises(TypeError, match="labels are integers"):
        warp(torch.zeros(4, 4, 4), u, "labels")
    with pytest.raises(ValueError, match="do not fit"):
        warp(torch.zeros(2, 4, 4, 4), u.expand(3, 3, 4, 4, 4))
    with pytest.raises(ValueError, match="leading dimensions"):
        compose(u, u[None])
    with pytest.raises(ValueError, match="NaN"):
        exponential(u * math.nan)
    with pytest.raises(ValueError, match="squarings"):
        exponential(u, steps=-1)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.uint32, np.int64])
@pytest.mark.parametrize("mode", ["labels", "nearest"])
def test_labels_of_every_integer_dtype_keep_it(kind: type, mode: str) -> None:
    labels = np.zeros((5, 6, 7), kind)
    labels[:, :, 3:] = min(np.iinfo(kind).max, 70_000)
    u = np.zeros((3, 5, 6, 7), np.float32)
    u[2] = 1
    moved = warp(labels, u, mode, outside=0)
    assert moved.dtype == kind
    expected = np.zeros_like(labels)
    expected[..., :-1] = labels[..., 1:]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(warp(labels, 0 * u, mode), labels)
