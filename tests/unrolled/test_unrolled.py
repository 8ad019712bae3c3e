"""Unrolled networks: before training the classical algorithm; memory saving changes no gradient."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from invlearn.learning.selection import select
from invlearn.physics import Dense, FromFunction, OperatorFamily, Radon2D, Space, fbp
from invlearn.physics.mri import CartesianMRI
from invlearn.unrolled import (
    ADMM,
    FISTA,
    HQS,
    L1,
    PDHG,
    PGD,
    DataTerm,
    Learned,
    ResidualCNN,
    Unrolled,
    UnrolledADMM,
    UnrolledFISTA,
    UnrolledHQS,
    UnrolledPDHG,
    UnrolledPGD,
    WaveletShrinkage,
    Zero,
)

KINDS = {
    PGD(): UnrolledPGD,
    FISTA(): UnrolledFISTA,
    HQS(): UnrolledHQS,
    ADMM(): UnrolledADMM,
    PDHG(): UnrolledPDHG,
}
EVERY = pytest.mark.parametrize("iteration", KINDS, ids=repr)
SMALL = ResidualCNN(4, 1)


def noise(*shape: int, complex: bool = False, seed: int = 0) -> Tensor:
    kind = torch.complex128 if complex else torch.float64
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def mri() -> CartesianMRI:
    mask = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    return CartesianMRI(mask, noise(3, 8, 6, complex=True))


def stir(model: nn.Module, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def classical(iteration, y: Tensor, operator, prox, steps: list[float]) -> Tensor:
    data = DataTerm(operator, y)
    state = iteration.start(data, data.zero())
    for k, step in enumerate(steps):
        state = iteration.advance(state, data, prox, step, k)
    return iteration.image(state)


@EVERY
@pytest.mark.parametrize(
    "prior",
    [Zero(), L1(0.2), nn.Identity(), Learned(SMALL, complex=True)],
    ids=["zero", "l1", "module", "learned"],
)
def test_untrained_it_is_the_classical_algorithm(iteration, prior) -> None:
    operator, y = mri(), noise(2, 3, 8, 6, complex=True, seed=1)
    model = KINDS[iteration](prior, depth=5).double()
    prox = prior.prox if isinstance(prior, L1) else Zero().prox
    with torch.no_grad():
        assert_close(
            model(y, operator), classical(iteration, y, operator, prox, [1.0] * 5), rtol=1e-6, atol=1e-6
        )


def test_gradient_descent_by_hand() -> None:
    operator, y = Dense(noise(5, 8)), noise(2, 5, seed=1)
    matrix = operator.to_dense().numpy()
    norm = np.linalg.norm(matrix, 2)
    x = np.zeros((2, 8))
    for _ in range(6):
        x = x - 0.5 / norm**2 * (x @ matrix.T - y.numpy()) @ matrix
    model = UnrolledPGD(nn.Identity(), depth=6, step=0.5, norm=float(norm)).double()
    assert_close(model(y, operator).detach(), torch.from_numpy(x), rtol=1e-6, atol=1e-6)


@EVERY
@pytest.mark.parametrize(
    "prior",
    [WaveletShrinkage(0.1, "haar", level=1), Learned(SMALL, complex=True)],
    ids=["wavelet", "learned"],
)
def test_memory_saving_has_equal_gradients(iteration, prior) -> None:
    operator, y = mri(), noise(2, 3, 8, 6, complex=True, seed=1)
    gradients = []
    for checkpoint in (False, True):
        model = Unrolled(iteration, prior, depth=3, checkpoint=checkpoint).double()
        stir(model)
        z = y.clone().requires_grad_()
        model(z, operator).abs().square().sum().backward()
        gradients.append([z.grad, *(p.grad for p in model.parameters())])
    for plain, saved in zip(*gradients, strict=True):
        assert torch.equal(plain, saved)
    assert sum(float(g.abs().sum()) for g in gradients[0][1:]) > 0


def test_memory_saving_keeps_less() -> None:
    def kept(checkpoint: bool) -> int:
        sizes: list[int] = []
        model = UnrolledPGD(Learned(SMALL, complex=True), depth=6, checkpoint=checkpoint)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(noise(2, 3, 8, 6, complex=True).to(torch.complex64), mri())
        return sum(sizes)

    assert kept(True) < 0.2 * kept(False)


# --- what is learned


def test_checkpoints_with_an_adjoint_by_torch_func_are_refused_by_name() -> None:
    operator = FromFunction(lambda x: 2 * x, Space((8, 8)), Space((8, 8)))
    y = torch.ones(1, 8, 8)
    UnrolledPGD(Learned(ResidualCNN(4, 1)), 2)(y, operator)
    with pytest.raises(
        ValueError, match=r"checkpoint=True does not work with FromFunction.*checkpoint=False"
    ):
        UnrolledPGD(Learned(ResidualCNN(4, 1)), 2, checkpoint=True)(y, operator)


def test_parts_of_another_kind_are_named_without_a_type_checker() -> None:
    script = (
        "from invlearn.unrolled import L1, PGD, UNet, Unrolled\n"
        "for parts in (('pgd', L1(), 2), (PGD(), UNet(4, 1), 2), (PGD(), 'unet', 2), (PGD(), L1(), 1.5)):\n"
        "    try: Unrolled(*parts)\n"
        "    except (TypeError, ValueError) as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = [
        "such as PGD(), got 'pgd'",
        "Learned(UNet(",
        "the prior is a Learned(...)",
        "got 1.5; it counts whole steps",
    ]
    assert all(part in line for part, line in zip(expected, done.stdout.splitlines(), strict=True))


def test_separate_and_tied_priors() -> None:
    separate, tied = (UnrolledPGD(Learned(SMALL), 4, tied=tied) for tied in (False, True))
    assert len(separate.priors) == 4
    assert len(tied.priors) == 1
    first, second = (p.network[0].weight for p in separate.priors[:2])
    assert not torch.equal(first, second)
    modules = UnrolledPGD(nn.Conv2d(1, 1, 3), 3).priors
    assert modules[0] is not modules[1]
    assert separate.log_steps.shape == tied.log_steps.shape == (4,)


def test_seed_decides_the_weights_and_leaves_the_global_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = [UnrolledPGD(Learned(SMALL), 2, seed=seed) for seed in (0, 0, 1)]
    a, b, c = (m.priors[0].network[0].weight for m in models)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.manual_seed(5)
    UnrolledPGD(Zero(), 2)
    assert torch.equal(torch.rand(1), expected)


def test_regularisers_learn_their_strength_and_steps_stay_positive() -> None:
    operator, x = Dense(noise(12, 16), shape=(4, 4)), noise(8, 4, 4)
    x = x * (x > 1)
    y = operator(x)
    model = UnrolledPGD(L1(3.0), 5).double()
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    losses = []
    for _ in range(30):
        loss = (model(y, operator) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert (model.steps > 0).all()
    assert (model.log_strengths.abs() > 0.1).any()
    assert (model.log_steps.abs() > 0.1).any()


def test_step_starts_where_it_is_told() -> None:
    assert_close(UnrolledPGD(Zero(), 3, step=0.25).steps.detach(), torch.full((3,), 0.25))


def test_start() -> None:
    operator, y = Radon2D((8, 8), np.arange(6) * np.pi / 6), noise(2, 6, 12)
    one = {"depth": 1, "step": 1e-9}
    zero = UnrolledPGD(Zero(), **one)(y, operator)
    assert zero.abs().max() < 1e-6
    adjoint = UnrolledPGD(Zero(), start="adjoint", norm=3.0, **one)(y, operator)
    assert_close(adjoint.detach(), operator.adjoint(y) / 9, atol=1e-6, rtol=0)
    assert_close(
        UnrolledPGD(Zero(), start="fbp", **one)(y, operator).detach(), fbp(y, operator), atol=1e-6, rtol=0
    )
    ones = UnrolledPGD(Zero(), start=lambda y, A: torch.ones(2, 8, 8), **one)(y, operator)
    assert_close(ones.detach(), torch.ones(2, 8, 8), check_dtype=False, atol=1e-6, rtol=0)


def test_norm_sets_the_unit_of_the_steps() -> None:
    operator, y = Dense(noise(5, 8)), noise(5, seed=1)
    near, far = (UnrolledPGD(Zero(), 1, norm=norm)(y, operator) for norm in (5.0, 10.0))
    assert_close(near, 4 * far, check_dtype=False)


def test_one_operator_a_sample() -> None:
    family = OperatorFamily([Dense(noise(5, 8, seed=s)) for s in range(3)])
    index, y = torch.tensor([2, 0, 2, 1]), noise(4, 5)
    for kind in KINDS.values():
        model = kind(L1(0.1), 4, norm=6.0).double()
        together = model(y, select(family, index)).detach()
        for i, g in enumerate(index.tolist()):
            assert_close(together[i], model(y[i], family[g]).detach(), atol=1e-6, rtol=1e-6)
    assert UnrolledPGD(L1(0.1), 4)(y, select(family, index)).shape == (4, 8)


def test_numpy_in_numpy_out() -> None:
    operator, y = mri(), noise(2, 3, 8, 6, complex=True)
    model = UnrolledFISTA(L1(0.1), 3)
    x = model(y.numpy(), operator)
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(x, model(y, operator).detach().numpy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"step": -1.0}, "the step must be positive"),
        ({"norm": 0.0}, "the norm must be positive"),
        ({"start": "nowhere"}, "no start 'nowhere'; there are zero, adjoint, fbp"),
    ],
)
def test_bad_settings(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnrolledPGD(Zero(), **settings)


def test_wrong_measurement() -> None:
    with pytest.raises(ValueError, match=r"a measurement of CartesianMRI.* expects"):
        UnrolledPGD(Zero())(torch.zeros(4), mri())
    with pytest.raises(TypeError, match="fbp inverts Radon2D operators, got CartesianMRI"):
        UnrolledPGD(Zero(), start="fbp")(torch.zeros(3, 8, 6), mri())
