"""Contrast and shading between two volumes: what is taken out, of which of them, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.registration.fields import exponential, warp
from invlearn.registration.harmonise import balance_, curved, foreground, ground, harmonise, interior

SHAPE = (40, 44, 36)


def lumpy() -> torch.Tensor:
    """A bounded object with blobs."""
    at = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    radius = np.sqrt(((at / (15.6, 18.1, 13.8)) ** 2).sum(-1))
    value = 0.5 / (1 + np.exp((radius - 1) * 20))
    rng = np.random.default_rng(0)
    for _ in range(25):
        centre, size = rng.uniform(-9, 9, 3), rng.uniform(1.5, 3)
        blob = np.exp(-0.5 * ((at - centre) ** 2).sum(-1) / size**2)
        value += rng.choice([-0.25, 0.3]) * blob * (radius < 1.2)
    return torch.from_numpy(np.maximum(value, 0)).float()


def bending(size: float) -> torch.Tensor:
    """A smooth deformation of so many voxels."""
    rng = np.random.default_rng(1)
    v = np.stack([ndimage.gaussian_filter(rng.normal(size=SHAPE), 5) for _ in range(3)])
    return exponential(torch.from_numpy((v * size / np.abs(v).max()).astype(np.float32)))


def test_contrast_and_gain_are_evened_out() -> None:
    f = lumpy()
    gain = torch.linspace(0.7, 1.4, SHAPE[0])[:, None, None]
    changed = (f**0.6 * gain).float()
    where = f > 0.1
    rest, back = harmonise(f, changed, (3.2, 3.2, 3.2))
    assert (back - rest)[where].abs().mean() < 0.3 * (changed - f)[where].abs().mean()
    flat = torch.ones(5, 5, 5)
    assert all(x is flat for x in harmonise(flat, flat))


def test_what_differs_in_nothing_stays_alike() -> None:
    f = 0.2 + lumpy()
    ours, theirs = harmonise(f, f.clone(), degrees=(1, 2))
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours, f)


def test_where_object_fills_a_volume_its_dark_parts_count_as_well() -> None:
    noise = np.random.default_rng(0).normal(size=SHAPE)
    f = torch.from_numpy(ndimage.gaussian_filter(noise, 2)).float()
    f = 0.2 + (f - f.min()) / (f.max() - f.min())
    assert foreground(f).all()
    assert interior(f).all()
    assert ground(f) < 0.3 < float(f.median()) - 0.2
    found = harmonise(f, 3 * f**0.6)[1]
    dark = f < f.quantile(0.3)
    for where in (dark, ~dark):
        assert float((found - f)[where].abs().mean()) < 0.02
    framed = torch.nn.functional.pad(f, (3,) * 6)
    assert ground(framed) == 0
    assert not foreground(framed).all()


def test_a_hole_or_two_do_not_bend_the_curve() -> None:
    f = 0.3 + lumpy()
    m = f**0.6
    holed = f.clone()
    holed[19:21, 21, 18] = 0.05  # too bright for background
    frame = torch.zeros_like(f, dtype=torch.bool)
    frame[3:-3, 3:-3, 3:-3] = True
    found, wanted = (harmonise(x * frame, m * frame)[1] for x in (holed, f))
    assert float((found - wanted)[frame].abs().max()) < 0.02


def test_the_gain_is_taken_out_of_the_volume_that_is_shaded() -> None:
    f = lumpy()
    shaded = f * torch.linspace(0.7, 1.4, SHAPE[0])[:, None, None]
    where = f > 0.1

    def off(x: torch.Tensor) -> float:
        ratio = (x / f)[where].log()
        return float(ratio.std())

    for both in ((f, shaded), (shaded, f)):
        assert max(map(off, harmonise(*both))) < 0.25 * off(shaded)
    half = shaded / f.clamp(min=1e-6)
    ours, theirs = harmonise(f * half.clamp(min=0.1).sqrt(), f / half.clamp(min=0.1).sqrt())
    assert max(off(ours), off(theirs)) < 0.2 * off(shaded)


def test_what_is_aligned_by_a_field_is_not_taken_for_gain() -> None:
    m, u = lumpy(), bending(3.0)
    f = warp(m, u)
    where = f > 0.1
    still = torch.zeros_like(u)
    (_, blind), (_, seeing) = harmonise(f, m), harmonise(f, m, fields=(still, u))
    away = [float((warp(x, u) - f)[where].abs().mean()) for x in (blind, seeing)]
    assert away[1] < 0.3 * away[0]
    slope = torch.linspace(-1, 1, SHAPE[2])
    for degree, power in ((1, 1), (3, 1), (3, 3)):
        shaded = m * (0.3 * slope**power).exp()
        even = harmonise(f, shaded, fields=(still, u), degrees=(degree,))[1]
        assert float((even - m)[m > 0.1].abs().mean()) < 0.02
        even = harmonise(shaded, f, fields=(u, still), degrees=(degree,))[0]
        assert float((even - m)[m > 0.1].abs().mean()) < 0.02
    flat = harmonise(f, m * (0.3 * slope).exp(), fields=(still, u), degrees=(0,))[1]
    assert float((flat - m)[m > 0.1].abs().mean()) > 0.03


def test_brightness_follows_the_curve_and_goes_on_at_both_ends() -> None:
    nodes = torch.tensor([0.25, 0.5, 1.0])
    x = torch.tensor([-0.1, 0.0, 0.1, 0.3, 0.75, 2.0])
    many = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) - 0.1
    odd = torch.tensor([0.237, 0.51, 0.98])
    assert torch.equal(curved(many, odd, odd), many)
    inside = torch.from_numpy(np.interp(x[3:5], nodes, nodes**2)).float()
    found = curved(x, nodes, nodes**2)
    torch.testing.assert_close(found[3:5], inside)
    torch.testing.assert_close(found[1:3], x[1:3] ** 2)  # the power that the nodes follow
    assert found[0] == x[0]  # darker than the ground
    assert curved(x, nodes, 3 * nodes)[5] == pytest.approx(6)
    dark = torch.tensor([0.0, 0.5, 1.0])  # a lowest node of nothing
    assert torch.equal(curved(x, dark, dark), x)


def brightness() -> torch.Tensor:
    """An object that is brightest in the middle, on a ground of zero."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 44, 40)], indexing="ij")
    radius = np.sqrt(sum(x**2 for x in axes))
    return torch.from_numpy(np.where(radius < 0.9, 1 - 0.9 * radius, 0)).float()


