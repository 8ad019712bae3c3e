"""One set of tests over every registered operator: a new one is tested by being registered."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import invlearn.physics
from invlearn.physics import check_adjoint, check_linear, identity, registry, stack, to_scipy
from invlearn.physics.operator import Adjoint, Composition, LinearOperator

ALL = pytest.mark.parametrize("name", registry.names())


def elements(space, *batch, seed=1, dtype=torch.float64):
    return space.random(*batch, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def concrete_operators(kind=LinearOperator):
    for sub in kind.__subclasses__():
        yield from concrete_operators(sub)
        if not inspect.isabstract(sub) and sub.__module__.startswith("invlearn.physics"):
            yield sub


def test_every_operator_class_is_registered():
    for module in pkgutil.walk_packages(invlearn.physics.__path__, "invlearn.physics."):
        importlib.import_module(module.name)
    registered = {type(part) for _, op in registry.examples() for part in op.modules()}
    assert set(concrete_operators()) - registered == set()


def test_names_are_unique_and_examples_seeded():
    assert len(registry.names()) == len(set(registry.names())) > 50
    with pytest.raises(ValueError, match="registered already"):
        registry.register("dense/real")(lambda g: identity((2,)))
    with pytest.raises(ValueError, match=r"no operator example 'nothing'; there are .*dense/real"):
        registry.example("nothing")
    x = elements(registry.example("dense/real").domain)
    first, again, other = (registry.example("dense/real", seed)(x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_and_linear(name, dtype):
    operator = registry.example(name)
    assert check_adjoint(operator, dtype=dtype)
    assert check_linear(operator, dtype=dtype)


@ALL
def test_adjoint_is_the_transposed_matrix(name, real_matrix, real_adjoint):
    operator = registry.example(name)
    assert_close(real_adjoint(operator), real_matrix(operator).T, atol=1e-12, rtol=1e-10)


@ALL
def test_normal(name):
    operator = registry.example(name)
    x = elements(operator.domain, 3)
    assert_close(operator.normal(x), operator.adjoint(operator(x)), atol=1e-11, rtol=1e-9)
    y = elements(operator.codomain, 3)
    assert_close(operator.H.normal(y), operator(operator.adjoint(y)), atol=1e-11, rtol=1e-9)


@ALL
def test_algebra(name, real_matrix):
    a = registry.example(name)
    m = real_matrix(a)
    same = {"atol": 1e-11, "rtol": 1e-9}
    if isinstance(a, Adjoint):
        assert a.H.H.H is a.H
    else:
        assert a.H.H is a
    assert (a.H.domain, a.H.codomain) == (a.codomain, a.domain)
    assert_close(real_matrix(a.H), m.T, **same)
    assert_close(real_matrix(a.H @ a), m.T @ m, **same)
    assert_close(real_matrix(a @ a.H), m @ m.T, **same)
    assert_close(real_matrix((a @ a.H @ a).H), (m @ m.T @ m).T, **same)
    assert_close(real_matrix(Composition(a.H, a).H), m.T @ m, **same)
    assert_close(real_matrix(a + 2 * a), 3 * m, **same)
    assert_close(real_matrix((a - 0.5 * a).H), 0.5 * m.T, **same)
    assert_close(real_matrix(-a / 4), -m / 4, **same)
    both = stack([a, -2 * a])
    assert_close(real_matrix(both), torch.cat([m, -2 * m]), **same)
    assert_close(real_matrix(both.H @ both), 5 * m.T @ m, **same)
    assert real_matrix(a.H @ a).shape == (m.shape[1],) * 2


@ALL
def test_derivatives(name):
    operator = registry.example(name)
    x, v = elements(operator.domain, 2), elements(operator.domain, 2, seed=2)
    y = elements(operator.codomain, 2, seed=3)
    value, pushed = torch.func.jvp(operator, (x,), (v,))
    assert_close(value, operator(x))
    assert_close(pushed, operator(v), atol=1e-11, rtol=1e-9)
    assert_close(torch.func.vjp(operator, x)[1](y)[0], operator.adjoint(y), atol=1e-11, rtol=1e-9)
    # and through reverse mode with a graph, as a training step does
    x.requires_grad_(True)
    out = operator(x)
    if out.requires_grad:
        out.backward(y)
        assert_close(x.grad, operator.adjoint(y).detach(), atol=1e-11, rtol=1e-9)
    else:
        assert name == "algebra/zero"
    assert operator.linearize(x[0].detach()) is operator


@ALL
def test_batch_dimensions(name):
    operator = registry.example(name)
    x = elements(operator.domain, 2, 3)
    with torch.no_grad():
        y = operator(x)
        assert y.shape == (2, 3, *operator.codomain.shape)
        assert y.dtype == operator.codomain.dtype(torch.float64)
        assert_close(y[1, 2], operator(x[1, 2]), atol=1e-12, rtol=1e-10)
        back = operator.adjoint(y)
        assert back.dtype == operator.domain.dtype(torch.float64)
        assert_close(back[0, 1], operator.adjoint(y[0, 1]), atol=1e-12, rtol=1e-10)


@ALL
def test_precision_is_kept(name):
    operator = registry.example(name)
    x = elements(operator.domain, 2)
    with torch.no_grad():
        exact = operator(x)
        single = operator(x.to(operator.domain.dtype(torch.float32)))
        assert single.dtype == operator.codomain.dtype(torch.float32)
        assert operator.adjoint(single).dtype == operator.domain.dtype(torch.float32)
        assert operator.normal(single_x(x)).dtype == operator.domain.dtype(torch.float32)
        assert_close(single.to(exact.dtype), exact, atol=2e-5, rtol=2e-5)
        # the module's own precision: complex parts stay complex
        converted = operator.to(torch.float32)
        assert_close(converted(x), exact, atol=2e-5, rtol=2e-5)


def single_x(x):
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


@ALL
def test_numpy_in_numpy_out(name):
    operator = registry.example(name)
    x = elements(operator.domain, 2)
    array = x.numpy()
    array.flags.writeable = False
    with torch.no_grad():
        for call, argument in (
            (operator, array),
            (operator.normal, array),
            (operator.adjoint, operator(x).numpy()),
        ):
            out = call(argument)
            assert isinstance(out, np.ndarray)
            np.testing.assert_array_equal(out, call(torch.tensor(argument)).numpy())


@ALL
def test_input_is_left_alone(name):
    operator = registry.example(name)
    x, y = elements(operator.domain, 2), elements(operator.codomain, 2)
    x0, y0 = x.clone(), y.clone()
    before = {k: v.clone() for k, v in operator.state_dict().items()}
    operator(x), operator.adjoint(y), operator.normal(x), operator.spectrum()
    assert torch.equal(x, x0)
    assert torch.equal(y, y0)
    assert all(torch.equal(before[k], v) for k, v in operator.state_dict().items())


@ALL
def test_wrong_shapes_and_kinds_are_refused(name):
    operator = registry.example(name)
    for call, space in ((operator, operator.domain), (operator.adjoint, operator.codomain)):
        x = elements(space)
        wrong = x.new_zeros(*space.shape[:-1], space.shape[-1] + 1)
        with pytest.raises(ValueError, match="expects") as caught:
            call(wrong)
        assert "\n" not in str(caught.value)
        assert str(tuple(wrong.shape)) in str(caught.value)
        if space.shape[-1] > 1:
            # torch would broadcast it
            with pytest.raises(ValueError, match="expects"):
                call(x[..., :1])
        with pytest.raises(TypeError, match="float16"):
            call(torch.zeros(space.shape, dtype=torch.float16))
        if not space.complex:
            with pytest.raises(ValueError, match="real data"):
                call(torch.zeros(space.shape, dtype=torch.complex64))


@ALL
def test_pickle(name):
    operator = registry.example(name)
    x = elements(operator.domain)
    again = pickle.loads(pickle.dumps(operator))
    assert torch.equal(again(x), operator(x))
    assert repr(again) == repr(operator)


@ALL
def test_state_dict(name):
    # Loaded into an operator with other numbers, except where the sparsity is part of the type.
    fixed = name.startswith("scipy/")
    operator, other = registry.example(name), registry.example(name, seed=0 if fixed else 5)
    x = elements(operator.domain)
    other.load_state_dict(operator.state_dict())
    assert torch.equal(other(x), operator(x))


@ALL
def test_other_device(name):
    if torch.cuda.is_available():
        device = torch.device("cuda")
    elif name.startswith(("scipy/", "sigpy/")):
        pytest.skip("calls NumPy, needs numbers")
    else:
        device = torch.device("meta")
    operator = registry.example(name)
    x = elements(operator.domain, 2)
    expected = operator(x).detach()
    back = operator.adjoint(expected).detach()
    moved = operator.to(device)
    there = moved(x.to(device)).detach()
    assert there.device.type == device.type
    assert moved.adjoint(there).device.type == device.type
    assert there.shape == expected.shape
    assert there.dtype == expected.dtype
    if device.type == "cuda":
        assert_close(there.cpu(), expected)
        assert_close(moved.adjoint(there).detach().cpu(), back)
        assert_close(moved.normal(x.to(device)).detach().cpu(), back)
        assert check_adjoint(moved)
        spectrum = moved.spectrum()
        assert spectrum is None or spectrum.values.device.type == moved.device.type


@ALL
def test_spectrum(name):
    operator = registry.example(name)
    spectrum = operator.spectrum()
    if spectrum is None:
        return
    assert spectrum.values.shape == operator.domain.shape
    assert spectrum.values.dtype == torch.float64
    # The normal operator in the basis: it must be diagonal there, with these eigenvalues.
    n = operator.domain.size
    assert not (operator.real_linear and operator.domain.complex)
    basis = operator.domain.unflatten(torch.eye(n, dtype=operator.domain.dtype(torch.float64)))
    normal = operator.domain.flatten(operator.normal(basis)).T.to(torch.complex128)
    if spectrum.basis == "fourier":
        axes = tuple(range(-operator.domain.ndim, 0))
        eye = operator.domain.unflatten(torch.eye(n, dtype=torch.complex128))
        f = torch.fft.fftn(eye, dim=axes, norm="ortho").reshape(n, n).T
        normal = f @ normal @ f.mH
    expected = torch.diag(spectrum.values.flatten()).to(torch.complex128)
    assert_close(normal, expected, atol=1e-11, rtol=1e-9)


SPECTRA = {
    "mask/3d": "pixel",
    "fourier/3d axes centred": "pixel",
    "fourier/real": "pixel",
    "cartesian mri/2d": "fourier",
    "cartesian mri/3d not centred": "fourier",
    "cartesian mri/2d coils": None,
    "cartesian mri/coils, full": "pixel",
    "blur/circular channels": "fourier",
    "blur/circular wraps": "fourier",
    "blur/circular complex": "fourier",
    "blur/valid 2d": None,
    "blur/replicate 2d": None,
    "difference/circular": "fourier",
    "difference/2d": None,
    "downsample/plain 2d": "pixel",
    "downsample/filtered 2d": None,
    "crop/2d centred": "pixel",
    "pad/2d centred": "pixel",
    "dense/real": None,
    "algebra/identity": "pixel",
    "algebra/zero": "pixel",
    "algebra/scaled": "pixel",
    "algebra/normal": "fourier",
    "algebra/composition diagonal": "pixel",
    "algebra/composition real to complex": None,
    "algebra/stack": "pixel",
    "algebra/stack fourier": "fourier",
    "algebra/stack two bases": None,
    "algebra/block diagonal unequal": "pixel",
    "algebra/block diagonal": None,
}


@pytest.mark.parametrize(("name", "basis"), SPECTRA.items())
def test_spectrum_is_known_where_it_should_be(name, basis):
    spectrum = registry.example(name).spectrum()
    assert (spectrum and spectrum.basis) == basis


@ALL
def test_to_dense(name):
    operator = registry.example(name)
    if operator.real_linear and operator.domain.complex:
        with pytest.raises(ValueError, match="over the reals only"):
            operator.to_dense()
        return
    matrix = operator.to_dense()
    assert matrix.shape == (operator.codomain.size, operator.domain.size)
    x = elements(operator.domain, 2)
    y = operator.codomain.flatten(operator(x))
    assert_close(operator.domain.flatten(x).to(matrix.dtype) @ matrix.T, y.to(matrix.dtype))
    assert operator.to_dense(torch.float32).dtype == single_x(matrix).dtype


@ALL
def test_to_scipy(name, real_matrix):
    operator = registry.example(name)
    out = to_scipy(operator)
    expected = real_matrix(operator) if operator.real_linear else operator.to_dense()
    expected = expected.detach().numpy()
    assert out.shape == expected.shape
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((out.shape[1], 3)), rng.standard_normal((out.shape[0], 3))
    np.testing.assert_allclose(out @ x, expected @ x, atol=1e-11)
    np.testing.assert_allclose(out.matvec(x[:, 0]), expected @ x[:, 0], atol=1e-11)
    np.testing.assert_allclose(out.H @ y, expected.conj().T @ y, atol=1e-11)
    np.testing.assert_allclose(out.rmatvec(y[:, 0]), expected.conj().T @ y[:, 0], atol=1e-11)
    assert to_scipy(operator, torch.float32).dtype in (np.float32, np.complex64)


@ALL
def test_text(name):
    operator = registry.example(name)
    assert str(operator.domain) in operator.label
    assert str(operator.codomain) in operator.label
    assert "\n" not in operator.label
    assert type(operator).__name__ in repr(operator)
