"""The data term: its proximal operator solves the system, with the gradient of the solution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from invlearn.learning.selection import select
from invlearn.physics import Blur, Dense, Mask, OperatorFamily, power_norm
from invlearn.physics.groups import Shifts
from invlearn.physics.mri import CartesianMRI
from invlearn.physics.operator import LinearOperator
from invlearn.unrolled import DataTerm
from invlearn.unrolled.data_term import lipschitz


def noise(*shape: int, complex: bool = False, seed: int = 0) -> Tensor:
    kind = torch.complex128 if complex else torch.float64
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def operators() -> dict[str, LinearOperator]:
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    return {
        "pixel": Mask(mask),
        "fourier": CartesianMRI(mask),
        "fourier, real": Blur(noise(3, 3).abs(), (4, 5)),
        "dense": Dense(noise(7, 20), shape=(4, 5)),
        "coils": CartesianMRI(mask, noise(3, 4, 5, complex=True)),
    }


@pytest.mark.parametrize("name", operators())
def test_prox_solves_the_system(name: str) -> None:
    operator = operators()[name]
    z = noise(2, *operator.domain.shape, complex=operator.domain.complex)
    y = noise(2, *operator.codomain.shape, complex=operator.codomain.complex, seed=1)
    data = DataTerm(operator, y, tolerance=1e-12)
    matrix = operator.to_dense()
    step = 0.7
    system = torch.eye(matrix.shape[1], dtype=matrix.dtype) + step * matrix.mH @ matrix
    right = operator.domain.flatten(z + step * operator.adjoint(y)).to(matrix.dtype)
    expected = torch.linalg.solve(system, right.T).T.reshape(z.shape)
    assert_close(data.prox(z, step), expected.to(z.dtype))
    x = data.prox(z, step)
    assert_close(x - z + step * data.gradient(x), torch.zeros_like(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", operators())
def test_gradients_of_prox(name: str) -> None:
    operator = operators()[name]
    z = noise(1, *operator.domain.shape, complex=operator.domain.complex).requires_grad_()
    y = noise(1, *operator.codomain.shape, complex=operator.codomain.complex, seed=1).requires_grad_()
    step = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z, y, step: DataTerm(operator, y, tolerance=1e-13).prox(z, step),
        (z, y, step),
        fast_mode=True,
    )


def test_gradient_reaches_the_operators_own_parameters() -> None:
    operator = Dense(noise(3, 4))
    matrix = noise(3, 4).requires_grad_()
    operator.matrix = matrix  # in place of the buffer
    z, y = noise(4), noise(3, seed=1)
    (found,) = torch.autograd.grad(DataTerm(operator, y, tolerance=1e-13).prox(z, 0.5).sum(), matrix)
    dense = torch.linalg.solve(torch.eye(4) + 0.5 * matrix.T @ matrix, z + 0.5 * matrix.T @ y)
    (expected,) = torch.autograd.grad(dense.sum(), matrix)
    assert_close(found, expected)


def test_value_and_gradient() -> None:
    operator = operators()["coils"]
    x, y = noise(2, 4, 5, complex=True).requires_grad_(), noise(2, 3, 4, 5, complex=True, seed=1)
    data = DataTerm(operator, y)
    assert_close(data.value(x), 0.5 * (operator(x) - y).norm() ** 2)
    (slope,) = torch.autograd.grad(data.value(x), x)
    assert_close(data.gradient(x), slope)
    assert data.zero().shape == x.shape
    assert data.zero().dtype == x.dtype


def test_tolerance_and_iterations_of_the_system() -> None:
    operator = operators()["dense"]
    z, y = noise(4, 5), noise(7)
    exact = DataTerm(operator, y, tolerance=1e-13).prox(z, 1.0)
    errors = [
        float((DataTerm(operator, y, tolerance=t).prox(z, 1.0) - exact).norm()) for t in (1e-1, 1e-3, 1e-9)
    ]
    assert errors[0] > errors[1] > errors[2]
    few = DataTerm(operator, y, max_iterations=2).prox(z, 1.0)
    assert (few - exact).norm() > 1e-3


# --- ‖A‖²


def test_lipschitz_is_an_upper_bound_and_close() -> None:
    for operator in operators().values():
        exact = float(torch.linalg.matrix_norm(operator.to_dense(), 2)) ** 2
        assert exact * (1 - 1e-6) <= lipschitz(operator) <= 1.03 * exact + 1e-9


def test_lipschitz_follows_the_operators_numbers() -> None:
    operator = Dense(noise(3, 4))
    before = lipschitz(operator)
    assert lipschitz(operator) == before
    operator.matrix.mul_(2)
    assert lipschitz(operator) == pytest.approx(4 * before, rel=0.02)


def test_lipschitz_of_parts_and_batches() -> None:
    a, b = Dense(noise(8, 12)), Dense(3 * noise(8, 12, seed=1))
    hidden = Mask(torch.arange(8) < 3) @ b
    assert lipschitz(hidden) == lipschitz(b)
    assert lipschitz(a @ Shifts((12,)).action(3)) == lipschitz(a)
    both = select(OperatorFamily([a, b]), torch.tensor([0, 1, 0]))
    assert lipschitz(both) == lipschitz(b)
    assert lipschitz(Mask(torch.arange(8) < 3) @ both) == lipschitz(b)
    assert lipschitz(b) >= power_norm(b, tolerance=1e-6).value ** 2


def test_norm_given_or_found() -> None:
    operator = Dense(noise(3, 4))
    assert DataTerm(operator, noise(3)).scale == lipschitz(operator)
    assert DataTerm(operator, noise(3), norm=5.0).scale == 25.0
    assert DataTerm(Mask(torch.zeros(3, dtype=torch.bool)), noise(3)).scale == 1.0
    with pytest.raises(ValueError, match=r"norm of Dense.* must be positive, got 0"):
        DataTerm(operator, noise(3), norm=0.0)


def test_wrong_measurement() -> None:
    with pytest.raises(ValueError, match=r"a measurement of Dense.* expects \(\*batch, 3\), got \(4,\)"):
        DataTerm(Dense(noise(3, 4)), noise(4))
