"""The layer: its derivatives against differences, and training through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri import FingerprintSequence
from invlearn.physics.mri.bloch import BlochLayer, simulate

SEQUENCE = FingerprintSequence(
    np.linspace(0.3, 2.5, 12), np.zeros(12), np.full(12, 0.012), np.full(12, 0.002), 0.018
)


def parameters(requires_grad=True):
    values = ([0.8, 1.3], [0.07, 0.1], [1.0, 0.9])
    return [torch.tensor(v, dtype=torch.float64, requires_grad=requires_grad) for v in values]


def test_gradients():
    t1, t2, b1 = parameters()
    layer = BlochLayer(SEQUENCE)
    assert torch.autograd.gradcheck(layer, (t1, t2, b1))
    assert torch.autograd.gradcheck(layer, (t1.detach(), t2))
    assert torch.autograd.gradcheck(lambda a: layer(a[:, None], t2.detach()), (t1,))


def test_values_are_those_of_simulate():
    t1, t2, b1 = parameters(requires_grad=False)
    assert_close(BlochLayer(SEQUENCE)(t1, t2, b1), simulate(SEQUENCE, t1, t2, b1))
    assert_close(BlochLayer(SEQUENCE)(t1, t2), simulate(SEQUENCE, t1, t2))
    assert not BlochLayer(SEQUENCE)(t1, t2).requires_grad


def test_tolerance_and_states_are_used():
    t1, t2, _ = parameters(requires_grad=False)
    sequence = FingerprintSequence(np.full(40, 1.0), np.zeros(40), np.full(40, 0.012), np.full(40, 0.002))
    with pytest.raises(ValueError, match="3 states are too few for the tolerance 1e-06"):
        BlochLayer(sequence, states=3)(t1, t2)
    few = BlochLayer(sequence, tolerance=2.0, states=8)
    assert (few(t1, t2) - BlochLayer(sequence)(t1, t2)).abs().max() > 1e-4
    assert "tolerance=2, states=8" in repr(few)


def test_tissue_is_found_by_descent():
    layer = BlochLayer(FingerprintSequence.default(60))
    target = layer(torch.tensor([1.0]), torch.tensor([0.08]))
    logs = torch.tensor([[0.7], [0.05]]).log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = 1e3 * (layer(logs[0].exp(), logs[1].exp()) - target).abs().square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(logs.detach().exp(), torch.tensor([[1.0], [0.08]]), rtol=1e-3, atol=0)
