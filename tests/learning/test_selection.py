"""A batch of several operators acts as each of them on its own sample."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from invlearn.learning.selection import Selected, select
from invlearn.physics import Dense, Mask, OperatorFamily, cg, identity
from invlearn.physics.mri import CartesianMRI

INDEX = torch.tensor([2, 0, 2, 1, 0])


def families() -> list[OperatorFamily]:
    g = Generator().manual_seed(0)
    return [
        OperatorFamily.from_matrices(torch.randn(3, 4, 6, generator=g, dtype=torch.float64), (2, 3)),
        OperatorFamily.from_masks(torch.rand(3, 2, 3, generator=g) < 0.5),
        OperatorFamily([CartesianMRI(torch.rand(4, 5, generator=g) < 0.6) for _ in range(3)]),
    ]


@pytest.mark.parametrize("family", families(), ids=["dense", "mask", "mri"])
def test_every_sample_has_its_own_operator(family: OperatorFamily) -> None:
    g = Generator().manual_seed(1)
    A = select(family, INDEX)
    assert isinstance(A, Selected)
    x = A.domain.random(2, 5, generator=g)
    y = A.codomain.random(2, 5, generator=g)
    for i, operator in enumerate(INDEX.tolist()):
        assert torch.equal(A(x)[:, i], family[operator](x[:, i]))
        assert torch.allclose(A.adjoint(y)[:, i], family[operator].adjoint(y[:, i]), rtol=1e-14)
        assert torch.allclose(A.normal(x)[:, i], family[operator].normal(x[:, i]), rtol=1e-14)
    assert torch.allclose(A.codomain.inner(A(x), y), A.domain.inner(x, A.adjoint(y)), rtol=1e-10)
    assert A.members() == [family[0], family[1], family[2]]


def test_one_operator_is_given_as_itself() -> None:
    family = families()[0]
    assert select(family, torch.tensor([1, 1, 1])) is family[1]


def test_it_composes_and_solves_like_any_operator() -> None:
    family = families()[0]
    A = select(family, INDEX)
    x = A.domain.random(5, generator=Generator().manual_seed(2))
    mask = Mask(torch.tensor([True, False, True, True]))
    assert torch.equal((mask @ A)(x), A(x) * mask.mask)
    system = A.H @ A + identity((2, 3))
    solved = cg(system, x, tolerance=1e-12)
    assert solved.converged
    for i, operator in enumerate(INDEX.tolist()):
        alone = cg(family[operator].H @ family[operator] + identity((2, 3)), x[i], tolerance=1e-12)
        assert torch.allclose(solved.value[i], alone.value, atol=1e-9)


def test_gradients_reach_their_own_sample() -> None:
    A = select(families()[0], INDEX)
    x = A.domain.random(5, generator=Generator().manual_seed(3)).requires_grad_()
    (gradient,) = torch.autograd.grad(A(x)[3].sum(), x)
    assert set(gradient.abs().sum((1, 2)).nonzero().flatten().tolist()) == {3}


def test_batches_that_do_not_fit_are_refused() -> None:
    family = families()[0]
    A = select(family, INDEX)
    with pytest.raises(ValueError, match="a batch of 5 samples"):
        A(A.domain.random(4))
    with pytest.raises(ValueError, match="a batch of 5 samples"):
        A(A.domain.random())
    bad: list[Tensor] = [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([], dtype=torch.int64)]
    for index in bad:
        with pytest.raises(ValueError, match=r"must lie in 0 \.\.\. 2"):
            select(family, index)
    mixed = OperatorFamily([Dense(torch.ones(2, 3)), Dense(torch.ones(1, 3))])
    with pytest.raises(ValueError, match="batch_size=1"):
        select(mixed, torch.tensor([0, 1]))
    assert select(mixed, torch.tensor([1, 1])) is mixed[1]