def test_a_compressed_contrast_is_spread_whatever_power_it_came_in() -> None:
    x = brightness() ** 0.5
    found = balance_(x.clone())
    inner = interior(x)
    quartiles = found[inner].quantile(torch.tensor([0.25, 0.75]))
    assert float((quartiles[1] / quartiles[0]).log()) == pytest.approx(0.5, abs=0.03)
    assert float(quartiles[1]) == pytest.approx(float(x[inner].quantile(0.75)), rel=0.02)
    assert torch.equal(found[x == 0], x[x == 0])

    def unlike(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = (v[inner] / v[inner].mean() for v in (a, b))
        return float((a - b).abs().mean())

    for power in (0.8, 1.2):
        assert unlike(balance_(x**power), found) < 0.15 * unlike(x**power, x)
    twin = x.clone()
    balance_(x.clone(), (1.0, 1.0, 1.0), twin)
    assert torch.equal(twin, found)
    raised = balance_(x + 0.2)  # a ground that is not zero stays
    torch.testing.assert_close(raised, found + 0.2, atol=1e-4, rtol=0)


def test_a_contrast_that_is_wide_or_unknown_stays_as_it_is() -> None:
    wide = brightness() ** 2
    torch.testing.assert_close(balance_(wide.clone()), wide)
    for other in (torch.ones(20, 20, 20), 1 - brightness()):  # flat; dark on a bright ground
        assert balance_(other) is other


def test_the_interior_leaves_out_the_rim_but_not_the_border() -> None:
    x = torch.zeros(12, 12, 12)
    x[3:, 2:10, 2:10] = 1
    wanted = torch.zeros_like(x, dtype=torch.bool)
    wanted[4:, 3:9, 3:9] = True
    assert torch.equal(interior(x), wanted)
