"""`simulate`: shapes, derivatives, groups of atoms, bad input, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri import FingerprintSequence, TurboSpinEcho
from invlearn.physics.mri.bloch import simulate

SEQUENCE = FingerprintSequence.default(40)
T1, T2 = (
    torch.tensor([0.8, 1.3, 4.0], dtype=torch.float64),
    torch.tensor([0.07, 0.1, 1.8], dtype=torch.float64),
)


def test_shapes_broadcast_and_kinds_stay():
    grid = simulate(SEQUENCE, T1[:, None], T2[:1], torch.ones(2, 1, 1, dtype=torch.float64))
    assert grid.shape == (2, 3, 1, 40)
    assert_close(grid[1, 0, 0], simulate(SEQUENCE, T1, T2)[0])
    signal, slopes = simulate(SEQUENCE, T1.numpy(), T2.numpy(), derivatives=["t2"])
    assert isinstance(signal, np.ndarray)
    assert slopes.shape == (1, 3, 40)
    assert simulate(SEQUENCE, T1[0], T2[0]).shape == (40,)
    assert simulate(SEQUENCE, T1[:0], T2[:0]).shape == (0, 40)
    assert simulate(SEQUENCE, T1.float(), T2).dtype == torch.complex128
    assert simulate(SEQUENCE, torch.tensor([2]), torch.tensor([1])).dtype == torch.complex128


SEQUENCES = {
    "fisp": SEQUENCE,
    "fisp with a slice": replace(SEQUENCE, slice_profile=np.array([[1.0, 2], [0.6, 1]])),
    "complex": FingerprintSequence(SEQUENCE.flip_angle, np.arange(40.0) ** 2, SEQUENCE.tr, SEQUENCE.te, 0.02),
    "echo train": TurboSpinEcho(np.linspace(1, 3, 40), 0.01),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_derivatives_are_those_of_central_differences(name):
    names = ("t1", "t2", "b1", "b0") if name == "complex" else ("t1", "t2", "b1")
    values = {"t1": T1, "t2": T2, "b1": torch.full_like(T1, 0.9)}
    if name == "complex":
        values["b0"] = torch.full_like(T1, 7.0)
    signal, slopes = simulate(SEQUENCES[name], **values, derivatives=names)
    assert_close(signal, simulate(SEQUENCES[name], **values), atol=1e-14, rtol=0)
    for slope, parameter in zip(slopes, names, strict=True):
        step = 1e-5 * values[parameter]
        up = simulate(SEQUENCES[name], **values | {parameter: values[parameter] + step})
        down = simulate(SEQUENCES[name], **values | {parameter: values[parameter] - step})
        difference = (up - down) / (2 * step[:, None])
        assert_close(slope, difference, atol=1e-7 * float(slope.abs().max()), rtol=1e-6)


def test_derivative_by_b0_alone_makes_it_complex():
    _, slopes = simulate(SEQUENCE, T1, T2, derivatives=("b0",))
    assert float(slopes.abs().max()) > 1e-3


def test_many_atoms_in_groups_are_as_each_alone():
    generator = torch.Generator().manual_seed(0)
    t1 = 0.1 + 3 * torch.rand(700, generator=generator, dtype=torch.float64)
    t2 = t1 * (0.02 + 0.9 * torch.rand(700, generator=generator, dtype=torch.float64))
    sequence = FingerprintSequence.default(60)
    together = simulate(sequence, t1, t2)
    exact = torch.cat(
        [simulate(sequence, a, b, states=30) for a, b in zip(t1.split(64), t2.split(64), strict=True)]
    )
    assert_close(together, exact, atol=1e-6, rtol=0)
    loose = simulate(sequence, t1, t2, tolerance=1e-2)
    assert 1e-6 < float((loose - exact).abs().max()) <= 1e-2


def test_jax_stays_as_the_user_set_it():
    import jax

    before = (jax.config.jax_enable_x64, jax.numpy.ones(1).dtype)
    simulate(SEQUENCE, T1, T2, derivatives=("t1",))
    simulate(SEQUENCE, T1.float(), T2.float())
    assert (jax.config.jax_enable_x64, jax.numpy.ones(1).dtype) == before
    with jax.enable_x64(not before[0]):
        assert simulate(SEQUENCE, T1.float(), T2.float()).dtype == torch.complex64
        assert jax.config.jax_enable_x64 is not before[0]


def test_importing_it_does_not_import_jax():
    code = "import sys, invlearn.physics.mri.bloch; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"t1": -T1}, "t1 must be positive seconds; atom 0 of 3"),
        ({"t2": 0 * T2}, "t2 must be positive"),
        ({"t2": T1 + 0.1}, r"t2 must not exceed t1 .* atom 0 of 3 has t1 0.8, t2 0.9"),
        ({"t1": T1 * torch.nan}, "simulate: t1 has NaN"),
        ({"b1": -T1}, "b1 must not be negative"),
        ({"b0": T1 * torch.inf}, "simulate: b0 has NaN or infinite"),
        ({"t2": T2[:2]}, r"do not broadcast together: t1 \(3,\), t2 \(2,\)"),
        ({"derivatives": ("pd",)}, "no derivative 'pd'; choose among t1, t2, b1, b0"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        simulate(SEQUENCE, **({"t1": T1, "t2": T2} | values))


def test_bad_kinds():
    with pytest.raises(TypeError, match="float32 or float64"):
        simulate(SEQUENCE, T1.half(), T2)
    with pytest.raises(TypeError, match="real parameters"):
        simulate(SEQUENCE, T1 + 0j, T2)
