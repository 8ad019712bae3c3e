"""Projections against formulas and scikit-image; filtered back-projection against the image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.transform import radon
from torch.testing import assert_close

from invlearn.physics import Mask, Radon2D, fbp

HALF_TURN = np.linspace(0, np.pi, 60, endpoint=False)


def ellipse(shape: tuple[int, int], centre: tuple[float, float], axes: tuple[float, float]) -> torch.Tensor:
    """An ellipse at (x, y) from the image's centre, x to the right and y up, pixels supersampled."""
    fine = 8
    rows, columns = ((np.arange(n * fine) + 0.5) / fine - n / 2 for n in shape)
    inside = ((columns - centre[0]) / axes[0]) ** 2 + ((-rows[:, None] - centre[1]) / axes[1]) ** 2 < 1
    coarse = inside.reshape(shape[0], fine, shape[1], fine).mean((1, 3))
    return torch.from_numpy(coarse)


def projection(theta: np.ndarray, s: np.ndarray, centre, axes) -> np.ndarray:
    """Line integrals of that ellipse."""
    cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
    width = (axes[0] * cos) ** 2 + (axes[1] * sin) ** 2
    offset = s - centre[0] * cos - centre[1] * sin
    return 2 * axes[0] * axes[1] * np.sqrt(np.clip(width - offset**2, 0, None)) / width


@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_ellipse_in_closed_form(spacing: float) -> None:
    shape, centre, axes = (50, 64), (6.0, -4.5), (17.0, 9.0)
    operator = Radon2D(shape, HALF_TURN, spacing=spacing)
    detectors = operator.codomain.shape[1]
    assert detectors == math.ceil(math.hypot(*shape) / spacing)
    s = (np.arange(detectors) - (detectors - 1) / 2) * spacing
    expected = projection(HALF_TURN, s, centre, axes)
    found = operator(ellipse(shape, centre, axes)).numpy()
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
    np.testing.assert_allclose(found.sum(1) * spacing, math.pi * axes[0] * axes[1], rtol=5e-3)


def test_gaussian_in_closed_form() -> None:
    x, y = np.arange(32) - 15.5, 14.5 - np.arange(30)[:, None]
    image = torch.from_numpy(np.exp(-((x - 3) ** 2 + (y + 2) ** 2) / 18))
    s = np.arange(50) - 24.5
    offset = s - 3 * np.cos(HALF_TURN)[:, None] + 2 * np.sin(HALF_TURN)[:, None]
    expected = 3 * math.sqrt(2 * math.pi) * np.exp(-(offset**2) / 18)
    found = Radon2D((30, 32), HALF_TURN, detectors=50)(image).numpy()
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)


def test_scikit_image() -> None:
    # odd size: its rotation centre is then ours
    image = ellipse((41, 41), (5.0, 7.0), (8.0, 4.0)) + 0.5 * ellipse((41, 41), (-6.0, 0.0), (5.0, 9.0))
    expected = radon(image.numpy(), np.rad2deg(HALF_TURN), circle=True).T
    found = Radon2D((41, 41), HALF_TURN, detectors=41)(image).numpy()
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_zero_and_quarter_turns_sum_columns_and_rows() -> None:
    image = torch.rand(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = Radon2D((5, 7), [0.0, math.pi], detectors=7)(image)
    assert_close(y[0], image.sum(0))
    assert_close(y[1], image.sum(0).flip(0))
    assert_close(Radon2D((5, 7), [math.pi / 2], detectors=5)(image)[0], image.sum(1).flip(0))  # y points up
    wide = Radon2D((5, 7), [0.0], detectors=3, spacing=2.0)(image)[0]
    assert_close(wide, image.sum(0)[1::2])


def test_complex_images() -> None:
    x = torch.randn(2, 6, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    real, complex = (Radon2D((6, 6), [0.3, 1.9], complex=kind) for kind in (False, True))
    assert_close(complex(x), torch.complex(real(x.real), real(x.imag)))
    assert_close(fbp(complex(x), complex).real, fbp(real(x.real), real))


# --- filtered back-projection


@pytest.mark.parametrize("spacing", [1.0, 0.8])
def test_fbp_inverts_densely_sampled_projections(spacing: float) -> None:
    shape, centre, axes = (48, 40), (3.0, 5.0), (12.0, 14.0)
    operator = Radon2D(shape, np.linspace(0, np.pi, 120, endpoint=False), spacing=spacing)
    image = ellipse(shape, centre, axes)
    found = fbp(operator(image).expand(2, *operator.codomain.shape), operator)
    assert found.shape == (2, *shape)
    inner = ellipse(shape, centre, (10.0, 12.0)) == 1
    outer = ellipse(shape, centre, (14.0, 16.0)) == 0
    assert float(found[0][inner].mean()) == pytest.approx(1, abs=0.01)
    assert float(found[0][outer].mean()) == pytest.approx(0, abs=0.01)
    assert float((found[1] - image).norm() / image.norm()) < 0.15


def test_fbp_weighs_angles_by_their_distance() -> None:
    image = ellipse((40, 40), (2.0, -3.0), (9.0, 11.0))
    dense = np.linspace(0, np.pi / 2, 60, endpoint=False)
    sparse = np.linspace(np.pi / 2, np.pi, 30, endpoint=False)
    shuffled = np.random.default_rng(0).permutation(np.concatenate([dense, sparse - np.pi]))
    operator = Radon2D((40, 40), shuffled)
    found = fbp(operator(image), operator)
    inner = ellipse((40, 40), (2.0, -3.0), (7.0, 9.0)) == 1
    assert float(found[inner].mean()) == pytest.approx(1, abs=0.01)


def test_fbp_is_linear_and_differentiable() -> None:
    operator = Radon2D((8, 8), HALF_TURN[::10])
    y = torch.randn(2, 6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(fbp(y[0] + 2 * y[1], operator), fbp(y[0], operator) + 2 * fbp(y[1], operator))
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: fbp(y, operator), y, fast_mode=True)
    assert fbp(y.detach().float(), operator).dtype == torch.float32


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4, 4, 4), "angles": [0.0]}, r"projects images \(H, W\), got the shape \(4, 4, 4\)"),
        ({"shape": (4, 4), "angles": []}, "at least one number"),
        ({"shape": (4, 4), "angles": np.zeros((1, 1))}, r"got shape \(1, 1\)"),
        ({"shape": (4, 4), "angles": [0.0, math.nan]}, "angles have NaN"),
        ({"shape": (4, 4), "angles": [0.0, 90.0]}, "up to 90; convert degrees with np.deg2rad"),
        ({"shape": (4, 4), "angles": [0.0], "detectors": 0}, "at least one detector, got 0"),
        ({"shape": (4, 4), "angles": [0.0], "spacing": 0.0}, "spacing must be positive"),
    ],
)
def test_bad_input(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Radon2D(**arguments)


def test_fbp_of_something_else() -> None:
    with pytest.raises(TypeError, match="fbp inverts Radon2D operators, got Mask"):
        fbp(torch.zeros(4, 4), Mask(torch.ones(4, 4)))
    with pytest.raises(ValueError, match=r"Radon2D.* expects \(\*batch, 1, 6\), got \(2, 6\)"):
        fbp(torch.zeros(2, 6), Radon2D((4, 4), [0.0]))
