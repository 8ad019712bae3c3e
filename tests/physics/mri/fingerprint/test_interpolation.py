from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri import Grid
from invlearn.physics.mri.fingerprint.interpolation import Interpolant, with_corners


def sampled(grid, function):
    """A `function(u, v, b1)` given by values and derivatives at the atoms, as a dictionary has them."""
    i, j = grid.physical.nonzero().T
    planes = []
    for b1 in grid.b1:
        u, v = grid.t1[i].log().requires_grad_(), grid.t2[j].log().requires_grad_()
        value = function(u, v, b1)
        planes.append(
            torch.stack([value, *torch.autograd.grad(value.sum(), (u, v), materialize_grads=True)], 1)[
                ..., None
            ].detach()
        )
    return Interpolant(grid, with_corners(grid, torch.stack(planes)))


def points(grid, count=300):
    g = torch.Generator().manual_seed(0)
    low = torch.stack([grid.t1[0].log(), grid.t2[0].log(), grid.b1[0]])
    high = torch.stack([grid.t1[-1].log(), grid.t2[-1].log(), grid.b1[-1]])
    found = low + (high - low) * torch.rand(count, 3, dtype=torch.float64, generator=g)
    found[:, 1] = torch.minimum(found[:, 1], found[:, 0])  # many on the diagonal
    return found


CUBICS = {
    "constant": lambda u, v, b: 2 + 0 * u * v * b,
    "u³": lambda u, v, b: u**3 - u**2 + 0 * v * b,
    "v³": lambda u, v, b: v**3 + 2 * v,
    "u²v": lambda u, v, b: u**2 * v,
    "uv²": lambda u, v, b: u * v**2 - u * v,
    "u³v": lambda u, v, b: u**3 * v,
    "b³": lambda u, v, b: b**3 * u - b**2 * v,
}
UNEVEN = Grid([0.2, 0.5, 0.9, 1.3, 2.0, 3.5, 5.0], [0.05, 0.2, 0.4, 0.7, 0.9], b1=[0.7, 0.9, 1.0, 1.2, 1.4])


@pytest.mark.parametrize("name", CUBICS)
def test_cubics_are_exact_up_to_the_diagonal(name):
    function = CUBICS[name]
    at = points(UNEVEN).requires_grad_()
    exact = function(*at.unbind(-1))
    (slopes,) = torch.autograd.grad(exact.sum(), at)
    value, found = sampled(UNEVEN, function)(at.detach())
    assert_close(value[:, 0], exact.detach(), atol=1e-9, rtol=1e-9)
    assert_close(found[..., 0], slopes, atol=1e-8, rtol=1e-8)


def test_error_falls_as_the_fourth_power_of_the_step():
    def function(u, v, b):
        return torch.sin(2 * u) * torch.exp(-0.7 * v)

    errors = []
    for step in (0.4, 0.2, 0.1):
        grid = Grid.logarithmic((0.2, 4.0), (0.02, 0.8), step=step)
        at = points(grid)
        errors.append(float((sampled(grid, function)(at)[0][:, 0] - function(*at.unbind(-1))).abs().max()))
    assert errors[0] / errors[1] > 9
    assert errors[1] / errors[2] > 10


def test_one_b1_has_no_slope_along_it():
    grid = Grid([0.2, 0.5, 0.9], [0.05, 0.2, 0.4])
    _, slopes = sampled(grid, lambda u, v, b: u * v)(points(grid))
    assert not slopes[:, 2].any()
