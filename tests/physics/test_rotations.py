"""Interpolated rotations: what is exact, how good the rest is, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor
from torch.testing import assert_close

from invlearn.identifiability import check
from invlearn.physics import Mask, check_adjoint
from invlearn.physics.groups import Rotations, Rotations90


def blob(n: int, x: float = 4.0, y: float = 3.0, width: float = 3.0) -> Tensor:
    """A smooth spot at (x, y) from the centre, x to the right and y up."""
    axis = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    return torch.exp(-((axis - x) ** 2 + (-axis[:, None] - y) ** 2) / (2 * width**2))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_quarter_turns_are_exact(n: int, interpolation) -> None:
    x = torch.randn(2, 3, n, n, generator=torch.Generator().manual_seed(0))
    exact = Rotations90((n, n))
    for order in (4, 8, 12):
        group = Rotations(order, (n, n), interpolation)
        for turn in range(4):
            assert torch.equal(group(x, turn * order // 4), exact(x, turn))


@pytest.mark.parametrize(("interpolation", "worst"), [("linear", 0.05), ("cubic", 0.005)])
def test_a_spot_goes_where_it_should(interpolation, worst: float) -> None:
    group = Rotations(10, (33, 33), interpolation)
    for g in range(10):
        c, s = math.cos(2 * math.pi * g / 10), math.sin(2 * math.pi * g / 10)
        expected = blob(33, 4 * c - 3 * s, 4 * s + 3 * c)
        assert relative(group(blob(33), g), expected) < worst


def test_linear_interpolation_of_scipy() -> None:
    x = np.random.default_rng(0).standard_normal((9, 9))
    found = Rotations(12, (9, 9), "linear")(x, 1)
    expected = scipy.ndimage.rotate(x, 30, reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_group_only_approximately() -> None:
    group, x = Rotations(9, (33, 33)), blob(33)
    assert not group.exact
    assert Rotations90((33, 33)).exact
    for g in range(9):
        assert 0 < relative(group(group(x, g), group.inverse(g)), x) < 0.01 or g == 0
        for h in range(9):
            assert relative(group(group(x, h), g), group(x, group.compose(g, h))) < 0.01
    # what is not smooth, or lies in a corner, does not come back
    rough = torch.randn(33, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert relative(group(group(rough, 1), 8), rough) > 0.1


def test_action_is_an_operator_with_its_exact_adjoint() -> None:
    x = torch.randn(3, 2, 6, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    group = Rotations(7, (2, 6, 6))
    for g in range(7):
        operator = group.action(g, complex=True)
        assert_close(operator(x), group(x, g))
        assert check_adjoint(operator)
    assert group.action(1).domain.complex is False
    assert torch.equal(group.action(0).to_dense(), torch.eye(72, dtype=torch.float64))


def test_gradients_flow() -> None:
    group = Rotations(5, (6, 6))
    x = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: group(x, 2), x, fast_mode=True)


def test_the_identity_has_its_own_memory() -> None:
    x = torch.zeros(4, 4)
    Rotations(3, (4, 4))(x, 0).fill_(1)
    assert not x.any()


# --- what they refuse


def test_questions_about_permutations() -> None:
    group = Rotations(8, (6, 6))
    for question in (
        lambda: group.permutation(1),
        lambda: group.fourier_permutation(1),
        group.fixed_points,
        group.orbits,
        group.irreps,
        group.minimal_measurements,
    ):
        with pytest.raises(
            ValueError, match=r"Rotations\(8, \(6, 6\), 'cubic'\) interpolates.*use Rotations90"
        ):
            question()


def test_the_learnability_check_refuses() -> None:
    mask = Mask(torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.6)
    with pytest.raises(
        ValueError, match=r"interpolates and is a group only approximately.*Rotations90\(\(6, 6\)\)"
    ):
        check(mask, group=Rotations(8, (6, 6)), dimension=3)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: Rotations(0, (4, 4)), ValueError, "at least one angle, got 0"),
        (lambda: Rotations(4, (4, 5)), ValueError, "Rotations turns squares"),
        (lambda: Rotations(4, (4, 4), "nearest"), Exception, "linear"),
        (lambda: Rotations(4, (4, 4))(torch.zeros(4, 4), 4), ValueError, "has the elements 0 to 3, got 4"),
        (lambda: Rotations(4, (4, 4))(torch.zeros(4, 5), 1), ValueError, r"got \(4, 5\)"),
        (lambda: Rotations(4, (4, 4))(torch.zeros(4, 4, dtype=torch.int64), 1), TypeError, "floating-point"),
    ],
)
def test_bad_input(build, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        build()
